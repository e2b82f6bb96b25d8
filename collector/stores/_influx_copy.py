"""The InfluxDB store's side of a copy: what it gives of a site, and what it takes; written again, every record is the same one."""

# ruff: noqa: S608  # InfluxQL of checked names, of this file's own and of quoted values

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from agent.catalogue import Catalogue
from agent.points import Point
from collector.query import DAY_MS, HOUR_MS, Question
from collector.stores._copy import BATCHES, BatchRow, Gone, KeptPart, Part, as_batches
from collector.stores._influx_http import Door
from collector.stores._influx_kept import Reader, note_pruned, pruned
from collector.stores._influx_ledger import row_line
from collector.stores._influx_pack import Numbering, Packer, asked
from collector.stores._influx_records import BATCH, COPIED, KEPT, OWNER, SCORECARD, SUBJECT, timeless
from collector.stores._influx_series import SeriesLists, SeriesMemory, owners_of, series_of
from collector.stores._influx_text import decode_tag, line, name_text, tag_value_text
from collector.stores._influx_totals import gone_lines, gone_of
from collector.stores._influx_write import PointWriter, write_all, write_points

COUNTED_MS = 30 * DAY_MS
_ROW = '"boot", "seq", "identity", "made_at", "received_at", "points", "set_aside", "dropped"'


class Copying:
    """See `_copy.Copying`."""

    def __init__(self, site: str, catalogue: Catalogue, door: Door) -> None:
        self._site, self._catalogue, self._door = site, catalogue, door
        self._series = SeriesMemory(door)
        self._points = PointWriter(catalogue, self._series)
        self._packer = Packer()
        self._lists = SeriesLists()
        self._numberings: dict[tuple[str, tuple[str, ...]], Numbering] = {}
        self._of_site = f'"site" = {tag_value_text(site)}'

    def state(self) -> str:
        """What the last `take` wrote down."""
        found = self._rows(f'SELECT "state" FROM "{COPIED}" WHERE {self._of_site}')
        return str(found[0][1]) if found else ""

    def is_empty(self) -> bool:
        """Whether nothing of the site is there."""
        return not any(
            self._rows(f'SELECT * FROM "{name}" WHERE {self._of_site} LIMIT 1')
            for name in (SUBJECT, OWNER, BATCH, SCORECARD)
        )

    def frame(self) -> Part:
        """Series in the order of first sight, owners, what was pruned, numbers without a row."""
        series = [
            row for name in sorted(self._catalogue.measurements) for row in series_of(name, self._site, self._door)
        ]
        known = self._catalogue.measurements
        gone_before = {name: before for name, before in pruned(self._door).items() if name in known}
        return Part(series, owners_of(self._site, self._door), gone_before, self._gone())

    def _gone(self) -> list[Gone]:
        """What was announced as dropped, and what came of boots whose rows were pruned."""
        statement = f'SELECT "dropped" FROM "{BATCH}" WHERE {self._of_site} AND "dropped" != \'\' GROUP BY "agent"'
        found: dict[Gone, None] = dict.fromkeys(gone_of(self._site, self._door))
        for rows in self._door.ask([statement]):
            agent = decode_tag(rows.tags["agent"])
            for _, dropped in rows.values:
                found.update((Gone(agent, *one), None) for one in _dropped(dropped))
        return sorted(found, key=lambda one: (*one[:4], one.points is None, one.points or 0))

    def hours(self, name: str, since: int) -> Sequence[tuple[int, int]]:
        """The hours that have rows, ascending; a row without the field that most rows have is not counted."""
        of_name = f"FROM {name_text(name)} WHERE {self._of_site} AND time >= {since}ms"
        first = self._rows(f"SELECT * {of_name} ORDER BY time LIMIT 1")
        last = self._rows(f"SELECT * {of_name} ORDER BY time DESC LIMIT 1")
        if not first or not last:
            return []
        begin, end = first[0][0] // HOUR_MS * HOUR_MS, last[0][0]
        spans = ((start, min(start + COUNTED_MS, end + 1)) for start in range(begin, end + 1, COUNTED_MS))
        counts = [
            f"SELECT count(*) FROM {name_text(name)} WHERE {self._of_site} AND time >= {start}ms AND time < {after}ms"
            " GROUP BY time(1h) fill(none)"
            for start, after in spans
        ]
        rows = (row for part in self._door.ask(counts) for row in part.values)
        return sorted((hour, max(int(count or 0) for count in counted)) for hour, *counted in rows if any(counted))

    def slice(self, name: str, start: int, end: int) -> Part:
        """Rows of this time."""
        span = f"{self._of_site} AND time >= {start}ms AND time < {end}ms"
        if name == BATCHES:
            statement = f'SELECT {_ROW} FROM "{BATCH}" WHERE {span} GROUP BY "agent"'
            return Part(
                batches=[
                    self._batch(decode_tag(rows.tags["agent"]), values)
                    for rows in self._door.ask([statement])
                    for _, *values in rows.values
                ]
            )
        points: dict[str, list[Point]] = {}
        fields = self._catalogue.measurements[name].fields
        for rows in self._door.ask([f"SELECT * FROM {name_text(name)} WHERE {span} GROUP BY *"]):
            tags = {tag: decode_tag(value) for tag, value in rows.tags.items() if value and tag != "site"}
            of_agent = points.setdefault(tags.pop("agent"), [])
            columns = rows.columns[1:]
            for at, *values in rows.values:
                named = zip(columns, values, strict=True)
                present = {field: _typed(value) for field, value in named if value is not None and field in fields}
                of_agent.append(Point(name, tags, present, at))
        return Part(points=points)

    def _batch(self, agent: str, values: Sequence[Any]) -> BatchRow:
        boot, seq, identity, made_at, received_at, points, set_aside, dropped = values
        row = (boot, seq, identity, made_at, received_at, points, set_aside)
        return BatchRow(self._site, agent, *row, dropped=_dropped(dropped))

    def source(self, question: Question) -> Reader:
        """What is kept for a question."""
        return Reader(self._door, self._lists, asked(question, self._numbering(question)))

    def _numbering(self, question: Question) -> Numbering:
        return self._numberings.setdefault((question.measurement, question.per), Numbering())

    def kept_questions(self) -> set[str]:
        """The digests of the questions of which buckets are kept whose points are pruned."""
        before = pruned(self._door)
        statements = [
            f'SELECT "question", "piece" FROM "{KEPT}" WHERE "measurement" = \'{name}\' AND time < {at}ms'
            for name, at in before.items()
            if name in self._catalogue.measurements
        ]
        return {row[1] for rows in self._door.ask(statements) for row in rows.values}

    def take(self, part: Part, state: str) -> None:
        """Writes a part, its state last."""
        door = self._door
        if part.series:
            self._series.load({(self._site, row.measurement) for row in part.series})
        for row in part.series:
            self._series.learn(self._site, row)
        self._take_points(part)
        write_all([row_line(row) for row in part.batches] + self._frame_lines(part), door)
        for kept in part.kept:
            write_all(self._kept_lines(kept), door)
        door.write([timeless(COPIED, {"site": self._site}, {"state": state})])

    def _take_points(self, part: Part) -> None:
        """Who the series are before their points, so that nobody sees a point of nobody."""
        batches = as_batches(self._site, part.points)
        self._series.load({(self._site, point.name) for batch in batches for point in batch.points})
        lines = self._points.lines(batches)
        write_all(self._series.take_lines(uuid.uuid4().hex), self._door)
        write_points(lines, self._door)

    def _frame_lines(self, part: Part) -> list[str]:
        known = owners_of(self._site, self._door) if part.owners else {}
        lines = [
            line(OWNER, {"site": self._site, "asset": asset}, {"agent": agent}, None)
            for asset, agent in part.owners.items()
            if asset not in known
        ]
        if part.gone:
            lines += gone_lines(self._site, part.gone, self._door)
        return lines + [note_pruned(measurement, before) for measurement, before in part.pruned.items()]

    def _kept_lines(self, kept: KeptPart) -> list[str]:
        """The chunks with this numbering's numbers in place of the other store's."""
        meaning = asked(kept.question, self._numbering(kept.question))
        theirs = sorted(kept.subjects)
        number_of = np.array([meaning.numbering.number(kept.subjects[number]) for number in theirs], np.int64)
        lines: list[str] = []
        for chunk in kept.chunks:
            places = np.frombuffer(chunk.places, np.int64)
            numbers = number_of[np.searchsorted(theirs, places // meaning.buckets)]
            ours = (numbers * meaning.buckets + places % meaning.buckets).tobytes()
            lines += self._packer.lines(chunk._replace(places=ours), meaning)
        return lines

    def _rows(self, statement: str) -> list[list[Any]]:
        return [row for rows in self._door.ask([statement]) for row in rows.values]


def _typed(value: Any) -> float | str:
    """JSON knows no difference between 1 and 1.0."""
    return value if isinstance(value, str) else float(value)


def _dropped(text: str) -> list[tuple[str, int, int, int]]:
    return msgspec.json.decode(text, type=list[tuple[str, int, int, int]]) if text else []
