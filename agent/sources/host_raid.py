"""Whether the kernel's own mirrors and parity groups still have all their members.

Measures: redundant_group{group, kind: raid}: members_count, healthy_count, required_count (the least that surely keeps
it running, whichever members are lost: RAID 10 of n counts as n - 1), is_redundant (one more may go now), is_healthy.
A group that is still being filled or compared (recovery, resync) is not healthy; a scheduled check is.
Needs: Linux md (/proc/mdstat, /sys/block/*/md) or btrfs (/sys/fs/btrfs, kernel 5.14 for error counters). No rights,
no process. Hardware controllers are another source's.
Reference: md(4), kernel Documentation/admin-guide/md.rst, btrfs(5) and kernel fs/btrfs/sysfs.c.

A btrfs member counts as healthy when it is present and its error counters are 0; they stay until an operator looked
and ran `btrfs device stats --reset`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from agent.errors import NoData, SourceError
from agent.language import say
from agent.sources import Reading, Seconds, SourceConfig, Surroundings

MD_LOSABLE: Mapping[str, int] = {"raid4": 1, "raid5": 1, "raid6": 2, "raid10": 1, "raid0": 0, "linear": 0}
"""How many members a group of this level surely survives; raid1 is counted, unknown levels claim nothing."""

BTRFS_LOSABLE: Mapping[str, int] = {
    "raid1": 1,
    "raid1c3": 2,
    "raid1c4": 3,
    "raid10": 1,
    "raid5": 1,
    "raid6": 2,
    "raid0": 0,
    "single": 0,
    "dup": 0,  # two copies on one device
}
BTRFS_KINDS_OF_DATA = ("data", "metadata", "system")

_ARRAY = re.compile(r"^(md\S*) : (active|inactive)(?: \([a-z-]+\))?(?: (linear|raid\d+|multipath|faulty))?(.*)$")
_MEMBERS = re.compile(r"\[(\d+)/(\d+)\] \[[U_]+\]")
_ACTIVITY = re.compile(r"\b(resync|recovery|reshape|check)\s*=")
_WORD = {"recovery": "recover"}
"""mdstat's word where sysfs has another."""


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own to say."""

    interval_seconds: Seconds = 60.0


@dataclass(frozen=True, slots=True)
class Array:
    """One md array, as far as the kernel tells. activity: what it does in the background, in sysfs' words."""

    name: str
    level: str | None
    is_active: bool
    members: int | None
    working: int | None
    activity: str = "idle"


class Source:
    """The md arrays and btrfs file systems of this host."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._root = surroundings.root

    async def open(self) -> None:
        """Nothing to open."""

    def collect(self) -> list[Reading]:
        """One reading per group. Raises NoData when the kernel keeps none, SourceError when it cannot be read."""
        readings = [read for array in self._read_arrays() if (read := judge_array(array)) is not None]
        readings += _read_btrfs(self._root / "sys/fs/btrfs")
        if not readings:
            raise NoData(
                say("本机没有 md 阵列，也没有 btrfs RAID", "this machine has neither md arrays nor a btrfs RAID")
            )
        return readings

    async def close(self) -> None:
        """Nothing to close."""

    def _read_arrays(self) -> list[Array]:
        text = _read(self._root / "proc/mdstat")
        if text is None:
            return []
        arrays = [_correct(array, self._root / "sys/block" / array.name / "md") for array in read_mdstat(text)]
        if not arrays and not text.startswith("Personalities"):
            raise SourceError(say(f"看不懂 /proc/mdstat:{text[:60]!r}", f"/proc/mdstat is not readable: {text[:60]!r}"))
        return arrays


def read_mdstat(text: str) -> Iterator[Array]:
    """The arrays of /proc/mdstat. Containers that only hold metadata of a firmware RAID are no arrays."""
    for block in re.split(r"\n\s*\n|\n(?=md\S* :)", text):
        lines = [line for line in block.splitlines() if _ARRAY.match(line) or line[:1].isspace()]
        match = _ARRAY.match(lines[0]) if lines else None
        if match is None or (match[3] is None and "super external:" in block):
            continue
        members = _MEMBERS.search(block)
        activity = _ACTIVITY.search(block)
        # raid0 and linear have no [n/m]: they run with all of their members or not at all.
        listed = match[4].count("[") if match[3] in ("raid0", "linear") else None
        yield Array(
            match[1],
            match[3],
            match[2] == "active",
            int(members[1]) if members else listed,
            int(members[2]) if members else listed,
            _WORD.get(activity[1], activity[1]) if activity else "idle",
        )


def _correct(array: Array, folder: Path) -> Array:
    """The array as sysfs has it: it knows members of an inactive one, and tells a repair from a resync."""
    raid_disks = _number(folder / "raid_disks")
    degraded = _number(folder / "degraded")
    state = _read(folder / "array_state")
    action = _read(folder / "sync_action")
    working = array.working
    if raid_disks and degraded is not None:
        working = raid_disks - degraded
    return Array(
        array.name,
        _read(folder / "level") or array.level,
        array.is_active and state not in ("clear", "inactive", "broken"),
        raid_disks or array.members,
        working,
        array.activity if action in (None, "idle", "frozen") else action,
    )


def judge_array(array: Array) -> Reading | None:
    """The reading of one md array; None when not even the number of its members is known and it runs."""
    working = array.working if array.is_active else 0
    if array.members is None or working is None:
        if array.is_active:
            return None
        fields: dict[str, float | bool] = {"healthy_count": 0.0, "is_redundant": False, "is_healthy": False}
        return Reading("redundant_group", fields, {"group": array.name, "kind": "raid"})
    losable = array.members - 1 if array.level == "raid1" else MD_LOSABLE.get(array.level or "")
    is_level = array.activity not in ("resync", "recover")
    fields = {
        "members_count": float(array.members),
        "healthy_count": float(working),
        "is_healthy": array.is_active and is_level and working == array.members,
    }
    if losable is not None:
        required = array.members - losable
        fields["required_count"] = float(required)
        # While copies are still being compared nobody knows that the other one is good.
        fields["is_redundant"] = working > required and array.activity != "resync"
    return Reading("redundant_group", fields, {"group": array.name, "kind": "raid"})


def _read_btrfs(folder: Path) -> list[Reading]:
    readings = []
    taken: set[str] = set()
    for filesystem in sorted(folder.glob("*-*-*-*-*")):
        label = _read(filesystem / "label") or ""
        group = label if label and label not in taken else filesystem.name[:8]
        reading = _judge_filesystem(filesystem, group)
        if reading is not None:
            taken.add(group)
            readings.append(reading)
    return readings


def _judge_filesystem(filesystem: Path, group: str) -> Reading | None:
    """None for a file system without redundancy on purpose, and where the kernel does not list the members."""
    losable = [BTRFS_LOSABLE.get(profile, 0) for kind in BTRFS_KINDS_OF_DATA for profile in _profiles(filesystem, kind)]
    members = [
        member for member in (filesystem / "devinfo").glob("*") if _read(member / "replace_target") in (None, "0")
    ]
    if not any(BTRFS_LOSABLE.get(profile, 0) for profile in _profiles(filesystem, "data")) or not members:
        return None
    healthy = sum(_is_healthy_device(member) for member in members)
    required = len(members) - min(losable)
    fields = {
        "members_count": float(len(members)),
        "healthy_count": float(healthy),
        "required_count": float(required),
        "is_redundant": healthy > required,
        "is_healthy": healthy == len(members),
    }
    return Reading("redundant_group", fields, {"group": group, "kind": "raid"})


def _profiles(filesystem: Path, kind: str) -> list[str]:
    """The profiles that hold something of this kind; all of them while nothing is written yet."""
    folders = [path.parent for path in (filesystem / "allocation" / kind).glob("*/total_bytes")]
    used = [folder.name for folder in folders if _number(folder / "used_bytes")]
    return used or [folder.name for folder in folders]


def _is_healthy_device(member: Path) -> bool:
    errors = re.findall(r"_errs (\d+)", _read(member / "error_stats") or "")
    return _read(member / "missing") == "0" and not any(int(count) for count in errors)


def _read(path: Path) -> str | None:
    """The content of a kernel file, None when there is none (also when the thing just went away)."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _read(path)
    # raid_disks reads `4 (3)` while an array is being reshaped; the first is the coming number.
    first = (text or "").split(" ")[0]
    return int(first) if first.isdecimal() else None
