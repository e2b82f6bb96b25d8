"""What `infravitals ledger` says at the end, held against the same sums made of the agents' files and the store's rows.

The product's account of an agent ends with the newest batch that existed when the agent gave its word: so does the one made here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from chaos.counts import NOTHING, ZERO, Loss, Rows, Spool, Sum, read_rows, read_spool
from chaos.hospital import Hospital

from collector.ledger import AgentLedger, Ledger


@dataclass(frozen=True)
class Line:
    """As docs/ledger.md divides them: a batch of which nothing was written is set aside, one that was dropped and came is applied.

    later: batches in the store that were made after the word.
    """

    made: Sum = ZERO
    applied: Sum = ZERO
    set_aside: Sum = ZERO
    dropped: Sum = ZERO
    waiting: Sum = ZERO
    difference: Sum = ZERO
    later: int = 0

    def __add__(self, other: "Line") -> "Line":
        return Line(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class Books:
    """Both sides, of all agents together, and one sentence for each agent on which they differ."""

    product: Line
    counted: Line
    differences: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        return {"product": asdict(self.product), "counted": asdict(self.counted)}


def compare(hospital: Hospital, ledger: Ledger) -> Books:
    """All agents must have ended, and nothing may be on its way to the store."""
    rows, newest = read_rows(hospital), _newest(hospital)
    told = {agent.agent: agent for agent in ledger.agents}
    product, counted, wrong = Line(), Line(), list[str]()
    for agent in hospital.agents:
        ours = _counted(read_spool(hospital.spool(agent)), rows.get(agent, NOTHING), newest.get(agent, 0))
        theirs = _told(told[agent]) if agent in told else Line()
        if ours != theirs:
            wrong.append(f"{agent}: infravitals ledger says {theirs}, counted were {ours}")
        if agent not in told or told[agent].state != "balanced":
            findings = [finding.code for finding in told[agent].findings] if agent in told else []
            wrong.append(f"{agent}: infravitals ledger does not call it balanced {findings}")
        product, counted = product + theirs, counted + ours
    return Books(product, counted, tuple(wrong))


def _newest(hospital: Hospital) -> Mapping[str, int]:
    """agent -> made_at of the newest batch by its last word, milliseconds: where both accounts end."""
    query = 'SELECT last("ledger_newest_seconds") AS newest, "agent" FROM "agent_health" GROUP BY "agent"'
    return {str(row["agent"]): round(float(str(row["newest"])) * 1000) for row in hospital.stored(query)}


def _told(agent: AgentLedger) -> Line:
    if agent.batches is None or agent.points is None:
        return Line()
    names = ("made", "applied", "set_aside", "dropped", "waiting", "difference")
    sums = (Sum(getattr(agent.batches, name), getattr(agent.points, name)) for name in names)
    return Line(*sums, later=agent.later_batches)


def _counted(spool: Spool, stored: Rows, newest: int) -> Line:
    rows = [row for row in stored.found.values() if row.made_at <= newest]
    refused = [row for row in rows if row.set_aside and not row.points]
    later = [row for row in stored.found.values() if row.made_at > newest]
    waiting = [batch for name, batch in spool.waiting.items() if name not in stored.found]
    still = [batch for batch in waiting if batch.made_at <= newest]
    last_boot = max(stored.found, key=lambda name: stored.found[name].made_at, default="").partition("/")[0]
    losses = spool.losses | stored.losses
    made_later = [row.points + row.set_aside for row in later]
    made_later += [batch.points for batch in waiting if batch.made_at > newest]
    dropped_later = _lost([loss for loss in losses if loss[0] == last_boot], stored)  # the word was given when it began
    return Line(
        made=spool.made - Sum(len(made_later), sum(made_later)) - dropped_later,
        applied=Sum(len(rows) - len(refused), sum(row.points for row in rows)),
        set_aside=Sum(len(refused), sum(row.set_aside for row in rows)),
        dropped=_lost([loss for loss in losses if loss[0] != last_boot], stored),
        waiting=Sum(len(still), sum(batch.points for batch in still)),
        later=len(later),
    )


def _lost(losses: Iterable[Loss], stored: Rows) -> Sum:
    """What was dropped and never came."""
    return sum((Sum(loss[2] - loss[1] + 1, loss[3]) - stored.within(loss) for loss in losses), ZERO)
