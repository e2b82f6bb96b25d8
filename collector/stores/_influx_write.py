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
from collector.stores._influx_text import field_text, tags_text

MOST_BYTES = 5_000_000
"""Of one request, unpacked; InfluxDB 1.x takes 25 MB by default."""
MOST_LINES = 20_000


class Lines(NamedTuple):
    """Points in line protocol, in the order of arrival, and which series they touch in which hour (its number).

    hours: of each site and measurement. timeless: how many points are left out because InfluxDB has no such time.
    """

    lines: Sequence[str]
    cells: set[tuple[Seen, int]]
    hours: set[tuple[str, str, int]]
    timeless: int


class PointWriter:
    """Makes lines of points. Only for the thread that writes."""

    def __init__(self, catalogue: Catalogue, series: SeriesMemory) -> None:
        self._series = series
        self._labels = {
            name: frozenset(field for field, declared in measurement.fields.items() if not declared.is_number)
            for name, measurement in catalogue.measurements.items()
        }
        self._known: dict[tuple[str, str], dict[tuple[str, ...], tuple[str, Seen]]] = {}
        self._templates: dict[tuple[str, ...], str] = {}

    def lines(self, batches: Sequence[AppliedBatch]) -> Lines:
        """The points of all batches; the memory of their series is loaded."""
        lines: list[str] = []
        cells: set[tuple[Seen, int]] = set()
        timeless = sum(self._add(batch, lines, cells) for batch in batches)
        hours = {(seen.site, seen.measurement, hour * HOUR_MS) for seen, hour in cells}
        self._series.note_hours(hours)
        return Lines(lines, cells, hours, timeless)

    def _add(self, batch: AppliedBatch, lines: list[str], cells: set[tuple[Seen, int]]) -> int:
        """The innermost loop of a collector that writes to InfluxDB. Gives how many points are left out."""
        site, agent, timeless = batch.site, batch.agent, 0
        known = self._known.setdefault((site, agent), {})
        templates = self._templates
        for point in batch.points:
            time, tags, fields = point.timestamp, point.tags, point.fields
            if not 0 <= time <= LAST_MS:
                timeless += 1
                continue
            # the tags in the order in which they came: another order costs one more entry and finds the same series
            name = (point.name, *tags, *tags.values())
            found = known.get(name)
            if found is None:
                seen = self._series.find(site, agent, point.name, tags, time)
                found = known[name] = _prefix(batch, point), seen
            prefix, seen = found
            if not seen.first <= time < seen.hour_end:
                self._series.watch(seen, time)
            cells.add((seen, time // HOUR_MS))
            template = templates.get(shape := (point.name, *fields))
            if template is None:
                template = templates[shape] = self._template(shape)
            if template:
                lines.append(prefix + template % (*fields.values(), time))
            else:
                lines.append(f"{prefix}{_fields(fields, self._labels[point.name])} {time}000000")
        return timeless

    def _template(self, shape: tuple[str, ...]) -> str:
        """Fields and time of a point of this shape, whose values are then set in at one blow; empty when one of them is a text.

        Checked numbers are floats, and how Python shows a float is how line protocol wants it.
        """
        name, *fields = shape
        if not self._labels[name].isdisjoint(fields):
            return ""
        return ",".join(f"{field}=%r" for field in fields) + " %d000000"


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
            f"{points.timeless} 个点的时间超出 InfluxDB 的范围(至 2255 年),写不进去",
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
