"""One node of the index: how its score comes about, what limits it, what would raise it most, how it moved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.language import say
from collector.evidence import CriterionResult
from collector.score import NodeResult
from collector.snapshot import Snapshot
from collector.web.caps import cap_rows
from collector.web.figures import Tree, criterion_row, show_points
from collector.web.spans import SPANS, Span, choices
from collector.web.trend import has_course, trend_of_node
from collector.web.view import Link, View

RAISING_SHOWN = 5
NO_GAIN = 0.005
"""What would be shown as +0."""

Part = NodeResult | CriterionResult


@dataclass(frozen=True)
class End:
    """One end of a node's interval as arithmetic. total: the sum of its rows; cap: what limits it, or empty; result: the end."""

    name: str
    total: str
    cap: str
    result: str


@dataclass(frozen=True)
class Raising:
    """Something that would raise the score, and by how much."""

    target: Link
    gain: str
    how: str


def node_view(snapshot: Snapshot, name: str, span: Span = SPANS[0]) -> View | None:
    """One node, its course over the span; None when there is no such node."""
    tree = Tree.of(snapshot.scorecard)
    node = tree.nodes.get(name)
    if node is None:
        return None
    children = tree.children(name)
    counted = [result for result in node.criteria if result.weight > 0]
    parts: Sequence[Part] = [*children, *counted]
    return View(
        "node.html",
        {
            "node": tree.row(node),
            "trail": tree.trail(node),
            "children": [tree.row(child) for child in children],
            "criteria": [criterion_row(result) for result in counted],
            "documents": [criterion_row(result) for result in node.criteria if result.weight == 0],
            "gone": [str(part.title) for part in parts if part.status == "not_applicable"],
            "ends": _ends(node, parts) if parts else [],
            "caps": cap_rows(snapshot, node),
            "raising": _raising(snapshot, node, parts),
            "ceiling": "" if node.cap is None else f"{node.cap:g}",
            "is_capped": node.cap is not None and _total(parts, "low") > node.cap,
            "has_history": has_course(snapshot, name),
            "trend": trend_of_node(snapshot, name, span),
            "spans": choices(span, "#trend"),
            "query": span.query,
        },
    )


def _total(parts: Sequence[Part], end: str) -> float:
    return math.fsum(part.effective_weight * (part.low if end == "low" else part.high) for part in parts)


def _ends(node: NodeResult, parts: Sequence[Part]) -> list[End]:
    """Both ends: what the rows add up to, and what a cap leaves of it."""
    named = (
        (say("左端（得分）", "left end (the score)"), "low", node.cap, node.low),
        (say("右端", "right end"), "high", node.cap_high, node.high),
    )
    return [
        End(name, show_points(_total(parts, end)), "" if cap is None else f"{cap:g}", show_points(result))
        for name, end, cap, result in named
    ]


def _raising(snapshot: Snapshot, node: NodeResult, parts: Sequence[Part]) -> list[Raising]:
    """Caps that cost something now, then what full marks of each row would add under the caps."""
    total = _total(parts, "low")
    found: list[tuple[float, float, Raising]] = []
    limiting = [cap for cap in node.caps if cap.state != "not_met"]
    for cap in limiting:
        others = min((one.ceiling for one in limiting if one.id != cap.id), default=100.0)
        gain = min(total, others) - node.low
        how = say(f"解除封顶 {cap.ceiling:g}", f"lift the cap at {cap.ceiling:g}")
        found.append((gain, gain, Raising(Link(f"#cap-{cap.id}", str(cap.title)), _gain(gain), how)))
    for part in parts:
        alone = part.effective_weight * (100 - part.low)
        gain = min(total + alone, 100.0 if node.cap is None else node.cap) - node.low
        kind = "node" if isinstance(part, NodeResult) else "criterion"
        row = Raising(Link(f"/{kind}/{part.id}", str(part.title)), _gain(gain), _how(snapshot, part))
        found.append((gain, alone, row))
    ordered = sorted((row for row in found if row[0] > NO_GAIN), key=lambda row: (-row[0], -row[1]))
    return [row for _, _, row in ordered[:RAISING_SHOWN]]


def _gain(gain: float) -> str:
    return f"+{gain:.3g}"


def _how(snapshot: Snapshot, part: Part) -> str:
    """What is to be done about a criterion; of a node its own page says that."""
    return next((str(row.todo) for row in snapshot.coverage.criteria if row.id == part.id and row.todo), "")
