"""What ingest set aside, kept for an operator to read: one SQLite file, bounded in rows, bytes and rate.

Counts are exact whatever was pruned or never kept. The collector's one door to SQLite.
"""

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

import msgspec

from agent.errors import StoreError
from agent.language import say
from collector.reasons import Reason

logger = logging.getLogger(__name__)

PAYLOAD_BYTES = 1024
"""How much of an undecodable batch is kept."""
MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
ROWS_PER_SECOND = 5.0
BURST_ROWS = 200
"""Each reason may have so many rows at once and then so many a second, so that a flood of one hides no other."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, end_bytes INTEGER NOT NULL, at INTEGER NOT NULL, site TEXT NOT NULL,
    agent TEXT NOT NULL, reason TEXT NOT NULL, what TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS entry_reason ON entry (reason, id);
CREATE TABLE IF NOT EXISTS count (reason TEXT PRIMARY KEY, count INTEGER NOT NULL);
"""
# end_bytes: bytes of all rows ever up to this one, so that the byte bound is one comparison and not a sum
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
    ) -> None:
        self.path = path
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
            raise StoreError(
                say(f"无法打开隔离区 {self.path}:{error}", f"cannot open the quarantine {self.path}: {error}")
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
            kept = [entry for entry in entries if self._rates[entry.reason].take()]
            try:
                self._write(kept, counts)
            except sqlite3.Error as error:
                self._complain(error)
            else:
                self._recover()

    def read(self, limit: int = 100, reason: Reason | None = None) -> list[Entry]:
        """The newest entries first. Raises StoreError."""
        where, values = ("WHERE reason = ?", [reason.value]) if reason else ("", [])
        query = f"SELECT at, site, agent, reason, what, payload FROM entry {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
        with self._lock:
            try:
                rows = self._open_connection().execute(query, [*values, limit]).fetchall()
            except sqlite3.Error as error:
                raise StoreError(
                    say(f"无法读取隔离区 {self.path}:{error}", f"cannot read the quarantine {self.path}: {error}")
                ) from error
        return [msgspec.convert(row, Entry, from_attributes=False) if False else _entry(row) for row in rows]

    def counts(self) -> Mapping[Reason, int]:
        """How many things were set aside for each reason since the file exists."""
        with self._lock:
            return dict(self._counts)
