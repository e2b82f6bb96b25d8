"""Kept buckets and late marks in an InfluxDB store, and how two collectors keep each other's right.

Who reads hours in order to keep them announces it first. Who writes looks at the announcement after the points: points in
an hour that may have been read for keeping without them mark it; what was announced before is marked before them. So whatever the order in which the two go on, a chunk that was
read without a point is older than that point's mark, and is read again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from collector.buckets import Rows
from collector.query import DAY_MS, HOUR_MS, Question
from collector.stores import LATENESS_MS, LateHour
from collector.stores._influx_http import Door
from collector.stores._influx_pack import COLUMNS, ROLL_MS, SECOND_NS, Asked, unpack
from collector.stores._influx_questions import read_rows
from collector.stores._influx_records import KEPT, LATE_HOUR, MS, PRUNED, READING, ROLL, Fields, mix, timeless
from collector.stores._influx_series import Seen, SeriesLists
from collector.stores._influx_text import decode_tag, line, tag_value_text, value_text
from collector.stores._kept import KEPT_DAYS, LATE_DAYS, MINUTE_MS, Fresh, KeptChunk, Span, Subjects

SKEW_MS = 60_000
"""How far the clocks of two collectors may lie apart: a mark reaches that much beyond its minute."""


class Reader:
    """A `_kept.Source` for one question."""

    def __init__(self, door: Door, lists: SeriesLists, meaning: Asked) -> None:
        self._door, self._lists, self._meaning = door, lists, meaning
        self._present: frozenset[int] = frozenset()

    def subjects(self, question: Question) -> Subjects | None:
        """The subjects of all series that the question wants."""
        series, until = self._lists.read(question.measurement, question.where, self._door)
        if not series:
            return None
        number = self._meaning.numbering.number
        tags: dict[int, tuple[str, ...]] = {}
        for one in series:
            subject = tuple(one.tags.get(tag, "") for tag in question.per)
            tags.setdefault(number(subject), subject)
        self._present = frozenset(tags)
        return Subjects(tags, min(one.first_seen for one in series), until)

    def kept(self, question: str, start: int, end: int) -> Iterable[KeptChunk]:
        """The chunks between `start` and `end` kept for the question of this digest."""
        condition = f'"part" = {value_text(question[:2])} AND "question" = {value_text(question)}'
        statement = f'SELECT {COLUMNS} FROM "{KEPT}" WHERE {condition} AND time >= {start}ms AND time < {end + 1000}ms'  # noqa: S608
        rows = (values[1:] for rows in self._door.ask([statement]) for values in rows.values)
        return unpack(
            (row for row in rows if row[2] >= start and row[3] <= end), self._meaning, self._present, self._door
        )

    def late(self, question: Question, kept: Collection[KeptChunk]) -> Iterable[LateHour]:
        """The marks that concern the question in what was kept, each with the margin for another collector's clock."""
        tags = [f'"of" = {tag_value_text(question.measurement)}']
        for sites in (values for tag, values in question.where if tag == "site"):
            words = [f'"site" = {tag_value_text(site)}' for site in sites]
            tags.append(f"({' OR '.join(words)})")
        tags.append(f'"received" >= {min(one.made_at for one in kept) - SKEW_MS}')
        first = min(one.start for one in kept) // HOUR_MS * HOUR_MS
        end = -(-max(one.end for one in kept) // HOUR_MS) * HOUR_MS  # a mark stands anywhere in its hour
        condition = f"{' AND '.join(tags)} AND time >= {first}ms AND time < {end}ms"
        statement = f'SELECT "asset", "hour", "received" FROM "{LATE_HOUR}" WHERE {condition}'  # noqa: S608
        for rows in self._door.ask([statement]):
            for _, asset, hour, received in rows.values:
                yield LateHour(question.measurement, asset, hour, received + SKEW_MS)

    def raw_from(self, measurement: str) -> int:
        """Before this time raw points are gone."""
        return pruned(self._door).get(measurement, 0)

    def raw(self, question: Question, spans: Sequence[Span]) -> Rows:
        """The buckets in these spans, of the subjects that this reading knows."""
        rows = read_rows(question, spans, self._meaning.numbering, self._door)
        return rows.where(np.isin(rows.subjects, list(self._present)))


class Announced(NamedTuple):
    """Until when hours may have been read for keeping, and until when batches may have been counted."""

    hours: int
    batches: int


def announce(what: Literal["hours", "batches"], until: int) -> str:
    """The record that says: what is closed at `until` may be read from now on."""
    return timeless(READING, {"what": what}, {"until": until})


def announced(door: Door) -> Announced:
    """What stands announced now."""
    statement = f'SELECT last("until") FROM "{READING}" GROUP BY "what"'  # noqa: S608
    found = {rows.tags["what"]: int(rows.values[0][1]) for rows in door.ask([statement])}
    return Announced(found.get("hours", 0), found.get("batches", 0))


def pruned(door: Door) -> Mapping[str, int]:
    """Measurement -> before when its raw points are gone."""
    statement = f'SELECT "measurement", "before" FROM "{PRUNED}"'  # noqa: S608
    return {name: before for rows in door.ask([statement]) for _, name, before in rows.values}


def note_pruned(measurement: str, before: int) -> str:
    """The record that says: raw points before this time are gone."""
    return timeless(PRUNED, {}, {"measurement": measurement, "before": before}, measurement)


class LateMarks:
    """The marks of one writer; only for the thread that writes."""

    def __init__(self, fresh: Fresh, announced: Announced) -> None:
        self._fresh = fresh
        self.announced = announced
        """The most that ever was heard."""
        self._marked: dict[tuple[str, str, str, int], int] = {}

    def touch(self, hours: Iterable[tuple[str, str, int]]) -> None:
        """Points of a site and measurement in an hour (its start) are about to be written."""
        touched: dict[str, set[int]] = {}
        for _, measurement, hour in hours:
            touched.setdefault(measurement, set()).add(hour)
        for measurement, starts in touched.items():
            self._fresh.touch(measurement, starts)

    def hear(self, announced: Announced) -> None:
        """What stands announced at the moment."""
        known = self.announced
        self.announced = Announced(max(known.hours, announced.hours), max(known.batches, announced.batches))

    def lines(
        self, cells: Iterable[tuple[Seen, int]], hours: Iterable[tuple[str, str, int]], received_at: int
    ) -> list[str]:
        """Marks for those of the cells that lie in an hour which was closed at `received_at`, or is announced.

        hours: those of the cells, of every site and measurement; mostly none is closed, and there are few of them. An hour is treated as closed the margin earlier: another collector's clock may be that much ahead.
        """
        moment = max(received_at, self.announced.hours)
        closed = (moment + SKEW_MS - LATENESS_MS) // HOUR_MS
        received = (moment // MINUTE_MS + 1) * MINUTE_MS  # one writing a minute at most
        if all(hour >= closed * HOUR_MS for _, _, hour in hours):
            return []
        lines = []
        for seen, hour in cells:
            if hour >= closed:
                continue
            key = (seen.site, seen.measurement, seen.asset, hour)
            if self._marked.get(key, 0) >= received:
                continue
            self._marked[key] = received
            fields: Fields = {"asset": seen.asset, "hour": hour * HOUR_MS, "received": received}
            tags = {"site": seen.site, "of": seen.measurement}
            lines.append(line(LATE_HOUR, tags, fields, _mark_ns(*key[:3], hour * HOUR_MS)))
        return lines

    def forget(self) -> None:
        """Marks were pruned: what comes late is written anew."""
        self._marked = {}


def late_hours(site: str, since: int, door: Door) -> list[LateHour]:
    """The hours of `site` that got late points at or after `since`, sorted.

    Marks that only the margin made are not told: what came before an hour's end and LATENESS_MS is not late.
    """
    condition = f'"site" = {tag_value_text(site)} AND "received" >= {since}'
    statement = f'SELECT "asset", "hour", "received" FROM "{LATE_HOUR}" WHERE {condition} GROUP BY "of"'  # noqa: S608
    return sorted(
        LateHour(decode_tag(rows.tags["of"]), asset, hour, received)
        for rows in door.ask([statement])
        for _, asset, hour, received in rows.values
        if received > hour + HOUR_MS + LATENESS_MS
    )


def prune_kept(now: int, door: Door) -> int:
    """Deletes kept chunks after KEPT_DAYS, marks after LATE_DAYS and what was kept before them and never renewed."""
    before = now - KEPT_DAYS * DAY_MS
    statement = f'SELECT count("piece") FROM "{KEPT}" WHERE time < {before}ms'  # noqa: S608
    gone = sum(int(rows.values[0][1]) for rows in door.ask([statement]))
    if gone:
        door.delete(KEPT, 0, before * MS, {})
        door.delete(ROLL, 0, (before - ROLL_MS) * MS, {})
    return gone + _prune_marks(now - LATE_DAYS * DAY_MS, door)


def _prune_marks(before: int, door: Door) -> int:
    columns = '"asset", "hour", "received"'
    statement = f'SELECT {columns} FROM "{LATE_HOUR}" WHERE "received" < {before} GROUP BY "site", "of"'  # noqa: S608
    old: dict[tuple[str, int], int] = {}
    marks: list[tuple[str, str, str, int]] = []
    for rows in door.ask([statement]):
        for _, asset, hour, received in rows.values:
            site, of = decode_tag(rows.tags["site"]), decode_tag(rows.tags["of"])
            old[of, hour] = max(received, old.get((of, hour), 0))
            marks.append((site, of, asset, hour))
    gone = sum(_delete_stale(of, hour, received, door) for (of, hour), received in sorted(old.items()))
    for mark in marks:
        time_ns = _mark_ns(*mark)
        door.delete(LATE_HOUR, time_ns, time_ns + 1, {"site": mark[0], "of": mark[1]})
    return gone + len(marks)


def _mark_ns(site: str, measurement: str, asset: str, hour: int) -> int:
    """Where the mark of an asset and hour (its start) stands."""
    return hour * MS + mix(site, measurement, asset, hour) % (HOUR_MS * MS)


def _delete_stale(measurement: str, hour: int, received: int, door: Door) -> int:
    """Deletes the chunks over the hour that were made before its mark and never renewed."""
    condition = (
        f'"measurement" = {value_text(measurement)} AND "finish" > {hour} AND "made_at" <= {received + SKEW_MS}'
        f" AND time >= {hour - 40 * DAY_MS}ms AND time < {hour + HOUR_MS + 1000}ms"
    )
    statement = f'SELECT "start", "measurement" FROM "{KEPT}" WHERE {condition} GROUP BY "part"'  # noqa: S608
    raw_from = pruned(door).get(measurement, 0)
    stale = {
        (rows.tags["part"], start)
        for rows in door.ask([statement])
        for _, start, _ in rows.values
        if raw_from <= start < hour + HOUR_MS
    }
    for part, start in sorted(stale):  # neighbours that go with it are only computed anew
        door.delete(KEPT, start * MS, start * MS + SECOND_NS, {"part": part})
    return len(stale)


def prune_points(before: Mapping[str, int], door: Door) -> int:
    """Deletes each measurement's raw points before its time and notes it first; gives about how many rows went."""
    names = sorted(before)
    counted = [0] * len(names)
    for rows in door.ask([f'SELECT count(*) FROM "{name}" WHERE time < {before[name]}ms' for name in names]):  # noqa: S608
        counted[rows.statement] = max(int(count or 0) for count in rows.values[0][1:])
    gone = [name for name, count in zip(names, counted, strict=True) if count]
    if gone:
        door.write([note_pruned(name, before[name]) for name in gone])
    for name in gone:
        door.delete(name, 0, before[name] * MS, {})
    return sum(counted)
