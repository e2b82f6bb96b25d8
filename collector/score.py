"""The arithmetic from subjects to a number, from a number to points, from points to the tree. No I/O, the same for every store.

A score is an interval: what is not proven earns 0 in `low` and full marks in `high`. The headline is `low`.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agent.catalogue import Text
from collector.evidence import CriterionResult, Status
from collector.plan import Step
from collector.query import SubjectAnswer, reduce
from collector.rulebook import Place, Rulebook, Scale

DECIMALS = 9


class Span(NamedTuple):
    """A number at worst and at best."""

    worst: float
    best: float


def cross(per: Sequence[str], numbers: Mapping[tuple[str, ...], Span], steps: Sequence[Step]) -> Span | None:
    """All steps from subjects to one number; None without subjects. Both ends go the same way since every step is monotone."""
    labels = tuple(per)
    current = dict(numbers)
    for step in steps:
        groups: dict[tuple[str, ...], list[Span]] = {}
        places = [labels.index(name) for name in step.per]
        for subject in sorted(current):
            groups.setdefault(tuple(subject[place] for place in places), []).append(current[subject])
        labels = step.per
        current = {}
        for subject, spans in groups.items():
            worst = reduce(step.take, [span.worst for span in spans], len(spans), None, False)
            best = reduce(step.take, [span.best for span in spans], len(spans), None, False)
            if worst is not None and best is not None:
                current[subject] = Span(worst, best)
    return current.get(())


def spans(answers: Sequence[SubjectAnswer]) -> dict[tuple[str, ...], Span]:
    """The numbers of all subjects of which anything was expected yet."""
    return {
        row.subject: Span(row.at_worst, row.at_best)
        for row in answers
        if row.at_worst is not None and row.at_best is not None
    }


def known_spans(answers: Sequence[SubjectAnswer]) -> dict[tuple[str, ...], Span]:
    """What is known alone, for the provisional value."""
    return {row.subject: Span(row.known, row.known) for row in answers if row.known is not None}


def points(scale: Scale, value: float) -> float:
    """The points that `value` earns: the best rung met, or the straight line at it."""
    if scale.line:
        return _on_line(scale.line, value)
    for rung in scale.rungs:  # from the best to the worst
        if value >= rung.at if scale.better == "higher" else value <= rung.at:
            return rung.points
    return 0.0


def _on_line(line: Sequence[tuple[float, float]], value: float) -> float:
    if value <= line[0][0]:
        return line[0][1]
    for (left, low), (right, high) in itertools.pairwise(line):
        if value <= right:
            return low + (high - low) * (value - left) / (right - left)
    return line[-1][1]


class NodeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the index: low = min(cap, sum of effective weight x its children's low), the same for high.

    weight: as published, inside its parent. effective_weight: after what is not applicable was taken out.
    """

    id: str
    title: Text
    level: int
    weight: float
    parent: str | None
    effective_weight: float
    cap: float | None
    low: float
    high: float
    coverage: float
    status: Status
    criteria: Sequence[CriterionResult]


class Total(msgspec.Struct, frozen=True):
    """The whole index."""

    low: float
    high: float
    coverage: float


class Digests(msgspec.Struct, frozen=True):
    """What the scorecard was computed from."""

    data: str
    rules: str
    site_folder: str
    catalogue: str


class Scorecard(msgspec.Struct, frozen=True, kw_only=True):
    """All scores of a site at one time; as_of in RFC 3339, UTC."""

    site: str
    as_of: str
    revision: int
    digests: Digests
    total: Total
    nodes: Sequence[NodeResult]

    def identity(self) -> str:
        """The digest of everything but the revision: the same content has the same identity."""
        content = msgspec.structs.replace(self, revision=0)
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


class _Sum(NamedTuple):
    low: float
    high: float
    coverage: float
    status: Status


def build_tree(book: Rulebook, results: Mapping[str, CriterionResult]) -> tuple[Total, tuple[NodeResult, ...]]:
    """Every node of the index from the results of its criteria, children before parents, given parents first."""
    places = list(book.places())
    done: dict[str, NodeResult] = {}
    for place in reversed(places):
        done[place.path] = _node(place, results, done)
    top = _sum([(node.effective_weight, node) for node in done.values() if node.level == 1])
    return Total(top.low, top.high, top.coverage), tuple(done[place.path] for place in places)


def _node(place: Place, results: Mapping[str, CriterionResult], done: Mapping[str, NodeResult]) -> NodeResult:
    node = place.node
    criteria = tuple(_weighted(results[counted.id], counted.weight) for counted in node.criteria)
    parts: list[tuple[float, CriterionResult | NodeResult]] = [
        (criterion.effective_weight, criterion) for criterion in criteria
    ]
    parts += [(child.weight, done[f"{place.path}.{child.id}"]) for child in node.children]
    total = _sum(parts) if parts else _Sum(0.0, 100.0, 0.0, "no_data")
    return NodeResult(
        id=place.path,
        title=Text(node.zh, node.en),
        level=place.level,
        weight=node.weight,
        parent=place.parent or None,
        effective_weight=node.weight,
        cap=None,
        low=total.low,
        high=total.high,
        coverage=total.coverage,
        status=total.status,
        criteria=criteria,
    )


def _weighted(result: CriterionResult, weight: float) -> CriterionResult:
    return msgspec.structs.replace(result, weight=weight, effective_weight=weight)


def _sum(parts: Sequence[tuple[float, CriterionResult | NodeResult]]) -> _Sum:
    statuses = {part.status for _, part in parts}
    status: Status = "scored" if "scored" in statuses else "error" if "error" in statuses else "no_data"
    return _Sum(
        round(sum(weight * part.low for weight, part in parts), DECIMALS),
        round(sum(weight * part.high for weight, part in parts), DECIMALS),
        round(sum(weight * part.coverage for weight, part in parts), DECIMALS),
        status,
    )
