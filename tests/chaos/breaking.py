"""Parts are killed with -9 at moments and for times that a seed decides, often while another is away, and agents go on making points."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.books import Books, compare
from chaos.counts import Counts, count, read_spool
from chaos.hospital import Hospital, Part

KINDS = ("agent", "broker", "collector", "store")
LEAST_KILLS = 5
"""Of every kind, in a run of the usual length."""
LONGEST_PAUSE_SECONDS = 10.0
MOST_DOWN_PAUSES = 1.5
"""How long a part stays away at most, in pauses between kills: then two and three are away together."""
SETTLE_SECONDS = 10.0
SETTLE_ROUNDS = 6
FEW_BATCHES = 5


@dataclass(frozen=True)
class Kill:
    """One act: what dies, how long after the one before, and how long it stays away."""

    kind: str
    pause_seconds: float
    down_seconds: float
    choice: float


@dataclass(frozen=True)
class Outcome:
    """What was done and what it cost."""

    seed: int
    seconds: float
    agents: int
    kills: Mapping[str, int]
    counts: Counts
    books: Books
    least_kills: int

    def as_json(self) -> dict[str, object]:
        """For chaos.json."""
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "agents": self.agents,
            "kills": dict(self.kills),
            **self.counts.as_json(),
            "ledger": self.books.as_json(),
        }

    def complaints(self) -> list[str]:
        """One sentence for each thing that is not as it should be; none when both sums and the product's own word of them agree."""
        found = [*self.counts.imbalances, *self.books.differences]
        if self.counts.duplicates:
            found.append(f"{self.counts.duplicates} duplicates")
        if not self.counts.applied.points:
            found.append("nothing was applied at all")
        found += [
            f"{kind} was killed {self.kills.get(kind, 0)} times, not {self.least_kills}"
            for kind in KINDS
            if self.kills.get(kind, 0) < self.least_kills
        ]
        return found

    def summary(self) -> str:
        """One line."""
        c, told, kills = self.counts, self.books.product, sum(self.kills.values())
        return (
            f"seed {self.seed}: {kills} kills; made {c.made.batches} batches / {c.made.points} points = applied"
            f" {c.applied.batches} / {c.applied.points} + set aside {c.set_aside.batches} / {c.set_aside.points} + dropped"
            f" {c.dropped.batches} / {c.dropped.points} + waiting {c.waiting.batches} / {c.waiting.points}; the store holds"
            f" {c.in_store} points; duplicates {c.duplicates}; infravitals ledger: made {told.made.batches} / {told.made.points}"
            f" = applied {told.applied.batches} / {told.applied.points} + set aside {told.set_aside.batches} /"
            f" {told.set_aside.points} + dropped {told.dropped.batches} / {told.dropped.points} + waiting"
            f" {told.waiting.batches} / {told.waiting.points} + difference {told.difference.batches} / {told.difference.points}"
        )


def plan(seed: int, seconds: float, least_kills: int = LEAST_KILLS) -> list[Kill]:
    """The acts of a run: every kind at least `least_kills` times in turn by chance, a kill every 10 s at the latest."""
    chance = random.Random(seed)
    kills = max(len(KINDS) * least_kills, int(seconds / LONGEST_PAUSE_SECONDS))
    kinds: list[str] = []
    while len(kinds) < kills:  # in rounds, so that no kind has all its kills at once
        kinds += chance.sample(KINDS, len(KINDS))
    pause = seconds / (kills + 1)
    return [Kill(kind, pause, chance.uniform(0, MOST_DOWN_PAUSES * pause), chance.random()) for kind in kinds[:kills]]


def hurt(
    folder: Path,
    *,
    seed: int,
    seconds: float,
    agents: int,
    least_kills: int = LEAST_KILLS,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run a hospital for so long, hurt it all the while, let it settle, and count."""
    hospital = Hospital(folder, agents)
    kills: Counter[str] = Counter()
    with hospital.running():
        tell(f"seed {seed}: {agents} agents run")
        for part, kill in _acts(hospital, plan(seed, seconds, least_kills)):
            tell(f"kill -9 {part.name}, back after {kill.down_seconds:.1f} s")
            part.daemon.kill()
            kills[part.kind] += 1
        tell("all parts run; settling")
        _settle(hospital, hospital.of("agent"), FEW_BATCHES)
        tell("every agent gives its word once more")
        _hear(hospital)
        hospital.end_collectors()
        counts, books = count(hospital), compare(hospital, hospital.ledger())
    return Outcome(seed, seconds, agents, dict(kills), counts, books, least_kills)


def _acts(hospital: Hospital, kills: list[Kill]) -> Iterator[tuple[Part, Kill]]:
    """Each part in its turn, for the caller to kill; started again when its time has come, the last of them before this ends."""
    away: dict[str, tuple[float, Part]] = {}
    next_at = time.monotonic()
    for kill in kills:
        next_at += kill.pause_seconds
        _bring_back(away, next_at)
        time.sleep(max(0.0, next_at - time.monotonic()))
        parts = [part for part in hospital.of(kill.kind) if part.name not in away]
        if not parts:  # the only one of its kind is away still: it comes back to be killed again
            parts = [part for _, part in away.values() if part.kind == kill.kind]
            _start(away, parts[0])
        part = parts[int(kill.choice * len(parts))]
        yield part, kill
        away[part.name] = (time.monotonic() + kill.down_seconds, part)
    _bring_back(away, float("inf"))


def _bring_back(away: dict[str, tuple[float, Part]], until: float) -> None:
    """Wait for and start those whose time comes before `until`."""
    for back_at, part in sorted(away.values(), key=lambda one: one[0]):
        if back_at <= until:
            time.sleep(max(0.0, back_at - time.monotonic()))
            _start(away, part)


def _start(away: dict[str, tuple[float, Part]], part: Part) -> None:
    part.daemon.start()
    del away[part.name]


def _settle(hospital: Hospital, agents: Sequence[Part], most: int) -> None:
    """End these agents; those that still hold more than `most` batches get another chance to send them."""
    for _ in range(SETTLE_ROUNDS):
        hospital.end_agents(agents)
        agents = [part for part in agents if len(read_spool(hospital.spool(part.name)).waiting) > most]
        if not agents:
            return
        for part in agents:
            part.daemon.start()
        time.sleep(SETTLE_SECONDS)  # nobody can look into the spool of a running agent
    hospital.end_agents(agents)


def _hear(hospital: Hospital) -> None:
    """Every agent's word, of its account as it is now; all have ended before and after."""
    everybody = hospital.of("agent")
    hospital.hear(everybody)
    forgetful = everybody[:1]
    _settle(hospital, forgetful, 0)  # it drops what another run of it finds: its word must come after that
    hospital.hear(forgetful)
    hospital.end_agents(everybody)
