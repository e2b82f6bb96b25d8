"""What the clock that stamped a batch would show now, though it was set meanwhile.

Points are stamped when they are observed and may be sent much later. A collector tells a wrong clock by the time of sending; when
the clock was set in between, that says nothing about the stamps, and they would be moved or refused by as much as it was set.
"""

import time
from bisect import bisect_right
from collections.abc import Callable

STEP_SECONDS = 1.0
"""What a clock may wander before it counts as set; a thousandth of an error that would matter."""
MOST_STEPS = 256


def passed_seconds() -> float:
    """How much time has passed since the machine started; nobody sets it. Where the system tells, its sleep counts."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class ClockSteps:
    """Remembers, for the batches of this process, by how much the wall clock was ahead of the time that has passed."""

    def __init__(self, wall: Callable[[], float], passed: Callable[[], float]) -> None:
        self._wall, self._passed = wall, passed
        self._steps: list[tuple[int, float]] = []  # made_at of the first batch since -> wall less passed, seconds

    def note(self, made_at: int) -> None:
        """A batch is made now; made_at rises from batch to batch."""
        ahead = self._wall() - self._passed()
        if not self._steps or abs(ahead - self._steps[-1][1]) > STEP_SECONDS:
            self._steps = [*self._steps[1 - MOST_STEPS :], (made_at, ahead)]

    def now(self, made_at: int) -> float:
        """What the clock of that batch would show now, in seconds; for one of an earlier process the clock as it is."""
        steps = self._steps
        place = bisect_right(steps, made_at, key=lambda step: step[0])
        return self._passed() + steps[place - 1][1] if place else self._wall()
