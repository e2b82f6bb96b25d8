"""The health of agents and their sources, read from what they reported of themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from collector.intervals import OWN_MACHINE
from collector.stores import BatchTotals, Latest, Store

FRESH_INTERVALS = 4
"""A source is fresh while its last round is no older than this many of its intervals."""

PROMPT_SECONDS = 60.0
"""Sources gathered this often tell of a dead agent in minutes; a slower one only where an agent has no faster."""

LOOK_BACK_MS = 7 * 86_400_000
"""How long a silent agent is still listed with its sources."""

GRACE_MS = 300_000
"""What a revoked agent may still send: the broker ends its session within a minute, and clocks differ."""


@dataclass(frozen=True)
class SourceHealth:
    """The last round of one source on one target. Times in ms since the epoch."""

    asset: str
    source: str
    target: str
    last_round: int
    interval_seconds: float
    duration_seconds: float
    points_count: float
    is_success: bool
    is_off: bool
    is_fresh: bool

    @property
    def away_target(self) -> str:
        """What it looks at on another machine; empty for its own."""
        return "" if self.target == OWN_MACHINE else self.target


@dataclass(frozen=True)
class AgentHealth:
    """One agent: alive means a fresh point of what it gathers most often, not a retained state. Totals as the store has them.

    revoked_at: when its rights were taken away, None while it has them.
    """

    agent: str
    last_point: int
    is_alive: bool
    batches: int
    points: int
    set_aside: int
    dropped: int
    holes: Sequence[tuple[str, int, int]]
    spool_batches: float | None
    spool_oldest_age_seconds: float | None
    resident_bytes: float | None
    last_received: int
    sources: Sequence[SourceHealth]
    revoked_at: int | None = None

    @property
    def is_expected(self) -> bool:
        """Whether it should be alive."""
        return self.revoked_at is None

    @property
    def sends_though_revoked(self) -> bool:
        """Whether the broker lets it in all the same."""
        return self.revoked_at is not None and self.is_alive and self.last_received > self.revoked_at + GRACE_MS


def read_health(store: Store, site: str, revoked: Mapping[str, int], now: int) -> tuple[AgentHealth, ...]:
    """All agents of `site` that ever wrote, by name. revoked: agent -> when, ms."""
    since = now - LOOK_BACK_MS
    rounds = [row for row in store.latest("source_round", since) if row.tags["site"] == site]
    own = {row.tags["agent"]: row for row in store.latest("agent_health", since) if row.tags["site"] == site}
    totals = [total for total in store.totals() if total.site == site]
    return tuple(
        replace(
            _agent(total, [row for row in rounds if row.tags["agent"] == total.agent], own.get(total.agent), now),
            revoked_at=revoked.get(total.agent),
        )
        for total in totals
    )


def _agent(total: BatchTotals, rounds: Sequence[Latest], own: Latest | None, now: int) -> AgentHealth:
    sources = tuple(
        sorted((_source(row, now) for row in rounds), key=lambda source: (source.asset, source.source, source.target))
    )
    return AgentHealth(
        agent=total.agent,
        last_point=max((source.last_round for source in sources), default=total.last_made_at),
        is_alive=_is_alive(sources),
        batches=total.batches,
        points=total.points,
        set_aside=total.set_aside,
        dropped=total.dropped,
        holes=total.holes,
        spool_batches=own.number("spool_batches_count") if own else None,
        spool_oldest_age_seconds=own.number("spool_oldest_age_seconds") if own else None,
        resident_bytes=own.number("resident_bytes") if own else None,
        last_received=total.last_received_at,
        sources=sources,
    )


def _is_alive(sources: Sequence[SourceHealth]) -> bool:
    """Whether one of the sources gathered most often is fresh; an hourly one stays fresh for hours after its agent died.

    What had stopped before the agent's last point was switched off or hangs, and says nothing of the agent.
    """
    last = max((source.last_round for source in sources), default=0)
    running = [one for one in sources if last - one.last_round <= FRESH_INTERVALS * one.interval_seconds * 1000]
    pace = max(PROMPT_SECONDS, min((one.interval_seconds for one in running), default=0.0))
    return any(one.is_fresh for one in running if one.interval_seconds <= pace)


def _source(row: Latest, now: int) -> SourceHealth:
    interval = row.number("interval_seconds") or 0.0
    return SourceHealth(
        asset=row.tags["asset"],
        source=row.tags["source"],
        target=row.tags["target"],
        last_round=row.timestamp,
        interval_seconds=interval,
        duration_seconds=row.number("duration_seconds") or 0.0,
        points_count=row.number("points_count") or 0.0,
        is_success=row.number("is_success") == 1.0 or row.number("is_off") == 1.0,
        is_off=row.number("is_off") == 1.0,
        is_fresh=now - row.timestamp <= FRESH_INTERVALS * interval * 1000,
    )
