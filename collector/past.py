"""A year of scorecards by days: of each day the last one, read once and remembered, and what moved a score between two of them."""

import datetime
import logging
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from agent.errors import StoreError
from agent.language import say
from collector.history import Summary
from collector.stores import ScorecardRow, Store

log = logging.getLogger(__name__)

YEAR_DAYS = 365

UNSETTLED_DAYS = 3
"""Scorecards of older days are not written any more by the collector that runs; the whole year is asked for once a day."""

BODIES_AT_ONCE = 60
"""So many scorecards are read whole at one look, the newest first; a year after a start takes a few looks."""

TOLERANCE = 1e-9


class Scored(NamedTuple):
    """A node or a criterion on a day. parent: the node that it counts in; weight: what it weighs there, in force that day.

    Where only the summary is known, parent is empty and weight 0. coverage: None where it was not stored.
    """

    parent: str
    weight: float
    low: float
    high: float
    coverage: float | None


@dataclass(frozen=True)
class DayCard:
    """The last scorecard of a day. as_of: milliseconds. is_read: its body was looked at; until then `nodes` are those of
    its summary and `criteria` is empty, and so it stays when the body is none that this program can read."""

    as_of: int
    revision: int
    digest: str
    nodes: Mapping[str, Scored]
    criteria: Mapping[str, Scored]
    is_read: bool = False


class Past:
    """Remembers the last scorecards of the days; for one thread."""

    def __init__(self, bodies_at_once: int = BODIES_AT_ONCE) -> None:
        self._bodies_at_once = bodies_at_once
        self._edges: Sequence[int] = ()
        self._cards: dict[int, DayCard] = {}
        self._avoided: set[int] = set()

    def read(self, store: Store, site: str, zone: ZoneInfo, now: int) -> Sequence[DayCard]:
        """The year until `now` (ms), oldest first. Of a body that did not change nothing is read again."""
        edges = midnights(zone, now)
        if edges == self._edges:
            self._list(store, site, edges, edges[-UNSETTLED_DAYS - 1 :])
        else:
            self._list(store, site, edges, edges)
            self._edges = edges
            self._avoided.clear()
        self._read_bodies(store, site)
        return [self._cards[day] for day in sorted(self._cards)]

    def _read_bodies(self, store: Store, site: str) -> None:
        unread = [day for day, card in self._cards.items() if not card.is_read and day not in self._avoided]
        for day in sorted(unread, reverse=True)[: self._bodies_at_once]:
            try:
                self._cards[day] = self._whole(store, site, day)
            except StoreError as error:  # the figures of now do not wait for one of the past
                log.warning(say("一份旧评分卡读不出来：%s", "an old scorecard cannot be read: %s"), error)
                self._avoided.add(day)
                return

    def _list(self, store: Store, site: str, edges: Sequence[int], asked: Sequence[int]) -> None:
        """Which card is the last of its day, for the days between `asked`; `edges`: of all days."""
        rows = store.last_scorecards(site, asked)
        known = {(card.as_of, card.revision, card.digest): card for card in self._cards.values()}
        kept = {day: card for day, card in self._cards.items() if edges[0] <= day < asked[0]}
        for row in rows:
            day = edges[bisect_right(edges, row.as_of) - 1]
            kept[day] = known.get((row.as_of, row.revision, row.digest)) or _of_summary(row)
        self._cards = kept

    def _whole(self, store: Store, site: str, day: int) -> DayCard:
        card = self._cards[day]
        stored = store.scorecard_at(site, card.as_of, card.revision)
        try:
            body = msgspec.json.decode(stored.body if stored else b"{}", type=_Card)
        except msgspec.MsgspecError:  # of another program: what its summary says is all there is
            return DayCard(card.as_of, card.revision, card.digest, card.nodes, {}, is_read=True)
        near = self._cards.get(min((one for one in self._cards if one > day), default=day), card)
        nodes = {one.id: _scored(one, one.parent or "") for one in body.nodes}
        # what counts nothing anywhere, such as a supporting document, stands where it is named first
        counted = sorted(((one, node.id) for node in body.nodes for one in node.criteria), key=_weighs_nothing)
        criteria: dict[str, Scored] = {}
        for one, parent in counted:
            criteria.setdefault(one.id, _scored(one, parent))
        shared = _sharing(nodes, near.nodes), _sharing(criteria, near.criteria)
        return DayCard(card.as_of, card.revision, card.digest, *shared, is_read=True)


def midnights(zone: ZoneInfo, now: int) -> list[int]:
    """The edges of the last YEAR_DAYS days and of today, in milliseconds: the site's midnights, the next one last."""
    today = datetime.datetime.fromtimestamp(now / 1000, zone).date()
    days = [today + datetime.timedelta(days=back) for back in range(-YEAR_DAYS, 2)]
    return [int(datetime.datetime(one.year, one.month, one.day, tzinfo=zone).timestamp() * 1000) for one in days]


class _Criterion(msgspec.Struct):
    """Of a criterion in a stored scorecard what a course needs; the evidence is passed over."""

    id: str
    effective_weight: float
    low: float
    high: float
    coverage: float


class _Node(msgspec.Struct):
    id: str
    parent: str | None
    effective_weight: float
    low: float
    high: float
    coverage: float
    criteria: list[_Criterion]


class _Card(msgspec.Struct):
    nodes: list[_Node]


def _weighs_nothing(pair: tuple[_Criterion, str]) -> bool:
    return pair[0].effective_weight == 0


def _scored(one: _Node | _Criterion, parent: str) -> Scored:
    return Scored(sys.intern(parent), one.effective_weight, one.low, one.high, one.coverage)


def _sharing(found: Mapping[str, Scored], near: Mapping[str, Scored]) -> Mapping[str, Scored]:
    """`found`, with what is the same the day after standing in memory once."""
    return {sys.intern(name): near[name] if near.get(name) == one else one for name, one in found.items()}


def _of_summary(row: ScorecardRow) -> DayCard:
    summary = msgspec.json.decode(row.summary, type=Summary) if row.summary else None
    nodes = {
        name: Scored("", 0.0, *ends, summary.coverages.get(name) if summary else None)
        for name, ends in (summary.nodes if summary else {}).items()
    }
    return DayCard(row.as_of, row.revision, row.digest, nodes, {})


# -- what moved a score


class Cause(NamedTuple):
    """What moved a node's low end between two days. kind, id: a criterion, or the cap of a node. points: what it added to
    the low end, negative when it took. before, after: the criterion's own low end; 0 for a cap."""

    kind: Literal["criterion", "cap"]
    id: str
    points: float
    before: float
    after: float


def causes_of(before: DayCard, after: DayCard, node: str) -> list[Cause]:
    """All that moved `node`, what added most first; together they are the whole change. Empty unless both cards were read
    whole and know the node."""
    if not (before.criteria and after.criteria and node in before.nodes and node in after.nodes):
        return []
    old, new = _shares(before, node), _shares(after, node)
    moved = []
    for kind, name in {**old, **new}:
        points = new.get((kind, name), 0.0) - old.get((kind, name), 0.0)
        ends = [
            card.criteria[name].low if kind == "criterion" and name in card.criteria else 0.0
            for card in (before, after)
        ]
        moved.append(Cause(kind, name, points, *ends))
    return sorted((one for one in moved if abs(one.points) > TOLERANCE), key=lambda one: (-one.points, one.id))


_Share = tuple[Literal["criterion", "cap"], str]


def _shares(card: DayCard, node: str) -> Mapping[_Share, float]:
    """What every criterion below `node` adds to its low end, and what every cap takes away."""
    worth = {node: 1.0}  # a point of a node in points of `node`
    for name, one in card.nodes.items():  # parents come first
        if one.parent in worth:
            worth[name] = worth[one.parent] * one.weight
    shares: dict[_Share, float] = {}
    together: defaultdict[str, float] = defaultdict(float)
    for name, one in card.criteria.items():
        if one.parent in worth:
            shares["criterion", name] = worth[one.parent] * one.weight * one.low
            together[one.parent] += one.weight * one.low
    for name in worth.keys() - {node}:
        together[card.nodes[name].parent] += card.nodes[name].weight * card.nodes[name].low
    for name, value in worth.items():
        shares["cap", name] = value * (card.nodes[name].low - together[name])
    return shares
