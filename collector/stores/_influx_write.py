"""Points become lines: a series' name is put together once, and with it what the writer knows of the series."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from agent.catalogue import Catalogue
from agent.errors import PointsRefused
from agent.language import say
from agent.points import Point, Value
from collector.query import HOUR_MS
from collector.stores import AppliedBatch
from collector.stores._influx_http import Door
from collector.stores._influx_records import LAST_MS
from collector.stores._influx_series import Seen, SeriesMemory
from collector.stores._influx_text import field_text, numbers_texts, tags_text

MOST_BYTES = 5_000_000
"""Of one request, unpacked; InfluxDB 1.x takes 25 MB by default."""
MOST_LINES = 20_000
_NO_NUMBERS: Mapping[str, Value] = {}


class Lines(NamedTuple):
    """Points in line protocol, in the order of arrival, and which series they touch in which hour (its number).

    hours: of each site and measurement. timeless: how many points are left out because InfluxDB has no such time.
    """

    lines: Sequence[str]
    cells: set[tuple[Seen, int]]
    hours: set[tuple[str, str, int]]
    timeless: int


class _Series:
    """A series as its lines need it, and the series that came after it the last time.

    prefix: its part of the line. labels: the fields of its measurement that are texts. start, end: what of an hour is taken
    note of, in the write of that number.
    """

    __slots__ = ("end", "follower", "labels", "name", "prefix", "seen", "start", "tags", "write")

    def __init__(self, point: Point, prefix: str, labels: frozenset[str], seen: Seen) -> None:
        self.name, self.tags = point.name, point.tags
        self.prefix, self.labels, self.seen = prefix, labels, seen
        self.follower: _Series | None = None
        self.write = self.start = self.end = 0


class _Parts(NamedTuple):
    """Lines in the making: of each point what stands before its numbers, its numbers, its time."""

    prefixes: list[str]
    numbers: list[Mapping[str, Value]]
    times: list[int]
    cells: set[tuple[Seen, int]]


class PointWriter:
    """Makes lines of points. Only for the thread that writes."""

    def __init__(self, catalogue: Catalogue, series: SeriesMemory) -> None:
        self._series = series
        self._labels = {
            name: frozenset(field for field, declared in measurement.fields.items() if not declared.is_number)
            for name, measurement in catalogue.measurements.items()
        }
        self._known: dict[tuple[str, str], dict[tuple[str, ...], _Series]] = {}
        self._write = 0

    def lines(self, batches: Sequence[AppliedBatch]) -> Lines:
        """The points of all batches; the memory of their series is loaded."""
        self._write += 1
        parts = _Parts([], [], [], set())
        timeless = sum(self._add(batch, parts) for batch in batches)
        hours = {(seen.site, seen.measurement, hour * HOUR_MS) for seen, hour in parts.cells}
        self._series.note_hours(hours)
        texts = zip(parts.prefixes, numbers_texts(parts.numbers), parts.times, strict=True)
        return Lines(
            [f"{prefix}{numbers} {time}000000" for prefix, numbers, time in texts], parts.cells, hours, timeless
        )

    def _add(self, batch: AppliedBatch, parts: _Parts) -> int:
        """The innermost loop of a collector that writes to InfluxDB. Gives how many points are left out."""
        begin, add_numbers, add_time = parts.prefixes.append, parts.numbers.append, parts.times.append
        write, timeless = self._write, 0
        before: _Series | None = None
        for point in batch.points:
            tags, fields, time = point.tags, point.fields, point.timestamp
            if not 0 <= time <= LAST_MS:
                timeless += 1
                continue
            series = before.follower if before else None
            if series is None or (series.tags is not tags and series.tags != tags) or series.name != point.name:
                series = self._find(batch, point)
                if before:
                    before.follower = series
            before = series
            if series.write != write or not series.start <= time < series.end:
                self._enter(series, time, parts.cells)
            if series.labels and not series.labels.isdisjoint(fields):
                begin(series.prefix + _fields(fields, series.labels))
                fields = _NO_NUMBERS
            else:
                begin(series.prefix)
            add_numbers(fields)
            add_time(time)
        return timeless

    def _find(self, batch: AppliedBatch, point: Point) -> _Series:
        """By its tags in the order in which they came: another order costs one more entry and finds the same series."""
        known = self._known.setdefault((batch.site, batch.agent), {})
        tags = point.tags
        name = (point.name, *tags, *tags.values())
        series = known.get(name)
        if series is None:
            seen = self._series.find(batch.site, batch.agent, point.name, tags, point.timestamp)
            series = known[name] = _Series(point, _prefix(batch, point), self._labels[point.name], seen)
        return series

    def _enter(self, series: _Series, time: int, cells: set[tuple[Seen, int]]) -> None:
        """Takes note of the first point of a series in an hour of this write, and of every point before its first sight."""
        seen, hour = series.seen, time // HOUR_MS
        if not seen.first <= time < seen.hour_end:
            self._series.watch(seen, time)
        cells.add((seen, hour))
        series.write, series.start, series.end = self._write, max(hour * HOUR_MS, seen.first), (hour + 1) * HOUR_MS


def _prefix(batch: AppliedBatch, point: Point) -> str:
    return f"{point.name}{tags_text({**point.tags, 'site': batch.site, 'agent': batch.agent})} "


def _fields(fields: Mapping[str, Value], labels: frozenset[str]) -> str:
    """Every number as a float, whatever its type; a first integer would refuse all later fractions."""
    return ",".join(
        f"{name}={field_text(str(value) if name in labels else float(value))}" for name, value in fields.items()
    )


def write_points(points: Lines, door: Door) -> None:
    """Writes points. Raises PointsRefused, after the others are written, when some can never be."""
    write_all(points.lines, door)
    if points.timeless:
        text = say(
            f"{points.timeless} 个点的时间超出 InfluxDB 的范围(至 2255 年)，写不进去",
            f"{points.timeless} points bear a time that InfluxDB does not have (it ends in 2255) and cannot be written",
        )
        raise PointsRefused(f"{door.place.url}: {text}")


def write_all(lines: Sequence[str], door: Door) -> None:
    """Writes lines in requests that the server takes. Raises PointsRefused when it refuses some, after the others are written."""
    refused: PointsRefused | None = None
    for part in _parts(lines):
        try:
            door.write(part)
        except PointsRefused as error:
            refused = error
    if refused is not None:
        raise refused


def _parts(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(lines), MOST_LINES):
        yield from _halves(lines[start : start + MOST_LINES])


def _halves(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    if len(lines) == 1 or sum(map(len, lines)) <= MOST_BYTES:
        yield lines
    else:
        yield from _halves(lines[: len(lines) // 2])
        yield from _halves(lines[len(lines) // 2 :])
