"""The parts of a real line for tests: an agent's spool and publisher, a collector's ingest, and what runs them beside a test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from agent.catalogue import load
from agent.errors import LinkError
from agent.link import Delivery, Link
from agent.mqtt import Broker, deliveries
from agent.points import Point
from agent.publish import Publisher
from agent.readings import Settler
from agent.run import Waiting
from agent.sources import Reading
from agent.spool import Spool
from agent.wire import Address
from collector.ingest import Ingest, Pace
from collector.quarantine import Quarantine
from collector.register import Owners
from collector.server import StoreThreads

ADDRESS = Address("hospital", "srv-1")
POINTS = 10
DEADLINE_SECONDS = 60.0


class Agent:
    """A spool and a publisher over `link`; makes batches of points that can be told apart."""

    def __init__(
        self,
        folder: Path,
        link: Link,
        address: Address = ADDRESS,
        resend_seconds: float = 0.5,
        boot: str | None = None,
        max_bytes: int = 2**25,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.address = address
        self.spool = Spool(
            folder / f"{address.agent}.sqlite",
            max_bytes=max_bytes,
            max_age_seconds=1e9,
            clock=lambda: self.clock(),
            new_boot=lambda: boot or f"boot-{address.agent}",
        )
        # the waits of a hospital would make the test long; what they guard is the same with short ones
        self.publisher = Publisher(self.spool, link, address, random=lambda: 0.05, resend_seconds=resend_seconds)
        self.made: list[tuple[int, float]] = []
        self._start = int(time.time() * 1000) - 3_600_000

    async def make(self, batches: int) -> None:
        """Put so many batches into the spool."""
        for _ in range(batches):
            first = len(self.made)
            fresh = [(self._start + number, float(number)) for number in range(first, first + POINTS)]
            tags = {"asset": self.address.agent}
            points = [Point("host_uptime", tags, {"uptime_seconds": value}, at) for at, value in fresh]
            await asyncio.to_thread(partial(self.spool.put, points))
            self.made += fresh
            self.publisher.wake()

    async def give_word(self) -> None:
        """Put the agent's own account into the spool, as the runner does every minute."""
        fields = await Waiting(self.spool.state).fields()
        settler = Settler(load(), self.address.agent)
        points = settler.settle((Reading("agent_health", fields),), int(self.clock() * 1000), "the runner").points
        await asyncio.to_thread(partial(self.spool.put, points))
        self.publisher.wake()

    async def drain(self) -> None:
        """Until nothing waits any more."""
        assert await self.publisher.drain(DEADLINE_SECONDS)


def make_ingest(threads: StoreThreads, quarantine: Quarantine) -> Ingest:
    return Ingest(threads.store, threads.write, load(), Owners(), quarantine, pace=Pace(gather_seconds=0.01))


async def follow(broker: Broker, name: str, subscribed: asyncio.Event | None = None) -> AsyncIterator[Delivery]:
    """Deliveries over as many connections as it takes; `subscribed` is set at the first."""
    while True:
        try:
            settings: dict[str, Any] = {"site": "hospital", "share_group": "collectors", "identifier": name}
            async with deliveries(broker, **settings, receive_maximum=20) as subscription:
                if subscribed:
                    subscribed.set()
                async for delivery in subscription:
                    yield delivery
        except LinkError:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """These run until the block ends; none of them may end by an error of its own."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(DEADLINE_SECONDS):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each for each in outcomes if isinstance(each, Exception)] == []
