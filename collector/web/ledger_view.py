"""The ledger: what every agent made and what became of it, trouble first."""

from collections.abc import Sequence
from typing import NamedTuple

from agent.language import say
from collector.evaluate import parse_time
from collector.ledger import AgentLedger, Sums
from collector.snapshot import Snapshot
from collector.tables import ledger_titles, ledger_words
from collector.web.times import ago
from collector.web.view import View

_STATES = {"balanced": "good", "unbalanced": "bad", "unknown": "none"}
_ORDER = ("unbalanced", "unknown", "balanced")


class LineRow(NamedTuple):
    """One line of an account: its unit, and (title, number) in the order of the sum. state: of the difference."""

    unit: str
    cells: Sequence[tuple[str, int]]
    is_balanced: bool


class AccountRow(NamedTuple):
    """One agent's account. state: good, none, bad; when: how old the agent's word is, or empty."""

    name: str
    state: str
    word: str
    when: str
    lines: Sequence[LineRow]
    sentences: Sequence[str]


def ledger_view(snapshot: Snapshot) -> View:
    """All accounts."""
    agents = sorted(snapshot.ledger.agents, key=lambda agent: (_ORDER.index(agent.state), agent.agent))
    wrong = sum(agent.state == "unbalanced" for agent in agents)
    summary = say(f"{len(agents)} 个采集代理，{wrong} 个对不上", f"{len(agents)} agents, {wrong} do not balance")
    return View(
        "ledger.html",
        {
            "summary": summary,
            "titles": ledger_titles(),
            "accounts": [_account_row(agent, snapshot.taken_at) for agent in agents],
            "command": snapshot.commands.spell("ledger"),
        },
    )


def _account_row(agent: AgentLedger, now: int) -> AccountRow:
    lines = [
        _line(unit, sums)
        for unit, sums in ((say("批次", "batches"), agent.batches), (say("数据点", "points"), agent.points))
        if sums is not None
    ]
    when = ""
    if agent.as_of is not None:
        age, later = ago(parse_time(agent.as_of), now), agent.later_batches
        when = say(
            f"按代理 {age}的报账；此后已入库 {later} 批", f"by the agent's word of {age}; {later} batches came since"
        )
    sentences = [f"{finding.text} ({finding.code})" for finding in agent.findings]
    return AccountRow(agent.agent, _STATES[agent.state], ledger_words(agent.state), when, lines, sentences)


def _line(unit: str, sums: Sums) -> LineRow:
    numbers = (sums.made, sums.applied, sums.set_aside, sums.dropped, sums.waiting, sums.difference)
    return LineRow(unit, list(zip(ledger_titles(), numbers, strict=True)), sums.difference == 0)
