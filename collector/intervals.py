"""How often each asset's sources were gathered, and so how many samples a bucket should hold."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np

from collector.buckets import NOTHING, Buckets
from collector.query import HOUR_MS, Question, Take, least_samples
from collector.stores import Instant

Runs = tuple[tuple[int, float], ...]
"""From which millisecond on a source was gathered how often (seconds), ascending."""

Least = tuple[tuple[int, int], ...]
"""From which millisecond on a bucket should hold how many samples at least, ascending from 0."""


class Intervals:
    """How often each asset's sources were gathered, as the runner reported it hour by hour."""

    def __init__(self, found: Mapping[tuple[str, ...], Buckets], starts: Sequence[int], first: int = 0) -> None:
        self._found, self._starts, self._first = found, starts, first
        self._runs: dict[tuple[str, str], Runs] = {}
        self._least: dict[tuple[str, tuple[str, ...], float, int], Least] = {}
        self._least_of_runs: dict[tuple[Runs, int], Least] = {}

    @classmethod
    def read(cls, store: Instant, site: str, start: int, as_of: int, now: int | None = None) -> "Intervals":
        """The intervals in force between `start` and `as_of`; within an hour the longest counts."""
        take = Take("max")
        start -= start % HOUR_MS
        question = Question(
            "source_round",
            "interval_seconds",
            (("site", (site,)),),
            ("asset", "source"),
            start,
            as_of + 1,
            HOUR_MS,
            take,
            take,
        )
        return cls(store.buckets(question, now), question.starts())

    def since(self, start: int) -> "Intervals":
        """Those that `read` would give of a window that begins at `start`, no earlier than this one's."""
        return Intervals(self._found, self._starts, bisect_right(self._starts, start) - 1)

    def least(self, asset: str, sources: tuple[str, ...], otherwise: float, each_ms: int) -> Least:
        """How many samples a bucket of `each_ms` should hold at least, from when on; arguments as of `of`.

        The same object wherever it is the same: assets by the thousand have it in common.
        """
        key = (asset, sources, otherwise, each_ms)
        if key not in self._least:
            runs = self.of(asset, sources, otherwise)
            if (runs, each_ms) not in self._least_of_runs:
                least = tuple((start, least_samples(each_ms, seconds)) for start, seconds in runs)
                self._least_of_runs[runs, each_ms] = ((0, least[0][1]), *least[1:])
            self._least[key] = self._least_of_runs[runs, each_ms]
        return self._least[key]

    def of(self, asset: str, sources: Sequence[str], otherwise: float) -> Runs:
        """The runs of the least frequent of `sources` on this asset; the catalogue's interval where nothing was reported.

        Two sources may feed one measurement (bonds every 15 s, RAID every 60 s); a row does not say which it came from.
        Without a report the expectation stays at the catalogue's: a lost report must not make a gap look full.
        """
        found = [runs for source in sources if (runs := self._runs_of(asset, source))]
        return max(found, key=lambda runs: runs[-1][1]) if found else ((0, otherwise),)

    def _runs_of(self, asset: str, source: str) -> Runs:
        key = (asset, source)
        if key not in self._runs:
            self._runs[key] = self._turns(self._found.get(key, NOTHING))
        return self._runs[key]

    def _turns(self, buckets: Buckets) -> Runs:
        """The buckets run-length: only those whose value differs from the one before."""
        first = np.searchsorted(buckets.positions, self._first)
        positions, values = buckets.positions[first:], buckets.values[first:]
        turns = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
        return tuple((self._starts[positions[at]], float(values[at])) for at in turns)
