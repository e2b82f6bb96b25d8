"""A batch that the store refuses while it takes others: held back, tried again, set aside; good data never are."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from deliveries import ADDRESS, NOW, Sender, at_once, cpu
from servers import until_async

from agent.catalogue import load
from agent.errors import StoreError
from agent.link import Delivery
from agent.wire import Address, Batch, Receipt, encode_batch
from collector.ingest import Ingest, Pace
from collector.quarantine import Quarantine
from collector.reasons import Reason
from collector.register import Owners
from collector.stores import AppliedBatch
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

PACE = Pace(gather_seconds=0.01, first_wait_seconds=0.001, longest_wait_seconds=0.002, suspect_wait_seconds=10)
POISON = Address("hospital", "srv-666")


class FussyStore:
    """A real store that refuses batches of a kind, as one with a damaged block under one table does."""

    def __init__(self, store: DuckDB) -> None:
        self._store = store
        self.refuses: Callable[[AppliedBatch], object] = lambda batch: batch.agent == POISON.agent and batch.points
        self.refusals = 0

    def write(self, batches: Sequence[AppliedBatch]) -> None:
        if any(self.refuses(batch) for batch in batches):
            self.refusals += 1
            raise StoreError("cannot write here")
        self._store.write(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Desk:
    """Ingest over the fussy store, fed delivery by delivery."""

    def __init__(self, store: FussyStore, quarantine: Quarantine, pace: Pace) -> None:
        self.store, self.quarantine = store, quarantine
        self.now = NOW / 1000
        self.good, self.bad = Sender(), Sender(POISON, "bad")
        self.ingest = Ingest(store, at_once, load(), Owners(), quarantine, lambda: self.now, pace)  # type: ignore[arg-type]
        self._feed: asyncio.Queue[Delivery] = asyncio.Queue()
        self._seq = 0

    def hand_in(self, *deliveries: Delivery) -> None:
        for delivery in deliveries:
            self._feed.put_nowait(delivery)

    async def take_good(self) -> None:
        """One good batch goes through, whatever else is there, and the round that took it is over."""
        seq, self._seq = self._seq, self._seq + 1
        self.hand_in(self.good.batch(seq, [cpu(NOW + seq)]))
        await until_async(lambda: seq in self.good.acknowledged)
        await until_async(lambda: not self.ingest._turn.locked())

    async def wait_and_take_good(self, times: int) -> None:
        for _ in range(times):
            self.now += 10_000
            await self.take_good()

    def bad_batch(self, seq: int = 0) -> Delivery:
        return self.bad.batch(seq, [cpu(NOW + seq, asset="srv-666")])

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            yield await self._feed.get()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FussyStore]:
    with DuckDB(Config(path=str(tmp_path / "store.duckdb")), load()) as store:
        yield FussyStore(store)


@asynccontextmanager
async def opened(store: FussyStore, folder: Path, **pace: float) -> AsyncIterator[Desk]:
    with Quarantine(folder / "quarantine.sqlite") as quarantine:
        desk = Desk(store, quarantine, dataclasses.replace(PACE, **pace))  # type: ignore[arg-type]
        running = asyncio.create_task(desk.ingest.run(desk.deliveries()))
        try:
            yield desk
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait({running})


SET_ASIDE = Receipt("bad", [], [(0, 0)], {"store_refuses": 1})


async def test_one_batch_that_is_refused_holds_nobody_up_and_is_set_aside_after_five_times(
    store: FussyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch())
        await desk.take_good()
        assert desk.bad.receipts == []
        await desk.wait_and_take_good(PACE.most_refusals - 2)
        assert desk.bad.receipts == [], "held back and not given up"
        await desk.wait_and_take_good(1)
        assert desk.bad.receipts == [SET_ASIDE]
        assert desk.bad.acknowledged == [0]
        assert desk.ingest.counts().agents[POISON].set_aside == {Reason.STORE_REFUSES: 1}
        assert desk.ingest.counts().agents[ADDRESS].set_aside == {}
        [entry] = desk.quarantine.read()
        assert (entry.agent, entry.reason, entry.what) == ("srv-666", Reason.STORE_REFUSES, "cannot write here")
        totals = {total.agent: total for total in store.totals()}
        assert (totals["srv-666"].set_aside, list(totals["srv-666"].holes)) == (1, [])
        refusals = store.refusals
        await desk.wait_and_take_good(2)
        assert store.refusals == refusals, "and it is over"
    told = [
        record.levelname for record in caplog.records if record.name != "collector.clocks"
    ]  # the desk's clock jumps
    assert told == ["WARNING"], "set aside, once; the store is well"


async def test_a_suspect_rests_between_two_tries(store: FussyStore, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch())
        await desk.take_good()
        refusals = store.refusals
        for _ in range(20):
            await desk.take_good()
        assert store.refusals == refusals
        assert desk.bad.receipts == []


async def test_a_suspect_that_is_taken_at_last_is_applied(store: FussyStore, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch())
        await desk.take_good()
        await desk.wait_and_take_good(2)
        store.refuses = lambda batch: False
        await desk.wait_and_take_good(1)
        assert desk.bad.receipts == [Receipt("bad", [(0, 0)], [])]
        assert desk.ingest.counts().set_aside == {}


async def test_what_is_sent_again_meanwhile_gets_the_one_answer(store: FussyStore, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch(), desk.bad_batch())
        await desk.take_good()
        desk.hand_in(desk.bad_batch())
        await desk.wait_and_take_good(PACE.most_refusals)
        assert desk.bad.receipts == [SET_ASIDE]
        assert desk.bad.acknowledged == [0, 0, 0]
        assert desk.ingest.counts().set_aside == {Reason.STORE_REFUSES: 1}


async def test_a_store_that_refuses_everything_costs_no_batch(store: FussyStore, tmp_path: Path) -> None:
    store.refuses = lambda batch: True
    async with opened(store, tmp_path) as desk:
        for seq in range(40):
            desk.hand_in(desk.bad_batch(seq))
        await until_async(lambda: store.refusals > 300)
        assert desk.ingest.is_stalled
        store.refuses = lambda batch: False
        await until_async(lambda: len(desk.bad.acknowledged) == 40)
        assert desk.ingest.counts().set_aside == {}
        assert sum(last - first + 1 for one in desk.bad.receipts for first, last in one.applied) == 40


async def test_a_store_without_room_for_points_that_still_takes_rows_costs_no_batch(
    store: FussyStore, tmp_path: Path
) -> None:
    """A full disk may have room for a row: such a write proves nothing against the batches that need more."""
    store.refuses = lambda batch: batch.points
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch(0))
        for seq in range(1, 20):
            desk.now += 10_000
            desk.hand_in(desk.bad.deliver(b"\x00", "bad", seq, 1))
            await until_async(lambda seq=seq: seq in desk.bad.acknowledged)  # type: ignore[misc]
        await until_async(lambda: store.refusals > 100)
        assert desk.ingest.counts().set_aside == {Reason.UNDECODABLE: 19}
        store.refuses = lambda batch: False
        await until_async(lambda: 0 in desk.bad.acknowledged)
        assert desk.bad.receipts[-1] == Receipt("bad", [(0, 0)], [])


async def test_a_store_that_fails_in_the_middle_of_a_pass_gets_all_again_though_nothing_new_comes(
    store: FussyStore, tmp_path: Path
) -> None:
    """What fills the disk makes suspects of the innocent; they are tried on by themselves, and nothing counts meanwhile."""
    store.refuses = lambda batch: True
    async with opened(store, tmp_path, suspect_wait_seconds=0.0) as desk:
        desk.hand_in(*(desk.bad_batch(seq) for seq in range(30)))
        await until_async(lambda: store.refusals > 50)
        store.refuses = lambda batch: batch.seq >= 5  # five got in, then it was full
        await until_async(lambda: len(desk.bad.acknowledged) == 30)
        assert sum(last - first + 1 for one in desk.bad.receipts for first, last in one.applied) < 30
        refusals = store.refusals
        await until_async(lambda: store.refusals > refusals + 200)
        store.refuses = lambda batch: False
        await until_async(
            lambda: sum(last - first + 1 for one in desk.bad.receipts for first, last in one.applied) == 30
        )
        assert desk.ingest.counts().set_aside == {}


async def test_a_suspect_takes_up_no_place_in_the_link_unless_nobody_else_keeps_it(
    store: FussyStore, tmp_path: Path
) -> None:
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch(), desk.bad.deliver(encode_batch(Batch([cpu(asset="srv-666")]))))
        await desk.take_good()
        assert (desk.bad.acknowledged, desk.bad.receipts) == ([0], [])
        await desk.wait_and_take_good(PACE.most_refusals)
        assert desk.bad.acknowledged == [0, -1]
        assert desk.ingest.counts().set_aside == {Reason.STORE_REFUSES: 2}


async def test_many_refused_ones_before_a_good_one_do_not_hide_it(store: FussyStore, tmp_path: Path) -> None:
    async with opened(store, tmp_path) as desk:
        desk.hand_in(*(desk.bad_batch(seq) for seq in range(30)))
        await desk.take_good()
        await desk.wait_and_take_good(PACE.most_refusals)
        assert sorted(desk.bad.acknowledged) == list(range(30))
        assert desk.ingest.counts().set_aside == {Reason.STORE_REFUSES: 30}


async def test_a_batch_of_which_not_even_the_row_is_taken_goes_in_the_end(store: FussyStore, tmp_path: Path) -> None:
    store.refuses = lambda batch: batch.agent == POISON.agent
    async with opened(store, tmp_path) as desk:
        desk.hand_in(desk.bad_batch())
        await desk.take_good()
        await desk.wait_and_take_good(2 * PACE.most_refusals - 2)
        assert desk.bad.receipts == []
        await desk.wait_and_take_good(1)
        assert desk.bad.receipts == [SET_ASIDE]
        assert [total.agent for total in store.totals()] == ["srv-1"], "no row was taken"
