"""Which mounts are worth measuring, read from the kernel's table without touching any of them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import NamedTuple

NETWORK_TYPES = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "virtiofs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "orangefs",
        "pvfs2",
        "coda",
    ]
)
"""Kept by another machine. FUSE counts as such too (glusterfs, sshfs, s3fs, ...)."""

STEADY_TYPES = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "exfat", "ntfs3", "f2fs", "jfs", "tmpfs"])
"""The kernel answers statvfs(3) for these from memory, also when the disk below is dead. The other types ask a
daemon (fuseblk), other nodes (gfs2, ocfs2) or a pool that may be suspended (zfs)."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo. device: major:minor. part: what of the file system is mounted, `/` for the whole.

    path may hold surrogates for bytes that are no UTF-8.
    """

    device: str
    part: str
    path: str
    kind: str
    is_read_only: bool
    may_hang: bool = False


class Wish(NamedTuple):
    """What the configuration wants: shell patterns on mount points and types, and two kinds that are off at first."""

    include: Sequence[str]
    exclude: Sequence[str]
    exclude_types: Sequence[str]
    network_filesystems: bool
    tmpfs: bool


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts of /proc/self/mountinfo (proc(5)), in its order, which is the order of mounting."""
    mounts = []
    for line in text.splitlines():
        ours, _, theirs = line.partition(" - ")
        fields, super_fields = ours.split(" "), theirs.split(" ")
        if len(fields) >= 6 and len(super_fields) >= 3:
            options = fields[5].split(",") + super_fields[2].split(",")
            mounts.append(Mount(fields[2], fields[3], _plain(fields[4]), super_fields[0], "ro" in options))
    return mounts


def parse_disk_types(text: str) -> set[str]:
    """The types of /proc/filesystems that live on a device; zfs brings its own devices and is one."""
    return {line.strip() for line in text.splitlines() if line and not line.startswith("nodev")} | {"zfs"}


def choose_mounts(mounts: Iterable[Mount], disk_types: Collection[str], wish: Wish) -> list[Mount]:
    """The wanted ones of `mounts`, each device once: where the whole of it is mounted, else at the shortest path.

    A mount over another hides it. may_hang is set where a look at it, or the way to it, leaves the kernel's memory.
    """
    visible = {mount.path: mount for mount in mounts}
    chosen: dict[str, Mount] = {}
    for mount in visible.values():
        if not _is_wanted(mount, disk_types, wish):
            continue
        other = chosen.get(mount.device)
        if other is None or _rank(mount) < _rank(other):
            chosen[mount.device] = mount._replace(may_hang=_may_hang(mount, visible, disk_types))
    return sorted(chosen.values(), key=lambda mount: mount.path)


def is_network(kind: str) -> bool:
    """Whether another machine or a program stands behind file systems of this type."""
    return kind in NETWORK_TYPES or kind == "fuse" or kind.startswith("fuse.")


def _rank(mount: Mount) -> tuple[bool, int, str]:
    return mount.part != "/", len(mount.path), mount.path


def _is_wanted(mount: Mount, disk_types: Collection[str], wish: Wish) -> bool:
    if is_network(mount.kind):
        is_wanted_type = wish.network_filesystems
    else:
        is_wanted_type = wish.tmpfs if mount.kind == "tmpfs" else mount.kind in disk_types
    return (
        is_wanted_type
        and not _matches(mount.kind, wish.exclude_types)
        and _matches(mount.path, wish.include)
        and not _matches(mount.path, wish.exclude)
    )


def _may_hang(mount: Mount, visible: Mapping[str, Mount], disk_types: Collection[str]) -> bool:
    """Also a steady file system below a dead mount cannot be reached: the way to it hangs."""
    way = [mount, *(visible[str(path)] for path in PurePosixPath(mount.path).parents if str(path) in visible)]
    return any(
        is_network(step.kind) or step.kind == "autofs" or (step.kind in disk_types and step.kind not in STEADY_TYPES)
        for step in way
    )


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _plain(field: str) -> str:
    r"""A field of mountinfo with its octal escapes (`\040` for a blank) undone."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
