"""Points become columns: a batch's list of points is grouped by measurement and fields, and inserted in bulk."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.catalogue import Catalogue
from agent.points import Value
from collector.stores import AppliedBatch
from collector.stores._duckdb_connection import Connection
from collector.stores._duckdb_kept import LateMarks
from collector.stores._duckdb_schema import count_writer
from collector.stores._duckdb_series import SeriesMemory

Shape = tuple[str, ...]
"""A measurement's name and the names of the fields present, in the point's order."""


class _Group(NamedTuple):
    """The points of one shape, in the order of arrival."""

    series: list[int]
    times: list[int]
    written: list[int]
    fields: list[Mapping[str, Value]]


class PointWriter:
    """Writes points; the later of two values for one identity has the greater `written`."""

    def __init__(self, catalogue: Catalogue, series: SeriesMemory, late: LateMarks) -> None:
        self._series = series
        self._late = late
        self._written = 0
        """Rises with every row and, since the file counts its writers, across restarts; 0 before the first write."""
        self._labels = {
            name: frozenset(field for field, declared in measurement.fields.items() if not declared.is_number)
            for name, measurement in catalogue.measurements.items()
        }
        self._known: dict[tuple[str, str], dict[tuple[str, ...], int]] = {}

    def write(self, batches: Sequence[AppliedBatch], connection: Connection) -> None:
        """Inserts the points of all batches; inside the caller's transaction."""
        self._written = self._written or count_writer(connection) << 40
        groups: dict[Shape, _Group] = {}
        for batch in batches:
            self._sort(batch, groups)
        self._late.begin(max(batch.received_at for batch in batches))
        for (measurement, *fields), group in groups.items():
            columns = self._columns(measurement, fields, group)
            self._late.watch(measurement, columns["series"], columns["time"])
            connection.insert(f"points.{measurement}", columns)
        self._series.write(connection)
        self._late.write(connection)

    def _sort(self, batch: AppliedBatch, groups: dict[Shape, _Group]) -> None:
        """Puts a batch's points into their groups: the innermost loop of the whole collector."""
        site, agent = batch.site, batch.agent
        known = self._known.setdefault((site, agent), {})
        newest, hour_ends = self._series.newest, self._series.hour_ends
        for written, point in enumerate(batch.points, self._written):
            time, fields = point.timestamp, point.fields
            shape = (point.name, *fields)
            group = groups.get(shape)
            if group is None:
                group = groups[shape] = _Group([], [], [], [])
            # the tags in the order in which they came: another order costs one more entry and finds the same series
            tags = point.tags
            name = (point.name, *tags, *tags.values())
            number = known.get(name)
            if number is None:
                number = known[name] = self._series.number(site, agent, point)
            elif newest[number] < time < hour_ends[number]:
                newest[number] = time
            else:
                self._series.watch(number, time)
            group.series.append(number)
            group.times.append(time)
            group.written.append(written)
            group.fields.append(fields)
        self._written += len(batch.points)

    def _columns(self, measurement: str, fields: Sequence[str], group: _Group) -> dict[str, NDArray[Any]]:
        count = len(group.series)
        columns: dict[str, NDArray[Any]] = {
            "series": np.array(group.series, np.int32),
            "time": np.array(group.times, np.int64),
            "written": np.array(group.written, np.int64),
        }
        labels = self._labels[measurement].intersection(fields)
        numbers = [field for field in fields if field not in labels]
        for label in labels:
            columns[label] = np.array([values[label] for values in group.fields], object)
        flat: Any = (
            chain.from_iterable(values.values() for values in group.fields)
            if not labels
            else (values[field] for values in group.fields for field in numbers)
        )
        matrix = np.fromiter(flat, np.float64, count * len(numbers)).reshape(count, len(numbers))
        for position, field in enumerate(numbers):
            columns[field] = np.ascontiguousarray(matrix[:, position])
        return columns
