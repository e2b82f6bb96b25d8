"""The ceilings of a node: what each waits for, whether it holds, and what it limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.language import say
from collector.evidence import CapResult
from collector.report import plain, show_value, spell_basis
from collector.rulebook import Cap
from collector.score import NodeResult
from collector.snapshot import Snapshot
from collector.web.questions import QuestionBlock, question_blocks
from collector.web.view import Link


@dataclass(frozen=True)
class CapRow:
    """One cap. limits: which ends it limits now; condition: when it holds; criterion: what the condition speaks of, if any."""

    id: str
    title: str
    ceiling: str
    state: str
    word: str
    limits: str
    condition: str
    criterion: Link
    found: str
    basis: Sequence[str]
    questions: Sequence[QuestionBlock]


def cap_rows(snapshot: Snapshot, node: NodeResult) -> list[CapRow]:
    """All caps of a node, in the index's order."""
    known = {cap.id: cap for cap in snapshot.rules.book.index.caps}
    return [_cap_row(snapshot, known[result.id], result) for result in node.caps if result.id in known]


def _cap_row(snapshot: Snapshot, cap: Cap, result: CapResult) -> CapRow:
    state, word, limits = _state(result)
    condition, found = _condition(snapshot, cap, result)
    plan = snapshot.rules.caps.get(cap.id)
    title = str(snapshot.rules.book.criteria[cap.criterion].title) if cap.criterion else ""
    return CapRow(
        id=cap.id,
        title=str(cap.title),
        ceiling=f"{cap.ceiling:g}",
        state=state,
        word=word,
        limits=limits,
        condition=condition,
        criterion=Link(f"/criterion/{cap.criterion}", title) if cap.criterion else Link("", ""),
        found=found,
        basis=[spell_basis(snapshot.rules, basis) for basis in cap.basis],
        questions=question_blocks(snapshot, result.questions, cap.questions(), plan, f"cap-{cap.id}"),
    )


def _state(result: CapResult) -> tuple[str, str, str]:
    """Class, word, and what follows."""
    ceiling = f"{result.ceiling:g}"
    return {
        "met": (
            "bad",
            say("成立", "holds"),
            say(f"区间两端都不高于 {ceiling}", f"neither end of the interval passes {ceiling}"),
        ),
        "unknown": (
            "provisional",
            say("未知", "unknown"),
            say(f"只限制左端：在证实之前不高于 {ceiling}", f"limits the left end only, to {ceiling} until it is known"),
        ),
        "not_met": ("good", say("不成立", "does not hold"), say("不限制得分", "limits nothing")),
    }[result.state]


def _condition(snapshot: Snapshot, cap: Cap, result: CapResult) -> tuple[str, str]:
    """When the cap holds, and what is known of that now."""
    if cap.criterion is not None:
        condition = say(
            f"以下准则的得分低于 {cap.points_below:g} 时成立：",
            f"holds while this criterion earns less than {cap.points_below:g}: ",
        )
        return condition, _interval_of(snapshot, cap.criterion)
    plan = snapshot.rules.caps[cap.id]
    at_least = cap.at_least or 0.0
    if plan.combination is not None:
        condition = say(
            f"“{plan.combination.title}”的结果不低于 {plain(at_least)} 时成立",
            f"holds while “{plan.combination.title}” comes to {plain(at_least)} or more",
        )
        return condition, ""
    threshold = show_value(at_least, plan.main.number_unit)
    condition = say(f"测得的数值不低于 {threshold} 时成立", f"holds while what is measured is {threshold} or more")
    low, high = next(((one.low, one.high) for one in result.questions), (None, None))
    if low is None:
        return condition, say("此刻没有数值", "no number now")
    worst, best = (show_value(value, plan.main.number_unit) for value in (low, high))
    return condition, say(f"此刻最坏 {worst}，最好 {best}", f"now {worst} at worst, {best} at best")


def _interval_of(snapshot: Snapshot, name: str) -> str:
    for node in snapshot.scorecard.nodes:
        for result in node.criteria:
            if result.id == name:
                interval = f"{result.low:.4g} – {result.high:.4g}"
                return say(f"此刻 {interval}", f"now {interval}")
    return ""
