"""The course of a node or a criterion over the chosen span: hour by hour of a month, else day by day."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.language import say
from collector.past import DayCard, Scored, midnights
from collector.query import DAY_MS
from collector.snapshot import Snapshot
from collector.web.plot import DAYS_GAP_MS, Axis, Moment, Plot, draw, moments_of
from collector.web.spans import SPANS, Span
from collector.web.times import local_time

HOURLY_DAYS = SPANS[0].days
SHORT_SHARE = 0.05
"""A past that lacks no more than this of the span is not called short."""


@dataclass(frozen=True)
class Trend:
    """plot: None while there are not two scorecards in the span. note: what is to be known about it, or empty."""

    plot: Plot | None
    note: str


def trend_of_node(snapshot: Snapshot, name: str, span: Span) -> Trend:
    """The course of a node."""
    hourly = moments_of(snapshot.history, name)
    begun = snapshot.past[0].as_of if snapshot.past else snapshot.taken_at
    if span.days <= HOURLY_DAYS:
        return Trend(draw(hourly, snapshot.zone), "")
    if begun >= snapshot.taken_at - HOURLY_DAYS * DAY_MS:  # all that there is is there hour by hour
        return Trend(draw(hourly, snapshot.zone), _describe_begin(snapshot, span))
    return _daily(snapshot, [(card, card.nodes.get(name)) for card in days_in(snapshot, span)], span)


def has_course(snapshot: Snapshot, node: str) -> bool:
    """Whether the node stands in any stored scorecard that is shown."""
    return bool(moments_of(snapshot.history, node)) or any(node in card.nodes for card in snapshot.past)


def trend_of_criterion(snapshot: Snapshot, name: str, span: Span) -> Trend:
    """The course of a criterion; also that of a month is one of days."""
    return _daily(snapshot, [(card, card.criteria.get(name)) for card in days_in(snapshot, span)], span)


def days_in(snapshot: Snapshot, span: Span) -> Sequence[DayCard]:
    """The last scorecards of the days of the span, oldest first."""
    since = _first_midnight(snapshot, span.days)
    return [card for card in snapshot.past if card.as_of >= since]


def _first_midnight(snapshot: Snapshot, days: int) -> int:
    return midnights(snapshot.zone, snapshot.taken_at)[-2 - days]


def _daily(snapshot: Snapshot, days: Sequence[tuple[DayCard, Scored | None]], span: Span) -> Trend:
    """From the cards of the days, each with what it says of the thing that is drawn."""
    moments = [Moment(card.as_of, one.low, one.high, one.coverage) for card, one in days if one is not None]
    edges = midnights(snapshot.zone, snapshot.taken_at)[-2 - span.days :]
    begun = snapshot.past[0].as_of if snapshot.past else snapshot.taken_at
    since = max((edge for edge in edges[:-1] if edge <= begun), default=edges[0])
    total = sum(edge >= since for edge in edges[:-1])
    notes = [
        say(
            f"每天取当天最后一份评分；{total} 天中有 {len(moments)} 天存有。",
            f"Each day by its last scorecard; {len(moments)} of {total} days have one.",
        )
    ]
    if since - edges[0] > SHORT_SHARE * (edges[-1] - edges[0]):
        notes.append(_describe_begin(snapshot, span))
    if unread := sum(one is None and not card.is_read for card, one in days):
        text = say(f"还有 {unread} 天的评分正在读取。", f"The scorecards of {unread} days are still being read.")
        notes.append(text)
    plot = draw(moments, snapshot.zone, Axis(since, snapshot.taken_at, DAYS_GAP_MS))
    return Trend(plot, " ".join(notes))


def _describe_begin(snapshot: Snapshot, span: Span) -> str:
    """That the past is shorter than what was asked for."""
    if not snapshot.past:
        return say("还没有存下的评分。", "No scorecard is stored yet.")
    begun = local_time(snapshot.past[0].as_of, snapshot.zone)[:10]
    return say(
        f"存下的评分从 {begun} 开始，还不满{span.title}，图从那天画起。",
        f"Scorecards are stored since {begun}, not for {span.title} yet; the picture begins there.",
    )
