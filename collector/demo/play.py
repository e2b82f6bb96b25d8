"""Plays the made-up year in fast motion through the real line: spool, publisher, link, ingest, store, scorecards.

All of them run on one clock that jumps from piece to piece, so that every batch is made, sent and taken when the story says so.
"""

import asyncio
import os
import tempfile
import time
import uuid
from bisect import bisect_left
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from agent.errors import StoreError
from agent.inprocess import InProcessLink
from agent.language import say
from agent.link import Delivery
from agent.points import Point
from agent.publish import Publisher
from agent.rounds import in_thread
from agent.run import Waiting
from agent.spool import Spool
from agent.wire import Address
from collector.demo.curves import HOUR_MS
from collector.demo.sampled import Series
from collector.demo.series import Signals
from collector.demo.story import MINUTE_MS, Story
from collector.intake import Intake
from collector.server import Evaluator
from collector.stores import LATENESS_MS

Progress = Callable[[float], None]
"""Is told the share of the year that is done."""

SPOOL_BYTES = 256 * 1024 * 1024
MOST_POINTS = 1_000
"""Put at once: about as many as the spool makes one batch of; of more it tries how many that are."""
DRAIN_SECONDS = 120.0
LIVE_SECONDS = 60.0
LINK_CAPACITY = 64
MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there
SCORED_DAYS = 42
LAST_DAYS = 2
"""So many days at the end have a scorecard each; before, every sixth week has one."""
SCORED_AFTER_MS = LATENESS_MS + MINUTE_MS
"""An hour is scored when it is closed."""


class Clock:
    """Seconds since the epoch as the story tells them; the machine's own once the year is over."""

    def __init__(self, start: int) -> None:
        self._told: float | None = start / 1000

    def __call__(self) -> float:
        """Now."""
        return time.time() if self._told is None else self._told

    def jump(self, to: int) -> None:
        """Let it be `to`, milliseconds."""
        self._told = to / 1000

    def join(self) -> None:
        """From now on the machine's time."""
        self._told = None


class Stage:
    """Every agent of the made-up hospital with a spool, a publisher and a link of its own, and one ingest."""

    def __init__(self, intake: Intake, clock: Clock) -> None:
        self._intake, self._clock = intake, clock
        self._spools: dict[str, Spool] = {}
        self._publishers: dict[str, Publisher] = {}
        self._waiting: dict[str, Waiting] = {}
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue(LINK_CAPACITY)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """What all agents send."""
        while True:
            yield await self._arrived.get()

    @asynccontextmanager
    async def open(self, agents: Sequence[str]) -> AsyncIterator[None]:
        """All agents ready to keep and to send."""
        async with AsyncExitStack() as stack:
            home = _spool_home(self._intake.place.data_directory)
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir=home, prefix="infravitals-demo-"))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            pumps = [group.create_task(self._pump(self._prepare(Path(directory), agent, stack))) for agent in agents]
            try:
                yield
            finally:
                for pump in pumps:
                    pump.cancel()

    def _prepare(self, directory: Path, agent: str, stack: AsyncExitStack) -> InProcessLink:
        address = Address(self._intake.place.site.id, agent)
        link = InProcessLink(address, LINK_CAPACITY)
        spool = Spool(
            directory / f"{agent}.sqlite", max_bytes=SPOOL_BYTES, max_age_seconds=400 * 86_400.0,
            new_boot=lambda: f"simulated-{uuid.uuid4().hex[:16]}", clock=self._clock, passed=self._clock,
        )  # fmt: skip
        stack.callback(spool.close)
        self._spools[agent], self._publishers[agent] = spool, Publisher(spool, link, address)
        self._waiting[agent] = Waiting(spool.state)
        return link

    async def _pump(self, link: InProcessLink) -> None:
        async for delivery in link.deliveries():
            await self._arrived.put(delivery)

    async def keep(self, by_agent: Mapping[str, Sequence[Point]]) -> None:
        """Have every agent put its points into its spool."""

        def put() -> None:
            for agent, points in by_agent.items():
                for start in range(0, len(points), MOST_POINTS):
                    self._spools[agent].put(points[start : start + MOST_POINTS])

        await in_thread(put, "spools")

    async def send(self) -> None:
        """Have every agent send what it kept, and wait until all have their receipts. Raises StoreError when they don't come.

        They connect for it each time: what waited before is sent in its order, of what comes later the newest would go
        first, and what comes out of order costs the store.
        """
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(publisher.run()) for publisher in self._publishers.values()]
            drained = await asyncio.gather(*(one.drain(DRAIN_SECONDS) for one in self._publishers.values()))
            for task in running:
                task.cancel()
        if not all(drained):
            raise StoreError(
                say(
                    "模拟数据未能在两分钟内入库；请检查磁盘空间与机器负载，删去数据目录后重新运行",
                    "the simulated data was not stored within two minutes; look at disk and load, remove the data directory and run again",
                )
            )

    async def report(self) -> None:
        """Have every agent say how much it made and what became of it, as the runner does."""
        at = int(self._clock() * 1000)
        fields = {agent: await waiting.fields() for agent, waiting in self._waiting.items()}
        await self.keep({agent: [Point("agent_health", {"asset": agent}, said, at)] for agent, said in fields.items()})
        await self.send()


class Player:
    """The story's series and events, piece by piece."""

    def __init__(self, story: Story) -> None:
        signals = Signals(story)
        self._series: Sequence[Series] = list(signals.series())
        self._events = sorted(signals.events(), key=lambda event: event[1].timestamp)
        self._times = [point.timestamp for _, point in self._events]
        self.agents = sorted({one.agent for one in self._series} | {agent for agent, _ in self._events})

    def points(self, start: int, end: int) -> dict[str, list[Point]]:
        """What each agent has to say of `start` until before `end`."""
        found: dict[str, list[Point]] = defaultdict(list)
        for one in self._series:
            found[one.agent] += one.points(start, end)
        for agent, point in self._events[bisect_left(self._times, start) : bisect_left(self._times, end)]:
            found[agent].append(point)
        return {agent: points for agent, points in found.items() if points}


class Piece(NamedTuple):
    """A part of the year: after `start` until and with `end`, milliseconds."""

    start: int
    end: int
    is_scored: bool


def pieces(story: Story, days: int) -> Iterator[Piece]:
    """The last `days` days cut up, and where scorecards are made, at the end of a piece.

    What is observed at the moment of a scorecard is part of it. The last piece ends with the last full hour.
    """
    last = story.end - story.end % HOUR_MS
    fortnights = [one for one in range(364, LAST_DAYS, -14) if one < days]
    edges = [
        (story.at(one), one % SCORED_DAYS == 0 or one <= LAST_DAYS)
        for one in (days, *fortnights, *range(LAST_DAYS, -1, -1))
    ]
    for number, ((start, _), (end, is_scored)) in enumerate(pairwise(edges)):
        yield Piece(start if number else start - 1, end, is_scored)  # the first one has the moment it begins at too
    if last > edges[-1][0]:
        yield Piece(edges[-1][0], last, True)


def _spool_home(otherwise: Path) -> Path:
    """In memory where the system has such a place: these spools need not outlive a power cut."""
    return MEMORY if os.access(MEMORY, os.W_OK) else otherwise


class Play:
    """The story on stage. days: how many of its last ones are played."""

    def __init__(self, intake: Intake, story: Story, days: int) -> None:
        self._intake, self._player = intake, Player(story)
        self._edges = list(pieces(story, days))
        self._clock = Clock(self._edges[0][0])
        self._stage = Stage(intake, self._clock)

    def deliveries(self) -> AsyncIterator[Delivery]:
        """What the agents send while `live` runs, for the service that takes it."""
        return self._stage.deliveries()

    async def past(self, told: Progress) -> None:
        """All of it with its scorecards. At the end every batch has its receipt and the spools are gone."""
        self._intake.ingest.clock = self._clock
        taking = asyncio.create_task(self._intake.ingest.run(self._stage.deliveries()), name="ingest")
        try:
            async with self._stage.open(self._player.agents):
                await self._pieces(told)
        finally:
            taking.cancel()
            await asyncio.wait({taking})
            self._intake.ingest.clock = time.time
        told(1.0)

    async def _pieces(self, told: Progress) -> None:
        edges = self._edges
        coming = self._make(edges[0])
        async with asyncio.TaskGroup() as group:
            scoring: asyncio.Task[None] | None = None
            for number, (start, end, is_scored) in enumerate(edges):
                told((start - edges[0][0]) / (edges[-1][1] - edges[0][0]))
                by_agent = await coming
                is_last = number + 1 == len(edges)
                if not is_last:  # made while this piece is on its way
                    coming = self._make(edges[number + 1])
                await self._take(by_agent, end, is_last=is_last)
                if is_scored:
                    if scoring is not None:
                        await scoring
                    scoring = group.create_task(self._score(end, is_last=is_last))

    def _make(self, piece: Piece) -> asyncio.Task[dict[str, list[Point]]]:
        return asyncio.create_task(asyncio.to_thread(self._player.points, piece.start + 1, piece.end + 1))

    async def _take(self, by_agent: Mapping[str, Sequence[Point]], end: int, *, is_last: bool) -> None:
        """A piece into the store, received when it ends."""
        self._clock.jump(end)
        await self._stage.keep(by_agent)
        await self._stage.send()
        if is_last:
            await self._stage.report()
            self._clock.jump(end + SCORED_AFTER_MS)

    async def _score(self, end: int, *, is_last: bool) -> None:
        """The scorecard as of `end`. The next piece comes meanwhile: what is observed later changes no byte of it."""
        threads, place, clock = self._intake.threads, self._intake.place, Clock(end + SCORED_AFTER_MS)
        evaluator = Evaluator(threads, self._intake.rules, place.site, self._intake.quarantine.counts, clock=clock)
        # kept once, at the end: to keep each step and take it up again in the next cost more than to read raw points
        await (evaluator.keep(end) if is_last else evaluator.score_hour(end, is_kept=False))

    async def live(self) -> None:
        """The hospital lives on from where its data ends, every LIVE_SECONDS, until cancelled."""
        self._clock.join()
        since = await self._newest()
        async with self._stage.open(self._player.agents):
            while True:
                now = int(time.time() * 1000)
                await self._stage.keep(await asyncio.to_thread(self._player.points, since, now))
                await self._stage.send()
                since = now
                await self._stage.report()
                await asyncio.sleep(LIVE_SECONDS)

    async def _newest(self) -> int:
        """Until when the agents have reported."""
        threads, site = self._intake.threads, self._intake.place.site.id
        totals = await threads.read(threads.store.totals)
        return max(one.last_made_at for one in totals if one.site == site)
