"""Two small parts of the InfluxDB store, held against the plain way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collector.stores._influx_ledger import Ranges
from collector.stores._influx_pack import Numbering

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1])))
SUBJECTS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "1", "2"])), unique=True)


@given(SPANS)
def test_ranges_hold_what_was_added_and_name_what_is_missing(spans: list[tuple[int, int]]) -> None:
    ranges, plain = Ranges(), set[int]()
    for first, last in spans:
        ranges.add(first, last)
        plain.update(range(first, last + 1))
    assert [number for number in range(60) if number in ranges] == sorted(plain)
    missing = [number for first, last in ranges.holes() for number in range(first, last + 1)]
    assert missing == [number for number in range(max(plain, default=-1)) if number not in plain]
    assert all(after > before + 1 for before, after in zip(ranges.lasts, ranges.firsts[1:], strict=False))


@given(SUBJECTS, SUBJECTS)
def test_roll_of_one_collector_is_read_by_another_that_knows_others(
    here: list[tuple[str, str]], there: list[tuple[str, str]]
) -> None:
    mine, other = Numbering(), Numbering()
    my_numbers = {subject: mine.number(subject) for subject in here}
    other_numbers = {subject: other.number(subject) for subject in there}
    roll = mine.roll()
    assert other.lacks(roll.name) or set(here) == set(there)
    other.learn(roll.name, roll.marks)
    for _ in range(2):
        found = other.numbers_of(roll.name)
        assert found is not None
        for subject, number in my_numbers.items():
            assert found[roll.places[number]] == other_numbers.get(subject, -1)
        for subject in here:  # and later it hears of them too
            other_numbers[subject] = other.number(subject)
    assert np.array_equal(other.roll().marks, np.unique(other.roll().marks))
