"""Ingest over a real InfluxDB: the line goes on whatever the server refuses, and two collectors agree on who owns what."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from deliveries import ADDRESS, NOW, Sender, at_once, cpu, stream
from influxstore import config_of
from servers import Influx

from agent.catalogue import load
from agent.link import Delivery
from agent.points import Point
from agent.wire import Address, Receipt
from collector.applier import StoreCall
from collector.ingest import Ingest
from collector.quarantine import Quarantine
from collector.reasons import Reason
from collector.register import Owners
from collector.stores._influx_http import Door
from collector.stores.influxdb import Store


@contextmanager
def collector(
    influx: Influx, database: str, folder: Path, name: str = "one", call: StoreCall = at_once
) -> Iterator[tuple[Ingest, Store, Owners]]:
    """An ingest of its own over the shared database."""
    owners = Owners()
    with (
        Store(config_of(influx, database), load()) as store,
        Quarantine(folder / f"{name}.sqlite") as quarantine,
    ):
        yield Ingest(store, call, load(), owners, quarantine, lambda: NOW / 1000), store, owners


@pytest.fixture
def one(influx: Influx, database: str, tmp_path: Path) -> Iterator[tuple[Ingest, Store, Owners]]:
    with collector(influx, database, tmp_path) as opened:
        yield opened


def memory(at: int = NOW, asset: str = "srv-1") -> Point:
    return Point("host_memory", {"asset": asset}, {"used_ratio": 0.5}, at)


async def test_a_field_of_another_type_stops_nobody_and_its_batches_are_set_aside(
    influx: Influx, database: str, one: tuple[Ingest, Store, Owners]
) -> None:
    ingest, store, _ = one
    with Door(config_of(influx, database).place({})) as door:
        door.write([f"host_cpu,site=other busy_ratio=1i {NOW}000000"])
    hit = [Sender(Address("hospital", f"srv-{number}"), f"boot-{number}") for number in range(100)]
    spared = Sender()
    batches: list[Delivery] = [
        sender.batch(0, [cpu(asset=sender.address.agent), memory(asset=sender.address.agent)]) for sender in hit
    ]
    await ingest.run(stream([*batches, spared.batch(0, [memory()])]))
    assert spared.receipts == [Receipt("boot", [(0, 0)], [])]
    for sender in hit:
        assert sender.receipts == [Receipt(sender.boot, [], [(0, 0)], {"store_refuses": 1})]
        assert sender.acknowledged == [0]
    assert ingest.counts().set_aside == {Reason.STORE_REFUSES: 100}
    assert not ingest.is_stalled
    assert len(store.latest("host_memory", 0)) == 101 - 1, "what stood beside it is stored; srv-1 is there twice"
    totals = {total.agent: total for total in store.totals()}
    assert (totals["srv-7"].set_aside, list(totals["srv-7"].holes)) == (2, [])


async def test_what_was_set_aside_is_known_when_it_comes_again_to_another_collector(
    influx: Influx, database: str, one: tuple[Ingest, Store, Owners], tmp_path: Path
) -> None:
    with Door(config_of(influx, database).place({})) as door:
        door.write([f"host_cpu,site=other busy_ratio=1i {NOW}000000"])
    sender = Sender()
    await one[0].run(stream([sender.batch(0, [cpu()])]))
    with collector(influx, database, tmp_path, "other") as (other, _, _):
        await other.run(stream([sender.batch(0, [cpu()])]))
        assert other.counts().agents[ADDRESS].duplicates == 1


async def test_two_collectors_that_meet_a_new_asset_at_once_agree_on_its_owner(
    influx: Influx, database: str, one: tuple[Ingest, Store, Owners], tmp_path: Path
) -> None:
    ingest, store, known_here = one
    first, second = Sender(), Sender(Address("hospital", "srv-2"), "boot-2")
    racing = [first.batch(0, [cpu(asset="shared")])]

    async def call(what: Callable[..., Any], *arguments: object) -> Any:
        if what.__name__ == "write" and racing:  # both have asked and found no owner; the other writes first
            await ingest.run(stream([racing.pop()]))
        return what(*arguments)

    with collector(influx, database, tmp_path, "other", call) as (other, _, known_there):
        await other.run(stream([second.batch(0, [cpu(asset="shared")])]))
        assert store.owners("hospital") == {"shared": "srv-1"}
        for known in (known_here, known_there):
            assert known.reporters("hospital", "shared") == {"srv-1"}
        await other.run(stream([second.batch(1, [cpu(at=NOW + 1, asset="shared")])]))
        assert other.counts().set_aside == {Reason.NOT_YOURS: 1}
