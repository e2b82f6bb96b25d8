"""Which batches an InfluxDB store has. What two collectors must agree on stands in the store; here is what this one has read of it."""

# ruff: noqa: S608  # InfluxQL of this file's own names and of quoted values

from bisect import bisect_right
from collections.abc import Iterable, Mapping

import msgspec

from collector.query import HOUR_MS
from collector.stores import AppliedBatch, BatchName
from collector.stores._copy import BatchRow, row_of
from collector.stores._influx_http import Door
from collector.stores._influx_records import BATCH, BATCH_LATE, LAST_MS, MS, mix
from collector.stores._influx_text import line, tag_value_text

Span = tuple[int, int]
"""Milliseconds, both ends inclusive."""

MOST_KNOWN = 50_000
NEAR_MS = 600_000
"""Batches of one agent that were made nearer than this are asked for together."""


def batch_line(batch: AppliedBatch) -> str:
    """The row of a batch."""
    return row_line(row_of(batch))


def row_line(batch: BatchRow) -> str:
    """A row in line protocol."""
    fields: dict[str, float | int | str] = {
        "boot": batch.boot,
        "seq": batch.seq,
        "identity": batch.identity,
        "points": batch.points,
        "set_aside": batch.set_aside,
        "made_at": batch.made_at,
        "received_at": batch.received_at,
        "dropped": msgspec.json.encode(list(batch.dropped)).decode() if batch.dropped else "",
    }
    time_ns = _clamp(batch.made_at) * MS + mix(batch.identity) % MS  # two of one millisecond stand beside each other
    return line(BATCH, {"site": batch.site, "agent": batch.agent}, fields, time_ns)


def late_lines(batches: Iterable[AppliedBatch], counted_until: int) -> list[str]:
    """Marks for the batches that were made long before they came, or before what others may have counted already."""
    marks: dict[tuple[str, str, int], int] = {}
    for batch in batches:
        moment = max(batch.received_at, counted_until)
        if batch.made_at < moment - NEAR_MS:
            marks[batch.site, batch.agent, _clamp(batch.made_at) // HOUR_MS * HOUR_MS] = _clamp(moment)
    return [
        line(BATCH_LATE, {"site": site}, {"agent": agent, "hour": hour}, moment * MS + mix(agent, hour) % MS)
        for (site, agent, hour), moment in marks.items()
    ]


def _clamp(made_at: int) -> int:
    return min(max(made_at, 0), LAST_MS)


class Ledger:
    """Remembers the latest batches that have their row. For the thread that writes."""

    def __init__(self) -> None:
        self._known: dict[BatchName, None] = {}
        self._absent: dict[BatchName, int] = {}

    def remember(self, names: Iterable[BatchName]) -> None:
        """These have their row."""
        self._known.update(dict.fromkeys(names))
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def applied(self, wanted: Mapping[BatchName, Span], door: Door) -> set[BatchName]:
        """Those that have their row; each was made within its span.

        `new_of` takes this for an answer once. Meanwhile another collector may have written one of them: then it is written over
        itself, as it would be anyhow if the other were a moment later. Only what stands elsewhere when it is received again is
        asked for as late as possible: a batch that does not say when it was made.
        """
        found = self._stored(wanted, door)
        self._absent = {name: span[0] for name, span in wanted.items() if span[0] == span[1] and name not in found}
        return found

    def _stored(self, wanted: Mapping[BatchName, Span], door: Door) -> set[BatchName]:
        found = {name for name in wanted if name in self._known}
        of_agents: dict[tuple[str, str], list[Span]] = {}
        for name, span in wanted.items():
            if name not in found:
                of_agents.setdefault(name[:2], []).append(span)
        asked = [(agent, span) for agent, spans in of_agents.items() for span in _joined(spans)]
        for rows in door.ask([_identities(*agent, span) for agent, span in asked]):
            site, agent = asked[rows.statement][0]
            names = {BatchName(site, agent, identity) for _, identity in rows.values} & wanted.keys()
            self.remember(names)
            found |= names
        return found

    def new_of(self, batches: Iterable[AppliedBatch], door: Door) -> list[AppliedBatch]:
        """Those without a row, each once."""
        first = {BatchName(batch.site, batch.agent, batch.identity): batch for batch in reversed(list(batches))}
        absent, self._absent = self._absent, {}
        unsure = {name: batch.made_at for name, batch in first.items() if absent.get(name) != batch.made_at}
        stored = self._stored({name: (made_at, made_at) for name, made_at in unsure.items()}, door)
        return [batch for name, batch in reversed(first.items()) if name not in stored]


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= NEAR_MS:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _identities(site: str, agent: str, span: Span) -> str:
    start, end = map(_clamp, span)
    return f'SELECT "identity" FROM "{BATCH}" WHERE {_of(site, agent)} AND time >= {start}ms AND time < {end + 1}ms'


def _of(site: str, agent: str) -> str:
    return f'"site" = {tag_value_text(site)} AND "agent" = {tag_value_text(agent)}'


class Ranges(msgspec.Struct):
    """A growing set of whole numbers that mostly come in order: memory for each gap, not for each number."""

    firsts: list[int] = []
    lasts: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.lasts[at]

    def add(self, first: int, last: int) -> None:
        """Adds first..last, of which some may be there."""
        at = bisect_right(self.firsts, first)
        if at and self.lasts[at - 1] >= first - 1:
            at -= 1
            first = self.firsts[at]
        after = at
        while after < len(self.firsts) and self.firsts[after] <= last + 1:
            last = max(last, self.lasts[after])
            after += 1
        self.firsts[at:after], self.lasts[at:after] = [first], [last]

    def holes(self) -> list[tuple[int, int]]:
        """What is missing from 0 to the greatest."""
        ends = [-1, *self.lasts]
        return [(end + 1, first - 1) for end, first in zip(ends, self.firsts, strict=False) if first > end + 1]
