"""When a pool will be full, by a straight line through what it held over the last weeks.

Kept in a file of the state directory: one sample an hour, so that a restart of the agent does not begin anew.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent.snmp.parts import replace_file

SAMPLE_SECONDS = 3600.0
KEPT_SECONDS = 30 * 86400.0
LEAST_SPAN_SECONDS = 86400.0
"""A shorter line says more about the hour of the day than about growth."""

NEVER_SECONDS = 3_153_600_000.0
"""What the catalogue calls "does not grow": the upper bound of the field."""

Sample = tuple[float, float]
"""Seconds since the epoch, bytes used."""


class Trends:
    """What each pool of one device held, by its name."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._samples = _read(path)
        self._is_changed = False

    def time_to_full(self, pool: str, used_bytes: float, size_bytes: float) -> float | None:
        """Seconds until the pool is full; None while too little is known, the upper bound when it does not grow."""
        now = self._clock()
        samples = self._samples.setdefault(pool, [])
        if not samples or now - samples[-1][0] >= SAMPLE_SECONDS:
            samples.append((now, used_bytes))
            self._is_changed = True
            while samples and now - samples[0][0] > KEPT_SECONDS:
                del samples[0]
        if now - samples[0][0] < LEAST_SPAN_SECONDS:
            return None
        if used_bytes >= size_bytes:
            return 0.0
        slope = _slope(samples)
        return min(NEVER_SECONDS, (size_bytes - used_bytes) / slope) if slope > 0 else NEVER_SECONDS

    def save(self) -> None:
        """Write the file when a sample was added. Raises SourceError when it cannot be written."""
        if self._path and self._is_changed:
            replace_file(self._path, msgspec.json.encode(self._samples))
            self._is_changed = False


def _slope(samples: list[Sample]) -> float:
    """Bytes a second, by least squares."""
    count = len(samples)
    mean_at = sum(at for at, _ in samples) / count
    mean_used = sum(used for _, used in samples) / count
    spread = sum((at - mean_at) ** 2 for at, _ in samples)
    return sum((at - mean_at) * (used - mean_used) for at, used in samples) / spread if spread else 0.0


def _read(path: Path | None) -> dict[str, list[Sample]]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, list[Sample]]) if path else {}
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return {}
