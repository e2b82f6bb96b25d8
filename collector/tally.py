"""What ingest counts, per agent, since this collector started."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.wire import Address
from collector.arrival import Arrival
from collector.reasons import Reason

MOST_AGENTS = 10_000
OTHERS = Address("", "")
"""Stands for all agents beyond MOST_AGENTS: names without end must not fill the memory."""


@dataclass(frozen=True, slots=True)
class AgentCounts:
    """One agent's share.

    batches, points: written. duplicates: batches that were in the store already, receipted again. set_aside: by reason.
    skewed: batches whose points were moved to the time received; skew_ms: how far behind the clock was in the last
    batch (minus: ahead). conflicts: points that contradicted the point before them. received_at: the last batch, ms.
    """

    batches: int
    points: int
    duplicates: int
    set_aside: Mapping[Reason, int]
    skewed: int
    skew_ms: int
    conflicts: int
    received_at: int


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """The counts of one moment."""

    agents: Mapping[Address, AgentCounts]

    @property
    def batches(self) -> int:
        """Batches written."""
        return sum(agent.batches for agent in self.agents.values())

    @property
    def points(self) -> int:
        """Points written."""
        return sum(agent.points for agent in self.agents.values())

    @property
    def duplicates(self) -> int:
        """Batches that came again."""
        return sum(agent.duplicates for agent in self.agents.values())

    @property
    def skewed(self) -> int:
        """Batches of agents whose clock was off."""
        return sum(agent.skewed for agent in self.agents.values())

    def clocks_off(self, site: str) -> Mapping[str, int]:
        """Agent of `site` -> by how many milliseconds its clock was behind (minus: ahead) in its last batch; those alone that were off."""
        found = self.agents.items()
        return {address.agent: one.skew_ms for address, one in found if one.skew_ms and address.site == site}

    @property
    def conflicts(self) -> int:
        """Points that contradicted the point before them in their series."""
        return sum(agent.conflicts for agent in self.agents.values())

    @property
    def set_aside(self) -> Mapping[Reason, int]:
        """Everything set aside, by reason."""
        total: Counter[Reason] = Counter()
        for agent in self.agents.values():
            total.update(agent.set_aside)
        return dict(total)


@dataclass(slots=True)
class Tally:
    """The running counts of one agent."""

    batches: int = 0
    points: int = 0
    duplicates: int = 0
    set_aside: Counter[Reason] = field(default_factory=Counter)
    skewed: int = 0
    skew_ms: int = 0
    conflicts: int = 0
    received_at: int = 0

    def note(self, arrival: Arrival) -> None:
        """One more batch that was new."""
        self.set_aside.update(arrival.set_aside_counts())
        if arrival.batch:
            self.batches += 1
            self.points += len(arrival.batch.points)
        if arrival.checked:
            self.conflicts += arrival.checked.conflicts
            self.skew_ms = arrival.checked.skew_ms
            self.skewed += self.skew_ms != 0

    def counts(self) -> AgentCounts:
        """As they stand now."""
        return AgentCounts(
            batches=self.batches,
            points=self.points,
            duplicates=self.duplicates,
            set_aside=dict(self.set_aside),
            skewed=self.skewed,
            skew_ms=self.skew_ms,
            conflicts=self.conflicts,
            received_at=self.received_at,
        )


class Tallies:
    """The running counts of all agents."""

    def __init__(self) -> None:
        self._agents: dict[Address, Tally] = {}

    def of(self, address: Address) -> Tally:
        """An agent's own, or the common one when there are too many."""
        if address not in self._agents and len(self._agents) >= MOST_AGENTS:
            address = OTHERS
        return self._agents.setdefault(address, Tally())

    def counts(self) -> IngestCounts:
        """As they stand now."""
        return IngestCounts({address: tally.counts() for address, tally in self._agents.items()})
