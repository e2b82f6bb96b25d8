"""host_disk on recorded tables, with a child that hangs, on mounts that really hang (FUSE), and against df(1)."""

import dataclasses
import errno
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from declared import undeclared
from recorded_host import RecordedHost, Rounds, Seen
from servers import program, until

from agent.errors import NoData
from agent.sources import Surroundings
from agent.sources._mount_probe import MAX_CHILDREN, PROGRAM, REST_SECONDS, MountProbe, Space
from agent.sources.host_disk import Config, Source, describe_space

HALF = Space(4096, 1000, 500, 500, 100, 75)
EMPTY_CHILD = (
    "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(b'4096 10 10 10 0 0\\n'); sys.stdout.flush()"
)
HANGING_CHILD = PROGRAM.replace(
    "for line in sys.stdin.buffer:",
    """import time
for line in sys.stdin.buffer:
    if b"dead" in bytes.fromhex(line.decode()): time.sleep(3600)""",
)


class Opening(Protocol):
    """Opens host_disk on the recorded tables."""

    def __call__(self, config: Config, spaces: "RecordedSpaces", child: str = ...) -> Rounds: ...


class RecordedSpaces:
    """Answers for the mounts of a recorded table, and who was asked."""

    def __init__(self, **refusals: int) -> None:
        self.asked: list[str] = []
        self._refusals = refusals

    def __call__(self, path: bytes) -> Space:
        name = os.fsdecode(path).rsplit("/", 1)[-1]
        self.asked.append(name)
        if name in self._refusals:
            raise OSError(self._refusals[name], os.strerror(self._refusals[name]))
        return HALF


def mounts(seen: Seen) -> list[str]:
    return sorted(key[1] for key in seen if key[0] == "filesystem")


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Opening]:
    opened: list[Rounds] = []

    def start(config: Config, spaces: RecordedSpaces, child: str = EMPTY_CHILD) -> Rounds:
        host = RecordedHost(tmp_path, "host_disk/first")
        opened.append(host.open("host_disk", lambda surroundings: Source(config, surroundings, spaces, child)))
        return opened[-1]

    yield start
    for rounds in opened:
        rounds.close()


# --- which mounts ---


def test_recorded_table_gives_each_disk_file_system_once_and_no_network_or_pseudo_one(recorded: Opening) -> None:
    spaces = RecordedSpaces()
    rounds = recorded(Config(), spaces)
    assert mounts(rounds.collect()) == [
        "/",
        "/boot/efi",
        "/mnt/pacs/local",
        "/srv/cluster",
        "/srv/scan archive",
        "/var/lib/pgsql",
    ]


def test_recorded_table_is_read_without_touching_what_may_hang(recorded: Opening) -> None:
    spaces = RecordedSpaces()
    rounds = recorded(Config(), spaces)
    rounds.collect()
    # not gfs2, which asks other nodes, and not the ext4 below the NFS mount: the way to it may hang
    assert spaces.asked == ["", "efi", "scan archive", "pgsql"]


def test_recorded_network_file_systems_are_asked_when_wanted_and_only_by_the_child(recorded: Opening) -> None:
    spaces = RecordedSpaces()
    rounds = recorded(Config(network_filesystems=True, include_mounts=("/mnt/*", "/home/*")), spaces)
    assert mounts(rounds.collect()) == ["/home/op/remote", "/mnt/pacs", "/mnt/pacs/local"]
    assert spaces.asked == []


def test_recorded_tmpfs_and_patterns_choose_the_mounts(recorded: Opening) -> None:
    config = Config(
        tmpfs=True, include_mounts=("/", "/run", "/srv/*"), exclude_mounts=("*archive",), exclude_types=("gfs2",)
    )
    # without /var/lib/pgsql the shortest mount point of its device is the copy
    assert mounts(recorded(config, RecordedSpaces()).collect()) == ["/", "/run", "/srv/pg-copy"]


def test_recorded_table_that_changes_is_chosen_anew(recorded: Opening, tmp_path: Path) -> None:
    rounds = recorded(Config(include_mounts=("/boot*", "/data")), RecordedSpaces())
    assert mounts(rounds.collect()) == ["/boot/efi"]
    with (tmp_path / "proc/self/mountinfo").open("a") as table:
        table.write("40 24 8:33 / /data rw,relatime shared:50 - ext4 /dev/sdc1 rw\n")
    assert mounts(rounds.collect()) == ["/boot/efi", "/data"]


def test_recorded_mount_over_another_hides_it(recorded: Opening, tmp_path: Path) -> None:
    rounds = recorded(Config(include_mounts=("/boot/efi",)), RecordedSpaces())
    with (tmp_path / "proc/self/mountinfo").open("a") as table:
        table.write("40 26 0:60 / /boot/efi rw,relatime shared:50 - nfs 10.0.0.5:/efi rw\n")
    assert mounts(rounds.collect()) == []


# --- what is said of a file system ---


def test_recorded_file_system_has_space_inodes_and_whether_it_became_read_only(recorded: Opening) -> None:
    rounds = recorded(Config(include_mounts=("/", "/srv/scan archive")), RecordedSpaces())
    fields = {
        "used_ratio": 0.5,
        "inodes_used_ratio": 0.25,
        "size_bytes": 4_096_000.0,
        "used_bytes": 2_048_000.0,
        "is_responding": True,
    }
    seen = rounds.collect()
    assert seen[("filesystem", "/")] == fields | {"is_read_only": False}
    assert seen[("filesystem", "/srv/scan archive")] == fields | {"is_read_only": True}


def test_blocks_kept_for_root_are_neither_used_nor_free() -> None:
    assert describe_space(Space(4096, 1000, 250, 200, 0, 0)) == {
        "used_ratio": 750 / 950,
        "size_bytes": 4_096_000.0,
        "used_bytes": 3_072_000.0,
    }


def test_recorded_refusal_of_the_disk_is_no_response_and_one_of_rights_is_no_reading(recorded: Opening) -> None:
    spaces = RecordedSpaces(efi=5, pgsql=13)  # EIO, EACCES
    rounds = recorded(Config(include_mounts=("/boot/efi", "/var/lib/pgsql")), spaces)
    assert {key: fields for key, fields in rounds.collect().items() if key[0] == "filesystem"} == {
        ("filesystem", "/boot/efi"): {"is_responding": False}
    }


# --- disks ---


def test_recorded_disks_have_rates_from_the_second_round_and_partitions_have_none(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_disk/first")
    config = Config(include_mounts=("/",))
    rounds = host.open("host_disk", lambda surroundings: Source(config, surroundings, RecordedSpaces()))
    assert [key for key in rounds.collect() if key[0] == "disk_device"] == []
    host.lay("host_disk/second")
    host.now += 10.0
    disks = {key[1]: fields for key, fields in rounds.collect().items() if key[0] == "disk_device"}
    idle = {"read_bytes_per_second": 0.0, "write_bytes_per_second": 0.0, "busy_ratio": 0.0}
    # nvme0n1 was connected anew: what it read fell, so what it wrote is no rate either
    assert disks == {
        "sda": {"read_bytes_per_second": 104_857.6, "write_bytes_per_second": 1_048_576.0, "busy_ratio": 0.25},
        "cciss/c0d0": idle,
    }


def test_recorded_machine_without_mounts_and_disks_has_no_data(recorded: Opening) -> None:
    config = Config(include_mounts=(), exclude_devices=("*",))
    with pytest.raises(NoData, match=r"文件系统|file system"):
        recorded(config, RecordedSpaces()).collect()


# --- what hangs ---


@pytest.fixture
def clock() -> Iterator[list[float]]:
    yield [0.0]


@pytest.fixture
def probe(clock: list[float]) -> Iterator[MountProbe]:
    """One with much patience: a busy machine may take its time to start the child."""
    probe = MountProbe(60.0, lambda: clock[0], HANGING_CHILD)
    yield probe
    probe.close()


def measure_dead(probe: MountProbe, path: bytes) -> None:
    """Ask, without patience, for a mount that does not answer."""
    patience, probe._timeout_seconds = probe._timeout_seconds, 0.5
    try:
        probe.measure(path)
    finally:
        probe._timeout_seconds = patience


def test_child_tells_what_statvfs_tells_here(probe: MountProbe, tmp_path: Path) -> None:
    here = os.statvfs(tmp_path)
    space = probe.measure(os.fsencode(tmp_path))
    assert (space.block_bytes, space.blocks, space.inodes) == (here.f_frsize, here.f_blocks, here.f_files)


def test_child_passes_on_what_the_kernel_refuses(probe: MountProbe, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe.measure(os.fsencode(tmp_path / "away"))


def test_mount_that_hangs_is_killed_and_the_next_one_answers(probe: MountProbe, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        measure_dead(probe, b"/dead")
    assert probe.measure(os.fsencode(tmp_path)).blocks > 0


def test_mount_that_hung_is_asked_again_only_after_a_rest(
    probe: MountProbe, clock: list[float], tmp_path: Path
) -> None:
    later = tmp_path / "dead"
    with pytest.raises(TimeoutError, match="in time"):
        measure_dead(probe, os.fsencode(later))
    until(lambda: all(silent.child.poll() is not None for silent in probe._silent.values()))
    with pytest.raises(TimeoutError, match="left alone"):
        measure_dead(probe, os.fsencode(later))
    clock[0] += REST_SECONDS
    with pytest.raises(TimeoutError, match="in time"):
        measure_dead(probe, os.fsencode(later))


def test_child_that_was_killed_by_others_is_replaced(probe: MountProbe, tmp_path: Path) -> None:
    probe.measure(os.fsencode(tmp_path))
    first = probe._child
    assert first is not None
    first.kill()
    first.wait()
    assert probe.measure(os.fsencode(tmp_path)).blocks > 0


def test_child_that_ends_without_an_answer_says_nothing_about_the_mount(clock: list[float], tmp_path: Path) -> None:
    probe = MountProbe(60.0, lambda: clock[0], "import sys; sys.stdin.buffer.readline()")
    with pytest.raises(BlockingIOError, match="ended"):
        probe.measure(os.fsencode(tmp_path))
    probe.close()


class Unkillable(subprocess.Popen[bytes]):
    """A child in uninterruptible sleep as its parent sees it: SIGKILL is sent, and nothing happens."""

    def kill(self) -> None:
        pass

    def let_go(self) -> None:
        """What the kernel does when the disk answers after all: the signal that waits ends the child."""
        super().kill()
        self.wait()


class ProbeOfUnkillables(MountProbe):
    """Asks through children that cannot be killed."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__(60.0, lambda: clock[0])
        self.started: list[Unkillable] = []

    def _start_child(self) -> subprocess.Popen[bytes]:
        child = Unkillable(
            [sys.executable, "-I", "-S", "-c", HANGING_CHILD],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.started.append(child)
        return child


@pytest.fixture
def unkillable(clock: list[float]) -> Iterator[ProbeOfUnkillables]:
    probe = ProbeOfUnkillables(clock)
    yield probe
    for child in probe.started:
        child.let_go()
    probe.close()


def test_stand_in_for_a_mount_whose_asker_cannot_be_killed_is_left_alone_until_the_kernel_lets_go(
    unkillable: ProbeOfUnkillables, clock: list[float], tmp_path: Path
) -> None:
    with pytest.raises(TimeoutError, match="in time"):
        measure_dead(unkillable, b"/dead")
    assert unkillable.measure(os.fsencode(tmp_path)).blocks > 0, "another child asks the others"
    clock[0] += 10 * REST_SECONDS
    with pytest.raises(TimeoutError, match="left alone"):
        measure_dead(unkillable, b"/dead")
    assert len(unkillable.started) == 2
    unkillable.started[0].let_go()
    with pytest.raises(TimeoutError, match="in time"):
        measure_dead(unkillable, b"/dead")
    assert len(unkillable.started) == 2, "the living child asked"


def test_stand_in_for_mounts_that_hang_in_numbers_costs_a_bounded_number_of_children(
    unkillable: ProbeOfUnkillables, clock: list[float]
) -> None:
    for number in range(MAX_CHILDREN):
        with pytest.raises(TimeoutError, match="in time"):
            measure_dead(unkillable, f"/dead{number}".encode())
    clock[0] += REST_SECONDS
    with pytest.raises(BlockingIOError, match="too many children hang"):
        measure_dead(unkillable, b"/dead-too")
    assert [child.poll() for child in unkillable.started] == [None] * MAX_CHILDREN


STAND_INS = "test_mount_that_hung_is_asked_again_only_after_a_rest, test_stand_in_for_*"


def test_recorded_dead_mount_is_not_responding_and_all_others_are_measured_in_the_same_round(recorded: Opening) -> None:
    child = HANGING_CHILD.replace('b"dead"', 'b"/mnt/pacs"').replace("os.statvfs(bytes", "os.statvfs(b'/' or bytes")
    config = Config(
        network_filesystems=True, deadline_seconds=25, include_mounts=("/", "/mnt/pacs", "/home/*", "/srv/cluster")
    )
    rounds = recorded(config, RecordedSpaces(), child)
    seen = rounds.collect()
    assert seen[("filesystem", "/mnt/pacs")] == {"is_responding": False}
    assert {name: seen[("filesystem", name)]["is_responding"] for name in mounts(seen) if name != "/mnt/pacs"} == {
        "/": True,
        "/home/op/remote": True,
        "/srv/cluster": True,
    }


def test_recorded_mounts_that_may_hang_wait_for_the_next_round_when_time_is_short(tmp_path: Path) -> None:
    clock = itertools.count(0, 10)
    rounds = RecordedHost(tmp_path, "host_disk/first").open(
        "host_disk",
        lambda surroundings: Source(
            Config(), dataclasses.replace(surroundings, monotonic=lambda: float(next(clock))), RecordedSpaces()
        ),
    )
    assert mounts(rounds.collect()) == ["/", "/boot/efi", "/srv/scan archive", "/var/lib/pgsql"]


def in_own_mount_namespace(*words: str) -> subprocess.CompletedProcess[str]:
    """Python with these words where it may mount what it likes."""
    tests = Path(__file__).parents[2]
    rights = "-m" if os.geteuid() == 0 else "-Urm"
    argv = [program("unshare", "util-linux"), rights, sys.executable, *words]
    environment = {"PYTHONPATH": f"{tests}:{tests.parent}", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, env=environment, check=False)


def lack_of_mounts(folder: Path) -> str | None:
    """What of this kernel, or of the container, forbids a FUSE mount; None when it works or fails for another reason."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there or not for us"
    mount = "import pathlib, sys, hanging_mount\nwith hanging_mount.HangingMount(pathlib.Path(sys.argv[1])): pass"
    said = in_own_mount_namespace("-c", mount, str(folder / "possible")).stderr.strip()
    is_forbidden = any(os.strerror(number) in said for number in (errno.EPERM, errno.EACCES, errno.ENODEV))
    return said.splitlines()[-1] if is_forbidden else None


def rounds_on_hanging_mounts(folder: Path, how: str) -> list[Mapping[str, Any]]:
    """What host_disk saw, round by round, beside a mount that hangs, in a mount namespace of its own."""
    if lack := lack_of_mounts(folder):
        pytest.skip(f"the kernel lacks what a hanging mount needs ({lack}); its stand-ins test the same: {STAND_INS}")
    script = str(Path(__file__).with_name("rounds_on_hanging_mounts.py"))
    done = in_own_mount_namespace(script, str(folder), how)
    assert done.returncode == 0, done.stderr
    found: list[Mapping[str, Any]] = json.loads(done.stdout)
    return found


MEMORY = {
    "used_ratio": 0.25,
    "inodes_used_ratio": 0.02,
    "size_bytes": 16_777_216.0,
    "used_bytes": 4_194_304.0,
    "is_read_only": False,
    "is_responding": True,
}
ALIVE = {
    "used_ratio": 0.25,
    "inodes_used_ratio": 0.2,
    "size_bytes": 4_096_000.0,
    "used_bytes": 1_024_000.0,
    "is_read_only": False,
    "is_responding": True,
}
BESIDE_A_DEAD_ONE = {"alive": ALIVE, "dead": {"is_responding": False}, "memory": MEMORY}
ALL_ANSWER = {"alive": ALIVE, "dead": ALIVE, "memory": MEMORY}


def test_real_mount_that_hangs_costs_one_killed_child_and_comes_back_after_a_rest(tmp_path: Path) -> None:
    rounds = rounds_on_hanging_mounts(tmp_path, "untaken")
    assert [one["mounts"] for one in rounds] == [BESIDE_A_DEAD_ONE, BESIDE_A_DEAD_ONE, BESIDE_A_DEAD_ONE, ALL_ANSWER]


def test_real_mount_whose_asker_cannot_be_killed_is_left_alone_until_the_kernel_lets_go(tmp_path: Path) -> None:
    rounds = rounds_on_hanging_mounts(tmp_path, "taken")
    assert [one["mounts"] for one in rounds] == [BESIDE_A_DEAD_ONE, BESIDE_A_DEAD_ONE, BESIDE_A_DEAD_ONE, ALL_ANSWER]
    assert [one["children"] for one in rounds] == [1, 2, 2, 1]  # the hanging one, and one that asks the others


def test_real_mounts_that_hang_in_numbers_cost_a_bounded_number_of_children(tmp_path: Path) -> None:
    rounds = rounds_on_hanging_mounts(tmp_path, "many")
    dead = {f"dead{number}": {"is_responding": False} for number in range(MAX_CHILDREN)}
    assert MAX_CHILDREN == 4
    assert rounds == [{"mounts": dead, "children": 4}] * 2  # of the other two nothing is claimed


# --- this machine ---


def test_this_machines_shared_memory_has_the_size_that_df_shows() -> None:
    source = Source(Config(tmpfs=True, include_mounts=("/dev/shm",)), Surroundings("here"))
    readings = list(source.collect())
    assert undeclared("host_disk", readings) == []
    command = [program("df", "coreutils"), "--output=size,used", "-B1", "/dev/shm"]
    size, used = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    fields = readings[0].fields
    assert fields["size_bytes"] == float(size)
    assert fields["used_bytes"] == pytest.approx(float(used), abs=float(size) / 20)


def test_where_there_is_no_proc_psutil_tells_volumes_and_disks() -> None:
    now = 0.0
    source = Source(Config(), Surroundings("mac", monotonic=lambda: now, system="darwin"))
    list(source.collect())
    now += 1.0
    readings = list(source.collect())
    assert undeclared("host_disk", readings) == []
    assert {reading.name for reading in readings} >= {"disk_device"}
