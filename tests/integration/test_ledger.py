"""The ledger on the real line: it balances at any moment, and every kind of loss is produced for real and named."""

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import duckdb
import msgspec
import pytest
from line import POINTS, Agent, follow, make_ingest, running
from servers import Mosquitto, following, until_async

from agent.catalogue import load
from agent.mqtt import Broker, MqttLink, connect
from agent.points import Point
from agent.wire import Address, Batch, encode_batch, points_topic
from collector.beside import embedded_place, remember_site
from collector.cli import main
from collector.ingest import Ingest
from collector.ledger import AgentLedger, Ledger, Sums, read_ledger
from collector.quarantine import Quarantine
from collector.server import StoreThreads
from collector.stores import Store
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

ADDRESS = Address("hospital", "srv-1")
DAY_MS = 86_400_000


class Line:
    """A broker, one agent, and a collector that runs while a test wants it; its file is free for tampering between."""

    def __init__(self, mosquitto: Mosquitto, folder: Path) -> None:
        self.mosquitto, self.folder = mosquitto, folder
        self.broker = Broker("127.0.0.1", port=mosquitto.port)
        self.agent = self.new_agent("boot-0")
        self.is_subscribed = asyncio.Event()

    @property
    def store_file(self) -> Path:
        return self.folder / "store.duckdb"

    @property
    def spool_file(self) -> Path:
        return self.folder / f"{ADDRESS.agent}.sqlite"

    def new_agent(self, boot: str, max_bytes: int = 2**25) -> Agent:
        """The agent as after a restart."""
        return Agent(self.folder, MqttLink(self.broker, ADDRESS), ADDRESS, boot=boot, max_bytes=max_bytes)

    def restart_agent(self, boot: str, max_bytes: int = 2**25) -> None:
        self.agent.spool.close()
        self.agent = self.new_agent(boot, max_bytes)

    @asynccontextmanager
    async def collecting(self, *, publishing: bool = True) -> AsyncIterator[tuple[Store, Ingest]]:
        """The collector runs, and the agent's publisher if it is to."""
        self.is_subscribed = asyncio.Event()
        with (
            DuckDB(Config(path=str(self.store_file)), load()) as store,
            Quarantine(self.folder / "quarantine.sqlite") as quarantine,
        ):
            threads = StoreThreads(store)
            ingest = make_ingest(threads, quarantine)
            try:
                followed = follow(self.broker, "collector", self.is_subscribed)
                sending = [self.agent.publisher.run()] if publishing else []
                async with running(ingest.run(followed)):
                    await self.is_subscribed.wait()  # what is sent before reaches nobody and comes again after 30 s
                    async with running(*sending):
                        yield store, ingest
            finally:
                threads.close()

    async def deliver(self, batches: int) -> None:
        """Make so many batches and bring them and the agent's word of them into the store."""
        async with self.collecting():
            await self.agent.make(batches)
            await self.agent.drain()
            await self.agent.give_word()
            await self.agent.drain()

    async def send_newest(self, payload: bytes | None = None, *, is_settled: bool = True) -> None:
        """The newest batch alone over the real link, as it is or damaged; its receipt reaches the spool or does not."""
        spool = self.agent.spool
        (batch,) = await asyncio.to_thread(partial(spool.take, 1, live_since=0, in_flight=()))
        await self.is_subscribed.wait()
        async with MqttLink(self.broker, ADDRESS).session() as session:
            sent = payload or batch.payload(int(time.time() * 1000))
            await session.send(sent, batch.boot, batch.seq, batch.points)
            receipt = await following(session.receipts())
        if is_settled:
            assert await asyncio.to_thread(spool.settle, receipt) == [batch.made_at]

    def ledger(self, now: int | None = None) -> Ledger:
        with DuckDB(Config(path=str(self.store_file)), load()) as store:
            return read(store, now)

    def account(self, now: int | None = None) -> AgentLedger:
        (account,) = self.ledger(now).agents
        return account

    def tamper(self, sql: str) -> None:
        """What an administrator does to the store's file."""
        with duckdb.connect(str(self.store_file)) as file:
            file.execute(sql)


def read(store: Store, now: int | None = None) -> Ledger:
    return read_ledger(store, load(), "hospital", now or int(time.time() * 1000))


def codes(account: AgentLedger) -> list[str]:
    return [finding.code for finding in account.findings]


@pytest.fixture
def line(mosquitto: Mosquitto, tmp_path: Path) -> Line:
    return Line(mosquitto, tmp_path)


async def test_ledger_balances_at_any_moment_while_the_broker_dies_and_the_spool_overflows(line: Line) -> None:
    line.restart_agent("boot-1", max_bytes=2**20)
    seen: list[Sums] = []

    def look(store: Store) -> None:
        for account in read(store).agents:
            assert account.state != "unbalanced", account
            for sums in (account.batches, account.points):
                if sums is not None:
                    assert sums.difference == 0 and min(msgspec.structs.astuple(sums)) >= 0, account
                    assert sums.made == sums.applied + sums.set_aside + sums.dropped + sums.waiting
            seen.extend([account.batches] if account.batches else [])

    async with line.collecting() as (store, ingest):
        for part in range(3):
            making = asyncio.create_task(make_with_words(line.agent, 60))
            enough = ingest.counts().batches + 15
            await until_async(lambda: ingest.counts().batches >= enough or look(store))  # noqa: B023
            line.mosquitto.kill()
            await making
            await line.agent.make(40)
            heavy = [Point("host_uptime", {"asset": "srv-1"}, {"uptime_seconds": 1.0}, n) for n in range(2_000)]
            for _ in range(part * 12):
                await asyncio.to_thread(partial(line.agent.spool.put, heavy))
            look(store)
            await asyncio.to_thread(line.mosquitto.start)
            await line.agent.give_word()
            await until_async(lambda: look(store) or line.agent.spool.state().batches == 0, 60)
        await line.agent.give_word()
        await line.agent.drain()
        look(store)
    state, account = line.agent.spool.state(), line.account()
    assert account.state == "balanced" and account.findings == ()
    assert account.batches is not None and account.points is not None
    with duckdb.connect(str(line.store_file), read_only=True) as file:
        announced = "EXISTS (FROM gone WHERE gone.boot = batch.boot AND seq BETWEEN first AND last)"
        (rows, came_all_the_same) = file.execute(
            f"SELECT count(*), count(*) FILTER ({announced}) FROM batch"
        ).fetchall()[0]
    assert account.batches.applied + account.batches.set_aside == rows - POINTS_OF_A_WORD
    assert account.batches.dropped == state.dropped_batches - came_all_the_same > 5
    assert account.points.set_aside > 1000, "points of the year 1970 are set aside one by one"
    assert account.points.made == state.made_points - POINTS_OF_A_WORD
    assert len(seen) > 10


POINTS_OF_A_WORD = 1
"""The word itself is made after it was counted."""


async def make_with_words(agent: Agent, batches: int) -> None:
    for _ in range(batches // 10):
        await agent.make(10)
        await agent.give_word()


async def test_batch_set_aside_as_a_whole_is_in_the_account(line: Line) -> None:
    await line.deliver(2)
    await line.agent.make(1)
    async with line.collecting(publishing=False):
        await line.send_newest(
            b"{"
        )  # somebody between the two damages it; its identity and count stand in the properties
    await line.deliver(1)
    account = line.account()
    assert account.state == "balanced"
    assert account.batches == Sums(5, 4, 1, 0, 0, 0)
    assert account.points == Sums(41, 31, 10, 0, 0, 0)


async def test_rows_deleted_from_the_store_are_named_by_their_numbers(line: Line) -> None:
    await line.deliver(10)
    assert line.account().state == "balanced"
    line.tamper("DELETE FROM batch WHERE seq IN (4, 5, 7)")
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["store_lost"])
    assert account.batches == Sums(10, 7, 0, 0, 0, 3)
    assert account.points == Sums(100, 70, 0, 0, 0, 30)
    assert account.lost == (("boot-0", 4, 5), ("boot-0", 7, 7))
    assert account.findings[0].text.en.startswith(
        "the store lacks 3 batches (30 points) for which the agent has a receipt (#4–5, #7); it was restored"
    )
    assert not line.ledger().is_balanced


async def test_points_deleted_from_a_row_are_named_though_every_number_is_there(line: Line) -> None:
    await line.deliver(5)
    line.tamper("UPDATE batch SET points = points - 4 WHERE seq = 2")
    account = line.account()
    assert (account.state, codes(account), account.lost) == ("unbalanced", ["store_lost"], ())
    assert account.points == Sums(50, 46, 0, 0, 0, 4)


async def test_store_restored_from_an_older_copy_is_named(line: Line) -> None:
    await line.deliver(10)
    copy = shutil.copy(line.store_file, line.folder / "backup")
    await line.deliver(20)
    shutil.copy(copy, line.store_file)
    await line.deliver(5)  # the agent goes on; its word says what was receipted before
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["store_lost"])
    assert account.batches is not None and account.batches.difference == 21, "20 and the word that came with them"
    assert account.lost == (("boot-0", 11, 31),)


async def test_a_new_store_lacks_all_that_the_agent_has_receipts_for(line: Line) -> None:
    await line.deliver(10)
    line.restart_agent("boot-1")
    line.store_file.unlink()
    await line.deliver(1)
    account = line.account()
    assert (account.state, codes(account), account.lost) == ("unbalanced", ["store_lost"], ()), "no number tells of it"
    assert account.batches is not None and account.batches.difference == 11


async def test_loss_is_named_while_much_waits(line: Line) -> None:
    await line.deliver(10)
    line.tamper("DELETE FROM batch WHERE seq IN (4, 5, 7)")
    await line.agent.make(30)
    await line.agent.give_word()
    async with line.collecting(publishing=False):
        await line.send_newest()
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["store_lost"])
    assert account.batches == Sums(41, 8, 0, 0, 30, 3)


@pytest.mark.parametrize("came", [0, 1, 3, 5])
async def test_points_of_a_loss_are_told_apart_from_those_in_flight(line: Line, came: int) -> None:
    await line.deliver(10)
    line.tamper("DELETE FROM batch WHERE seq IN (4, 5)")
    await line.agent.make(5)
    await line.agent.give_word()  # of five that wait; it comes first, and no newer one
    async with line.collecting(publishing=False):
        for _ in range(1 + came):
            await line.send_newest()
    account = line.account()
    assert (account.state, codes(account), account.unclear_points) == ("unbalanced", ["store_lost"], 0)
    assert account.batches == Sums(16, 9 + came, 0, 0, 5 - came, 2)
    assert account.points == Sums(151, 81 + 10 * came, 0, 0, 50 - 10 * came, 20)


async def test_what_cannot_be_told_apart_is_said_and_certain_with_the_next_word(line: Line) -> None:
    await line.deliver(10)
    await line.agent.make(5)
    async with line.collecting(publishing=False):
        await line.send_newest()  # of the five the last has its receipt: it does not wait by the word
        await line.agent.give_word()
        for _ in range(2):
            await line.send_newest()
    line.tamper("DELETE FROM batch WHERE seq IN (4, 5)")
    account = line.account()
    assert (account.state, account.lost) == ("unbalanced", (("boot-0", 4, 5),))
    assert account.batches == Sums(16, 11, 0, 0, 3, 2)
    assert account.points is not None and account.points.difference + account.unclear_points == 50
    assert account.points.difference <= 20
    assert "to 50 points, the agent's next word will tell" in account.findings[0].text.en
    await line.deliver(0)
    account = line.account()
    assert account.points is not None and (account.points.difference, account.unclear_points) == (20, 0)


async def test_loss_is_bounded_from_both_sides_while_data_flow_and_the_broker_dies(line: Line) -> None:
    await line.deliver(10)
    line.tamper("DELETE FROM batch WHERE seq IN (4, 5, 7)")
    exact = [0, 0]

    def look(store: Store) -> None:
        (account,) = read(store).agents
        assert account.batches is not None and account.points is not None
        assert (account.state, account.batches.difference) == ("unbalanced", 3), account
        assert account.points.difference <= 30 <= account.points.difference + account.unclear_points, account
        exact[account.points.difference == 30] += 1

    async with line.collecting() as (store, ingest):
        for _ in range(3):
            making = asyncio.create_task(make_with_words(line.agent, 60))
            enough = ingest.counts().batches + 15
            await until_async(lambda: ingest.counts().batches >= enough or look(store))  # noqa: B023
            line.mosquitto.kill()
            await making
            look(store)
            await asyncio.to_thread(line.mosquitto.start)
            await line.agent.give_word()
            await until_async(lambda: look(store) or line.agent.spool.state().batches == 0, 60)
        await line.agent.give_word()
        await line.agent.drain()
        look(store)
    account = line.account()
    assert account.points is not None and (account.points.difference, account.points.waiting) == (30, 0)
    assert exact[True] > exact[False], exact


async def test_rows_taken_out_of_the_spool_are_named(line: Line) -> None:
    await line.deliver(3)
    await line.agent.make(6)
    line.restart_agent("boot-1")
    with sqlite3.connect(line.spool_file) as file:
        file.execute("DELETE FROM batch WHERE seq IN (5, 6)")
    file.close()
    await line.deliver(1)
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["spool_leak"])
    assert account.findings[0].text.en.startswith("2 batches (20 points) are gone from the agent's spool")
    assert account.batches is not None and account.batches.difference == 2
    assert account.lost == (("boot-0", 5, 6),)


async def lose_the_spool(line: Line, waiting: int) -> None:
    """A word of an hour ago with so many batches waiting reached the store; then the file is gone."""
    line.agent.clock = lambda: time.time() - 3600
    await line.deliver(3)
    await line.agent.make(waiting)
    await line.agent.give_word()
    async with line.collecting(publishing=False):
        await line.send_newest()
    line.agent.clock = time.time


async def test_spool_that_was_lost_with_what_waited_in_it_is_named(line: Line) -> None:
    await lose_the_spool(line, waiting=6)
    line.agent.spool.close()
    line.spool_file.unlink()
    line.restart_agent("boot-1")
    await line.deliver(2)
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["spool_lost"])
    # six waited; the word itself came within the ten seconds to which the old times are known, and counts as one of them
    assert "at least 5 batches (59 points)" in account.findings[0].text.en
    assert account.batches == Sums(2, 2, 0, 0, 0, 0)
    assert account.points == Sums(20, 20, 0, 0, 0, 0)


async def test_spool_truncated_under_a_running_agent_is_named(line: Line) -> None:
    await lose_the_spool(line, waiting=6)
    line.agent.spool.close()
    line.spool_file.write_bytes(b"\xff" * 60_000)
    await line.deliver(2)
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["spool_lost"])


async def test_spool_begun_anew_with_nothing_in_it_is_said_and_balances(line: Line) -> None:
    await lose_the_spool(line, waiting=0)
    await line.deliver(0)
    line.agent.spool.close()
    line.spool_file.unlink()
    line.restart_agent("boot-1")
    await line.deliver(2)
    account = line.account()
    assert (account.state, codes(account)) == ("balanced", ["spool_begun_anew"])


async def test_account_that_was_closed_is_no_spool_begun_anew(line: Line) -> None:
    line.agent.clock = lambda: time.time() - 31 * 86_400
    await line.deliver(3)
    line.agent.clock = time.time
    await line.deliver(2)
    account = line.account()
    assert (account.state, codes(account)) == ("balanced", [])
    assert account.batches == Sums(2, 2, 0, 0, 0, 0)


async def test_spool_restored_from_an_older_copy_is_named(line: Line) -> None:
    await line.deliver(3)
    line.agent.spool.close()
    copy = shutil.copy(line.spool_file, line.folder / "copy")
    await line.deliver(10)
    line.agent.spool.close()
    shutil.copy(copy, line.spool_file)
    line.restart_agent("boot-1")
    await line.deliver(1)
    account = line.account()
    assert (account.state, codes(account)) == ("unbalanced", ["more_than_made"])
    assert account.batches is not None and account.batches.difference < -9


async def test_an_old_word_leaves_what_waits_unknown(line: Line) -> None:
    await line.deliver(3)
    account = line.account(int(time.time() * 1000) + 301_000)
    assert (account.state, codes(account)) == ("unknown", ["quiet"])
    assert "1 batches came since" in account.findings[0].text.en
    long_after = line.account(int(time.time() * 1000) + 8 * DAY_MS)
    assert (long_after.state, codes(long_after), long_after.batches) == ("unknown", ["no_word"], None)


async def test_sender_that_numbers_nothing_has_no_account(line: Line) -> None:
    metrics = [Point("host_uptime", {"asset": "srv-1"}, {"uptime_seconds": 1.0}, int(time.time() * 1000))]
    async with line.collecting(publishing=False) as (_, ingest), connect(line.broker, identifier="foreign") as foreign:
        await line.is_subscribed.wait()
        await foreign.publish(points_topic(*ADDRESS), encode_batch(Batch(metrics)))
        await until_async(lambda: ingest.counts().batches == 1)
    account = line.account()
    assert (account.state, codes(account)) == ("unknown", ["no_numbers"])


async def test_drop_that_came_all_the_same_is_counted_once(line: Line) -> None:
    line.restart_agent("boot-1", max_bytes=2**20)
    await line.agent.make(1)
    async with line.collecting(publishing=False):
        await line.send_newest(is_settled=False)  # the collector has it, and its receipt never arrives
    heavy = [Point("host_uptime", {"asset": "srv-1"}, {"uptime_seconds": 1.0}, n) for n in range(1_000)]
    while not line.agent.spool.state().dropped_batches:
        await asyncio.to_thread(partial(line.agent.spool.put, heavy))
    await line.deliver(1)
    account, state = line.account(), line.agent.spool.state()
    assert (account.state, codes(account)) == ("balanced", [])
    assert account.batches is not None and account.batches.dropped == state.dropped_batches - 1
    assert account.points is not None and account.points.dropped == state.dropped_points - POINTS


async def test_the_command_says_what_does_not_balance_and_ends_with_1(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    await line.deliver(10)
    remember_site(embedded_place(line.folder, "hospital"))
    command = ["ledger", "--data-dir", str(line.folder), "--lang", "en"]
    assert await asyncio.to_thread(main, command) == 0
    assert [words.split() for words in capsys.readouterr().out.splitlines()] == [
        ["agent", "in", "made", "applied", "set", "aside", "dropped", "waiting", "difference", "state"],
        ["srv-1", "batches", "10", "10", "0", "0", "0", "0", "balanced"],
        ["points", "100", "100", "0", "0", "0", "0"],
    ]
    line.tamper("DELETE FROM batch WHERE seq = 4")
    assert await asyncio.to_thread(main, command) == 1
    words = capsys.readouterr().out
    assert "srv-1: the store lacks 1 batches (10 points)" in words and "[store_lost]" in words
    assert await asyncio.to_thread(main, [*command, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["is_balanced"] is False
    assert found["agents"][0]["points"] == {
        "made": 100,
        "applied": 90,
        "set_aside": 0,
        "dropped": 0,
        "waiting": 0,
        "difference": 10,
    }
    assert found["agents"][0]["lost"] == [["boot-0", 4, 4]]
