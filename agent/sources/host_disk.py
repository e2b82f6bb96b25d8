"""The file systems (space, inodes, read-only, responding) and the disks (busy, read, written) of this host.

Needs: nothing; no privilege. On Linux /proc/self/mountinfo, /proc/filesystems, /proc/diskstats and /sys/block.
Local file systems are asked in this process; what may hang in the kernel (network and FUSE mounts, zfs, gfs2, ocfs2,
and everything below such a mount) is asked by a child process with a deadline, which is started only when there is
such a mount. Network file systems are off until `network_filesystems: true`. Elsewhere only local ones are measured.
Reference: proc(5), statvfs(3), Documentation/admin-guide/iostats.rst of the kernel; ratios are those of df(1).
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from fnmatch import fnmatchcase
from typing import ClassVar

import psutil

from agent.errors import NoData
from agent.language import say
from agent.points import Value
from agent.rates import Rates
from agent.sources import Reading, SourceConfig, Surroundings
from agent.sources._kernel_files import read_kernel_file, translated_refusals
from agent.sources._mount_probe import PROGRAM, MountProbe, Space, measure_space
from agent.sources._mounts import Mount, Wish, choose_mounts, parse_disk_types, parse_mountinfo

SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the disk's own sectors are."""

UNTOLD = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EAGAIN})
"""Refusals that say nothing about the file system: not for our eyes, unmounted meanwhile, not asked."""


class Config(SourceConfig, frozen=True, kw_only=True):
    """Which mounts, types and disks, by shell patterns; a mount passes with one of `include_mounts` and no exclude.

    A network mount may take a fifth of the deadline; when half of it is used the rest is asked in the next round.
    """

    include_mounts: tuple[str, ...] = ("*",)
    exclude_mounts: tuple[str, ...] = (
        "/var/lib/docker/*",
        "/var/lib/containerd/*",
        "/var/lib/containers/*",
        "/var/lib/kubelet/*",
    )
    exclude_types: tuple[str, ...] = (
        "squashfs",  # images that are full by nature
        "erofs",
        "cramfs",
        "iso9660",
        "udf",
        "fuse.lxcfs",
        "fuse.gvfsd-fuse",
        "fuse.portal",
        "fuse.snapfuse",
    )
    exclude_devices: tuple[str, ...] = ("sr*", "fd*")
    network_filesystems: bool = False
    tmpfs: bool = False


class Source:
    """A reading per mount and per disk; disks from the second round on."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = True

    def __init__(
        self,
        config: Config,
        surroundings: Surroundings,
        measure: Callable[[bytes], Space] = measure_space,
        program: str = PROGRAM,
    ) -> None:
        """measure: asks a steady file system. program: what the child runs to ask the others."""
        self._config = config
        self._root = surroundings.root
        self._system = surroundings.system
        self._monotonic = surroundings.monotonic
        self._measure = measure
        self._probe = MountProbe(config.deadline_seconds / 5, surroundings.monotonic, program)
        self._rates = Rates()
        self._table: tuple[str, list[Mount]] = ("", [])
        self._devices: Set[str] = frozenset()
        self._disks: Set[str] = frozenset()

    async def open(self) -> None:
        """Nothing to open; the child starts with the first mount that needs it."""

    async def close(self) -> None:
        self._probe.close()

    def collect(self) -> Iterable[Reading]:
        disks = self._read_disks()
        at_seconds = self._monotonic()  # now, because a mount may keep us waiting
        readings = self._read_filesystems()
        if not disks and not readings:
            raise NoData(say("没有符合配置的文件系统和磁盘", "no file system and no disk passes the configuration"))
        for device, counts in disks.items():
            fields = self._traffic(device, counts, at_seconds)
            if fields:
                readings.append(Reading("disk_device", fields, {"device": device}))
        return readings

    def _traffic(self, device: str, counts: Mapping[str, int], at_seconds: float) -> dict[str, Value]:
        """Rates since the last round; none when any counter fell, for then the disk was connected anew."""
        rates = {name: self._rates.per_second((device, name), count, at_seconds) for name, count in counts.items()}
        known = {name: rate for name, rate in rates.items() if rate is not None}
        if len(known) < len(rates):
            return {}
        fields: dict[str, Value] = {
            "read_bytes_per_second": known["read_bytes"],
            "write_bytes_per_second": known["write_bytes"],
        }
        if "busy_time" in known:
            fields["busy_ratio"] = min(1.0, known["busy_time"] / 1000)
        return fields

    def _read_disks(self) -> dict[str, dict[str, int]]:
        """The counters of the whole disks: bytes read and written, and where known milliseconds busy."""
        if self._system == "linux":
            counters = dict(parse_diskstats(read_kernel_file(f"{self._root}/proc/diskstats")))
            if counters.keys() != self._devices:  # what a name stands for changes only when a device comes or goes
                blocks = f"{self._root}/sys/block"
                self._devices = frozenset(counters)
                self._disks = frozenset(name for name in counters if is_disk(blocks, name))
                self._rates.keep(lambda key: isinstance(key, tuple) and key[0] in self._disks)
            disks = {name: counts for name, counts in counters.items() if name in self._disks}
        else:
            with translated_refusals():
                found = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
            disks = {
                name: {"read_bytes": counts.read_bytes, "write_bytes": counts.write_bytes}
                for name, counts in found.items()
            }
        excluded = self._config.exclude_devices
        return {
            name: counts
            for name, counts in disks.items()
            if not any(fnmatchcase(name, pattern) for pattern in excluded)
        }

    def _read_filesystems(self) -> list[Reading]:
        enough = self._monotonic() + self._config.deadline_seconds / 2
        readings = []
        for mount in self._read_mounts():
            if mount.may_hang and self._monotonic() >= enough:
                continue
            fields = self._judge(mount)
            if fields:
                readings.append(Reading("filesystem", fields, {"mount": _printable(mount.path)}))
        return readings

    def _judge(self, mount: Mount) -> dict[str, Value]:
        path = os.fsencode(mount.path if self._system != "linux" else f"{self._root}/{mount.path.lstrip('/')}")
        try:
            space = (self._probe.measure if mount.may_hang else self._measure)(path)
        except OSError as error:
            return {} if error.errno in UNTOLD else {"is_responding": False}
        return describe_space(space) | {"is_read_only": mount.is_read_only, "is_responding": True}

    def _read_mounts(self) -> list[Mount]:
        """The mounts to measure; chosen anew only when the kernel's table changed."""
        config = self._config
        wish = Wish(
            config.include_mounts,
            config.exclude_mounts,
            config.exclude_types,
            config.network_filesystems and self._system == "linux",
            config.tmpfs,
        )
        if self._system != "linux":
            mounts = _read_mounts_elsewhere()
            chosen = choose_mounts(mounts, {mount.kind for mount in mounts}, wish)
            return [mount._replace(may_hang=False) for mount in chosen]
        table = read_kernel_file(f"{self._root}/proc/self/mountinfo")
        if table != self._table[0]:
            kinds = parse_disk_types(read_kernel_file(f"{self._root}/proc/filesystems"))
            self._table = (table, choose_mounts(parse_mountinfo(table), kinds, wish))
        return self._table[1]


def parse_diskstats(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Each device of /proc/diskstats with bytes read and written and milliseconds busy, all since it was connected."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 14:
            yield (
                fields[2],
                {
                    "read_bytes": int(fields[5]) * SECTOR_BYTES,
                    "write_bytes": int(fields[9]) * SECTOR_BYTES,
                    "busy_time": int(fields[12]),
                },
            )


def is_disk(blocks: str, name: str) -> bool:
    """Whether hardware stands behind a block device: not so with partitions, loop, ram, zram, md and dm."""
    return os.path.exists(f"{blocks}/{name.replace('/', '!')}/device")  # noqa: PTH110 - a Path costs four times as much


def describe_space(space: Space) -> dict[str, Value]:
    """The fields that follow from the counts, as df(1) computes them: blocks kept for root are neither used nor free.

    File systems without a fixed number of inodes (btrfs, vfat) and without blocks have no ratio of them.
    """
    used_blocks = space.blocks - space.free_blocks
    fields: dict[str, Value] = {}
    if used_blocks + space.available_blocks > 0:
        fields["used_ratio"] = used_blocks / (used_blocks + space.available_blocks)
        fields["size_bytes"] = float(space.blocks * space.block_bytes)
        fields["used_bytes"] = float(used_blocks * space.block_bytes)
    if space.inodes > 0:
        fields["inodes_used_ratio"] = (space.inodes - space.free_inodes) / space.inodes
    return fields


def _read_mounts_elsewhere() -> list[Mount]:
    """Local volumes of macOS and Windows; a drive without a medium has no type."""
    with translated_refusals():
        volumes = psutil.disk_partitions(all=False)
    return [
        Mount(volume.device, "/", volume.mountpoint, volume.fstype, "ro" in volume.opts.split(","))
        for volume in volumes
        if volume.fstype
    ]


def _printable(path: str) -> str:
    """The path as text that JSON can carry; bytes that are no UTF-8 are shown as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
