"""The first days: what is provisional and why, when it will count, what to do next."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from agent.language import say
from collector.coverage import CriterionRow as CoverageRow
from collector.evidence import CriterionResult, QuestionEvidence
from collector.inquiry import spell
from collector.plan import QuestionPlan
from collector.query import DAY_MS
from collector.report import INDICATORS, show_value, status_word
from collector.snapshot import Snapshot
from collector.web.times import day
from collector.web.view import Facts, Link, View
from collector.web.vouching import list_vouching


@dataclass(frozen=True)
class Ripening:
    """One criterion that has data: what it says so far, when it begins to count, when its window is full."""

    criterion: Link
    state: str
    word: str
    value: str
    counts: str
    full: str
    reason: str


@dataclass(frozen=True)
class Following:
    """What to do next: a criterion, what is to be done, what full marks there would add to its indicator."""

    criterion: Link
    todo: str
    sources: str
    gain: str
    indicator: Link


def start_view(snapshot: Snapshot) -> View:
    """Everything that somebody needs who has just begun."""
    near = [
        (node, result)
        for node in snapshot.scorecard.nodes
        if node.id.startswith(INDICATORS)
        for result in node.criteria
        if result.weight > 0
    ]
    results = [result for _, result in near]
    ripening = [(_counts_at(snapshot, one), _ripening(snapshot, one)) for one in results if _has_data(one)]
    commands, vouched = snapshot.commands, list_vouching(snapshot)
    return View(
        "start.html",
        {
            "standing": _standing(results),
            "ripening": [row for _, row in sorted(ripening, key=lambda pair: (pair[0] or 0, pair[1].criterion.path))],
            "zone": snapshot.zone.key,
            "following": _following(snapshot),
            "has_register": snapshot.folder.has_register,
            "entries": _entry_counts(snapshot),
            "draft": commands.spell_draft(),
            "check": commands.spell("register check"),
            "attest": commands.spell("attest add", say("准则 --value 数值 …", "CRITERION --value VALUE …")),
            "vouched": sum(one.said is not None for one in vouched),
            "vouchable": sum(one.result.kind == "attested" and one.is_near for one in vouched),
            "coverage": commands.spell("rules coverage"),
        },
    )


def _standing(results: list[CriterionResult]) -> Facts:
    """How many criteria of the two indicators stand where."""
    provisional = sum(one.provisional is not None for one in results)
    silent = sum(one.status == "no_data" and one.provisional is None for one in results)
    counts = [
        (say("已评分", "scored"), sum(one.status == "scored" for one in results)),
        (say("暂估，不计分", "provisional, not counted"), provisional),
        (say("无数据", "no data"), silent),
        (say("不适用", "not applicable"), sum(one.status == "not_applicable" for one in results)),
        (say("出错", "error"), sum(one.status == "error" for one in results)),
    ]
    return [(word, str(count)) for word, count in counts if count]


def _has_data(result: CriterionResult) -> bool:
    return bool(result.questions) and (result.questions[0].samples > 0 or result.provisional is not None)


def _ripening(snapshot: Snapshot, result: CriterionResult) -> Ripening:
    provisional = result.provisional
    value = provisional.value if provisional else result.value
    plan, evidence = snapshot.rules.plans[result.id].main, result.questions[0]
    return Ripening(
        criterion=Link(f"/criterion/{result.id}", str(result.title)),
        state="provisional" if provisional else result.status,
        word=say("暂估", "provisional") if provisional else status_word(result.status),
        value="" if value is None else show_value(value, result.unit),
        counts=_spell_counts(snapshot, result, plan),
        full=_spell_full(plan, evidence, snapshot.zone),
        reason=_reason(result),
    )


def _reason(result: CriterionResult) -> str:
    rests_on = result.provisional.rests_on if result.provisional else None
    return say("；", "; ").join(str(text) for text in (result.reason, rests_on) if text is not None)


# -- when


def after(at: int, each_ms: int, count: int, zone: ZoneInfo) -> int:
    """The bucket edge `count` buckets after the first one at or after `at` (ms); days begin at the site's midnight."""
    if each_ms < DAY_MS:
        return -(-at // each_ms) * each_ms + count * each_ms
    moment = datetime.datetime.fromtimestamp(at / 1000, zone)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if midnight < moment:
        midnight += datetime.timedelta(days=1)
    return int((midnight + datetime.timedelta(days=count * (each_ms // DAY_MS))).timestamp() * 1000)


def _counts_at(snapshot: Snapshot, result: CriterionResult) -> int | None:
    """When the least span is reached if no bucket is lost until then; None when it has been, or nothing is to be waited for.

    From the buckets that were found and not from the enrolment: those that were lost do not count.
    """
    plan, evidence = snapshot.rules.plans[result.id].main, result.questions[0]
    lacking = -(-plan.span_ms // plan.each_ms) - evidence.longest
    if result.status == "scored" or plan.subject.by == "age" or lacking <= 0:
        return None
    return after(evidence.window[1], plan.each_ms, lacking, snapshot.zone)


def _spell_counts(snapshot: Snapshot, result: CriterionResult, plan: QuestionPlan) -> str:
    if result.status == "scored":
        return say("已计分", "counts already")
    at = _counts_at(snapshot, result)
    if at is None:
        return say("不必等，见原因", "not for lack of time, see why")
    least = say(f"满 {spell(plan.span_ms, 'zh')}", f"{spell(plan.span_ms, 'en')} full")
    return f"{day(at, snapshot.zone)} ({least})"


def _spell_full(plan: QuestionPlan, evidence: QuestionEvidence, zone: ZoneInfo) -> str:
    """When all of the window lies after the first enrolment."""
    window = say(f"{spell(plan.over_ms, 'zh')} 窗口", f"{spell(plan.over_ms, 'en')} window")
    if evidence.since is None:
        return ""
    if evidence.since <= evidence.window[0]:
        lacking = evidence.expected - evidence.found
        holes = say(f"，缺 {lacking} 桶", f", {lacking} buckets missing") if lacking else ""
        return say("已满", "full already") + holes
    full = after(evidence.since, plan.each_ms, plan.over_ms // plan.each_ms, zone)
    return f"{day(full, zone)} ({window})"


# -- what to do


def _following(snapshot: Snapshot) -> list[Following]:
    rows = {row.id: row for row in snapshot.coverage.criteria}
    titles = {node.id: str(node.title) for node in snapshot.scorecard.nodes}
    return [_follow(rows[name], titles) for name in snapshot.coverage.following if name in rows]


def _follow(row: CoverageRow, titles: Mapping[str, str]) -> Following:
    lacking = [source for signal in row.signals if signal.state == "not_seen" for source in signal.sources]
    return Following(
        criterion=Link(f"/criterion/{row.id}", str(row.title)),
        todo=str(row.todo) if row.todo else "",
        sources=say("、", ", ").join(dict.fromkeys(lacking)),
        gain=f"+{row.gain:.3g}",
        indicator=Link(f"/node/{row.indicator}", titles[row.indicator]),
    )


def _entry_counts(snapshot: Snapshot) -> Facts:
    words = {
        "assets": say("资产", "assets"),
        "services": say("业务系统", "services"),
        "links": say("线路", "links"),
        "zones": say("区域", "zones"),
        "segments": say("网段", "segments"),
    }
    return [(words[name], str(len(section))) for name, section in snapshot.folder.entries.items() if section]
