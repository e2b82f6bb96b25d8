"""From what both ends saw to what is proven: pure judgement, no network."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from agent.points import Value
from agent.sources._attempt import Attempt, Came


class Outcome(IntEnum):
    """The numbers of isolation_cell.outcome; 1 to 4 are proven by both ends, the others say why nothing is."""

    UNPROVEN = 0
    REACHED = 1
    DROPPED = 2
    REFUSED = 3
    UNREACHABLE = 4
    NO_CONTROL = 5
    NOT_HEARD_THERE = 6
    ANSWERED_BY_ANOTHER = 7
    NOT_SENT = 8


PROVEN = (Outcome.REACHED, Outcome.DROPPED, Outcome.REFUSED, Outcome.UNREACHABLE)

OF_WHAT_CAME = {
    Came.SILENCE: Outcome.DROPPED,
    Came.REFUSAL: Outcome.REFUSED,
    Came.UNREACHABLE: Outcome.UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the far end said around the probes. ways: what it hears; seen: the nonces that came."""

    ways: frozenset[str]
    seen: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One way to one target, judged."""

    is_allowed: bool
    outcome: Outcome
    nonce: str
    reporter: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether both ends agree."""
        return self.outcome in PROVEN

    @property
    def is_reached(self) -> bool:
        """Whether the probe itself came to the far end."""
        return self.outcome is Outcome.REACHED

    @property
    def is_as_expected(self) -> bool:
        """Whether the wire was proven to do what the policy says."""
        return self.is_proven and self.is_reached == self.is_allowed

    @property
    def is_breached(self) -> bool:
        """Whether a way is open that must be closed."""
        return self.is_reached and not self.is_allowed

    def fields(self) -> dict[str, Value]:
        """As the catalogue has them."""
        fields: dict[str, Value] = {
            "is_as_expected": self.is_as_expected,
            "is_proven": self.is_proven,
            "is_reached": self.is_reached,
            "is_allowed": self.is_allowed,
            "is_breached": self.is_breached,
            "outcome": int(self.outcome),
            "nonce": self.nonce,
        }
        if self.reporter:
            fields["refused_by"] = self.reporter
        return fields


def judge(is_allowed: bool, way: str, attempt: Attempt, testimony: Evidence | None) -> Verdict:
    """What is proven. An answer with our key proves that it came, whatever else is known; that it did *not* come takes
    a responder that was asked before and after, hears this way, and did not see the nonce. way: as which the responder would hear it."""
    return Verdict(is_allowed, _outcome(way, attempt, testimony), attempt.nonce, attempt.reporter)


def _outcome(way: str, attempt: Attempt, testimony: Evidence | None) -> Outcome:
    if attempt.came is Came.ANSWER or (testimony and attempt.nonce in testimony.seen):
        return Outcome.REACHED
    if attempt.came is Came.UNSENT:
        return Outcome.NOT_SENT
    if testimony is None or attempt.came is Came.NO_HELPER:
        return Outcome.NO_CONTROL
    if way not in testimony.ways:
        return Outcome.NOT_HEARD_THERE
    if attempt.came is Came.ACCEPTED:
        return Outcome.ANSWERED_BY_ANOTHER
    return OF_WHAT_CAME[attempt.came]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Which stands for several targets of one cell: an open way first, then what is not as expected."""
    return min(verdicts, key=lambda one: (not one.is_breached, one.is_as_expected, one.is_proven))
