"""How a kept chunk holds its numbers, and which marks change what was kept."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collector.query import HOUR_MS
from collector.stores import LateHour
from collector.stores import _kept as kept

NUMBERS = st.one_of(st.integers(0, 255), st.integers(0, 65_535), st.integers(0, 2**33), st.integers(0, 2**62))


@given(st.lists(st.lists(NUMBERS, max_size=6), max_size=6))
def test_numbers_come_back_whatever_widths_stand_side_by_side(parts: list[list[int]]) -> None:
    packed = [kept._pack(np.array(part, np.int64)) for part in parts]
    assert kept._unpack(packed, [len(part) for part in parts]).tolist() == [number for part in parts for number in part]


def test_numbers_take_no_more_bytes_than_the_greatest_needs() -> None:
    for greatest, width in ((255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32, 8)):
        assert len(kept._pack(np.array([0, greatest], np.int64))) == 2 * width


def test_chunk_that_is_taken_unpacked_has_8_bytes_a_number() -> None:
    packed = kept.KeptChunk("0f", "m", 0, 10, 5, bytes([1, 2]), bytes([3, 0, 0, 1]), np.array([0.5, 2.5]).tobytes())
    fresh = kept.Fresh()
    fresh.remember(fresh.seen(), [packed])
    (taken,) = fresh.take()
    assert np.frombuffer(taken.places, "<i8").tolist() == [1, 2]
    assert np.frombuffer(taken.samples, "<i8").tolist() == [3, 256]
    assert (taken.values, taken.made_at, taken.question) == (packed.values, 5, "0f")
    assert fresh.take() == []
    fresh.remember(fresh.seen(), [packed])
    assert fresh.take_packed() == [packed]
    assert kept.unpacked(taken) == taken


HALF_HOURS = st.integers(0, 200).map(lambda number: number * HOUR_MS // 2)
CHUNKS = st.lists(
    st.builds(
        lambda start, size, made_at: kept.KeptChunk("0f", "m", start, start + size, made_at, b"", b"", b""),
        HALF_HOURS,
        st.sampled_from([HOUR_MS // 2, HOUR_MS, 3 * HOUR_MS, 24 * HOUR_MS]),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=60,
)
MARKS = [
    LateHour("m", f"{hour} at {received}", hour * HOUR_MS, received) for hour in range(125) for received in range(7)
]
"""One of each hour and moment, known by its asset."""


@given(CHUNKS)
def test_marks_read_by_runs_tell_of_every_chunk_what_all_marks_tell(chunks: list[kept.KeptChunk]) -> None:
    runs = kept.runs_of(chunks)
    assert len(runs) <= kept.MOST_RUNS
    told = [
        mark
        for mark in MARKS
        if any(run.start - HOUR_MS < mark.hour < run.end and mark.received >= run.made_at for run in runs)
    ]
    by_hour, all_by_hour = kept._marks(told), kept._marks(MARKS)
    for chunk in chunks:
        assert kept._late_assets(chunk, by_hour) == kept._late_assets(chunk, all_by_hour)
