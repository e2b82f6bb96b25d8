"""What ingest set aside, kept for an operator to read: one SQLite file, bounded in rows, bytes and rate.

Counts are exact whatever was pruned or never kept. The collector's one door to SQLite.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Self

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text as Content

from agent.catalogue import Text
from agent.errors import StoreError
from agent.foreign_words import explain
from agent.language import say
from collector.reasons import MEANINGS, Reason, show_bytes
from collector.room import full_disk, is_full

logger = logging.getLogger(__name__)

PAYLOAD_BYTES = 1024
"""How much of an undecodable batch is kept."""
ROW_BYTES = 200
"""What a row takes besides its text and payload."""
MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
ROWS_PER_SECOND = 5.0
BURST_ROWS = 200
"""Each reason may have so many rows at once and then so many a second, so that a flood of one hides no other."""

HOUR_SECONDS = 3600
LATELY_HOURS = 24
"""What `lately` counts, the hour that runs among them."""

_DRAWN_COLUMNS = 140
_DRAWN_CHARACTERS = 300

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, end_bytes INTEGER NOT NULL, at INTEGER NOT NULL, site TEXT NOT NULL,
    agent TEXT NOT NULL, reason TEXT NOT NULL, what TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS count (reason TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS hour_count (hour INTEGER, reason TEXT, count INTEGER NOT NULL, PRIMARY KEY (hour, reason));
"""
# end_bytes: bytes of all rows ever up to this one, so that the byte bound is one comparison and not a sum
_NEWEST = """
SELECT at, site, agent, reason, what, payload FROM entry
WHERE :reason IS NULL OR reason = :reason ORDER BY id DESC LIMIT :limit
"""
_INSERT = "INSERT INTO entry (end_bytes, at, site, agent, reason, what, payload) VALUES (?, ?, ?, ?, ?, ?, ?)"
_COUNT = "INSERT INTO count VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET count = excluded.count"
_HOUR_COUNT = "INSERT INTO hour_count VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
_LATELY = "SELECT reason, sum(count) FROM hour_count WHERE hour > ? GROUP BY reason"
_PRUNE = """
DELETE FROM entry WHERE id <= (SELECT max(id) FROM entry) - :max_rows OR end_bytes <= :end - :max_bytes
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Entry(msgspec.Struct, frozen=True):
    """One thing set aside. at: received, in ms. what: a short text of it. payload: the first bytes of a whole batch."""

    at: int
    site: str
    agent: str
    reason: Reason
    what: str
    payload: bytes = b""


class Quarantine:
    """The quarantine in the file `path`; a context manager, thread-safe, every call blocks on the disk.

    Opening raises StoreError; a file that is damaged is put beside (`.damaged`) and a new one begun. Later trouble with the disk
    never stops the line: it is logged once and the counts go on in memory.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_rows: int = MOST_ROWS,
        max_bytes: int = MOST_BYTES,
        rows_per_second: float = ROWS_PER_SECOND,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._clock = clock
        self._unwritten: Counter[Reason] = Counter()
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._rates = {reason: _Bucket(rows_per_second, monotonic) for reason in Reason}
        self._lock = threading.Lock()
        self._counts: Counter[Reason] = Counter()
        self._is_failing = False
        self._connection: sqlite3.Connection | None = None
        self._end_bytes = 0

    def __enter__(self) -> Self:
        try:
            try:
                self._open()
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                    raise
                self._put_aside()
                self._open()
        except (sqlite3.Error, OSError) as error:
            if is_full(self.path.parent):
                raise full_disk(self.path.parent) from error
            raise StoreError(
                say(
                    f"无法打开隔离区 {self.path}：{explain(error)}",
                    f"cannot open the quarantine {self.path}: {explain(error)}",
                )
            ) from error
        return self

    def __exit__(self, *exc: object) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def keep(self, entries: Iterable[Entry], counts: Mapping[Reason, int]) -> None:
        """Count everything, and keep of `entries` what rate and bounds allow; the oldest go."""
        with self._lock:
            self._counts.update(counts)
            self._unwritten.update(counts)
            kept = [entry for entry in entries if self._rates[entry.reason].take()]
            try:
                self._write(kept, counts)
            except sqlite3.Error as error:
                self._complain(error)
            else:
                self._recover()

    def read(self, limit: int = 100, reason: Reason | None = None) -> list[Entry]:
        """The newest entries first; of one reason when it is given. Raises StoreError."""
        with self._lock:
            try:
                rows = self._file().execute(_NEWEST, {"reason": reason, "limit": limit}).fetchall()
            except sqlite3.Error as error:
                raise self._unreadable(error) from error
        return [Entry(at, site, agent, Reason(code), what, payload) for at, site, agent, code, what, payload in rows]

    def save_copy(self, path: Path) -> None:
        """A file of its own with everything as of now, also while a collector writes it. Raises StoreError."""
        with self._lock:
            try:
                with contextlib.closing(sqlite3.connect(path)) as target:
                    self._file().backup(target)
            except sqlite3.Error as error:
                raise StoreError(
                    say(f"无法备份隔离区到 {path}：{error}", f"cannot save the quarantine to {path}: {error}")
                ) from error

    def counts(self) -> Mapping[Reason, int]:
        """How many things were set aside for each reason since the file exists."""
        with self._lock:
            return dict(self._counts)

    def lately(self) -> Mapping[Reason, int]:
        """How many things were set aside for each reason within the last day, to the hour. Raises StoreError."""
        with self._lock:
            try:
                rows = self._file().execute(_LATELY, [self._hour() - LATELY_HOURS]).fetchall()
            except sqlite3.Error as error:
                raise self._unreadable(error) from error
        return {Reason(code): count for code, count in rows}

    def render(self, form: str) -> str:
        """Counts and the newest entries, as `json` or as a table. Raises StoreError."""
        shown = _Shown(self.counts(), self.lately(), [_show(entry) for entry in self.read()])
        if form == "json":
            return msgspec.json.format(msgspec.json.encode(shown, order="sorted"), indent=2).decode() + "\n"
        return _draw(shown)

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            say(f"无法读取隔离区 {self.path}：{error}", f"cannot read the quarantine {self.path}: {error}")
        )

    def _hour(self) -> int:
        return int(self._clock() // HOUR_SECONDS)

    def _open(self) -> None:
        connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=0.2)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last rows, never the file
            connection.execute("PRAGMA journal_size_limit = 1048576")
            connection.executescript(_SCHEMA)
            rows = connection.execute("SELECT reason, count FROM count").fetchall()
            (self._end_bytes,) = connection.execute("SELECT ifnull(max(end_bytes), 0) FROM entry").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._counts = Counter({Reason(code): count for code, count in rows})
        self._connection = connection

    def _file(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.ProgrammingError("the quarantine is not open")
        return self._connection

    def _put_aside(self) -> None:
        beside = self.path.with_name(self.path.name + ".damaged")
        self.path.replace(beside)
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        logger.warning(
            say(
                f"隔离区文件已损坏，移到 {beside}，另建新文件",
                f"the quarantine is damaged; it was moved to {beside} and a new one begun",
            )
        )

    def _write(self, entries: list[Entry], counts: Mapping[Reason, int]) -> None:
        file = self._file()
        end_bytes = self._end_bytes
        rows = []
        for entry in entries:
            payload = entry.payload[:PAYLOAD_BYTES]
            end_bytes += len(payload) + len(entry.what.encode()) + ROW_BYTES
            rows.append((end_bytes, entry.at, entry.site, entry.agent, entry.reason, entry.what, payload))
        # what an earlier failure left unwritten is written now: the counts here are whole, not growth
        totals = [(reason, self._counts[reason]) for reason in (self._counts if self._is_failing else counts)]
        file.execute("BEGIN IMMEDIATE")
        try:
            file.executemany(_INSERT, rows)
            file.executemany(_COUNT, totals)
            hour = self._hour()
            file.executemany(_HOUR_COUNT, [(hour, reason, count) for reason, count in self._unwritten.items()])
            file.execute("DELETE FROM hour_count WHERE hour <= ?", [hour - LATELY_HOURS])
            file.execute(_PRUNE, {"max_rows": self._max_rows, "end": end_bytes, "max_bytes": self._max_bytes})
            file.execute("COMMIT")
        except sqlite3.Error:
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        self._end_bytes = end_bytes
        self._unwritten.clear()

    def _complain(self, error: sqlite3.Error) -> None:
        if not self._is_failing:
            text = say(
                f"隔离区 {self.path} 无法写入：{error}；只计数，不保留内容",
                f"cannot write the quarantine {self.path}: {error}; counting on, keeping nothing",
            )
            logger.warning(text)
        self._is_failing = True

    def _recover(self) -> None:
        if self._is_failing:
            logger.warning(say("隔离区又能写入了", "the quarantine can be written again"))
        self._is_failing = False


class _ShownEntry(msgspec.Struct, frozen=True):
    """An entry as a person reads it; at: RFC 3339 in UTC."""

    at: str
    site: str
    agent: str
    reason: str
    meaning: Text
    what: str
    payload: str


class _Shown(msgspec.Struct, frozen=True):
    counts: Mapping[Reason, int]
    last_day: Mapping[Reason, int]
    entries: list[_ShownEntry]


def _show(entry: Entry) -> _ShownEntry:
    at = datetime.fromtimestamp(entry.at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    payload = show_bytes(entry.payload)
    meaning = MEANINGS[entry.reason].text
    return _ShownEntry(at, entry.site, entry.agent, entry.reason, meaning, entry.what, payload)


def _draw(shown: _Shown) -> str:
    """The same text wherever it is drawn: the width is not the terminal's."""
    if not shown.counts:
        return say("隔离区是空的", "the quarantine is empty") + "\n"
    counts = Table(say("原因", "reason"), say("条数", "count"), say("含义", "meaning"), box=SIMPLE)
    for code, count in sorted(shown.counts.items()):
        counts.add_row(code, str(count), str(MEANINGS[code].text))
    headings = (say("时间", "time"), say("采集代理", "agent"), say("原因", "reason"), say("内容", "what"))
    newest = Table(*headings, box=SIMPLE)
    for entry in shown.entries:
        what = Content("  ".join(filter(None, (entry.what, entry.payload)))[:_DRAWN_CHARACTERS])
        newest.add_row(entry.at, f"{entry.site}/{entry.agent}", entry.reason, what)
    console = Console(file=StringIO(), width=_DRAWN_COLUMNS, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(counts, newest)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


class _Bucket:
    """Lets BURST_ROWS through at once and then so many a second."""

    def __init__(self, per_second: float, monotonic: Callable[[], float]) -> None:
        self._per_second, self._monotonic = per_second, monotonic
        self._left, self._at = float(BURST_ROWS), monotonic()

    def take(self) -> bool:
        """Whether one more may pass now."""
        now = self._monotonic()
        self._left = min(float(BURST_ROWS), self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
