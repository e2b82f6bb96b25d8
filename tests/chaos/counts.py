"""What became of everything that was made: counted from the agents' own spools and straight from the store, never from the product's word."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from chaos.hospital import Hospital

from agent.catalogue import load

Loss = tuple[str, int, int, int]
"""boot, first and last number, points."""


@dataclass(frozen=True)
class Sum:
    """So many batches with so many points."""

    batches: int = 0
    points: int = 0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.batches + other.batches, self.points + other.points)

    def __sub__(self, other: "Sum") -> "Sum":
        return Sum(self.batches - other.batches, self.points - other.points)


@dataclass(frozen=True)
class Counts:
    """made: by the spools. applied, set_aside: rows of the store. dropped: given up by the spools. waiting: in a spool, not in the store.

    set_aside: points that the collectors refused inside batches that they applied. unreceipted: batches in the store of
    which their agent does not know it, and which it keeps or gave up; they count as applied. in_store: points that the
    store really holds. duplicates: batches with two rows, and points that the store has more or fewer of than its rows say.
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
    losses: frozenset["Loss"]
    """Those that no collector has confirmed yet."""


@dataclass(frozen=True)
class _Rows:
    """One agent's batch rows: `boot/seq` -> (points applied, points set aside), what they say is lost, how many stood twice."""

    found: Mapping[str, tuple[int, int]]
    losses: frozenset["Loss"]
    twice: int

    def within(self, loss: "Loss") -> Sum:
        """What was given up although it had arrived: the receipt was late."""
        boot, first, last, _ = loss
        names = [f"{boot}/{seq}" for seq in range(first, last + 1) if f"{boot}/{seq}" in self.found]
        return Sum(len(names), sum(sum(self.found[name]) for name in names))


_NOTHING = _Rows({}, frozenset(), 0)


def count(hospital: Hospital) -> Counts:
    """The sums over all agents; every agent that does not balance by itself is named. All agents must have ended."""
    rows = _read_rows(hospital)
    total = _Account()
    wrong: list[str] = []
    duplicates = 0
    for agent in hospital.agents:
        account = _settle(read_spool(hospital.spool(agent)), rows.get(agent, _NOTHING))
        wrong += [f"{agent}: {trouble}" for trouble in account.troubles()]
        total += account
        duplicates += rows.get(agent, _NOTHING).twice
    in_store = sum(1 for name in load().measurements for _ in hospital.stored(f'SELECT * FROM "{name}"'))
    if in_store != total.applied.points:
        wrong.append(f"the store holds {in_store} points, its batch rows say {total.applied.points}")
        duplicates += abs(total.applied.points - in_store)
    return Counts(
        made=total.made,
        applied=total.applied,
        set_aside=total.set_aside,
        dropped=total.dropped,
        waiting=total.waiting,
        unreceipted=total.unreceipted,
        in_store=in_store,
        duplicates=duplicates,
        imbalances=tuple(wrong),
    )


@dataclass(frozen=True)
class _Account:
    made: Sum = Sum()
    applied: Sum = Sum()
    set_aside: Sum = Sum()
    dropped: Sum = Sum()
    waiting: Sum = Sum()
    unreceipted: int = 0
    told_dropped: Sum = Sum()
    """What the spool counted as dropped; what the two sides know of the losses must come to the same."""
    known_dropped: Sum = Sum()

    def __add__(self, other: "_Account") -> "_Account":
        return _Account(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def troubles(self) -> Iterator[str]:
        accounted = self.applied + self.set_aside + self.dropped + self.waiting
        if accounted != self.made:
            yield f"made {self.made}, accounted for {accounted}"
        if self.told_dropped != self.known_dropped:
            yield f"dropped {self.told_dropped}, announced {self.known_dropped}"


def _settle(spool: Spool, stored: _Rows) -> _Account:
    """One agent's two sides held against each other."""
    still = {name: points for name, points in spool.waiting.items() if name not in stored.found}
    losses = spool.losses | stored.losses
    known = sum((Sum(last - first + 1, points) for _, first, last, points in losses), Sum())
    arrived = sum((stored.within(loss) for loss in losses), Sum())
    return _Account(
        made=spool.made,
        applied=Sum(len(stored.found), sum(points for points, _ in stored.found.values())),
        set_aside=Sum(0, sum(aside for _, aside in stored.found.values())),
        dropped=known - arrived,
        waiting=Sum(len(still), sum(still.values())),
        unreceipted=len(spool.waiting) - len(still) + arrived.batches,
        told_dropped=spool.dropped,
        known_dropped=known,
    )


def read_spool(path: Path) -> Spool:
    """The ledger and what waits; the agent must have ended, it shares its file with nobody."""
    connection = sqlite3.connect(path)
    try:
        ledger = "SELECT made_batches, made_points, dropped_batches, dropped_points FROM ledger"
        made_batches, made_points, dropped_batches, dropped_points = connection.execute(ledger).fetchone()
        waiting = connection.execute("SELECT boot || '/' || seq, points FROM batch").fetchall()
        losses = connection.execute("SELECT boot, first, last, points FROM loss").fetchall()
    finally:
        connection.close()
    return Spool(Sum(made_batches, made_points), Sum(dropped_batches, dropped_points), dict(waiting), frozenset(losses))


def _read_rows(hospital: Hospital) -> Mapping[str, _Rows]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    losses: dict[str, set[Loss]] = {}
    twice: Counter[str] = Counter()
    for row in hospital.stored('SELECT boot, seq, points, set_aside, dropped, agent FROM "batch"'):
        agent, name = str(row["agent"]), f"{row['boot']}/{_whole(row['seq'])}"
        twice[agent] += name in found.setdefault(agent, {})
        found[agent][name] = (_whole(row["points"]), _whole(row["set_aside"]))
        announced = json.loads(str(row["dropped"] or "[]"))
        losses.setdefault(agent, set()).update((boot, first, last, points) for boot, first, last, points in announced)
    return {agent: _Rows(rows, frozenset(losses[agent]), twice[agent]) for agent, rows in found.items()}


def _whole(value: object) -> int:
    assert isinstance(value, int | float)
    return int(value)
