"""One series of the made-up hospital: who gives it, how often, which values; and who gives what. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.points import Point
from collector.demo import curves
from collector.demo.curves import DAY_MS, HOUR_MS, ZONE_MS, Curve, Spans, Times, state, steady
from collector.demo.hospital import GATEWAYS, Thing, things
from collector.demo.story import MINUTE_MS, Story

FIVE_MINUTES_MS = 5 * MINUTE_MS
DENSE_MS = MINUTE_MS
BUSY = ((8, 12), (14, 18))
CONSULTING = ((9, 12),)
"""Hours of the working days: of the wards, of telemedicine."""


@dataclass(frozen=True)
class Series:
    """One series. close: spans that are sampled every minute. silent: when nothing came.

    is_working_hours: only the wards' are sampled. is_working_minutes: telemedicine's are sampled every minute.
    """

    agent: str
    measurement: str
    tags: Mapping[str, str]
    step_ms: int
    fields: Mapping[str, Curve]
    close: Spans = ()
    silent: Spans = ()
    is_working_hours: bool = False
    is_working_minutes: bool = False

    def points(self, start: int, end: int) -> list[Point]:
        """Those from `start` until before `end`, milliseconds."""
        times = self._times(start, end)
        words = (self.measurement, *self.tags.values())
        columns = [curve(times, curves.seed_of(*words, name)).tolist() for name, curve in self.fields.items()]
        names, tags, name = tuple(self.fields), self.tags, self.measurement
        if len(names) == 1:
            (only,) = names
            return [Point(name, tags, {only: value}, at) for at, value in zip(times.tolist(), columns[0], strict=True)]
        rows = zip(times.tolist(), *columns, strict=True)
        return [Point(name, tags, dict(zip(names, row, strict=True)), at) for at, *row in rows]

    def _times(self, start: int, end: int) -> Times:
        times = _every(self.step_ms, start, end)
        if self.is_working_hours:
            times = times[_is_working(times, *BUSY)]
        if self.is_working_minutes:
            every = _every(DENSE_MS, start, end)
            times = np.union1d(times, every[_is_working(every, *CONSULTING)])
        for since, until in self.close:
            since, until = max(start, since - since % HOUR_MS), min(end, until - until % HOUR_MS + HOUR_MS)
            if since < until:
                times = np.union1d(times, _every(DENSE_MS, since, until))
        return times[~curves.inside(times, self.silent)] if self.silent else times


def _every(step_ms: int, start: int, end: int) -> Times:
    return np.arange(start + -start % step_ms, end, step_ms, dtype=np.int64)


def _is_working(times: Times, *hours: tuple[int, int]) -> NDArray[np.bool_]:
    """Monday to Friday within these hours, as calendars.yaml of the demo says."""
    local = times + ZONE_MS
    hour = local % DAY_MS // HOUR_MS
    within = [(hour >= since) & (hour < until) for since, until in hours]
    found: NDArray[np.bool_] = np.logical_or.reduce(within) & ((local // DAY_MS + 3) % 7 < 5)
    return found


class Cast:
    """The things of the hospital in their parts of `story`, and who speaks of them."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._things = {thing.id: thing for thing in things()}

    def assets(self, *classes: str) -> Iterable[Thing]:
        """Those of these classes, in the order of the register."""
        return (one for one in self._things.values() if one.said.get("class") in classes)

    def series(self, asset: str, measurement: str, step_ms: int, fields: Mapping[str, Curve], **tags: str) -> Series:
        """A series of an asset, given by its reporter."""
        agent = self._things[asset].reporter
        silent = (self.story.dead_agent,) if agent == GATEWAYS["west"] else ()
        return Series(agent, measurement, {"asset": asset, **tags}, step_ms, fields, silent=silent)

    def redundant(self, asset: str, kind: str, *broken: tuple[int, int]) -> Iterator[Series]:
        """A group of two of which one was broken in these spans."""
        healthy = curves.during(steady(2.0), steady(1.0), *broken)
        fields = {
            "is_healthy": state(*broken),
            "is_redundant": state(*broken),
            "healthy_count": healthy,
            "members_count": steady(2.0),
        }
        yield self.series(asset, "redundant_group", DAY_MS, fields, group=f"{kind}-1", kind=kind)
