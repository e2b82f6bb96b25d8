"""Kept buckets: what a store answers from them is, bit for bit, what raw points would give."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linkstore import CATALOGUE, MINUTE_MS, START, ask, batch, every_minute, point

from agent.catalogue import Catalogue
from agent.points import Point
from collector.query import DAY_MS, HOUR_MS, Question, Take
from collector.stores import LATENESS_MS, AppliedBatch, LateHour, Store

Opener = Callable[[Catalogue], AbstractContextManager[Store]]
Answer = dict[tuple[str, ...], tuple[list[int], list[str], list[int]]]

CLOSED = START + HOUR_MS + LATENESS_MS
"""When the first hour may be kept."""


def read(store: Store, question: Question, now: int | None = None) -> Answer:
    """Every subject's positions, values to the last bit, samples."""
    return {
        subject: (one.positions.tolist(), [value.hex() for value in one.values.tolist()], one.samples.tolist())
        for subject, one in store.buckets(question, now).items()
    }


def means(store: Store, question: Question, now: int | None = None) -> dict[str, list[float]]:
    """The values of each subject's buckets, by the subject's first tag."""
    return {subject[0]: one.values.tolist() for subject, one in store.buckets(question, now).items()}


def received(at: int, seq: int, *points: Point) -> AppliedBatch:
    """A batch received `at` milliseconds after START."""
    return batch(seq, *points)._replace(received_at=START + at)


HOURLY = ask(buckets=2, each_ms=HOUR_MS)
FIVE_MINUTES = ask(buckets=12)


def keep_first_hour(store: Store, question: Question = HOURLY, value: float = 20.0) -> None:
    """An hour of points, read when it is closed and kept."""
    store.write([received(0, 0, *every_minute(60, value))])
    store.buckets(question, CLOSED)
    assert store.keep() == 1


# -- what is kept, and when


def test_hour_is_kept_once_it_is_closed_and_not_before(store: Store) -> None:
    store.write([received(0, 0, *every_minute(90))])
    for question, now in ((HOURLY, CLOSED - 1), (HOURLY, None), (FIVE_MINUTES, CLOSED - 1)):
        store.buckets(question, now)
        assert store.keep() == 0
    store.buckets(HOURLY, CLOSED)
    store.buckets(FIVE_MINUTES, CLOSED)
    assert store.keep() == 2
    assert store.keep() == 0
    store.buckets(HOURLY, CLOSED + MINUTE_MS)
    store.buckets(FIVE_MINUTES, CLOSED + MINUTE_MS)
    assert store.keep() == 0, "what is kept is not kept again"


def test_kept_buckets_answer_after_a_restart_when_their_points_are_pruned(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        keep_first_hour(store, FIVE_MINUTES)
        before = read(store, FIVE_MINUTES)
        assert before
        store.prune(START + 40 * DAY_MS)
        assert read(store, HOURLY) == {}, "nobody had asked for hours"
    with opener(CATALOGUE) as store:
        assert read(store, FIVE_MINUTES) == before
        assert read(store, msgspec.structs.replace(FIVE_MINUTES, subject=Take("max"))) == before
        for other in (ask(Take("max"), buckets=12), ask(buckets=12, per=("asset",)), ask(buckets=12, field="is_up")):
            assert read(store, other) == {}, "another question is not answered by it"


def test_part_of_a_kept_hour_answers_a_window_that_begins_in_it(store: Store) -> None:
    keep_first_hour(store, FIVE_MINUTES)
    store.prune(START + 40 * DAY_MS)
    part = msgspec.structs.replace(FIVE_MINUTES, start=START + 50 * MINUTE_MS)
    assert read(store, part) == {("core-1", "eth0"): ([0, 1], [(20.0).hex()] * 2, [5, 5])}


def test_bucket_that_as_of_cuts_off_is_not_kept_as_a_whole_one(store: Store) -> None:
    store.write([received(0, 0, *every_minute(120))])
    for each_ms in (HOUR_MS, 5 * MINUTE_MS, 2 * HOUR_MS):
        cut = msgspec.structs.replace(ask(each_ms=each_ms), end=START + 31 * MINUTE_MS + 1)
        store.buckets(cut, START + DAY_MS)
    assert store.keep() == 0


def test_day_is_known_by_its_start_and_end(store: Store) -> None:
    hours = [point(hour * HOUR_MS, busy_ratio=1.0) for hour in range(72)]
    store.write([received(0, 0, *hours)])

    def days(*edges: int) -> Question:
        starts = tuple(START + hour * HOUR_MS for hour in edges)
        return Question(
            "link", "busy_ratio", (), ("asset",), starts[0], starts[-1], DAY_MS, Take("count"), Take("min"), starts[:-1]
        )

    for edges, counts in (((0, 24, 47, 72), [24.0, 23.0, 25.0]), ((0, 23, 47, 72), [23.0, 24.0, 25.0])):
        assert means(store, days(*edges), START + 5 * DAY_MS) == {"core-1": counts}
        store.keep()
        assert means(store, days(*edges)) == {"core-1": counts}
    store.prune(START + 40 * DAY_MS)
    assert means(store, days(0, 24, 47, 72)) == {"core-1": [24.0, 23.0, 25.0]}
    assert means(store, days(0, 24, 46, 72)) == {"core-1": [24.0]}


def test_kept_buckets_leave_after_three_years(store: Store) -> None:
    keep_first_hour(store)
    store.prune(START + 1100 * DAY_MS)
    assert means(store, HOURLY) == {"core-1": [20.0]}
    store.prune(START + 1101 * DAY_MS)
    assert means(store, HOURLY) == {}


# -- what comes late


def test_late_point_is_seen_and_the_bucket_is_kept_anew(store: Store) -> None:
    keep_first_hour(store)
    store.write([received(2 * HOUR_MS, 1, point(30_000, busy_ratio=81.0))])
    for _ in range(2):
        assert means(store, HOURLY, START + 3 * HOUR_MS) == {"core-1": [21.0]}
    assert store.keep() == 1
    store.prune(START + 40 * DAY_MS)
    assert means(store, HOURLY) == {"core-1": [21.0]}


def test_point_that_is_overwritten_late_counts_as_written_last(store: Store) -> None:
    keep_first_hour(store)
    store.write([received(2 * HOUR_MS, 1, point(0, busy_ratio=80.0))])
    assert means(store, HOURLY) == {"core-1": [21.0]}


def test_late_series_and_late_subject_are_seen_in_kept_hours(store: Store) -> None:
    question = ask(Take("count"), per=("asset",), buckets=2, each_ms=HOUR_MS)
    keep_first_hour(store, question)
    lane = point(0, tags={"interface": "eth0", "lane": "2"}, busy_ratio=1.0)
    store.write([received(2 * HOUR_MS, 1, lane, point(MINUTE_MS, "another", busy_ratio=1.0))])
    now = START + 3 * HOUR_MS
    assert means(store, question, now) == {"core-1": [61.0], "another": [1.0]}
    assert store.keep() == 1
    store.prune(START + 40 * DAY_MS)
    assert means(store, question) == {"core-1": [61.0], "another": [1.0]}


def test_point_before_all_others_is_seen(store: Store) -> None:
    question = ask(Take("count"), buckets=3, each_ms=HOUR_MS)
    store.write([received(0, 0, *every_minute(60, start=60))])
    store.buckets(question, START + DAY_MS)
    store.keep()
    store.write([received(DAY_MS, 1, point(0, busy_ratio=1.0))])
    assert means(store, question) == {"core-1": [1.0, 60.0]}


def days(*edges: int) -> Question:
    """How many samples each day has; edges in minutes after START, the days of a time zone begin anywhere."""
    starts = tuple(START + minute * MINUTE_MS for minute in edges)
    return Question(
        "link", "busy_ratio", (), ("asset",), starts[0], starts[-1], DAY_MS, Take("count"), Take("min"), starts[:-1]
    )


def test_late_points_are_seen_where_the_last_kept_day_ends_within_an_hour(store: Store) -> None:
    assets = [f"core-{number}" for number in range(12)]  # the marks of an hour stand all over it
    question = days(30, 30 + 24 * 60)
    store.write([received(0, 0, *(point(HOUR_MS, asset, busy_ratio=1.0) for asset in assets))])
    store.buckets(question, START + 2 * DAY_MS)
    assert store.keep() == 1
    store.write([received(2 * DAY_MS, 1, *(point(DAY_MS + MINUTE_MS, asset, busy_ratio=1.0) for asset in assets))])
    assert means(store, question) == {asset: [2.0] for asset in assets}


def test_late_point_is_seen_in_a_kept_day_in_which_a_shorter_one_lies(store: Store) -> None:
    whole, shorter = days(0, 24 * 60), days(0, 22 * 60)
    store.write([received(0, 0, point(HOUR_MS, busy_ratio=1.0))])
    for question in (whole, shorter):
        store.buckets(question, START + 2 * DAY_MS)
    assert store.keep() == 2
    store.write([received(2 * DAY_MS, 1, point(23 * HOUR_MS, busy_ratio=1.0))])
    assert means(store, whole) == {"core-1": [2.0]}
    assert means(store, shorter) == {"core-1": [1.0]}


def test_late_point_of_a_pruned_hour_leaves_the_kept_bucket_as_it_is(store: Store) -> None:
    keep_first_hour(store)
    store.prune(START + 40 * DAY_MS)
    store.write([received(41 * DAY_MS, 1, point(30_000, busy_ratio=81.0))])
    assert means(store, HOURLY, START + 41 * DAY_MS) == {"core-1": [20.0]}
    assert store.keep() == 0


def test_write_between_reading_and_keeping_is_not_lost(store: Store) -> None:
    store.write([received(0, 0, *every_minute(60, 20.0))])
    store.buckets(HOURLY, CLOSED)
    store.write([received(HOUR_MS, 1, point(30_000, busy_ratio=81.0))])  # in time, but the reading did not see it
    store.keep()
    assert means(store, HOURLY) == {"core-1": [21.0]}


def test_point_received_in_time_but_written_after_keeping_is_not_lost(store: Store) -> None:
    keep_first_hour(store)
    store.write([received(HOUR_MS, 1, point(30_000, busy_ratio=81.0))])
    assert means(store, HOURLY) == {"core-1": [21.0]}


def test_point_written_late_after_a_restart_is_not_lost(opener: Opener) -> None:
    with opener(CATALOGUE) as store:
        keep_first_hour(store)
    with opener(CATALOGUE) as store:
        store.write([received(HOUR_MS, 1, point(30_000, busy_ratio=81.0))])
    with opener(CATALOGUE) as store:
        assert means(store, HOURLY) == {"core-1": [21.0]}


def test_late_hours_are_listed_once_with_the_minute_of_the_newest(store: Store) -> None:
    late = [point(minute * MINUTE_MS, asset, busy_ratio=1.0) for asset in ("a", "b") for minute in (0, 1, 70)]
    now = START + 5 * HOUR_MS
    store.write([received(5 * HOUR_MS, 0, *late, point(5 * HOUR_MS, "a", busy_ratio=1.0))])
    store.write([received(5 * HOUR_MS + 1, 1, point(2, "a", busy_ratio=1.0))])
    store.write([received(6 * HOUR_MS, 2, point(3, "a", busy_ratio=1.0))])
    assert store.late_hours("main", now) == [
        LateHour("link", "a", START, now + HOUR_MS + MINUTE_MS),
        LateHour("link", "a", START + HOUR_MS, now + MINUTE_MS),
        LateHour("link", "b", START, now + MINUTE_MS),
        LateHour("link", "b", START + HOUR_MS, now + MINUTE_MS),
    ]
    assert [(late.asset, late.hour) for late in store.late_hours("main", now + HOUR_MS)] == [("a", START)]
    assert store.late_hours("elsewhere", 0) == []


def test_what_comes_within_two_minutes_is_not_late(store: Store) -> None:
    store.write([received(HOUR_MS + LATENESS_MS - 1, 0, *every_minute(60))])
    assert store.late_hours("main", 0) == []


def test_pruned_marks_leave_no_kept_bucket_wrong(store: Store) -> None:
    alarm = point(0, name="alarm", tags={}, raised_count=1.0)  # its points stay longer than marks do
    question = ask(Take("sum"), field="raised_count", measurement="alarm", per=("asset",), each_ms=HOUR_MS)
    store.write([received(0, 0, alarm)])
    store.buckets(question, CLOSED)
    store.keep()
    store.write([received(DAY_MS, 1, point(1, name="alarm", tags={}, raised_count=1.0))])
    store.prune(START + 60 * DAY_MS)
    assert store.late_hours("main", 0) == []
    assert means(store, question) == {"core-1": [2.0]}


# -- the property: whatever is read and kept on the way, the answer is that of raw points

DAYS = tuple(START + hour * HOUR_MS for hour in (0, 24, 47, 72))
QUESTIONS = [
    ask(per=("asset",), buckets=200, each_ms=5 * MINUTE_MS),
    ask(Take("percentile", p=95), per=("asset", "lane"), buckets=72, each_ms=HOUR_MS),
    Question("link", "busy_ratio", (), ("asset",), START, DAYS[-1], DAY_MS, Take("count"), Take("min"), DAYS[:-1]),
    ask(Take("last"), where=(("lane", ("1",)),), per=("asset",), buckets=150, each_ms=20 * MINUTE_MS),
    ask(Take("max"), per=(), buckets=30, each_ms=2 * HOUR_MS),
    ask(Take("sum"), where=(("asset", ("a", "c")),), per=("asset",), buckets=60, each_ms=90 * MINUTE_MS),
    ask(Take("percentile", p=5), per=("lane",), buckets=70, each_ms=40 * MINUTE_MS),
]

Samples = list[tuple[str, str, int, float]]
"""Asset, lane, milliseconds after START, value."""

SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["1", "2"]),
        st.integers(0, 72 * 6 - 1).map(lambda part: part * 10 * MINUTE_MS),
        st.integers(0, 100 * 1024).map(lambda step: step / 1024),
    ),
    min_size=1,
    max_size=25,
)
READS = st.lists(st.tuples(st.sampled_from(range(len(QUESTIONS))), st.integers(0, 12)), max_size=3)


class Round(NamedTuple):
    """Points come, questions are asked, points come beside the reading, what was read is kept or not, time goes by."""

    samples: Samples
    delay: int
    reads: list[tuple[int, int]]
    beside: Samples
    is_kept: bool
    is_restarted: bool
    wait: int


ROUNDS = st.lists(
    st.builds(
        Round,
        samples=SAMPLES,
        delay=st.integers(0, 90_000),
        reads=READS,
        beside=st.one_of(st.just([]), SAMPLES),
        is_kept=st.sampled_from([True, True, False]),
        is_restarted=st.sampled_from([False, False, True]),
        wait=st.sampled_from([0, 30_000, HOUR_MS, 9 * HOUR_MS]),
    ),
    min_size=2,
    max_size=7,
)
sites = itertools.count()


class Play:
    """Plays actions on two sites that get the same points: one reads and keeps, the other never does."""

    def __init__(self, opener: Opener) -> None:
        self.opener, self.exits = opener, ExitStack()
        self.store = self.exits.enter_context(opener(CATALOGUE))
        number = next(sites)
        self.warm, self.cold, self.fresh = (f"{name}-{number}" for name in ("warm", "cold", "fresh"))
        self.clock = START + 20 * HOUR_MS
        self.written: list[AppliedBatch] = []

    def ask(self, site: str, question: Question, now: int | None = None) -> Answer:
        where = (("site", (site,)), *question.where)
        return read(self.store, msgspec.structs.replace(question, where=where), now)

    def play(self, one: Round) -> None:
        self.write(one.samples, one.delay)
        for number, shift in one.reads:
            self.compare(number, shift)
        self.write(one.beside, one.delay)
        if one.is_kept:
            self.store.keep()
        if one.is_restarted:
            self.exits.close()
            self.store = self.exits.enter_context(self.opener(CATALOGUE))
        self.clock += one.wait

    def write(self, samples: Samples, delay: int) -> None:
        """What was received `delay` ago is written now; nothing comes from the future."""
        points = [
            point(at, asset, tags={"lane": lane}, busy_ratio=value)
            for asset, lane, at, value in samples
            if START + at <= self.clock - delay
        ]
        one = batch(len(self.written), *points)._replace(received_at=self.clock - delay)
        self.written.append(one)
        self.store.write([one._replace(site=self.warm), one._replace(site=self.cold)])

    def compare(self, number: int, shift: int) -> None:
        question = QUESTIONS[number]
        if not question.edges:  # windows move on, kept buckets stay
            question = msgspec.structs.replace(question, start=question.start + shift * question.each_ms)
        assert self.ask(self.warm, question, self.clock) == self.ask(self.cold, question)

    def finish(self) -> None:
        """The last word: what a store says that got everything in one call."""
        self.store.write([one._replace(site=self.fresh) for one in self.written])
        for question in QUESTIONS:
            expected = self.ask(self.fresh, question)
            assert self.ask(self.warm, question, self.clock) == expected
            self.store.keep()
            assert self.ask(self.warm, question) == expected


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(rounds=ROUNDS)
def test_warm_answers_are_cold_answers(opener: Opener, rounds: list[Round]) -> None:
    play = Play(opener)
    with play.exits:
        for one in rounds:
            play.play(one)
        play.finish()
