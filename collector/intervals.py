"""How often each asset's sources were gathered, and so how many samples a bucket should hold."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence, Set

import msgspec
import numpy as np

from collector.buckets import NOTHING, Buckets, Floats
from collector.query import HOUR_MS, Question, Take, least_samples
from collector.stores import Instant

OWN_MACHINE = "local"
"""The target of a source that looks at its own machine; no asset's name."""

HOUR_SECONDS = HOUR_MS / 1000

Runs = tuple[tuple[int, float], ...]
"""From which millisecond on a source was gathered how often (seconds), ascending."""

Least = tuple[tuple[int, int], ...]
"""From which millisecond on a bucket should hold how many samples at least, ascending from 0."""


class Intervals:
    """How often each asset's sources were gathered, as the runner reported it hour by hour."""

    def __init__(
        self,
        found: Mapping[tuple[str, ...], Buckets],
        starts: Sequence[int],
        first: int = 0,
        polled: Set[tuple[str, ...]] = frozenset(),
        off: Mapping[tuple[str, ...], Buckets] | None = None,
    ) -> None:
        """polled: those of `found` that a gateway tells of its targets. off: the share of every hour in which a probe kept still."""
        self._found, self._starts, self._first, self._polled = found, starts, first, polled
        self._off = off or {}
        self._runs: dict[tuple[str, str], Runs] = {}
        self._least: dict[tuple[str, tuple[str, ...], float, int], Least] = {}
        self._least_of_runs: dict[tuple[Runs, int], Least] = {}

    @classmethod
    def read(cls, store: Instant, site: str, start: int, as_of: int, now: int | None = None) -> "Intervals":
        """The intervals in force between `start` and `as_of`; within an hour the longest counts.

        What a gateway polls has no rounds of its own: those that it says of the target are the target's.
        """
        take, mean = Take("max"), Take("mean")
        start -= start % HOUR_MS
        question = Question(
            "source_round",
            "interval_seconds",
            (("site", (site,)),),
            ("asset", "source", "target"),
            start,
            as_of + 1,
            HOUR_MS,
            take,
            take,
        )
        told = store.buckets(question, now)
        polled = {(target, source) for asset, source, target in told if target not in (asset, OWN_MACHINE)}
        off = store.buckets(msgspec.structs.replace(question, field="is_off", bucket=mean), now)
        return cls(_of_assets(told), question.starts(), polled=polled, off=_of_assets(off))

    def since(self, start: int) -> "Intervals":
        """Those that `read` would give of a window that begins at `start`, no earlier than this one's."""
        return Intervals(self._found, self._starts, bisect_right(self._starts, start) - 1, self._polled, self._off)

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
            off = self._off_shares(asset, sources)
            self._least[key] = (
                self._least_of_runs[runs, each_ms] if off is None else self._least_of_hours(runs, off, each_ms)
            )
        return self._least[key]

    def of(self, asset: str, sources: Sequence[str], otherwise: float) -> Runs:
        """The runs of the least frequent of `sources` on this asset; the catalogue's interval where nothing was reported.

        Two sources may feed one measurement (bonds every 15 s, RAID every 60 s); a row does not say which it came from.
        Without a report the expectation stays at the catalogue's: a lost report must not make a gap look full. Of a polled
        device some sources never report by its name (one that tries many devices in a round of its own): they may be no
        more frequent than the catalogue says.
        """
        found = {source: runs for source in sources if (runs := self._runs_of(asset, source))}
        if not found:
            return ((0, otherwise),)
        runs = max(found.values(), key=lambda runs: runs[-1][1])
        if len(found) < len(sources) and all((asset, source) in self._polled for source in found):
            return tuple((start, max(seconds, otherwise)) for start, seconds in runs)
        return runs

    def _off_shares(self, asset: str, sources: Sequence[str]) -> Floats | None:
        """The share of each hour in which all sources of this asset kept still as they were told; None without such hours."""
        known = [(asset, source) for source in sources if (asset, source) in self._found]
        if not known or any(key not in self._off for key in known):
            return None
        shares = np.ones(len(self._starts))
        for key in known:
            shares = np.minimum(shares, self._off_share(key))
        return shares if shares.any() else None

    def _off_share(self, key: tuple[str, ...]) -> Floats:
        """The share of each hour in which one source said that it kept still. What it was silent about is no such time: it may be dead."""
        off, told = self._off[key], self._found[key]
        seconds = np.zeros(len(self._starts))
        seconds[told.positions] = told.values
        said = off.samples * seconds[off.positions] / HOUR_SECONDS
        is_whole = off.samples >= [least_samples(HOUR_MS, each) for each in np.maximum(seconds[off.positions], 1e-9)]
        own = np.zeros(len(self._starts))
        own[off.positions] = off.values * np.where(is_whole, 1.0, np.minimum(said, 1.0))
        return own

    def _least_of_hours(self, runs: Runs, off: Floats, each_ms: int) -> Least:
        """What a bucket should hold that begins in each hour: nothing is expected of the time in which the probe kept still.

        Of a bucket shorter than the hour nobody knows on which side of the edge it lies: it may be empty.
        """
        hours = max(1, each_ms // HOUR_MS)
        still = np.convolve(off, np.ones(hours))[hours - 1 :]
        least: list[tuple[int, int]] = []
        for position, start in enumerate(self._starts):
            seconds = runs[max(0, bisect_right(runs, (start, float("inf"))) - 1)][1]
            open_ms = each_ms - round(float(still[position]) * min(each_ms, HOUR_MS))
            is_cut = each_ms < HOUR_MS and off[position] > 0
            samples = 0 if is_cut or open_ms < seconds * 1000 else least_samples(open_ms, seconds)
            if not least or least[-1][1] != samples:
                least.append((start if least else 0, samples))
        return tuple(least)

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


def _of_assets(found: Mapping[tuple[str, ...], Buckets]) -> Mapping[tuple[str, ...], Buckets]:
    """By asset and source: of the agent that gathered, and of the device that it gathered from."""
    series: dict[tuple[str, ...], list[Buckets]] = {}
    for (asset, source, target), buckets in found.items():
        for name in {asset, target} - {OWN_MACHINE}:
            series.setdefault((name, source), []).append(buckets)
    return {key: _longest(parts) for key, parts in series.items()}


def _longest(parts: Sequence[Buckets]) -> Buckets:
    """The greatest value in each bucket that any part has."""
    if len(parts) == 1:
        return parts[0]
    positions, places = np.unique(np.concatenate([part.positions for part in parts]), return_inverse=True)
    values = np.zeros(len(positions))
    samples = np.zeros(len(positions), np.int64)
    np.maximum.at(values, places, np.concatenate([part.values for part in parts]))
    np.maximum.at(samples, places, np.concatenate([part.samples for part in parts]))
    return Buckets(positions, values, samples)
