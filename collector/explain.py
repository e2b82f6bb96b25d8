"""`infravitals explain`: the way from samples to points, as the scorecard's evidence holds it."""

from collections.abc import Iterator, Sequence

from agent.catalogue import Text
from agent.language import say
from collector.evaluate import Rules, format_time
from collector.evidence import CapResult, CriterionResult, QuestionEvidence, WorstSubject
from collector.report import (
    bar,
    combination_lines,
    question_lines,
    show_value,
    spell_basis,
    standings,
    status_word,
)
from collector.score import NodeResult, Scorecard
from collector.snapshot import Commands

DIGEST_CHARACTERS = 16


def find_explained(card: Scorecard, name: str) -> NodeResult | CriterionResult | None:
    """The node of this dotted id (its last part will do where it is the only one), or the criterion of this id."""
    for node in card.nodes:
        for criterion in node.criteria:
            if criterion.id == name:
                return criterion
    ends = [node for node in card.nodes if node.id == name or node.id.endswith(f".{name}")]
    return ends[0] if len(ends) == 1 else None


def known_names(card: Scorecard) -> list[str]:
    """Everything that can be explained."""
    return [node.id for node in card.nodes] + [one.id for node in card.nodes for one in node.criteria]


def explain(rules: Rules, card: Scorecard, found: NodeResult | CriterionResult, commands: Commands) -> str:
    """The explanation as text; commands: how the reader goes on in a shell."""
    again = commands.spell("score", "--as-of", card.as_of, "--format json")
    lines = (
        _node_lines(card, found) if isinstance(found, NodeResult) else _criterion_lines(rules, card, found, commands)
    )
    anew = say("自行复核，按今天的规则和医院资料重新评分：", "check it yourself, by today's rules and site folder: ")
    return "\n".join([*lines, "", anew, f"  {again}", *_stored_lines(card, commands)])


def _stored_lines(card: Scorecard, commands: Commands) -> Iterator[str]:
    """How to get this very revision again, where it is stored: only full hours are."""
    if card.as_of.endswith(":00:00Z"):
        yield say("取回存下的这次修订：", "get this revision as it was stored: ")
        yield "  " + commands.spell("score", "--as-of", card.as_of, f"--revision {card.revision}", "--format json")


# -- a node


def _node_lines(card: Scorecard, node: NodeResult) -> Iterator[str]:
    yield f"{node.id} · {node.title}"
    yield _moment(card)
    yield ""
    yield _interval(node.low, node.high, node.coverage)
    yield ""
    parts: Sequence[NodeResult | CriterionResult] = node.criteria or _children(card, node)
    if not parts:
        yield say("既无准则也无下级，因此为 0 到 100。", "it has neither criteria nor children, so it is 0 to 100.")
        return
    yield say("得分 = 各行 有效权重 × 得分 之和：", "the score is the sum of effective weight x points of these:")
    for part in parts:
        yield from _part_lines(part)
    yield _sum_line(node, parts)
    for cap in node.caps:
        yield from _cap_lines(cap)
    yield from _next_lines(parts)


def _children(card: Scorecard, node: NodeResult) -> list[NodeResult]:
    return [child for child in card.nodes if child.parent == node.id]


def _part_lines(part: NodeResult | CriterionResult) -> Iterator[str]:
    weighed = f"{part.effective_weight:.4g} x {_points(part.low)} = {part.effective_weight * part.low:.4g}"
    interval = f"{_points(part.low)} - {_points(part.high)}"
    yield f"  {weighed:<24} {interval:>13}  {status_word(part.status)}  {part.id} · {part.title}"
    if part.weight != part.effective_weight and part.weight:
        yield say(
            f"      公布的权重 {part.weight:g}，因有不适用项而变为 {part.effective_weight:.4g}",
            f"      its published weight {part.weight:g} became {part.effective_weight:.4g} since something does not apply",
        )


def _sum_line(node: NodeResult, parts: Sequence[NodeResult | CriterionResult]) -> str:
    total = sum(part.effective_weight * part.low for part in parts)
    if node.cap is not None and total > node.cap:
        return say(f"  合计 {total:.4g}，封顶后 {node.low:.4g}", f"  together {total:.4g}, with the cap {node.low:.4g}")
    return say(f"  合计 {node.low:.4g}", f"  together {node.low:.4g}")


def _cap_lines(cap: CapResult) -> Iterator[str]:
    states = {
        "met": Text("成立", "it holds"),
        "unknown": Text("未知，只限制左端", "unknown, limits the left end only"),
        "not_met": Text("不成立", "it does not hold"),
    }
    yield say(f"封顶 {cap.ceiling:g}：", f"cap at {cap.ceiling:g}: ") + f"{cap.title} - {states[cap.state]} ({cap.id})"
    for question in cap.questions:
        yield from (f"  {line}" for line in _found_lines(question))


def _next_lines(parts: Sequence[NodeResult | CriterionResult]) -> Iterator[str]:
    gains = [(part.effective_weight * (100 - part.low), part) for part in parts]
    ordered = sorted((gain, part.id) for gain, part in gains if gain > 0)[::-1][:3]
    if ordered:
        yield ""
        yield say("最能提高得分的：", "what would raise it most: ") + ", ".join(
            f"{name} (+{gain:.3g})" for gain, name in ordered
        )


# -- a criterion


def _criterion_lines(rules: Rules, card: Scorecard, result: CriterionResult, commands: Commands) -> Iterator[str]:
    criterion = rules.book.criteria[result.id]
    yield f"{result.id} · {result.title}"
    yield _moment(card)
    yield ""
    yield _interval(result.low, result.high, result.coverage) + f"  {status_word(result.status)}"
    yield from _value_lines(result)
    yield from _weight_lines(card, result)
    yield ""
    yield say("为什么：", "why: ") + str(criterion.why)
    yield say("如何改进：", "fix: ") + str(criterion.fix)
    yield say("依据：", "basis: ") + "; ".join(spell_basis(rules, basis) for basis in criterion.basis)
    yield ""
    if result.kind == "attested":
        yield from _attestation_lines(result, commands)
    else:
        yield from _way_lines(rules, result)
    yield ""
    yield from _rung_lines(rules, result)
    if result.query:
        yield ""
        yield say("可重跑的查询：", "the query, to run again:")
        yield result.query.strip()
    yield ""
    yield say(
        f"摘要：答案 {_short(result.digest)}，规则 {_short(result.rule_digest)}，医院资料 {_short(card.digests.site_folder)}",
        f"digests: answer {_short(result.digest)}, rule {_short(result.rule_digest)}, site folder {_short(card.digests.site_folder)}",
    )


def _value_lines(result: CriterionResult) -> Iterator[str]:
    if result.provisional is not None:
        value = show_value(result.provisional.value, result.unit)
        yield say(
            f"暂估值 {value}，{_points(result.provisional.points)} 分，不计分",
            f"provisional value {value}, {_points(result.provisional.points)} points, not counted",
        )
        if result.provisional.rests_on is not None:
            yield say("注意：", "note: ") + str(result.provisional.rests_on)
    if result.reason is not None:
        yield say("为何没有得分：", "why there is no score: ") + str(result.reason)
    if result.status == "scored" and result.kind == "attested":
        value = show_value(result.value, result.unit)
        yield say(
            f"证明的数值：{value}，得 {_points(result.low)} 分",
            f"attested value: {value} earns {_points(result.low)}",
        )
    elif result.status == "scored":
        worst, best = (show_value(value, result.unit) for value in (result.value, result.best_value))
        yield say(
            f"实测值：最坏 {worst} 得 {_points(result.low)} 分，最好 {best} 得 {_points(result.high)} 分",
            f"value: {worst} at worst earns {_points(result.low)}, {best} at best earns {_points(result.high)}",
        )


def _weight_lines(card: Scorecard, result: CriterionResult) -> Iterator[str]:
    for node in card.nodes:
        if any(one.id == result.id for one in node.criteria):
            yield say(
                f"计入 {node.id}（{node.title}）：权重 {result.weight:g}，有效权重 {result.effective_weight:.4g}",
                f"counts in {node.id} ({node.title}): weight {result.weight:g}, effective {result.effective_weight:.4g}",
            )
            for cap in node.caps:
                yield from _cap_lines(cap)


def _attestation_lines(result: CriterionResult, commands: Commands) -> Iterator[str]:
    said = result.attestation
    if said is None:
        add = commands.spell("attest add", result.id)
        yield say(f"由人证明，尚无证明：{add}", f"attested by a person, nobody has yet: {add}")
        return
    yield say(f"证明人：{said.author}（{said.role}）", f"attested by {said.author} ({said.role})")
    yield say(f"有效期：{said.since} 至 {said.expires}", f"valid from {said.since} to {said.expires}")
    if said.reason:
        yield say("理由：", "reason: ") + said.reason
    paper = f"{said.document} (sha256 {said.sha256})" if said.document else say("未附文件", "no document attached")
    yield say("文件：", "document: ") + paper


def _way_lines(rules: Rules, result: CriterionResult) -> Iterator[str]:
    """Every question in words with what the store held; then how they become one number."""
    criterion, plan = rules.book.criteria[result.id], rules.plans.get(result.id)
    askings = criterion.questions()
    for evidence in result.questions:
        asking = askings.get(evidence.name)
        yield (
            say(f"问题 {evidence.name}：", f"question {evidence.name}:")
            if evidence.name
            else say("问题：", "question:")
        )
        if asking is not None and plan is not None and evidence.name in plan.questions:
            yield from (f"  {line}" for line in question_lines(rules, asking, plan.questions[evidence.name]))
        yield from (f"  {line}" for line in _found_lines(evidence))
    if plan is not None:
        yield from combination_lines(criterion, plan)


def _found_lines(evidence: QuestionEvidence) -> Iterator[str]:
    start, end = (format_time(moment) for moment in evidence.window)
    yield say(
        f"时间 {start} 至 {end}：{evidence.subjects} 个对象，时间桶应有 {evidence.expected}、实有 {evidence.found}，样本 {evidence.samples}",
        f"from {start} to {end}: {evidence.subjects} subjects, buckets expected {evidence.expected}, found {evidence.found}, samples {evidence.samples}",
    )
    if evidence.low is not None:
        worst, best = (show_value(value, evidence.number_unit) for value in (evidence.low, evidence.high))
        yield say(f"结果：最坏 {worst}，最好 {best}", f"result: {worst} at worst, {best} at best")
    for subject in evidence.worst:
        yield say("最差 ", "worst ") + _subject(subject, evidence.unit)
    for subject in evidence.missing:
        lacking = subject.expected - subject.found
        yield say("缺失 ", "missing ") + _names(subject) + say(f"：缺 {lacking} 桶", f": {lacking} buckets")
    if evidence.exempt:
        names = "; ".join(" ".join(one.values()) for one in evidence.exempt)
        yield say("豁免：", "exempt: ") + names


def _subject(subject: WorstSubject, unit: str) -> str:
    worst, best = (show_value(value, unit) for value in (subject.low, subject.high))
    values = worst if worst == best else f"{worst} - {best}"
    return f"{_names(subject)}: {values} ({subject.found}/{subject.expected})"


def _names(subject: WorstSubject) -> str:
    return " ".join(f"{tag}={value}" for tag, value in subject.subject.items()) or say(
        "合并后的全部对象", "all together"
    )


def _rung_lines(rules: Rules, result: CriterionResult) -> Iterator[str]:
    """The scale, with what stands on which rung."""
    name = rules.book.criteria[result.id].scale
    scale = rules.book.scales[name]
    yield say(f"标尺 {name}（{scale.title}）：", f"scale {name} ({scale.title}):")
    stands = standings(scale, result)
    marks = {one.points: one.word for one in stands}
    sign = "≥" if scale.better == "higher" else "≤"
    for rung in scale.rungs:
        mark = f" ◀ {marks[rung.points]}" if rung.points in marks else ""
        basis = "; ".join(spell_basis(rules, basis) for basis in rung.basis)
        yield f"  {sign} {show_value(rung.at, scale.unit):>10} -> {rung.points:>5g}{mark}   {basis}"
    if scale.rungs and 0.0 in marks and all(rung.points for rung in scale.rungs):
        yield say("  未达到以上各级", "  none of these") + f" -> 0 ◀ {marks[0.0]}"
    for at, earned in scale.line:
        yield f"  {show_value(at, scale.unit):>10} -> {earned:>5g}"
    for one in stands if scale.line else ():
        yield f"  {one.word}" + say("：", ": ") + f"{show_value(one.value, scale.unit)} -> {_points(one.points)}"


# -- common


def _moment(card: Scorecard) -> str:
    return f"{card.site} · {card.as_of} · " + say(f"修订 {card.revision}", f"revision {card.revision}")


def _interval(low: float, high: float, coverage: float) -> str:
    return (
        f"{_points(low)} - {_points(high)}  {bar(low, high)}  " + say("覆盖 ", "coverage ") + f"{coverage * 100:.3g} %"
    )


def _points(value: float) -> str:
    return f"{value:.4g}"


def _short(digest: str) -> str:
    return digest[:DIGEST_CHARACTERS]
