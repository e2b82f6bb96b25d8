"""The hourly scorecard and the snapshot of now."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from influxstore import config_of

from agent.points import Point
from collector.evaluate import Rules, parse_time
from collector.inquiry import Site
from collector.query import HOUR_MS
from collector.ruleset import load_rules
from collector.score import Scorecard
from collector.server import Evaluator, StoreThreads, score_at
from collector.stores import AppliedBatch, Store, load_store

HOUR = parse_time("2026-03-31T08:00:00+08:00")
SITE = Site("hospital", ZoneInfo("Asia/Shanghai"))


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(params=["duckdb", "influxdb"])
def threads(rules: Rules, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StoreThreads]:
    module = load_store(request.param)
    if request.param == "duckdb":
        config = module.Config(path=str(tmp_path / "store.duckdb"))
    else:
        config = config_of(request.getfixturevalue("influx"), request.getfixturevalue("database"))
    with module.Store(config, rules.catalogue) as store:
        opened = StoreThreads(store)
        yield opened
        opened.close()


def write_hour(store: Store, start: int, success: float = 1.0, received: int | None = None) -> None:
    tags = {"asset": "srv-1", "source": "host_cpu", "target": "local"}
    fields = {"is_success": success, "interval_seconds": 60.0, "duration_seconds": 0.01, "points_count": 3.0}
    points = [Point("source_round", tags, fields, time) for time in range(start, start + HOUR_MS, 60_000)]
    store.write([AppliedBatch("hospital", "srv-1", "", -1, f"hour-{start}", start, received or start, points, 0, ())])


def make_evaluator(threads: StoreThreads, rules: Rules, now: int) -> Evaluator:
    return Evaluator(threads, rules, SITE, dict, clock=lambda: now / 1000)


async def test_hour_is_stored_once_and_late_data_makes_the_next_revision(threads: StoreThreads, rules: Rules) -> None:
    for back in (3, 2):
        write_hour(threads.store, HOUR - back * HOUR_MS)
    evaluator = make_evaluator(threads, rules, HOUR + 120_000)
    assert [await evaluator.keep(HOUR), await evaluator.keep(HOUR)] == [1, 1]
    write_hour(threads.store, HOUR - HOUR_MS)
    assert await evaluator.keep(HOUR) == 2
    stored = threads.store.scorecards("hospital", 0)
    assert [(row.as_of, row.revision) for row in stored] == [(HOUR, 1), (HOUR, 2)]
    first, second = (msgspec.json.decode(row.body, type=Scorecard) for row in stored)
    assert first.as_of == second.as_of == "2026-03-31T00:00:00Z"
    assert first.total.low < second.total.low, "the hour that came late was missing, and a missing hour earns nothing"


async def test_points_that_come_late_revise_the_hours_they_reach_and_no_others(
    threads: StoreThreads, rules: Rules
) -> None:
    for back in (4, 3, 1):
        write_hour(threads.store, HOUR - back * HOUR_MS)
    times = [HOUR - 3 * HOUR_MS, HOUR - 2 * HOUR_MS, HOUR - HOUR_MS, HOUR]
    for hour in times:
        await make_evaluator(threads, rules, hour + 120_000).keep(hour)
    evaluator = make_evaluator(threads, rules, HOUR + 600_000)
    assert await evaluator.revise_late(HOUR) == []
    write_hour(threads.store, HOUR - 2 * HOUR_MS, received=HOUR + 700_000)
    assert await evaluator.revise_late(HOUR + HOUR_MS) == [HOUR - HOUR_MS, HOUR]
    rows = threads.store.scorecard_list("hospital", 0, HOUR + 1)
    assert [(row.as_of, row.revision, row.why) for row in rows if row.as_of >= HOUR - HOUR_MS] == [
        (HOUR - HOUR_MS, 1, ""),
        (HOUR - HOUR_MS, 2, "后来又到了数据 / more data came in"),
        (HOUR, 1, ""),
        (HOUR, 2, "后来又到了数据 / more data came in"),
    ]
    assert {row.revision for row in rows if row.as_of < HOUR - HOUR_MS} == {1}


async def test_two_evaluations_of_one_hour_write_the_same_bytes(threads: StoreThreads, rules: Rules) -> None:
    write_hour(threads.store, HOUR - 2 * HOUR_MS)
    for now in (HOUR + 120_000, HOUR + 9 * HOUR_MS):
        assert await make_evaluator(threads, rules, now).keep(HOUR) == 1


async def test_an_hour_whose_points_came_out_of_order_is_scored_to_the_same_bytes_for_ever(
    threads: StoreThreads, rules: Rules
) -> None:
    for back in (2, 3):  # the older hour second: until the first pruning the store takes care there, as for doubles
        write_hour(threads.store, HOUR - back * HOUR_MS)
    evaluator = make_evaluator(threads, rules, HOUR + 120_000)
    before = msgspec.json.encode(score_at(threads.store, rules, SITE, HOUR))
    assert [await evaluator.keep(HOUR) for _ in range(3)] == [1, 1, 1]
    assert msgspec.json.encode(score_at(threads.store, rules, SITE, HOUR)) == before
    assert [row.body for row in threads.store.scorecards("hospital", 0)] == [
        before.replace(b'"revision":1', b'"revision":0', 1)
    ]
    write_hour(threads.store, HOUR - 4 * HOUR_MS, received=HOUR)
    assert await evaluator.keep(HOUR) == 2


async def test_nothing_is_stored_for_a_site_without_points(threads: StoreThreads, rules: Rules) -> None:
    assert await make_evaluator(threads, rules, HOUR).keep(HOUR) == 0
    assert threads.store.scorecards("hospital", 0) == []


async def test_snapshot_shows_agents_that_are_alive_and_those_that_fell_silent(
    threads: StoreThreads, rules: Rules
) -> None:
    write_hour(threads.store, HOUR - HOUR_MS)
    fresh = await make_evaluator(threads, rules, HOUR).look()
    later = await make_evaluator(threads, rules, HOUR + HOUR_MS).look()
    assert [(agent.agent, agent.is_alive) for agent in fresh.agents] == [("srv-1", True)]
    assert [(agent.agent, agent.is_alive) for agent in later.agents] == [("srv-1", False)]
    assert fresh.folder_trouble == ""
    assert fresh.scorecard.revision == 1 and fresh.owners == {"srv-1": "srv-1"}
