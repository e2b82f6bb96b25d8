"""The shape of the rules: criteria, scales and the index as they stand in YAML. `rules_folder` reads and checks them."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import msgspec

from agent.catalogue import Text
from collector.query import Take

Weight = Annotated[float, msgspec.Meta(gt=0, le=1)]
Points = Annotated[float, msgspec.Meta(ge=0, le=100)]
Id = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
DurationText = Annotated[
    str,
    msgspec.Meta(
        pattern="^[1-9][0-9]{0,5}[smhd]$", description="时长，如 90s、5m、24h、30d / a span such as 90s, 5m, 24h, 30d"
    ),
]
TakeText = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(mean|min|max|last|sum|count|worst|best|p[0-9]{1,2}|(share|age) (<|<=|>|>=|==) -?[0-9.]+(e-?[0-9]+)?)$",
        description=(
            "mean、min、max、last、worst、best、p95、share >= 0.8 或 age >= 1 这样的归并 / "
            "a reduction such as mean, min, max, last, worst, best, p95, share >= 0.8 or age >= 1"
        ),
    ),
]
WatchText = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9_]+\.[a-z0-9_]+( (<|<=|>|>=|==) -?[0-9.]+(e-?[0-9]+)?)?$",
        description=(
            "信号，或信号与条件，如 wireless_sensor.coverage_ratio >= 0.8 / "
            "a signal, or a signal and a condition, such as wireless_sensor.coverage_ratio >= 0.8"
        ),
    ),
]
Confidence = Literal["confirmed", "secondary", "general-knowledge", "own-judgement"]
Better = Literal["higher", "lower"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every struct here refuses keys that it does not know."""


class Basis(_Strict, frozen=True):
    """Where a threshold comes from and how sure that is; source: an id of rules/sources.yaml.

    clause: item or clause numbers alone, the same in every language. note: what stands there, or what of it is our own.
    """

    source: Id
    confidence: Confidence
    clause: str = ""
    note: Text | None = None


class Rung(_Strict, frozen=True):
    """A step: the number at which these points are earned."""

    at: float
    points: Points
    basis: tuple[Basis, ...]


class Scale(_Strict, frozen=True):
    """From a number, in the signal's base unit, to points.

    rungs: the best rung met wins, below the last is 0. line: points between which to draw straight lines; outside, the ends hold.
    """

    title: Text
    unit: Literal["ratio", "seconds", "bits_per_second", "count", "level"]
    better: Better
    rungs: tuple[Rung, ...] = ()
    line: tuple[tuple[float, Points], ...] = ()
    basis: tuple[Basis, ...] = ()


class TakeBoth(_Strict, frozen=True):
    """The two reductions that a store makes: samples to a bucket, buckets to one number per subject."""

    bucket: TakeText
    subject: TakeText


class Step(_Strict, frozen=True):
    """One step from subjects to one number; per: the tags or attributes that stay (none in the last step)."""

    take: TakeText
    per: tuple[str, ...] = ()


class Needs(_Strict, frozen=True):
    """The least that must be known for a score: how long the best-known subject was seen, how many samples in all."""

    span: DurationText
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1


class OutOf(_Strict, frozen=True):
    """What a question's values are a share of, bucket by bucket: another field of the same measurement."""

    measures: str
    bucket: TakeText


class Asking(_Strict, frozen=True):
    """One question: one field, one window, two reductions, and the steps across subjects.

    where: tags of the measurement, or attributes of the register, and the values they may have. of: the tag whose entries
    in the register are the subjects, seen or not; 'asset' when `where` asks for attributes. out_of: what the values are a
    share of. during: the calendar outside which no bucket counts. together: subjects become one value in every bucket
    first. watched_by: what proves that somebody looked; a bucket without it is missing. silence: what it means when
    somebody watched and nothing happened: `zero` (sum and count), `nothing` (no number) or `unknown`.
    excused_by: buckets inside maintenance that was announced beforehand are not expected.
    """

    measures: str
    per: tuple[str, ...]
    over: DurationText
    each: DurationText
    take: TakeBoth
    needs: Needs
    across: tuple[Step, ...] = ()
    where: Mapping[str, str | tuple[str, ...]] = {}
    of: Literal["asset", "service", "system", "line", "segment"] | None = None
    out_of: OutOf | None = None
    during: Id | None = None
    together: TakeText | None = None
    watched_by: tuple[WatchText, ...] = ()
    silence: Literal["nothing", "unknown"] | None = None
    excused_by: Literal["maintenance"] | None = None


class Combining(_Strict, frozen=True):
    """Several questions whose answers a named function makes one number of; the first is the main one.

    by: the function, of `combine`. of: its inputs by name. across: from the subjects that it leaves to one number.
    """

    by: Id
    of: Mapping[str, Asking]
    across: tuple[Step, ...] = ()


def _questions_of(question: Asking | None, combine: Combining | None) -> Mapping[str, Asking]:
    if combine is not None:
        return combine.of
    return {"": question} if question is not None else {}


class Criterion(_Strict, frozen=True):
    """What is true at 100 points, and how it is found out.

    A measured one has a question, or combines several; an attested one has neither, and `valid`: how long an
    attestation may hold at most. not_applicable: when it may be declared not to apply (else it never may).
    """

    title: Text
    kind: Literal["measured", "attested"]
    why: Text
    fix: Text
    basis: tuple[Basis, ...]
    scale: Id
    question: Asking | None = None
    combine: Combining | None = None
    valid: DurationText | None = None
    not_applicable: Text | None = None

    def questions(self) -> Mapping[str, Asking]:
        """All that it asks, by the name of the input; one question has no name."""
        return _questions_of(self.question, self.combine)

    def signals(self) -> tuple[str, ...]:
        """Every signal that it asks, in order, each once."""
        found: dict[str, None] = {}
        for asking in self.questions().values():
            found[asking.measures] = None
            if asking.out_of is not None:
                found[asking.out_of.measures] = None
            found.update((watch.split(" ", 1)[0], None) for watch in asking.watched_by)
        return tuple(found)


class Counted(_Strict, frozen=True):
    """A criterion that counts in an indicator, and for how much of it."""

    id: Id
    weight: Weight


class Node(_Strict, frozen=True):
    """A node of the index; a leaf holds criteria, the others children.

    documents: attested criteria of weight 0, used for caps and for what does not apply.
    """

    id: Id
    zh: str
    en: str
    weight: Weight
    children: "tuple[Node, ...]" = ()
    criteria: tuple[Counted, ...] = ()
    documents: tuple[Id, ...] = ()


class Cap(_Strict, frozen=True):
    """A ceiling that a node cannot pass while a condition holds.

    The condition is that `criterion` earns less than `points_below`, or that what is measured, by a question or several
    combined, of which more is worse, is `at_least` so much.
    """

    id: Id
    node: str
    ceiling: Points
    title: Text
    basis: tuple[Basis, ...]
    criterion: Id | None = None
    points_below: Points | None = None
    question: Asking | None = None
    combine: Combining | None = None
    at_least: float | None = None

    def questions(self) -> Mapping[str, Asking]:
        """All that its condition asks, by the name of the input; one question has no name."""
        return _questions_of(self.question, self.combine)


class Index(_Strict, frozen=True):
    """A published index: its tree and weights, and what of it is scored from telemetry."""

    title: Text
    source: Id
    tree: tuple[Node, ...]
    caps: tuple[Cap, ...] = ()


class Publication(_Strict, frozen=True):
    """A document that thresholds come from."""

    zh: str
    en: str
    status: Text


class Place(NamedTuple):
    """Where an indicator's node stands: its dotted id, its level, its parent's dotted id ('' for the first level)."""

    path: str
    level: int
    parent: str
    node: Node


@dataclass(frozen=True)
class Rulebook:
    """All rules of one folder. digests: canonical content of every file, by `folder/name`."""

    criteria: Mapping[str, Criterion]
    indicators: Mapping[str, str]
    """criterion id -> the folder (indicator) that it stands in."""
    scales: Mapping[str, Scale]
    index: Index
    index_name: str
    sources: Mapping[str, Publication]
    digests: Mapping[str, str]

    def digest(self) -> str:
        """One digest of everything, whatever the order of files, comments or layout."""
        return hashlib.sha256(msgspec.json.encode(dict(self.digests), order="sorted")).hexdigest()

    def places(self) -> Iterator[Place]:
        """All nodes of the index, parents first, in its own order."""
        yield from _walk(self.index.tree, "", 1)


def _walk(nodes: tuple[Node, ...], parent: str, level: int) -> Iterator[Place]:
    for node in nodes:
        path = f"{parent}.{node.id}" if parent else node.id
        yield Place(path, level, parent, node)
        yield from _walk(node.children, path, level + 1)


_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str) -> int:
    """Milliseconds of `30d`, `5m`, `90s`, `24h`."""
    return int(text[:-1]) * _UNIT_MS[text[-1]]


USUAL_TERM = "365d"
"""How long somebody's word holds at most where the rule gives no term: that a measured criterion does not apply."""

A_DAY_MS = 86_400_000


def longest_term_ms(criterion: Criterion) -> int:
    """How long one attestation of a criterion may hold; a day more, since a year may have 366."""
    return duration_ms(criterion.valid or USUAL_TERM) + A_DAY_MS


_CONDITION = re.compile(r"(share|age) (<=|>=|==|<|>) (.+)")


def parse_take(text: str) -> Take:
    """The reduction that a rule's word means; `worst` and `best` are settled by the scale's direction before this."""
    if text.startswith("p") and text[1:].isdigit():
        return Take("percentile", p=float(text[1:]))
    if match := _CONDITION.fullmatch(text):
        return msgspec.convert({"by": match[1], "operator": match[2], "threshold": float(match[3])}, Take)
    return msgspec.convert({"by": text}, Take)


def parse_watch(text: str) -> tuple[str, Take | None]:
    """The signal that proves that somebody looked, and the condition that it must meet, None for any value."""
    signal, _, condition = text.partition(" ")
    return signal, parse_take(f"share {condition}") if condition else None
