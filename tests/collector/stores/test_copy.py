"""A site copied from store to store, there and back: every answer is the same, and so is what cannot be asked of points any more."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from bothstores import Stores
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from linkstore import CATALOGUE, MINUTE_MS, START, ask, batch, every_minute, point

from agent.language import speaking
from agent.points import Point
from collector.query import DAY_MS, HOUR_MS, Question, Take
from collector.store_copy import CopyError, Progress, Task, copy_site, slices
from collector.stores import AppliedBatch, Latest, Period, Store
from collector.stores._kept import digest_of

OF_SITE = (("site", ("main",)),)
QUESTIONS = [
    ask(Take(by), buckets=12 * 8, per=per, where=OF_SITE)
    for by in ("mean", "max", "last", "count")
    for per in (("asset", "interface"), ("lane", "asset"), ())
]
PERIODS = {agent: Period(START, START + DAY_MS) for agent in ("gw-1", "gw-2", "nobody")}


def task(*questions: Question, called: str = "source") -> Task:
    return Task("main", called, CATALOGUE, {digest_of(one): one for one in questions})


def copied(source: Store, target: Store, what: Task | None = None) -> list[Progress]:
    told: list[Progress] = []
    copy_site(source, target, what or task(), told.append)
    return told


def buckets(store: Store, question: Question) -> dict[tuple[str, ...], list[Any]]:
    return {
        subject: [one.positions.tolist(), [value.hex() for value in one.values.tolist()], one.samples.tolist()]
        for subject, one in store.buckets(question).items()
    }


def everything(store: Store) -> list[object]:
    """All that a store answers about the site."""
    where = {"site": ("main",)}
    return [
        [buckets(store, question) for question in QUESTIONS],
        [store.subjects(name, ("asset", "agent"), where, START + 9 * DAY_MS) for name in ("link", "alarm")],
        [latest(store, name) for name in ("link", "alarm")],
        [total for total in store.totals() if total.site == "main"],
        dict(store.accounts("main", PERIODS)),
        dict(store.owners("main")),
        store.scorecards("main", 0),
        store.scorecard_list("main", 0, START + 9 * DAY_MS),
    ]


def latest(store: Store, name: str) -> list[Latest]:
    """In an order of its own: stores agree on it only between assets."""
    found = [row for row in store.latest(name, START) if row.tags["site"] == "main"]
    return sorted(found, key=lambda row: sorted(row.tags.items()))


POINTS = st.lists(
    st.tuples(
        st.integers(0, 16 * 60 * 2).map(lambda quarter: quarter * 30_000),
        st.sampled_from(["core-1", "a b", 'q"\\,=']),
        st.sampled_from(["", "1", "二"]),
        st.integers(0, 100 * 1024).map(lambda step: step / 1024),
        st.sampled_from([None, 'up, "link" \\', "上联"]),
        st.booleans(),
    ),
    max_size=12,
).map(lambda drawn: [point_of(*one) for one in drawn])


def point_of(at: int, asset: str, lane: str, value: float, alias: str | None, is_alarm: bool) -> Point:
    if is_alarm:
        return point(at, asset, "alarm", tags={}, raised_count=1.0)
    label = {} if alias is None else {"alias": alias}
    return point(at, asset, tags={"interface": "eth0", "lane": lane} if lane else {}, busy_ratio=value, **label)


BATCHES = st.lists(
    st.tuples(
        st.sampled_from(["gw-1", "gw-2"]), st.sampled_from(["b1", "b2", ""]), st.integers(0, 9), POINTS, st.booleans()
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda drawn: drawn[:3],
).map(lambda drawn: [batch_of(place, *one) for place, one in enumerate(drawn)])


def batch_of(place: int, agent: str, boot: str, seq: int, points: list[Point], drops: bool) -> AppliedBatch:
    made = batch(seq, *points, agent=agent, boot=boot, dropped=[("b1", 20, 20 + place, 5)] if drops else ())
    identity = made.identity if boot else f"foreign-{agent}-{seq}"
    return made._replace(identity=identity, made_at=START + place * HOUR_MS, set_aside=place % 3)


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    with speaking("en"):
        yield


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(parts=BATCHES)
def test_a_site_there_and_back_answers_everything_alike(stores: Stores, parts: list[AppliedBatch]) -> None:
    source, between, back = stores.duckdb(), stores.influxdb(), stores.duckdb()
    for one in parts:
        source.write([one, one._replace(site="other")])
    for revision in (1, 2):
        source.save_scorecard("main", START, f"d{revision}", b"{}" * revision, START + revision, "why", "summary")
    source.save_scorecard("other", START, "d9", b"{}", START)
    expected = everything(source)
    copied(source, between)
    assert everything(between) == expected
    copied(between, back)
    assert everything(back) == expected
    assert {total.site for total in back.totals()} == {"main"}


def a_site(source: Store) -> None:
    points = [*every_minute(180), *every_minute(180, 20.0, "core-2")]
    source.write([batch(seq, *points[seq * 60 : seq * 60 + 60]) for seq in range(6)])


def test_what_only_kept_buckets_know_goes_along_there_and_back(stores: Stores) -> None:
    source, between, back = stores.duckdb(), stores.influxdb(), stores.duckdb()
    hourly = ask(buckets=3, each_ms=HOUR_MS, where=OF_SITE)
    five = ask(Take("max"), buckets=36, per=("asset",), where=OF_SITE)
    day = ask(buckets=1, each_ms=DAY_MS, per=("asset",), where=OF_SITE)
    a_site(source)
    for question in (hourly, five, day):
        source.buckets(question, START + 2 * DAY_MS)
    assert source.keep()
    source.write([batch(9, *every_minute(5, 70.0, start=40 * 24 * 60))])
    assert source.prune(START + 40 * DAY_MS)
    expected = [buckets(source, question) for question in (hourly, five, day)]
    assert all(expected)
    told = copied(source, between, task(hourly, five, day))
    assert {one.name for one in told} == {"link", "batch", "bucket"}
    assert [buckets(between, question) for question in (hourly, five, day)] == expected
    copied(between, back, task(hourly, five, day))
    assert [buckets(back, question) for question in (hourly, five, day)] == expected
    assert everything(back) == everything(source)


def test_kept_buckets_of_earlier_rules_stay_behind_and_are_counted(stores: Stores) -> None:
    source, target = stores.duckdb(), stores.influxdb()
    a_site(source)
    source.buckets(ask(buckets=3, each_ms=HOUR_MS, where=OF_SITE), START + 2 * DAY_MS)
    source.keep()
    source.prune(START + 40 * DAY_MS)
    assert copy_site(source, target, task(), lambda progress: None) == 1


class Killed(Exception):
    """The process ended here."""


@pytest.mark.parametrize("moment", range(5))
@pytest.mark.parametrize("kind", ["duckdb", "influxdb"])
def test_a_copy_that_broke_off_goes_on_and_comes_to_the_same(stores: Stores, kind: str, moment: int) -> None:
    source, target = stores.duckdb(), getattr(stores, kind)()
    a_site(source)
    source.write([batch(7, point(0, "alarmed", "alarm", tags={}, raised_count=1.0))])
    source.save_scorecard("main", START, "d1", b"{}", START)
    at = itertools.count()

    def breaks(progress: Progress) -> None:
        if next(at) == moment:
            raise Killed

    try:
        copy_site(source, target, task(), breaks)
    except Killed:
        copied(source, target)
    assert everything(target) == everything(source)


@pytest.mark.parametrize("kind", ["duckdb", "influxdb"])
def test_a_target_with_other_data_is_refused_and_stays_as_it_is(stores: Stores, kind: str) -> None:
    source, target = stores.duckdb(), getattr(stores, kind)()
    a_site(source)
    target.write([batch(0, point(0, "mine", busy_ratio=1.0))])
    before = everything(target)
    with pytest.raises(CopyError, match="other data of this site"):
        copied(source, target)
    assert everything(target) == before


@pytest.mark.parametrize("kind", ["duckdb", "influxdb"])
def test_another_site_in_the_target_is_no_hindrance(stores: Stores, kind: str) -> None:
    source, target = stores.duckdb(), getattr(stores, kind)()
    a_site(source)
    target.write([batch(0, point(0, "mine", busy_ratio=1.0))._replace(site="other")])
    copied(source, target)
    assert everything(target) == everything(source)
    assert [total.site for total in target.totals()] == ["main", "other"]


def test_a_complete_copy_and_another_source_are_told_apart(stores: Stores) -> None:
    source, target = stores.duckdb(), stores.duckdb()
    a_site(source)
    copied(source, target)
    with pytest.raises(CopyError, match="is complete"):
        copied(source, target)
    with pytest.raises(CopyError, match="other data of this site"):
        copied(source, target, task(called="another"))


def test_a_source_that_is_written_to_meanwhile_is_noticed(stores: Stores) -> None:
    source, target = stores.influxdb(), stores.duckdb()
    a_site(source)

    def writes(progress: Progress) -> None:
        source.write([batch(60, point(5 * MINUTE_MS, busy_ratio=3.0))])

    for _ in range(2):
        with pytest.raises(CopyError, match="was written to"):
            copy_site(source, target, task(), writes)


def test_a_copied_duckdb_file_goes_on_as_the_source_would(stores: Stores) -> None:
    source, target = stores.duckdb(), stores.duckdb()
    a_site(source)
    copied(source, target)
    for store in (source, target):
        store.write([batch(2, *every_minute(60)), batch(8, *every_minute(200, 70.0))])
    assert everything(target) == everything(source)


def test_empty_source_is_refused(stores: Stores) -> None:
    with pytest.raises(CopyError, match="no data of the site 'main'"):
        copied(stores.duckdb(), stores.influxdb())


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 400)), max_size=30, unique_by=lambda one: one[0]),
    st.integers(1, 120),
)
def test_slices_cover_every_hour_once_in_order_and_are_small(drawn: list[tuple[int, int]], most: int) -> None:
    hours = [(hour * HOUR_MS, rows) for hour, rows in sorted(drawn)]
    cut = list(slices(hours, most))
    assert all(rows <= most for _, _, rows in cut)
    assert all(end <= start for (_, end, _), (start, _, _) in itertools.pairwise(cut))
    covered = {hour for start, end, _ in cut for hour in range(start // HOUR_MS * HOUR_MS, end, HOUR_MS)}
    assert covered >= {hour for hour, _ in hours}
    assert sum(end - start for start, end, rows in cut if rows) >= len(hours) * HOUR_MS


def test_pruned_batch_rows_are_known_to_have_come_there_and_back(stores: Stores) -> None:
    source, between, back = stores.duckdb(), stores.influxdb(), stores.duckdb()
    for seq in (0, 1, 2, 5, 6):
        row = batch(seq, dropped=[("b1", 3, 3, 7)] if seq == 5 else ())
        source.write([row._replace(made_at=START + 4) if seq == 1 else row])
    source.prune(START + 370 * DAY_MS + 3)  # of 0 and 2 the rows go
    source.write([batch(8), batch(0, boot="b2", agent="gw-2")])
    expected = everything(source)
    assert [(total.batches, list(total.holes)) for total in source.totals()] == [
        (4, [("b1", 4, 4), ("b1", 7, 7)]),
        (1, []),
    ]
    copied(source, between)
    assert everything(between) == expected
    copied(between, back)
    assert everything(back) == expected
