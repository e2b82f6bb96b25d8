"""From deliveries to the store: written first, then acknowledged and receipted; nothing stops the line."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deliveries import ADDRESS, NOW, Sender, at_once, cpu, stream
from servers import READY_SECONDS, until_async

from agent.catalogue import load
from agent.errors import LinkError, StoreError
from agent.language import speaking
from agent.link import Delivery
from agent.points import Point
from agent.reasons import MOST_ASSETS
from agent.wire import Address, Batch, BatchReader, Receipt, encode_batch
from collector.arrival import receive
from collector.ingest import Ingest, Pace
from collector.quarantine import Quarantine
from collector.reasons import MEANINGS, Reason
from collector.register import Owners
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB
from collector.tally import AgentCounts

QUICK = Pace(gather_seconds=0.01, first_wait_seconds=0.001, longest_wait_seconds=0.002)


class Desk:
    """An ingest over a real DuckDB file. calls: the methods of the store that were called."""

    def __init__(self, folder: Path, store: DuckDB, quarantine: Quarantine) -> None:
        self.path = folder / "store.duckdb"
        self.store = store
        self.quarantine = quarantine
        self.calls: list[str] = []
        self.now_ms = NOW
        self.refuses: Callable[[str], bool] = lambda name: False
        self.breaks_after: Callable[[str], bool] = lambda name: False
        self.ingest = self.another()

    def another(self, pace: Pace = QUICK) -> Ingest:
        """A second collector's ingest, or the same one started again."""
        clock = lambda: self.now_ms / 1000  # noqa: E731
        return Ingest(self.store, self.call, load(), Owners(), self.quarantine, clock, pace)

    async def call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        name = call.__name__
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.refuses(name):
            raise StoreError("the disk is full")
        result = await at_once(call, *arguments)
        if self.breaks_after(name):
            raise StoreError("the connection broke")
        return result

    async def take(self, *deliveries: Delivery) -> None:
        await self.ingest.run(stream(deliveries))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Straight from the file, past the store."""
        with self.store:
            pass
        with duckdb.connect(str(self.path)) as file:
            return file.execute(query).fetchall()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = DuckDB(Config(path=str(tmp_path / "store.duckdb")), load())
    with store, Quarantine(tmp_path / "quarantine.sqlite") as quarantine:
        yield Desk(tmp_path, store, quarantine)


def reasons(ingest: Ingest) -> dict[str, int]:
    return {reason.value: count for reason, count in ingest.counts().set_aside.items()}


async def test_batches_are_stored_then_acknowledged_and_receipted_as_ranges(desk: Desk) -> None:
    sender = Sender()
    await desk.take(*(sender.batch(seq, [cpu(NOW + seq)]) for seq in (0, 1, 2, 5)))
    assert sender.receipts == [Receipt("boot", [(0, 2), (5, 5)], [])]
    assert sender.acknowledged == [0, 1, 2, 5]
    assert desk.calls.count("write") == 1
    assert desk.rows("SELECT count(*) FROM points.host_cpu") == [(4,)]
    assert desk.rows("SELECT boot, seq, made_at, points, set_aside FROM batch ORDER BY seq LIMIT 1") == [
        ("boot", 0, NOW - 1000, 1, 0)
    ]


async def test_each_agent_and_boot_gets_its_own_receipt(desk: Desk) -> None:
    one, two, again = Sender(), Sender(Address("hospital", "srv-2"), "boot-2"), Sender(boot="boot-3")
    deliveries = [one.batch(0, [cpu()]), two.batch(0, [cpu(asset="srv-2")]), again.batch(0, [cpu(NOW + 1)])]
    await desk.take(*deliveries)
    assert one.receipts == [Receipt("boot", [(0, 0)], [])]
    assert two.receipts == [Receipt("boot-2", [(0, 0)], [])]
    assert again.receipts == [Receipt("boot-3", [(0, 0)], [])]


async def test_a_known_batch_is_receipted_again_and_not_written_again(desk: Desk) -> None:
    sender = Sender()
    await desk.take(sender.batch(0, [cpu()]), sender.batch(0, [cpu()]))
    await desk.take(sender.batch(0, [cpu()]))
    assert sender.receipts == [Receipt("boot", [(0, 0)], []), Receipt("boot", [(0, 0)], [])]
    assert desk.calls.count("applied") + desk.calls.count("_ask_applied") == 1, "the second time it was remembered"
    assert desk.ingest.counts().agents[ADDRESS].duplicates == 2
    assert desk.rows("SELECT count(*) FROM batch") == [(1,)]


async def test_another_collector_knows_a_batch_from_the_store(desk: Desk) -> None:
    sender = Sender()
    await desk.take(sender.batch(0, [cpu()]))
    other = desk.another()
    await other.run(stream([sender.batch(0, [cpu()])]))
    assert sender.receipts[1] == Receipt("boot", [(0, 0)], [])
    assert (other.counts().batches, other.counts().duplicates) == (0, 1)
    assert desk.rows("SELECT count(*) FROM points.host_cpu") == [(1,)]


async def test_bytes_that_cannot_be_decoded_are_receipted_and_leave_no_hole(desk: Desk) -> None:
    sender = Sender()
    await desk.take(
        sender.batch(0, [cpu()]), sender.deliver(b"\x00\xff", "boot", 1, 7), sender.batch(2, [cpu(NOW + 1)])
    )
    assert sender.receipts == [Receipt("boot", [(0, 0), (2, 2)], [(1, 1)], {"undecodable": 1})]
    assert sender.acknowledged == [0, 1, 2]
    (totals,) = desk.store.totals()
    assert (totals.batches, totals.points, totals.set_aside, list(totals.holes)) == (3, 2, 7, [])
    assert desk.quarantine.read()[0].payload == b"\x00\xff"
    await desk.take(sender.deliver(b"\x00\xff", "boot", 1, 7))
    assert sender.receipts[1] == Receipt("boot", [], [(1, 1)], {"undecodable": 1})
    assert reasons(desk.ingest) == {"undecodable": 1}


async def test_a_foreign_sender_is_known_by_its_bytes_and_gets_no_receipt(desk: Desk) -> None:
    sender = Sender()
    payload = encode_batch(Batch([cpu()]))
    await desk.take(sender.deliver(payload), sender.deliver(payload), sender.deliver(b"no json"))
    assert sender.receipts == []
    assert sender.acknowledged == [-1, -1, -1]
    assert desk.rows("SELECT boot, made_at, length(identity), points FROM batch") == [("", NOW, 64, 1)]
    assert reasons(desk.ingest) == {"undecodable": 1}


async def test_a_header_that_contradicts_the_properties_sets_the_batch_aside(desk: Desk) -> None:
    sender = Sender()
    payload = encode_batch(Batch([cpu()], "boot", 900_000, NOW, NOW, 1))
    await desk.take(sender.deliver(payload, "boot", 0, 1))
    assert sender.receipts == [Receipt("boot", [], [(0, 0)], {"bad_header": 1})]
    assert desk.rows("SELECT seq, points, set_aside FROM batch") == [(0, 0, 1)]


async def test_a_batch_with_too_many_points_is_set_aside_whole(desk: Desk) -> None:
    sender = Sender()
    await desk.take(sender.batch(0, [cpu(NOW + number) for number in range(50_001)]))
    assert sender.receipts == [Receipt("boot", [], [(0, 0)], {"too_large": 1})]
    assert reasons(desk.ingest) == {"too_large": 1}


async def test_announced_losses_are_stored_with_the_batch(desk: Desk) -> None:
    sender = Sender()
    await desk.take(sender.batch(4, [cpu()], dropped=[("boot", 0, 3, 40)]))
    (totals,) = desk.store.totals()
    assert (totals.dropped, list(totals.holes)) == (40, [])


async def test_the_first_reporter_owns_an_asset_also_for_a_collector_started_later(desk: Desk) -> None:
    first, second = Sender(), Sender(Address("hospital", "srv-2"), "boot-2")
    await desk.take(first.batch(0, [cpu()]), second.batch(0, [cpu(NOW + 1), cpu(NOW + 1, asset="srv-2")]))
    assert dict(desk.store.owners("hospital")) == {"srv-1": "srv-1", "srv-2": "srv-2"}
    assert second.receipts[-1] == Receipt("boot-2", [(0, 0)], [], {"not_yours": 1}), "the agent is told of it"
    later = desk.another()
    await later.run(stream([second.batch(1, [cpu(NOW + 2)])]))
    assert later.counts().set_aside == {Reason.NOT_YOURS: 1}
    assert desk.rows("SELECT count(*) FROM points.host_cpu") == [(2,)]


async def test_an_agent_brings_so_many_assets_unasked_and_each_collector_keeps_to_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    flood, good = Sender(), Sender(Address("hospital", "srv-2"), "boot-2")
    await desk.take(flood.batch(0, [cpu(asset=f"made-up-{number}") for number in range(MOST_ASSETS)]))
    assert reasons(desk.ingest) == {}
    later = desk.another()
    for number, ingest in enumerate((desk.ingest, later, later)):
        points = [cpu(NOW + number, asset=asset) for asset in ("made-up-0", f"one-more-{number}", f"two-more-{number}")]
        await ingest.run(stream([flood.batch(number + 1, points), good.batch(number, [cpu(asset=f"good-{number}")])]))
        assert flood.receipts[-1].reasons == {"too_many_assets": 2}, "those that it has stay its own"
        assert good.receipts[-1].reasons == {}
    assert later.counts().set_aside == {Reason.TOO_MANY_ASSETS: 4}
    assert len(desk.store.owners("hospital")) == MOST_ASSETS + 3
    assert len([record for record in caplog.records if "(too_many_assets)" in record.message]) == 2, "once a collector"


async def test_nothing_is_acknowledged_while_the_store_refuses_and_all_of_it_afterwards(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender()
    stalled: list[bool] = []
    desk.refuses = lambda name: name == "write" and not stalled

    async def watch() -> None:
        await until_async(lambda: desk.calls.count("write") >= 8)
        stalled.append(desk.ingest.is_stalled and not sender.acknowledged and not sender.receipts)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(desk.take(sender.batch(0, [cpu()])))
    assert stalled == [True]
    assert sender.acknowledged == [0]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert desk.ingest.counts().batches == 1


async def test_a_write_that_arrived_although_it_failed_is_not_written_twice(desk: Desk) -> None:
    sender = Sender()
    desk.breaks_after = lambda name: name == "write" and desk.calls.count("write") == 1
    await desk.take(sender.batch(0, [cpu()]))
    assert desk.calls.count("write") == 1
    assert desk.rows("SELECT count(*) FROM points.host_cpu") == [(1,)]
    assert (desk.ingest.counts().batches, desk.ingest.counts().duplicates) == (1, 0)
    assert sender.receipts == [Receipt("boot", [(0, 0)], [])]


async def test_while_the_store_refuses_no_more_is_read_than_the_bound(desk: Desk) -> None:
    sender, read = Sender(), 0
    desk.refuses = lambda name: name == "write"
    pace = Pace(0.01, most_batches=4, waiting_batches=3, first_wait_seconds=0.001, longest_wait_seconds=0.001)
    ingest = desk.another(pace)

    async def endless() -> AsyncIterator[Delivery]:
        nonlocal read
        while True:
            read += 1
            yield sender.batch(read, [cpu(NOW + read)])

    running = asyncio.create_task(ingest.run(endless()))
    await until_async(lambda: desk.calls.count("write") >= 50)
    running.cancel()
    await asyncio.wait({running})
    assert read <= 4 + 3 + 1
    assert sender.acknowledged == []


@pytest.mark.parametrize("pace", [Pace(0.01, 3600.0), Pace(3600.0, 0.01)], ids=["no more comes", "it took long enough"])
async def test_what_is_gathered_is_written_while_the_link_stays_open(desk: Desk, pace: Pace) -> None:
    sender = Sender()

    async def open_end() -> AsyncIterator[Delivery]:
        for seq in range(3):
            yield sender.batch(seq, [cpu(NOW + seq)])
        await asyncio.Event().wait()

    running = asyncio.create_task(desk.another(pace).run(open_end()))
    await until_async(lambda: sender.acknowledged == [0, 1, 2])
    running.cancel()
    await asyncio.wait({running})


async def test_a_long_stall_of_the_store_makes_no_clock_look_wrong(desk: Desk) -> None:
    sender = Sender()
    stall_ms = 1_800_000

    def refuse(name: str) -> bool:
        if name == "write" and desk.now_ms == NOW:
            desk.now_ms += stall_ms
            return True
        return False

    desk.refuses = refuse
    await desk.take(sender.batch(0, [cpu()]))
    await desk.take(sender.batch(1, [cpu(NOW + 1000)], sent_at=NOW + 1000))
    assert desk.ingest.counts().skewed == 0
    desk.now_ms += 3 * stall_ms
    sent_at = desk.now_ms - stall_ms
    await desk.take(sender.batch(2, [cpu(sent_at)], sent_at=sent_at))
    assert desk.ingest.counts().agents[ADDRESS].skew_ms == stall_ms
    times = [NOW, NOW + 1000, desk.now_ms]
    assert desk.rows("SELECT time FROM points.host_cpu ORDER BY time") == [(time,) for time in times]


async def test_a_broken_link_is_reported_after_what_it_brought_is_stored(desk: Desk) -> None:
    sender = Sender()

    async def breaks() -> AsyncIterator[Delivery]:
        yield sender.batch(0, [cpu()])
        raise LinkError("the broker went away")

    with pytest.raises(LinkError, match="the broker went away"):
        await desk.ingest.run(breaks())
    assert sender.receipts == [Receipt("boot", [(0, 0)], [])]


async def test_a_receipt_that_cannot_be_sent_stops_nothing(desk: Desk) -> None:
    async def fail(*_: object) -> None:
        raise LinkError("gone")

    batch = encode_batch(Batch([cpu()], "boot", 0, NOW, NOW, 1))
    sender = Sender()
    await desk.take(Delivery(ADDRESS, batch, "boot", 0, 1, fail, fail), sender.batch(1, [cpu(NOW + 1)]))
    assert sender.receipts == [Receipt("boot", [(0, 1)], [])]
    assert desk.ingest.counts().batches == 2


async def test_a_cancellation_that_the_link_swallows_ends_the_run_all_the_same(desk: Desk) -> None:
    replying = asyncio.Event()

    async def swallow(receipt: Receipt) -> None:  # as asyncio.wait_for does before Python 3.12
        replying.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def one_and_then_silence() -> AsyncIterator[Delivery]:
        batch = encode_batch(Batch([cpu()], "boot", 0, NOW, NOW, 1))
        yield Delivery(ADDRESS, batch, "boot", 0, 1, swallow, Sender().deliver(b"").acknowledge)
        await asyncio.Event().wait()

    running = asyncio.create_task(desk.ingest.run(one_and_then_silence()))
    await replying.wait()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=READY_SECONDS)
    running.cancel()
    assert done == {running}
    assert running.cancelled()


async def test_the_first_of_a_kind_is_logged_and_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender()
    for seq in range(5):
        await desk.take(sender.batch(seq, [cpu(busy_ratio=2.0)]))
    assert len([record for record in caplog.records if "(out_of_range)" in record.message]) == 1


@pytest.mark.parametrize(("off_ms", "skew"), [(-7_200_000, "7200 s (2.0 h) behind"), (600_000, "600 s ahead")])
async def test_a_wrong_clock_is_told_once_when_it_begins_and_once_when_it_is_over(
    desk: Desk, caplog: pytest.LogCaptureFixture, off_ms: int, skew: str
) -> None:
    sender, others = Sender(), Sender(Address("hospital", "srv-2"))
    with speaking("en"):
        for seq, off in enumerate((0, off_ms, off_ms, 0, 0, off_ms)):
            await desk.take(sender.batch(seq, [cpu(NOW + off)], sent_at=NOW + off))
            await desk.take(others.batch(seq, [cpu(asset="srv-2")]))
    begins = (
        f"the clock of agent hospital/srv-1 is {skew}, its points are moved to the time received;"
        " set the clock on that machine: chronyc makestep"
    )
    told = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert told == [begins, "the clock of agent hospital/srv-1 is right again", begins]
    assert desk.ingest.counts().clocks_off("hospital") == {"srv-1": -off_ms}
    assert desk.ingest.counts().clocks_off("clinic") == {}


def good_points(generator: random.Random, number: int) -> list[Point]:
    return [
        Point(
            "net_interface",
            {"asset": "srv-1", "interface": f"eth{part}"},
            {"busy_ratio": generator.random()},
            NOW + number,
        )
        for part in range(generator.randint(1, 4))
    ]


def mutate(payload: bytes, generator: random.Random) -> bytes:
    """One of the ways in which bytes go wrong."""
    data = bytearray(payload)
    for _ in range(generator.randint(1, 6)):
        at = generator.randrange(len(data))
        match generator.randrange(5):
            case 0:
                data[at] = generator.randrange(256)
            case 1:
                del data[at : at + generator.randint(1, 30)]
            case 2:
                data[at:at] = generator.choice(
                    [b"\x00", b"[[[[", b"-1e999", b"null", b'"\\ud800"', b"9" * 400, b'"seq":9']
                )
            case 3:
                data[at:at] = data[: generator.randrange(len(data))]
            case _:
                data = data[: at + 1]
        data = data or bytearray(b"{")
    return bytes(data)


def nonsense(generator: random.Random) -> bytes:
    """JSON that no agent of ours would send, or no JSON at all."""
    strange = [
        None,
        True,
        -1,
        1e308,
        "x",
        "",
        [],
        {},
        [1],
        {"a": {}},
        "\u0000",
        "é" * 300,
        2**70,
        -(2**70),
        0.5,
        "seconds",
    ]

    def pick() -> Any:
        return generator.choice(strange)

    points = [
        {
            "name": generator.choice(["host_cpu", "filesystem", "", "x" * 300, pick()]),
            "tags": generator.choice(
                [{"asset": "srv-1"}, {"asset": pick()}, {"asset": "srv-1", "mount": pick()}, pick()]
            ),
            "fields": generator.choice([{"busy_ratio": pick()}, {"used_ratio": pick(), "nothing": pick()}, {}, pick()]),
            "timestamp": generator.choice([NOW, NOW // 1000, 0, 32_503_680_000_000, 2**80, pick()]),
        }
        for _ in range(generator.randint(0, 4))
    ]
    match generator.randrange(4):
        case 0:
            return generator.randbytes(generator.randint(0, 200))
        case 1:
            return b'{"metrics":' + b"[" * generator.randint(1, 5000)
        case 2:
            return json.dumps({"metrics": points, "seq": pick(), "boot": pick(), "dropped": pick()}).encode()
        case _:
            return json.dumps({"metrics": points}).encode()


def mixed_stream(good: Sender, bad: Sender, generator: random.Random) -> tuple[list[Delivery], list[Point], int]:
    """1,000 good batches with 10,000 bad payloads among them; gives also the good points and how many good batches."""
    deliveries: list[Delivery] = []
    points: list[Point] = []
    for number in range(1000):
        made = good_points(generator, number)
        points += made
        whole = good.batch(number, made)
        deliveries.append(whole)
        for _ in range(10):
            payload = nonsense(generator) if generator.random() < 0.5 else mutate(whole.payload, generator)
            is_ours = generator.random() < 0.3
            seq = len(deliveries)
            deliveries.append(bad.deliver(payload, "bad", seq, 3) if is_ours else bad.deliver(payload))
    return deliveries, points, 1000


async def test_ten_thousand_random_and_mutated_payloads_cost_no_good_point_and_stop_nothing(desk: Desk) -> None:
    good, bad = Sender(), Sender(Address("hospital", "srv-666"), "bad")
    deliveries, points, batches = mixed_stream(good, bad, random.Random(20260101))
    assert len(deliveries) == 11_000
    await desk.take(*deliveries)

    counts = desk.ingest.counts()
    assert counts.agents[ADDRESS].batches == batches
    assert counts.agents[ADDRESS].set_aside == {}
    assert sum((last - first + 1) for receipt in good.receipts for first, last in receipt.applied) == batches
    assert len(good.acknowledged) + len(bad.acknowledged) == 11_000
    stored = desk.rows(
        "SELECT p.time, s.tags['interface'], p.busy_ratio FROM points.net_interface p JOIN series s ON s.id = p.series"
        " WHERE s.agent = 'srv-1'"
    )
    expected = [(each.timestamp, each.tags["interface"], each.fields["busy_ratio"]) for each in points]
    assert sorted(stored) == sorted(expected)
    assert_every_bad_one_is_counted(counts.agents[bad.address], [d for d in deliveries if d.address == bad.address])
    assert desk.quarantine.counts() == counts.set_aside
    assert len(counts.set_aside) >= 10, "the nonsense reached most of the checks"


def assert_every_bad_one_is_counted(counts: AgentCounts, deliveries: Sequence[Delivery]) -> None:
    """Each delivery got a batch row, or was one that had come before, or was set aside without a name to remember."""
    assert len(deliveries) == 10_000
    arrivals = [receive(delivery, NOW, BatchReader()) for delivery in deliveries]
    named = [arrival for arrival in arrivals if arrival.boot or arrival.decoded]
    first = {arrival.identity: arrival for arrival in reversed(named)}
    assert counts.batches == len(first)
    assert counts.duplicates == len(named) - len(first)
    nameless = [arrival for arrival in arrivals if not (arrival.boot or arrival.decoded)]
    whole = sum(count for reason, count in counts.set_aside.items() if MEANINGS[reason].scope == "batch")
    assert whole == len(nameless) + sum(arrival.trouble is not None for arrival in first.values())
    assert min(len(first), len(nameless), whole) > 1000, "neither kind is missing"
