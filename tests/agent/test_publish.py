"""The publisher through trouble: a broker that is down at the start, dies in the middle, or swallows everything."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from servers import READY_SECONDS, Mosquitto, following, tcp_server, until_async

from agent.broker import SAY_AGAIN_SECONDS, Secret
from agent.errors import LinkError, NameTaken
from agent.inprocess import InProcessLink
from agent.language import choose
from agent.link import Session
from agent.mqtt import Broker, MqttLink, connect, deliveries
from agent.points import Point
from agent.publish import Publisher, wait_seconds
from agent.spool import Spool
from agent.wire import Address, Receipt

ADDRESS = Address("hospital-a", "his-db-1")
PERSISTENT = "allow_anonymous true\npersistence true\npersistence_location {folder}/\nautosave_interval 3600"


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-a")
    yield opened
    opened.close()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """Not started; it keeps messages on disk as in the usual installation."""
    daemon = Mosquitto(tmp_path / "broker", PERSISTENT.format(folder=tmp_path / "broker" / "db"))
    (tmp_path / "broker" / "db").mkdir()
    yield daemon
    daemon.kill()


def point(number: int) -> Point:
    return Point("host_uptime", {"asset": "his-db-1"}, {"uptime_seconds": float(number)}, 1_760_000_000_000)


@asynccontextmanager
async def in_background(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def publisher(spool: Spool, port: int, **settings: float) -> Publisher:
    link = MqttLink(Broker("127.0.0.1", port=port), ADDRESS)
    return Publisher(spool, link, ADDRESS, random=lambda: 0.01, **settings)  # type: ignore[arg-type]


async def collect(port: int, written: set[int], subscribed: asyncio.Event | None = None) -> None:
    """A collector that writes and receipts, and dials again when the broker goes; sets `subscribed` when it is there."""
    while True:
        try:
            async with deliveries(
                Broker("127.0.0.1", port=port), site=None, share_group="c", identifier="c-1", receive_maximum=50
            ) as arriving:
                if subscribed is not None:
                    subscribed.set()
                async for delivery in arriving:
                    written.add(delivery.seq)
                    await delivery.reply(Receipt(delivery.boot, [(delivery.seq, delivery.seq)], []))
                    await delivery.acknowledge()
        except LinkError:
            await asyncio.sleep(0.01)


def test_waits_grow_to_a_minute_and_are_random() -> None:
    assert [wait_seconds(attempts, 1.0) for attempts in (0, 1, 2, 5, 6, 1000)] == [1, 2, 4, 32, 60, 60]
    assert [wait_seconds(6, chance) for chance in (0.0, 0.25)] == [0, 15]


async def test_broker_that_is_down_at_the_start_is_normal(spool: Spool, mosquitto: Mosquitto) -> None:
    spool.put([point(1)])
    written: set[int] = set()
    # what is published before the collector has subscribed reaches nobody and comes again only after this time
    sender = publisher(spool, mosquitto.port, resend_seconds=0.5)
    async with in_background(sender.run()) as running, in_background(collect(mosquitto.port, written)):
        assert not await sender.drain(0.1)
        assert not running.done()
        assert not sender.is_connected
        await asyncio.to_thread(mosquitto.start)
        assert await sender.drain(READY_SECONDS)
        assert sender.is_connected
    assert written == {0}


async def test_nothing_is_lost_when_the_broker_is_killed_and_forgets_everything(
    spool: Spool, mosquitto: Mosquitto
) -> None:
    await asyncio.to_thread(mosquitto.start)
    written: set[int] = set()
    # what is published before the collector has subscribed reaches nobody and comes again only after this time
    sender = publisher(spool, mosquitto.port, resend_seconds=0.5)
    async with in_background(sender.run()):
        for number in range(40):
            spool.put([point(number)])
            sender.wake()
        await until_async(lambda: sender.is_connected)
        async with in_background(collect(mosquitto.port, written)):
            await until_async(lambda: len(written) >= 10)
            await asyncio.to_thread(mosquitto.kill)
            await until_async(lambda: not sender.is_connected)
            shutil.rmtree(mosquitto.folder / "db")
            (mosquitto.folder / "db").mkdir()
            for number in range(40, 60):
                spool.put([point(number)])
                sender.wake()
            await asyncio.to_thread(mosquitto.start)
            assert await sender.drain(READY_SECONDS)
    assert written == set(range(60))
    state = spool.state()
    assert (state.made_batches, state.applied_batches, state.dropped_batches) == (60, 60, 0)


async def test_broker_acknowledgement_does_not_free_the_spool(spool: Spool, mosquitto: Mosquitto) -> None:
    await asyncio.to_thread(mosquitto.start)
    spool.put([point(1)])
    sender = publisher(spool, mosquitto.port)
    async with connect(Broker("127.0.0.1", port=mosquitto.port), identifier="onlooker") as onlooker:
        await onlooker.subscribe("infravitals/v1/+/+/points")
        async with in_background(sender.run()):
            seen = await following(onlooker.messages())
            assert not await sender.drain(0.1)
    assert seen.properties["seq"] == "0"
    assert spool.state().batches == 1


async def test_what_a_dead_collector_did_not_write_goes_to_another(spool: Spool, mosquitto: Mosquitto) -> None:
    await asyncio.to_thread(mosquitto.start)
    broker = Broker("127.0.0.1", port=mosquitto.port)
    spool.put([point(1)])
    sender = publisher(spool, mosquitto.port, resend_seconds=0.05)
    async with in_background(sender.run()):
        async with deliveries(broker, site=None, share_group="c", identifier="c-1", receive_maximum=5) as dying:
            assert (await following(dying)).seq == 0
        written: set[int] = set()
        async with in_background(collect(mosquitto.port, written)):
            assert await sender.drain(READY_SECONDS)
    assert written == {0}


async def test_trouble_is_told_once_when_it_begins_and_once_when_it_ends(
    spool: Spool, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    spool.put([point(1)])
    dialled: list[float] = []

    def count_attempts() -> float:
        dialled.append(0)
        return 0.01

    link, subscribed = MqttLink(Broker("127.0.0.1", port=mosquitto.port), ADDRESS), asyncio.Event()

    class AfterTheCollector:
        """What is published before the collector has subscribed reaches nobody, and that is told too."""

        @asynccontextmanager
        async def session(self) -> AsyncIterator[Session]:
            if len(dialled) >= 4:
                await subscribed.wait()
            async with link.session() as session:
                yield session

    sender = Publisher(spool, AfterTheCollector(), ADDRESS, random=count_attempts)
    async with in_background(sender.run()), in_background(collect(mosquitto.port, set(), subscribed)):
        await until_async(lambda: len(dialled) >= 4)
        await asyncio.to_thread(mosquitto.start)
        assert await sender.drain(READY_SECONDS)
    assert [record.getMessage() for record in caplog.records if record.name == "agent.publish"] == [
        f"hospital-a/his-db-1: cannot reach the MQTT broker 127.0.0.1:{mosquitto.port}: "
        "connection refused; it is not running or the port is another",
        "hospital-a/his-db-1: receipts are coming again",
    ]


async def test_collector_that_never_answers_is_told(
    spool: Spool, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(mosquitto.start)
    spool.put([point(1)])
    async with in_background(publisher(spool, mosquitto.port, resend_seconds=0.02).run()):
        await until_async(lambda: caplog.records)
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == [
        "hospital-a/his-db-1: no receipt from a collector within 0.02 s; the data stay in the spool and are sent again"
    ]


async def test_spool_in_trouble_is_told_and_does_not_end_the_publisher(
    tmp_path: Path, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.put([point(1)])
    second = Spool(tmp_path / "spool.db", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-b")
    link = InProcessLink(ADDRESS, capacity=4)
    sender = Publisher(second, link, ADDRESS, random=lambda: 0.01)
    async with in_background(sender.run()) as running:
        await until_async(lambda: caplog.records)
        spool.close()
        delivery = await following(link.deliveries())
        assert (delivery.boot, delivery.seq) == ("boot-a", 0)
        assert not running.done()
    second.close()
    assert "is in use by another process" in caplog.text


async def test_bug_in_a_link_is_not_hidden(spool: Spool) -> None:
    class BuggyLink:
        @asynccontextmanager
        async def session(self) -> AsyncIterator[None]:
            raise KeyError("a bug")
            yield

    with pytest.raises(KeyError, match="a bug"):
        await Publisher(spool, BuggyLink(), ADDRESS).run()  # type: ignore[arg-type]


TAKEN = "another agent with the same name is connected; give each agent its own name (`agent` in its configuration)"


async def test_two_agents_of_one_name_say_so_once_and_take_long_turns(
    tmp_path: Path, spool: Spool, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """mosquitto 2.0 ends the session of the first without a reason; the retained state tells who else was there."""
    await asyncio.to_thread(mosquitto.start)
    other = Spool(tmp_path / "other.db", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-b")
    turns = [publisher(kept, mosquitto.port, taken_wait_seconds=2.0, resend_seconds=0.1) for kept in (spool, other)]
    for kept in (spool, other):
        kept.put([point(1)])
    async with (
        in_background(collect(mosquitto.port, set())),
        in_background(turns[0].run()),
        in_background(turns[1].run()),
    ):
        await until_async(lambda: len([record for record in caplog.records if TAKEN in record.getMessage()]) == 2)
        for number in range(3):  # both get their points through, a turn each
            for kept, sender in zip((spool, other), turns, strict=True):
                kept.put([point(number)])
                sender.wake()
                assert await sender.drain(READY_SECONDS)
    said = [record.getMessage() for record in caplog.records if record.name == "agent.publish"]
    assert said.count(f"hospital-a/his-db-1: lost the MQTT broker 127.0.0.1:{mosquitto.port}: {TAKEN}") == 2
    other.close()


async def test_agent_whose_name_is_taken_leaves_the_broker_to_the_other(
    tmp_path: Path, spool: Spool, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(mosquitto.start)
    other = Spool(tmp_path / "other.db", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-b")
    turns = [publisher(kept, mosquitto.port, taken_wait_seconds=3600, resend_seconds=0.1) for kept in (spool, other)]
    async with in_background(turns[0].run()), in_background(turns[1].run()):
        await until_async(lambda: TAKEN in caplog.text)
        await until_async(lambda: sum(sender.is_connected for sender in turns) == 1)
        [winner] = [sender for sender in turns if sender.is_connected]
        kept = spool if winner is turns[0] else other
        async with in_background(collect(mosquitto.port, set())):
            for number in range(20):
                kept.put([point(number)])
                winner.wake()
                assert await winner.drain(READY_SECONDS)
                assert winner.is_connected
    other.close()


async def broker_that_gives_the_reason(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As MQTT 5 asks of a broker, and newer ones than mosquitto 2.0 do: the end of a session with its reason."""
    await reader.read(1000)
    writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
    await reader.read(1000)
    writer.write(b"\xe0\x01\x8e")  # DISCONNECT: session taken over
    await writer.drain()
    writer.close()


async def test_reason_that_the_broker_gives_is_said_at_once(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    async with tcp_server(broker_that_gives_the_reason) as port, in_background(publisher(spool, port).run()):
        await until_async(lambda: caplog.records)
    assert "a doctor, or another agent of the same name" in caplog.text


async def test_name_that_nobody_takes_any_more_is_told(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    inner = InProcessLink(ADDRESS, capacity=4)
    is_first = iter([True, False])

    class TakenOnce:
        @asynccontextmanager
        async def session(self) -> AsyncIterator[Session]:
            if next(is_first):
                raise NameTaken(TAKEN)
            async with inner.session() as session:
                yield session

    sender = Publisher(
        spool, TakenOnce(), ADDRESS, random=lambda: 0.0, monotonic=lambda: now[0], taken_wait_seconds=0.01
    )
    async with in_background(sender.run()):
        for number in range(2):
            spool.put([point(number)])
            sender.wake()
            delivery = await following(inner.deliveries())
            now[0] += number
            await delivery.reply(Receipt(delivery.boot, [(delivery.seq, delivery.seq)], []))
            assert await sender.drain(READY_SECONDS)
    assert [record.getMessage() for record in caplog.records] == [
        f"hospital-a/his-db-1: {TAKEN}",
        "hospital-a/his-db-1: no other agent with this name shows up any more",
    ]


async def test_what_the_collector_set_aside_is_told(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    link = InProcessLink(ADDRESS, capacity=4)
    sender = Publisher(spool, link, ADDRESS, random=lambda: 0.01)
    async with in_background(sender.run()):
        for number in range(2):
            spool.put([point(number)])
            sender.wake()
            delivery = await following(link.deliveries())
            await delivery.reply(Receipt(delivery.boot, [(number, number)], [], {"not_yours": 1}))
            assert await sender.drain(READY_SECONDS)
    [record] = caplog.records
    assert "this agent may not report that asset (not_yours)" in record.getMessage()


async def test_files_that_are_not_there_are_told_at_once_and_every_hour_and_awaited(
    spool: Spool, mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A secret that is mounted late is no reason to end; a word at every try would fill the log."""
    await asyncio.to_thread(mosquitto.start)
    spool.put([point(1)])
    secret, tries = tmp_path / "secret", 0

    def count_tries() -> float:
        nonlocal tries
        tries += 1
        return 0.0

    now = [0.0]
    broker = Broker("127.0.0.1", port=mosquitto.port, password=Secret(file=str(secret)))
    sender = Publisher(
        spool, MqttLink(broker, ADDRESS), ADDRESS, random=count_tries, monotonic=lambda: now[0], resend_seconds=0.1
    )
    said = (
        f"hospital-a/his-db-1: cannot read the password file {secret}: it does not exist; "
        "mend it or change broker.password"
    )
    async with in_background(sender.run()), in_background(collect(mosquitto.port, set())):
        for hours in (1, 2, 3):  # once at the beginning, and then every hour
            until_tries = tries + 20
            await until_async(lambda: tries > until_tries)  # noqa: B023
            assert [one.getMessage() for one in caplog.records if one.name == "agent.publish"] == [said] * hours
            now[0] += SAY_AGAIN_SECONDS
        secret.write_text("any")
        await until_async(lambda: sender.is_connected)
        assert await sender.drain(READY_SECONDS)
