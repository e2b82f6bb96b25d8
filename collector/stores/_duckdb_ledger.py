"""Which batches a DuckDB store has: remembered as ranges, so that a batch that came twice is known at once."""

# ruff: noqa: S608  # SQL is put together of this file's own parts only

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

from collector.stores import AppliedBatch, BatchName, BatchTotals
from collector.stores._copy import BatchRow, row_of
from collector.stores._duckdb_connection import Connection

Boot = tuple[str, str, str]
"""Site, agent, boot: whose sequence numbers count from 0."""


class Ranges:
    """A growing set of whole numbers that mostly come in order: memory for each gap, not for each number."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, first: int, last: int) -> None:
        """Adds first..last; not yet in the set."""
        at = bisect_right(self._firsts, first)
        if at and self._lasts[at - 1] == first - 1:
            at -= 1
            self._lasts[at] = last
        else:
            self._firsts.insert(at, first)
            self._lasts.insert(at, last)
        if at + 1 < len(self._firsts) and self._firsts[at + 1] == last + 1:
            self._lasts[at] = self._lasts.pop(at + 1)
            del self._firsts[at + 1]


class Ledger:
    """The batches that have their row. Its memory is for the writer's thread; `totals` reads the file only."""

    def __init__(self, connection: Connection) -> None:
        self._applied: dict[Boot, Ranges] = {}
        self._announced: set[tuple[object, ...]] = set(
            connection.rows("SELECT site, agent, boot, first, last, points FROM gone")
        )
        for site, agent, boot, first, last in connection.rows(_APPLIED_RANGES):
            self._applied.setdefault((site, agent, boot), Ranges()).add(first, last)

    def has(self, batch: AppliedBatch, connection: Connection) -> bool:
        """Whether this batch has its row already."""
        if batch.boot:
            known = self._applied.get((batch.site, batch.agent, batch.boot))
            return known is not None and batch.seq in known
        return bool(self.known([BatchName(batch.site, batch.agent, batch.identity)], connection))

    def known(self, names: Iterable[BatchName], connection: Connection) -> set[BatchName]:
        """Those (identity: `boot/seq`, or a foreign sender's digest) that have their row."""
        ours: set[BatchName] = set()
        foreign: dict[tuple[str, str], list[str]] = {}
        for name in names:
            boot, slash, seq = name.identity.rpartition("/")
            if not slash:
                foreign.setdefault((name.site, name.agent), []).append(name.identity)
            elif seq.isdecimal() and int(seq) in self._applied.get((name.site, name.agent, boot), ()):
                ours.add(name)
        for (site, agent), identities in foreign.items():
            rows = connection.rows(
                "SELECT identity FROM batch WHERE site = ? AND agent = ? AND identity IN (SELECT unnest(?))",
                [site, agent, identities],
            )
            ours.update(BatchName(site, agent, identity) for (identity,) in rows)
        return ours

    def new_of(self, batches: Iterable[AppliedBatch], connection: Connection) -> list[AppliedBatch]:
        """Those without a row, each once; remembered as applied from now on."""
        new: list[AppliedBatch] = []
        foreign: set[tuple[str, str, str]] = set()
        for batch in batches:
            name = (batch.site, batch.agent, batch.identity)
            if name in foreign or self.has(batch, connection):
                continue
            if batch.boot:
                boot = (batch.site, batch.agent, batch.boot)
                self._applied.setdefault(boot, Ranges()).add(batch.seq, batch.seq)
            else:
                foreign.add(name)
            new.append(batch)
        return new

    def write(self, batches: Sequence[AppliedBatch], connection: Connection) -> None:
        """The rows of new batches and of what they announce as dropped; inside the caller's transaction."""
        self.write_rows([row_of(batch) for batch in batches], connection)

    def write_rows(self, batches: Sequence[BatchRow], connection: Connection) -> None:
        """These rows, which are new, and what they announce as dropped; inside the caller's transaction."""
        texts = ("site", "agent", "boot")
        rows: dict[str, np.ndarray] = {name: np.array([getattr(b, name) for b in batches], object) for name in texts}
        rows["identity"] = np.array(["" if b.boot else b.identity for b in batches], object)
        for name in ("seq", "made_at", "received_at", "points", "set_aside"):
            rows[name] = np.array([getattr(b, name) for b in batches], np.int64)
        connection.insert("batch", rows)
        for batch in batches:
            for dropped in batch.dropped:
                self.announce((batch.site, batch.agent, *dropped), connection)

    def announce(self, dropped: tuple[object, ...], connection: Connection) -> None:
        """A row of `gone`, unless it is there."""
        if dropped not in self._announced:
            self._announced.add(dropped)
            connection.run("INSERT INTO gone VALUES (?, ?, ?, ?, ?, ?)", dropped)


def prune_batches(before: int, connection: Connection) -> int:
    """Deletes batch rows made before `before` and keeps in `gone` up to which number of a boot they were; gives how many went."""
    old = connection.rows("SELECT count(*) FROM batch WHERE made_at < ?", [before])[0][0]
    if old:
        gone = connection.rows(_PRUNED, [before])
        connection.run("DELETE FROM gone WHERE points IS NULL")
        for row in gone:
            connection.run("INSERT INTO gone VALUES (?, ?, ?, ?, ?, NULL)", row)
        connection.run("DELETE FROM batch WHERE made_at < ?", [before])
    return int(old)


_PRUNED = """
SELECT site, agent, boot, 0, max(last) FROM (
    SELECT site, agent, boot, seq AS last FROM batch WHERE made_at < ? AND boot <> ''
    UNION ALL SELECT site, agent, boot, last FROM gone WHERE points IS NULL) AS pruned
GROUP BY site, agent, boot
"""


def holes_of(connection: Connection) -> dict[tuple[str, str], list[tuple[str, int, int]]]:
    """Site and agent -> boot, first and last of what never came and was not announced."""
    holes: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
    for site, agent, boot, first, last in connection.rows(_HOLES):
        holes.setdefault((site, agent), []).append((boot, first, last))
    return holes


def totals(connection: Connection) -> list[BatchTotals]:
    """Batches, points and holes per agent, sorted by site and agent."""
    holes = holes_of(connection)
    dropped = {(site, agent): int(points) for site, agent, points in connection.rows(_DROPPED)}
    rows = connection.rows(
        "SELECT site, agent, count(*), sum(points), sum(set_aside), max(made_at), max(received_at) FROM batch"
        " GROUP BY site, agent ORDER BY site, agent"
    )
    return [
        BatchTotals(
            site,
            agent,
            batches,
            int(points),
            int(set_aside),
            dropped.get((site, agent), 0),
            made_at,
            received_at,
            tuple(holes.get((site, agent), ())),
        )
        for site, agent, batches, points, set_aside, made_at, received_at in rows
    ]


# Only boots whose rows do not fill 0..top are looked at number by number: the plain count is cheap for millions of rows.
_GAPPY = """
boots AS (SELECT site, agent, boot, count(*) AS batches, min(seq) AS first, max(seq) AS last
          FROM batch WHERE boot <> '' GROUP BY site, agent, boot),
"""

_APPLIED_RANGES = f"""
WITH {_GAPPY}
islands AS (SELECT site, agent, boot, seq, seq - row_number() OVER (PARTITION BY site, agent, boot ORDER BY seq) AS island
            FROM batch SEMI JOIN (FROM boots WHERE batches <= last - first) USING (site, agent, boot))
SELECT site, agent, boot, first, last FROM boots WHERE batches > last - first
UNION ALL
SELECT site, agent, boot, min(seq), max(seq) FROM islands GROUP BY site, agent, boot, island
ORDER BY ALL
"""

_HOLES = f"""
WITH {_GAPPY}
suspects AS (SELECT site, agent, boot FROM boots WHERE batches <= last UNION SELECT site, agent, boot FROM gone),
present AS (SELECT site, agent, boot, seq AS first, seq AS last FROM batch SEMI JOIN suspects USING (site, agent, boot)
            UNION ALL SELECT site, agent, boot, first, last FROM gone),
ordered AS (SELECT *, coalesce(max(last) OVER (PARTITION BY site, agent, boot ORDER BY first, last
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), -1) AS reached FROM present)
SELECT site, agent, boot, reached + 1, first - 1 FROM ordered WHERE first > reached + 1 ORDER BY ALL
"""

# An announcement is repeated until it is receipted and may have grown by then: one that lies within another is not counted.
_DROPPED = """
SELECT site, agent, sum(points) FROM (SELECT DISTINCT * FROM gone) AS one
WHERE one.points IS NOT NULL AND NOT EXISTS (FROM gone AS wider WHERE wider.points > 0
    AND (wider.site, wider.agent, wider.boot) = (one.site, one.agent, one.boot)
    AND wider.first <= one.first AND wider.last >= one.last
    AND (wider.first < one.first OR wider.last > one.last OR wider.points > one.points))
GROUP BY site, agent
"""
