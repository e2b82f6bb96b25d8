"""What every store must answer: literal cases first, then the plain computation beside the store's."""

import itertools
import random
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from linkstore import (
    ETH0,
    HIGH_IS_BAD,
    MINUTE_MS,
    START,
    answer,
    ask,
    batch,
    every_minute,
    expect,
    point,
)

from agent.points import Point
from collector.query import DAY_MS, HOUR_MS, Bounds, Expectation, Question, SubjectAnswer, Take, reduce, round9
from collector.stores import Store, instant_of

# -- questions


def test_missing_buckets_count_as_worst_and_as_best(store: Store) -> None:
    store.write([batch(0, *every_minute(10, 20.0))])
    assert answer(store, ask(), [ETH0], HIGH_IS_BAD) == [
        SubjectAnswer(("core-1", "eth0"), at_worst=60.0, at_best=10.0, known=20.0, expected=4, found=2, samples=10)
    ]


def test_subject_never_seen_is_missing_throughout(store: Store) -> None:
    assert answer(store, ask(), [expect("core-9", "eth0")], HIGH_IS_BAD) == [
        SubjectAnswer(("core-9", "eth0"), at_worst=100.0, at_best=0.0, known=None, expected=4, found=0, samples=0)
    ]


def test_bucket_with_too_few_samples_is_missing(store: Store) -> None:
    store.write([batch(0, *every_minute(5, 20.0), *every_minute(3, 20.0, start=5))])
    row = answer(store, ask(buckets=2), [expect("core-1", "eth0", least=4)], HIGH_IS_BAD)[0]
    assert (row.at_worst, row.known, row.found, row.samples) == (60.0, 20.0, 1, 5)


def test_needed_samples_change_with_time(store: Store) -> None:
    store.write([batch(0, *every_minute(2, 20.0), *every_minute(2, 20.0, start=5))])
    since_second_bucket = ((START, 5), (START + 5 * MINUTE_MS, 2))
    expectation = Expectation(("core-1", "eth0"), 0, since_second_bucket)
    row = answer(store, ask(buckets=2), [expectation], HIGH_IS_BAD)[0]
    assert (row.found, row.at_worst) == (1, 60.0)


def test_buckets_before_enrolment_and_after_retirement_are_not_expected(store: Store) -> None:
    store.write([batch(0, *every_minute(20, 20.0))])
    enrolled = expect("core-1", "eth0", since=START + 1, until=START + 15 * MINUTE_MS)
    row = answer(store, ask(), [enrolled], HIGH_IS_BAD)[0]
    assert (row.expected, row.found, row.samples) == (2, 2, 10)


def test_nothing_expected_gives_no_number(store: Store) -> None:
    store.write([batch(0, *every_minute(20, 20.0))])
    row = answer(store, ask(), [expect("core-1", "eth0", since=START + DAY_MS)], HIGH_IS_BAD)[0]
    assert row == SubjectAnswer(("core-1", "eth0"), None, None, None, 0, 0, 0)


def test_state_is_asked_by_share_over_expected(store: Store) -> None:
    up = [point(minute * MINUTE_MS, is_up=float(minute < 10)) for minute in range(15)]
    store.write([batch(0, *up)])
    question = ask(Take("min"), Take("share", operator="==", threshold=1.0), field="is_up")
    row = answer(store, question, [ETH0], Bounds(0.0, 1.0))[0]
    assert (row.at_worst, row.at_best, row.known) == (0.5, 0.75, round9(2 / 3))


def test_share_of_samples_within_a_bucket(store: Store) -> None:
    store.write([batch(0, *(point(minute * MINUTE_MS, is_up=float(minute < 3)) for minute in range(4)))])
    question = ask(Take("share", operator=">", threshold=0.5), Take("mean"), field="is_up", buckets=1)
    assert answer(store, question, [ETH0], Bounds(0.0, 1.0))[0].known == 0.75


def test_dead_sensor_does_not_better_a_percentile(store: Store) -> None:
    busy_at_night = [point(m * MINUTE_MS, busy_ratio=95.0 if m < 60 else 5.0) for m in range(1080)]
    store.write([batch(0, *busy_at_night)])
    question = ask(Take("mean"), Take("percentile", p=95), buckets=24, each_ms=HOUR_MS)
    row = answer(store, question, [ETH0], HIGH_IS_BAD)[0]
    assert (row.at_worst, row.at_best, row.known) == (100.0, 5.0, 5.0)


def test_percentile_of_rank_zero_is_no_number(store: Store) -> None:
    store.write([batch(0, *every_minute(5))])
    row = answer(store, ask(subject=Take("percentile", p=1), buckets=1), [ETH0], HIGH_IS_BAD)[0]
    assert (row.at_worst, row.at_best, row.known) == (None, None, None)


def test_last_is_missing_when_a_newer_bucket_is(store: Store) -> None:
    store.write([batch(0, *every_minute(5, 10.0), *every_minute(5, 70.0, start=5))])
    newest, overtaken = (
        answer(store, ask(Take("last"), Take("last"), buckets=buckets), [ETH0], HIGH_IS_BAD)[0] for buckets in (2, 3)
    )
    assert (newest.at_worst, newest.at_best, newest.known) == (70.0, 70.0, 70.0)
    assert (overtaken.at_worst, overtaken.at_best, overtaken.known) == (100.0, 0.0, 70.0)


def test_silence_is_zero_events_only_where_it_was_watched(store: Store) -> None:
    store.write([batch(0, point(0, name="alarm", tags={}, raised_count=1.0))])
    question = ask(Take("sum"), Take("sum"), "raised_count", per=("asset",), measurement="alarm")
    watched_half = Expectation(("core-1",), 0, ((0, 0), (START + 10 * MINUTE_MS, 2**40)))
    assert answer(store, question, [watched_half], Bounds(5.0, 0.0)) == [
        SubjectAnswer(("core-1",), at_worst=11.0, at_best=1.0, known=1.0, expected=4, found=2, samples=1)
    ]


def test_counted_buckets_that_are_missing_count_at_best_only(store: Store) -> None:
    store.write([batch(0, *every_minute(5))])
    row = answer(store, ask(subject=Take("count")), [ETH0], Bounds(0.0, 1.0, share_is_good=True))[0]
    assert (row.at_worst, row.at_best, row.known) == (1.0, 4.0, 1.0)


def test_where_takes_any_of_the_allowed_values_of_every_tag(store: Store) -> None:
    points = [point(0, asset, busy_ratio=value) for asset, value in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    store.write([batch(0, *points)])
    question = ask(Take("sum"), Take("sum"), where=(("asset", ("a", "c")), ("interface", ("eth0",))), per=(), buckets=1)
    assert answer(store, question, [expect()], HIGH_IS_BAD)[0].known == 5.0


def test_value_with_quotes_is_a_value(store: Store) -> None:
    name = 'it\'s "x"; --'
    store.write([batch(0, point(0, tags={"interface": name}, busy_ratio=7.0))])
    question = ask(where=(("interface", (name,)),), buckets=1)
    assert answer(store, question, [expect("core-1", name)], HIGH_IS_BAD)[0].known == 7.0


def test_absent_tag_is_empty(store: Store) -> None:
    store.write([batch(0, point(0, tags={}, busy_ratio=7.0))])
    assert (
        answer(store, ask(where=(("interface", ("",)),), buckets=1), [expect("core-1", "")], HIGH_IS_BAD)[0].known
        == 7.0
    )
    assert store.subjects("link", ("interface",), {}, START)[0].subject == ("",)


def test_series_of_one_subject_are_taken_together(store: Store) -> None:
    lanes = [point(0, tags={"interface": "eth0", "lane": lane}, busy_ratio=v) for lane, v in (("1", 10.0), ("2", 30.0))]
    store.write([batch(0, *lanes)])
    answers = [answer(store, ask(Take(by), buckets=1), [ETH0], HIGH_IS_BAD)[0] for by in ("mean", "last")]
    assert [(row.known, row.samples) for row in answers] == [(20.0, 2), (30.0, 2)]


def test_tags_in_another_order_are_the_same_series(store: Store) -> None:
    one = Point("link", {"asset": "a", "interface": "x", "lane": "y"}, {"busy_ratio": 1.0}, START)
    other = Point("link", {"lane": "y", "asset": "a", "interface": "x"}, {"busy_ratio": 3.0}, START)
    store.write([batch(0, one, other)])
    assert answer(store, ask(Take("count"), per=("asset",), buckets=1), [expect("a")], HIGH_IS_BAD)[0].known == 1.0


def test_name_that_is_no_name_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="is no name"):
        answer(store, ask(field='x"; DROP TABLE batch; --'), [ETH0], HIGH_IS_BAD)
    with pytest.raises(ValueError, match="is no name"):
        store.subjects("link", ("a'b",), {}, START)


def test_days_of_unequal_length_have_their_own_edges(store: Store) -> None:
    edges = tuple(START + hours * HOUR_MS for hours in (0, 24, 47, 71))  # the second day has 23 hours
    store.write([batch(0, *(point(hour * HOUR_MS, busy_ratio=1.0) for hour in range(96)))])
    question = Question(
        "link", "busy_ratio", (), ("asset",), START, START + 95 * HOUR_MS, DAY_MS, Take("count"), Take("min"), edges
    )
    assert answer(store, question, [expect("core-1")], Bounds(0.0, 0.0))[0].known == 23.0
    assert list(store.buckets(question)[("core-1",)].values) == [24.0, 23.0, 24.0, 24.0]


# -- properties: the plain computation beside the store's

TAKES = [
    *(Take(by) for by in ("mean", "min", "max", "last", "sum", "count")),
    *(Take("percentile", p=p) for p in (0.0, 5.0, 50.0, 95.0, 100.0)),
    *(Take("share", operator=operator, threshold=40.0) for operator in ("<", "<=", ">", ">=", "==")),
]
Samples = list[tuple[str, str, int, float]]
"""Asset, lane, milliseconds after START, value."""

SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["1", "2"]),
        st.integers(0, 29).map(lambda half_minute: half_minute * 30_000),
        st.one_of(st.sampled_from([40.0, 0.0]), st.integers(0, 100 * 1024).map(lambda step: step / 1024)),
    ),
    max_size=60,
)
EDGES = [(), tuple(START + minute * MINUTE_MS for minute in (0, 3, 4, 9, 12))]
PROPERTY = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def question_of(bucket: Take, subject: Take, edges: tuple[int, ...]) -> Question:
    end = START + 15 * MINUTE_MS
    return Question("link", "busy_ratio", (), ("asset",), START, end, 3 * MINUTE_MS, bucket, subject, edges)


def plain_buckets(question: Question, samples: Samples) -> dict[tuple[str, int], list[float]]:
    """(asset, position) -> values in time order, the later write of an identity alone; of one time, the greater last."""
    unique = {(asset, lane, at): value for asset, lane, at, value in samples}
    starts = question.starts()
    found = defaultdict(list)
    for (asset, _, at), value in sorted(unique.items(), key=lambda item: (item[0][2], item[1])):
        found[asset, max(n for n, start in enumerate(starts) if start <= START + at)].append(value)
    return found


def plain_answer(question: Question, samples: Samples, one: Expectation, bounds: Bounds) -> SubjectAnswer:
    buckets, starts = plain_buckets(question, samples), question.starts()
    wanted = [n for n, start in enumerate(starts) if one.since <= start < one.until]
    held, missing, quiet = {}, [], 0
    for n in wanted:
        raw = buckets.get((one.subject[0], n), [])
        least = next((count for time, count in reversed(one.least) if time <= starts[n]), 1)
        value = reduce(question.bucket, raw, len(raw), None, False)
        if value is None and least == 0 and question.bucket.by in ("sum", "count"):
            value = 0.0
        if value is not None and len(raw) >= least:
            held[n] = (value, len(raw))
        elif value is None and least == 0:  # also a percentile of rank 0, which no rule asks of events
            quiet += 1
        else:
            missing.append(n)
    values, good = [value for value, _ in held.values()], bounds.share_is_good
    at_worst = reduce(question.subject, values, len(held) + len(missing), bounds.worst, not good)
    at_best = reduce(question.subject, values, len(held) + len(missing), bounds.best, good)
    if question.subject.by == "last" and any(n > max(held, default=-1) for n in missing):
        at_worst, at_best = bounds.worst, bounds.best
    known = reduce(question.subject, values, len(values), None, False)
    return SubjectAnswer(
        one.subject, at_worst, at_best, known, len(wanted), len(held) + quiet, sum(count for _, count in held.values())
    )


def link_points(samples: Samples) -> list[Point]:
    return [point(at, asset, tags={"lane": lane}, busy_ratio=value) for asset, lane, at, value in samples]


@PROPERTY
@given(
    samples=SAMPLES,
    bucket=st.sampled_from(TAKES),
    subject=st.sampled_from(TAKES),
    edges=st.sampled_from(EDGES),
    bounds=st.sampled_from([Bounds(100.0, 0.0, False), Bounds(0.0, 100.0, True), Bounds(40.0, 7.25, True)]),
    least=st.sampled_from([((0, 1),), (), ((0, 0),), ((0, 2), (START + 4 * MINUTE_MS, 1))]),
    since=st.integers(0, 15),
    length=st.integers(0, 20),
)
def test_answer_equals_the_plain_computation(
    store: Store,
    samples: Samples,
    bucket: Take,
    subject: Take,
    edges: tuple[int, ...],
    bounds: Bounds,
    least: tuple[tuple[int, int], ...],
    since: int,
    length: int,
) -> None:
    question = question_of(bucket, subject, edges)
    since, until = START + since * MINUTE_MS - 5 * MINUTE_MS, START + (since + length) * MINUTE_MS
    expectations = [Expectation((asset,), since, least, until) for asset in ("a", "b", "c", "never")]
    expected = [plain_answer(question, samples, one, bounds) for one in expectations]
    assert answer_alone(store, [samples], question, expectations, bounds) == expected


@PROPERTY
@given(
    samples=st.lists(SAMPLES.filter(bool), min_size=1, max_size=3),
    seed=st.randoms(use_true_random=False),
    bucket=st.sampled_from(TAKES),
    subject=st.sampled_from(TAKES),
)
def test_order_and_doubles_of_delivery_do_not_matter(
    store: Store, samples: list[Samples], seed: random.Random, bucket: Take, subject: Take
) -> None:
    once = {(asset, lane, at): value for part in samples for asset, lane, at, value in part}
    points = [(*identity, value) for identity, value in once.items()]
    shuffled = points + points[: len(points) // 2]
    seed.shuffle(shuffled)
    parts = [shuffled[: len(shuffled) // 3], shuffled[len(shuffled) // 3 :]]
    question = question_of(bucket, subject, ())
    expectations = [expect(asset) for asset in ("a", "b", "c")]
    straight = answer_alone(store, [sorted(points, key=lambda one: one[2])], question, expectations, HIGH_IS_BAD)
    assert answer_alone(store, parts, question, expectations, HIGH_IS_BAD) == straight


@PROPERTY
@given(
    samples=SAMPLES,
    gone=st.sets(st.integers(0, 4)),
    bucket=st.sampled_from([take for take in TAKES if take.by in ("mean", "min", "max", "last")]),
    subject=st.sampled_from(TAKES),
    is_high_good=st.booleans(),
)
def test_losing_buckets_never_betters_the_worst_nor_worsens_the_best(
    store: Store, samples: Samples, gone: set[int], bucket: Take, subject: Take, is_high_good: bool
) -> None:
    bounds = Bounds(0.0, 100.0, True) if is_high_good else Bounds(100.0, 0.0, False)
    question, expectations = question_of(bucket, subject, ()), [expect(asset) for asset in ("a", "b", "c")]
    fewer = [sample for sample in samples if sample[2] // (3 * MINUTE_MS) not in gone]
    full = answer_alone(store, [samples], question, expectations, bounds)
    lossy = answer_alone(store, [fewer], question, expectations, bounds)
    sign = 1 if is_high_good else -1
    for before, after in zip(full, lossy, strict=True):
        assert (after.at_worst is None) == (before.at_worst is None)
        assert sign * (after.at_worst or 0) <= sign * (before.at_worst or 0)
        assert sign * (after.at_best or 0) >= sign * (before.at_best or 0)


def test_one_instant_answers_many_questions_as_the_store_does(store: Store) -> None:
    lane = point(MINUTE_MS, tags={"interface": "eth0", "lane": "2"}, busy_ratio=1.0)
    store.write([batch(0, *every_minute(30), lane), batch(1, *every_minute(30, asset="core-2", start=20))])
    store.buckets(ask(), START + DAY_MS)
    store.keep()
    with instant_of(store) as instant:
        for question in (ask(), ask(Take("last"), per=("asset",)), ask(Take("max")), ask(measurement="alarm"), ask()):
            assert answer(instant, question, [ETH0], HIGH_IS_BAD) == answer(store, question, [ETH0], HIGH_IS_BAD)
            assert instant.compiled(question) == store.compiled(question)
        for until in (START - 1, START + 10 * MINUTE_MS, START + DAY_MS):
            for per in (("asset",), ("asset", "lane")):
                assert instant.subjects("link", per, {}, until) == store.subjects("link", per, {}, until)
    store.write([batch(2, *every_minute(5, start=60))])
    with instant_of(store) as instant:
        counted = answer(instant, ask(Take("count"), Take("sum"), buckets=13), [ETH0], HIGH_IS_BAD)
        assert counted[0].known == 36, "a later instant shows what was written since"


@PROPERTY
@given(samples=SAMPLES, bucket=st.sampled_from(TAKES), subject=st.sampled_from(TAKES), data=st.data())
def test_subjects_of_different_expectations_are_answered_as_each_alone(
    store: Store, samples: Samples, bucket: Take, subject: Take, data: st.DataObject
) -> None:
    times = st.integers(0, 15).map(lambda minute: START + minute * MINUTE_MS)
    spans = st.lists(times, max_size=6, unique=True).map(
        lambda edges: tuple(zip(*[iter(sorted(edges))] * 2, strict=False))
    )
    expectations = data.draw(
        st.lists(
            st.builds(
                Expectation,
                subject=st.sampled_from([("a",), ("b",), ("c",), ("never",)]),
                since=times,
                least=st.sampled_from([((0, 1),), (), ((0, 0),), ((0, 2), (START + 4 * MINUTE_MS, 1))]),
                until=st.one_of(times, st.just(2**62)),
                counted=st.one_of(st.none(), spans),
                excused=spans,
            ),
            max_size=6,
        )
    )
    question = question_of(bucket, subject, ())
    together = answer_alone(store, [samples], question, expectations, HIGH_IS_BAD)
    assert together == [answer_alone(store, [samples], question, [one], HIGH_IS_BAD)[0] for one in expectations]


sites = itertools.count()


def answer_alone(
    store: Store,
    parts: Sequence[Samples],
    question: Question,
    expectations: Sequence[Expectation],
    bounds: Bounds,
) -> list[SubjectAnswer]:
    """What the store answers about a site of its own that has these samples only, one batch for each part."""
    site = f"site-{next(sites)}"
    for seq, part in enumerate(parts):
        store.write([batch(seq, *link_points(part))._replace(site=site)])
    return answer(store, msgspec.structs.replace(question, where=(("site", (site,)),)), expectations, bounds)
