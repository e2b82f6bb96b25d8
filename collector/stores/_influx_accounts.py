"""The InfluxDB store's side of the ledger: what it has of each agent's numbered batches within a period, in a few requests for all agents.

Sums and counts are the server's, of the rows that lie there now; a boot's rows are read only when numbers of it are missing.
What is remembered of all rows (which boots there were and when, what was announced) says where to look, so that nothing is read
of the years before.
"""

# ruff: noqa: S608  # InfluxQL of this file's own names and of quoted values

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import NamedTuple

from collector.query import DAY_MS
from collector.stores import Account, Hole, Period
from collector.stores._influx_http import Door
from collector.stores._influx_ledger import Ranges
from collector.stores._influx_records import BATCH, LAST_MS
from collector.stores._influx_text import tag_value_text, value_text
from collector.stores._influx_totals import Known

MOST_HOLES = 1000
"""Of one agent; beyond it the sums alone tell."""
_MOST_RANGES = 50
"""Of numbers in one statement."""

_EMPTY = '"points" = 0 AND "set_aside" > 0'
Key = tuple[str, ...]
"""What is asked, of which agent, and of which of its boots."""


def read_accounts(
    site: str, periods: Mapping[str, Period], known: Mapping[str, Known], door: Door
) -> Mapping[str, Account]:
    """agent -> its account; agents without a numbered row have an empty one."""
    asked = [_Asked(site, agent, period, known[agent]) for agent, period in periods.items() if agent in known]
    first = _ask([question for one in asked for question in one.first_questions()], door)
    second = _ask([question for one in asked for question in one.second_questions(first)], door)
    found = {**first, **second}
    holes = {one.agent: one.holes(found, door) for one in asked}
    accounts = {one.agent: one.account(found)._replace(holes=holes[one.agent]) for one in asked}
    return {agent: accounts.get(agent, Account()) for agent in periods}


def _ask(questions: Sequence[tuple[Key, str]], door: Door) -> Mapping[Key, Sequence[int]]:
    """Key -> the numbers of the only row that its statement gives; none for what found nothing."""
    answers = door.ask([statement for _, statement in questions])
    return {questions[rows.statement][0]: [int(value or 0) for value in rows.values[0][1:]] for rows in answers}


class _Span(NamedTuple):
    """made_at from `first` to `last`, both among it, milliseconds."""

    first: int
    last: int

    def within(self, other: "_Span") -> "_Span":
        return _Span(max(self.first, other.first), min(self.last, other.last))

    def text(self) -> str:
        first, end = (min(max(moment, 0), LAST_MS) for moment in (self.first, self.last + 1))
        return f"time >= {first}ms AND time < {end}ms"


class _Asked:
    """One agent: what has to be asked of its rows, and what the answers come to."""

    def __init__(self, site: str, agent: str, period: Period, known: Known) -> None:
        self.agent = agent
        self._known = known
        self._period = _Span(*period)
        self._of_agent = f'"site" = {tag_value_text(site)} AND "agent" = {tag_value_text(agent)}'
        self._numbered = "\"boot\" != ''" if known.has_foreign else ""
        overlapping = {boot: _Span(*times).within(self._period) for boot, times in known.times.items()}
        self._boots = {boot: span for boot, span in overlapping.items() if span.first <= span.last}
        """The boots that may have rows within the period, and when: mostly a span is one boot's alone."""
        self._is_mixed = known.has_foreign or _overlap([_Span(*times) for times in known.times.values()])

    def first_questions(self) -> Iterator[tuple[Key, str]]:
        """Sums of each boot within the period, what was made before and after it, and where a boot was when it began."""
        if not self._known.times:
            return
        for boot, span in self._boots.items():
            sums = 'count("seq"), sum("points"), sum("set_aside"), min("seq"), max("seq")'
            yield self._question(("sums", boot), sums, self._of_boot(boot), span)
            if self._known.times[boot][0] < self._period.first:
                before = _Span(self._known.times[boot][0], self._period.first - 1)
                yield self._question(("before", boot), 'last("seq")', self._of_boot(boot), before)
                day = _Span(max(before.first, before.last - DAY_MS), before.last)
                yield self._question(("day before", boot), 'max("seq")', self._of_boot(boot), day)
        earlier, later = _Span(0, self._period.first - 1), _Span(self._period.last + 1, LAST_MS)
        if earlier.last >= 0:
            yield self._question(("earlier",), 'first("seq")', self._numbered, earlier)
        if later.first < LAST_MS:
            yield self._question(("later",), 'count("seq")', self._numbered, later)
            undated = 'count("seq"), sum("set_aside")'
            yield self._question(("undated",), undated, _both(self._numbered, _EMPTY), later)

    def second_questions(self, found: Mapping[Key, Sequence[int]]) -> Iterator[tuple[Key, str]]:
        """What few agents have: rows of which nothing was written, and losses announced: what of them came, and where the boot was by then."""
        if any(self._sums(boot, found)[2] for boot in self._boots):
            yield self._question(("empty",), 'count("seq")', _both(self._numbered, _EMPTY), self._period)
        for boot, span in self._boots.items():
            for place, numbers in enumerate(self._arrived(boot)):
                condition = _both(self._of_boot(boot), numbers)
                yield self._question(("arrived", boot, str(place)), _ARRIVED, condition, span)
        for boot in self._known.announced:
            first, last = self._known.times.get(boot, (0, -1))
            since = _Span(max(first, self._period.first), last)
            if since.first <= since.last:
                yield self._question(("first", boot), 'min("seq")', self._of_boot(boot), since)

    def _arrived(self, boot: str) -> Iterator[str]:
        """Conditions for the numbers of a boot that were announced as dropped and came all the same."""
        both = list(_common(self._known.announced_numbers(boot), self._known.came.get(boot, Ranges())))
        for start in range(0, len(both), _MOST_RANGES):
            words = [f'("seq" >= {first} AND "seq" <= {last})' for first, last in both[start : start + _MOST_RANGES]]
            yield f"({' OR '.join(words)})"

    def account(self, found: Mapping[Key, Sequence[int]]) -> Account:
        """Everything but the holes."""
        sums = [self._sums(boot, found) for boot in self._boots]
        batches, points, set_aside = (sum(one[place] for one in sums) for place in range(3))
        arrived = [numbers for key, numbers in found.items() if key[:2] == ("arrived", self.agent)]
        later, undated = (found.get((name, self.agent), (0, 0)) for name in ("later", "undated"))
        # what was made before is counted by what was counted once: only whether there is any is looked up
        rest = self._known.numbered - batches - later[0]
        return Account(
            batches,
            points,
            set_aside,
            found.get(("empty", self.agent), (0,))[0],
            dropped_batches=sum(numbers[0] for numbers in arrived),
            dropped_points=sum(numbers[1] + numbers[2] for numbers in arrived),
            announced_batches=sum(last - first + 1 for first, last in self._announced(found)),
            earlier_batches=max(1, rest) if ("earlier", self.agent) in found else 0,
            later_batches=later[0],
            undated_batches=undated[0],
            undated_points=undated[1],
        )

    def _sums(self, boot: str, found: Mapping[Key, Sequence[int]]) -> Sequence[int]:
        return found.get(("sums", self.agent, boot), (0, 0, 0, 0, -1))

    def _announced(self, found: Mapping[Key, Sequence[int]]) -> Iterator[tuple[int, int]]:
        """What was announced, but of a boot that has or had rows what was announced before its first one since the period's begin."""
        for boot, ranges in self._known.announced.items():
            first = found.get(("first", self.agent, boot))
            if first:
                yield from (one for one in ranges if one[1] >= first[0])
            elif boot not in self._known.times and boot not in self._known.pruned:
                yield from ranges

    def _reached(self, boot: str, found: Mapping[Key, Sequence[int]]) -> int:
        """The last number of a boot that was made before the period; -1 when it began within it.

        The last row's is not always the greatest: a batch that could not be read has the time at which it came.
        """
        return max(found.get((name, self.agent, boot), (-1,))[0] for name in ("before", "day before"))

    def holes(self, found: Mapping[Key, Sequence[int]], door: Door) -> Sequence[Hole]:
        """The holes of the period, by boot and number."""
        holes = [hole for boot in sorted(self._boots) for hole in self._holes_of(boot, found, door)]
        return tuple(holes[-MOST_HOLES:])

    def _holes_of(self, boot: str, found: Mapping[Key, Sequence[int]], door: Door) -> Iterator[Hole]:
        batches, _, _, least, greatest = self._sums(boot, found)
        start = max(self._reached(boot, found), self._known.pruned.get(boot, -1)) + 1
        if start == 0 and self._known.times[boot][0] < self._period.first:
            start = least  # its rows from before the period were taken by a retention of the server's own
        gone = self._known.announced_numbers(boot)
        arrived = sum(numbers[0] for key, numbers in found.items() if key[:3] == ("arrived", self.agent, boot))
        expected = greatest - start + 1 - sum(last - first + 1 for first, last in _cut(gone, start, greatest)) + arrived
        if batches >= expected and least >= start:
            return
        made = self._read(boot, door)
        present = Ranges()
        for first, last in [*_cut(gone, start, greatest), *((seq, seq) for seq, _ in made if seq >= start)]:
            present.add(first - start, last - start)
        before = list(accumulate((made_at for _, made_at in reversed(made)), min))[::-1]
        for first, last in present.holes():
            following = bisect_right(made, last + start, key=itemgetter(0))
            if following < len(made) and before[following] <= self._period.last:
                yield Hole(boot, first + start, last + start, before[following])

    def _read(self, boot: str, door: Door) -> Sequence[tuple[int, int]]:
        """Number and made_at of a boot's rows since the period's begin, by number: one that could not be read stands later."""
        span = _Span(self._boots[boot].first, self._known.times[boot][1])
        _, statement = self._question((), '"seq", "made_at"', self._of_boot(boot), span)
        return sorted((int(seq), int(made_at)) for rows in door.ask([statement]) for _, seq, made_at in rows.values)

    def _of_boot(self, boot: str) -> str:
        """A condition on a field makes the server look into every row: it is set where another boot's rows are among them."""
        return f'"boot" = {value_text(boot)}' if self._is_mixed else ""

    def _question(self, key: Key, columns: str, condition: str, span: _Span) -> tuple[Key, str]:
        where = _both(self._of_agent, condition, span.text())
        return (*key[:1], self.agent, *key[1:]), f'SELECT {columns} FROM "{BATCH}" WHERE {where}'


_ARRIVED = 'count("seq"), sum("points"), sum("set_aside")'


def _both(*conditions: str) -> str:
    return " AND ".join(filter(None, conditions))


def _overlap(spans: Sequence[_Span]) -> bool:
    ordered = sorted(spans)
    return any(after.first <= before.last for before, after in pairwise(ordered))


def _pairs(ranges: Ranges) -> Iterator[tuple[int, int]]:
    return zip(ranges.firsts, ranges.lasts, strict=True)


def _cut(ranges: Ranges, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The parts of ranges within first..last."""
    for start, end in _pairs(ranges):
        if end >= first and start <= last:
            yield max(start, first), min(end, last)


def _common(one: Ranges, other: Ranges) -> Iterator[tuple[int, int]]:
    """The numbers that both have."""
    for first, last in _pairs(one):
        yield from _cut(other, first, last)
