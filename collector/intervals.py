"""How often each asset's sources were gathered, and so how many samples a bucket should hold."""

from collections.abc import Mapping, Sequence

import numpy as np

from collector.buckets import Buckets
from collector.query import HOUR_MS, Question, Take
from collector.stores import Store

Runs = tuple[tuple[int, float], ...]
"""From which millisecond on a source was gathered how often (seconds), ascending."""


class Intervals:
    """How often each asset's sources were gathered, as the runner reported it hour by hour."""

    def __init__(self, runs: Mapping[tuple[str, str], Runs]) -> None:
        self._runs = runs

    @classmethod
    def read(cls, store: Store, site: str, start: int, as_of: int, now: int | None = None) -> "Intervals":
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
        starts = question.starts()
        found = store.buckets(question, now)
        return cls({(asset, source): _turns(buckets, starts) for (asset, source), buckets in found.items()})

    def of(self, asset: str, sources: Sequence[str], otherwise: float) -> Runs:
        """The runs of the least frequent of `sources` on this asset; the catalogue's interval where nothing was reported.

        Two sources may feed one measurement (bonds every 15 s, RAID every 60 s); a row does not say which it came from.
        Without a report the expectation stays at the catalogue's: a lost report must not make a gap look full.
        """
        found = [self._runs[asset, source] for source in sources if (asset, source) in self._runs]
        return max(found, key=lambda runs: runs[-1][1]) if found else ((0, otherwise),)


def _turns(buckets: Buckets, starts: Sequence[int]) -> Runs:
    """The buckets run-length: only those whose value differs from the one before."""
    turns = np.flatnonzero(np.diff(buckets.values, prepend=np.nan) != 0)
    return tuple((starts[buckets.positions[at]], float(buckets.values[at])) for at in turns)
