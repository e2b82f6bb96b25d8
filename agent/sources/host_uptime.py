"""How long this host has been up, and whether it went down without being told to.

Measures: host_uptime.uptime_seconds, and unexpected_restart_count: how many boots since the last look were not
preceded by a shutdown record (normally 1, a point only when there was one, once per restart).
Needs: Linux for restarts (/proc, /var/log/wtmp, a state directory); uptime alone from psutil elsewhere. No rights.
Reference: proc(5), random(4) boot_id, utmp(5), systemd-update-utmp(8).

A new boot id is a restart, a changed clock is none. Only wtmp says whether somebody asked for it: where it is missing,
rotated in between or not written, nothing is claimed. A hang after the shutdown record looks announced; a power
button held down looks unexpected, whoever's finger it was.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import psutil

from agent.errors import NoData, SourceError
from agent.foreign_words import explain, explain_system
from agent.language import say
from agent.sources import Reading, SourceConfig, Surroundings

STATE_FILE = "host_uptime.json"
BOOT_ID = "proc/sys/kernel/random/boot_id"
BOOT_RECORD_WAIT_SECONDS = 300.0
"""For so long after a boot its record in wtmp may still be to come."""

MAX_WTMP_BYTES = 4 * 1024 * 1024

# utmp(5): the type, line and user stand at the same place everywhere, the record's size does not:
# x86_64 keeps 32-bit times (384 bytes), aarch64 and loongarch64 have 64-bit ones (400 bytes).
RECORD_SIZES = (384, 400)
RUN_LEVEL, BOOT_TIME, ACCOUNTING = 1, 2, 9
USER = slice(44, 76)


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own to say."""


class Remembered(msgspec.Struct, frozen=True):
    """What is kept across restarts: the boot, and up to where wtmp had been written in it (inode 0: no wtmp)."""

    boot_id: str
    wtmp_inode: int = 0
    wtmp_bytes: int = 0


class Source:
    """The host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._wtmp = surroundings.root / "var/log/wtmp"
        self._remembered: Remembered | None = None

    async def open(self) -> None:
        """Nothing to open."""

    def collect(self) -> list[Reading]:
        """One reading. Raises SourceError when /proc is unreadable or the state directory cannot be written."""
        if self._surroundings.system != "linux":
            return [Reading("host_uptime", {"uptime_seconds": self._surroundings.clock() - psutil.boot_time()})]
        uptime_seconds = _read_uptime(self._surroundings.root / "proc/uptime")
        fields = {"uptime_seconds": uptime_seconds}
        unexpected = self._look_for_restart(uptime_seconds)
        if unexpected:
            fields["unexpected_restart_count"] = float(unexpected)
        return [Reading("host_uptime", fields)]

    async def close(self) -> None:
        """Nothing to close."""

    def _look_for_restart(self, uptime_seconds: float) -> int:
        """How many unannounced boots happened since the last look; 0 also when nobody can know."""
        directory = self._surroundings.state_directory
        if directory is None:
            return 0
        before = self._remembered
        if before is None:
            boot_id, before = _read_text(self._surroundings.root / BOOT_ID), _recall(directory / STATE_FILE)
        else:
            boot_id = before.boot_id  # no process outlives its boot
        inode, size = _stat(self._wtmp)
        unexpected: int | None = 0
        if before is not None and before.boot_id != boot_id:
            unexpected = self._count_unannounced(before, inode, size)
            if unexpected is None and uptime_seconds < BOOT_RECORD_WAIT_SECONDS:
                return 0
        now = Remembered(boot_id, inode, size)
        # Written once per boot and when wtmp was rotated; from there on the file only grows.
        is_known = before is not None and before.boot_id == boot_id
        if before is not None and is_known and before.wtmp_inode == inode and before.wtmp_bytes <= size:
            now = before
        else:
            _remember(directory / STATE_FILE, now)
        self._remembered = now
        return unexpected or 0

    def _count_unannounced(self, before: Remembered, inode: int, size: int) -> int | None:
        if not before.wtmp_inode or before.wtmp_inode != inode or size < before.wtmp_bytes:
            return None
        if size - before.wtmp_bytes > MAX_WTMP_BYTES:
            return None
        try:
            with self._wtmp.open("rb") as file:
                file.seek(before.wtmp_bytes)
                return count_unannounced_boots(file.read(MAX_WTMP_BYTES))
        except OSError:
            return None


def count_unannounced_boots(content: bytes) -> int | None:
    """Boots in a stretch of wtmp without a shutdown record before them; None when it has no boot or is not readable."""
    layouts = [size for size in RECORD_SIZES if _is_plausible(content, size)]
    if len(layouts) != 1:
        return None
    boots = unannounced = 0
    is_announced = False
    for kind, user in _records(content, layouts[0]):
        if kind == RUN_LEVEL and user == b"shutdown":
            is_announced = True
        elif kind == BOOT_TIME:
            boots += 1
            unannounced += not is_announced
            is_announced = False
    return unannounced if boots else None


def _records(content: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(content), size):
        record = content[start : start + size]
        yield int.from_bytes(record[:4], sys.byteorder), record[USER].rstrip(b"\0")


def _is_plausible(content: bytes, size: int) -> bool:
    """Whether `content` is whole records of this size: read at a wrong stride, types fall on text or on nothing."""
    if not content or len(content) % size:
        return False
    return all(RUN_LEVEL <= kind <= ACCOUNTING for kind, _ in _records(content, size))


def _read_text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError as error:
        raise NoData(say(f"没有 {path}", f"there is no {path}")) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(say(f"无法读取 {path}：{explain(error)}", f"cannot read {path}: {explain(error)}")) from error


def _read_uptime(path: Path) -> float:
    text = _read_text(path)
    try:
        return float(text.split()[0])
    except (IndexError, ValueError) as error:
        raise SourceError(
            say(f"{path}：应以秒数开头，实际是 {text[:40]!r}", f"{path}: expected seconds first, found {text[:40]!r}")
        ) from error


def _stat(path: Path) -> tuple[int, int]:
    """Inode and size, zeros when there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_size


def _recall(path: Path) -> Remembered | None:
    """What was remembered; nothing when the file is new or damaged, for then nothing is known."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except (OSError, msgspec.DecodeError):
        return None


def _remember(path: Path, remembered: Remembered) -> None:
    """Before the event goes out: better once too few than once per start of the agent."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(msgspec.json.encode(remembered))
        fresh.replace(path)
    except OSError as error:
        raise SourceError(
            say(
                f"无法写入 {path}：{explain_system(error)}；请检查该目录的权限与剩余空间",
                f"cannot write {path}: {explain_system(error)}; check the permission and space of that directory",
            )
        ) from error
