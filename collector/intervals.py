"""How often each asset's sources were gathered, and so how many samples a bucket should hold."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache

import msgspec
import numpy as np

from collector.buckets import NOTHING, Buckets, Floats
from collector.query import HOUR_MS, Question, Take, least_samples
from collector.stores import Instant

OWN_MACHINE = "local"
"""The target of a source that looks at its own machine; no asset's name."""

Runs = tuple[tuple[int, float], ...]
"""From which millisecond on a source was gathered how often (seconds), ascending."""

Least = tuple[tuple[int, int], ...]
"""From which millisecond on a bucket should hold how many samples at least, ascending from 0."""

Series = Mapping[tuple[str, ...], Buckets]
"""By asset and source."""


def _nothing(start: int, each_ms: int) -> Series:
    del start, each_ms
    return {}


class Intervals:
    """How often each asset's sources were gathered, as the runner reported it hour by hour."""

    def __init__(
        self,
        found: Mapping[tuple[str, ...], Buckets],
        starts: Sequence[int],
        first: int = 0,
        polled: Set[tuple[str, ...]] = frozenset(),
        off: Series | None = None,
        off_finely: Callable[[int, int], Series] = _nothing,
    ) -> None:
        """polled: those of `found` that a gateway tells of its targets. off: the share of every hour in which a probe kept still.

        off_finely: the same of shorter buckets, from which millisecond on and how long each.
        """
        self._found, self._starts, self._first, self._polled = found, starts, first, polled
        self._off, self._off_finely = off or {}, off_finely
        self._runs: dict[tuple[str, str], Runs] = {}
        self._least: dict[tuple[str, tuple[str, ...], float, int, int], Least] = {}
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
        off = msgspec.structs.replace(question, field="is_off", bucket=mean)

        @cache
        def off_finely(start: int, each_ms: int) -> Series:
            return _of_assets(store.buckets(msgspec.structs.replace(off, start=start, each_ms=each_ms), now))

        shares = _of_assets(store.buckets(off, now))
        return cls(_of_assets(told), question.starts(), polled=polled, off=shares, off_finely=off_finely)

    def since(self, start: int) -> "Intervals":
        """Those that `read` would give of a window that begins at `start`, no earlier than this one's."""
        first = bisect_right(self._starts, start) - 1
        return Intervals(self._found, self._starts, first, self._polled, self._off, self._off_finely)

    def least(self, asset: str, sources: tuple[str, ...], otherwise: float, each_ms: int, start: int) -> Least:
        """How many samples a bucket of `each_ms` should hold at least, from when on; arguments as of `of`.

        start: where the buckets in question begin. The same object wherever it is the same: assets by the thousand have it in
        common.
        """
        key = (asset, sources, otherwise, each_ms, start if each_ms < HOUR_MS else 0)
        if key not in self._least:
            runs = self.of(asset, sources, otherwise)
            if (runs, each_ms) not in self._least_of_runs:
                least = tuple((start, least_samples(each_ms, seconds)) for start, seconds in runs)
                self._least_of_runs[runs, each_ms] = ((0, least[0][1]), *least[1:])
            off = self._off_shares(asset, sources)
            if off is None:
                self._least[key] = self._least_of_runs[runs, each_ms]
            elif each_ms < HOUR_MS:
                self._least[key] = _least_of(*self._still_finely(asset, sources, off, start, each_ms), runs, each_ms)
            else:
                hours = each_ms // HOUR_MS
                still = np.convolve(off, np.ones(hours))[hours - 1 :]
                self._least[key] = _least_of(self._starts, still, runs, each_ms)
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
        known = self._known(asset, sources)
        if not known or any(key not in self._off for key in known):
            return None
        shares = np.ones(len(self._starts))
        for key in known:
            shares = np.minimum(shares, _off_share(self._off[key], self._seconds(key), HOUR_MS))
        return shares if shares.any() else None

    def _still_finely(
        self, asset: str, sources: Sequence[str], hours: Floats, start: int, each_ms: int
    ) -> tuple[Sequence[int], Floats]:
        """Buckets shorter than an hour, and the share of each in which the probe kept still.

        hours: the share of each hour. Where that is all or nothing it is so of its buckets too; only of an hour at the edge each
        bucket says which side it lies on.
        """
        starts = range(start, self._starts[-1] + HOUR_MS, each_ms)
        at = np.maximum(np.searchsorted(self._starts, np.array(starts), "right") - 1, 0)
        whole = hours[at]
        shares = np.ones(len(starts))
        for key in self._known(asset, sources):
            off = self._off_finely(start, each_ms).get(key, NOTHING)
            is_edge = (whole[off.positions] > 0) & (whole[off.positions] < 1)
            off = Buckets(off.positions[is_edge], off.values[is_edge], off.samples[is_edge])
            shares = np.minimum(shares, _off_share(off, self._seconds(key)[at], each_ms))
        return starts, np.where((whole > 0) & (whole < 1), shares, whole)

    def _known(self, asset: str, sources: Sequence[str]) -> list[tuple[str, ...]]:
        """Those of the sources that said anything of this asset."""
        return [(asset, source) for source in sources if (asset, source) in self._found]

    def _seconds(self, key: tuple[str, ...]) -> Floats:
        """How often a source was gathered in each hour; 0 where it said nothing."""
        told, seconds = self._found[key], np.zeros(len(self._starts))
        seconds[told.positions] = told.values
        return seconds

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


def _off_share(off: Buckets, seconds: Floats, each_ms: int) -> Floats:
    """The share of each bucket in which one source said that it kept still. What it was silent about is no such time: it may be dead.

    seconds: how often it was gathered, bucket by bucket.
    """
    every = seconds[off.positions]
    said = off.samples * every * 1000 / each_ms
    is_whole = off.samples >= [least_samples(each_ms, one) for one in np.maximum(every, 1e-9)]
    shares = np.zeros(len(seconds))
    shares[off.positions] = off.values * np.where(is_whole, 1.0, np.minimum(said, 1.0))
    return shares


def _least_of(starts: Sequence[int], still: Floats, runs: Runs, each_ms: int) -> Least:
    """What a bucket should hold that begins at each of `starts`: nothing is expected of the time in which the probe kept still.

    still: how much of it that is, in hours, or in buckets that are shorter.
    """
    least: list[tuple[int, int]] = []
    for start, share in zip(starts, still.tolist(), strict=True):
        seconds = runs[max(0, bisect_right(runs, (start, float("inf"))) - 1)][1]
        open_ms = each_ms - round(share * min(each_ms, HOUR_MS))
        samples = 0 if open_ms < seconds * 1000 else least_samples(open_ms, seconds)
        if not least or least[-1][1] != samples:
            least.append((start if least else 0, samples))
    return tuple(least)
