"""Values over time: the same moment of the same series has the same value, however a year is cut into pieces. No I/O.

Times are int64 arrays of milliseconds; a curve gives as many numbers.
"""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Numbers = NDArray[np.float64]
Curve = Callable[[Times, int], Numbers]
"""Of times, and of the series' seed."""
Spans = Sequence[tuple[int, int]]
"""From and until, milliseconds."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
ZONE_MS = 8 * HOUR_MS
"""The made-up hospital stands in China, which knows no summer time."""


def seed_of(*words: str) -> int:
    """The same for the same words, on every machine."""
    return zlib.crc32("/".join(words).encode())


def uniform(times: Times, seed: int) -> Numbers:
    """In 0..1, by splitmix64 of time and seed."""
    with np.errstate(over="ignore"):
        x = times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed) * np.uint64(0xD1B54A32D192ED03)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2**64


def inside(times: Times, spans: Spans) -> NDArray[np.bool_]:
    """Which times fall into one of the spans."""
    found = np.zeros(len(times), bool)
    for start, end in spans:
        found |= (times >= start) & (times < end)
    return found


def steady(value: float) -> Curve:
    """Always the same."""
    return lambda times, _: np.full(len(times), value)


def noisy(usual: float, spread: float) -> Curve:
    """Around the usual, never below 0; now and then twice the spread above."""
    return lambda times, seed: np.maximum(0.0, usual + spread * (2 * uniform(times, seed) ** 3 - 0.3))


def busy(night: float, day: float) -> Curve:
    """A ratio that follows the working day: highest in the morning, lower at weekends."""

    def curve(times: Times, seed: int) -> Numbers:
        local = times + ZONE_MS
        hour = (local % DAY_MS) / HOUR_MS
        is_weekend = ((local // DAY_MS + 3) % 7) >= 5  # 1970-01-01 was a Thursday
        shape = np.exp(-(((hour - 10) / 3) ** 2)) + 0.7 * np.exp(-(((hour - 15) / 2.5) ** 2))
        load = night + (day - night) * np.minimum(1.0, shape) * np.where(is_weekend, 0.45, 1.0)
        return np.clip(load + 0.06 * (uniform(times, seed) - 0.5), 0.0, 1.0)

    return curve


def state(*troubles: tuple[int, int]) -> Curve:
    """1, and 0 in the spans."""
    return lambda times, _: np.where(inside(times, troubles), 0.0, 1.0)


def during(usual: Curve, then: Curve, *spans: tuple[int, int]) -> Curve:
    """The usual, and another in the spans."""
    return lambda times, seed: np.where(inside(times, spans), then(times, seed), usual(times, seed))


def age(every_ms: int, at_ms: int, *skipped: tuple[int, int]) -> Curve:
    """Seconds since what is done every so often, at a local time of day; in the spans it is not done."""

    def curve(times: Times, _: int) -> Numbers:
        last = times - (times + ZONE_MS - at_ms) % every_ms
        for start, end in skipped:
            before = start - (start + ZONE_MS - at_ms) % every_ms
            last = np.where((last >= start) & (last < end), before, last)
        return (times - last) / 1000.0

    return curve


def scaled(curve: Curve, factor: float) -> Curve:
    """The same, so many times."""
    return lambda times, seed: curve(times, seed) * factor


def growing(since: int, at_first: float, a_day: float) -> Curve:
    """So much more a day."""
    return lambda times, _: at_first + a_day * (times - since) / DAY_MS
