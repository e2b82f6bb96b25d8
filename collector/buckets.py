"""What a store found: buckets of many subjects as columns of numbers, and the arithmetic on columns that is the same everywhere. No I/O."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collector.query import Take, round9

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Buckets(NamedTuple):
    """The found buckets of one subject, ascending: positions in the window, rounded values, raw samples in each."""

    positions: Integers
    values: Floats
    samples: Integers


def append(earlier: Buckets, later: Buckets) -> Buckets:
    """One subject's buckets with those that follow them."""
    positions = np.concatenate([earlier.positions, later.positions])
    values = np.concatenate([earlier.values, later.values])
    return Buckets(positions, values, np.concatenate([earlier.samples, later.samples]))


NOTHING = Buckets(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


class Rows(NamedTuple):
    """Buckets of many subjects in no order: the subject's number, the position in the window, rounded value, raw samples."""

    subjects: Integers
    positions: Integers
    values: Floats
    samples: Integers

    def take(self, order: Integers) -> "Rows":
        """The rows in this order."""
        return Rows(self.subjects[order], self.positions[order], self.values[order], self.samples[order])

    def where(self, chosen: Flags) -> "Rows":
        """The chosen rows."""
        return self if chosen.all() else self.take(np.flatnonzero(chosen))


def join(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts."""
    if len(parts) < 2:
        return parts[0] if parts else NO_ROWS
    subjects, positions, values, samples = zip(*parts, strict=True)
    return Rows(*map(np.concatenate, (subjects, positions, values, samples)))


NO_ROWS = Rows(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


def split(rows: Rows, buckets_each: int) -> Iterator[tuple[int, Buckets]]:
    """Each subject's number and buckets; positions are below `buckets_each`."""
    return _slices(rows.take(_by_subject(rows, buckets_each)))


def _slices(rows: Rows) -> Iterator[tuple[int, Buckets]]:
    """The same of rows that are sorted by subject and position already, sharing their memory."""
    starts = np.flatnonzero(np.diff(rows.subjects, prepend=-1))
    for start, end in zip(starts, np.append(starts, len(rows.subjects))[1:], strict=True):
        within = slice(start, end)
        yield int(rows.subjects[start]), Buckets(rows.positions[within], rows.values[within], rows.samples[within])


class Found(Mapping[tuple[str, ...], Buckets]):
    """What a store found of many subjects: a mapping from each that has any rows to its buckets, a matrix for all at once.

    The rows stay as they came until somebody asks for one subject by itself; sorting them takes longer than all the rest.
    """

    def __init__(self, tags: Mapping[int, tuple[str, ...]], parts: Sequence[Rows], buckets_each: int) -> None:
        self._tags, self._parts, self._buckets_each = tags, parts, buckets_each
        self._passes = 0
        self._counts = np.zeros(1 + max((int(part.subjects.max(initial=-1)) for part in parts), default=-1), np.int64)
        for part in parts:
            self._counts += np.bincount(part.subjects, minlength=len(self._counts))
        self._numbers = {tags[number]: number for number in np.flatnonzero(self._counts).tolist()}

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self._numbers)

    def __getitem__(self, subject: tuple[str, ...]) -> Buckets:
        return self._each[self._numbers[subject]]

    @cached_property
    def _each(self) -> Mapping[int, Buckets]:
        rows = join(self._parts)
        rows = rows.take(_by_subject(rows, self._buckets_each))
        self._parts = [rows]  # not both in memory
        return dict(_slices(rows))

    def count(self, subject: tuple[str, ...]) -> int:
        """How many buckets of the subject were found."""
        number = self._numbers.get(subject)
        return 0 if number is None else int(self._counts[number])

    def followed_by(self, later: "Found") -> "Found":
        """These and those of the same store that come after the window."""
        each = self._buckets_each
        moved = [part._replace(positions=part.positions + each) for part in later._parts]
        return Found({**self._tags, **later._tags}, [*self._parts, *moved], each + later._buckets_each)

    def lay(self, subjects: Sequence[tuple[str, ...]], width: int) -> tuple[Floats, Integers]:
        """The values and samples of these subjects as matrices: a row each, an element per bucket; NaN and 0 where none is."""
        self._passes += 1
        if self._passes > MOST_PASSES or len(set(subjects)) < len(subjects):
            return lay_each(self, subjects, width)
        row_of = np.full(len(self._counts), -1)
        for row, subject in enumerate(subjects):
            number = self._numbers.get(subject)
            if number is not None:
                row_of[number] = row
        values, samples = np.full((len(subjects), width), np.nan), np.zeros((len(subjects), width), np.int64)
        for rows in self._parts:
            at = row_of[rows.subjects]
            is_wanted = at >= 0
            if not is_wanted.all():
                rows, at = rows.where(is_wanted), at[is_wanted]
            cells = at * width + rows.positions
            values.reshape(-1)[cells], samples.reshape(-1)[cells] = rows.values, rows.samples
        return values, samples


MOST_PASSES = 8
"""Through all rows, before they are sorted to find those of one block of subjects after the other."""


def lay_each(
    found: Mapping[tuple[str, ...], Buckets], subjects: Sequence[tuple[str, ...]], width: int
) -> tuple[Floats, Integers]:
    """The same of any mapping, one subject after the other."""
    values, samples = np.full((len(subjects), width), np.nan), np.zeros((len(subjects), width), np.int64)
    for row, subject in enumerate(subjects):
        buckets = found.get(subject, NOTHING)
        values[row, buckets.positions], samples[row, buckets.positions] = buckets.values, buckets.samples
    return values, samples


def by_position(rows: Rows) -> Rows:
    """The same rows, ascending by position."""
    places = _dense(rows.subjects)
    return rows.take(_ascending(rows.positions * (int(places.max(initial=0)) + 1) + places))


def _by_subject(rows: Rows, buckets_each: int) -> Integers:
    """The order that sorts the rows by subject, then position."""
    places = _dense(rows.subjects)
    if len(places) and places.max() < 2**16 and (np.diff(rows.positions) >= 0).all():
        return np.argsort(places.astype(np.uint16), kind="stable")  # of 16 bits that is a radix sort
    return _ascending(places * buckets_each + rows.positions)


def _dense(numbers: Integers) -> Integers:
    """For each of `numbers` its place among the different ones of them: no gaps between the numbers of subjects."""
    is_present = np.zeros(int(numbers.max(initial=-1)) + 1, np.bool_)
    is_present[numbers] = True
    places: Integers = (np.cumsum(is_present) - 1)[numbers]
    return places


def _ascending(numbers: Integers) -> Integers:
    """The order that sorts `numbers`, which are all different and mostly fill their range."""
    cells = int(numbers.max(initial=-1)) + 1
    if cells > 8 * len(numbers):
        return np.argsort(numbers)
    place = np.full(cells, -1, np.int64)  # each number has a place of its own: ten times as fast as comparing
    place[numbers] = np.arange(len(numbers))
    return place[place >= 0]


def quotient(part: Buckets, whole: Buckets, is_event: bool) -> Buckets:
    """Bucket by bucket `part` of `whole`, at most 1; NaN where the whole is 0: that is known, and gives no number.

    An absent part is 0 for events (each that is not known to be one of the part is none) and missing otherwise.
    """
    positions, values, samples = whole
    at = np.searchsorted(part.positions, positions)
    has_part = np.zeros(len(positions), np.bool_)
    inside = at < len(part.positions)
    has_part[inside] = part.positions[at[inside]] == positions[inside]
    parts = np.zeros(len(positions))
    parts[has_part] = part.values[at[has_part]]
    kept = np.ones(len(positions), np.bool_) if is_event else has_part | (values <= 0)
    parts, values = parts[kept], values[kept]
    shares = np.full(len(parts), np.nan)
    there = values > 0
    shares[there] = round9_all(np.clip(parts[there] / values[there], 0.0, 1.0))
    return Buckets(positions[kept], shares, samples[kept])


FEW_NUMBERS = 2000
"""Below this many `fsum` itself is faster than adding half of the columns to the other half."""


def exact_sums(values: Floats) -> Floats:
    """`math.fsum` of every row, half of its numbers to the other half again and again: what every addition lost is added at the end.

    That is right unless what is lost in adding up the losses could decide the rounding; such a row goes through `fsum`.
    """
    if values.size < FEW_NUMBERS:
        return np.array([math.fsum(row) for row in values.tolist()], np.float64)
    part, lost, size = np.array(values), np.zeros(len(values)), np.zeros(len(values))
    while (count := part.shape[1]) > 1:
        half = count // 2
        left, right = part[:, :half], part[:, half : 2 * half]
        added = left + right
        taken = added - left
        loss = (left - (added - taken)) + (right - taken)
        lost += loss.sum(1)
        size += np.abs(loss).sum(1)
        part[:, :half] = added
        part[:, half : count - half] = part[:, 2 * half :]
        part = part[:, : count - half]
    total = part[:, 0]
    doubt = (values.shape[1] + 2) * 2.0**-52 * size
    sums: Floats = total + lost
    unsure = np.flatnonzero((total + (lost - doubt) != sums) | (total + (lost + doubt) != sums))
    sums[unsure] = [math.fsum(row) for row in values[unsure].tolist()]
    return sums


_MEETS: Mapping[str, Any] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
}


def meets_all(condition: Take | None, values: Floats) -> Flags:
    """Which values meet the condition; without one all do. NaN meets none."""
    if condition is None:
        return np.ones(values.shape, np.bool_)
    met: Flags = _MEETS[condition.operator or "=="](values, condition.threshold or 0.0)
    return met


_POWERS = np.array([float(f"1e{power}") for power in range(23)])
"""The powers of ten that a float holds exactly."""


def round9_all(values: Floats) -> Floats:
    """`query.round9` of every value. Exact: what the fast way cannot decide goes through `round9` itself.

    A value times an exact power of ten is a whole number of nine digits plus an error below 1e-6; unless it lies that
    near to a half, the nearest whole number is right, and one multiplication or division of two exact floats rounds right.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shift = 8 - np.floor(np.log10(np.where(values == 0, 1.0, np.abs(values))))
        easy = np.abs(shift) <= 22
        power = _POWERS[np.where(easy, np.abs(shift), 0).astype(np.int64)]
        digits = np.where(shift >= 0, values * power, values / power)
        whole = np.rint(digits)
        easy &= np.abs(np.abs(digits - whole) - 0.5) > 1e-4
        rounded: Floats = np.where(shift >= 0, whole / power, whole * power)
    hard = np.flatnonzero(~easy)
    rounded[hard] = [round9(value) for value in values[hard].tolist()]
    return rounded + 0.0  # no negative zero
