"""What is held, quiet or missing in a bucket."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collector.buckets import NOTHING, Buckets, Found, Rows, append, quotient
from collector.numbers import answer_all, answer_together
from collector.query import HOUR_MS, Bounds, Expectation, Question, Take

MEAN = Take("mean")
ALWAYS = Expectation(("a",), 0, ((0, 1),))
BAD_TO_GOOD = Bounds(0.0, 1.0)


def question(hours: int, bucket: Take = MEAN, subject: Take = MEAN) -> Question:
    return Question("m", "f", (), ("asset",), 0, hours * HOUR_MS, HOUR_MS, bucket, subject)


def buckets(values: dict[int, float], samples: int = 1) -> Buckets:
    places = sorted(values)
    return Buckets(
        np.array(places, np.int64), np.array([values[at] for at in places]), np.full(len(places), samples, np.int64)
    )


def test_a_share_of_nothing_is_known_and_no_number() -> None:
    found = quotient(buckets({0: 5.0, 1: 0.0}), buckets({0: 10.0, 1: 0.0, 2: 10.0}), is_event=False)
    assert found.positions.tolist() == [0, 1]
    assert found.values[0] == 0.5 and np.isnan(found.values[1])
    [answer] = answer_all(question(3), {("a",): found}, [ALWAYS], BAD_TO_GOOD)
    assert (answer.expected, answer.found, answer.known) == (3, 2, 0.5)
    assert (answer.at_worst, answer.at_best) == (0.25, 0.75), "the third hour is missing, the second is not"


def test_a_share_of_nothing_without_its_part_is_known_too() -> None:
    found = quotient(buckets({}), buckets({0: 0.0, 1: 3.0}), is_event=False)
    assert found.positions.tolist() == [0] and np.isnan(found.values[0])


def test_events_of_the_whole_that_are_not_of_the_part_are_none_of_it() -> None:
    found = quotient(buckets({0: 1.0}), buckets({0: 2.0, 1: 1.0}), is_event=True)
    assert found.values.tolist() == [0.5, 0.0]


def test_too_few_samples_of_nothing_are_missing() -> None:
    found = quotient(buckets({0: 0.0}), buckets({0: 0.0}), is_event=False)
    [answer] = answer_all(question(1), {("a",): found}, [Expectation(("a",), 0, ((0, 2),))], BAD_TO_GOOD)
    assert (answer.found, answer.at_worst, answer.at_best) == (0, 0.0, 1.0)


def test_a_watched_hour_without_events_counts_as_0_only_where_events_are_counted() -> None:
    watched = Expectation(("a",), 0, ((0, 0),))
    counted, averaged = (
        answer_all(question(2, bucket, Take("sum")), {("a",): buckets({0: 3.0})}, [watched], BAD_TO_GOOD)[0]
        for bucket in (Take("count"), Take("max"))
    )
    assert (counted.at_worst, counted.at_best, counted.found) == (3.0, 3.0, 2)
    assert (averaged.at_worst, averaged.at_best, averaged.found) == (3.0, 3.0, 2)
    shares = [
        answer_all(question(2, bucket), {("a",): buckets({0: 1.0})}, [watched], BAD_TO_GOOD)[0].known
        for bucket in (Take("count"), Take("max"))
    ]
    assert shares == [0.5, 1.0]


def test_together_leaves_out_who_had_nothing_to_be_a_share_of() -> None:
    none = quotient(buckets({0: 0.0, 1: 0.0}), buckets({0: 0.0, 1: 0.0}), is_event=False)
    expected = [ALWAYS, Expectation(("b",), 0, ((0, 1),))]
    found = {("a",): buckets({0: 1.0, 1: 0.5}), ("b",): none}
    [answer] = answer_together(question(2), found, expected, BAD_TO_GOOD, Take("min"))
    assert (answer.found, answer.at_worst, answer.at_best) == (2, 0.75, 0.75)


# -- what a store found, all subjects at once


@st.composite
def found_in_parts(draw: st.DrawFn) -> Found:
    """A few subjects of any numbers over six buckets, their rows in no order and in two parts."""
    numbers = draw(st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True))
    cells = draw(st.lists(st.tuples(st.sampled_from(numbers), st.integers(0, 5)), unique=True, max_size=20))
    columns = np.array(cells, np.int64).reshape(-1, 2)
    rows = Rows(columns[:, 0], columns[:, 1], columns[:, 1] * 0.5, columns[:, 0] + 1)
    cut = draw(st.integers(0, len(cells)))
    parts = [Rows(*(column[piece] for column in rows)) for piece in (slice(cut), slice(cut, None))]
    return Found({number: (f"s{number}",) for number in numbers}, parts, 6)


@given(found_in_parts(), st.data())
def test_what_was_found_answers_as_the_buckets_of_each_subject(found: Found, data: st.DataObject) -> None:
    each = dict(found)
    assert all(len(one.positions) == found.count(key) > 0 for key, one in each.items())
    assert all((np.diff(one.positions) > 0).all() for one in each.values())
    known = [*each, ("nobody",)]
    chosen = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=8))
    expectations = [Expectation(key, 0, ((0, 3),)) for key in chosen]
    for bucket, subject in ((MEAN, MEAN), (Take("count"), Take("sum")), (MEAN, Take("last"))):
        asked = question(6, bucket, subject)
        assert answer_all(asked, found, expectations, BAD_TO_GOOD) == answer_all(asked, each, expectations, BAD_TO_GOOD)


@given(found_in_parts(), found_in_parts())
def test_what_follows_stands_behind(earlier: Found, later: Found) -> None:
    both = earlier.followed_by(later)
    assert set(both) == {*earlier, *later}
    for key, one in both.items():
        moved = later.get(key, NOTHING)
        expected = append(earlier.get(key, NOTHING), moved._replace(positions=moved.positions + 6))
        assert [column.tolist() for column in one] == [column.tolist() for column in expected]
