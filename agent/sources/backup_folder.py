"""How old the backups of each system are, whether they still hold what was written, and whether they are made by themselves.

Measures: backup_copy[system, copy]: age_seconds, full_age_seconds, is_full (the newest), is_automatic, is_offsite; verified_age_seconds (of
the newest full one whose sums were counted again and agree).
Needs: a folder where backups arrive, one entry (a file or a folder) for each, that the agent may read; for verified_age_seconds the
sums that were written with it: `NAME.sha256` beside a file, `SHA256SUMS` in a folder, as sha256sum writes them.
Reference: sha256sum(1); docs/failover.md.

The time of a backup is that of its newest file. An entry that still changes, is empty, or is called `.part` or `.tmp` is none yet. Sums are counted
once for each backup, beside the rounds and one at a time. Automatic: the newest three came at even intervals, as no
person keeps them (our own judgement); with fewer nothing is said. Whether the folder is off site is what the file says. Nothing is written.
"""

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from agent.continuity.settings import Id
from agent.errors import NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Value
from agent.sources import Incomplete, Reading, Seconds, SourceConfig, Surroundings

UNFINISHED = (".part", ".partial", ".tmp", ".filepart")
SUMS = "SHA256SUMS"
BLOCK_BYTES = 1024 * 1024
EVEN = 0.25
"""How far apart the longer of two intervals may be from the shorter, as a share of it."""

Pattern = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^/]+$",
        description="不含 / 的名称样式，如 full-* / a pattern of names without /, such as full-*",
    ),
]


class Copy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where copies of one system lie. full, incremental: names of entries, as shells match them. offsite: in the DR room or farther."""

    folder: str
    full: Pattern = "*"
    incremental: Pattern | None = None
    offsite: bool = False


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """systems: by the name of the register, each with its copies by name. settle_seconds: what changed since is not finished."""

    interval_seconds: Seconds = 900.0
    deadline_seconds: Seconds = 60.0
    systems: dict[Id, dict[Id, Copy]] = msgspec.field(default_factory=dict)
    settle_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0


class Backup(NamedTuple):
    """One restore point. made_at: seconds since the epoch."""

    path: Path
    made_at: float
    is_full: bool


class Source:
    """All systems of the file."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._clock = surroundings.clock
        self._verdicts: dict[tuple[Path, float], bool] = {}
        self._counting: asyncio.Task[None] | None = None
        self._is_ended = threading.Event()

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """One reading for each copy that holds a backup. Raises NoData without any configured, Incomplete when a folder cannot be read."""
        if not self._config.systems:
            raise NoData(say("没有配置 systems", "no systems are configured"))
        readings, waiting, troubles = [], [], []
        for system, copies in self._config.systems.items():
            for name, copy in copies.items():
                try:
                    backups = await asyncio.to_thread(find_backups, copy, self._clock(), self._config.settle_seconds)
                except SourceError as error:  # the other copies keep their word
                    troubles.append(str(error))
                    continue
                full = [one for one in backups if one.is_full and _sums_of(one.path) is not None]
                waiting += self._find_uncounted(full)
                if backups:
                    fields = self._describe(copy, backups, full)
                    readings.append(Reading("backup_copy", fields, {"system": system, "copy": name}))
        if waiting and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count(waiting), name="sums of backups")
        if troubles:
            raise Incomplete(say("；", "; ").join(troubles), readings, is_partly=True)
        if not readings:
            raise SourceError(say("配置的目录中没有任何备份", "there is no backup in any folder of the configuration"))
        return readings

    async def close(self) -> None:
        """A sum that is being counted is given up."""
        self._is_ended.set()
        if self._counting is not None:
            await asyncio.wait({self._counting})

    async def wait_for_sums(self) -> None:
        """Until what is being counted is counted."""
        if self._counting is not None:
            await self._counting

    def _find_uncounted(self, full: Sequence[Backup]) -> list[Backup]:
        """The newest that may be whole: those known to be damaged are passed over."""
        for one in full:
            verdict = self._verdicts.get((one.path, one.made_at))
            if verdict is not False:
                return [one] if verdict is None else []
        return []

    async def _count(self, backups: Sequence[Backup]) -> None:
        for backup in backups:
            found = await asyncio.to_thread(verify, backup.path, self._is_ended)
            if found is not None:
                self._verdicts[backup.path, backup.made_at] = found

    def _describe(self, copy: Copy, backups: Sequence[Backup], full: Sequence[Backup]) -> Mapping[str, Value]:
        now, newest = self._clock(), backups[0]
        fields: dict[str, Value] = {
            "age_seconds": max(0.0, now - newest.made_at),
            "is_full": newest.is_full,
            "is_offsite": copy.offsite,
        }
        whole = next((one for one in backups if one.is_full), None)
        if whole is not None:
            fields["full_age_seconds"] = max(0.0, now - whole.made_at)
        if (even := is_even(backups)) is not None:
            fields["is_automatic"] = even
        good = next((one for one in full if self._verdicts.get((one.path, one.made_at))), None)
        if good is not None:
            fields["verified_age_seconds"] = max(0.0, now - good.made_at)
        return fields


def find_backups(copy: Copy, now: float, settle_seconds: float) -> list[Backup]:
    """The restore points of a folder, the newest first. Raises SourceError when it cannot be read."""
    folder = Path(copy.folder)
    try:
        found = []
        for path in folder.iterdir():
            is_full = path.match(copy.full)
            is_wanted = is_full or (copy.incremental is not None and path.match(copy.incremental))
            if not is_wanted or path.suffix in (*UNFINISHED, ".sha256"):
                continue
            try:
                files = [one.stat() for one in _files(path)]
            except FileNotFoundError:  # rotated away, or still being renamed, between two looks
                continue
            if sum(one.st_size for one in files) == 0:
                continue
            made_at = max(one.st_mtime for one in files)
            if now - made_at >= settle_seconds:
                found.append(Backup(path, made_at, is_full))
    except OSError as error:
        where, why = error.filename or folder, explain_system(error)
        text = say(
            f"无法读取备份目录 {where}：{why}；请核对 systems 中的 folder、挂载与读取权限",
            f"the backups in {where} cannot be read: {why}; look at folder under systems, the mount and the right to read",
        )
        raise SourceError(text) from error
    return sorted(found, key=lambda one: one.made_at, reverse=True)


def is_even(backups: Sequence[Backup]) -> bool | None:
    """Whether the newest three came at even intervals; None of fewer."""
    if len(backups) < 3:
        return None
    times = [one.made_at for one in backups[:3]]
    short, long = sorted((times[0] - times[1], times[1] - times[2]))
    return short > 0 and long <= short * (1 + EVEN)


def verify(path: Path, is_ended: threading.Event) -> bool | None:
    """Whether everything that the sums name is there and agrees; None when it was given up."""
    sums = _sums_of(path)
    if sums is None:
        return False
    try:
        lines = [line.split(maxsplit=1) for line in sums.read_text("utf-8").splitlines() if line.strip()]
        for digest, name in lines:
            found = _digest(sums.parent / name.strip().lstrip("*"), is_ended)
            if found is None:
                return None
            if found != digest.lower():
                return False
    except (OSError, ValueError):
        return False
    return bool(lines)


def _digest(path: Path, is_ended: threading.Event) -> str | None:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if is_ended.is_set():
                return None
            whole.update(block)
    return whole.hexdigest()


def _sums_of(path: Path) -> Path | None:
    """Where the sums of a backup stand; None when nobody wrote any."""
    place = path / SUMS if path.is_dir() else path.with_name(path.name + ".sha256")
    return place if place.is_file() else None


def _files(path: Path) -> Iterator[Path]:
    """The files of a backup but for its sums, which may come later."""
    if path.is_dir():
        yield from (one for one in path.rglob("*") if one.is_file() and one.name != SUMS)
    else:
        yield path
