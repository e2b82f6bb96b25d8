"""Services without interruption, as far as it was measured: state, outages, drills beside their targets, pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.language import say
from agent.table import NEVER_SECONDS, show_seconds
from collector.combine import Row, take_recovery_if_automatic
from collector.continuity import (
    Continuity,
    Outage,
    PairNow,
    RoleNow,
    ServiceNow,
    Switch,
    Toll,
    newest_of_each,
    toll_of,
)
from collector.query import DAY_MS
from collector.report import show_value
from collector.score import points
from collector.snapshot import Snapshot
from collector.web.times import ago, local_moment
from collector.web.view import Link, View

OUTAGES_SHOWN, SWITCHES_SHOWN, TRACES_SHOWN = 100, 100, 3
MONTH_MS, YEAR_MS = 30 * DAY_MS, 365 * DAY_MS
RTO, RPO, RECENCY = "achieved-rto", "achieved-rpo", "failover-drill-recency"
OF_OUTAGES = ("critical-service-availability", "auto-recovery-rate", "fault-recovery-time-p95")
OF_PAIRS = ("dual-active-system-coverage", "replication-in-sync-ratio", "replication-lag-p99")

MEASUREMENTS = frozenset({"drill", "outage", "replication", "service_probe"})
"""Criteria that ask these lead to this page."""


@dataclass(frozen=True)
class TollRow:
    """The outages of one service, in the last month and the last year."""

    service: str
    month: Toll
    year: Toll


@dataclass(frozen=True)
class OutageRow:
    """One outage in words."""

    service: str
    began: str
    ended: str
    seconds: str
    planned: str
    state: str
    restored: str
    traces: Sequence[str]
    lost: str


@dataclass(frozen=True)
class SwitchRow:
    """One switchover. feeds: the criteria that take a figure of it, each with the points that it would earn."""

    drill: str
    service: str
    when: str
    kind: str
    word: str
    state: str
    rto: str
    rpo: str
    lost: str
    hands: str
    tokens: str
    digest: str
    plan: str
    feeds: Sequence[Link]
    is_newest: bool


def continuity_view(snapshot: Snapshot) -> View:
    """All of it."""
    facts, now, zone = snapshot.continuity, snapshot.taken_at, snapshot.zone
    newest = list(newest_of_each(facts.switches))
    return View(
        "continuity.html",
        {
            "is_empty": facts.is_empty,
            "zone": zone.key,
            "services": [_service(one, now) for one in facts.services],
            "tolls": _tolls(facts, now),
            "show_seconds": show_seconds,
            "outages": [_outage(snapshot, one) for one in facts.outages[:OUTAGES_SHOWN]],
            "more_outages": max(0, len(facts.outages) - OUTAGES_SHOWN),
            "is_cut": facts.is_cut,
            "switches": [_switch(snapshot, one, one in newest) for one in facts.switches[:SWITCHES_SHOWN]],
            "targets": {"rto": _target(snapshot, RTO), "rpo": _target(snapshot, RPO)},
            "pairs": [_pair(one, now) for one in facts.pairs],
            "roles": [_role(one, now) for one in facts.roles],
            "of_outages": _criteria(snapshot, OF_OUTAGES),
            "of_switches": _criteria(snapshot, (RTO, RPO, RECENCY)),
            "of_pairs": _criteria(snapshot, OF_PAIRS),
        },
    )


def describe_standing(snapshot: Snapshot) -> str:
    """One line for the first page; empty when nothing is watched."""
    facts, now = snapshot.continuity, snapshot.taken_at
    if not facts.services and not facts.switches:
        return ""
    names = {one.service for one in facts.services}
    out = sorted({one.service for one in facts.services if not one.is_up and not one.is_silent})
    month = [one for one in facts.outages if one.ended_at >= now - MONTH_MS]
    seconds = show_seconds(sum(one.seconds for one in month))
    parts = [
        say(f"有拨测的业务 {len(names)} 个", f"services probed: {len(names)}"),
        say(f"正在中断：{'、'.join(out)}", f"out now: {', '.join(out)}") if out else say("无中断", "none is out"),
        say(f"近 30 天中断 {len(month)} 次，共 {seconds} 秒", f"outages in 30 days: {len(month)}, {seconds} s together")
        if month
        else say("近 30 天没有中断", "no outage in 30 days"),
    ]
    if facts.switches:
        last = facts.switches[0]
        rto = show_seconds(last.rto_seconds)
        parts.append(
            say(f"最近一次切换 {last.drill}，RTO {rto} 秒", f"the newest switchover {last.drill}, RTO {rto} s")
        )
    return say("；", "; ").join(parts)


def _criteria(snapshot: Snapshot, names: Sequence[str]) -> list[Link]:
    known = snapshot.rules.book.criteria
    return [Link(f"/criterion/{name}", str(known[name].title)) for name in names if name in known]


def _target(snapshot: Snapshot, criterion: str) -> str:
    """What earns full marks, as the criterion's scale has it; empty when no such criterion is there."""
    book = snapshot.rules.book
    if criterion not in book.criteria:
        return ""
    scale = book.scales[book.criteria[criterion].scale]
    return f"≤ {show_value(scale.rungs[0].at, scale.unit)}" if scale.rungs else ""


def _service(one: ServiceNow, now: int) -> dict[str, object]:
    if one.is_silent:
        word, state = say("无数据", "no data"), "none"
    else:
        word, state = (say("正常", "up"), "good") if one.is_up else (say("中断", "out"), "bad")
    latency = "" if one.latency_seconds is None else f"{one.latency_seconds * 1000:.1f} ms"
    return {"service": one, "word": word, "state": state, "latency": latency, "when": ago(one.seen_at, now)}


def _tolls(facts: Continuity, now: int) -> list[TollRow]:
    names = sorted({one.service for one in facts.services} | {one.service for one in facts.outages})
    return [
        TollRow(name, *(toll_of(facts.outages, name, now - span) for span in (MONTH_MS, YEAR_MS))) for name in names
    ]


def _outage(snapshot: Snapshot, one: Outage) -> OutageRow:
    zone = snapshot.zone
    if one.drill:
        planned, state = say(f"演练 {one.drill}", f"drill {one.drill}"), "none"
    elif one.is_announced:
        planned, state = say("已公布的维护", "announced maintenance"), "none"
    else:
        planned, state = say("计划外", "not planned"), "bad"
    restored = (
        say("自动，无人介入", "by itself, without a person")
        if one.is_automatic
        else say("不知道是谁恢复的", "nobody knows by whom")
    )
    if one.move:
        restored += say(f"；切换 {one.move}", f"; switchover {one.move}")
    words = {
        "role": say("{who} 升为主用({of})", "{who} became master ({of})"),
        "vm": say("虚拟机 {of} 在 {who} 上运行", "machine {of} ran on {who}"),
    }
    return OutageRow(
        service=one.service,
        began=local_moment(one.began_at, zone),
        ended=local_moment(one.ended_at, zone),
        seconds=show_seconds(one.seconds),
        planned=planned,
        state=state,
        restored=restored,
        traces=[words[trace.what].format(who=trace.who, of=trace.of) for trace in one.traces[:TRACES_SHOWN]],
        lost="" if one.lost is None else str(one.lost),
    )


def _switch(snapshot: Snapshot, one: Switch, is_newest: bool) -> SwitchRow:
    word, state = (say("切走并切回", "moved and came back"), "good") if one.is_passed else _judge(one)
    hands = {
        True: say("无人介入", "without a person"),
        False: say("有人介入", "with a person"),
        None: say("是否有人介入未知", "whether a person acted is not known"),
    }[one.is_automatic]
    return SwitchRow(
        drill=one.drill,
        service=one.service,
        when=local_moment(one.ended_at, snapshot.zone),
        kind=say("演练", "drill") if one.is_planned else say("真实发生", "real"),
        word=word,
        state=state,
        rto=show_seconds(one.rto_seconds),
        rpo=show_seconds(one.rpo_seconds),
        lost="" if one.lost is None else str(one.lost),
        hands=hands,
        tokens="" if one.sent is None else f"{one.acknowledged}/{one.sent}",
        digest=one.token_log_digest,
        plan=one.plan_digest,
        feeds=_feeds(snapshot, one),
        is_newest=is_newest,
    )


def _judge(one: Switch) -> tuple[str, str]:
    """A switchover that has not passed."""
    if one.rto_seconds is not None and one.rto_seconds >= NEVER_SECONDS:
        return say("没有恢复", "did not recover"), "bad"
    if one.is_planned:
        return say("未通过", "not passed"), "bad"
    return say("尚未切回", "has not come back"), "provisional"


def _feeds(snapshot: Snapshot, one: Switch) -> list[Link]:
    """The criteria that take a figure of it."""
    book, links = snapshot.rules.book, []
    automatic = None if one.is_automatic is None else float(one.is_automatic)
    recovery = take_recovery_if_automatic(Row({}, {"time": one.rto_seconds, "automatic": automatic}, False))
    for name, value in ((RTO, recovery), (RPO, one.rpo_seconds)):
        if value is not None and name in book.criteria:
            earned = points(book.scales[book.criteria[name].scale], value)
            links.append(Link(f"/criterion/{name}", say(f"{name} {earned:g} 分", f"{name} {earned:g} points")))
    if one.is_passed and RECENCY in book.criteria:
        links.append(Link(f"/criterion/{RECENCY}", RECENCY))
    return links


def _pair(one: PairNow, now: int) -> dict[str, object]:
    """Whether both sides serve in truth."""
    if one.is_silent:
        word, state = say("无数据", "no data"), "none"
    elif not one.is_running:
        word, state = say("只在纸面上", "on paper only"), "bad"
    elif one.sides is not None and one.sides >= 2:
        word, state = say("双活", "active-active"), "good"
    else:
        word, state = say("主备：一侧闲置", "active-idle"), "provisional"
    second = one.secondary_share
    share = "" if second is None else f"{100 * (1 - second):.0f} % / {100 * second:.0f} %"
    return {
        "pair": one,
        "word": word,
        "state": state,
        "share": share,
        "sync": "" if one.is_silent else say("同步", "in step") if one.is_in_sync else say("不同步", "not in step"),
        "lag": show_seconds(one.lag_seconds),
        "both": show_seconds(one.both_seconds),
        "none": show_seconds(one.none_seconds),
        "when": ago(one.seen_at, now),
    }


def _role(one: RoleNow, now: int) -> dict[str, object]:
    if one.is_silent:
        word, state = say("无数据", "no data"), "none"
    elif one.masters == 1:
        word, state = say("一主", "one master"), "good"
    else:
        word, state = (say("无主", "no master") if one.masters == 0 else say("多主", "more than one master")), "bad"
    return {"role": one, "word": word, "state": state, "when": ago(one.seen_at, now)}
