"""What a writer remembers of each series: its number, its newest point, and which hours may hold an identity twice."""

from collections.abc import Mapping

import numpy as np

from agent.catalogue import RESERVED_TAGS, Catalogue
from agent.points import Point
from collector.query import HOUR_MS
from collector.stores._copy import SeriesRow
from collector.stores._duckdb_connection import Connection

Key = tuple[object, ...]
"""Measurement, site, agent, asset and the other tags in the catalogue's order; an absent tag is ''."""


class SeriesMemory:
    """Numbers series and watches their times; what changed is written with the points, in their transaction.

    newest, hour_ends: by series number; plain lists, since the writer's loop touches them once per point. whose: site and asset.
    seen: every measurement that a site has a series of, and maybe of which a write has failed; readers may look at any time.
    After a restart the newest point of a series is not known but that it lies in the hour of `last_seen`: points in the
    rest of that hour count as possible doubles.
    """

    def __init__(self, connection: Connection, catalogue: Catalogue) -> None:
        self.newest: list[int] = []
        self.hour_ends: list[int] = []
        self.whose: list[tuple[str, str]] = []
        self.seen: set[tuple[str, str]] = set()
        self._tags = {name: tuple(declared.tags) for name, declared in catalogue.measurements.items()}
        self._first: list[int] = []
        self._last: list[int] = []
        self._measurement: list[str] = []
        self._ids: dict[Key, int] = {}
        self._new: list[tuple[int, Key]] = []
        self._seen: set[int] = set()
        self._owners: set[tuple[str, str]] = set()
        self._new_owners: list[tuple[str, str, str]] = []
        self._marks: set[tuple[str, int]] = set()
        self._new_marks: set[tuple[str, int]] = set()
        self._read(connection)

    def _read(self, connection: Connection) -> None:
        rows = connection.rows(
            "SELECT id, measurement, site, agent, asset, tags, first_seen, last_seen FROM series ORDER BY id"
        )
        for _, measurement, site, agent, asset, tags, first_seen, last_seen in rows:
            key = (measurement, site, agent, asset, *(tags.get(tag, "") for tag in self._tags.get(measurement, ())))
            self._add(key, first_seen, last_seen)
            self.newest[-1] = self.hour_ends[-1] - 1
        self._owners = {(site, asset) for site, asset in connection.rows("SELECT site, asset FROM owner")}
        self._marks = set(connection.rows("SELECT measurement, hour FROM double_hour"))

    def _add(self, key: Key, first_seen: int, last_seen: int) -> int:
        number = len(self.newest)
        self._ids[key] = number
        self._measurement.append(str(key[0]))
        self.whose.append((str(key[1]), str(key[3])))
        self.seen.add((str(key[0]), str(key[1])))
        self.newest.append(last_seen)
        self.hour_ends.append((last_seen // HOUR_MS + 1) * HOUR_MS)
        self._first.append(first_seen)
        self._last.append(last_seen)
        return number

    def number(self, site: str, agent: str, point: Point) -> int:
        """The series of a point, numbered when it is new: then the caller need not look at its time."""
        absent = (point.tags.get(tag, "") for tag in self._tags[point.name])
        key = (point.name, site, agent, point.tags["asset"], *absent)
        known = self._ids.get(key)
        if known is not None:
            self.watch(known, point.timestamp)
            return known
        number = self._add(key, point.timestamp, point.timestamp)
        self._new.append((number, key))
        owned = (site, point.tags["asset"])
        if owned not in self._owners:
            self._owners.add(owned)
            self._new_owners.append((*owned, agent))
        return number

    def learn(self, site: str, row: SeriesRow) -> None:
        """Takes a series as another store knows it, unless it is known here; its points are still to come."""
        tags = (row.tags.get(tag, "") for tag in self._tags[row.measurement])
        key = (row.measurement, site, row.agent, row.tags["asset"], *tags)
        if key not in self._ids:
            number = self._add(key, row.first_seen, row.last_seen)
            self.newest[number] = row.first_seen - 1
            self._new.append((number, key))

    def await_history(self) -> None:
        """From now on points come in the order of time, each identity once, from wherever a copy has come to."""
        self.newest = [first - 1 for first in self._first]

    def watch(self, number: int, time: int) -> None:
        """Takes note of a point's time: a double, a new hour, an earlier first sight."""
        if time <= self.newest[number]:
            mark = (self._measurement[number], time // HOUR_MS)
            if mark not in self._marks:
                self._marks.add(mark)
                self._new_marks.add(mark)
        else:
            self.newest[number] = time
        if time >= self.hour_ends[number]:
            self.hour_ends[number] = (time // HOUR_MS + 1) * HOUR_MS
            self._last[number] = time
            self._seen.add(number)
        if time < self._first[number]:
            self._first[number] = time
            self._seen.add(number)

    def write(self, connection: Connection) -> None:
        """Writes what is new since the last call; inside the caller's transaction."""
        self._write_new_series(connection)
        self._write_seen(connection)
        if self._new_owners:
            sites, assets, agents = (np.array(part, object) for part in zip(*self._new_owners, strict=True))
            connection.insert("owner", {"site": sites, "asset": assets, "agent": agents})
            self._new_owners = []
        if self._new_marks:
            names, hours = zip(*sorted(self._new_marks), strict=True)
            connection.insert(
                "double_hour", {"measurement": np.array(names, object), "hour": np.array(hours, np.int64)}
            )
            self._new_marks = set()

    def _write_new_series(self, connection: Connection) -> None:
        if not self._new:
            return
        numbers = [number for number, _ in self._new]
        names, sites, agents, assets = (
            [key[position] for _, key in self._new] for position in range(1 + len(RESERVED_TAGS))
        )
        tags = [_present(self._tags[str(key[0])], key[1 + len(RESERVED_TAGS) :]) for _, key in self._new]
        connection.run(
            "INSERT INTO series SELECT unnest(?), unnest(?), unnest(?), unnest(?), unnest(?),"
            " unnest(list_transform(list_zip(?::VARCHAR[][], ?::VARCHAR[][]), lambda pair: map(pair[1], pair[2]))),"
            " unnest(?), unnest(?)",
            [
                numbers,
                names,
                sites,
                agents,
                assets,
                [list(present) for present in tags],
                [list(present.values()) for present in tags],
                [self._first[number] for number in numbers],
                [self._last[number] for number in numbers],
            ],
        )
        self._seen.difference_update(numbers)
        self._new = []

    def _write_seen(self, connection: Connection) -> None:
        if not self._seen:
            return
        numbers = sorted(self._seen)
        connection.run(
            "UPDATE series SET first_seen = seen.first_seen, last_seen = seen.last_seen FROM"
            " (SELECT unnest(?) AS id, unnest(?) AS first_seen, unnest(?) AS last_seen) AS seen WHERE series.id = seen.id",
            [numbers, [self._first[number] for number in numbers], [self._last[number] for number in numbers]],
        )
        self._seen = set()

    def settle_marks(self, connection: Connection) -> None:
        """Takes the mark from hours in which after all no identity stands twice; in a transaction of its own.

        Safe: a later double is not newer than the newest point of its series and marks the hour again.
        """
        doubled: set[tuple[str, int]] = set()
        for measurement in sorted({measurement for measurement, _ in self._marks}):
            rows = connection.rows(_DOUBLED_HOURS.format(measurement), [measurement])
            doubled.update((measurement, hour) for (hour,) in rows)
        settled = sorted(self._marks - doubled)
        if settled:
            measurements, hours = ([*column] for column in zip(*settled, strict=True))
            with connection.transaction():
                connection.run(_SETTLE, [measurements, hours])
        self._marks = doubled


_SETTLE = """
DELETE FROM double_hour USING (SELECT unnest(?::VARCHAR[]) AS measurement, unnest(?::BIGINT[]) AS hour) AS settled
WHERE double_hour.measurement = settled.measurement AND double_hour.hour = settled.hour"""

_DOUBLED_HOURS = f"""
SELECT DISTINCT time // {HOUR_MS} FROM points.{{}}
WHERE time // {HOUR_MS} IN (SELECT hour FROM double_hour WHERE measurement = ?)
GROUP BY series, time HAVING count(*) > 1"""  # noqa: S608  # the catalogue checks a measurement's name


def _present(names: tuple[str, ...], values: tuple[object, ...]) -> Mapping[str, object]:
    return {name: value for name, value in zip(names, values, strict=True) if value != ""}
