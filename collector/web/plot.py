"""An interval over time as the shapes of an SVG: a band from low to high, the line of the low end, and the coverage.

The shapes are stretched to whatever width there is, and the labels stand beside them as text, so both can be read on a phone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent.language import say
from collector.evaluate import parse_time
from collector.history import HistoryRow
from collector.query import DAY_MS, HOUR_MS
from collector.web.ticks import Tick, ticks
from collector.web.times import local_time

WIDTH = 1000
GAP_MS = 2 * HOUR_MS
"""Scorecards are stored every hour; where they are further apart there is nothing to draw between them."""
DAYS_GAP_MS = 3 * DAY_MS // 2
"""The same for the last scorecards of days."""


class Moment(NamedTuple):
    """An interval at a time (ms), and the share of it that rests on data; None where that was not stored."""

    at: int
    low: float
    high: float
    coverage: float | None = None


class Axis(NamedTuple):
    """From when to when is drawn (ms), and from what distance on nothing is drawn between two moments."""

    since: int
    until: int
    gap: int


class Lone(NamedTuple):
    """A moment with nothing beside it: its interval as a stem, its low end and its coverage as dots; covered: empty for none."""

    stem: str
    dot: str
    covered: str


@dataclass(frozen=True)
class Plot:
    """bands: polygons. lines: polylines of the low end; coverages: of the coverage. lone: marks. label: for a screen reader.

    times: labels from left to right, spread evenly; ticks: labels at their places, one of the two.
    """

    bands: Sequence[str]
    lines: Sequence[str]
    coverages: Sequence[str]
    lone: Sequence[Lone]
    times: Sequence[str]
    ticks: Sequence[Tick]
    label: str

    @property
    def has_coverage(self) -> bool:
        """Whether the coverage is drawn anywhere."""
        return bool(self.coverages) or any(one.covered for one in self.lone)


def moments_of(history: Sequence[HistoryRow], node: str) -> list[Moment]:
    """A node's interval at every stored time, of the newest revision; oldest first."""
    found: dict[int, Moment] = {}
    for row in history:
        interval = row.summary.nodes.get(node) if row.summary else None
        if row.summary is not None and interval is not None:
            at = parse_time(row.as_of)
            # a later revision of the same time comes later
            found[at] = Moment(at, *interval, row.summary.coverages.get(node))
    return [found[at] for at in sorted(found)]


def draw(moments: Sequence[Moment], zone: ZoneInfo, axis: Axis | None = None) -> Plot | None:
    """None while there are not two times to draw a line between. axis: from the first to the last of an hourly course by default."""
    if len(moments) < 2:
        return None
    first, last = moments[0].at, moments[-1].at
    since, until, gap = axis or Axis(first, last, GAP_MS)
    place = {one.at: WIDTH * (one.at - since) / (until - since) for one in moments}
    runs = _runs(moments, gap)
    covered = [part for run in runs for is_known, part in _by_coverage(run) if is_known and len(run) > 1]
    return Plot(
        bands=[_band(run, place) for run in runs],
        lines=[" ".join(f"{place[one.at]:.1f},{100 - one.low:.2f}" for one in _drawable(run)) for run in runs],
        coverages=[" ".join(_covered(one, place) for one in _drawable(part)) for part in covered],
        lone=[_lone(run[0], place) for run in runs if len(run) == 1],
        times=() if axis else _times(first, last, zone),
        ticks=ticks(since, until, zone) if axis else (),
        label=_label(moments, zone),
    )


def _runs(moments: Sequence[Moment], gap: int) -> list[list[Moment]]:
    """Stretches without a gap."""
    runs: list[list[Moment]] = []
    for one in moments:
        if runs and one.at - runs[-1][-1].at <= gap:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _by_coverage(run: Sequence[Moment]) -> list[tuple[bool, list[Moment]]]:
    """A stretch cut where the coverage begins or ends to be known."""
    return [(is_known, list(part)) for is_known, part in groupby(run, key=lambda one: one.coverage is not None)]


def _drawable(run: Sequence[Moment]) -> Sequence[Moment]:
    """A lone moment twice, since a line of one point is not drawn."""
    return run if len(run) > 1 else [run[0], run[0]]


def _band(run: Sequence[Moment], place: Mapping[int, float]) -> str:
    highs = [f"{place[one.at]:.1f},{100 - one.high:.2f}" for one in _drawable(run)]
    lows = [f"{place[one.at]:.1f},{100 - one.low:.2f}" for one in reversed(_drawable(run))]
    return " ".join([*highs, *lows])


def _lone(one: Moment, place: Mapping[int, float]) -> Lone:
    across = f"{place[one.at]:.1f}"
    low, high = f"{across},{100 - one.low:.2f}", f"{across},{100 - one.high:.2f}"
    covered = "" if one.coverage is None else _covered(one, place)
    return Lone(f"{high} {low}", f"{low} {low}", f"{covered} {covered}".strip())


def _covered(one: Moment, place: Mapping[int, float]) -> str:
    return f"{place[one.at]:.1f},{100 - 100 * (one.coverage or 0.0):.2f}"


def _times(first: int, last: int, zone: ZoneInfo) -> list[str]:
    """Begin, middle, end: days, or times of the day where it is but a few days."""
    part = slice(0, 10) if last - first > 3 * DAY_MS else slice(5, 16)
    return [local_time(at, zone)[part] for at in (first, (first + last) // 2, last)]


def _label(moments: Sequence[Moment], zone: ZoneInfo) -> str:
    first, last = moments[0], moments[-1]
    begun, ended = local_time(first.at, zone), local_time(last.at, zone)
    return say(
        f"得分区间：{begun} 为 {first.low:.1f} 到 {first.high:.1f}，{ended} 为 {last.low:.1f} 到 {last.high:.1f}",
        f"score {first.low:.1f} to {first.high:.1f} at {begun}, {last.low:.1f} to {last.high:.1f} at {ended}",
    )
