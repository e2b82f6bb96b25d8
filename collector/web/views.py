"""What each page shows, taken from the snapshot and put into the reader's words; templates only lay it out."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent.language import say
from collector.evidence import CriterionResult
from collector.health import AgentHealth, Snapshot, SourceHealth
from collector.report import INDICATORS, explain_rule, show_value, spell_basis, status_word
from collector.score import NodeResult


class View(NamedTuple):
    """A template and what it lays out."""

    template: str
    values: dict[str, object]


@dataclass(frozen=True)
class Bar:
    """A low-high bar; percentages of its width, and the words for who cannot see it."""

    low: float
    high: float
    coverage: float

    @property
    def words(self) -> str:
        """The interval as text."""
        return f"{self.low:.1f} – {self.high:.1f}"

    @property
    def label(self) -> str:
        """What a screen reader says."""
        return say(
            f"得分 {self.low:.1f} 到 {self.high:.1f},覆盖 {self.coverage * 100:.0f} %",
            f"score {self.low:.1f} to {self.high:.1f}, coverage {self.coverage * 100:.0f} %",
        )


@dataclass(frozen=True)
class NodeRow:
    """A node as one row."""

    id: str
    title: str
    level: int
    weight: float
    status: str
    status_word: str
    bar: Bar
    scored: int
    provisional: int
    criteria: int


@dataclass(frozen=True)
class CriterionRow:
    """A criterion as one row."""

    id: str
    title: str
    weight: float
    status: str
    status_word: str
    bar: Bar
    value: str
    provisional: str
    provisional_points: float | None
    reason: str


@dataclass(frozen=True)
class SourceRow:
    """A source's last round."""

    source: SourceHealth
    last: str
    state: str
    words: str


@dataclass(frozen=True)
class AgentRow:
    """An agent with its sources."""

    agent: AgentHealth
    last: str
    sources: Sequence[SourceRow]
    holes: int


def clock_time(milliseconds: int, zone: ZoneInfo) -> str:
    """A time in the site's zone, the zone beside it."""
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, zone)
    return f"{moment:%Y-%m-%d %H:%M:%S} {zone.key}"


def ago(milliseconds: int, now: int) -> str:
    """How long ago, roughly."""
    seconds = max(0, (now - milliseconds) // 1000)
    for size, zh, en in ((86_400, "天前", "d ago"), (3600, "小时前", "h ago"), (60, "分钟前", "min ago")):
        if seconds >= size:
            return say(f"{seconds // size} {zh}", f"{seconds // size} {en}")
    return say(f"{seconds} 秒前", f"{seconds} s ago")


def readiness_view(snapshot: Snapshot) -> View:
    """The two indicators and the eleven, what is provisional, and the total, small."""
    by_id = {node.id: node for node in snapshot.scorecard.nodes}
    groups = [
        (_node_row(by_id[name]), [_node_row(node) for node in snapshot.scorecard.nodes if node.parent == name])
        for name in INDICATORS
        if name in by_id
    ]
    waiting = [
        _criterion_row(criterion)
        for node in snapshot.scorecard.nodes
        for criterion in node.criteria
        if criterion.provisional
    ]
    total = snapshot.scorecard.total
    alive = sum(agent.is_alive for agent in snapshot.agents)
    return View(
        "readiness.html",
        {
            "groups": groups,
            "waiting": waiting,
            "total": Bar(total.low, total.high, total.coverage),
            "taken": clock_time(snapshot.taken_at, snapshot.zone),
            "alive": alive,
            "agents": len(snapshot.agents),
        },
    )


def tree_view(snapshot: Snapshot) -> View:
    """All nodes of the index."""
    return View("tree.html", {"nodes": [_node_row(node) for node in snapshot.scorecard.nodes]})


def node_view(snapshot: Snapshot, name: str) -> View | None:
    """One node: where it stands, its children or its criteria."""
    by_id = {node.id: node for node in snapshot.scorecard.nodes}
    node = by_id.get(name)
    if node is None:
        return None
    children = [_node_row(child) for child in snapshot.scorecard.nodes if child.parent == name]
    criteria = [_criterion_row(criterion) for criterion in node.criteria]
    return View(
        "node.html", {"node": _node_row(node), "trail": _trail(by_id, node), "children": children, "criteria": criteria}
    )


def criterion_view(snapshot: Snapshot, name: str) -> View | None:
    """One criterion with its evidence."""
    by_id = {node.id: node for node in snapshot.scorecard.nodes}
    for node in snapshot.scorecard.nodes:
        for criterion in node.criteria:
            if criterion.id == name:
                return View("criterion.html", _criterion_values(snapshot, by_id, node, criterion))
    return None


def _criterion_values(
    snapshot: Snapshot, by_id: Mapping[str, NodeResult], node: NodeResult, result: CriterionResult
) -> dict[str, object]:
    rules = snapshot.rules
    criterion = rules.book.criteria[result.id]
    scale = rules.book.scales[criterion.scale]
    rungs = [
        (
            ("≥ " if scale.better == "higher" else "≤ ") + show_value(rung.at, scale.unit),
            rung.points,
            "; ".join(spell_basis(rules, basis) for basis in rung.basis),
        )
        for rung in scale.rungs
    ]
    earned = result.low if result.status == "scored" else None
    return {
        "trail": [*_trail(by_id, node), (node.id, str(node.title))],
        "row": _criterion_row(result),
        "why": str(criterion.why),
        "fix": str(criterion.fix),
        "basis": [spell_basis(rules, basis) for basis in criterion.basis],
        "question": explain_rule(rules, result.id, None),
        "rungs": rungs,
        "earned": earned,
        "result": result,
        "window": (clock_time(result.window[0], snapshot.zone), clock_time(result.window[1], snapshot.zone)) if result.window else None,
        "worst": [
            (", ".join(f"{tag}={value}" for tag, value in subject.subject.items()), show_value(subject.low, result.unit), show_value(subject.high, result.unit), subject.found, subject.expected)
            for subject in result.worst
        ],
    }  # fmt: skip


def agents_view(snapshot: Snapshot) -> View:
    """Agents, their sources, what was set aside."""
    rows = [_agent_row(agent, snapshot.taken_at) for agent in snapshot.agents]
    return View(
        "agents.html",
        {"agents": rows, "set_aside": sorted(snapshot.set_aside.items()), "owners": sorted(snapshot.owners.items())},
    )


def _agent_row(agent: AgentHealth, now: int) -> AgentRow:
    sources = [_source_row(source, now) for source in agent.sources]
    return AgentRow(agent, ago(agent.last_point, now), sources, sum(last - first + 1 for _, first, last in agent.holes))


def _source_row(source: SourceHealth, now: int) -> SourceRow:
    if not source.is_fresh:
        state, words = "bad", say("静默", "silent")
    elif not source.is_success:
        state, words = "bad", say("失败", "failing")
    elif source.points_count == 0:
        state, words = "none", say("本机没有", "nothing here")
    else:
        state, words = "good", say("正常", "good")
    return SourceRow(source, ago(source.last_round, now), state, words)


def _trail(by_id: Mapping[str, NodeResult], node: NodeResult) -> list[tuple[str, str]]:
    trail: list[tuple[str, str]] = []
    parent = node.parent
    while parent:
        trail.insert(0, (parent, str(by_id[parent].title)))
        parent = by_id[parent].parent
    return trail


def _node_row(node: NodeResult) -> NodeRow:
    return NodeRow(
        id=node.id,
        title=str(node.title),
        level=node.level,
        weight=node.effective_weight,
        status=node.status,
        status_word=status_word(node.status),
        bar=Bar(node.low, node.high, node.coverage),
        scored=sum(criterion.status == "scored" for criterion in node.criteria),
        provisional=sum(criterion.provisional is not None for criterion in node.criteria),
        criteria=len(node.criteria),
    )


def _criterion_row(criterion: CriterionResult) -> CriterionRow:
    provisional = criterion.provisional
    return CriterionRow(
        id=criterion.id,
        title=str(criterion.title),
        weight=criterion.effective_weight,
        status=criterion.status,
        status_word=status_word(criterion.status),
        bar=Bar(criterion.low, criterion.high, criterion.coverage),
        value=show_value(criterion.value, criterion.unit),
        provisional=show_value(provisional.value, criterion.unit) if provisional else "",
        provisional_points=provisional.points if provisional else None,
        reason=str(criterion.reason) if criterion.reason else "",
    )
