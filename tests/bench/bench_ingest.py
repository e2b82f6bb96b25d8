"""How fast ingest is: `python tests/bench/bench_ingest.py`. Prints a table, asserts nothing.

The same batches of 500 points go through one stage after the other: payload bytes, decoded batch, checked batch, DuckDB
commit. CPU seconds of one process, medians of several rounds; the limit is for decoded batch to commit on one core.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from agent import catalogue
from agent.link import Delivery
from agent.points import Point
from agent.wire import Address, Batch, BatchReader, decode_batch, encode_batch
from collector.arrival import Arrival, receive
from collector.check import Checker
from collector.ingest import Ingest
from collector.quarantine import Quarantine
from collector.register import Owners
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

T = TypeVar("T")
START = 1_760_000_000_000
AGENTS = 50
BATCH_POINTS = 500
ROUNDS = 12
WRITE_LIMIT = 150_000
"""Points a second, from decoded batch to commit."""
CHECK_AIM = 400_000
"""Points a second, decoding and checking together."""


def server_points(asset: str, at: int, step_ms: int = 15_000) -> Iterator[Point]:
    """What a server of some size reports, without end: the same series again every `step_ms`."""
    while True:
        for part in range(12):
            fields = {"busy_ratio": 0.25, "in_bits_per_second": 1e6, "out_bits_per_second": 2e6 + part, "is_up": 1.0}
            yield Point("net_interface", {"asset": asset, "interface": f"eth{part}"}, fields, at)
        for part in range(10):
            fields = {"used_ratio": 0.5, "size_bytes": 1e9, "used_bytes": 5e8}
            yield Point("filesystem", {"asset": asset, "mount": f"/srv/{part}"}, fields, at)
        for part in range(24):
            yield Point("service_unit", {"asset": asset, "unit": f"unit-{part}.service"}, {"is_active": 1.0}, at)
        yield Point("host_cpu", {"asset": asset}, {"busy_ratio": 0.25, "iowait_ratio": 0.125}, at)
        yield Point("host_memory", {"asset": asset}, {"used_ratio": 0.5, "available_bytes": 4e9}, at)
        at += step_ms


async def _nothing(*_: object) -> None:
    pass


def make_round(sources: dict[str, Iterator[Point]], seq: int) -> list[Delivery]:
    """One batch of every agent, as bytes."""
    deliveries = []
    for agent, source in sources.items():
        points = [next(source) for _ in range(BATCH_POINTS)]
        sent_at = points[-1].timestamp
        payload = encode_batch(Batch(points, "boot", seq, sent_at, sent_at, BATCH_POINTS))
        deliveries.append(Delivery(Address("site", agent), payload, "boot", seq, BATCH_POINTS, _nothing, _nothing))
    return deliveries


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


def bench_stages(store: DuckDB, rounds: list[list[Delivery]]) -> dict[str, float]:
    """Median points a second of each stage."""
    checker, reader = Checker(catalogue.load(), Owners()), BatchReader()
    rates: dict[str, list[float]] = {}

    def check(arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            if arrival.decoded:
                arrival.settle(checker.check(arrival.address, arrival.decoded, arrival.received_at))

    for deliveries in rounds:
        now = decode_batch(deliveries[0].payload).batch.sent_at
        arrivals, receiving = timed(lambda: [receive(delivery, now, reader) for delivery in deliveries])  # noqa: B023
        _, checking = timed(lambda: check(arrivals))  # noqa: B023
        batches = [arrival.batch for arrival in arrivals if arrival.batch]
        assert all(len(batch.points) == BATCH_POINTS for batch in batches)
        _, writing = timed(lambda: store.write(batches))  # noqa: B023
        points = len(deliveries) * BATCH_POINTS
        spent = {
            "decode": receiving,
            "check": checking,
            "decode + check": receiving + checking,
            "commit": writing,
            "decoded batch -> commit": checking + writing,
            "bytes -> commit": receiving + checking + writing,
        }
        for stage, seconds in spent.items():
            rates.setdefault(stage, []).append(points / seconds)
    return {stage: statistics.median(values) for stage, values in rates.items()}


async def bench_loop(store: DuckDB, quarantine: Quarantine, rounds: list[list[Delivery]]) -> float:
    """Points a second through the whole loop, acknowledgements and receipts included."""

    async def call(function: Callable[..., T], *arguments: object) -> T:
        return function(*arguments)

    async def stream() -> AsyncIterator[Delivery]:
        for deliveries in rounds:
            for delivery in deliveries:
                yield delivery

    newest = decode_batch(rounds[-1][-1].payload).batch.sent_at
    ingest = Ingest(store, call, catalogue.load(), Owners(), quarantine, lambda: newest / 1000)
    began = time.process_time()
    await ingest.run(stream())
    seconds = time.process_time() - began
    assert ingest.counts().points == sum(map(len, rounds)) * BATCH_POINTS
    return ingest.counts().points / seconds


def main() -> None:
    sources = {f"srv-{number:02d}": server_points(f"srv-{number:02d}", START) for number in range(AGENTS)}
    rounds = [make_round(sources, seq) for seq in range(ROUNDS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with DuckDB(Config(path=str(folder / "stages.duckdb")), catalogue.load()) as store:
            rates = bench_stages(store, rounds)
        with (
            DuckDB(Config(path=str(folder / "loop.duckdb")), catalogue.load()) as store,
            Quarantine(folder / "quarantine.sqlite") as quarantine,
        ):
            rates["the whole loop"] = asyncio.run(bench_loop(store, quarantine, rounds))
    limits = {"decode + check": CHECK_AIM, "decoded batch -> commit": WRITE_LIMIT}
    print(f"{ROUNDS} rounds of {AGENTS} batches of {BATCH_POINTS} points, CPU of one process, medians")
    for stage, rate in rates.items():
        limit = limits.get(stage)
        print(f"{stage:26}{rate:12,.0f} points/s" + (f"   {rate / limit:5.2f} x {limit:,}" if limit else ""))


if __name__ == "__main__":
    main()
