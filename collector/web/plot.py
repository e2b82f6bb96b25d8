"""An interval over time as the shapes of an SVG: a band from low to high, and the line of the low end.

The shapes are stretched to whatever width there is, and the labels stand beside them as text, so both can be read on a phone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent.language import say
from collector.evaluate import parse_time
from collector.history import HistoryRow
from collector.query import DAY_MS, HOUR_MS
from collector.web.times import local_time

WIDTH = 1000
GAP_MS = 2 * HOUR_MS
"""Scorecards are stored every hour; where they are further apart there is nothing to draw between them."""


class Moment(NamedTuple):
    """An interval at a time (ms)."""

    at: int
    low: float
    high: float


@dataclass(frozen=True)
class Plot:
    """bands: polygons; lines: polylines of the low end; times: labels from left to right; label: for a screen reader."""

    bands: Sequence[str]
    lines: Sequence[str]
    times: Sequence[str]
    label: str


def moments_of(history: Sequence[HistoryRow], node: str) -> list[Moment]:
    """A node's interval at every stored time, of the newest revision; oldest first."""
    found: dict[int, Moment] = {}
    for row in history:
        interval = row.summary.nodes.get(node) if row.summary else None
        if interval is not None:
            at = parse_time(row.as_of)
            found[at] = Moment(at, *interval)  # a later revision of the same time comes later
    return [found[at] for at in sorted(found)]


def draw(moments: Sequence[Moment], zone: ZoneInfo) -> Plot | None:
    """None while there are not two times to draw a line between."""
    if len(moments) < 2:
        return None
    first, last = moments[0].at, moments[-1].at
    place = {one.at: WIDTH * (one.at - first) / (last - first) for one in moments}
    runs = _runs(moments)
    return Plot(
        bands=[_band(run, place) for run in runs],
        lines=[" ".join(f"{place[one.at]:.1f},{100 - one.low:.2f}" for one in _drawable(run)) for run in runs],
        times=_times(first, last, zone),
        label=_label(moments, zone),
    )


def _runs(moments: Sequence[Moment]) -> list[list[Moment]]:
    """Stretches without a gap."""
    runs: list[list[Moment]] = []
    for one in moments:
        if runs and one.at - runs[-1][-1].at <= GAP_MS:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _drawable(run: Sequence[Moment]) -> Sequence[Moment]:
    """A lone moment twice, since a line of one point is not drawn."""
    return run if len(run) > 1 else [run[0], run[0]]


def _band(run: Sequence[Moment], place: Mapping[int, float]) -> str:
    highs = [f"{place[one.at]:.1f},{100 - one.high:.2f}" for one in _drawable(run)]
    lows = [f"{place[one.at]:.1f},{100 - one.low:.2f}" for one in reversed(_drawable(run))]
    return " ".join([*highs, *lows])


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
