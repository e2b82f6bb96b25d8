"""Two collectors over one InfluxDB, each with its own memory and its own clock: what one writes the other knows."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from influxstore import config_of
from linkstore import CATALOGUE, MINUTE_MS, START, applied, ask, batch, every_minute, point
from servers import Influx

from agent.errors import PointsRefused
from collector.query import DAY_MS, HOUR_MS, Question, Take
from collector.stores import LATENESS_MS, AppliedBatch, BatchName, DrawnAsset, Score
from collector.stores._influx_kept import SKEW_MS, announce
from collector.stores._influx_records import LAST_MS
from collector.stores.influxdb import Store

CLOSED = START + HOUR_MS + LATENESS_MS
HOURLY = ask(buckets=2, each_ms=HOUR_MS)


@pytest.fixture
def both(influx: Influx, database: str) -> Iterator[tuple[Store, Store]]:
    config = config_of(influx, database)
    with Store(config, CATALOGUE) as one, Store(config, CATALOGUE) as other:
        yield one, other


def received(at: int, seq: int, *points: object) -> AppliedBatch:
    return batch(seq, *points)._replace(received_at=START + at)  # type: ignore[arg-type]


def means(store: Store, question: Question, now: int | None = None) -> dict[str, list[float]]:
    return {subject[0]: one.values.tolist() for subject, one in store.buckets(question, now).items()}


# -- what one writes the other knows


def test_batch_that_one_wrote_the_other_passes_over(both: tuple[Store, Store]) -> None:
    for store in both:
        store.write([batch(0, *every_minute(5))])
    for store in both:
        assert [(total.batches, total.points) for total in store.totals()] == [(1, 5)]
        assert applied(store, ["b1/0", "b1/1"]) == {"b1/0"}


def test_batch_that_both_ask_for_before_either_writes_is_there_once(both: tuple[Store, Store]) -> None:
    rows = [batch(seq, *every_minute(5), agent=agent) for agent in ("gw-1", "gw-2") for seq in range(3)]
    wanted = {BatchName(row.site, row.agent, row.identity): (row.made_at, row.made_at) for row in rows}
    for store in both:
        assert store.applied(wanted) == set()
    for later, store in enumerate(both):
        store.write([row._replace(received_at=row.received_at + later) for row in rows])
    for store in both:
        assert [(total.agent, total.batches, total.points) for total in store.totals()] == [
            ("gw-1", 3, 15),
            ("gw-2", 3, 15),
        ]
        assert store.applied(wanted) == set(wanted)
    assert [rows.values for rows in both[0]._open.ask(['SELECT count("seq") FROM "batch"'])] == [[[0, 6]]]


def test_batch_that_does_not_say_when_it_was_made_is_asked_for_again_before_it_is_written(
    both: tuple[Store, Store],
) -> None:
    """It would stand where each collector received it: twice."""
    one, other = both
    foreign = batch(0, *every_minute(2))._replace(boot="", seq=-1, identity="9f" * 32, received_at=START)
    wanted = {BatchName("main", "gw-1", foreign.identity): (START - DAY_MS, START + DAY_MS)}
    assert one.applied(wanted) == other.applied(wanted) == set()
    one.write([foreign])
    other.write([foreign._replace(received_at=START + 1)])
    assert [rows.values for rows in one._open.ask(['SELECT "received_at" FROM "batch"'])] == [[[START, START]]]


def test_answer_about_a_batch_holds_for_one_write_alone(both: tuple[Store, Store]) -> None:
    one, other = both
    row, next_one = batch(0, *every_minute(2)), batch(1, *every_minute(2))
    assert other.applied({BatchName("main", "gw-1", "b1/0"): (row.made_at, row.made_at)}) == set()
    other.write([next_one])
    one.write([row])
    other.write([row._replace(received_at=row.received_at + 1)])
    received_at = [values[1] for rows in one._open.ask(['SELECT "received_at" FROM "batch"']) for values in rows.values]
    assert received_at == [row.received_at, next_one.received_at]


def test_subject_that_one_saw_first_the_other_sees_and_answers_about(both: tuple[Store, Store]) -> None:
    one, other = both
    assert means(other, HOURLY) == {}
    one.write([batch(0, point(HOUR_MS, busy_ratio=1.0))])
    other.write([batch(1, point(0, busy_ratio=3.0), point(0, "core-2", busy_ratio=5.0))])
    for store in both:
        known = store.subjects("link", ("asset",), {}, START + DAY_MS)
        assert [(row.subject, row.first_seen) for row in known] == [(("core-1",), START), (("core-2",), START)]
        assert means(store, HOURLY) == {"core-1": [3.0, 1.0], "core-2": [5.0]}


def test_first_sight_is_the_earliest_whoever_wrote_last(both: tuple[Store, Store]) -> None:
    one, other = both
    for seq, (store, at) in enumerate([(one, 5), (other, 9), (other, 7), (one, 6)]):
        store.write([batch(seq, point(at, busy_ratio=1.0), point(at, "b", busy_ratio=1.0))])
    for store in both:
        assert {row.first_seen - START for row in store.subjects("link", ("asset",), {}, START + DAY_MS)} == {5}


def test_totals_of_both_hold_what_either_wrote_however_late_it_was_made(both: tuple[Store, Store]) -> None:
    one, other = both
    days = [batch(seq)._replace(made_at=START + seq * HOUR_MS, received_at=START + 90 * HOUR_MS) for seq in range(30)]
    for number, row in enumerate([days[29], days[3], days[17], days[4], days[0]]):
        both[number % 2].write([row])
        for store in both:
            (total,) = store.totals()
            assert total.batches == number + 1
    assert list(one.totals()[0].holes) == list(other.totals()[0].holes) == [("b1", 1, 2), ("b1", 5, 16), ("b1", 18, 28)]


def test_batch_that_waited_while_the_other_counted_is_counted(both: tuple[Store, Store]) -> None:
    one, other = both
    one.write([batch(5)._replace(made_at=START + 5 * HOUR_MS, received_at=START + 5 * HOUR_MS)])
    for _ in range(3):
        one.totals()
    other.write([batch(2)._replace(made_at=START, received_at=START)])  # received long ago, written only now
    assert [total.batches for total in one.totals()] == [2]


def test_owner_is_who_came_first_to_the_server_whatever_the_clocks_say(both: tuple[Store, Store]) -> None:
    one, other = both
    for store in both:
        store.write([batch(0, point(0, "known", busy_ratio=1.0))])
    one.write([batch(1, point(0, "shared", busy_ratio=1.0), agent="gw-2")])
    other.write([batch(1, point(0, "shared", busy_ratio=1.0), agent="gw-1")._replace(received_at=START - DAY_MS)])
    assert one.owners("main") == other.owners("main") == {"known": "gw-1", "shared": "gw-2"}


def test_scorecard_that_both_write_is_one_and_another_is_the_next_revision(both: tuple[Store, Store]) -> None:
    one, other = both
    body = bytes(range(256)) * 4000
    scores = [
        Score("node", "total", 7.5, 90.0, 0.25, "scored"),
        Score("criterion", "ev-dr-plan", 100.0, 100.0, 1.0, "scored", START + DAY_MS),
    ]
    assets = [DrawnAsset("core-1", {"zone": "core", "class": "switch"}, True), DrawnAsset("new 1", {}, False)]
    assert one.save_scorecard("main", START, "d1", body, START + 1, "", "s", scores, assets) == 1
    assert other.save_scorecard("main", START, "d1", body, START + 9, "", "s", scores) == 1
    assert other.save_scorecard("main", START, "d2", b"{}", START + 9) == 2
    assert one.save_scorecard("main", START, "d1", body, START + 20) == 1
    for store in both:
        assert [(card.revision, card.digest, card.body) for card in store.scorecards("main", 0)] == [
            (1, "d1", body),
            (2, "d2", b"{}"),
        ]
    vouched, total = one._open.ask(
        ['SELECT "low", "high", "coverage", "status", "expires", "left_seconds" FROM "score" GROUP BY *']
    )
    assert total.tags == {"site": "main", "kind": "node", "node": "total"}
    assert total.values == [[START, 7.5, 90, 0.25, "scored", None, None]]
    assert vouched.tags == {"site": "main", "kind": "criterion", "node": "ev-dr-plan"}
    assert vouched.values == [[START, 100, 100, 1, "scored", START + DAY_MS, 86_400]]
    rows = one._open.ask(['SELECT "is_registered" FROM "asset" GROUP BY *'])
    assert sorted((row.tags["asset"], row.tags["zone"], row.tags["class"], row.values) for row in rows) == [
        ("core-1", "core", "switch", [[START - START % DAY_MS, 1]]),
        ("new 1", "", "", [[START - START % DAY_MS, 0]]),
    ]


# -- late points: the mark is there before anybody could keep a bucket without them


def test_bucket_that_one_kept_is_read_again_when_the_other_wrote_late(both: tuple[Store, Store]) -> None:
    one, other = both
    one.write([received(0, 0, *every_minute(60, 20.0))])
    one.buckets(HOURLY, CLOSED)
    assert one.keep() == 1
    other.write([received(2 * HOUR_MS, 1, point(30_000, busy_ratio=81.0))])
    for store in both:
        assert means(store, HOURLY) == {"core-1": [21.0]}


@pytest.mark.parametrize("when", ["before it is kept", "after it is kept"])
def test_point_received_in_time_but_written_beside_the_other_s_reading_is_not_lost(
    both: tuple[Store, Store], when: str
) -> None:
    one, other = both
    one.write([received(0, 0, *every_minute(60, 20.0))])
    in_time = received(HOUR_MS - 5, 1, point(30_000, busy_ratio=81.0))
    one.buckets(HOURLY, CLOSED)
    if when == "before it is kept":
        other.write([in_time])
    assert one.keep() == 1
    if when == "after it is kept":
        other.write([in_time])
    for store in both:
        assert means(store, HOURLY) == {"core-1": [21.0]}


def test_points_beside_a_refused_one_mark_the_hour_that_was_read_without_them(both: tuple[Store, Store]) -> None:
    one, other = both
    one.write([received(0, 0, *every_minute(60, 20.0))])
    other.write([received(5, 1, point(HOUR_MS, busy_ratio=20.0))])  # it has heard of no reading so far
    one.buckets(HOURLY, CLOSED)
    assert one.keep() == 1
    with pytest.raises(PointsRefused):
        other.write([received(HOUR_MS - 5, 2, point(30_000, busy_ratio=81.0), point(LAST_MS, busy_ratio=1.0))])
    for store in both:
        assert means(store, HOURLY)["core-1"][0] == 21.0


def test_reading_that_begins_while_the_other_writes_is_marked_before_the_batch_has_its_row(
    both: tuple[Store, Store],
) -> None:
    """The points are on their way: the other reads just before they land, and keeps what it read."""
    one, other = both
    one.write([received(0, 0, *every_minute(60, 20.0))])
    door = other._open
    write = door.write

    def write_slowly(lines: list[str]) -> None:
        if lines[0].startswith("link,"):
            one.buckets(HOURLY, CLOSED)
            assert one.keep() == 1
        write(lines)

    door.write = write_slowly  # type: ignore[method-assign,assignment]
    other.write([received(HOUR_MS - 5, 1, point(30_000, busy_ratio=81.0))])
    for store in both:
        assert means(store, HOURLY) == {"core-1": [21.0]}


@pytest.mark.parametrize("read_at", [CLOSED, CLOSED + 65_000])
def test_clock_that_is_behind_by_less_than_the_margin_loses_no_late_point(
    both: tuple[Store, Store], read_at: int
) -> None:
    one, other = both
    one.write([received(0, 0, *every_minute(60, 20.0))])
    one.buckets(HOURLY, read_at)
    assert one.keep() == 1
    behind = read_at - SKEW_MS + 5000
    other._open.write([announce("hours", behind)])  # both announced at once, and this one stands
    other.write([batch(1, point(30_000, busy_ratio=81.0))._replace(received_at=behind + 1000)])
    for store in both:
        assert means(store, HOURLY) == {"core-1": [21.0]}


def test_torn_chunk_is_computed_anew(influx: Influx, database: str, both: tuple[Store, Store]) -> None:
    """Two that keep the same chunk at the same moment may leave a piece of each."""
    one, other = both
    wide = ask(buckets=12)
    points = [
        point(minute * MINUTE_MS, f"a-{asset}", busy_ratio=math.sqrt(asset * 60 + minute))
        for asset in range(900)
        for minute in range(60)
    ]
    one.write([received(0, 0, *points)])
    expected = means(one, wide, CLOSED)
    assert one.keep() == 1
    [found] = json.loads(influx.ask('SELECT "piece" FROM "bucket" GROUP BY "part"', database, "ns"))["results"]
    [series] = found["series"]
    assert len(series["values"]) > 1, "it takes several pieces"
    assert means(other, wide) == expected
    other._open.write([f'bucket,part={series["tags"]["part"]} blob="AAAA" {series["values"][1][0]}'])
    assert means(other, wide, CLOSED) == expected
    assert other.keep() == 1
    assert other.keep() == 0
    assert means(one, wide) == expected


# -- the property: whoever writes, reads and keeps, in whatever order, the answer is that of raw points

DAYS = tuple(START + hour * HOUR_MS for hour in (0, 24, 47, 72))
QUESTIONS = [
    ask(per=("asset",), buckets=200, each_ms=5 * MINUTE_MS),
    ask(Take("percentile", p=95), per=("asset", "lane"), buckets=72, each_ms=HOUR_MS),
    Question("link", "busy_ratio", (), ("asset",), START, DAYS[-1], DAY_MS, Take("count"), Take("min"), DAYS[:-1]),
    ask(Take("max"), per=(), buckets=30, each_ms=2 * HOUR_MS),
    ask(Take("share", operator=">", threshold=40.0), per=("lane",), buckets=70, each_ms=40 * MINUTE_MS),
]
SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["1", "2"]),
        st.integers(0, 72 * 6 - 1).map(lambda part: part * 10 * MINUTE_MS),
        st.integers(0, 100 * 1024).map(lambda step: step / 1024),
    ),
    min_size=1,
    max_size=15,
)


class Act(NamedTuple):
    """One collector's turn. skew: its clock against the true one, within the margin. delay: since it received what it writes."""

    who: int
    what: str
    samples: list[tuple[str, str, int, float]]
    question: int
    skew: int
    delay: int
    wait: int


ACTS = st.lists(
    st.builds(
        Act,
        who=st.integers(0, 1),
        what=st.sampled_from(["write", "write", "read", "read", "keep", "restart"]),
        samples=SAMPLES,
        question=st.integers(0, len(QUESTIONS) - 1),
        skew=st.integers(-SKEW_MS // 2, SKEW_MS // 2),
        delay=st.sampled_from([0, 1000, 90_000, 3 * HOUR_MS]),
        wait=st.sampled_from([0, 0, 30_000, HOUR_MS, 9 * HOUR_MS]),
    ),
    min_size=4,
    max_size=16,
)
sites = itertools.count()
Read = Callable[[Store, Question, int | None], object]


class Two:
    """Two collectors and a third that never keeps."""

    def __init__(self, opener: Callable[[], AbstractContextManager[Store]]) -> None:
        self.opener = opener
        self.exits = [ExitStack() for _ in range(3)]
        self.stores = [exits.enter_context(opener()) for exits in self.exits]
        number = next(sites)
        self.warm, self.cold = f"warm-{number}", f"cold-{number}"
        self.clock, self.seq = START + 20 * HOUR_MS, 0

    def close(self) -> None:
        for exits in self.exits:
            exits.close()

    def play(self, act: Act) -> None:
        store = self.stores[act.who]
        if act.what == "write":
            points = [
                point(at, asset, tags={"lane": lane}, busy_ratio=value)
                for asset, lane, at, value in act.samples
                if START + at <= self.clock
            ]
            one = batch(self.seq, *points)._replace(received_at=self.clock - act.delay + act.skew)
            self.seq += 1
            store.write([one._replace(site=self.warm)])
            self.stores[2].write([one._replace(site=self.cold)])
        elif act.what == "read":
            self.compare(store, QUESTIONS[act.question], self.clock + act.skew)
        elif act.what == "keep":
            store.keep()
        else:
            self.exits[act.who].close()
            self.stores[act.who] = self.exits[act.who].enter_context(self.opener())
        self.clock += act.wait

    def compare(self, store: Store, question: Question, now: int | None) -> None:
        assert self.read(store, self.warm, question, now) == self.read(self.stores[2], self.cold, question, None)

    def read(self, store: Store, site: str, question: Question, now: int | None) -> object:
        asked = msgspec.structs.replace(question, where=(("site", (site,)), *question.where))
        return {
            subject: (one.positions.tolist(), one.values.tolist(), one.samples.tolist())
            for subject, one in store.buckets(asked, now).items()
        }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(acts=ACTS)
def test_two_collectors_answer_as_one_that_keeps_nothing(influx: Influx, database: str, acts: list[Act]) -> None:
    config = config_of(influx, database)
    two = Two(lambda: Store(config, CATALOGUE))
    try:
        for act in acts:
            two.play(act)
        for question in QUESTIONS:
            for store in two.stores[:2]:
                two.compare(store, question, two.clock)
                store.keep()
            two.compare(two.stores[0], question, None)
    finally:
        two.close()
