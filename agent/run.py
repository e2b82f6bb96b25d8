"""The runner: one task per source and target keeps interval, deadline and back-off, and measures both.

It knows neither spool nor broker: points go to a `sink`. Nothing here is global; two runners may share a process.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from agent.catalogue import Catalogue, load
from agent.errors import NoData, Off, SpoolError
from agent.language import say
from agent.points import Point, Value
from agent.readings import Settler
from agent.rounds import Clocks, Gatherer, Outcome, Schedule, Watch, beats_to_wait, in_thread, phase
from agent.sources import Reading
from agent.sources._hours import ProbeConfig
from agent.spool import SpoolState
from agent.workers import Workers

Sink = Callable[[list[Point]], Awaitable[None] | None]
"""Takes points for keeping; raises SpoolError when it cannot. What blocks belongs in a thread, see `in_thread`."""

BATCH_POINTS = 500
FLUSH_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Gathered(NamedTuple):
    """What one watch gave in `gather_once`."""

    watch: Watch
    outcome: Outcome


async def gather_once(
    watches: Sequence[Watch], seconds_between: float = 1.0, clocks: Clocks | None = None
) -> list[Gathered]:
    """Open, gather and close every watch at the same time; what has rates is gathered twice, so many seconds apart.

    Nothing is raised for a source: its SourceError or bug stands in the outcome.
    """
    clocks, workers = clocks or Clocks(), Workers()

    async def gather(watch: Watch) -> Gathered:
        gatherer = Gatherer(watch, clocks, workers)
        try:
            outcome = await gatherer.gather()
            if outcome.error is None and gatherer.has_rates:
                await clocks.sleep(seconds_between)
                outcome = await gatherer.gather()
            return Gathered(watch, outcome)
        finally:
            await gatherer.close()

    try:
        return list(await asyncio.gather(*(gather(watch) for watch in watches)))
    finally:
        workers.close()


class Runner:
    """Gathers all watches until it is cancelled; then closes them and hands the last points over.

    asset: the tag of readings that name none. spool_state: what waits for the collector, for `agent_health`.
    spread_seconds: within which time the first rounds, and so all later ones, are spread.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        *,
        asset: str,
        sink: Sink,
        catalogue: Catalogue | None = None,
        spool_state: Callable[[], SpoolState] | None = None,
        clocks: Clocks | None = None,
        spread_seconds: float = 1.0,
    ) -> None:
        self._watches = watches
        self._clocks = clocks or Clocks()
        catalogue = catalogue or load()
        self._settler = Settler(catalogue, asset)
        self._health_seconds = catalogue.measurements["agent_health"].interval_seconds
        self._outbox = Outbox(sink, self._clocks)
        self._workers = Workers()
        self._spool_state = spool_state
        self._spread_seconds = spread_seconds

    async def run(self) -> None:
        """Never returns by itself."""
        start = self._clocks.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outbox.run(), name="outbox")
                group.create_task(self._report_health(start), name="agent_health")
                for watch in self._watches:
                    group.create_task(self._follow(watch, start), name=watch.label)
        finally:
            await self._outbox.flush()
            self._workers.close()

    async def _follow(self, watch: Watch, start: float) -> None:
        """All rounds of one watch."""
        interval = watch.config.interval_seconds
        spread = self._spread_seconds if watch.spread_seconds is None else watch.spread_seconds
        schedule = Schedule(start + phase(watch) * min(spread, interval), interval)
        gatherer = Gatherer(watch, self._clocks, self._workers)
        trouble = Trouble(watch.label)
        try:
            while True:
                await self._sleep_until(schedule.due_seconds)
                lateness = max(0.0, self._clocks.monotonic() - schedule.due_seconds)
                outcome = await gatherer.gather()
                beats = beats_to_wait(outcome, trouble.failures + 1, interval)
                trouble.note(outcome, beats * interval)
                await self._outbox.put(points_of_round(self._settler, watch, outcome, lateness, beats))
                schedule.advance(self._clocks.monotonic(), beats)
        finally:
            await gatherer.close()

    async def _report_health(self, start: float) -> None:
        """One `agent_health` per interval that the catalogue names for it."""
        schedule = Schedule(start, self._health_seconds)
        usage = Usage(self._clocks)
        waiting = Waiting(self._spool_state) if self._spool_state else None
        while True:
            await self._sleep_until(schedule.due_seconds)
            fields = usage.fields()
            if waiting:
                fields.update(await waiting.fields())
            at = round(self._clocks.wall() * 1000)
            await self._outbox.put(self._settler.settle((Reading("agent_health", fields),), at, "the runner").points)
            schedule.advance(self._clocks.monotonic())

    async def _sleep_until(self, due: float) -> None:
        await self._clocks.sleep(max(0.0, due - self._clocks.monotonic()))


def points_of_round(
    settler: Settler, watch: Watch, outcome: Outcome, lateness_seconds: float = 0.0, beats: int = 1
) -> list[Point]:
    """The round's points, and the point about the round; the next one comes `beats` intervals later."""
    at = round(outcome.observed_at_seconds * 1000)
    settled = settler.settle(outcome.readings, at, watch.source)
    # where there is nothing to measure nobody is expected to look at every beat; a failing source is
    pause = beats if isinstance(outcome.error, NoData) else 1
    fields: dict[str, Value] = {
        "duration_seconds": outcome.duration_seconds,
        "interval_seconds": watch.config.interval_seconds * pause,
        "points_count": len(settled.points),
        "lateness_seconds": lateness_seconds,
    }
    if isinstance(watch.config, ProbeConfig) and watch.config.hours:
        fields["is_off"] = isinstance(outcome.error, Off)
    if not isinstance(outcome.error, Off):  # nobody looked: neither well nor badly
        fields |= {
            "is_success": outcome.is_success,
            "is_complete": outcome.is_success and settled.is_complete,
        }
    about = Reading("source_round", fields, {"source": watch.source, "target": watch.target})
    return settled.points + settler.settle((about,), at, "the runner").points


class Trouble:
    """Says once when a source begins to fail and once when it works again; counts the rounds between."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._has_data = True
        self.failures = 0

    def note(self, outcome: Outcome, wait_seconds: float) -> None:
        """Take one more round into account; `wait_seconds` is the time until the next."""
        error, label = outcome.error, self._label
        if outcome.is_bug:
            _log.error("a bug in source %s; a new one starts in %g s", label, wait_seconds, exc_info=error)
        elif not outcome.is_success and not self.failures:
            _log.warning(say(f"{label} 采集失败：{error}；会继续重试", f"{label} fails: {error}; trying on"))
        elif outcome.is_success and self.failures:
            rounds = self.failures
            _log.warning(
                say(f"{label} 已恢复，此前失败 {rounds} 轮", f"{label} works again after {rounds} failed rounds")
            )
        has_data = not isinstance(error, NoData)
        if self._has_data and not has_data:
            _log.info(say(f"{label} 没有可采集的内容：{error}", f"{label} has nothing to measure: {error}"))
        self._has_data = has_data
        self.failures = 0 if outcome.is_success else self.failures + 1


class Outbox:
    """Points of one second go together, so that batches stay few."""

    def __init__(self, sink: Sink, clocks: Clocks) -> None:
        self._sink = sink
        self._clocks = clocks
        self._points: list[Point] = []
        self._filled = asyncio.Event()
        self._is_failing = False

    async def put(self, points: list[Point]) -> None:
        """Keep the points for the next flush; a full batch goes at once."""
        self._points += points
        if len(self._points) >= BATCH_POINTS:
            await self.flush()
        elif self._points:
            self._filled.set()

    async def run(self) -> None:
        """Flush a second after the first point came."""
        while True:
            await self._filled.wait()
            await self._clocks.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Hand over everything that is here."""
        self._filled.clear()
        points, self._points = self._points, []
        for first in range(0, len(points), BATCH_POINTS):
            await self._give(points[first : first + BATCH_POINTS])

    async def _give(self, points: list[Point]) -> None:
        try:
            given = self._sink(points)
            if inspect.isawaitable(given):
                await given
        except SpoolError as error:
            if not self._is_failing:
                _log.error(say(f"数据无法保存，正在丢失：{error}", f"points cannot be kept and are lost: {error}"))
            self._is_failing = True
        else:
            if self._is_failing:
                _log.warning(say("数据又能保存了", "points can be kept again"))
            self._is_failing = False


class Usage:
    """What this process takes of the machine."""

    def __init__(self, clocks: Clocks) -> None:
        import psutil  # not at the top: who only gathers once needs it not

        self._process = psutil.Process()
        self._clocks = clocks
        self._before: tuple[float, float] | None = None

    def fields(self) -> dict[str, Value]:
        """Resident memory, and the share of one core since the last call."""
        cpu, now = time.process_time(), self._clocks.monotonic()
        fields: dict[str, Value] = {"resident_bytes": self._process.memory_info().rss}
        if self._before and now > self._before[1]:
            fields["cpu_ratio"] = (cpu - self._before[0]) / (now - self._before[1])
        self._before = (cpu, now)
        return fields


class Waiting:
    """The spool's account, and what its bound and a full disk cost since the last look."""

    def __init__(self, spool_state: Callable[[], SpoolState]) -> None:
        self._spool_state = spool_state
        self._before: SpoolState | None = None

    async def fields(self) -> dict[str, Value]:
        """Nothing while the spool cannot be read: the sink says why."""
        try:
            state = await in_thread(self._spool_state, "spool state")
        except SpoolError:
            return {}
        fields: dict[str, Value] = {
            "spool_batches_count": state.batches,
            "spool_bytes": state.bytes,
            "spool_oldest_age_seconds": state.oldest_age_seconds or 0.0,
            **_account(state),
        }
        before, self._before = self._before, state
        if before is not None:
            fields.update(_losses(before, state))
        return fields


def _losses(before: SpoolState, state: SpoolState) -> dict[str, Value]:
    """What was lost between two looks; nothing where nothing was."""
    known = 0 if state.closings > before.closings else before.dropped_points  # a new account counts from 0
    lost = {
        "dropped_points_count": state.dropped_points - known,
        "unkept_points_count": state.unkept_points - before.unkept_points,
    }
    return {name: points for name, points in lost.items() if points > 0}


def _account(state: SpoolState) -> dict[str, Value]:
    """The fields that the collector holds against what it has; nothing before the account is known from its first batch."""
    if state.began_at is None:
        return {}
    fields: dict[str, Value] = {
        "ledger_made_batches_count": state.made_batches,
        "ledger_made_points_count": state.made_points,
        "ledger_applied_batches_count": state.applied_batches,
        "ledger_applied_points_count": state.applied_points,
        "ledger_set_aside_batches_count": state.set_aside_batches,
        "ledger_set_aside_points_count": state.set_aside_points,
        "ledger_dropped_batches_count": state.dropped_batches,
        "ledger_dropped_points_count": state.dropped_points,
        "ledger_waiting_batches_count": state.batches,
        "ledger_waiting_points_count": state.points,
        "ledger_closings_count": state.closings,
        "ledger_began_seconds": state.began_at / 1000,
        "ledger_newest_seconds": state.newest_at / 1000,
    }
    if state.oldest_at is not None:
        fields["ledger_oldest_seconds"] = state.oldest_at / 1000
    return fields
