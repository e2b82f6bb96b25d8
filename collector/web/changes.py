"""What changed, month by month: the largest rise and the largest fall of each indicator, with what caused them."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from agent.language import say
from collector.past import DayCard, causes_of
from collector.report import INDICATORS
from collector.snapshot import Snapshot
from collector.web.figures import Tree
from collector.web.spans import Span
from collector.web.times import local_time
from collector.web.trend import days_in
from collector.web.view import Link

NO_MOVE = 0.05
"""What would be shown as +0.0."""


@dataclass(frozen=True)
class Move:
    """One change between the last scorecards of two days. when: the later day, or both where days lie between them. part: what
    the cause added of it, in words."""

    when: str
    points: str
    ends: str
    cause: Link
    part: str


@dataclass(frozen=True)
class MonthRow:
    """One indicator in one month; None where it never rose, or never fell."""

    month: str
    indicator: Link
    rise: Move | None
    fall: Move | None


class _Step(NamedTuple):
    before: DayCard
    after: DayCard
    points: float


def month_rows(snapshot: Snapshot, span: Span) -> list[MonthRow]:
    """The months of the span in which something moved, the newest first."""
    pairs = list(pairwise(days_in(snapshot, span)))
    pairs.reverse()
    titles = {name: str(node.title) for name, node in Tree.of(snapshot.scorecard).nodes.items()}
    rows: list[MonthRow] = []
    for month, group in groupby(pairs, key=lambda pair: _day(snapshot, pair[1])[:7]):
        of_month = list(group)
        for name in INDICATORS:
            steps = list(_steps(of_month, name))
            rise = max((one for one in steps if one.points >= NO_MOVE), key=lambda one: one.points, default=None)
            fall = min((one for one in steps if one.points <= -NO_MOVE), key=lambda one: one.points, default=None)
            if rise or fall:
                indicator = Link(f"/node/{name}{span.query}#trend", titles.get(name, name))
                moves = [_move(snapshot, one, name, span) if one else None for one in (rise, fall)]
                rows.append(MonthRow(month, indicator, *moves))
    return rows


def _steps(pairs: Sequence[tuple[DayCard, DayCard]], name: str) -> Iterator[_Step]:
    for before, after in pairs:
        if name in before.nodes and name in after.nodes:
            yield _Step(before, after, after.nodes[name].low - before.nodes[name].low)


def _move(snapshot: Snapshot, step: _Step, name: str, span: Span) -> Move:
    before, after, points = step
    cause, part = _cause(snapshot, step, name, span)
    first, last = _day(snapshot, before), _day(snapshot, after)
    is_next = datetime.date.fromisoformat(last) - datetime.date.fromisoformat(first) == datetime.timedelta(days=1)
    return Move(
        when=last if is_next else f"{first} → {last}",
        points=f"{points:+.1f}",
        ends=f"{before.nodes[name].low:.1f} → {after.nodes[name].low:.1f}",
        cause=cause,
        part=part,
    )


def _cause(snapshot: Snapshot, step: _Step, name: str, span: Span) -> tuple[Link, str]:
    """What moved it most in its direction, and by how much."""
    if not (step.before.is_read and step.after.is_read):
        return Link("", say("评分卡正在读取", "the scorecards are still being read")), ""
    causes = causes_of(step.before, step.after, name)
    if not causes:
        return Link("", say("原因不明：评分卡正文读不懂", "cause unknown: the scorecards cannot be read")), ""
    largest = causes[0] if step.points > 0 else causes[-1]
    share = f"{largest.points:+.1f}"
    if largest.kind == "cap":
        titles = {node.id: str(node.title) for node in snapshot.scorecard.nodes}
        title = say(f"封顶：{titles.get(largest.id, largest.id)}", f"cap of {titles.get(largest.id, largest.id)}")
        return Link(f"/node/{largest.id}" if largest.id in titles else "", title), share
    criteria = {one.id: str(one.title) for node in snapshot.scorecard.nodes for one in node.criteria}
    path = f"/criterion/{largest.id}{span.query}#trend" if largest.id in criteria else ""
    if largest.before == largest.after:
        moved = say("权重变化", "its weight changed")
    else:
        moved = f"{largest.before:.4g} → {largest.after:.4g}"
    return Link(path, criteria.get(largest.id, largest.id)), say(f"{moved}，计 {share}", f"{moved}, worth {share}")


def _day(snapshot: Snapshot, card: DayCard) -> str:
    return local_time(card.as_of, snapshot.zone)[:10]
