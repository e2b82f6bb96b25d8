"""Evidence: what stands beside every number so that anyone can check it again. No I/O."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import Literal

import msgspec

from agent.catalogue import Text
from collector.query import SubjectAnswer

Status = Literal["scored", "no_data", "not_applicable", "error"]

WORST_SHOWN = 5
EXEMPT_SHOWN = 20


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


class QuestionEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One question of a criterion and what the store answered.

    name: of the input, '' for a criterion that asks one thing. window: first and last millisecond asked for (end
    exclusive). expected, found: buckets of all subjects; samples: raw points in the found ones. unit: of the subjects'
    numbers. low, high: the number at worst and at best when one is left, in number_unit. missing: the subjects with the
    most missing buckets. exempt: whom an exemption took out. digest: SHA-256 of the canonical answers. since: when the
    first of the subjects was enrolled (ms), None without any. longest: the most buckets that any one subject has.
    """

    name: str
    measures: str
    query: str
    window: tuple[int, int]
    expected: int
    found: int
    samples: int
    subjects: int
    unit: str
    low: float | None
    high: float | None
    number_unit: str
    worst: Sequence[WorstSubject]
    missing: Sequence[WorstSubject]
    exempt: Sequence[Mapping[str, str]]
    digest: str
    since: int | None = None
    longest: int = 0


class AttestationEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Who vouched for what, until when, on which paper; times in RFC 3339. state: how it counts now."""

    author: str
    role: str
    since: str
    expires: str
    reason: str
    document: str
    sha256: str
    state: Literal["valid", "expired", "document_missing"]


class CriterionResult(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion at one time, with the evidence.

    low, high: points 0..100. value, best_value: the numbers that earned them, in the unit. expected, found, samples,
    subjects, worst: of the main question; query: all questions that can be run again. reason: why it is not scored.
    rule_digest: of the criterion's file and its scale's, so that a comparison can tell that the rule changed.
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
    best_value: float | None
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
    questions: Sequence[QuestionEvidence] = ()
    attestation: AttestationEvidence | None = None
    rule_digest: str = ""


CapState = Literal["met", "unknown", "not_met"]


class CapResult(msgspec.Struct, frozen=True, kw_only=True):
    """A ceiling of a node and whether its condition holds; an unknown one caps `low` only."""

    id: str
    title: Text
    ceiling: float
    state: CapState
    questions: Sequence[QuestionEvidence] = ()


def canonical_digest(rows: Iterable[SubjectAnswer]) -> str:
    """SHA-256 over the answers sorted by subject, numbers at 9 significant digits as the stores give them."""
    canonical = sorted(rows, key=attrgetter("subject"))  # each is written as an array of its fields in their order
    return hashlib.sha256(msgspec.json.encode(canonical)).hexdigest()


def joint_digest(digests: Iterable[str]) -> str:
    """One digest of several, in their order; that of one alone is itself."""
    found = list(digests)
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def worst_subjects(
    per: Sequence[str], rows: Iterable[SubjectAnswer], higher_is_better: bool
) -> tuple[WorstSubject, ...]:
    """The few subjects with the least favourable numbers; ties go by name."""
    sign = 1 if higher_is_better else -1
    known = [row for row in rows if row.at_worst is not None]
    worst = nsmallest(WORST_SHOWN, known, key=lambda row: (sign * (row.at_worst or 0.0), row.subject))
    return tuple(_shown(per, row) for row in worst)


def missing_subjects(per: Sequence[str], rows: Iterable[SubjectAnswer]) -> tuple[WorstSubject, ...]:
    """The few subjects with the most missing buckets; ties go by name."""
    lacking = [row for row in rows if row.found < row.expected]
    most = nsmallest(WORST_SHOWN, lacking, key=lambda row: (row.found - row.expected, row.subject))
    return tuple(_shown(per, row) for row in most)


def _shown(per: Sequence[str], row: SubjectAnswer) -> WorstSubject:
    return WorstSubject(name_subject(per, row.subject), row.at_worst, row.at_best, row.expected, row.found)


def name_subject(per: Sequence[str], key: Sequence[str]) -> Mapping[str, str]:
    """A subject's tags without the absent ones; subjects taken together have none."""
    return {tag: value for tag, value in zip(per, key, strict=False) if value}
