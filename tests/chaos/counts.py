"""What became of everything that was made: counted from the agents' own spools and straight from the store, never from the product's word."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.hospital import Hospital

from agent.catalogue import load


@dataclass(frozen=True)
class Sum:
    """So many batches with so many points."""

    batches: int = 0
    points: int = 0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.batches + other.batches, self.points + other.points)


@dataclass(frozen=True)
class Counts:
    """made: by the spools. applied, set_aside: rows of the store. dropped: given up by the spools. waiting: in a spool, not in the store.

    set_aside: points that the collectors refused inside batches that they applied. unreceipted: batches in the store that their agent still keeps; they
    count as applied. in_store: points that the store really holds. duplicates: batches with two rows, and points of
    applied batches that are fewer in the store than the rows say, or more.
    """

    made: Sum
    applied: Sum
    set_aside: Sum
    dropped: Sum
    waiting: Sum
    unreceipted: int
    in_store: int
    duplicates: int
    imbalances: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """Plain numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Spool:
    """What an agent's own file says."""

    made: Sum
    dropped: Sum
    waiting: Mapping[str, int]
    """`boot/seq` -> points."""


@dataclass(frozen=True)
class _Rows:
    """One agent's batch rows: `boot/seq` -> (points applied, points set aside), and how many rows stood twice."""

    found: Mapping[str, tuple[int, int]]
    twice: int


def count(hospital: Hospital) -> Counts:
    """The sums over all agents; every agent that does not balance by itself is named. All agents must have ended."""
    rows = _read_rows(hospital)
    made = applied = set_aside = dropped = waiting = Sum()
    unreceipted = duplicates = 0
    wrong: list[str] = []
    for agent in hospital.agents:
        spool, stored = read_spool(hospital.spool(agent)), rows.get(agent, _Rows({}, 0))
        still = {name: points for name, points in spool.waiting.items() if name not in stored.found}
        one_applied = Sum(len(stored.found), sum(points for points, _ in stored.found.values()))
        one_aside = Sum(0, sum(aside for _, aside in stored.found.values()))
        one_waiting = Sum(len(still), sum(still.values()))
        accounted = one_applied + one_aside + spool.dropped + one_waiting
        if accounted != spool.made:
            wrong.append(f"{agent}: made {spool.made}, accounted for {accounted}")
        made, applied, set_aside = made + spool.made, applied + one_applied, set_aside + one_aside
        dropped, waiting = dropped + spool.dropped, waiting + one_waiting
        unreceipted += len(spool.waiting) - len(still)
        duplicates += stored.twice
    in_store = _count_points(hospital)
    if in_store != applied.points:
        wrong.append(f"the store holds {in_store} points, its batch rows say {applied.points}")
        duplicates += abs(applied.points - in_store)
    return Counts(made, applied, set_aside, dropped, waiting, unreceipted, in_store, duplicates, tuple(wrong))


def read_spool(path: Path) -> Spool:
    """The ledger and what waits; the agent must have ended, it shares its file with nobody."""
    connection = sqlite3.connect(path)
    try:
        ledger = "SELECT made_batches, made_points, dropped_batches, dropped_points FROM ledger"
        made_batches, made_points, dropped_batches, dropped_points = connection.execute(ledger).fetchone()
        waiting = connection.execute("SELECT boot || '/' || seq, points FROM batch").fetchall()
    finally:
        connection.close()
    return Spool(Sum(made_batches, made_points), Sum(dropped_batches, dropped_points), dict(waiting))


def _read_rows(hospital: Hospital) -> Mapping[str, _Rows]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    twice: Counter[str] = Counter()
    for row in hospital.stored('SELECT boot, seq, points, set_aside, agent FROM "batch"'):
        agent, name = str(row["agent"]), f"{row['boot']}/{_whole(row['seq'])}"
        twice[agent] += name in found.setdefault(agent, {})
        found[agent][name] = (_whole(row["points"]), _whole(row["set_aside"]))
    return {agent: _Rows(rows, twice[agent]) for agent, rows in found.items()}


def _count_points(hospital: Hospital) -> int:
    """Rows of every measurement of the catalogue: one for each measurement, tags and time."""
    return sum(_count_rows(hospital.stored(f'SELECT * FROM "{name}"')) for name in load().measurements)


def _count_rows(rows: Iterable[object]) -> int:
    return sum(1 for _ in rows)


def _whole(value: object) -> int:
    assert isinstance(value, int | float)
    return int(value)
