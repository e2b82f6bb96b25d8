"""What the network, the broker's certificate and a day of silence do to the line: every point is in the store once."""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from influxstore import KeptInInfluxDB
from line import DEADLINE_SECONDS, POINTS, Agent, Kept, KeptInDuckDB, assert_kept_once, follow, make_ingest, running
from proxy import Proxy, random_cuts
from servers import until_async
from shipped_broker import SITE, ShippedBroker
from unprivileged import open_folder

from agent.errors import LinkError
from agent.language import speaking
from agent.link import Delivery
from agent.mqtt import Broker, MqttLink, connect, deliveries
from agent.wire import Address
from collector.ingest import Ingest
from collector.quarantine import Quarantine
from collector.server import StoreThreads

ADDRESS = Address(SITE, "his-db-1")


@dataclass
class Hospital:
    """The shipped broker with both users, and a collector's parts around a store."""

    broker: ShippedBroker
    folder: Path
    kept: Kept
    threads: StoreThreads
    ingest: Ingest
    agent_s: Broker
    collector_s: Broker

    def agent(self, port: int | None = None, **settings: float) -> Agent:
        """An agent that reaches the broker by `port`, or at its own."""
        return Agent(self.folder, MqttLink(through(self.agent_s, port), ADDRESS), ADDRESS, **settings)  # type: ignore[arg-type]

    @asynccontextmanager
    async def collecting(self, port: int | None = None) -> AsyncIterator[None]:
        """The collector takes what comes."""
        subscribed = asyncio.Event()
        async with running(self.ingest.run(self._note(follow(through(self.collector_s, port), "c", subscribed, SITE)))):
            await until_async(subscribed.is_set)
            yield

    async def _note(self, deliveries: AsyncIterator[Delivery]) -> AsyncIterator[Delivery]:
        async for delivery in deliveries:
            self.arrived.append(delivery.seq)
            yield delivery

    def __post_init__(self) -> None:
        self.arrived: list[int] = []

    def assert_kept_once(self, agent: Agent) -> None:
        assert self.ingest.counts().set_aside == {}
        assert_kept_once(self.threads, self.kept, agent)


def through(broker: Broker, port: int | None) -> Broker:
    """The broker as it is; or by another port, where something breaks, with the shortest keepalive: it is given up soon."""
    if port is None:
        return broker
    return msgspec.structs.replace(broker, port=port, keepalive_seconds=5, connect_timeout_seconds=5.0)


@pytest.fixture(params=[KeptInDuckDB, KeptInInfluxDB])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with request.param(tmp_path) as kept:
        yield kept


@pytest.fixture
def hospital(kept: Kept, tmp_path: Path) -> Iterator[Hospital]:
    with (
        open_folder() as folder,
        ShippedBroker(folder) as broker,
        kept.open() as store,
        Quarantine(tmp_path / "quarantine.sqlite") as quarantine,
    ):
        users = [broker.add_user(name, f"password of {name}") for name in ("/".join(ADDRESS), "collector")]
        broker.reload()
        threads = StoreThreads(store)
        yield Hospital(broker, tmp_path, kept, threads, make_ingest(threads, quarantine), *users)
        threads.close()


async def drained(agent: Agent) -> None:
    assert await agent.publisher.drain(DEADLINE_SECONDS)


async def test_broker_that_is_cut_off_and_back_costs_nothing(hospital: Hospital) -> None:
    with Proxy(hospital.broker.port) as agent_s, Proxy(hospital.broker.port) as collector_s:
        agent = hospital.agent(agent_s.port)
        async with hospital.collecting(collector_s.port), running(agent.publisher.run()):
            for proxies in ((agent_s,), (collector_s,), (agent_s, collector_s)):
                making = asyncio.create_task(agent.make(60))
                before = hospital.ingest.counts().batches
                await until_async(lambda: hospital.ingest.counts().batches >= before + 20)  # noqa: B023
                for proxy in proxies:
                    proxy.cut()
                await making
                await agent.make(20)
                assert agent.spool.state().batches >= 20
                for proxy in proxies:
                    proxy.mend()
                await drained(agent)
    assert hospital.ingest.counts().batches == 240
    hospital.assert_kept_once(agent)


async def test_network_that_falls_silent_costs_nothing(hospital: Hospital) -> None:
    """No reset and no end: neither side hears that the other is gone."""
    with Proxy(hospital.broker.port) as proxy:
        agent = hospital.agent(proxy.port)
        async with hospital.collecting(), running(agent.publisher.run()):
            await agent.make(20)
            await drained(agent)
            proxy.freeze()
            await agent.make(20)
            await until_async(lambda: proxy.accepted >= 2)  # it gave the silent connection up and dials
            assert hospital.ingest.counts().batches == 20
            proxy.mend()
            proxy.break_all()
            await drained(agent)
    hospital.assert_kept_once(agent)


async def test_collector_whose_connection_is_half_open_finds_out_and_comes_back(hospital: Hospital) -> None:
    """It only listens, so nothing but its own keepalive tells it that nobody is there any more."""
    with Proxy(hospital.broker.port) as proxy:
        agent = hospital.agent()
        async with hospital.collecting(proxy.port), running(agent.publisher.run()):
            await agent.make(20)
            await drained(agent)
            proxy.forget_all()
            await agent.make(20)
            await drained(agent)
            assert proxy.accepted >= 2
    hospital.assert_kept_once(agent)


async def test_slow_and_lossy_link_costs_nothing(hospital: Hospital) -> None:
    slow = Proxy(hospital.broker.port, delay_seconds=0.01, cut_after=random_cuts(seed=7, least=4_000, most=40_000))
    also = Proxy(hospital.broker.port, delay_seconds=0.01, cut_after=random_cuts(seed=11, least=8_000, most=80_000))
    with slow, also:
        # sent again too soon, on a busy machine, what has no receipt yet would use up what each connection carries
        agent = hospital.agent(slow.port, resend_seconds=3.0)
        async with hospital.collecting(also.port), running(agent.publisher.run()):
            await agent.make(150)
            await drained(agent)
        assert slow.cuts >= 3
        assert also.cuts >= 1
    hospital.assert_kept_once(agent)


async def test_batches_that_come_twice_and_out_of_order_are_kept_once(hospital: Hospital) -> None:
    agent = hospital.agent()
    await agent.make(60)
    batches = agent.spool.take(60, live_since=2**62, in_flight=()) * 2
    random.Random(5).shuffle(batches)
    assert [batch.seq for batch in batches] != sorted(batch.seq for batch in batches)

    async def settle(session) -> None:  # type: ignore[no-untyped-def]
        async for receipt in session.receipts():
            agent.spool.settle(receipt)

    async with (
        hospital.collecting(),
        MqttLink(hospital.agent_s, ADDRESS).session() as session,
        running(settle(session)),
    ):
        for batch in batches:
            await session.send(batch.payload(int(time.time() * 1000)), batch.boot, batch.seq, batch.points)
        await until_async(lambda: agent.spool.state().batches == 0)
        await until_async(lambda: hospital.ingest.counts().duplicates == 60)
    assert hospital.ingest.counts().batches == 60
    hospital.assert_kept_once(agent)


async def test_queue_that_overflows_at_the_broker_costs_nothing(hospital: Hospital) -> None:
    """A collector that takes nothing for a while; what the broker has no room for is dropped there and sent again."""
    agent = hospital.agent()
    await agent.make(1200)
    stalled = deliveries(hospital.collector_s, site=SITE, share_group="one", identifier="c", receive_maximum=20)
    async with stalled as arriving:
        async with MqttLink(hospital.agent_s, ADDRESS).session() as session:
            for batch in agent.spool.take(1200, live_since=2**62, in_flight=()):
                await session.send(batch.payload(agent.spool.sent_at(batch)), batch.boot, batch.seq, batch.points)
        assert hospital.broker.said("Outgoing messages are being dropped for client collector") > 0
        async with running(hospital.ingest.run(arriving), agent.publisher.run()):
            await drained(agent)
    hospital.assert_kept_once(agent)


def serial(port: int) -> str:
    """The certificate that the broker shows to who comes now."""
    return ssl.get_server_certificate(("127.0.0.1", port))


async def test_certificate_is_renewed_while_everything_runs(hospital: Hospital) -> None:
    broker = hospital.broker
    agent = hospital.agent()
    async with hospital.collecting(), running(agent.publisher.run()):
        await agent.make(20)
        await drained(agent)
        before = serial(broker.port)
        connections = broker.said("New client connected")
        broker.renew_certificate()
        broker.reload()
        assert serial(broker.port) != before
        await agent.make(20)
        await drained(agent)
        assert broker.said("New client connected") == connections, "nobody had to come back"
        broker.restart()
        await agent.make(20)
        await drained(agent)
    hospital.assert_kept_once(agent)


async def test_expired_certificate_is_said_and_a_new_one_mends_it(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    agent = hospital.agent()
    with speaking("en"):
        async with hospital.collecting():
            hospital.broker.renew_certificate("-days", "-1")
            hospital.broker.reload()
            with pytest.raises(LinkError, match="its certificate is not valid now; check it and this clock"):
                async with connect(hospital.agent_s, identifier="probe"):
                    pass
            async with running(agent.publisher.run()):
                await agent.make(20)
                await until_async(lambda: "its certificate is not valid now" in caplog.text)
                assert agent.spool.state().batches == 20
                hospital.broker.renew_certificate()
                hospital.broker.reload()
                await drained(agent)
    hospital.assert_kept_once(agent)


DAY = 1440
"""The batches of a day at one a minute."""
LIVE_SECONDS = 0.2
"""Between two live batches; an agent makes one a second at most."""
IN_FLIGHT = 20


async def test_day_s_backlog_drains_five_times_as_fast_as_live_data_comes_and_holds_none_of_it_up(
    hospital: Hospital,
) -> None:
    agent = hospital.agent(resend_seconds=60.0)
    await agent.make(DAY)
    arrived_before: dict[int, int] = {}
    """Live batch -> how many batches had arrived when it was made."""

    async def live() -> None:
        while len(hospital.arrived) < DAY:
            await agent.make(1)
            arrived_before[len(agent.made) // POINTS - 1] = len(hospital.arrived)
            await asyncio.sleep(LIVE_SECONDS)  # the pace of what is measured, not a wait for something

    async with hospital.collecting(), running(agent.publisher.run()):
        await until_async(lambda: len(hospital.arrived) > IN_FLIGHT)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await live()
        backlog = [seq for seq in hospital.arrived if seq < DAY]
        await drained(agent)
    assert len(arrived_before) >= 3
    assert len(backlog) >= 5 * len(arrived_before)
    overtook = {seq: hospital.arrived.index(seq) - count for seq, count in arrived_before.items()}
    assert max(overtook.values()) <= 2 * IN_FLIGHT, overtook
    assert backlog == sorted(backlog), "the oldest first, and nothing twice"
    hospital.assert_kept_once(agent)
