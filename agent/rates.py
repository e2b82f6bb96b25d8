"""Counters become rates here: a counter that falls is a restart, never a burst."""

from collections.abc import Callable, Hashable


class Rates:
    """Remembers the last reading of each counter.

    `per_second` gives None on the first reading, after a restart of the counter, and when no time passed.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[float, float]] = {}

    def per_second(self, key: Hashable, count: float, at_seconds: float) -> float | None:
        """The rate since the last reading of `key`; `at_seconds` is a monotonic clock."""
        growth = self.growth(key, count, at_seconds)
        return None if growth is None else growth[0] / growth[1]

    def growth(self, key: Hashable, count: float, at_seconds: float) -> tuple[float, float] | None:
        """How much `key` grew and in how many seconds."""
        before = self._last.get(key)
        self._last[key] = (count, at_seconds)
        if before is None or count < before[0] or at_seconds <= before[1]:
            return None
        return count - before[0], at_seconds - before[1]

    def keep(self, is_wanted: Callable[[Hashable], bool]) -> None:
        """Forget every other counter: names that come and go must not fill the memory."""
        self._last = {key: last for key, last in self._last.items() if is_wanted(key)}
