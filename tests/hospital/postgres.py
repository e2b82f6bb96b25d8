"""A real PostgreSQL of Debian: servers of their own on free loopback ports, as the user postgres."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from servers import answers, free_port, until

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
wal_level = replica
max_wal_senders = 5
hot_standby = on
cluster_name = '{name}'
shared_buffers = '16MB'
wal_sender_timeout = '5s'
wal_retrieve_retry_interval = '500ms'
fsync = off
full_page_writes = off
"""

GRANTS = """
CREATE ROLE infravitals LOGIN PASSWORD 'right' CONNECTION LIMIT 16;
GRANT pg_monitor TO infravitals;
CREATE TABLE infravitals_token (stream text, number bigint, sent_at double precision, PRIMARY KEY (stream, number));
GRANT SELECT, INSERT, DELETE ON infravitals_token TO infravitals;
CREATE ROLE nobody_special LOGIN PASSWORD 'right';
"""


def binary(name: str) -> str:
    """A program of the server, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert found, f"{name} is not installed: apt-get install -y --no-install-recommends postgresql"
    return str(found[-1])


def as_postgres(*argv: str | Path, folder: Path) -> str:
    """Run a program as postgres to its end."""
    command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *map(str, argv)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended, before it was asked or while
        return []


def _title(pid: int) -> str:
    """What `ps` shows of a process; empty of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _send(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


class Server:
    """One server with its data in `folder`."""

    def __init__(self, name: str, folder: Path, data: Path | None = None) -> None:
        self.name, self.port = name, free_port()
        self.data = data or folder / name
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def configure(self, more: str = "") -> None:
        settings = SETTINGS.format(port=self.port, folder=self._folder, name=self.name) + more
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(settings)

    def start(self, ahead_seconds: int = 0) -> None:
        """ahead_seconds: how far its clock is before the machine's, by libfaketime."""
        faked: list[str] = []
        if ahead_seconds:
            library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
            assert library, "libfaketime is not installed: apt-get install -y --no-install-recommends libfaketime"
            settings = (
                f"LD_PRELOAD={library}",
                f"FAKETIME={ahead_seconds:+d}s",
                "DONT_FAKE_MONOTONIC=1",
                "FAKETIME_DISABLE_SHM=1",
            )
            faked = ["env", *settings]  # behind setpriv, which is root still and would leave its files to nobody
        log = (self._folder / f"{self.name}.log").open("ab")
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *faked, binary("postgres"), "-D"]
        self._process = subprocess.Popen(
            [*command, str(self.data)], cwd=self._folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()
        until(lambda: answers(self.port) and self.is_ready())

    def is_ready(self) -> bool:
        command = [binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def pids(self) -> list[int]:
        """The server and its children."""
        assert self._process is not None
        return [self._process.pid, *_children(self._process.pid)]

    def child(self, words: str) -> int:
        """The one child whose title holds `words`: waits while there is none, or one that ends beside its successor."""
        found: list[int] = []

        def is_alone() -> bool:
            found[:] = [pid for pid in self.pids() if words in _title(pid)]
            return len(found) == 1

        until(is_alone)
        return found[0]

    def kill(self) -> None:
        """kill -9 of the whole server at once, as a power cut does it."""
        process, self._process = self._process, None
        if process is None:
            return
        for how in (signal.SIGSTOP, signal.SIGKILL):
            for pid in [process.pid, *_children(process.pid)][:: 1 if how is signal.SIGSTOP else -1]:
                _send(pid, how)
        process.wait(60)

    def signal(self, how: signal.Signals) -> None:
        """To the server and its children."""
        for pid in self.pids():
            _send(pid, how)

    def freeze(self) -> None:
        """It accepts and does not answer."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """As an administrator stops it: what is written goes out to the standby first."""
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGINT)
        process.wait(60)

    def sql(self, text: str) -> list[str]:
        """The rows of a statement by the administrator, columns apart by |."""
        words = ["-X", "-A", "-t", "-q", "-h", str(self._folder), "-p", str(self.port), "-d", "postgres", "-c", text]
        return as_postgres(binary("psql"), *words, folder=self._folder).split("\n")[:-1]

    def numbers(self, stream: str) -> set[int]:
        """The tokens of a stream that are here."""
        return {int(row) for row in self.sql(f"SELECT number FROM infravitals_token WHERE stream = '{stream}'")}


@contextmanager
def postgres_pair(*, is_synchronous: bool) -> Iterator[tuple[Server, Server]]:
    """A primary and its streaming standby."""
    folder = Path(tempfile.mkdtemp(prefix="infravitals-pg-"))
    shutil.chown(folder, "postgres", "postgres")
    primary, standby = Server("db-a", folder), Server("db-b", folder)
    try:
        as_postgres(
            *(binary("initdb"), "-D", primary.data, "-A", "trust", "-U", "postgres", "--no-sync"), folder=folder
        )
        hba = "local all all trust\nhost replication postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (primary.data / "pg_hba.conf").write_text(hba)
        primary.configure()
        primary.start()
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
        as_postgres(
            *(binary("pg_basebackup"), *source, "-D", standby.data, "-R", "-X", "stream", "-C", "-S", "standby1"),
            *("--no-sync", "--checkpoint=fast"),
            folder=folder,
        )
        standby.configure()
        standby.start()
        for statement in filter(str.strip, GRANTS.split(";\n")):
            primary.sql(statement)
        if is_synchronous:
            primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.sql("SELECT pg_reload_conf()")
        until(lambda: primary.sql("SELECT state FROM pg_stat_replication") == ["streaming"])
        until(lambda: standby.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'nobody_special'") == ["1"])
        yield primary, standby
    finally:
        for server in (primary, standby):
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def promote(standby: Server) -> float:
    """Promote; when it left recovery, to 10 ms."""
    standby.sql("SELECT pg_promote(false)")
    found: list[float] = []

    def is_promoted() -> bool:
        found.append(time.time())
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)

    folder = str(standby.data.parent)
    with psycopg.connect(
        host=folder, port=standby.port, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        until(is_promoted)
    return found[-1]


def return_home(old: Server, survivor: Server) -> None:
    """The dead server is built anew from the survivor, follows it, and takes over again; the survivor is stopped."""
    shutil.rmtree(old.data)
    source = ("-h", "127.0.0.1", "-p", str(survivor.port), "-U", "postgres")
    slot = ("-R", "-X", "stream", "-C", "-S", "again", "--no-sync", "--checkpoint=fast")
    as_postgres(binary("pg_basebackup"), *source, "-D", old.data, *slot, folder=old.data.parent)
    old.configure()
    old.start()
    until(lambda: survivor.sql("SELECT state FROM pg_stat_replication") == ["streaming"])
    survivor.stop()
    old.sql("SELECT pg_promote()")


def numbers_on_disk(dead: Server) -> set[int]:
    """What a killed server had written: it is started again, alone, on another port."""
    again = Server(dead.name, dead.data.parent, dead.data)
    with (dead.data / "postgresql.conf").open("a") as file:
        file.write(f"port = {again.port}\nsynchronous_standby_names = ''\n")
    (dead.data / "postgresql.auto.conf").write_text("")
    again.start()
    try:
        return {int(row) for row in again.sql("SELECT number FROM infravitals_token")}
    finally:
        again.kill()
