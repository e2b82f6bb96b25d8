"""Kept buckets and late marks in a DuckDB store: the tables `kept_0` to `kept_f`, `late` and `pruned`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector.buckets import NO_ROWS, Integers, Rows, join, round9_all
from collector.query import DAY_MS, HOUR_MS, Question
from collector.stores import LATENESS_MS, LateHour
from collector.stores._duckdb_connection import Connection
from collector.stores._duckdb_questions import Where, buckets_of, late_of, slices_of, spans_of, subjects_of
from collector.stores._duckdb_schema import KEPT_TABLES
from collector.stores._duckdb_series import SeriesMemory
from collector.stores._kept import KEPT_DAYS, LATE_DAYS, MINUTE_MS, Fresh, KeptChunk, Span, Subject, Subjects, runs_of


class Known(NamedTuple):
    """A subject as the table of series has it; number: of its first series. newest_first: when its newest series was first seen."""

    number: int
    series: int
    first_seen: int
    last_seen: int
    newest_first: int
    agent: str
    tags: Subject


class Reader:
    """A `_kept.Source`: all its readings see the one moment of `connection`, and what many questions share is read once.

    A subject's number is that of its first series.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[object, ...], list[Known]] = {}

    def known(self, measurement: str, where: Where, per: Sequence[str]) -> list[Known]:
        """The subjects of all series that are wanted, in the order of their tags."""
        key = (measurement, where, per)
        if key not in self._known:
            rows = self._connection.rows(*subjects_of(measurement, where, per))
            self._known[key] = [
                Known(number, series, first, last, newest, agent, tuple(tags))
                for number, series, first, last, newest, agent, *tags in rows
            ]
        return self._known[key]

    def _of(self, question: Question) -> list[Known]:
        return self.known(question.measurement, question.where, question.per)

    def is_shared(self, question: Question) -> bool:
        """Whether a subject of the question has several series."""
        return any(one.series > 1 for one in self._of(question))

    def subjects(self, question: Question) -> Subjects | None:
        """The subjects of all series that the question wants."""
        known = self._of(question)
        if not known:
            return None
        last = max(one.last_seen for one in known)
        # last_seen is kept to the hour
        until = (last // HOUR_MS + 1) * HOUR_MS
        return Subjects({one.number: one.tags for one in known}, min(one.first_seen for one in known), until)

    def kept(self, question: str, start: int, end: int) -> Iterable[KeptChunk]:
        """The chunks between `start` and `end`, ascending."""
        columns = self._connection.columns(_KEPT.format(_table(question)), [question, start, end])
        return map(KeptChunk, *(columns[name].tolist() for name in _CHUNK))

    def late(self, question: Question, kept: Collection[KeptChunk]) -> Iterable[LateHour]:
        """The newest mark of each asset and hour that concerns the question in what was kept."""
        first, last = self._late_between.get(question.measurement, (0, 0))
        if last <= question.start - HOUR_MS or first >= question.end:
            return ()
        return (
            LateHour(question.measurement, *row) for row in self._connection.rows(*late_of(question, runs_of(kept)))
        )

    @cached_property
    def _late_between(self) -> Mapping[str, Span]:
        """The first and the last marked hour of every measurement that has any."""
        rows = self._connection.rows("SELECT measurement, min(hour), max(hour) FROM late GROUP BY measurement")
        return {measurement: (first, last) for measurement, first, last in rows}

    def raw_from(self, measurement: str) -> int:
        """Before this time raw points are gone."""
        return self._pruned.get(measurement, 0)

    @cached_property
    def _pruned(self) -> Mapping[str, int]:
        return dict(self._connection.rows("SELECT measurement, max(before) FROM pruned GROUP BY measurement"))

    def doubles(self, question: Question) -> list[Span]:
        """The parts of the question's window in which an identity may stand twice, ascending."""
        return spans_of(self._double_hours.get(question.measurement, ()), question)

    @cached_property
    def _double_hours(self) -> Mapping[str, Sequence[int]]:
        hours: dict[str, list[int]] = {}
        for measurement, hour in self._connection.rows("SELECT measurement, hour FROM double_hour ORDER BY hour"):
            hours.setdefault(measurement, []).append(hour)
        return hours

    def raw(self, question: Question, spans: Sequence[Span]) -> Rows:
        """The buckets in these spans, slice by slice."""
        known = self._of(question)
        is_shared, doubles = self.is_shared(question), self.doubles(question)
        numbers = np.array([one.number for one in known], np.int64)
        slices = slices_of(question, spans, len(known)) if known else []
        parts = [self._connection.columns(*buckets_of(question, one, doubles, is_shared)) for one in slices]
        return join([_rows(part, numbers, question.bucket_count()) for part in parts]) if parts else NO_ROWS


def _rows(part: Mapping[str, NDArray[np.float64]], numbers: Integers, count: int) -> Rows:
    """The rows of a query as numbers that stay; one without a value (a percentile of rank 0) is no bucket."""
    bucket, values, samples = (part[name] for name in ("bucket", "value", "samples"))
    rows = Rows(
        numbers[bucket // count], (bucket % count).astype(np.int64), round9_all(values), samples.astype(np.int64)
    )
    return rows.where(~np.isnan(values))


class LateMarks:
    """Watches what is written: late points mark their hour, and what is remembered learns which hours changed.

    `kept_until` is the newest reading that was kept: a point in an hour that was closed then is late, whenever it was received
    (it may have waited here). All in the thread that writes.
    """

    def __init__(self, connection: Connection, series: SeriesMemory, fresh: Fresh) -> None:
        self._series, self._fresh = series, fresh
        newest = (connection.rows(f"SELECT max(made_at) FROM {table}")[0][0] for table in KEPT_TABLES)  # noqa: S608
        self._kept_until = max(int(made_at or 0) for made_at in newest)
        self._firsts: dict[tuple[str, str, str], int] = {}
        """Measurement, site and asset -> the series that stands for them in a mark."""
        self._marked: dict[str, Integers] = {}
        """Measurement -> the marks of this minute, ascending: series and hour in one number each."""
        self._new: list[Integers] = []
        self._closed_until = 0
        self._received = 0

    def begin(self, received_at: int) -> None:
        """A write of what was received until then begins."""
        moment = max(received_at, self._kept_until)
        self._closed_until = (moment - LATENESS_MS) // HOUR_MS * HOUR_MS
        received = (moment // MINUTE_MS + 1) * MINUTE_MS  # one row a minute at most
        if received != self._received:
            self._received, self._marked = received, {}

    def watch(self, measurement: str, series: NDArray[np.int32], times: Integers) -> None:
        """Points of these series and times are about to be written."""
        first, last = int(times.min()) // HOUR_MS, int(times.max()) // HOUR_MS
        hours = [first] if first == last else np.unique(times // HOUR_MS).tolist()
        self._fresh.touch(measurement, [hour * HOUR_MS for hour in hours])
        if first * HOUR_MS >= self._closed_until:
            return
        is_late = times < self._closed_until
        marks = np.unique(self._stand_ins(measurement, series[is_late]) << _HOUR_BITS | times[is_late] // HOUR_MS)
        known = self._marked.get(measurement)
        new = marks if known is None else np.setdiff1d(marks, known, assume_unique=True)
        if len(new):
            self._marked[measurement] = new if known is None else np.union1d(known, new)
            self._new.append(new)

    def _stand_ins(self, measurement: str, series: NDArray[np.int32]) -> Integers:
        """For each of these series the first one of its asset: a backlog is many points of few series."""
        found, at = np.unique(series, return_inverse=True)
        firsts = [self._firsts.setdefault((measurement, *self._series.whose[one]), one) for one in found.tolist()]
        stand_ins: Integers = np.array(firsts, np.int64)[at]
        return stand_ins

    def write(self, connection: Connection) -> None:
        """Writes the new marks; inside the caller's transaction, when the series are written."""
        if not self._new:
            return
        marks = np.concatenate(self._new)
        hours = (marks & ((1 << _HOUR_BITS) - 1)) * HOUR_MS
        columns = {"id": marks >> _HOUR_BITS, "hour": hours, "received": np.full(len(marks), self._received)}
        connection.insert_from(_MARKS, "late", columns)
        self._new = []

    def keep(self, chunks: Sequence[KeptChunk], connection: Connection) -> None:
        """Writes these chunks in place of older ones, in a transaction of its own."""
        with connection.transaction():
            put_chunks(chunks, connection)
        self._kept_until = max(self._kept_until, *(chunk.made_at for chunk in chunks))


def put_chunks(chunks: Iterable[KeptChunk], connection: Connection) -> None:
    """Writes these chunks in place of older ones; inside the caller's transaction."""
    by_table: dict[str, list[KeptChunk]] = {}
    for chunk in chunks:
        by_table.setdefault(_table(chunk.question), []).append(chunk)
    for table, part in by_table.items():
        columns = _columns(part)
        connection.delete(table, {name: columns[name] for name in ("question", "start", "finish")})
        connection.insert(table, columns)


def _table(question: str) -> str:
    """Where what is kept for the question of this digest stands."""
    return f"kept_{question[0]}"


def _columns(chunks: Sequence[KeptChunk]) -> dict[str, NDArray[Any]]:
    columns = dict(zip(_CHUNK, (np.array(part, object) for part in zip(*chunks, strict=True)), strict=True))
    return columns | {name: columns[name].astype(np.int64) for name in ("start", "finish", "made_at")}


def late_hours(site: str, since: int, connection: Connection) -> list[LateHour]:
    """The hours of `site` that got late points at or after `since`."""
    return [LateHour(*row) for row in connection.rows(_LATE_HOURS, [site, since])]


def note_pruned(measurement: str, before: int, connection: Connection) -> None:
    """Raw points before this time are gone: what was kept of them stays as it is."""
    connection.run("DELETE FROM pruned WHERE measurement = ?", [measurement])
    connection.run("INSERT INTO pruned VALUES (?, ?)", [measurement, before])


def prune_kept(now: int, connection: Connection) -> int:
    """Deletes kept chunks after KEPT_DAYS, marks after LATE_DAYS and what was kept before them and never renewed."""
    before = now - LATE_DAYS * DAY_MS
    has_old_marks = bool(connection.rows("SELECT 1 FROM late WHERE received < ? LIMIT 1", [before]))
    gone = 0
    for table in KEPT_TABLES:
        gone += connection.rows(f"DELETE FROM {table} WHERE finish < ?", [now - KEPT_DAYS * DAY_MS])[0][0]  # noqa: S608
        if has_old_marks:
            gone += connection.rows(_DELETE_STALE.format(table), [before])[0][0]
    if has_old_marks:
        gone += connection.rows("DELETE FROM late WHERE received < ?", [before])[0][0]
    return int(gone)


_MARKS = "SELECT measurement, site, asset, hour, received FROM incoming JOIN series USING (id)"
_HOUR_BITS = 42
"""Of a mark, for the hour: more than there are in 64 bits of milliseconds."""
_CHUNK = ("question", "measurement", "start", "finish", "made_at", "places", "samples", "values")
_KEPT = """
SELECT question, measurement, start, finish, made_at, places, samples, "values" FROM {}
WHERE question = ? AND start >= ? AND finish <= ?
"""
_LATE_HOURS = """
SELECT measurement, asset, hour, max(received) FROM late WHERE site = ? AND received >= ? GROUP BY ALL ORDER BY ALL
"""
_DELETE_STALE = f"""
DELETE FROM {{0}} AS kept USING (SELECT measurement, hour, max(received) AS received FROM late WHERE received < ? GROUP BY ALL) AS old
WHERE kept.measurement = old.measurement AND kept.start < old.hour + {HOUR_MS} AND kept.finish > old.hour
    AND kept.made_at <= old.received
    AND kept.start >= coalesce((SELECT max(before) FROM pruned WHERE pruned.measurement = kept.measurement), 0)
"""  # noqa: S608  # a number of our own
