"""Evidence: what stands beside every number so that anyone can check it again. No I/O."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from agent.catalogue import Text
from collector.query import SubjectAnswer

Status = Literal["scored", "no_data", "not_applicable", "error"]

WORST_SHOWN = 5


class Provisional(msgspec.Struct, frozen=True):
    """What the known data alone would say; it earns nothing. rests_on: said while no closed bucket is known in full."""

    value: float
    points: float
    rests_on: Text | None = None


class WorstSubject(msgspec.Struct, frozen=True):
    """One of the subjects that pull the number down most, by name; low and high: its number at worst and at best."""

    subject: Mapping[str, str]
    low: float | None
    high: float | None
    expected: int
    found: int


class CriterionResult(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion at one time, with the evidence.

    low, high: points 0..100. value: the number that earned `low`, in the unit. expected, found: buckets of all subjects;
    samples: raw points in the found ones. query: what can be run again. window: first and last millisecond asked for (end exclusive).
    digest: SHA-256 of the canonical rows that the store returned. reason: why it is not scored.
    """

    id: str
    title: Text
    kind: Literal["measured", "attested"]
    status: Status
    weight: float
    effective_weight: float
    low: float
    high: float
    coverage: float
    value: float | None
    provisional: Provisional | None
    unit: str
    query: str | None
    window: tuple[int, int] | None
    expected: int
    found: int
    samples: int
    subjects: int
    worst: Sequence[WorstSubject]
    reason: Text | None
    digest: str


def canonical_digest(rows: Iterable[SubjectAnswer]) -> str:
    """SHA-256 over the answers sorted by subject, numbers at 9 significant digits as the stores give them."""
    canonical = [
        [list(row.subject), row.at_worst, row.at_best, row.known, row.expected, row.found, row.samples]
        for row in sorted(rows, key=lambda row: row.subject)
    ]
    return hashlib.sha256(msgspec.json.encode(canonical)).hexdigest()


def worst_subjects(
    per: Sequence[str], rows: Iterable[SubjectAnswer], higher_is_better: bool
) -> tuple[WorstSubject, ...]:
    """The few subjects with the least favourable numbers; ties go by name."""
    sign = 1 if higher_is_better else -1
    known = [row for row in rows if row.at_worst is not None]
    ordered = sorted(known, key=lambda row: (sign * (row.at_worst or 0.0), row.subject))
    return tuple(
        WorstSubject(
            {tag: value for tag, value in zip(per, row.subject, strict=True) if value},
            row.at_worst,
            row.at_best,
            row.expected,
            row.found,
        )
        for row in ordered[:WORST_SHOWN]
    )
