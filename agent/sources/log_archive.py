"""Whether logs still arrive at the central archive, and how far back they can be searched.

Measures, per origin: log_archive.oldest_age_seconds (age of the oldest line that can be read), last_arrival_age_seconds.
Needs: the archive's files (rsyslog, syslog-ng, journal exports, plain or gzip), readable by the agent.
Reference: RFC 3339 and RFC 5424 for the time of a line; GNU gzip.

The oldest line is really opened and read: a file that is there and cannot be unpacked is no archive. A line without a date of
its own counts as old as its file's last change, never older.
"""

import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from agent.catalogue import explain_id, is_id
from agent.errors import SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Value
from agent.sources import Reading, Seconds, SourceConfig, Surroundings

HEAD_BYTES = 65536
LONGEST_FILE_SECONDS = 400 * 86400.0
"""No file was written for longer: an older date in its first line is a mistake."""

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?")


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """folder: searched with all folders below it. pattern: which files, as the shell matches them."""

    folder: str
    pattern: str = "*"


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """origins: by name; the rules ask for network, server and emr-database."""

    interval_seconds: Seconds = 3600.0
    deadline_seconds: Seconds = 120.0
    origins: Mapping[str, Origin]
    most_files: Annotated[int, msgspec.Meta(ge=1)] = 100_000

    def __post_init__(self) -> None:
        for name in self.origins:
            if not is_id(name):
                raise ValueError(explain_id("origins", name))


class Source:
    """The files of a log archive."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._clock = surroundings.clock

    async def open(self) -> None:
        """Nothing to open."""

    def collect(self) -> list[Reading]:
        """One reading per origin that has a line. Raises SourceError for a folder that cannot be read."""
        readings = []
        for name, origin in self._config.origins.items():
            if fields := self._describe(name, origin):
                readings.append(Reading("log_archive", fields, {"origin": name}))
        return readings

    async def close(self) -> None:
        """Nothing to close."""

    def _describe(self, name: str, origin: Origin) -> Mapping[str, Value]:
        """Files are opened from the oldest on until one gives a line; empty without any."""
        now = self._clock()
        files = self._list(name, origin)
        if not files:
            return {}
        fields: dict[str, Value] = {"last_arrival_age_seconds": max(0.0, now - files[-1][0])}
        for changed, path in files:
            line = _read_first_line(path)
            if line is not None:
                begun = _read_time(line)
                oldest = changed if begun is None else max(changed - LONGEST_FILE_SECONDS, min(changed, begun))
                fields["oldest_age_seconds"] = max(0.0, now - oldest)
                break
        return fields

    def _list(self, name: str, origin: Origin) -> Sequence[tuple[float, Path]]:
        """Files with something in them, by their last change. Raises SourceError."""
        try:
            files = sorted(islice(_walk(Path(origin.folder), origin.pattern), self._config.most_files))
        except OSError as error:
            text = say(
                f"日志来源 {name}：无法读取 {error.filename}：{explain_system(error)}",
                f"logs of {name}: cannot read {error.filename}: {explain_system(error)}",
            )
            raise SourceError(text) from error
        if len(files) >= self._config.most_files:
            most = self._config.most_files
            raise SourceError(
                say(
                    f"日志来源 {name} 超过 {most} 个文件；请收窄 pattern",
                    f"more than {most} files of {name}; narrow its pattern",
                )
            )
        return files


def _walk(folder: Path, pattern: str) -> Iterator[tuple[float, Path]]:
    folder.stat()  # a folder that is not there is trouble, not an empty archive
    for path in folder.rglob(pattern):
        with contextlib.suppress(FileNotFoundError):  # rotated away just now, or a link to nothing
            facts = path.stat()
            if path.is_file() and facts.st_size:
                yield facts.st_mtime, path


def _read_first_line(path: Path) -> str | None:
    """The first line as far as it was unpacked; None when nothing can be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as opened:
            line = opened.readline(HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return None
    return line.decode("utf-8", "replace") or None


def _read_time(line: str) -> float | None:
    """The first full date and time of a line; UTC where it names no zone."""
    found = _TIME.search(line[:256])
    if found is None:
        return None
    try:
        time = datetime.fromisoformat(found[0].replace(",", "."))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
