"""A real MariaDB of Debian: single servers, or a Galera cluster of three, on free loopback ports, as the user mysql."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import answers, free_port, program, until

SETTINGS = """
[mysqld]
user=mysql
datadir={folder}/{name}
port={port}
bind-address=127.0.0.1
socket={folder}/{name}.sock
pid-file={folder}/{name}.pid
log-error={folder}/{name}.err
server_id={number}
log_bin={name}-bin
binlog_format=ROW
default_storage_engine=InnoDB
innodb_autoinc_lock_mode=2
innodb_buffer_pool_size=16M
innodb_log_file_size=4M
innodb_flush_log_at_trx_commit=2
performance_schema=OFF
skip-name-resolve
"""

WSREP = """
wsrep_on=ON
wsrep_provider=/usr/lib/galera/libgalera_smm.so
wsrep_cluster_name=hosp
wsrep_cluster_address=gcomm://{peers}
wsrep_node_name={name}
wsrep_node_address=127.0.0.1:{cluster_port}
wsrep_provider_options="gmcast.listen_addr=tcp://127.0.0.1:{cluster_port};ist.recv_addr=127.0.0.1:{ist_port};evs.suspect_timeout=PT2S;evs.keepalive_period=PT0.5S;evs.inactive_timeout=PT6S;evs.install_timeout=PT5S;gcache.size=16M"
wsrep_sst_method=rsync
wsrep_sst_receive_address=127.0.0.1:{sst_port}
"""

GRANTS = """
CREATE DATABASE his;
CREATE USER infravitals@'%' IDENTIFIED BY 'right';
GRANT SLAVE MONITOR, BINLOG MONITOR ON *.* TO infravitals@'%';
CREATE TABLE his.infravitals_token (stream varchar(64), number bigint, sent_at double, PRIMARY KEY (stream, number)) ENGINE=InnoDB;
GRANT SELECT, INSERT, DELETE ON his.infravitals_token TO infravitals@'%';
CREATE USER nobody_special@'%' IDENTIFIED BY 'right';
"""


class Server:
    """One server with its data in `folder`."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.number, self.port = name, number, free_port()
        self.cluster_port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def configure(self, more: str = "") -> None:
        settings = SETTINGS.format(folder=self._folder, name=self.name, port=self.port, number=self.number)
        (self._folder / f"{self.name}.cnf").write_text(settings + more)

    def start(self, *words: str, ahead_seconds: int = 0) -> None:
        """ahead_seconds: how far its clock is before the machine's, by libfaketime."""
        faked: dict[str, str] = {}
        if ahead_seconds:
            library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
            assert library, "libfaketime is not installed: apt-get install -y --no-install-recommends libfaketime"
            faked = {"LD_PRELOAD": str(library), "FAKETIME": f"{ahead_seconds:+d}s", "DONT_FAKE_MONOTONIC": "1"}
            faked["FAKETIME_DISABLE_SHM"] = "1"
        command = [program("mariadbd", "mariadb-server"), f"--defaults-file={self._folder}/{self.name}.cnf", *words]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **faked},
        )

    def wait(self, question: str = "SELECT 1", answer: str = "1") -> None:
        def is_ready() -> bool:
            assert self._process is not None and self._process.poll() is None, self.errors()
            return answers(self.port) and self.sql(question, is_checked=False) == [answer]

        until(is_ready, 120)

    def errors(self) -> str:
        file = self._folder / f"{self.name}.err"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    def kill(self) -> None:
        """kill -9, as a power cut does it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(60)

    def signal(self, how: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, how)

    def sql(self, text: str, *, is_checked: bool = True) -> list[str]:
        """The rows of statements by the administrator."""
        client = [program("mariadb", "mariadb-client"), "--no-defaults", "-S", f"{self._folder}/{self.name}.sock"]
        done = subprocess.run(
            [*client, "-uroot", "-Nse", text], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0 or not is_checked, f"{text}: {done.stderr}"
        return done.stdout.split("\n")[:-1]

    def numbers(self, stream: str) -> set[int]:
        """The tokens of a stream that are here."""
        return {int(row) for row in self.sql(f"SELECT number FROM his.infravitals_token WHERE stream = '{stream}'")}


@contextmanager
def _place(*names: str) -> Iterator[list[Server]]:
    """Servers whose data is made once and copied."""
    folder = Path(tempfile.mkdtemp(prefix="infravitals-my-"))
    shutil.chown(folder, "mysql", "mysql")
    servers = [Server(name, number, folder) for number, name in enumerate(names, 1)]
    first = folder / names[0]
    install = [program("mariadb-install-db", "mariadb-server"), "--no-defaults", "--user=mysql", f"--datadir={first}"]
    try:
        subprocess.run(
            [*install, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, capture_output=True
        )
        for name in names[1:]:
            subprocess.run(["cp", "-a", first, folder / name], check=True)
        yield servers
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replica_pair(ahead_seconds: int = 0) -> Iterator[tuple[Server, Server]]:
    """A master and its replica, whose clock is so much before the master's."""
    with _place("db-a", "db-b") as (master, replica):
        for server, ahead in ((master, 0), (replica, ahead_seconds)):
            server.configure()
            server.start(ahead_seconds=ahead)
        for server in (master, replica):
            server.wait()
        master.sql("CREATE USER copy@'%' IDENTIFIED BY 'copy'; GRANT REPLICATION SLAVE ON *.* TO copy@'%'")
        replica.sql(
            f"CHANGE MASTER TO master_host='127.0.0.1', master_port={master.port}, master_user='copy', "
            "master_password='copy', master_use_gtid=slave_pos; START SLAVE; SET GLOBAL read_only=1"
        )
        master.sql(GRANTS)
        until(lambda: replica.sql("SELECT count(*) FROM mysql.user WHERE user='nobody_special'") == ["1"])
        yield master, replica


@contextmanager
def lone_server(settings: str) -> Iterator[Server]:
    """One server with these settings more; the rights are given."""
    with _place("db-a") as [server]:
        server.configure(settings)
        server.start()
        server.wait()
        server.sql(GRANTS)
        yield server


@contextmanager
def galera_cluster() -> Iterator[list[Server]]:
    """Three nodes, whole and in step."""
    with _place("n1", "n2", "n3") as nodes:
        peers = ",".join(f"127.0.0.1:{node.cluster_port}" for node in nodes)
        for node in nodes:
            ports = {"cluster_port": node.cluster_port, "ist_port": free_port(), "sst_port": free_port()}
            node.configure(WSREP.format(peers=peers, name=node.name, **ports))
        nodes[0].start("--wsrep-new-cluster")
        nodes[0].wait("SHOW STATUS LIKE 'wsrep_ready'", "wsrep_ready\tON")
        nodes[0].sql(GRANTS)
        for node in nodes[1:]:
            node.start()
            node.wait("SHOW STATUS LIKE 'wsrep_ready'", "wsrep_ready\tON")
        for node in nodes:
            node.wait("SHOW STATUS LIKE 'wsrep_cluster_size'", "wsrep_cluster_size\t3")
        yield nodes
