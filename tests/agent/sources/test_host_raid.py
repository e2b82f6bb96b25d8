"""host_raid on recorded md files (the kernel here has no md) and on a real btrfs mirror of two loop devices."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from declared import undeclared
from servers import program

from agent.errors import NoData, SourceError
from agent.sources import Surroundings
from agent.sources.host_raid import Config, Source

RECORDED = Path(__file__).parent / "recorded_host_raid"

Row = tuple[object, ...]
"""members, healthy, required, is_redundant, is_healthy"""


def look(root: Path) -> Mapping[str, Row]:
    readings = Source(Config(), Surroundings("his-db", root=root)).collect()
    assert undeclared("host_raid", readings) == []
    assert {reading.tags["kind"] for reading in readings} == {"raid"}
    names = ("members_count", "healthy_count", "required_count", "is_redundant", "is_healthy")
    return {reading.tags["group"]: tuple(reading.fields.get(name) for name in names) for reading in readings}


def test_recorded_whole_arrays_are_healthy_and_may_lose_what_their_level_allows() -> None:
    assert look(RECORDED / "whole") == {
        "md0": (2.0, 2.0, 1.0, True, True),
        "md1": (3.0, 3.0, 2.0, True, True),
        "md2": (4.0, 4.0, 2.0, True, True),
        "md3": (4.0, 4.0, 3.0, True, True),  # being checked, which is no illness
        "md4": (2.0, 2.0, 2.0, False, True),  # raid0: whole, never redundant
        "md5": (3.0, 3.0, 1.0, True, True),  # the spare is no member
    }


def test_recorded_hurt_arrays_are_not_healthy_and_redundant_only_with_a_member_to_spare() -> None:
    assert look(RECORDED / "hurt") == {
        "md0": (2.0, 1.0, 1.0, False, False),
        "md1": (3.0, 2.0, 1.0, True, False),
        "md2": (4.0, 3.0, 2.0, True, False),
        "md3": (4.0, 3.0, 3.0, False, False),
        "md4": (2.0, 0.0, 1.0, False, False),
        "md127": (None, 0.0, None, False, False),
    }


def test_recorded_arrays_that_are_filled_or_compared_are_not_healthy() -> None:
    assert look(RECORDED / "filling") == {
        "md6": (2.0, 1.0, 1.0, False, False),
        "md8": (2.0, 2.0, 1.0, False, False),
        "md9": (4.0, 4.0, 1.0, False, False),
        "md11": (2.0, 2.0, 1.0, False, False),
    }


def test_recorded_sysfs_knows_a_repair_from_a_resync_and_the_members_of_a_stopped_array() -> None:
    assert look(RECORDED / "sysfs") == {
        "md0": (2.0, 2.0, 1.0, True, True),
        "md127": (3.0, 0.0, 2.0, False, False),
    }


def test_recorded_container_of_a_firmware_raid_is_no_array() -> None:
    assert look(RECORDED / "firmware") == {"md126": (2.0, 2.0, 1.0, True, True)}


def test_recorded_btrfs_mirrors_are_judged_by_their_weakest_part() -> None:
    assert look(RECORDED / "btrfs") == {
        "0d2f7f53": (4.0, 4.0, 2.0, True, True),
        "pacs": (2.0, 1.0, 1.0, False, False),  # a corruption was seen on one member
        "careless": (2.0, 2.0, 2.0, False, True),  # mirrored data, single metadata
    }


def test_recorded_kernel_without_arrays_has_no_data() -> None:
    with pytest.raises(NoData, match="md"):
        look(RECORDED / "none")


def test_machine_without_md_and_btrfs_has_no_data(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="btrfs"):
        look(tmp_path)


def test_mdstat_of_another_form_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mdstat").write_text("<html>moved</html>\n")
    with pytest.raises(SourceError, match="mdstat"):
        look(tmp_path)


def _run(*argv: str | Path) -> str:
    program(str(argv[0]), "btrfs-progs mount")
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


class Mirror:
    """A btrfs RAID 1 over two files on loop devices; needs root."""

    label = "infravitals-test-mirror"

    def __init__(self, folder: Path) -> None:
        self.mount_point = folder / "mounted"
        self.mount_point.mkdir()
        self._files = [folder / "a", folder / "b"]
        self.devices: list[str] = []

    def make(self) -> None:
        for file in self._files:
            with file.open("wb") as content:
                content.truncate(128 * 1024 * 1024)
            self.devices.append(_run("losetup", "-f", "--show", file))
        _run("mkfs.btrfs", "-q", "-L", self.label, "-d", "raid1", "-m", "raid1", *self.devices)
        self.mount("rw")

    def mount(self, options: str) -> None:
        _run("mount", "-t", "btrfs", "-o", options, self.devices[0], self.mount_point)

    def unmount(self) -> None:
        if self.mount_point.is_mount():
            _run("umount", self.mount_point)

    def lose_second_device(self) -> None:
        self.unmount()
        second = self.devices.pop()
        _run("btrfs", "device", "scan", "--forget", second)
        _run("losetup", "-d", second)
        self.mount("degraded")

    def close(self) -> None:
        self.unmount()
        for device in self.devices:
            _run("btrfs", "device", "scan", "--forget", device)
            _run("losetup", "-d", device)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror(tmp_path)
    try:
        mirror.make()
        yield mirror
    finally:
        mirror.close()


def test_real_btrfs_mirror_is_redundant_until_a_device_is_gone(mirror: Mirror) -> None:
    (mirror.mount_point / "image").write_bytes(b"dicom" * 1000)
    whole = look(Path("/"))[mirror.label]
    mirror.lose_second_device()
    assert [whole, look(Path("/"))[mirror.label]] == [(2.0, 2.0, 1.0, True, True), (2.0, 1.0, 1.0, False, False)]
