"""The whole line for tests: an agent that makes points which can be told apart, a collector, and what the store kept of it.

The store is a parameter: a `Kept` says how to open it and counts what lies in it straight from its own files.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import duckdb

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
from collector.stores import Store
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

POINTS = 10
"""In every batch."""
DEADLINE_SECONDS = 120.0


class Row(NamedTuple):
    """One point as it is stored: its time in milliseconds and its value, which is unique."""

    time: int
    value: float


class Kept(Protocol):
    """A store under test, in a folder of its own; its server runs within the `with` block."""

    section: str
    """Its section of a collector.yaml."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    def open(self) -> AbstractContextManager[Store]:
        """For a collector inside the test."""

    def rows(self, address: Address) -> list[Row]:
        """Every row of host_uptime that an agent's points became, ordered. Nobody has the store open."""

    def batches(self, address: Address) -> list[tuple[str, int, int]]:
        """Every row of a batch: boot, seq, points; ordered. Nobody has the store open."""


class KeptInDuckDB:
    """The embedded store."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.duckdb"
        self.section = f"{{kind: duckdb, path: {self._path}}}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """A file needs no end."""

    def open(self) -> AbstractContextManager[Store]:
        return DuckDB(Config(path=str(self._path)), load())

    def rows(self, address: Address) -> list[Row]:
        query = (
            "SELECT p.time, p.uptime_seconds FROM points.host_uptime p JOIN series s ON s.id = p.series"
            " WHERE s.site = ? AND s.agent = ? ORDER BY ALL"
        )
        return [Row(*row) for row in self._ask(query, address)]

    def batches(self, address: Address) -> list[tuple[str, int, int]]:
        return self._ask("SELECT boot, seq, points FROM batch WHERE site = ? AND agent = ? ORDER BY ALL", address)

    def _ask(self, query: str, address: Address) -> list[Any]:
        with duckdb.connect(str(self._path), read_only=True) as file:
            return file.execute(query, list(address)).fetchall()


class Agent:
    """A spool and a publisher over `link`; makes batches of points that can be told apart.

    clock: what the agent takes for the time; may be replaced. boot: its name for this start, else always the same one.
    """

    def __init__(
        self,
        folder: Path,
        link: Link,
        address: Address,
        resend_seconds: float = 0.5,
        clock: Callable[[], float] = time.time,
        boot: str | None = None,
        max_bytes: int = 2**25,
    ) -> None:
        self.address, self.clock = address, clock
        self.spool = Spool(
            folder / f"{address.agent}.sqlite",
            max_bytes=max_bytes,
            max_age_seconds=1e9,
            new_boot=lambda: boot or f"boot-{address.agent}",
            clock=lambda: self.clock(),
        )
        # the waits of a hospital would make the test long; what they guard is the same with short ones
        self.publisher = Publisher(self.spool, link, address, random=lambda: 0.05, resend_seconds=resend_seconds)
        self.made: list[Row] = []
        self._start = int(time.time() * 1000) - 3_600_000

    async def make(self, batches: int, start: int | None = None) -> None:
        """Put so many batches into the spool. start: the time of the first of all points, else an hour ago."""
        for _ in range(batches):
            first = len(self.made)
            await self.put([Row((start or self._start) + n, float(n)) for n in range(first, first + POINTS)])

    async def put(self, rows: Sequence[Row]) -> None:
        """One batch of these."""
        tags = {"asset": self.address.agent}
        points = [Point("host_uptime", tags, {"uptime_seconds": row.value}, row.time) for row in rows]
        await asyncio.to_thread(partial(self.spool.put, points))
        self.made += rows
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
    """A collector's ingest that gathers for a moment only."""
    return Ingest(threads.store, threads.write, load(), Owners(), quarantine, pace=Pace(gather_seconds=0.01))


async def follow(
    broker: Broker, name: str, subscribed: asyncio.Event | None = None, site: str = "hospital"
) -> AsyncIterator[Delivery]:
    """Deliveries over as many connections as it takes; `subscribed` is set at the first."""
    while True:
        try:
            settings: dict[str, Any] = {"site": site, "share_group": "collectors", "identifier": name}
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


def assert_kept_once(threads: StoreThreads, kept: Kept, *agents: Agent) -> None:
    """Every point that was made is one row, every batch one row without holes, and the spool's ledger says the same."""
    holes = {totals.agent: list(totals.holes) for totals in threads.store.totals()}
    owners = dict(threads.store.owners(agents[0].address.site))
    threads.store.__exit__()
    for agent in agents:
        name, state = agent.address.agent, agent.spool.state()
        rows = kept.rows(agent.address)
        assert rows == agent.made, f"{len(rows)} rows of {len(agent.made)} points"
        boot = agent.spool.boot
        assert kept.batches(agent.address) == [(boot, seq, POINTS) for seq in range(len(agent.made) // POINTS)]
        assert (state.made_points, state.applied_points, state.batches) == (len(rows), len(rows), 0)
        assert holes[name] == []
        assert owners[name] == name
