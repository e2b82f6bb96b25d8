"""The contract of a link, for every link: MQTT through a real mosquitto, and the queue inside one process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from servers import READY_SECONDS, Mosquitto, following, until_async

from agent.errors import LinkError
from agent.inprocess import InProcessLink
from agent.link import Delivery, Link
from agent.mqtt import Broker, MqttLink, deliveries
from agent.points import Point
from agent.publish import Publisher
from agent.spool import Spool
from agent.wire import Address, Receipt, decode_batch

ADDRESS = Address("hospital-a", "his-db-1")


@dataclass
class Ends:
    """Both ends of one link. cut: the way between them breaks for good."""

    link: Link
    collect: Callable[[], AbstractAsyncContextManager[AsyncIterator[Delivery]]]
    cut: Callable[[], Awaitable[None]]


@asynccontextmanager
async def over_mqtt(folder: Path) -> AsyncIterator[Ends]:
    with Mosquitto(folder / "broker") as mosquitto:
        broker = Broker("127.0.0.1", port=mosquitto.port)

        @asynccontextmanager
        async def collect() -> AsyncIterator[AsyncIterator[Delivery]]:
            settings = {"site": None, "share_group": "collectors", "identifier": "collector-1"}
            async with deliveries(broker, **settings, receive_maximum=100) as subscription:
                yield aiter(subscription)

        async def cut() -> None:
            mosquitto.kill()

        yield Ends(MqttLink(broker, ADDRESS), collect, cut)


@asynccontextmanager
async def in_process(folder: Path) -> AsyncIterator[Ends]:
    link = InProcessLink(ADDRESS, capacity=4)

    @asynccontextmanager
    async def collect() -> AsyncIterator[AsyncIterator[Delivery]]:
        yield link.deliveries()

    yield Ends(link, collect, link.close)


@pytest.fixture(params=[over_mqtt, in_process], ids=["mqtt", "in-process"])
async def ends(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ends]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-a")
    yield opened
    opened.close()


def point(number: int) -> Point:
    return Point("host_uptime", {"asset": "his-db-1"}, {"uptime_seconds": float(number)}, 1_760_000_000_000)


def receipt_for(delivery: Delivery) -> Receipt:
    return Receipt(delivery.boot, [(delivery.seq, delivery.seq)], [])


async def settle_all(arriving: AsyncIterator[Delivery], seen: list[int]) -> None:
    """A collector that writes everything."""
    async for delivery in arriving:
        seen.append(delivery.seq)
        await delivery.acknowledge()
        await delivery.reply(receipt_for(delivery))


@asynccontextmanager
async def in_background(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def publisher(spool: Spool, link: Link, **settings: float) -> Publisher:
    return Publisher(spool, link, ADDRESS, random=lambda: 0.01, **settings)  # type: ignore[arg-type]


async def test_link_carries_a_batch_with_its_identity(ends: Ends) -> None:
    async with ends.collect() as arriving, ends.link.session() as session:
        await session.send(b'{"metrics":[]}', "boot-a", 17, 120)
        delivery = await following(arriving)
    assert (delivery.address, delivery.payload) == (("hospital-a", "his-db-1"), b'{"metrics":[]}')
    assert (delivery.boot, delivery.seq, delivery.points) == ("boot-a", 17, 120)


async def test_link_brings_the_receipt_back(ends: Ends) -> None:
    async with ends.collect() as arriving, ends.link.session() as session:
        await session.send(b"{}", "boot-a", 17, 1)
        await (await following(arriving)).reply(Receipt("boot-a", [(15, 17)], [(3, 3)]))
        assert await following(session.receipts()) == Receipt("boot-a", [(15, 17)], [(3, 3)])


async def test_link_that_is_cut_raises_in_the_sender(ends: Ends) -> None:
    async with ends.link.session() as session:
        await ends.cut()
        with pytest.raises(LinkError):
            await session.send(b"{}", "boot-a", 0, 1)


async def test_link_that_is_cut_raises_in_who_waits_for_receipts(ends: Ends) -> None:
    async with ends.link.session() as session:
        waiting = asyncio.ensure_future(following(session.receipts()))
        await asyncio.sleep(0)
        await ends.cut()
        with pytest.raises(LinkError):
            await waiting


async def test_link_that_is_cut_cannot_be_dialled(ends: Ends) -> None:
    await ends.cut()
    with pytest.raises(LinkError):
        async with ends.link.session():
            pass


async def test_spool_is_emptied_by_receipts(ends: Ends, spool: Spool) -> None:
    for number in range(50):
        spool.put([point(number)])
    seen: list[int] = []
    sender = publisher(spool, ends.link)
    async with ends.collect() as arriving, in_background(settle_all(arriving, seen)), in_background(sender.run()):
        assert await sender.drain(READY_SECONDS)
    assert sorted(seen) == list(range(50))
    assert spool.state().applied_points == 50


async def test_spool_is_freed_by_receipts_alone(ends: Ends, spool: Spool) -> None:
    for number in range(3):
        spool.put([point(number)])
    async with ends.collect() as arriving, in_background(publisher(spool, ends.link).run()):
        held = [await following(arriving) for _ in range(3)]
        for delivery in held:
            await delivery.acknowledge()
        assert spool.state().batches == 3
        await held[1].reply(receipt_for(held[1]))
        await until_async(lambda: spool.state().batches == 2)
    assert [batch.seq for batch in spool.take(9, live_since=2**62, in_flight=())] == [0, 2]


async def test_batch_without_a_receipt_is_sent_again(ends: Ends, spool: Spool) -> None:
    spool.put([point(1)])
    sender = publisher(spool, ends.link, resend_seconds=0.05)
    async with ends.collect() as arriving, in_background(sender.run()):
        first, second = await following(arriving), await following(arriving)
    assert (first.boot, first.seq) == (second.boot, second.seq) == ("boot-a", 0)
    sent = [decode_batch(delivery.payload).batch for delivery in (first, second)]
    assert sent[0].made_at == sent[1].made_at
    assert sent[0].sent_at < sent[1].sent_at


async def test_live_batches_go_before_the_backlog(ends: Ends, spool: Spool) -> None:
    for number in range(30):
        spool.put([point(number)])
    sender = publisher(spool, ends.link, max_in_flight=2)
    seen: list[int] = []
    async with ends.collect() as arriving, in_background(sender.run()):
        held = [await following(arriving), await following(arriving)]
        spool.put([point(30)])
        sender.wake()
        for delivery in held:
            await delivery.acknowledge()
            await delivery.reply(receipt_for(delivery))
        async with in_background(settle_all(arriving, seen)):
            assert await sender.drain(READY_SECONDS)
    assert [delivery.seq for delivery in held] == [0, 1]
    assert seen == [30, *range(2, 30)]


async def test_no_more_than_the_bound_is_in_flight(ends: Ends, spool: Spool) -> None:
    for number in range(10):
        spool.put([point(number)])
    sender = publisher(spool, ends.link, max_in_flight=3, resend_seconds=0.02)
    async with ends.collect() as arriving, in_background(sender.run()):
        seen = [(await following(arriving)).seq for _ in range(30)]  # the same three again and again
    assert seen[:3] == [0, 1, 2]
    assert set(seen[3:]) == {0, 1, 2}, "on a busy machine one of them may be due again before another"


async def test_drain_gives_up_at_its_deadline_when_no_collector_is_there(ends: Ends, spool: Spool) -> None:
    spool.put([point(1)])
    sender = publisher(spool, ends.link)
    async with in_background(sender.run()):
        assert not await sender.drain(0.05)
    assert spool.state().batches == 1
