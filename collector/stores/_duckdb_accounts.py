"""The store's side of the ledger: what it has of each agent's numbered batches within a period, in a few queries for all agents."""

# ruff: noqa: S608  # SQL is put together of this file's own parts only

from collections.abc import Mapping, Sequence
from typing import Any

from collector.stores import Account, Hole, Period
from collector.stores._duckdb_connection import Connection
from collector.stores._duckdb_ledger import holes_of

MOST_HOLES = 1000
"""Of one agent; beyond it the sums alone tell."""


def accounts(site: str, periods: Mapping[str, Period], connection: Connection) -> Mapping[str, Account]:
    """agent -> its account; agents without a row have an empty one."""
    asked = _Asked(site, periods, connection)
    found = {agent: _account(sums) for agent, *sums in asked.rows(_SUMS)}
    if asked.has_announcements():
        for agent, batches, points in asked.rows(_ARRIVED, site):
            found[agent] = found[agent]._replace(dropped_batches=int(batches), dropped_points=int(points))
        for agent, batches in asked.rows(_ANNOUNCED, site, site):
            found[agent] = found.get(agent, Account())._replace(announced_batches=int(batches))
    for agent, holes in asked.holes().items():
        found[agent] = found[agent]._replace(holes=tuple(holes))
    return {agent: found.get(agent, Account()) for agent in periods}


def _account(sums: Sequence[Any]) -> Account:
    batches, points, set_aside, empty, earlier, later, undated, undated_points = map(int, sums)
    return Account(
        batches,
        points,
        set_aside,
        empty,
        earlier_batches=earlier,
        later_batches=later,
        undated_batches=undated,
        undated_points=undated_points,
    )


class _Asked:
    """The site and the periods, as each query binds them."""

    def __init__(self, site: str, periods: Mapping[str, Period], connection: Connection) -> None:
        self._site, self._periods, self._connection = site, periods, connection

    def rows(self, sql: str, *more: object) -> list[tuple[Any, ...]]:
        """The rows of a query over `period` and `ours`, the numbered batches of the agents asked."""
        agents = list(self._periods)
        since, until = ([getattr(one, name) for one in self._periods.values()] for name in ("since", "until"))
        bound = [agents, since, until, self._site, *more]
        return self._connection.rows(_OURS + sql, bound)

    def has_announcements(self) -> bool:
        """Whether any agent of the site ever announced a loss: few do."""
        sql = "SELECT 1 FROM gone WHERE site = ? AND points IS NOT NULL LIMIT 1"
        return bool(self._connection.rows(sql, [self._site]))

    def holes(self) -> Mapping[str, Sequence[Hole]]:
        """The holes of each agent's period; the next row tells before when their batches were made."""
        every = [
            (agent, *hole)
            for (site, agent), holes in holes_of(self._connection).items()
            if site == self._site and agent in self._periods
            for hole in holes[-MOST_HOLES:]
        ]
        found: dict[str, list[Hole]] = {}
        if every:
            agents, boots, firsts, lasts = map(list, zip(*every, strict=True))
            for agent, *hole in self.rows(_HOLES, agents, boots, firsts, lasts):
                found.setdefault(agent, []).append(Hole(*hole))
        return found


_OURS = """
WITH period AS (SELECT unnest(?::VARCHAR[]) AS agent, unnest(?::BIGINT[]) AS since, unnest(?::BIGINT[]) AS until),
ours AS (SELECT batch.*, since, until, made_at BETWEEN since AND until AS is_within,
             made_at > until AND points = 0 AND set_aside > 0 AS is_undated
         FROM batch JOIN period USING (agent) WHERE site = ? AND boot <> '')
"""

_SUMS = """
SELECT agent, count(*) FILTER (is_within), coalesce(sum(points) FILTER (is_within), 0),
    coalesce(sum(set_aside) FILTER (is_within), 0), count(*) FILTER (is_within AND points = 0 AND set_aside > 0),
    count(*) FILTER (made_at < since), count(*) FILTER (made_at > until),
    count(*) FILTER (is_undated), coalesce(sum(set_aside) FILTER (is_undated), 0)
FROM ours GROUP BY agent
"""

_ANNOUNCEMENTS = """, lost AS (SELECT DISTINCT agent, boot, first, last FROM gone
    WHERE site = ? AND points IS NOT NULL),
widest AS (FROM lost AS one WHERE NOT EXISTS (FROM lost AS wider
    WHERE (wider.agent, wider.boot) = (one.agent, one.boot) AND wider.first <= one.first AND wider.last >= one.last
    AND (wider.first < one.first OR wider.last > one.last)))
"""

_ARRIVED = f"""{_ANNOUNCEMENTS}
SELECT agent, count(*), sum(points + set_aside) FROM ours
WHERE is_within AND EXISTS (FROM widest WHERE (widest.agent, widest.boot) = (ours.agent, ours.boot)
    AND ours.seq BETWEEN widest.first AND widest.last)
GROUP BY agent
"""

# Of a boot that went on from one account into the next, what was announced before belongs to the one before; of a boot of
# which rows were pruned and none is left, everything does.
_ANNOUNCED = f"""{_ANNOUNCEMENTS},
boots AS (SELECT agent, boot, min(seq) FILTER (made_at >= since) AS first_seq FROM (
    SELECT agent, boot, seq, made_at, since FROM ours
    UNION ALL SELECT agent, boot, NULL, NULL, NULL FROM gone WHERE site = ? AND points IS NULL) AS known GROUP BY agent, boot)
SELECT agent, sum(widest.last - widest.first + 1) FROM widest LEFT JOIN boots USING (agent, boot)
WHERE agent IN (SELECT agent FROM period) AND (boots.agent IS NULL OR widest.last >= boots.first_seq)
GROUP BY agent
"""

_HOLES = """, hole AS (SELECT unnest(?::VARCHAR[]) AS agent, unnest(?::VARCHAR[]) AS boot, unnest(?::BIGINT[]) AS first,
    unnest(?::BIGINT[]) AS last)
SELECT agent, boot, first, last, before FROM (
    SELECT agent, boot, first, last, min(made_at) AS before, any_value(since) AS since, any_value(until) AS until
    FROM hole JOIN ours USING (agent, boot) WHERE ours.seq > hole.last GROUP BY agent, boot, first, last)
WHERE before BETWEEN since AND until ORDER BY ALL
"""
