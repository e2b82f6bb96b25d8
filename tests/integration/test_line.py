"""The whole line with real parts: spool, publisher, link, ingest, DuckDB. Points are counted straight from the file."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from line import DEADLINE_SECONDS, POINTS, Agent, KeptInDuckDB, assert_kept_once, follow, make_ingest, running
from servers import Mosquitto, until_async

from agent.inprocess import InProcessLink
from agent.mqtt import Broker, MqttLink
from agent.wire import Address
from collector.quarantine import Quarantine
from collector.server import StoreThreads

ADDRESS = Address("hospital", "srv-1")
BATCHES = 300


@pytest.fixture
def kept(tmp_path: Path) -> KeptInDuckDB:
    return KeptInDuckDB(tmp_path)


@pytest.fixture
def threads(kept: KeptInDuckDB) -> Iterator[StoreThreads]:
    with kept.open() as store:
        opened = StoreThreads(store)
        yield opened
        opened.close()


async def test_a_broker_killed_and_robbed_of_its_memory_costs_no_point(
    mosquitto: Mosquitto, threads: StoreThreads, kept: KeptInDuckDB, quarantine: Quarantine, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    agent, ingest = Agent(tmp_path, MqttLink(broker, ADDRESS), ADDRESS), make_ingest(threads, quarantine)
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
    assert_kept_once(threads, kept, agent)


async def test_two_collectors_on_one_subscription_get_each_batch_once(
    mosquitto: Mosquitto, threads: StoreThreads, kept: KeptInDuckDB, quarantine: Quarantine, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    addresses = [Address("hospital", f"srv-{number}") for number in range(1, 4)]
    agents = [Agent(tmp_path, MqttLink(broker, address), address, resend_seconds=120.0) for address in addresses]
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
    assert_kept_once(threads, kept, *agents)


async def test_one_of_two_collectors_may_end_in_the_middle(
    mosquitto: Mosquitto, threads: StoreThreads, kept: KeptInDuckDB, quarantine: Quarantine, tmp_path: Path
) -> None:
    broker = Broker("127.0.0.1", port=mosquitto.port)
    agent = Agent(tmp_path, MqttLink(broker, ADDRESS), ADDRESS)
    staying, leaving = make_ingest(threads, quarantine), make_ingest(threads, quarantine)
    subscribed = asyncio.Event()
    async with running(staying.run(follow(broker, "staying")), agent.publisher.run()):
        async with running(leaving.run(follow(broker, "leaving", subscribed))):
            await subscribed.wait()  # else the other might have everything before this one is there
            making = asyncio.create_task(agent.make(BATCHES))
            await until_async(lambda: leaving.counts().batches >= 10, DEADLINE_SECONDS)
        await making
        assert await agent.publisher.drain(DEADLINE_SECONDS)
    # what it was just writing when it ended is stored and not in its counts: that came to the other again
    counted = leaving.counts().batches + staying.counts().batches
    assert BATCHES - staying.counts().duplicates <= counted <= BATCHES
    assert_kept_once(threads, kept, agent)


async def test_inside_one_process_a_collector_may_end_in_the_middle_and_start_again(
    threads: StoreThreads, kept: KeptInDuckDB, quarantine: Quarantine, tmp_path: Path
) -> None:
    link = InProcessLink(ADDRESS, capacity=8)
    agent = Agent(tmp_path, link, ADDRESS)
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
    assert_kept_once(threads, kept, agent)
