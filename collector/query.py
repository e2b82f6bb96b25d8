"""The question a rule asks of a store: one field, one window, two reductions. No I/O.

A store turns one field of one subject over time into buckets and one number. Joining subjects, steps, scales and
weights is arithmetic in `score`, the same for every store.
"""

import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Operator = Literal["<", "<=", ">", ">=", "=="]
Reducer = Literal["mean", "min", "max", "last", "sum", "count", "percentile", "share", "age"]
Spans = tuple[tuple[int, int], ...]
"""(start, end) in milliseconds, end exclusive; ascending and apart."""

NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What may stand in a query's text; values are bound or quoted, never pasted."""


class Take(msgspec.Struct, frozen=True):
    """How many numbers become one.

    percentile: the value at rank floor(n*p/100 + 0.5) of the ascending values, nothing when that rank is 0.
    share: how many of the values meet `operator threshold`, divided by how many there should be.
    last: the newest bucket's value, missing when a newer one is missing. age: seconds since the newest bucket whose value
    meets `operator threshold`; both of buckets alone.
    """

    by: Reducer
    p: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    operator: Operator | None = None
    threshold: float | None = None

    def __str__(self) -> str:
        if self.by == "percentile":
            return f"p{self.p:g}"
        if self.by in ("share", "age"):
            return f"{self.by}({self.operator} {self.threshold:g})"
        return self.by


class Question(msgspec.Struct, frozen=True):
    """One field of one measurement, per subject, over a window of closed buckets.

    where: tag -> allowed values (a point passes when every tag matches one of them); `asset` may be among them.
    per: the tags that make a subject, in order. A subject is the tuple of their values; an absent tag is ''.
    start, end: milliseconds, start inclusive and end exclusive, both bucket edges.
    edges: the starts of all buckets; evenly `each_ms` apart unless days change length (daylight saving).
    bucket: samples to one value; subject: bucket values to one number.
    """

    measurement: str
    field: str
    where: tuple[tuple[str, tuple[str, ...]], ...]
    per: tuple[str, ...]
    start: int
    end: int
    each_ms: int
    bucket: Take
    subject: Take
    edges: tuple[int, ...] = ()
    """Empty when every bucket is `each_ms` long from `start`."""

    def bucket_count(self) -> int:
        """How many buckets the window holds."""
        return len(self.starts())

    def starts(self) -> Sequence[int]:
        """The starts of all buckets."""
        return self.edges or range(self.start, self.end, self.each_ms)

    def check(self) -> None:
        """Refuse names that could not stand in a query's text. Raises ValueError."""
        for name in (self.measurement, self.field, *self.per, *(tag for tag, _ in self.where)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name")


class Expectation(msgspec.Struct, frozen=True, gc=False):
    """What a question may expect of one subject.

    since: a bucket counts when it starts at or after this (enrolment). until: and before this (retired).
    least: (from ms, samples) runs, ascending: from that time on a bucket that holds fewer samples is missing; before
    the first run one is enough. 0 means that silence is an answer (events that somebody watched for): an empty bucket then
    counts as 0 for `sum` and `count`, and is quiet, neither held nor missing, for the others; a number beyond all samples
    makes a bucket missing whatever it holds.
    counted: only buckets wholly inside one of these spans are expected (a calendar); None: all. excused: buckets that
    touch one of these spans are not expected (maintenance announced beforehand).
    """

    subject: tuple[str, ...]
    since: int
    least: tuple[tuple[int, int], ...]
    until: int = 2**62
    counted: Spans | None = None
    excused: Spans = ()


class SubjectAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a store says of one subject.

    at_worst, at_best: the number with every missing bucket at the question's worst or best value; None when even so there
    is no number (nothing expected, nothing happened, or a percentile of rank 0). known: the number over the found buckets
    alone, None when none was found. expected, found: buckets, the quiet ones among the found. samples: raw points in them.
    As JSON it is the array of its fields: the canonical row under every digest, so their order stays.
    """

    subject: tuple[str, ...]
    at_worst: float | None
    at_best: float | None
    known: float | None
    expected: int
    found: int
    samples: int


class Bounds(msgspec.Struct, frozen=True):
    """What a missing bucket counts as: in the least favourable and the most favourable reading.

    For a `share` or a `count` of buckets the values are not used: a missing bucket does not meet the condition (is not
    counted) at worst and does at best when `share_is_good`, the other way round when a high share is bad.
    """

    worst: float
    best: float
    share_is_good: bool = True


def least_samples(each_ms: int, interval_seconds: float) -> int:
    """The samples below which a bucket is missing: 0.9 x expected - 1, at least one."""
    expected = each_ms / 1000 / interval_seconds
    return max(1, math.ceil(0.9 * expected - 1))


def percentile_rank(count: int, p: float) -> int:
    """The 1-based rank that percentile p of `count` ascending values stands at; 0 when there is none."""
    return min(count, math.floor(count * p / 100 + 0.5))


def round9(value: float) -> float:
    """`value` at 9 significant digits: what makes the same number the same on every store. Never a negative zero."""
    return float(f"{value:.9g}") + 0.0 if math.isfinite(value) else value


def reduce(
    take: Take, values: Sequence[float], expected: int, missing_as: float | None, counts_as_met: bool
) -> float | None:
    """One number from the found bucket `values` in time order, as every store must give it.

    `expected - len(values)` buckets are missing and taken as `missing_as`; None leaves them out altogether
    (then `expected` is ignored). For `share` and `count` they are met (counted) when `counts_as_met` instead.
    `last` takes the last found value; whether a newer one is missing only the buckets tell. A sum is the exact sum of the
    values rounded once, in whatever order, and then the missing added.
    """
    missing = 0 if missing_as is None else expected - len(values)
    total = len(values) + missing
    if missing_as is None or missing == 0:
        missing_as = 0.0
    if total == 0:
        return None
    match take.by:
        case "share":
            met = sum(1 for value in values if meets(value, take)) + (missing if counts_as_met else 0)
            return round9(met / total)
        case "count":
            return float(total if counts_as_met else len(values))
        case "mean" | "sum":
            full = math.fsum(values) + missing * missing_as
            return round9(full / total if take.by == "mean" else full)
        case "last":
            return round9(values[-1] if values else missing_as)
    filled = sorted([*values, *([missing_as] * missing)])
    rank = {"min": 1, "max": total}.get(take.by, percentile_rank(total, take.p or 0))
    return None if rank == 0 else round9(filled[rank - 1])


def meets(value: float, take: Take) -> bool:
    """Whether `value` meets the condition of a share."""
    threshold = take.threshold if take.threshold is not None else 0.0
    return {
        "<": value < threshold,
        "<=": value <= threshold,
        ">": value > threshold,
        ">=": value >= threshold,
        "==": value == threshold,
    }[take.operator or "=="]
