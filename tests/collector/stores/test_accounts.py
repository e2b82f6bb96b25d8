"""What every store answers for the ledger, held against the same sums made of the batches themselves."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
import pytest
from bothstores import Stores
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from influxstore import config_of
from linkstore import CATALOGUE, MINUTE_MS, START, point
from servers import Influx

from agent.broker import Secret
from agent.errors import StoreError
from agent.language import speaking
from collector.query import DAY_MS, HOUR_MS
from collector.store_copy import Task, copy_site
from collector.stores import Account, AppliedBatch, Hole, Period, Store
from collector.stores._influx_http import Door
from collector.stores.influxdb import Store as InfluxDB

Range = tuple[str, int, int]


def made(
    seq: int,
    made_at: int,
    points: int = 1,
    *,
    boot: str = "b1",
    agent: str = "gw-1",
    set_aside: int = 0,
    dropped: Sequence[tuple[str, int, int, int]] = (),
) -> AppliedBatch:
    """A batch of this number; a foreign sender's when it has no boot."""
    identity = f"{boot}/{seq}" if boot else f"{agent}-{seq}"
    rows = [point((made_at - START) * 100 + n, busy_ratio=1.0) for n in range(points)]
    return AppliedBatch("main", agent, boot, seq, identity, made_at, made_at + 9, rows, set_aside, dropped)


# -- the same, of the batches themselves


def account_of(batches: Sequence[AppliedBatch], agent: str, period: Period, pruned: int = 0) -> Account:
    """What a store that got these batches and pruned those made before `pruned` must answer, in plain words."""
    every = [batch for batch in batches if batch.agent == agent]
    numbered = [batch for batch in every if batch.boot]
    ours = [batch for batch in numbered if batch.made_at >= pruned]
    settled = {batch.boot: 0 for batch in numbered} | greatest(batch for batch in numbered if batch.made_at < pruned)
    within = [batch for batch in ours if period.since <= batch.made_at <= period.until]
    later = [batch for batch in ours if batch.made_at > period.until]
    undated = [batch for batch in later if not batch.points and batch.set_aside]
    gone = widest({lost[:3] for batch in every for lost in batch.dropped})
    arrived = [batch for batch in within if any(holds(one, batch.boot, batch.seq) for one in gone)]
    return Account(
        batches=len(within),
        points=sum(len(batch.points) for batch in within),
        set_aside=sum(batch.set_aside for batch in within),
        empty_batches=sum(not batch.points and batch.set_aside > 0 for batch in within),
        dropped_batches=len(arrived),
        dropped_points=sum(len(batch.points) + batch.set_aside for batch in arrived),
        announced_batches=sum(
            one[2] - one[1] + 1 for one in gone if one[0] not in settled or is_of_this_account(one, ours, period)
        ),
        earlier_batches=sum(batch.made_at < period.since for batch in ours),
        later_batches=len(later),
        undated_batches=len(undated),
        undated_points=sum(batch.set_aside for batch in undated),
        holes=tuple(holes_of(ours, gone, period, settled)),
    )


def greatest(batches: Iterable[AppliedBatch]) -> dict[str, int]:
    """boot -> the number after its greatest."""
    found: dict[str, int] = {}
    for batch in batches:
        found[batch.boot] = max(batch.seq + 1, found.get(batch.boot, 0))
    return found


def widest(ranges: set[Range]) -> list[Range]:
    return [one for one in ranges if not any(one != other and is_within(one, other) for other in ranges)]


def is_within(one: Range, other: Range) -> bool:
    return one[0] == other[0] and other[1] <= one[1] and one[2] <= other[2]


def holds(one: Range, boot: str, seq: int) -> bool:
    return one[0] == boot and one[1] <= seq <= one[2]


def is_of_this_account(one: Range, ours: Sequence[AppliedBatch], period: Period) -> bool:
    since = [batch.seq for batch in ours if batch.boot == one[0] and batch.made_at >= period.since]
    return bool(since) and one[2] >= min(since)


def holes_of(
    ours: Sequence[AppliedBatch], gone: Sequence[Range], period: Period, settled: Mapping[str, int]
) -> Iterator[Hole]:
    for boot in sorted({batch.boot for batch in ours}):
        rows = {batch.seq: batch.made_at for batch in ours if batch.boot == boot}
        first = None
        for seq in range(settled[boot], max(rows) + 1):
            is_missing = seq not in rows and not any(holds(one, boot, seq) for one in gone)
            if is_missing and first is None:
                first = seq
            elif not is_missing and first is not None:
                before = min((at for number, at in rows.items() if number >= seq), default=0)
                if period.since <= before <= period.until:
                    yield Hole(boot, first, seq - 1, before)
                first = None


# -- both held against each other


def lived(chance: random.Random, agent: str, gap_ms: int = 3 * MINUTE_MS, most: int = 30) -> list[AppliedBatch]:
    """What came of an agent's life: boots, losses announced and not, refused and unreadable batches, a twin that numbers nothing.

    gap_ms: between two batches at most. most: batches of a boot. Of a boot that was lost whole only its announcement comes.
    """
    has_twin = chance.random() < 0.5
    clock, lost, batches = START, list[tuple[str, int, int, int]](), list[AppliedBatch]()
    for boot in chance.sample(["b0", "b1", "b2", "b3"], 3):
        seq = chance.choice([0, 0, 3])
        if chance.random() < 0.2:
            lost = [*lost[-1:], (boot, 0, chance.randrange(9), 7)]
            continue
        for _ in range(chance.randrange(4, most)):
            clock += chance.randrange(1, gap_ms)
            kind = chance.choices(["came", "lost", "dropped", "unreadable", "foreign"], [20, 2, 2, 1, 1])[0]
            if kind == "dropped":
                last = seq + chance.randrange(3)
                lost = [*lost[-1:], (boot, seq, last, 7 * (last - seq + 1))]
                seq = last if chance.random() < 0.7 else seq - 1
            elif kind == "unreadable":
                batches.append(
                    made(seq, clock + chance.randrange(9 * MINUTE_MS), 0, boot=boot, agent=agent, set_aside=5)
                )
            elif kind == "foreign" and has_twin:
                batches.append(made(len(batches), clock, boot="", agent=agent, dropped=tuple(lost[:1])))
            elif kind == "came":
                aside, points = chance.choice([0, 0, 0, 2]), chance.randrange(3)
                batches.append(made(seq, clock, points, boot=boot, agent=agent, set_aside=aside, dropped=tuple(lost)))
            seq += kind != "foreign"
    return batches


@pytest.mark.parametrize("seed", range(6))
def test_accounts_are_what_the_batches_themselves_come_to(store: Store, seed: int) -> None:
    chance, agents = random.Random(seed), ("gw-1", "gw-2", "gw-3")
    batches = [batch for agent in agents for batch in lived(chance, agent)]
    chance.shuffle(batches)
    for first in range(0, len(batches), 11):
        store.write(batches[first : first + 11])
    for _ in range(6):
        bounds = [sorted(chance.choice(batches).made_at + chance.randrange(2) for _ in range(2)) for _ in agents]
        periods = {agent: Period(*bound) for agent, bound in zip(agents, bounds, strict=True)}
        if chance.random() < 0.3:
            periods["gw-1"] = Period(0, 2**62)
        expected = {agent: account_of(batches, agent, period) for agent, period in periods.items()}
        assert store.accounts("main", periods) == expected
        assert any(account.batches for account in expected.values())


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.integers(0, 2**32), days=st.integers(-1, 5))
def test_both_stores_give_the_same_account_of_any_history_pruned_or_copied(
    stores: Stores, seed: int, days: int
) -> None:
    chance = random.Random(seed)
    agents, pruned = ("gw-1", "gw-2"), START + days * DAY_MS
    batches = [batch for agent in agents for batch in lived(chance, agent, 10 * HOUR_MS, 9)]
    assume(batches)
    is_early = [batch.made_at < pruned or chance.random() < 0.5 for batch in batches]
    with stores:
        both = stores.duckdb(), stores.influxdb()
        for store in both:
            store.write([batch for batch, early in zip(batches, is_early, strict=True) if early])
            store.prune(pruned + 370 * DAY_MS)
            store.write([batch for batch, early in zip(batches, is_early, strict=True) if not early])
        has_rows = any(batch.made_at >= pruned for batch in batches)
        copies = (stores.influxdb(), stores.duckdb()) if has_rows else ()
        for source, target in zip(both, copies, strict=False):
            copy_site(source, target, Task("main", "source", CATALOGUE, {}), lambda progress: None)
        for _ in range(4):
            bounds = [sorted(chance.choice(batches).made_at + chance.randrange(2) for _ in range(2)) for _ in agents]
            periods = {agent: Period(*bound) for agent, bound in zip(agents, bounds, strict=True)}
            expected = {agent: account_of(batches, agent, period, pruned) for agent, period in periods.items()}
            for store in (*both, *copies):
                assert store.accounts("main", periods) == expected
        first, *others = (store.totals() for store in (*both, *copies))
        assert others == [first] * len(others)


def test_batch_that_could_not_be_read_is_undated_and_no_hole(store: Store) -> None:
    store.write([made(0, START), made(1, START + 50, 0, set_aside=4), made(2, START + 2), made(3, START + 60, 0)])
    account = store.accounts("main", {"gw-1": Period(START, START + 2)})["gw-1"]
    assert (account.batches, account.later_batches, account.undated_batches, account.undated_points) == (2, 2, 1, 4)
    assert account.holes == ()


def test_account_is_not_troubled_by_the_year_before_that_was_pruned(store: Store) -> None:
    start = START + 371 * DAY_MS
    store.write([made(0, START, 0), made(1, START + 1, 0), *(made(seq, start + seq) for seq in (2, 3, 6))])
    assert store.prune(start) == 2
    account = store.accounts("main", {"gw-1": Period(start, start + 9)})["gw-1"]
    assert account == Account(3, 3, holes=(Hole("b1", 4, 5, start + 6),))


# -- InfluxDB: what lies there now, in few requests


@pytest.fixture
def influxdb(influx: Influx, database: str) -> Iterator[InfluxDB]:
    with InfluxDB(config_of(influx, database), CATALOGUE) as store:
        yield store


def test_rows_deleted_from_influxdb_are_holes_also_for_a_server_that_had_counted_them(
    influxdb: InfluxDB, influx: Influx, database: str
) -> None:
    influxdb.write([made(seq, START + seq) for seq in range(10)])
    period = {"gw-1": Period(START, START + 9)}
    assert influxdb.accounts("main", period)["gw-1"].holes == ()
    for seq in (4, 5, 7):
        span = f"time >= {START + seq}ms AND time < {START + seq + 1}ms"
        influx.ask(f'DELETE FROM "batch" WHERE {span}', database)
    account = influxdb.accounts("main", period)["gw-1"]
    assert (account.batches, account.points) == (7, 7)
    assert account.holes == (Hole("b1", 4, 5, START + 6), Hole("b1", 7, 7, START + 8))
    with InfluxDB(config_of(influx, database), CATALOGUE) as again:
        assert again.accounts("main", period)["gw-1"] == account


def test_many_agents_are_asked_for_in_few_requests_and_their_rows_are_left_where_they_are(
    influxdb: InfluxDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [f"gw-{number}" for number in range(40)]
    influxdb.write([made(seq, START + seq, agent=agent) for agent in agents for seq in range(6)])
    influxdb.write([made(8, START + 8, agent="gw-7")])
    influxdb.totals()
    asked: list[str] = []
    ask = Door.ask
    monkeypatch.setattr(Door, "ask", lambda door, words: (asked.append(words), ask(door, words))[1])
    found = influxdb.accounts("main", dict.fromkeys(agents, Period(START + 1, START + 8)))
    assert [account.batches for account in found.values()] == [5] * 7 + [6] + [5] * 32
    assert [agent for agent, account in found.items() if account.holes] == ["gw-7"]
    of_rows = [words for statements in asked for words in statements if words.startswith('SELECT "seq", "made_at"')]
    assert len(of_rows) == 1 and "'gw-7'" in of_rows[0]
    assert len(asked) <= 8


def test_probe_leaves_no_trace_in_influxdb(influxdb: InfluxDB, influx: Influx, database: str) -> None:
    influxdb.write([made(0, START)])
    shown = [influx.ask(f"SHOW {what}", database) for what in ("MEASUREMENTS", "SERIES", "FIELD KEYS")]
    influxdb.probe()
    assert [influx.ask(f"SHOW {what}", database) for what in ("MEASUREMENTS", "SERIES", "FIELD KEYS")] == shown


def test_probe_of_a_user_who_may_only_read_says_so(influx: Influx, database: str) -> None:
    influx.ask(f"CREATE USER reader WITH PASSWORD 'of the reader'; GRANT READ ON {database} TO reader")
    config = msgspec.structs.replace(config_of(influx, database), user="reader", password=Secret(env="OF_THE_READER"))
    with (
        InfluxDB(config, CATALOGUE, {"OF_THE_READER": "of the reader"}) as store,
        speaking("en"),
        pytest.raises(StoreError, match="no right to read and write") as refused,
    ):
        store.probe()
    influx.ask("DROP USER reader")
    assert "of the reader" not in str(refused.value)
