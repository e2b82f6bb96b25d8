"""Agents and their sources with their health, trouble first."""

from collections.abc import Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent.language import say
from collector.clocks import MEND, spell_skew
from collector.health import AgentHealth, SourceHealth
from collector.reasons import MEANINGS
from collector.report import show_value
from collector.snapshot import Snapshot
from collector.web.questions import path_of_subject
from collector.web.times import ago, day
from collector.web.troubles import count_alive
from collector.web.view import View

RANGES_SHOWN = 5
MEBIBYTE = 2**20


class SourceRow(NamedTuple):
    """A source's last round; state: good, none, bad."""

    name: str
    asset: str
    path: str
    state: str
    word: str
    last: str
    interval: str
    duration: str
    points: str


class AgentRow(NamedTuple):
    """An agent, what is counted of it, and its sources.

    hint: the command that shows why a source fails, or empty. silence: what may be behind an agent's silence, or empty.
    skew: how far its clock is off, or empty.
    """

    name: str
    state: str
    word: str
    facts: Sequence[tuple[str, str]]
    sources: Sequence[SourceRow]
    hint: str
    silence: str
    skew: str


class OwnerRow(NamedTuple):
    """An asset and the agent that first reported it; path: its page."""

    asset: str
    path: str
    agent: str
    is_registered: bool


def agents_view(snapshot: Snapshot) -> View:
    """Agents, their sources, what was set aside, who owns what."""
    off = snapshot.clocks_off
    agents = sorted(
        snapshot.agents,
        key=lambda one: (not one.is_expected, one.is_alive and one.agent not in off and not _failing(one), one.agent),
    )
    set_aside = [
        (reason.value, str(MEANINGS[reason].text), count) for reason, count in sorted(snapshot.set_aside.items())
    ]
    return View(
        "agents.html",
        {
            "summary": count_alive(snapshot),
            "agents": [_agent_row(agent, snapshot, off.get(agent.agent, 0)) for agent in agents],
            "set_clock": MEND,
            "set_aside": set_aside,
            "owners": _owner_rows(snapshot),
            "has_register": snapshot.folder.has_register,
            "quarantine": snapshot.commands.spell("quarantine"),
        },
    )


def _owner_rows(snapshot: Snapshot) -> list[OwnerRow]:
    """Every asset that ever reported; those that the register does not know first."""
    assets = snapshot.folder.entries.get("assets", {})
    rows = [
        OwnerRow(asset, path_of_subject(asset), agent, snapshot.folder.has_register and asset in assets)
        for asset, agent in snapshot.owners.items()
    ]
    return sorted(rows, key=lambda row: (row.is_registered, row.asset))


def _failing(agent: AgentHealth) -> list[SourceHealth]:
    return [source for source in agent.sources if source.is_fresh and not source.is_success]


def _agent_row(agent: AgentHealth, snapshot: Snapshot, skew_ms: int) -> AgentRow:
    now = snapshot.taken_at
    facts = [
        (say("最近数据", "last point"), ago(agent.last_point, now)),
        (say("批次", "batches"), str(agent.batches)),
        (say("数据点", "points"), str(agent.points)),
        (say("搁置", "set aside"), str(agent.set_aside)),
        (say("缓存溢出丢弃", "dropped when full"), str(agent.dropped)),
        (say("缺失批次", "missing batches"), _spell_holes(agent.holes)),
    ]
    if agent.spool_batches is not None:
        facts.append((say("待发批次", "batches waiting"), f"{agent.spool_batches:g}"))
    if agent.resident_bytes is not None:
        facts.append((say("占用内存", "memory"), f"{agent.resident_bytes / MEBIBYTE:.1f} MiB"))
    failing = _failing(agent)
    hint = f"infravitals-agent try {failing[0].source}" if failing else ""
    state, word = _standing(agent, snapshot.zone)
    sources = [source_row(source, now) for source in agent.sources]
    silence = _explain_silence() if agent.is_expected and not agent.is_alive else ""
    skew = say("时钟", "clock ") + spell_skew(skew_ms) if skew_ms else ""
    return AgentRow(agent.agent, state, word, facts, sources, hint, silence, skew)


def _standing(agent: AgentHealth, zone: ZoneInfo) -> tuple[str, str]:
    """State and word."""
    if agent.revoked_at is None:
        return ("good", say("在线", "alive")) if agent.is_alive else ("bad", say("静默", "silent"))
    on = day(agent.revoked_at, zone)
    if agent.sends_though_revoked:
        return "bad", say(f"{on} 已撤销，仍在发送", f"revoked on {on}, sending all the same")
    return "none", say(f"{on} 已撤销", f"revoked on {on}")


def _explain_silence() -> str:
    """An agent whose disk is full can tell us of its losses only afterwards; until then its silence is all there is."""
    return say(
        "静默的原因可能是停机、断网，或该机磁盘已满、数据正在丢失；该机上采集代理的日志会说明是哪一种。",
        "It may be off, cut off, or its disk may be full and points are being lost; the agent's log on that machine says which.",
    )


def _spell_holes(holes: Sequence[tuple[str, int, int]]) -> str:
    """How many numbers are missing, and which; the first few ranges only."""
    missing = sum(last - first + 1 for _, first, last in holes)
    if not missing:
        return "0"
    ranges = [str(first) if first == last else f"{first}–{last}" for _, first, last in holes[:RANGES_SHOWN]]
    more = ", …" if len(holes) > RANGES_SHOWN else ""
    return f"{missing} (#{', '.join(ranges)}{more})"


def source_row(source: SourceHealth, now: int) -> SourceRow:
    """One source with its last round; now: milliseconds."""
    if not source.is_fresh:
        state, word = "bad", say("静默", "silent")
    elif not source.is_success:
        state, word = "bad", say("失败", "failing")
    elif source.is_off:
        state, word = "none", say("不在时段内", "outside its hours")
    elif source.points_count == 0:
        state, word = "none", say("无可测对象", "nothing to measure")
    else:
        state, word = "good", say("正常", "good")
    return SourceRow(
        name=f"{source.source} → {source.away_target}" if source.away_target else source.source,
        asset=source.asset,
        path=path_of_subject(source.asset),
        state=state,
        word=word,
        last=ago(source.last_round, now),
        interval=show_value(source.interval_seconds, "seconds"),
        duration=show_value(source.duration_seconds, "seconds"),
        points=f"{source.points_count:g}",
    )
