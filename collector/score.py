"""The arithmetic from subjects to a number, from a number to points, from points to the tree. No I/O, the same for every store.

A score is an interval: what is not proven earns 0 in `low` and full marks in `high`. The headline is `low`.
"""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from agent.catalogue import Text
from collector.evidence import CapResult, CriterionResult, Status
from collector.plan import SettledStep, Span
from collector.query import reduce
from collector.rulebook import Place, Rulebook, Scale

DECIMALS = 9


def cross(
    labels: Sequence[str], numbers: Mapping[tuple[str, ...], Span], steps: Sequence[SettledStep]
) -> dict[tuple[str, ...], Span]:
    """All steps from subjects to what the last one leaves; both ends go the same way since every step is monotone."""
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
    return current


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
    """A node of the index: low = min(cap, sum of effective weight x its children's low), high the same with cap_high.

    weight: as published, inside its parent. effective_weight: after what is not applicable was taken out. cap: the
    lowest ceiling whose condition holds or may hold; cap_high: the lowest whose condition holds; None without one.
    """

    id: str
    title: Text
    level: int
    weight: float
    parent: str | None
    effective_weight: float
    cap: float | None
    cap_high: float | None
    low: float
    high: float
    coverage: float
    status: Status
    criteria: Sequence[CriterionResult]
    caps: Sequence[CapResult] = ()


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


Part = TypeVar("Part", CriterionResult, NodeResult)


def build_tree(
    book: Rulebook, results: Mapping[str, CriterionResult], caps: Mapping[str, CapResult]
) -> tuple[Total, tuple[NodeResult, ...]]:
    """Every node of the index from the results of its criteria, children before parents, given parents first."""
    places = list(book.places())
    done: dict[str, NodeResult] = {}
    for place in reversed(places):
        parts: list[NodeResult] = [done[f"{place.path}.{child.id}"] for child in place.node.children]
        done.update((part.id, part) for part in _share_out(parts))
        mine = [caps[cap.id] for cap in book.index.caps if cap.node == place.path]
        done[place.path] = _node(place, results, [done[part.id] for part in parts], mine)
    roots = _share_out([done[place.path] for place in places if place.level == 1])
    done.update((root.id, root) for root in roots)
    top = _sum(roots)
    return Total(top.low, top.high, top.coverage), tuple(done[place.path] for place in places)


def _share_out(parts: Sequence[Part]) -> list[Part]:
    """Siblings with their effective weights: what does not apply weighs nothing, the others take its share."""
    applicable = sum(part.weight for part in parts if part.status != "not_applicable")
    return [
        msgspec.structs.replace(
            part,
            effective_weight=round(part.weight / applicable, DECIMALS + 3)
            if applicable and part.status != "not_applicable"
            else 0.0,
        )
        for part in parts
    ]


def _node(
    place: Place, results: Mapping[str, CriterionResult], children: Sequence[NodeResult], caps: Sequence[CapResult]
) -> NodeResult:
    node = place.node
    counted = _share_out([msgspec.structs.replace(results[one.id], weight=one.weight) for one in node.criteria])
    total = _sum([*counted, *children]) if counted or children else _Sum(0.0, 100.0, 0.0, "no_data")
    cap, cap_high = (_ceiling(caps, states) for states in (("met", "unknown"), ("met",)))
    return NodeResult(
        id=place.path,
        title=Text(node.zh, node.en),
        level=place.level,
        weight=node.weight,
        parent=place.parent or None,
        effective_weight=node.weight,
        cap=cap,
        cap_high=cap_high,
        low=total.low if cap is None else min(cap, total.low),
        high=total.high if cap_high is None else min(cap_high, total.high),
        coverage=total.coverage,
        status=total.status,
        criteria=(*counted, *(results[name] for name in node.documents)),
        caps=tuple(caps),
    )


def _ceiling(caps: Sequence[CapResult], states: Sequence[str]) -> float | None:
    return min((cap.ceiling for cap in caps if cap.state in states), default=None)


def _sum(parts: Sequence[CriterionResult | NodeResult]) -> _Sum:
    statuses = {part.status for part in parts}
    order: tuple[Status, ...] = ("scored", "error", "no_data", "not_applicable")
    status: Status = next((status for status in order if status in statuses), "no_data")
    weights = [part.effective_weight for part in parts]
    low, high, coverage = (
        round(math.fsum(weight * value for weight, value in zip(weights, values, strict=True)), DECIMALS)
        for values in (
            [part.low for part in parts],
            [part.high for part in parts],
            [part.coverage for part in parts],
        )
    )
    return _Sum(low, high, coverage, status)
