"""One criterion with everything that its number stands on."""

from collections.abc import Sequence
from typing import NamedTuple

from agent.language import say
from collector.evaluate import Rules
from collector.evidence import CriterionResult, WorstSubject
from collector.health import Snapshot
from collector.report import explain_rule, show_value, spell_basis
from collector.rulebook import Scale
from collector.score import NodeResult, points
from collector.web.figures import Tree, criterion_row
from collector.web.times import window
from collector.web.views import View

Facts = list[tuple[str, str]]
"""(name, value) pairs in the order in which they are read."""


class RungRow(NamedTuple):
    """One step of the scale; mark: what stands on it now, empty for the others."""

    at: str
    points: str
    mark: str
    basis: str


class SubjectRow(NamedTuple):
    """One of the worst subjects: its tags, its number at worst and at best, buckets found of those expected."""

    tags: Facts
    low: str
    high: str
    buckets: str


def criterion_view(snapshot: Snapshot, name: str) -> View | None:
    """One criterion; None when the index counts none of that name."""
    tree = Tree.of(snapshot.scorecard)
    for node in snapshot.scorecard.nodes:
        for result in node.criteria:
            if result.id == name:
                return View("criterion.html", _values(snapshot, tree, node, result))
    return None


def _values(snapshot: Snapshot, tree: Tree, node: NodeResult, result: CriterionResult) -> dict[str, object]:
    rules = snapshot.rules
    criterion = rules.book.criteria[result.id]
    scale = rules.book.scales[criterion.scale]
    return {
        "trail": [*tree.trail(node), (node.id, str(node.title))],
        "row": criterion_row(result),
        "why": str(criterion.why),
        "fix": str(criterion.fix),
        "basis": [spell_basis(rules, basis) for basis in criterion.basis],
        "found": _found(snapshot, result),
        "worst": [_subject_row(subject, result.unit) for subject in result.worst],
        "query": result.query or "",
        "scale": str(scale.title),
        "scale_basis": [spell_basis(rules, basis) for basis in scale.basis],
        "rungs": _rung_rows(rules, scale, result),
        "is_line": bool(scale.line),
        "question": explain_rule(rules, result.id, None),
        "made_from": _made_from(snapshot, result),
        "commands": _commands(snapshot, result),
    }


def _found(snapshot: Snapshot, result: CriterionResult) -> Facts:
    """What the store was asked and what it held; empty for what was not asked."""
    if result.window is None:
        return []
    plan = snapshot.rules.plans[result.id].main
    return [
        (say("统计窗口", "Window"), window(result.window, snapshot.zone)),
        (say("对象数", "Subjects"), str(result.subjects)),
        (
            say("时间桶：实有 / 应有", "Buckets: found / expected"),
            f"{result.found} / {result.expected} ({show_value(plan.each_ms / 1000, 'seconds')})",
        ),
        (say("样本数", "Samples"), str(result.samples)),
    ]


def _made_from(snapshot: Snapshot, result: CriterionResult) -> Facts:
    """The digests that say whether a second look saw the same."""
    card, book = snapshot.scorecard, snapshot.rules.book
    criterion = book.criteria[result.id]
    asked = [(say("查询结果摘要", "Digest of the answer"), result.digest)] if result.window else []
    return [
        *asked,
        (
            say("准则文件摘要", "Digest of the criterion"),
            book.digests[f"{book.indicators[result.id]}/{result.id}.yaml"],
        ),
        (say("标尺文件摘要", "Digest of the scale"), book.digests[f"scales/{criterion.scale}.yaml"]),
        (say("全部规则摘要", "Digest of all rules"), card.digests.rules),
        (say("信号目录摘要", "Digest of the catalogue"), card.digests.catalogue),
        (say("医院资料摘要", "Digest of the site folder"), card.digests.site_folder),
    ]


def _commands(snapshot: Snapshot, result: CriterionResult) -> list[str]:
    commands = snapshot.commands
    return [
        commands.spell("score", "--as-of", snapshot.scorecard.as_of, "--format json"),
        f"{commands.program} rules explain {result.id}",
    ]


def _subject_row(subject: WorstSubject, unit: str) -> SubjectRow:
    return SubjectRow(
        list(subject.subject.items()),
        show_value(subject.low, unit),
        show_value(subject.high, unit),
        f"{subject.found} / {subject.expected}",
    )


def _rung_rows(rules: Rules, scale: Scale, result: CriterionResult) -> Sequence[RungRow]:
    """The scale from its best step down to nothing, or the turns of its line."""
    marks = _marks(scale, result)
    if scale.line:
        return [RungRow(show_value(at, scale.unit), f"{earned:g}", "", "") for at, earned in scale.line]
    sign = "≥" if scale.better == "higher" else "≤"
    rows = [
        RungRow(
            f"{sign} {show_value(rung.at, scale.unit)}",
            f"{rung.points:g}",
            marks.get(rung.points, ""),
            "; ".join(spell_basis(rules, basis) for basis in rung.basis),
        )
        for rung in scale.rungs
    ]
    if all(rung.points for rung in scale.rungs):
        rows.append(RungRow(say("未达到以上各级", "none of these"), "0", marks.get(0.0, ""), ""))
    return rows


def _marks(scale: Scale, result: CriterionResult) -> dict[float, str]:
    """Points -> what to write beside their step."""
    if result.provisional is not None:
        return {points(scale, result.provisional.value): say("暂估", "provisional")}
    if result.status != "scored":
        return {}
    if result.low == result.high:
        return {result.low: say("当前", "now")}
    return {result.high: say("最好", "at best"), result.low: say("最坏（计分）", "at worst (counts)")}
