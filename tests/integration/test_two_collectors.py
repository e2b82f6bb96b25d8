"""Two collectors on one shared subscription and one InfluxDB: either can die, and both say the same."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from chaos.counts import count
from chaos.hospital import Hospital
from influxstore import config_of
from servers import Daemon, Influx, until

from agent.errors import StoreError
from agent.points import Point
from collector.evaluate import Rules, parse_time
from collector.inquiry import Site
from collector.query import HOUR_MS
from collector.ruleset import load_rules
from collector.server import Evaluator, StoreThreads
from collector.snapshot import Snapshot
from collector.stores import AppliedBatch
from collector.stores.influxdb import Store
from collector.web.view import frame_of

HOUR = parse_time("2026-03-31T08:00:00+08:00")
SITE = Site("hospital", ZoneInfo("Asia/Shanghai"))
SKEW_MS = 30_000
"""How far the second collector's clock is behind the first one's."""


def test_one_is_killed_and_the_other_carries_on(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, agents=4)
    with hospital.running():
        first, second = hospital.of("collector")
        until(lambda: batches_of(hospital) >= 8)
        for dead, alive in ((first, second), (second, first)):
            dead.daemon.kill()
            before = batches_of(hospital)
            until(lambda before=before: batches_of(hospital) >= before + 12)
            assert alive.daemon.pid
            dead.daemon.start()
        hospital.end_agents(hospital.of("agent"))
        hospital.end_collectors()
        counts = count(hospital)
    assert counts.imbalances == () and counts.duplicates == 0
    assert counts.applied.batches >= 32


def test_both_are_killed_while_the_store_is_away(tmp_path: Path) -> None:
    """What they hold at that moment is in no store: it must not be receipted, else nobody has it."""
    hospital = Hospital(tmp_path, agents=4)
    with hospital.running():
        collectors = [part.daemon for part in hospital.of("collector")]
        until(lambda: batches_of(hospital) >= 8)
        hospital.influx.kill()
        until(lambda: all(holds_back(collector) for collector in collectors))
        for collector in collectors:
            collector.kill()
        hospital.influx.start()
        for collector in collectors:
            collector.start()
        before = batches_of(hospital)
        until(lambda: batches_of(hospital) >= before + 12)
        hospital.end_agents(hospital.of("agent"))
        hospital.end_collectors()
        counts = count(hospital)
    assert counts.imbalances == () and counts.duplicates == 0


def holds_back(collector: Daemon) -> bool:
    """Whether it says that the store does not take what it was sent."""
    return any(word in collector.log.read_text(errors="replace") for word in ("暂停接收", "nothing more is read"))


def batches_of(hospital: Hospital) -> int:
    return sum(1 for _ in hospital.stored('SELECT seq FROM "batch"'))


class Collector:
    """The half of a collector that writes and scores, with a clock of its own."""

    def __init__(self, store: Store, rules: Rules, behind_ms: int) -> None:
        self.threads = StoreThreads(store)
        self.now = 0
        self._behind_ms = behind_ms
        self._evaluator = Evaluator(self.threads, rules, SITE, dict, clock=lambda: (self.now - behind_ms) / 1000)

    async def keep(self, hour: int, at: int) -> int:
        """Score `hour` when it is `at` on the wall; gives the revision."""
        self.now = at
        return await self._evaluator.keep(hour)

    async def revise(self, at: int) -> list[int]:
        self.now = at
        return await self._evaluator.revise_late(at // HOUR_MS * HOUR_MS)

    async def write(self, start: int, at: int) -> None:
        """An hour of rounds that begins at `start` comes in at `at` on the wall."""
        tags = {"asset": "srv-1", "source": "host_cpu", "target": "local"}
        fields = {"is_success": 1.0, "interval_seconds": 60.0, "duration_seconds": 0.01, "points_count": 3.0}
        points = [Point("source_round", tags, fields, time) for time in range(start, start + HOUR_MS, 60_000)]
        received = at - self._behind_ms
        batch = AppliedBatch("hospital", "srv-1", "", -1, f"hour-{start}", start, received, points, 0, ())
        await self.threads.write(self.threads.store.write, [batch])

    async def look(self) -> Snapshot | None:
        """What the page has after another look, though the store may be away."""
        with contextlib.suppress(StoreError):
            await self._evaluator.look()
        return self._evaluator.snapshot

    def bodies(self) -> list[tuple[int, int, bytes]]:
        return [(row.as_of, row.revision, row.body) for row in self.threads.store.scorecards("hospital", 0)]


@pytest.fixture
def influx(tmp_path: Path) -> Iterator[Influx]:
    with Influx(tmp_path / "influx") as running:
        yield running


@pytest.fixture
def pair(influx: Influx) -> Iterator[tuple[Collector, Collector]]:
    rules = load_rules().rules
    with ExitStack() as stack:
        influx.ask("CREATE DATABASE shared")
        stores = [stack.enter_context(Store(config_of(influx, "shared"), rules.catalogue)) for _ in range(2)]
        first, second = (Collector(store, rules, behind) for store, behind in zip(stores, (0, SKEW_MS), strict=True))
        for collector in (first, second):
            stack.callback(collector.threads.close)
        yield first, second


async def test_both_write_the_same_scorecard_once(pair: tuple[Collector, Collector]) -> None:
    first, second = pair
    await first.write(HOUR - 3 * HOUR_MS, at=HOUR - 2 * HOUR_MS)
    await second.write(HOUR - 2 * HOUR_MS, at=HOUR - HOUR_MS)
    at = HOUR + 150_000
    assert await asyncio.gather(first.keep(HOUR, at), second.keep(HOUR, at)) == [1, 1]
    assert first.bodies() == second.bodies()
    assert [revision for _, revision, _ in first.bodies()] == [1]


async def test_what_comes_late_to_one_is_revised_alike_by_both(pair: tuple[Collector, Collector]) -> None:
    first, second = pair
    await first.write(HOUR - 3 * HOUR_MS, at=HOUR - 2 * HOUR_MS)
    for hour in (HOUR - HOUR_MS, HOUR):
        assert {await first.keep(hour, hour + 150_000), await second.keep(hour, hour + 151_000)} == {1}
    await second.write(HOUR - 2 * HOUR_MS, at=HOUR + 152_000)
    assert await first.revise(HOUR + HOUR_MS) == [HOUR - HOUR_MS, HOUR]
    assert await second.revise(HOUR + HOUR_MS) == [HOUR - HOUR_MS, HOUR]
    assert [(at, revision) for at, revision, _ in first.bodies()] == [
        (HOUR - HOUR_MS, 1),
        (HOUR - HOUR_MS, 2),
        (HOUR, 1),
        (HOUR, 2),
    ]
    assert first.bodies() == second.bodies()


async def test_page_says_that_the_store_is_away_and_that_it_is_back(
    influx: Influx, pair: tuple[Collector, Collector]
) -> None:
    first, _ = pair
    await first.write(HOUR - 2 * HOUR_MS, at=HOUR - HOUR_MS)
    first.now = HOUR
    assert (await first.look()).store_trouble == ""
    await asyncio.to_thread(influx.kill)
    away = await first.look()
    assert away.store_trouble
    assert away.store_trouble in frame_of(away, "/", HOUR).stale
    await asyncio.to_thread(influx.start)
    assert frame_of(await first.look(), "/", HOUR).stale == ""
