"""The agent's clock jumps an hour, both ways, with the link up and with a backlog: every point is kept once, at the time it was observed."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from line import DEADLINE_SECONDS, POINTS, Agent, KeptInDuckDB, Row, make_ingest, running

from agent.inprocess import InProcessLink
from agent.wire import Address
from collector.quarantine import Quarantine
from collector.server import StoreThreads

ADDRESS = Address("hospital", "srv-1")
HOUR = 3600.0
NEAR_MS = 60_000
"""What the test's own duration may add."""


class Clock:
    """The agent's clock, off by `off_seconds`."""

    off_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.off_seconds


@pytest.fixture
def kept(tmp_path: Path) -> KeptInDuckDB:
    return KeptInDuckDB(tmp_path)


@pytest.fixture
def threads(kept: KeptInDuckDB) -> Iterator[StoreThreads]:
    with kept.open() as store:
        opened = StoreThreads(store)
        yield opened
        opened.close()


async def observe(agent: Agent, clock: Clock, batches: int = 10) -> None:
    """Batches of points stamped by the agent's clock now; no two have one stamp."""
    for _ in range(batches):
        first, now = len(agent.made), int(clock() * 1000)
        await agent.put([Row(now + first + n, float(first + n)) for n in range(POINTS)])


@pytest.mark.parametrize("is_linked", [True, False], ids=["link up", "backlog"])
@pytest.mark.parametrize("jumps", [(HOUR, 0.0), (-HOUR, 0.0), (HOUR, -HOUR, 0.0), (HOUR,)], ids=str)
async def test_clock_that_jumps_an_hour_costs_no_point_and_moves_none(
    threads: StoreThreads, kept: KeptInDuckDB, tmp_path: Path, jumps: tuple[float, ...], is_linked: bool
) -> None:
    clock, link = Clock(), InProcessLink(ADDRESS, capacity=8)
    agent = Agent(tmp_path, link, ADDRESS, clock=clock)
    with Quarantine(tmp_path / "quarantine.sqlite") as quarantine:
        ingest = make_ingest(threads, quarantine)
        began = int(time.time() * 1000)
        if is_linked:
            async with running(ingest.run(link.deliveries()), agent.publisher.run()):
                await through_all(agent, clock, jumps)
                assert await agent.publisher.drain(DEADLINE_SECONDS)
        else:
            await through_all(agent, clock, jumps)
            async with running(ingest.run(link.deliveries()), agent.publisher.run()):
                assert await agent.publisher.drain(DEADLINE_SECONDS)
        counts = ingest.counts()
    threads.store.__exit__()
    rows, batches = kept.rows(ADDRESS), kept.batches(ADDRESS)
    assert counts.set_aside == {}
    assert sorted(row.value for row in rows) == [row.value for row in agent.made]
    assert len(batches) == len(agent.made) // POINTS == agent.spool.state().applied_batches
    assert [row for row in rows if not began - NEAR_MS <= row.time <= began + NEAR_MS] == []


async def through_all(agent: Agent, clock: Clock, jumps: tuple[float, ...]) -> None:
    await observe(agent, clock)
    for off_seconds in jumps:
        clock.off_seconds = off_seconds
        await observe(agent, clock)
        await asyncio.sleep(0)
