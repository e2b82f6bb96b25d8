"""The spool: batches on the agent's own disk until the collector's receipt says that they are in the store.

Bounded in bytes and in age, the oldest dropped first. What that costs is announced: a set of losses never changes once
it is announced, goes with every batch sent, and is forgotten when a batch that was made after the announcement is
receipted as applied; each of that batch's sends carried the set, whichever of them arrived. Losses that come meanwhile
wait for the next set. A batch set aside proves nothing: nobody may have read it.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.clock_steps import ClockSteps, passed_seconds
from agent.errors import SpoolError
from agent.points import Point
from agent.spool_file import FRAME_BYTES, PAGE_BYTES, SpoolFile, shrink, used_pages
from agent.wire import Dropped, Receipt

LARGEST_BATCH_BYTES = 256 * 1024
"""Points beyond it make another batch; far below what brokers refuse by default."""
SMALLEST_SPOOL_BYTES = 512 * 1024
ACCOUNT_MS = 30 * 86_400_000
"""An account is closed after so long, at the next moment at which nothing waits: both sides can then still be compared whole."""
_EXPIRED_AT_ONCE = 500
_LOSSES_AT_ONCE = 100
_GREATEST_SEQ = 2**62
_SUMS = ", ".join(f"{outcome}_batches, {outcome}_points" for outcome in ("made", "applied", "set_aside", "dropped"))

_encoder = msgspec.json.Encoder()


class _Envelope(msgspec.Struct):
    """A batch whose metrics are encoded already, in the order of the wire's page."""

    boot: str
    seq: int
    made_at: int
    sent_at: int
    points: int
    dropped: list[Dropped]
    metrics: msgspec.Raw


class Outgoing(NamedTuple):
    """A batch to be sent. made_at names it within a spool; metrics is a JSON array."""

    made_at: int
    boot: str
    seq: int
    points: int
    metrics: bytes
    dropped: list[Dropped]

    def payload(self, sent_at: int) -> bytes:
        """The bytes for the wire; sent_at in milliseconds."""
        metrics = msgspec.Raw(self.metrics)
        envelope = _Envelope(self.boot, self.seq, self.made_at, sent_at, self.points, self.dropped, metrics)
        return _encoder.encode(envelope)


class SpoolState(NamedTuple):
    """The agent's own account: made = applied + set aside + dropped + waiting, in batches and in points.

    batches, points: those that wait, counted in the file and not computed. bytes: what the file's used pages hold.
    oldest_age_seconds: None when none waits. The account runs from the batch made at began_at; None until one was made,
    or while a file of an older version has not been emptied once. newest_at, oldest_at: made_at of the newest batch ever made
    (0 for none) and of the oldest that waits. closings: how many accounts were closed in this file before. unkept_points: part
    of the dropped since this process began: the disk was full, or the file could not be written.
    """

    batches: int
    points: int
    bytes: int
    oldest_age_seconds: float | None
    made_batches: int
    made_points: int
    applied_batches: int
    applied_points: int
    set_aside_batches: int
    set_aside_points: int
    dropped_batches: int
    dropped_points: int
    began_at: int | None = None
    newest_at: int = 0
    oldest_at: int | None = None
    closings: int = 0
    unkept_points: int = 0


class _Loss(NamedTuple):
    first: int
    last: int
    points: int


class Spool:
    """The spool in the file `path`, for one process at a time. Safe for threads; every call may wait for the disk.

    max_bytes bounds all that lies on disk, SQLite's log included. new_boot gives a random id and is asked once.
    clock: seconds since the epoch. passed: seconds since whenever, on a clock that nobody sets.
    The file is opened at the first call, and again after a trouble. Every call may raise SpoolError with one sentence.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        max_age_seconds: float,
        new_boot: Callable[[], str],
        clock: Callable[[], float] = time.time,
        passed: Callable[[], float] = passed_seconds,
    ) -> None:
        if max_bytes < SMALLEST_SPOOL_BYTES:
            raise ValueError(f"max_bytes is {max_bytes}, less than {SMALLEST_SPOOL_BYTES}")
        self.boot = new_boot()
        self._clock = clock
        self._clock_steps = ClockSteps(clock, passed)
        self._max_age_ms = int(max_age_seconds * 1000)
        self._lock = threading.Lock()
        self._next_seq = 0
        self._last_made_at = 0
        self._unkept_points = 0
        self._unrecorded: _Loss | None = None  # could not be kept, and the disk was too full even to note that
        # on disk stand the database, a log of log_pages, and at worst one largest batch beyond them in the log
        log_pages = min(256, max_bytes // 16 // FRAME_BYTES)
        self._largest_batch_bytes = min(LARGEST_BATCH_BYTES, max_bytes // 8)
        log_bytes = (log_pages + 16) * FRAME_BYTES + self._largest_batch_bytes
        self._max_pages = (max_bytes - log_bytes) // PAGE_BYTES
        self._file = SpoolFile(path, log_pages)

    def put(self, points: Sequence[Point]) -> None:
        """Keep points as one batch, or as several when they are many; kill -9 does not lose them after this.

        When it raises, the points that had no room count as dropped and will be announced: do not put them again.
        """
        trouble: SpoolError | None = None
        with self._lock:
            for count, metrics in self._encode(points):
                seq, self._next_seq = self._next_seq, self._next_seq + 1
                try:
                    self._file.write(partial(self._insert, seq=seq, points=count, metrics=metrics), is_durable=True)
                    self._unrecorded = None
                except SpoolError as error:
                    trouble = error
                    self._unkept_points += count
                    before = self._unrecorded or _Loss(seq, seq, 0)
                    self._unrecorded = _Loss(before.first, seq, before.points + count)
        if trouble is not None:
            raise trouble

    def take(self, limit: int, *, live_since: int, in_flight: Collection[int]) -> list[Outgoing]:
        """Up to `limit` batches to send, live before backlog, without those whose made_at is in flight.

        Live is what was made after live_since (milliseconds), the newest first; the backlog goes the oldest first.
        """
        with self._lock:
            return self._file.read(lambda c: self._select(c, limit, live_since, list(in_flight)))

    def again(self, made_at: int) -> Outgoing | None:
        """The batch to be sent once more; None when it is receipted or dropped by now."""
        with self._lock:
            found = self._file.read(lambda c: self._outgoing(c, "made_at = ?", [made_at]))
        return found[0] if found else None

    def sent_at(self, batch: Outgoing) -> int:
        """Now, for a batch that is being sent: milliseconds on the clock that stamped it, though it was set since."""
        return int(self._clock_steps.now(batch.made_at) * 1000)

    def settle(self, receipt: Receipt) -> list[int]:
        """Free what the collector wrote or set aside; gives the made_at of the freed batches."""
        with self._lock:
            # not durable: a settlement that the power takes away costs one more send, no data
            freed = self._file.write(lambda c: self._settle(c, receipt), is_durable=False)
            self._file.read(shrink)
        return freed

    def newest(self) -> int:
        """made_at of the last batch ever made, milliseconds; 0 when there was none."""
        with self._lock:
            return self._file.read(self._newest)

    def state(self) -> SpoolState:
        """How much waits and what became of the rest."""
        with self._lock:
            return self._file.read(self._state)

    def close(self) -> None:
        """Let go of the file; a later call opens it again."""
        with self._lock:
            self._file.close()

    def _encode(self, points: Sequence[Point]) -> Iterator[tuple[int, bytes]]:
        if not points:
            return
        metrics = _encoder.encode(points)
        if len(metrics) <= self._largest_batch_bytes or len(points) == 1:
            yield len(points), metrics
            return
        middle = len(points) // 2
        yield from self._encode(points[:middle])
        yield from self._encode(points[middle:])

    def _insert(self, connection: sqlite3.Connection, seq: int, points: int, metrics: bytes) -> None:
        now = int(self._clock() * 1000)
        _close_account(connection, now)
        if self._unrecorded is not None:
            _count(connection, "made", self._unrecorded.last - self._unrecorded.first + 1, self._unrecorded.points)
            _lose(connection, self.boot, self._unrecorded)
        _count(connection, "made", 1, points)
        self._drop_expired(connection, now - self._max_age_ms)
        if len(metrics) > self._largest_batch_bytes:
            _lose(connection, self.boot, _Loss(seq, seq, points))
        else:
            self._make_room(connection, len(metrics))
        _announce(connection)  # before the batch is made, which then carries it
        if len(metrics) <= self._largest_batch_bytes:
            made_at = max(now, self._newest(connection) + 1)
            row = (made_at, self.boot, seq, points, metrics)
            connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?)", row)
            connection.execute(
                "UPDATE ledger SET last_made_at = ?, began_at = coalesce(began_at, ?)", [made_at, made_at]
            )
            self._last_made_at = made_at
            self._clock_steps.note(made_at)

    def _drop_expired(self, connection: sqlite3.Connection, before: int) -> None:
        for _ in range(_EXPIRED_AT_ONCE):
            if not _drop_oldest(connection, before):
                return

    def _make_room(self, connection: sqlite3.Connection, metrics_bytes: int) -> None:
        needed = metrics_bytes // (PAGE_BYTES - 4) + 4  # its own pages, and what the tables around it may grow
        while used_pages(connection) + needed > self._max_pages:
            if not _drop_oldest(connection, _GREATEST_SEQ):
                return

    def _select(self, c: sqlite3.Connection, limit: int, live_since: int, in_flight: list[int]) -> list[Outgoing]:
        absent = f"made_at NOT IN ({', '.join('?' * len(in_flight))})"
        live = f"made_at > ? AND {absent} ORDER BY made_at DESC LIMIT ?"
        found = self._outgoing(c, live, [live_since, *in_flight, limit])
        backlog = f"made_at <= ? AND {absent} ORDER BY made_at LIMIT ?"
        return found + self._outgoing(c, backlog, [live_since, *in_flight, limit - len(found)])

    def _outgoing(self, connection: sqlite3.Connection, where: str, values: list[int]) -> list[Outgoing]:
        query = f"SELECT made_at, boot, seq, points, metrics FROM batch WHERE {where}"  # noqa: S608 - our own text
        rows = connection.execute(query, values).fetchall()
        if not rows:
            return []
        losses = "SELECT boot, first, last, points FROM loss WHERE is_announced ORDER BY id"
        dropped: list[Dropped] = connection.execute(losses).fetchall()
        return [Outgoing(made_at, boot, seq, points, metrics, dropped) for made_at, boot, seq, points, metrics in rows]

    def _settle(self, connection: sqlite3.Connection, receipt: Receipt) -> list[int]:
        announced_at: int = connection.execute("SELECT announced_at FROM ledger").fetchone()[0]
        freed: list[int] = []
        for outcome, ranges in (("applied", receipt.applied), ("set_aside", receipt.set_aside)):
            for first, last in ranges:
                rows = _delete(connection, receipt.boot, first, last)
                _count(connection, outcome, len(rows), sum(points for _, points in rows))
                freed += (made_at for made_at, _ in rows)
                if outcome == "applied" and any(made_at > announced_at for made_at, _ in rows):
                    connection.execute("DELETE FROM loss WHERE is_announced")
        _announce(connection)
        return freed

    def _newest(self, connection: sqlite3.Connection) -> int:
        made_at: int = connection.execute("SELECT last_made_at FROM ledger").fetchone()[0]
        return max(made_at, self._last_made_at)  # a file begun anew knows less than this process

    def _state(self, connection: sqlite3.Connection) -> SpoolState:
        ledger = connection.execute(f"SELECT {_SUMS}, began_at, closings FROM ledger").fetchone()  # noqa: S608
        *sums, began_at, closings = ledger
        waiting = "SELECT count(*), total(points), min(made_at) FROM batch"
        batches, points, oldest = connection.execute(waiting).fetchone()
        age_seconds = None if oldest is None else max(0.0, self._clock() - oldest / 1000)
        held = (batches, int(points), used_pages(connection) * PAGE_BYTES, age_seconds)
        rest = (began_at, self._newest(connection), oldest, closings, self._unkept_points)
        return SpoolState._make((*held, *sums, *rest))


def _close_account(connection: sqlite3.Connection, now: int) -> None:
    """Begin a new account when the old one is old or of unknown age, and whole: nothing waits, nothing is to be announced."""
    began_at, made = connection.execute("SELECT began_at, made_batches FROM ledger").fetchone()
    if not made or (began_at is not None and now - began_at < ACCOUNT_MS):
        return
    if connection.execute("SELECT EXISTS (SELECT 1 FROM batch) OR EXISTS (SELECT 1 FROM loss)").fetchone()[0]:
        return
    zeros = _SUMS.replace(",", " = 0,") + " = 0"
    connection.execute(f"UPDATE ledger SET began_at = NULL, closings = closings + 1, {zeros}")  # noqa: S608 - our own words


def _count(connection: sqlite3.Connection, outcome: str, batches: int, points: int) -> None:
    names = f"{outcome}_batches = {outcome}_batches + ?, {outcome}_points = {outcome}_points + ?"
    connection.execute(f"UPDATE ledger SET {names}", (batches, points))  # noqa: S608 - four words of our own


def _delete(connection: sqlite3.Connection, boot: str, first: int, last: int) -> list[tuple[int, int]]:
    """Delete the batches of a receipt's range that are here; gives their (made_at, points)."""
    wanted = (boot, max(first, 0), min(last, _GREATEST_SEQ))
    where = "boot = ? AND seq BETWEEN ? AND ?"
    rows = connection.execute(f"SELECT made_at, points FROM batch WHERE {where}", wanted).fetchall()  # noqa: S608
    connection.execute(f"DELETE FROM batch WHERE {where}", wanted)  # noqa: S608
    return rows


def _drop_oldest(connection: sqlite3.Connection, before: int) -> bool:
    """Drop the oldest batch if it was made before `before`, and note the loss; False when there is none."""
    row = connection.execute("SELECT made_at, boot, seq, points FROM batch ORDER BY made_at LIMIT 1").fetchone()
    if row is None or row[0] >= before:
        return False
    made_at, boot, seq, points = row
    connection.execute("DELETE FROM batch WHERE made_at = ?", [made_at])
    _lose(connection, boot, _Loss(seq, seq, points))
    return True


def _lose(connection: sqlite3.Connection, boot: str, loss: _Loss) -> None:
    """Note a loss; it lengthens the range before it unless that is announced."""
    _count(connection, "dropped", loss.last - loss.first + 1, loss.points)
    longer = "UPDATE loss SET last = ?, points = points + ? WHERE boot = ? AND last = ? AND NOT is_announced"
    if connection.execute(longer, (loss.last, loss.points, boot, loss.first - 1)).rowcount == 0:
        row = (boot, loss.first, loss.last, loss.points)
        connection.execute("INSERT INTO loss (boot, first, last, points) VALUES (?, ?, ?, ?)", row)


def _announce(connection: sqlite3.Connection) -> None:
    """Fix the next set of losses when no set is under way."""
    waiting, announced = connection.execute("SELECT count(*), total(is_announced) FROM loss").fetchone()
    if waiting == 0 or announced:
        return
    oldest = "SELECT id FROM loss ORDER BY id LIMIT ?"
    connection.execute(f"UPDATE loss SET is_announced = 1 WHERE id IN ({oldest})", [_LOSSES_AT_ONCE])  # noqa: S608
    connection.execute("UPDATE ledger SET announced_at = last_made_at")
