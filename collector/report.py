"""What a terminal shows of scores and rules; it only shows what is there."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from agent.catalogue import unit as unit_of
from agent.language import say
from collector.evaluate import Rules
from collector.evidence import CriterionResult, Status
from collector.plan import Plan, QuestionPlan, SettledStep
from collector.query import Take
from collector.rulebook import Asking, Basis, Criterion, Scale
from collector.score import points

INDICATORS = ("hospital.data-availability", "hospital.network-security")
"""The two indicators that telemetry scores; every face leads with them and the eleven below."""

BAR_CELLS = 20


def status_word(status: Status) -> str:
    """A status as a person reads it."""
    words: Mapping[Status, tuple[str, str]] = {
        "scored": ("已评分", "scored"),
        "no_data": ("无数据", "no data"),
        "not_applicable": ("不适用", "not applicable"),
        "error": ("出错", "error"),
    }
    return say(*words[status])


def bar(low: float, high: float, cells: int = BAR_CELLS) -> str:
    """`low` as full cells, the unproven rest up to `high` as light ones: readable without colour."""
    full = int(low / 100 * cells + 0.5)
    light = max(0, int(high / 100 * cells + 0.5) - full)
    return "█" * full + "░" * light + "·" * (cells - full - light)


def show_value(value: float | None, unit: str) -> str:
    """A number in the unit that people use for it, at four digits; unit: that of a scale."""
    if value is None:
        return "–"
    if unit == "ratio":
        return _percent(value)
    if unit == "bits_per_second":
        return _scaled(value, RATES)
    if unit == "seconds":
        return _scaled(value, SPANS)
    return plain(value)


class Standing(NamedTuple):
    """Where a value stands on its scale; word: which value it is."""

    word: str
    value: float
    points: float


def standings(scale: Scale, result: CriterionResult) -> list[Standing]:
    """What to mark on a scale: both ends of a scored value, the better first, or the provisional one; else nothing."""
    if result.provisional is not None:
        value = result.provisional.value
        return [Standing(say("暂估", "provisional"), value, points(scale, value))]
    if result.status != "scored" or result.value is None:
        return []
    if result.low == result.high or result.best_value is None:
        return [Standing(say("此刻", "now"), result.value, result.low)]
    return [
        Standing(say("最好", "at best"), result.best_value, result.high),
        Standing(say("最坏（计分）", "at worst (counts)"), result.value, result.low),
    ]


class Unit(NamedTuple):
    """A unit that a number is shown in from `least` on; size: what one of it is in the base unit."""

    least: float
    size: float
    zh: str
    en: str


RATES = (
    Unit(1e12, 1e12, "Tb/s", "Tb/s"),
    Unit(1e9, 1e9, "Gb/s", "Gb/s"),
    Unit(1e6, 1e6, "Mb/s", "Mb/s"),
    Unit(1e3, 1e3, "kb/s", "kb/s"),
    Unit(0, 1, "b/s", "b/s"),
)
SPANS = (
    Unit(172_800, 86_400, "天", "d"),  # 24 h and 36 h are what people say
    Unit(3600, 3600, "小时", "h"),
    Unit(60, 60, "分钟", "min"),
    Unit(1, 1, "秒", "s"),
    Unit(0, 0.001, "毫秒", "ms"),
)


def _scaled(value: float, units: Sequence[Unit]) -> str:
    rounded = float(f"{value:.4g}")  # first, or 999 999 b/s would become 1000 kb/s
    if not rounded:
        return f"0 {next(say(unit.zh, unit.en) for unit in units if unit.size == 1)}"
    unit = next(unit for unit in units if abs(rounded) >= unit.least)
    return f"{_digits(rounded / unit.size)} {say(unit.zh, unit.en)}"


def _percent(ratio: float) -> str:
    """From 99 % on three decimals: classes of availability differ there; and what is less than all never reads 100 %."""
    if 0.99 <= ratio < 1:
        return f"{_digits(min(ratio * 100, 99.999), 5)} %"
    return f"{_digits(ratio * 100)} %"


def plain(value: float) -> str:
    """A number without a unit: whole ones in full, others at four digits, never with an exponent."""
    return f"{value:.0f}" if float(value).is_integer() else _digits(value)


def _digits(value: float, digits: int = 4) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def explain_rule(rules: Rules, name: str, query: str | None) -> str:
    """What a criterion asks and how the answer becomes points, in the reader's language."""
    criterion = rules.book.criteria[name]
    scale = rules.book.scales[criterion.scale]
    lines = [
        f"{name} · {criterion.title}",
        "",
        say("为什么：", "why: ") + str(criterion.why),
        say("如何改进：", "fix: ") + str(criterion.fix),
        "",
    ]
    lines += [say("依据：", "basis: ") + "; ".join(spell_basis(rules, basis) for basis in criterion.basis), ""]
    plan = rules.plans.get(name)
    lines += plan_lines(rules, criterion, plan) if plan else _attested_lines(criterion)
    if criterion.not_applicable:
        lines.append(say("可声明不适用：", "may be declared not to apply: ") + str(criterion.not_applicable))
    if query:
        lines += ["", say("查询：", "query:"), query]
    lines += ["", say(f"标尺 {criterion.scale}({scale.title})：", f"scale {criterion.scale} ({scale.title}):")]
    lines += _scale_lines(rules, scale)
    return "\n".join(lines)


def _attested_lines(criterion: Criterion) -> list[str]:
    valid = criterion.valid or ""
    return [
        say(
            f"由人证明，每次最长有效 {valid}：infravitals attest add",
            f"attested by a person, for {valid} at most: infravitals attest add",
        )
    ]


def plan_lines(rules: Rules, criterion: Criterion, plan: Plan) -> list[str]:
    """Every question in words, and how the answers become one number."""
    lines: list[str] = []
    for name, asking in criterion.questions().items():
        title = say(f"问题 {name}：", f"question {name}:") if name else say("问题：", "question:")
        lines += [title, *(f"  {line}" for line in question_lines(rules, asking, plan.questions[name]))]
    return lines + combination_lines(criterion, plan)


def combination_lines(criterion: Criterion, plan: Plan) -> list[str]:
    """How the answers of several questions become one number; nothing for a criterion that asks one thing."""
    if plan.combination is None:
        return []
    by = criterion.combine and criterion.combine.by
    return [say("合并：", "combined: ") + f"{plan.combination.title} ({by})", *_step_lines(plan.steps)]


def question_lines(rules: Rules, asking: Asking, plan: QuestionPlan) -> list[str]:
    """One question in words, a line for every step from samples to a number."""
    field = rules.catalogue.measurements[plan.measurement].fields[plan.field]
    unit = unit_of(plan.field)
    where = "; ".join(f"{key} = {' | '.join(values)}" for key, values in (*plan.tags, *plan.attributes))
    lines = [
        f"{asking.measures}{f' ({unit})' if unit else ''}: {say(field.zh, field.en)}",
        say(f"窗口 {asking.over}，每 {asking.each} 一桶", f"over {asking.over} in buckets of {asking.each}"),
        say("对象：", "subjects: ") + ", ".join(plan.per) + (f" ({where})" if where else ""),
        say("样本到桶：", "samples to a bucket: ") + spell_take(plan.bucket),
    ]
    if asking.out_of is not None:
        lines.append(say(f"占 {asking.out_of.measures} 的比例", f"as a share of {asking.out_of.measures}"))
    if plan.during:
        lines.append(say(f"只计日历 {plan.during} 之内的桶", f"only buckets inside the calendar {plan.during}"))
    if plan.watches:
        watches = say("、", ", ").join(asking.watched_by)
        lines.append(say(f"须由 {watches} 证明有人在看", f"proof that somebody looked: {watches}"))
    if plan.is_excused:
        lines.append(say("事先公告的维护不计", "maintenance announced beforehand does not count"))
    if plan.together is not None:
        lines.append(
            say("每个桶内先合并所有对象：", "in every bucket, all subjects first: ") + spell_take(plan.together)
        )
    lines.append(say("桶到对象：", "buckets to a subject: ") + spell_take(plan.subject))
    lines += _step_lines(plan.steps)
    worst, best = plain(plan.bounds.worst), plain(plan.bounds.best)
    lines.append(
        say(
            f"缺失的桶：最坏计 {worst}，最好计 {best}",
            f"a missing bucket counts as {worst} at worst and {best} at best",
        )
    )
    needs = asking.needs
    lines.append(
        say(f"至少需要：{needs.span}，{needs.samples} 个样本", f"needs at least: {needs.span}, {needs.samples} samples")
    )
    return lines


def _step_lines(steps: Sequence[SettledStep]) -> list[str]:
    return [
        say("跨对象：", "across subjects: ")
        + spell_take(step.take)
        + (say(f"（按 {', '.join(step.per)}）", f" (per {', '.join(step.per)})") if step.per else "")
        for step in steps
    ]


def spell_take(take: Take) -> str:
    """A reduction in words."""
    words = {
        "mean": ("平均", "mean"),
        "min": ("最小", "min"),
        "max": ("最大", "max"),
        "last": ("最近", "last"),
        "sum": ("合计", "sum"),
        "count": ("计数", "count"),
    }
    if take.by == "percentile":
        return f"P{take.p:g}"
    if take.by == "share":
        condition = f"{take.operator} {plain(take.threshold or 0)}"
        return say(f"满足 {condition} 的占比", f"share that is {condition}")
    if take.by == "age":
        condition = f"{take.operator} {plain(take.threshold or 0)}"
        return say(f"距最近一次 {condition} 的时间", f"time since it was last {condition}")
    return say(*words[take.by])


def _scale_lines(rules: Rules, scale: Scale) -> list[str]:
    sign = "≥" if scale.better == "higher" else "≤"
    lines = [f"  {spell_basis(rules, basis)}" for basis in scale.basis]
    for rung in scale.rungs:
        basis = "; ".join(spell_basis(rules, basis) for basis in rung.basis)
        lines.append(f"  {sign} {show_value(rung.at, scale.unit):>10} -> {rung.points:>5g}   {basis}")
    lines += [f"  {show_value(at, scale.unit):>10} -> {points:>5g}" for at, points in scale.line]
    return lines


def spell_basis(rules: Rules, basis: Basis) -> str:
    """The document, the clause, what it says, and how sure that is; our own judgement says so once."""
    confidence = {
        "confirmed": ("已核对", "confirmed"),
        "secondary": ("二手来源", "secondary"),
        "general-knowledge": ("常识，未核对", "general knowledge, not confirmed"),
        "own-judgement": ("本项目判断", "our own judgement"),
    }[basis.confidence]
    publication = rules.book.sources[basis.source]
    title = say(publication.zh, publication.en)
    clause = f" {basis.clause}" if basis.clause else ""
    note = f" · {basis.note}" if basis.note else ""
    is_said = basis.source == "own" and basis.confidence == "own-judgement"
    return f"{title}{clause}{note}" + ("" if is_said else f" [{say(*confidence)}]")
