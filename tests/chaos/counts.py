"""What became of everything that was made: counted from the agents' own spools and straight from the store, never from the product's word."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

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


ZERO = Sum()


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


class Waiting(NamedTuple):
    """A batch in a spool."""

    points: int
    made_at: int


class Row(NamedTuple):
    """A batch in the store; points: those that were written."""

    points: int
    set_aside: int
    made_at: int


@dataclass(frozen=True)
class Spool:
    """What an agent's own file says. waiting: by `boot/seq`. losses: those that no collector has confirmed yet."""

    made: Sum
    dropped: Sum
    waiting: Mapping[str, Waiting]
    losses: frozenset[Loss]


@dataclass(frozen=True)
class Rows:
    """One agent's batch rows by `boot/seq`, what they say is lost, how many stood twice."""

    found: Mapping[str, Row]
    losses: frozenset[Loss]
    twice: int

    def within(self, loss: Loss) -> Sum:
        """What was given up although it had arrived: the receipt was late."""
        boot, first, last, _ = loss
        rows = [self.found[f"{boot}/{seq}"] for seq in range(first, last + 1) if f"{boot}/{seq}" in self.found]
        return Sum(len(rows), sum(row.points + row.set_aside for row in rows))


NOTHING = Rows({}, frozenset(), 0)


def count(hospital: Hospital) -> Counts:
    """The sums over all agents; every agent that does not balance by itself is named. All agents must have ended."""
    rows = read_rows(hospital)
    total = _Account()
    wrong: list[str] = []
    duplicates = 0
    for agent in hospital.agents:
        account = _settle(read_spool(hospital.spool(agent)), rows.get(agent, NOTHING))
        wrong += [f"{agent}: {trouble}" for trouble in account.troubles()]
        total += account
        duplicates += rows.get(agent, NOTHING).twice
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


def _settle(spool: Spool, stored: Rows) -> _Account:
    """One agent's two sides held against each other."""
    still = [batch.points for name, batch in spool.waiting.items() if name not in stored.found]
    losses = spool.losses | stored.losses
    known = sum((Sum(last - first + 1, points) for _, first, last, points in losses), Sum())
    arrived = sum((stored.within(loss) for loss in losses), Sum())
    return _Account(
        made=spool.made,
        applied=Sum(len(stored.found), sum(row.points for row in stored.found.values())),
        set_aside=Sum(0, sum(row.set_aside for row in stored.found.values())),
        dropped=known - arrived,
        waiting=Sum(len(still), sum(still)),
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
        waiting = connection.execute("SELECT boot || '/' || seq, points, made_at FROM batch").fetchall()
        losses = connection.execute("SELECT boot, first, last, points FROM loss").fetchall()
    finally:
        connection.close()
    made, dropped = Sum(made_batches, made_points), Sum(dropped_batches, dropped_points)
    return Spool(made, dropped, {name: Waiting(*rest) for name, *rest in waiting}, frozenset(losses))


def read_rows(hospital: Hospital) -> Mapping[str, Rows]:
    """agent -> its batch rows."""
    found: dict[str, dict[str, Row]] = {}
    losses: dict[str, set[Loss]] = {}
    twice: Counter[str] = Counter()
    for row in hospital.stored('SELECT boot, seq, points, set_aside, made_at, dropped, agent FROM "batch"'):
        agent, name = str(row["agent"]), f"{row['boot']}/{_whole(row['seq'])}"
        twice[agent] += name in found.setdefault(agent, {})
        found[agent][name] = Row(*(_whole(row[key]) for key in ("points", "set_aside", "made_at")))
        announced = json.loads(str(row["dropped"] or "[]"))
        losses.setdefault(agent, set()).update((boot, first, last, points) for boot, first, last, points in announced)
    return {agent: Rows(rows, frozenset(losses[agent]), twice[agent]) for agent, rows in found.items()}


def _whole(value: object) -> int:
    assert isinstance(value, int | float)
    return int(value)
