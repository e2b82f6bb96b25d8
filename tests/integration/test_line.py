"""The whole line with real parts: spool, publisher, link, ingest, DuckDB. Points are counted straight from the file."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from influxstore import config_of
from servers import Influx, Mosquitto, until_async

from agent.catalogue import load
from agent.errors import LinkError
from agent.inprocess import InProcessLink
from agent.link import Delivery, Link
from agent.mqtt import Broker, MqttLink, deliveries
from agent.points import Point
from agent.publish import Publisher
from agent.spool import Spool
from agent.wire import Address
from collector.ingest import Ingest, Pace
from collector.quarantine import Quarantine
from collector.register import Owners
from collector.server import StoreThreads
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB
from collector.stores.influxdb import Store as InfluxDB

ADDRESS = Address("hospital", "srv-1")
BATCHES = 300
POINTS = 10
DEADLINE_SECONDS = 60.0


class Agent:
    """A spool and a publisher over `link`; makes batches of points that can be told apart."""

    def __init__(self, folder: Path, link: Link, address: Address = ADDRESS, resend_seconds: float = 0.5) -> None:
        self.address = address
        self.spool = Spool(
            folder / f"{address.agent}.sqlite",
            max_bytes=2**25,
            max_age_seconds=1e9,
            new_boot=lambda: f"boot-{address.agent}",
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


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    settings = f"allow_anonymous true\npersistence true\npersistence_location {folder}/\nautosave_interval 1"
    with Mosquitto(folder, settings) as daemon:
        yield daemon


@pytest.fixture
def threads(tmp_path: Path) -> Iterator[StoreThreads]:
    with DuckDB(Config(path=str(tmp_path / "store.duckdb")), load()) as store:
        opened = StoreThreads(store)
        yield opened
        opened.close()


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    with Quarantine(tmp_path / "quarantine.sqlite") as opened:
        yield opened


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


def assert_stored_once(threads: StoreThreads, folder: Path, *agents: Agent) -> None:
    """Every point that was made is one row, and every batch one row without holes."""
    holes = {totals.agent: list(totals.holes) for totals in threads.store.totals()}
    owners = dict(threads.store.owners("hospital"))
    threads.store.__exit__()
    with duckdb.connect(str(folder / "store.duckdb"), read_only=True) as file:
        for agent in agents:
            name = agent.address.agent
            points = file.execute(
                "SELECT p.time, p.uptime_seconds FROM points.host_uptime p JOIN series s ON s.id = p.series"
                " WHERE s.site = 'hospital' AND s.agent = ? AND s.asset = ? ORDER BY ALL",
                [name, name],
            ).fetchall()
            batches = file.execute("SELECT seq, points FROM batch WHERE agent = ? ORDER BY seq", [name]).fetchall()
            assert points == agent.made, f"{len(points)} rows of {len(agent.made)} points"
            assert batches == [(seq, POINTS) for seq in range(len(agent.made) // POINTS)]
            assert holes[name] == []
            assert owners[name] == name


async def test_a_broker_killed_and_robbed_of_its_memory_costs_no_point(
    mosquitto: Mosquitto, threads: StoreThreads, quarantine: Quarantine, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    agent, ingest = Agent(tmp_path, MqttLink(broker, ADDRESS)), make_ingest(threads, quarantine)
    async with running(ingest.run(follow(broker, "collector-1")), agent.publisher.run()):
        for part in range(1, 4):
            making = asyncio.create_task(agent.make(BATCHES // 2))
            enough = (part - 1) * BATCHES + 20
            await until_async(lambda: ingest.counts().batches >= enough, DEADLINE_SECONDS)  # noqa: B023
            mosquitto.kill()
            for memory in mosquitto.folder.glob("*.db*"):
                memory.unlink()
            await making
            await agent.make(BATCHES // 2)
            assert agent.spool.state().batches >= BATCHES // 2
            await asyncio.to_thread(mosquitto.start)
            assert await agent.publisher.drain(DEADLINE_SECONDS)
    assert ingest.counts().batches == 3 * BATCHES
    assert ingest.counts().set_aside == {}
    state = agent.spool.state()
    assert (state.applied_batches, state.applied_points) == (3 * BATCHES, 3 * BATCHES * POINTS)
    assert_stored_once(threads, tmp_path, agent)


async def test_two_collectors_on_one_subscription_get_each_batch_once(
    mosquitto: Mosquitto, threads: StoreThreads, quarantine: Quarantine, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    addresses = [Address("hospital", f"srv-{number}") for number in range(1, 4)]
    agents = [Agent(tmp_path, MqttLink(broker, address), address, resend_seconds=30.0) for address in addresses]
    ingests = [make_ingest(threads, quarantine) for _ in range(2)]
    subscribed = [asyncio.Event() for _ in ingests]
    followed = [follow(broker, f"collector-{number}", event) for number, event in enumerate(subscribed)]
    async with running(*(ingest.run(each) for ingest, each in zip(ingests, followed, strict=True))):
        await until_async(lambda: all(event.is_set() for event in subscribed))
        async with running(*(agent.publisher.run() for agent in agents)):
            await asyncio.gather(*(agent.make(100) for agent in agents))
            drained = await asyncio.gather(*(agent.publisher.drain(DEADLINE_SECONDS) for agent in agents))
    assert drained == [True, True, True]
    counts = [ingest.counts() for ingest in ingests]
    assert sum(each.batches for each in counts) == 300
    assert sum(each.duplicates for each in counts) == 0
    assert min(each.batches for each in counts) > 50, "both had their share"
    assert_stored_once(threads, tmp_path, *agents)


async def test_one_of_two_collectors_may_end_in_the_middle(
    mosquitto: Mosquitto, threads: StoreThreads, quarantine: Quarantine, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    agent = Agent(tmp_path, MqttLink(broker, ADDRESS))
    staying, leaving = make_ingest(threads, quarantine), make_ingest(threads, quarantine)
    async with running(staying.run(follow(broker, "staying")), agent.publisher.run()):
        async with running(leaving.run(follow(broker, "leaving"))):
            making = asyncio.create_task(agent.make(BATCHES))
            await until_async(lambda: leaving.counts().batches >= 10, DEADLINE_SECONDS)
        await making
        assert await agent.publisher.drain(DEADLINE_SECONDS)
    assert leaving.counts().batches + staying.counts().batches == BATCHES
    assert_stored_once(threads, tmp_path, agent)


async def test_inside_one_process_a_collector_may_end_in_the_middle_and_start_again(
    threads: StoreThreads, quarantine: Quarantine, tmp_path: Path
) -> None:
    link = InProcessLink(ADDRESS, capacity=8)
    agent = Agent(tmp_path, link)
    first, second = make_ingest(threads, quarantine), make_ingest(threads, quarantine)
    async with running(agent.publisher.run()):
        async with running(first.run(link.deliveries())):
            making = asyncio.create_task(agent.make(BATCHES // 2))
            await until_async(lambda: first.counts().batches >= 20, DEADLINE_SECONDS)
        await making
        await agent.make(BATCHES // 2)
        async with running(second.run(link.deliveries())):
            assert await agent.publisher.drain(DEADLINE_SECONDS)
    assert 0 < second.counts().batches < BATCHES
    assert_stored_once(threads, tmp_path, agent)


@contextmanager
def influx_collector(influx: Influx, folder: Path, name: str) -> Iterator[Ingest]:
    """A collector with a store and a quarantine of its own over the shared database."""
    with (
        InfluxDB(config_of(influx, "hospital", timeout_seconds=5), load()) as store,
        Quarantine(folder / f"{name}.quarantine") as quarantine,
        closing(StoreThreads(store)) as threads,
    ):
        pace = Pace(gather_seconds=0.01, first_wait_seconds=0.05, longest_wait_seconds=0.2)
        yield Ingest(store, threads.write, load(), Owners(), quarantine, pace=pace)


async def test_two_collectors_share_an_influxdb_that_is_killed_in_the_middle_and_no_point_is_lost_or_twice(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    agents = [
        Agent(tmp_path, MqttLink(broker, address), address)
        for address in (Address("hospital", f"srv-{number}") for number in range(1, 4))
    ]
    with (
        Influx(tmp_path / "influx") as influx,
        influx_collector(influx, tmp_path, "one") as one,
        influx_collector(influx, tmp_path, "other") as other,
    ):
        influx.ask("CREATE DATABASE hospital")
        both = [one.run(follow(broker, "one")), other.run(follow(broker, "other"))]
        async with running(*both, *(agent.publisher.run() for agent in agents)):
            for part in range(1, 4):
                making = [asyncio.create_task(agent.make(60)) for agent in agents]
                enough = (part - 1) * 180 + 20
                await until_async(lambda: one.counts().batches + other.counts().batches >= enough, DEADLINE_SECONDS)  # noqa: B023
                await asyncio.to_thread(influx.restart)
                if part == 2:
                    await asyncio.to_thread(mosquitto.restart)
                await asyncio.gather(*making)
                assert all(await asyncio.gather(*(agent.publisher.drain(DEADLINE_SECONDS) for agent in agents)))
        assert min(one.counts().batches, other.counts().batches) > 20, "both had their share"
        assert one.counts().set_aside == other.counts().set_aside == {}
        with InfluxDB(config_of(influx, "hospital"), load()) as store:
            found = {
                rows.tags["agent"]: [(time, float(value)) for time, value in rows.values]
                for rows in store._open.ask(['SELECT "uptime_seconds" FROM "host_uptime" GROUP BY "agent"'])
            }
            assert found == {agent.address.agent: agent.made for agent in agents}
            assert [(total.batches, total.points, list(total.holes)) for total in store.totals()] == [
                (180, 1800, [])
            ] * 3
            assert store.owners("hospital") == {agent.address.agent: agent.address.agent for agent in agents}
