"""The publisher ends when it is told to, at whatever moment that is: at every turn of the event loop in and around a session."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from servers import READY_SECONDS, Mosquitto, tcp_server

from agent.broker import Broker
from agent.errors import LinkError
from agent.link import Link, Session
from agent.mqtt import MqttLink, deliveries
from agent.points import Point
from agent.publish import ASK_AGAIN_SECONDS, Publisher
from agent.spool import Spool
from agent.wire import Address, Receipt

ADDRESS = Address("hospital-a", "his-db-1")
MOMENTS = 250
TURNS = 700
"""Of the event loop; dialling, the session's beginning and its first batches lie within."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-a")
    put(opened, 1)
    yield opened
    opened.close()


def put(spool: Spool, number: int) -> None:
    spool.put([Point("host_uptime", {"asset": "his-db-1"}, {"uptime_seconds": float(number)}, 1_760_000_000_000)])


async def end_after(turns: int, sender: Publisher) -> bool:
    """Cancel the publisher after so many turns of the loop; whether it was connected then. Fails when it does not end."""
    running = asyncio.ensure_future(sender.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    was_connected = sender.is_connected
    running.cancel()
    await asyncio.wait({running}, timeout=READY_SECONDS)
    assert running.cancelled(), f"not ended after {turns} turns: {running}"
    return was_connected


async def count_turns(spool: Spool, port: int) -> int:
    """How many turns of the loop it takes here and now until the publisher is connected."""
    sender = Publisher(spool, MqttLink(Broker("127.0.0.1", port=port), ADDRESS), ADDRESS, random=lambda: 0.0)
    running, turns = asyncio.ensure_future(sender.run()), 0
    async with asyncio.timeout(READY_SECONDS):
        while not sender.is_connected:
            await asyncio.sleep(0)
            turns += 1
    running.cancel()
    await asyncio.wait({running})
    return turns


async def end_at_many_moments(spool: Spool, port: int, turns: int = TURNS) -> set[bool]:
    """In what states it was ended."""
    chance = random.Random(port)
    link = MqttLink(Broker("127.0.0.1", port=port), ADDRESS)
    found = set()
    for moment in range(MOMENTS):
        put(spool, moment)
        sender = Publisher(spool, link, ADDRESS, random=lambda: 0.0)
        found.add(await end_after(chance.randrange(turns), sender))
    return found


@asynccontextmanager
async def collector(port: int) -> AsyncIterator[None]:
    """Receipts whatever comes."""

    async def collect() -> None:
        async for delivery in arriving:
            await delivery.reply(Receipt(delivery.boot, [(delivery.seq, delivery.seq)], []))
            await delivery.acknowledge()

    way = Broker("127.0.0.1", port=port)
    async with deliveries(way, site=None, share_group="c", identifier="c", receive_maximum=50) as arriving:
        task = asyncio.ensure_future(collect())
        yield
        task.cancel()
        await asyncio.wait({task})


async def test_publisher_ends_at_any_moment_of_a_session(spool: Spool, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as mosquitto:
        async with collector(mosquitto.port):
            turns = max(TURNS, 2 * await count_turns(spool, mosquitto.port))
            assert await end_at_many_moments(spool, mosquitto.port, turns) == {True, False}


async def tell_takeover(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A broker that takes everybody in and ends the session with MQTT 5's word for a takeover."""
    try:
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
        await reader.read(1000)
        writer.write(b"\xe0\x01\x8e")  # DISCONNECT: session taken over
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_publisher_ends_at_any_moment_while_its_sessions_are_taken_over(spool: Spool) -> None:
    async with tcp_server(tell_takeover) as port:
        assert await end_at_many_moments(spool, port) == {False}


class Breaking:
    """A link, faked: its session breaks once `is_over` is set, and takes its time to say so."""

    def __init__(self) -> None:
        self.is_over, self.breaks = asyncio.Event(), 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        yield self

    async def send(self, payload: bytes, boot: str, seq: int, points: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # the other task of the session is not over at once
            raise

    async def receipts(self) -> AsyncIterator[Receipt]:
        await self.is_over.wait()
        self.breaks += 1
        raise LinkError("the connection was closed")
        yield Receipt("", [], [])


@pytest.mark.parametrize("turns", range(12))
async def test_publisher_ends_when_it_is_told_to_while_a_session_breaks(spool: Spool, turns: int) -> None:
    """A TaskGroup that is ending for a child's error forgets the cancellation that comes meanwhile (Python 3.11)."""
    link = Breaking()
    kept: Link = link
    sender = Publisher(spool, kept, ADDRESS, random=lambda: 0.0)
    running = asyncio.ensure_future(sender.run())
    while not sender.is_connected:
        await asyncio.sleep(0)
    link.is_over.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=READY_SECONDS)
    assert running.cancelled()


class Deaf:
    """A link, faked: its session does not hear the first time that it is told to end."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        raise AssertionError
        yield


async def test_session_that_loses_its_cancellation_is_asked_again(spool: Spool) -> None:
    assert ASK_AGAIN_SECONDS < READY_SECONDS
    assert await end_after(20, Publisher(spool, Deaf(), ADDRESS)) is False
