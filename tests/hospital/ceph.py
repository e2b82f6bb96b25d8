"""A real Ceph of Debian on free loopback ports: one monitor, one manager, disks kept in memory; no kernel part, no root folder of the system's."""

import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_port, program, until

SETTINGS = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}
admin socket = {folder}/$name.asok
pid file =
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
log max recent = 100
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
mon data avail crit = 1
mon data avail warn = 1
mon osd min down reporters = 1
mon osd down out interval = 0
osd heartbeat grace = 4
osd heartbeat interval = 1
osd objectstore = memstore
osd class load list =
memstore device bytes = 67108864
osd crush chooseleaf type = 0
osd pool default size = 2
osd pool default min size = 1
osd pool default pg autoscale mode = off
mgr stats period = 1
mgr initial modules =
"""


class Cluster:
    """Disks are named by number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.file, self.keyring = folder / "ceph.conf", folder / "reader.keyring"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *words: str) -> str:
        """What `ceph` prints for the administrator."""
        command = [program("ceph", "ceph-common"), "-c", self.file, "--connect-timeout", "20", *words]
        return self._do(*command)

    def build(self, disks: int) -> None:
        fsid = str(uuid.uuid4())
        self.file.write_text(SETTINGS.format(fsid=fsid, port=self.port, folder=self.folder))
        keys = [program("ceph-authtool", "ceph-common"), self.folder / "keyring", "--gen-key"]
        self._do(*keys, "--create-keyring", "-n", "mon.", "--cap", "mon", "allow *")
        powers = [word for name in ("mon", "osd", "mgr") for word in ("--cap", name, "allow *")]
        self._do(*keys, "-n", "client.admin", *powers)
        monmap = self.folder / "monmap"
        where = f"[v2:127.0.0.1:{self.port}]"
        self._do(program("monmaptool", "ceph-common"), "--create", "--fsid", fsid, "--addv", "a", where, monmap)
        mon = [program("ceph-mon", "ceph-mon"), "-c", self.file, "-i", "a", "--mon-data", self.folder / "mon"]
        (self.folder / "mon").mkdir()
        self._do(*mon, "--mkfs", "--monmap", monmap, "--keyring", self.folder / "keyring")
        self._start("mon", *mon, "-f")
        self._start_manager()
        for number in range(disks):
            self._add_disk(number)
        self.run("osd", "pool", "create", "images", "8")
        rights = ("mon", "allow r", "mgr", "allow r")
        self.run("auth", "get-or-create", "client.infravitals", *rights, "-o", str(self.keyring))
        self.run("auth", "get-or-create", "client.nobody", "-o", str(self.folder / "nobody.keyring"))

    def start_disk(self, number: int) -> None:
        words = [program("ceph-osd", "ceph-osd"), "-c", self.file, "-i", str(number), *self._disk_data(number)]
        self._start(f"osd.{number}", *words, "-f")

    def end(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End one daemon and wait until it is gone."""
        process = self._processes.pop(name)
        process.send_signal(how)
        process.wait(60)

    def end_all(self) -> None:
        for name in list(self._processes):
            self.end(name)

    def freeze(self, name: str, *, is_frozen: bool) -> None:
        """As a machine that hangs: it accepts and never answers."""
        os.kill(self._processes[name].pid, signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def _start_manager(self) -> None:
        folder = self.folder / "mgr"
        folder.mkdir()
        rights = ("mon", "allow profile mgr", "osd", "allow *")
        self.run("auth", "get-or-create", "mgr.x", *rights, "-o", str(folder / "keyring"))
        words = ["-c", self.file, "-i", "x", "--mgr-data", folder, "--keyring", folder / "keyring", "-f"]
        self._start("mgr", program("ceph-mgr", "ceph-mgr"), *words)

    def _add_disk(self, number: int) -> None:
        folder = self.folder / f"osd-{number}"
        folder.mkdir()
        own = str(uuid.uuid4())
        assert int(self.run("osd", "new", own)) == number
        rights = ("mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd")
        self.run("auth", "get-or-create", f"osd.{number}", *rights, "-o", str(folder / "keyring"))
        make = [program("ceph-osd", "ceph-osd"), "-c", self.file, "-i", str(number), *self._disk_data(number)]
        self._do(*make, "--mkfs", "--osd-uuid", own)
        self.start_disk(number)

    def is_clean(self) -> bool:
        """Whether all placement groups are there; the manager may have made one more of its own, in a pool for itself."""
        states = json.loads(self.run("status", "--format", "json"))["pgmap"].get("pgs_by_state", [])
        return [one["state_name"] for one in states] == ["active+clean"] and states[0]["count"] >= 8

    def _disk_data(self, number: int) -> list[str | Path]:
        folder = self.folder / f"osd-{number}"
        return ["--osd-data", folder, "--keyring", folder / "keyring"]

    def _start(self, name: str, *words: str | Path) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                list(map(str, words)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _do(self, *words: str | Path) -> str:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def ceph_cluster(folder: Path, disks: int = 2) -> Iterator[Cluster]:
    """A cluster whose groups are clean."""
    cluster = Cluster(folder)
    try:
        cluster.build(disks)
        until(cluster.is_clean, 180)
        yield cluster
    finally:
        with contextlib.suppress(ProcessLookupError):
            cluster.end_all()
