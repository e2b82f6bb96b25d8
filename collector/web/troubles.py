"""What needs attention: agents and sources in trouble, attestations that end, and what nobody looks at."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.language import say
from collector.clocks import spell_skew
from collector.report import INDICATORS
from collector.snapshot import Snapshot
from collector.web.questions import path_of_subject
from collector.web.view import Link
from collector.web.vouching import VouchingRow, list_vouching, vouching_row

NAMES_SHOWN = 3
DUE_SHOWN = 5


def count_alive(snapshot: Snapshot) -> str:
    """How many agents are alive, of how many."""
    expected = [agent for agent in snapshot.agents if agent.is_expected]
    alive, known, revoked = sum(one.is_alive for one in expected), len(expected), len(snapshot.agents) - len(expected)
    more = say(f"，另有 {revoked} 个已撤销", f", {revoked} revoked") if revoked else ""
    return say(f"采集代理 {alive}/{known} 在线", f"{alive} of {known} agents alive") + more


def list_troubles(snapshot: Snapshot) -> list[str]:
    """What an operator should look at, a few words each."""
    silent = [agent.agent for agent in snapshot.agents if agent.is_expected and not agent.is_alive]
    revoked = [agent.agent for agent in snapshot.agents if agent.sends_though_revoked]
    off = [f"{agent} {spell_skew(skew_ms)}" for agent, skew_ms in sorted(snapshot.clocks_off.items())]
    failing = [
        " ".join(dict.fromkeys((source.asset, source.source, *filter(None, [source.away_target]))))
        for agent in snapshot.agents
        for source in agent.sources
        if source.is_fresh and not source.is_success
    ]
    set_aside = sum(snapshot.set_aside.values())
    accounted = {agent.agent for agent in snapshot.ledger.agents if agent.batches is not None}
    missing = sum(
        last - first + 1
        for agent in snapshot.agents
        if agent.agent not in accounted  # else the ledger knows whether they are lost or on their way
        for _, first, last in agent.holes
    )
    unbalanced = [agent.agent for agent in snapshot.ledger.agents if agent.state == "unbalanced"]
    return [
        *([_folder_words(snapshot)] if snapshot.folder_trouble else []),
        *([say("采集代理静默：", "silent agents: ") + _name_some(silent)] if silent else []),
        *([say("已撤销而仍在发送：", "revoked and sending all the same: ") + _name_some(revoked)] if revoked else []),
        *([say("时钟不准：", "clocks that are off: ") + _name_some(off)] if off else []),
        *([say("采集失败：", "failing: ") + _name_some(failing)] if failing else []),
        *([say(f"缺失 {missing} 批", f"missing batches: {missing}")] if missing else []),
        *([say("对不上账：", "accounts that do not balance: ") + _name_some(unbalanced)] if unbalanced else []),
        *([say(f"搁置 {set_aside} 条数据", f"set aside: {set_aside}")] if set_aside else []),
    ]


def _folder_words(snapshot: Snapshot) -> str:
    check = snapshot.commands.spell("register check")
    return say(
        f"站点目录有误，仍用改动之前的内容（查看：{check}）",
        f"the site folder has mistakes; what it said before holds on ({check})",
    )


def _name_some(names: Sequence[str]) -> str:
    shown = say("、", ", ").join(names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return shown + say(f" 等 {len(names)} 个", f" and {rest} more") if rest > 0 else shown


@dataclass(frozen=True)
class Due:
    """Attestations that count no longer or end soon; more: how many are not listed."""

    rows: Sequence[VouchingRow]
    more: int


def list_due(snapshot: Snapshot) -> Due:
    """The first few, those that ended first; without those of the rest of the index, whose page names them."""
    found = [one for one in list_vouching(snapshot) if one.is_near and one.needs_attention]
    return Due([vouching_row(snapshot, one) for one in found[:DUE_SHOWN]], max(0, len(found) - DUE_SHOWN))


@dataclass(frozen=True)
class BlindSpot:
    """Something that nobody looks at. links: a few of those meant; more: how many others; advice: where to go on."""

    text: str
    links: Sequence[Link]
    more: int
    advice: Link


def list_blind_spots(snapshot: Snapshot) -> list[BlindSpot]:
    """What the scores cannot see: registered assets that nothing reports of, criteria without a signal."""
    return [spot for spot in (_unseen_assets(snapshot), *_unseen_criteria(snapshot)) if spot is not None]


def _unseen_assets(snapshot: Snapshot) -> BlindSpot | None:
    now = snapshot.taken_at
    watched = {
        name
        for agent in snapshot.agents
        for source in agent.sources
        if source.is_fresh
        for name in (source.asset, source.target)
    }
    unseen = [
        Link(path_of_subject(entry.id), entry.id)
        for entry in snapshot.folder.entries.get("assets", {}).values()
        if entry.until > now and (entry.since or 0) <= now and entry.id not in watched
    ]
    text = say(
        f"已登记而此刻没有任何采集源在看的资产 {len(unseen)} 个：",
        f"registered assets that no source looks at now: {len(unseen)}: ",
    )
    return _spot(text, unseen, Link("/agents", say("查看采集状态", "see the agents")))


def _unseen_criteria(snapshot: Snapshot) -> list[BlindSpot | None]:
    measured = [
        row
        for row in snapshot.coverage.criteria
        if row.kind == "measured" and row.status == "no_data" and row.indicator.startswith(INDICATORS)
    ]
    no_source = [row for row in measured if not row.is_possible]
    not_seen = [row for row in measured if row.is_possible and any(s.state == "not_seen" for s in row.signals)]
    named = (
        (
            not_seen,
            say(
                "有采集源而本院还没有数据的准则 {} 条：",
                "criteria that a source exists for and nothing is seen of: {}: ",
            ),
        ),
        (no_source, say("本版本尚无采集源的准则 {} 条：", "criteria that no source exists for yet: {}: ")),
    )
    advice = Link("/start", say("下一步接入什么", "what to enrol next"))
    return [
        _spot(text.format(len(rows)), [Link(f"/criterion/{row.id}", str(row.title)) for row in rows], advice)
        for rows, text in named
    ]


def _spot(text: str, links: Sequence[Link], advice: Link) -> BlindSpot | None:
    if not links:
        return None
    return BlindSpot(text, links[:NAMES_SHOWN], max(0, len(links) - NAMES_SHOWN), advice)
