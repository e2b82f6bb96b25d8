"""The DuckDB store's side of a copy: what it gives of a site, and what it takes, each part in one transaction with its state."""

# ruff: noqa: S608  # the names are the catalogue's, which checks them

from collections.abc import Sequence

import numpy as np

from agent.catalogue import Catalogue
from agent.points import Point
from collector.query import HOUR_MS, Question
from collector.stores._copy import BATCHES, BatchRow, Gone, KeptPart, Part, SeriesRow, as_batches
from collector.stores._duckdb_connection import Connection
from collector.stores._duckdb_kept import Reader, note_pruned, put_chunks
from collector.stores._duckdb_ledger import Ledger
from collector.stores._duckdb_schema import KEPT_TABLES
from collector.stores._duckdb_series import SeriesMemory
from collector.stores._duckdb_write import PointWriter
from collector.stores._kept import KeptChunk


class Copying:
    """See `_copy.Copying`."""

    def __init__(
        self,
        site: str,
        catalogue: Catalogue,
        connection: Connection,
        series: SeriesMemory,
        points: PointWriter,
        ledger: Ledger,
    ) -> None:
        self._site, self._catalogue, self._connection = site, catalogue, connection
        self._series, self._points, self._ledger = series, points, ledger
        series.await_history()

    def state(self) -> str:
        """What the last `take` wrote down."""
        rows = self._connection.rows("SELECT state FROM copied WHERE site = ?", [self._site])
        return str(rows[0][0]) if rows else ""

    def is_empty(self) -> bool:
        """Whether nothing of the site is there."""
        tables = ("series", "owner", "batch", "gone", "scorecard")
        return not any(
            self._connection.rows(f"SELECT 1 FROM {table} WHERE site = ? LIMIT 1", [self._site]) for table in tables
        )

    def frame(self) -> Part:
        """Series in their order, owners, what was pruned, numbers without a row."""
        known = self._catalogue.measurements
        series = [
            SeriesRow(measurement, agent, {"asset": asset, **tags}, first, last)
            for measurement, agent, asset, tags, first, last in self._connection.rows(_SERIES, [self._site])
            if measurement in known
        ]
        owners = dict(self._connection.rows("SELECT asset, agent FROM owner WHERE site = ?", [self._site]))
        pruned = {name: before for name, before in self._connection.rows(_PRUNED) if name in known}
        return Part(series, owners, pruned, [Gone(*row) for row in self._connection.rows(_GONE, [self._site])])

    def hours(self, name: str, since: int) -> Sequence[tuple[int, int]]:
        """The hours that have rows, ascending."""
        if name == BATCHES:
            return self._connection.rows(_BATCH_HOURS, [self._site, since])
        return self._connection.rows(_HOURS.format(name), [name, self._site, since])

    def slice(self, name: str, start: int, end: int) -> Part:
        """Rows of this time; of two values for one identity the later one."""
        if name == BATCHES:
            rows = self._connection.rows(_BATCH_ROWS, [self._site, start, end])
            return Part(batches=[BatchRow._make((*row, ())) for row in rows])
        fields = list(self._catalogue.measurements[name].fields)
        newest = ", ".join(f'arg_max("{field}", written)' for field in fields)
        points: dict[str, list[Point]] = {}
        for agent, asset, tags, at, *values in self._connection.rows(
            _POINTS.format(name, newest), [name, self._site, start, end]
        ):
            present = {field: value for field, value in zip(fields, values, strict=True) if value is not None}
            points.setdefault(agent, []).append(Point(name, {"asset": asset, **tags}, present, at))
        return Part(points=points)

    def source(self, question: Question) -> Reader:
        """What is kept for a question."""
        return Reader(self._connection)

    def kept_questions(self) -> set[str]:
        """The digests of the questions of which buckets are kept whose points are pruned."""
        return {str(one) for table in KEPT_TABLES for (one,) in self._connection.rows(_KEPT_QUESTIONS.format(table))}

    def take(self, part: Part, state: str) -> None:
        """Writes a part and `state` in one transaction."""
        connection = self._connection
        with connection.transaction():
            for row in part.series:
                self._series.learn(self._site, row)
            self._series.write(connection)
            self._take_frame(part)
            if part.points:
                self._points.write(as_batches(self._site, part.points), connection)
            if part.batches:
                self._ledger.write_rows(part.batches, connection)
            for kept in part.kept:
                put_chunks(self._renumbered(kept), connection)
            connection.run("DELETE FROM copied WHERE site = ?", [self._site])
            connection.run("INSERT INTO copied VALUES (?, ?)", [self._site, state])

    def _take_frame(self, part: Part) -> None:
        connection = self._connection
        for asset, agent in part.owners.items():
            connection.run(_OWN, [self._site, asset, agent, self._site, asset])
        for measurement, before in part.pruned.items():
            note_pruned(measurement, before, connection)
        for gone in part.gone:
            self._ledger.announce((self._site, *gone), connection)

    def _renumbered(self, kept: KeptPart) -> list[KeptChunk]:
        """The chunks with this store's numbers in place of the other's."""
        subjects = Reader(self._connection).subjects(kept.question)
        ours = {tags: number for number, tags in subjects.tags.items()} if subjects else {}
        theirs = sorted(kept.subjects)
        number_of = np.array([ours[kept.subjects[number]] for number in theirs], np.int64)
        buckets = kept.buckets()
        chunks = []
        for chunk in kept.chunks:
            places = np.frombuffer(chunk.places, np.int64)
            numbers = number_of[np.searchsorted(theirs, places // buckets)]
            chunks.append(chunk._replace(places=(numbers * buckets + places % buckets).tobytes()))
        return chunks


_SERIES = """
SELECT measurement, agent, asset, tags, first_seen, last_seen FROM series WHERE site = ? ORDER BY id
"""
_PRUNED = "SELECT measurement, max(before) FROM pruned GROUP BY measurement"
_GONE = "SELECT DISTINCT agent, boot, first, last, points FROM gone WHERE site = ? ORDER BY ALL"
_OWN = "INSERT INTO owner SELECT ?, ?, ? WHERE NOT EXISTS (FROM owner WHERE site = ? AND asset = ?)"
_BATCH_HOURS = f"""
SELECT made_at // {HOUR_MS} * {HOUR_MS} AS hour, count(*) FROM batch WHERE site = ? AND made_at >= ? GROUP BY hour ORDER BY hour
"""
_BATCH_ROWS = """
SELECT site, agent, boot, seq, if(boot = '', identity, boot || '/' || seq), made_at, received_at, points, set_aside FROM batch
WHERE site = ? AND made_at >= ? AND made_at < ? ORDER BY ALL
"""
_OURS = "SELECT id FROM series WHERE measurement = ? AND site = ?"
_HOURS = f"""
SELECT time // {HOUR_MS} * {HOUR_MS} AS hour, count(*) FROM points.{{}} WHERE series IN ({_OURS}) AND time >= ?
GROUP BY hour ORDER BY hour
"""
_POINTS = f"""
WITH merged AS (SELECT series, time, {{1}} FROM points.{{0}} WHERE series IN ({_OURS}) AND time >= ? AND time < ? GROUP BY series, time)
SELECT agent, asset, tags, merged.* EXCLUDE (series) FROM merged JOIN series ON series.id = merged.series
ORDER BY merged.time, merged.series
"""
_KEPT_QUESTIONS = "SELECT DISTINCT question FROM {0} JOIN pruned USING (measurement) WHERE start < before"
