"""One criterion with everything that its number stands on, and what to do next."""

from collections.abc import Sequence
from typing import NamedTuple

from agent.language import say
from collector.evaluate import Rules
from collector.evidence import CriterionResult
from collector.plan import Plan
from collector.report import Standing, combination_lines, show_value, spell_basis, standings
from collector.rulebook import Scale
from collector.score import NodeResult
from collector.snapshot import Snapshot
from collector.web.caps import cap_rows
from collector.web.continuity_view import MEASUREMENTS
from collector.web.figures import Tree, criterion_row
from collector.web.questions import question_blocks
from collector.web.spans import SPANS, Span, choices
from collector.web.trend import trend_of_criterion
from collector.web.view import Facts, View
from collector.web.vouching import vouching_block


class RungRow(NamedTuple):
    """One step of the scale; mark: what stands on it now, empty for the others."""

    at: str
    points: str
    mark: str
    basis: str


class SignalRow(NamedTuple):
    """A signal that is asked; state: of a status."""

    name: str
    sources: str
    state: str
    word: str


def criterion_view(snapshot: Snapshot, name: str, span: Span = SPANS[0]) -> View | None:
    """One criterion, its course over the span; None when the index counts none of that name."""
    tree = Tree.of(snapshot.scorecard)
    for node in snapshot.scorecard.nodes:
        for result in node.criteria:
            if result.id == name:
                course = {
                    "has_history": bool(snapshot.past),
                    "trend": trend_of_criterion(snapshot, name, span),
                    "spans": choices(span, "#trend"),
                    "query": span.query,
                }
                return View("criterion.html", {**_values(snapshot, tree, node, result), **course})
    return None


def _values(snapshot: Snapshot, tree: Tree, node: NodeResult, result: CriterionResult) -> dict[str, object]:
    rules = snapshot.rules
    criterion, plan = rules.book.criteria[result.id], rules.plans.get(result.id)
    scale = rules.book.scales[criterion.scale]
    return {
        "trail": [*tree.trail(node), (node.id, str(node.title))],
        "row": criterion_row(result),
        "is_document": result.weight == 0,
        "both": _both_ends(result),
        "why": str(criterion.why),
        "fix": str(criterion.fix),
        "exception": str(criterion.not_applicable) if criterion.not_applicable else "",
        "basis": [spell_basis(rules, basis) for basis in criterion.basis],
        "todo": _todo(snapshot, result),
        "signals": _signals(snapshot, result),
        "vouched": vouching_block(snapshot, result),
        "is_measured": result.kind == "measured",
        "is_of_continuity": plan is not None
        and any(one.measurement in MEASUREMENTS for one in plan.questions.values()),
        "questions": question_blocks(snapshot, result.questions, criterion.questions(), plan, scale_unit=result.unit),
        "combination": combination_lines(criterion, plan) if plan else [],
        "combined": _combined(result, plan),
        "scale": str(scale.title),
        "scale_basis": [spell_basis(rules, basis) for basis in scale.basis],
        "rungs": _rung_rows(rules, scale, result),
        "is_line": bool(scale.line),
        "caps": cap_rows(snapshot, node),
        "made_from": _made_from(snapshot, result),
        "commands": _commands(snapshot, result),
    }


def _both_ends(result: CriterionResult) -> str:
    """Which value earns which end, where the two differ."""
    if result.status != "scored" or result.value == result.best_value:
        return ""
    worst, best = (show_value(value, result.unit) for value in (result.value, result.best_value))
    return say(
        f"最坏 {worst} 得 {result.low:.4g} 分，最好 {best} 得 {result.high:.4g} 分；两端之差来自缺失的数据。",
        f"{worst} at worst earns {result.low:.4g}, {best} at best earns {result.high:.4g}; what lies between is missing data.",
    )


def _combined(result: CriterionResult, plan: Plan | None) -> str:
    """What several questions came to together."""
    if plan is None or plan.combination is None or result.value is None:
        return ""
    worst, best = (show_value(value, result.unit) for value in (result.value, result.best_value))
    return worst if worst == best else say(f"最坏 {worst}，最好 {best}", f"{worst} at worst, {best} at best")


def _todo(snapshot: Snapshot, result: CriterionResult) -> str:
    return next((str(row.todo) for row in snapshot.coverage.criteria if row.id == result.id and row.todo), "")


def _signals(snapshot: Snapshot, result: CriterionResult) -> list[SignalRow]:
    """Every signal that is asked, which sources give it, and whether it is seen here."""
    words = {
        "seen": ("good", say("已采集", "seen here")),
        "not_seen": ("none", say("未见到", "not seen here")),
        "no_source": ("none", say("本版本尚无采集源", "no source yet")),
    }
    return [
        SignalRow(row.signal, say("、", ", ").join(row.sources), *words[row.state])
        for criterion in snapshot.coverage.criteria
        if criterion.id == result.id
        for row in criterion.signals
    ]


def _made_from(snapshot: Snapshot, result: CriterionResult) -> Facts:
    """The digests that say whether a second look saw the same."""
    card, book = snapshot.scorecard, snapshot.rules.book
    criterion = book.criteria[result.id]
    asked = [(say("查询结果摘要", "Digest of the answer"), result.digest)] if result.questions else []
    return [
        *asked,
        (say("本准则的规则摘要（准则与标尺）", "Digest of this rule (criterion and scale)"), result.rule_digest),
        (
            say("准则文件摘要", "Digest of the criterion"),
            book.digests.get(f"{book.indicators.get(result.id, '')}/{result.id}.yaml", "–"),
        ),
        (say("标尺文件摘要", "Digest of the scale"), book.digests.get(f"scales/{criterion.scale}.yaml", "–")),
        (say("全部规则摘要", "Digest of all rules"), card.digests.rules),
        (say("信号目录摘要", "Digest of the catalogue"), card.digests.catalogue),
        (say("医院资料摘要", "Digest of the site folder"), card.digests.site_folder),
    ]


def _commands(snapshot: Snapshot, result: CriterionResult) -> list[str]:
    commands, as_of = snapshot.commands, snapshot.scorecard.as_of
    return [
        commands.spell("explain", result.id, "--as-of", as_of),
        commands.spell("score", "--as-of", as_of, "--format json"),
        f"{commands.program} rules explain {result.id}",
    ]


def _rung_rows(rules: Rules, scale: Scale, result: CriterionResult) -> Sequence[RungRow]:
    """The scale from its best step down to nothing, or the turns of its line with what stands between them."""
    stands = standings(scale, result)
    if scale.line:
        return _line_rows(scale, stands)
    marks = {one.points: one.word for one in stands}
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


def _line_rows(scale: Scale, stands: Sequence[Standing]) -> Sequence[RungRow]:
    turns = [(at, RungRow(show_value(at, scale.unit), f"{earned:g}", "", "")) for at, earned in scale.line]
    marked = [
        (one.value, RungRow(show_value(one.value, scale.unit), f"{one.points:.4g}", one.word, "")) for one in stands
    ]
    return [row for _, row in sorted([*turns, *marked], key=lambda pair: pair[0])]
