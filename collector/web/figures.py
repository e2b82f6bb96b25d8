"""Nodes and criteria of a scorecard as the rows that the pages lay out, in the reader's words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.language import say
from collector.evidence import CriterionResult
from collector.report import show_value, status_word
from collector.score import NodeResult, Scorecard

SAME_WEIGHT = 1e-9
"""Weights closer than this differ by rounding alone."""


@dataclass(frozen=True)
class Bar:
    """A score's interval as a bar of 100 units: proven, not proven, lost."""

    low: float
    high: float
    coverage: float

    @property
    def open(self) -> float:
        """What is neither proven nor lost."""
        return max(self.high - self.low, 0.0)

    @property
    def words(self) -> str:
        """The interval as text."""
        return f"{self.low:.1f} – {self.high:.1f}"

    @property
    def parts(self) -> Sequence[tuple[str, str, str]]:
        """(kind, word, points) of the three parts; they add up to 100."""
        return (
            ("proven", say("已证实", "proven"), f"{self.low:.1f}"),
            ("open", say("未证实", "not proven"), f"{self.open:.1f}"),
            ("lost", say("已失分", "lost"), f"{100 - self.low - self.open:.1f}"),
        )

    @property
    def covered(self) -> str:
        """The coverage as text."""
        return f"{self.coverage * 100:.0f} %"

    @property
    def label(self) -> str:
        """What a screen reader says."""
        return say(
            f"得分 {self.low:.1f} 到 {self.high:.1f}，数据覆盖率 {self.covered}",
            f"score {self.low:.1f} to {self.high:.1f}, coverage {self.covered}",
        )


@dataclass(frozen=True)
class NodeRow:
    """A node as one row; is_measured: whether telemetry scores anything in it or below it.

    published: its published weight where that is not what it weighs here, else empty.
    """

    id: str
    title: str
    level: int
    weight: str
    published: str
    counts_for: str
    bar: Bar
    is_measured: bool
    criteria: str


@dataclass(frozen=True)
class CriterionRow:
    """A criterion as one row; value and points are the provisional ones while it is not scored.

    published: as of a node. rests_on: what a provisional value rests on when that is less than a closed bucket, else empty.
    """

    id: str
    title: str
    weight: str
    published: str
    counts_for: str
    state: str
    state_word: str
    bar: Bar
    value: str
    provisional_points: str
    rests_on: str
    reason: str


@dataclass(frozen=True)
class Tree:
    """The nodes of a scorecard by id, and how they hang together."""

    nodes: Mapping[str, NodeResult]

    @classmethod
    def of(cls, card: Scorecard) -> "Tree":
        """The tree of a scorecard."""
        return cls({node.id: node for node in card.nodes})

    def children(self, name: str) -> list[NodeResult]:
        """The nodes right under `name`, in the index's order."""
        return [node for node in self.nodes.values() if node.parent == name]

    def criteria(self, name: str) -> list[CriterionResult]:
        """All criteria that count in `name` or below it."""
        below = [node for node in self.nodes.values() if node.id == name or node.id.startswith(f"{name}.")]
        return [criterion for node in below for criterion in node.criteria]

    def trail(self, node: NodeResult) -> list[tuple[str, str]]:
        """(id, title) of all that `node` stands under, from the top."""
        trail: list[tuple[str, str]] = []
        parent = node.parent
        while parent:
            trail.insert(0, (parent, str(self.nodes[parent].title)))
            parent = self.nodes[parent].parent
        return trail

    def row(self, node: NodeResult) -> NodeRow:
        """`node` as a row."""
        criteria = self.criteria(node.id)
        return NodeRow(
            id=node.id,
            title=str(node.title),
            level=node.level,
            weight=show_weight(node.effective_weight),
            published=_published(node),
            counts_for=show_points(node.effective_weight * node.low),
            bar=Bar(node.low, node.high, node.coverage),
            is_measured=any(criterion.kind == "measured" for criterion in criteria),
            criteria=_count(criteria),
        )


def _published(part: NodeResult | CriterionResult) -> str:
    return show_weight(part.weight) if abs(part.weight - part.effective_weight) > SAME_WEIGHT else ""


def _count(criteria: Sequence[CriterionResult]) -> str:
    """How many of those that weigh anything are scored; the documents beside them do not count."""
    counted = [criterion for criterion in criteria if criterion.weight > 0]
    scored = sum(criterion.status == "scored" for criterion in counted)
    words = say(f"{scored}/{len(counted)} 已评分", f"{scored}/{len(counted)} scored")
    if not any(criterion.kind == "measured" for criterion in counted):
        outside = say("不由遥测评分", "not from telemetry")
        return outside + say(f"，{words}", f", {words}") if counted else outside
    provisional = sum(criterion.provisional is not None for criterion in counted)
    return words + say(f"，{provisional} 暂估", f", {provisional} provisional") if provisional else words


def criterion_row(result: CriterionResult) -> CriterionRow:
    """`result` as a row."""
    provisional = result.provisional
    value = provisional.value if provisional else result.value
    return CriterionRow(
        id=result.id,
        title=str(result.title),
        weight=show_weight(result.effective_weight),
        published=_published(result),
        counts_for=show_points(result.effective_weight * result.low),
        state="provisional" if provisional else result.status,
        state_word=say("暂估", "provisional") if provisional else status_word(result.status),
        bar=Bar(result.low, result.high, result.coverage),
        value="" if value is None else show_value(value, result.unit),
        provisional_points=f"{provisional.points:g}" if provisional else "",
        rests_on=str(provisional.rests_on) if provisional and provisional.rests_on else "",
        reason=str(result.reason) if result.reason else "",
    )


def show_points(points: float) -> str:
    """Points exactly enough that a column of them adds up."""
    return f"{round(points, 4):g}"


def show_weight(weight: float) -> str:
    """A weight as a percentage without noise: 0.15 is `15 %`."""
    return f"{round(weight * 100, 4):g} %"
