"""Why a score moved between two scorecards: a sentence for every criterion and node that did. No I/O."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from agent.catalogue import Text
from collector.evidence import CriterionResult, QuestionEvidence, WorstSubject
from collector.score import NodeResult, Scorecard

NAMES_SHOWN = 3
TOLERANCE = 1e-9


class Moved(msgspec.Struct, frozen=True):
    """One thing that moved; cause: rule, site_folder, data or several, in the order of what is sure first."""

    id: str
    title: Text
    kind: str
    low_before: float
    low_after: float
    high_before: float
    high_after: float
    cause: str
    sentence: Text


def compare(before: Scorecard, after: Scorecard) -> list[Moved]:
    """What moved: criteria first in the order of the index, then nodes whose cap or whose children moved them."""
    old, new = _criteria(before), _criteria(after)
    moved = [change for name in {**new, **old} if (change := _criterion(before, after, old.get(name), new.get(name)))]
    old_nodes = {node.id: node for node in before.nodes}
    moved += [
        change
        for node in after.nodes
        if node.id in old_nodes and (change := _node(old_nodes[node.id], node, moved)) is not None
    ]
    return moved


def _criteria(card: Scorecard) -> dict[str, CriterionResult]:
    return {one.id: one for node in card.nodes for one in node.criteria}


def _has_moved(before: CriterionResult | NodeResult, after: CriterionResult | NodeResult) -> bool:
    return abs(before.low - after.low) > TOLERANCE or abs(before.high - after.high) > TOLERANCE


def _criterion(
    old_card: Scorecard, new_card: Scorecard, before: CriterionResult | None, after: CriterionResult | None
) -> Moved | None:
    if before is None or after is None:
        known = before or after
        if known is None:
            return None
        text = Text("该准则只在其中一份评分里", "this criterion stands in one of the two scorecards only")
        earned = (known.low, known.high)
        was, now = (earned, (0.0, 0.0)) if after is None else ((0.0, 0.0), earned)
        return Moved(known.id, known.title, "criterion", was[0], now[0], was[1], now[1], "rule", text)
    if not _has_moved(before, after):
        return None
    cause, why = _cause(old_card, new_card, before, after)
    return _moved(before, after, "criterion", cause, why)


def _moved(
    before: CriterionResult | NodeResult, after: CriterionResult | NodeResult, kind: str, cause: str, why: Text
) -> Moved:
    was, now = (f"{one.low:.4g} - {one.high:.4g}" for one in (before, after))
    sentence = Text(f"{was} → {now}：{why.zh}", f"{was} -> {now}: {why.en}")
    return Moved(after.id, after.title, kind, before.low, after.low, before.high, after.high, cause, sentence)


def _cause(
    old_card: Scorecard, new_card: Scorecard, before: CriterionResult, after: CriterionResult
) -> tuple[str, Text]:
    if before.rule_digest != after.rule_digest:
        return "rule", Text("规则或标尺改了", "the rule or its scale was changed")
    if before.attestation != after.attestation:
        return "site_folder", _attestation_words(before, after)
    folder_changed = old_card.digests.site_folder != new_card.digests.site_folder
    if folder_changed and (subjects := _subject_words(before, after)):
        return "site_folder", subjects
    words = _data_words(before, after)
    if before.status != after.status and after.reason is not None:
        words = after.reason
    elif before.status != after.status and before.reason is not None:
        words = Text(f"此前：{before.reason.zh}", f"before: {before.reason.en}")
    return "data", words


def _attestation_words(before: CriterionResult, after: CriterionResult) -> Text:
    was, now = before.attestation, after.attestation
    if now is None:
        return Text("不再有证明", "there is no attestation any more")
    if was is None:
        return Text(f"{now.author} 作了证明", f"{now.author} attested it")
    states = {
        "valid": Text("证明更新", "the attestation was renewed"),
        "expired": Text("证明过期", "the attestation expired"),
        "document_missing": Text("证明文件不在或已改动", "the document is gone or was changed"),
    }
    return states[now.state]


def _subject_words(before: CriterionResult, after: CriterionResult) -> Text | None:
    """What the site folder changed about who is asked."""
    exempt = [sum(len(one.exempt) for one in result.questions) for result in (before, after)]
    if exempt[0] != exempt[1]:
        return Text(f"豁免由 {exempt[0]} 变为 {exempt[1]}", f"exemptions went from {exempt[0]} to {exempt[1]}")
    if before.subjects != after.subjects:
        return Text(
            f"登记后对象由 {before.subjects} 变为 {after.subjects}",
            f"by the register the subjects went from {before.subjects} to {after.subjects}",
        )
    return None


def _data_words(before: CriterionResult, after: CriterionResult) -> Text:
    """The subjects whose numbers changed most, as far as the evidence names them."""
    old = {one.name: one for one in before.questions}
    named = [words for one in after.questions if one.name in old for words in _subject_changes(old[one.name], one)]
    lost = _missing(after) - _missing(before)
    parts_zh, parts_en = [], []
    if named:
        shown = ", ".join(named[:NAMES_SHOWN])
        more = len(named) - NAMES_SHOWN
        parts_zh.append(shown + (f" 等 {len(named)} 个" if more > 0 else ""))
        parts_en.append(shown + (f" and {more} more" if more > 0 else ""))
    if lost:
        parts_zh.append(f"缺失的时间桶{'多' if lost > 0 else '少'}了 {abs(lost)}")
        parts_en.append(f"{abs(lost)} {'more' if lost > 0 else 'fewer'} buckets are missing")
    if not parts_zh:
        parts_zh.append("数据变化")
        parts_en.append("the data changed")
    return Text("；".join(parts_zh), "; ".join(parts_en))


def _missing(result: CriterionResult) -> int:
    return sum(one.expected - one.found for one in result.questions)


def _subject_changes(before: QuestionEvidence, after: QuestionEvidence) -> Iterator[str]:
    """`asset 1 -> 0.5` for every named subject that changed, came or went."""
    old, new = (_by_name(one.worst) for one in (before, after))
    for name, now in new.items():
        was = old.get(name)
        if was is None:
            yield f"{name} {_number(now.low)}"
        elif was.low != now.low:
            yield f"{name} {_number(was.low)} -> {_number(now.low)}"
    for name in old:
        if name not in new and len(new) < len(old):
            yield f"{name} -"


def _by_name(subjects: Sequence[WorstSubject]) -> Mapping[str, WorstSubject]:
    return {" ".join(row.subject.values()) or "*": row for row in subjects}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _node(before: NodeResult, after: NodeResult, moved: list[Moved]) -> Moved | None:
    if not _has_moved(before, after):
        return None
    caps = {cap.id: cap for cap in before.caps}
    turned = [cap for cap in after.caps if cap.id in caps and caps[cap.id].state != cap.state]
    if turned:
        words = Text(
            "封顶条件变化：" + "；".join(f"{cap.title.zh}（{cap.state}）" for cap in turned),
            "a cap changed: " + "; ".join(f"{cap.title.en} ({cap.state})" for cap in turned),
        )
        return _moved(before, after, "node", "cap", words)
    below = [one.id for one in after.criteria if any(change.id == one.id for change in moved)]
    shown = ", ".join(below[:NAMES_SHOWN])
    words = Text(f"来自 {shown}" if shown else "来自下级", f"by {shown}" if shown else "by its children")
    return _moved(before, after, "node", "below", words)
