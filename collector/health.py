"""The health of agents and their sources, read from what they reported of themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from collector.evaluate import Rules
from collector.reasons import Reason
from collector.score import Scorecard
from collector.stores import BatchTotals, Latest, Store

FRESH_INTERVALS = 4
"""A source is fresh while its last round is no older than this many of its intervals."""

LOOK_BACK_MS = 7 * 86_400_000
"""How long a silent agent is still listed with its sources."""


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
    is_fresh: bool


@dataclass(frozen=True)
class AgentHealth:
    """One agent: alive means a fresh point, not a retained state. Totals as the store has them."""

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
    sources: Sequence[SourceHealth]


@dataclass(frozen=True)
class Snapshot:
    """Everything that the faces show, taken at one moment.

    set_aside: by reason, what this collector ever refused. owners: asset -> agent, of those that no
    register names.
    """

    taken_at: int
    zone: ZoneInfo
    rules: Rules
    scorecard: Scorecard
    agents: Sequence[AgentHealth]
    set_aside: Mapping[Reason, int]
    owners: Mapping[str, str]
    has_register: bool = False
    place: str = ""
    """The words that name this data on a command line."""


def read_health(store: Store, site: str, now: int) -> tuple[AgentHealth, ...]:
    """All agents of `site` that ever wrote, by name."""
    since = now - LOOK_BACK_MS
    rounds = [row for row in store.latest("source_round", since) if row.tags["site"] == site]
    own = {row.tags["agent"]: row for row in store.latest("agent_health", since) if row.tags["site"] == site}
    totals = [total for total in store.totals() if total.site == site]
    return tuple(
        _agent(total, [row for row in rounds if row.tags["agent"] == total.agent], own.get(total.agent), now)
        for total in totals
    )


def _agent(total: BatchTotals, rounds: Sequence[Latest], own: Latest | None, now: int) -> AgentHealth:
    sources = tuple(
        sorted((_source(row, now) for row in rounds), key=lambda source: (source.asset, source.source, source.target))
    )
    return AgentHealth(
        agent=total.agent,
        last_point=max((source.last_round for source in sources), default=total.last_made_at),
        is_alive=any(source.is_fresh for source in sources),
        batches=total.batches,
        points=total.points,
        set_aside=total.set_aside,
        dropped=total.dropped,
        holes=total.holes,
        spool_batches=_number(own, "spool_batches_count"),
        spool_oldest_age_seconds=_number(own, "spool_oldest_age_seconds"),
        resident_bytes=_number(own, "resident_bytes"),
        sources=sources,
    )


def _source(row: Latest, now: int) -> SourceHealth:
    interval = _number(row, "interval_seconds") or 0.0
    return SourceHealth(
        asset=row.tags["asset"],
        source=row.tags["source"],
        target=row.tags["target"],
        last_round=row.timestamp,
        interval_seconds=interval,
        duration_seconds=_number(row, "duration_seconds") or 0.0,
        points_count=_number(row, "points_count") or 0.0,
        is_success=_number(row, "is_success") == 1.0,
        is_fresh=now - row.timestamp <= FRESH_INTERVALS * interval * 1000,
    )


def _number(row: Latest | None, field: str) -> float | None:
    value = row.fields.get(field) if row else None
    return value if isinstance(value, float) else None
