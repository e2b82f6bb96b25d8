"""What devices say, made plain: text in any of their character sets, counters that wrap or begin anew, uptime beyond 497 days."""

import functools
import re
from collections.abc import Hashable

Value = int | float | str | bytes
"""What a variable holds: numbers, octets as bytes, object ids and addresses as text."""

REMEMBERED_TEXTS = 16_384
"""Names are read again in every round and change seldom."""

MOST_CHARACTERS = 200
"""A description is a line, not a document."""

TICKS_PER_SECOND = 100
TICKS_WRAP = 2**32
"""sysUpTime is 32 bits of hundredths: it begins again every 497 days."""

WRAP_TOLERANCE_SECONDS = 300.0
"""So far may a device's clock and ours disagree between two rounds, and a wrap still be told from a restart."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\s]+")


def read_text(value: Value) -> str:
    """A name or description as one line. Chinese firmware writes GBK where the standard asks for UTF-8."""
    return _read_octets(value) if isinstance(value, bytes) else str(value)


@functools.lru_cache(maxsize=REMEMBERED_TEXTS)
def _read_octets(value: bytes) -> str:
    raw = value.rstrip(b"\0")
    for charset in ("utf-8", "gb18030"):
        try:
            text = raw.decode(charset)
            break
        except UnicodeDecodeError:
            continue
    else:
        text = raw.decode("latin-1")
    return _UNSEEN.sub(" ", text).strip()[:MOST_CHARACTERS]


def read_mac(value: Value) -> str:
    """Six octets as `00:11:22:33:44:55`; other octets as text."""
    if isinstance(value, bytes) and len(value) == 6:
        return value.hex(":")
    return read_text(value)


def read_number(value: Value) -> float | None:
    """A number; also one that a device writes as text, such as `42` or `42.5 C`. None when it is none."""
    if isinstance(value, int | float):
        return float(value)
    found = re.match(r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)", read_text(value))
    return float(found[1]) if found else None


class Counters:
    """What counters grew by since the round before. `forget` after a restart: what they say then has no before."""

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[int, float]] = {}
        self._rows: dict[Hashable, tuple[tuple[int | None, ...], float]] = {}

    def growth(self, key: Hashable, count: int, at_seconds: float, bits: int = 64) -> tuple[int, float] | None:
        """How much `key` grew and in how many seconds; None on the first look and where it cannot be known.

        A 32-bit counter that fell has wrapped, since a restart was told before. One of 64 bits that fell was cleared.
        """
        before = self._last.get(key)
        self._last[key] = (count, at_seconds)
        if before is None or at_seconds <= before[1]:
            return None
        grown = count - before[0]
        if grown < 0 and bits == 32:
            grown += 2**32
        return None if grown < 0 else (grown, at_seconds - before[1])

    def row_growth(
        self, key: Hashable, counts: tuple[int | None, ...], at_seconds: float, bits: tuple[int, ...]
    ) -> tuple[list[int | None], float] | None:
        """`growth` of all counters of one row at once: what each grew by, None where that cannot be known, and the seconds."""
        before = self._rows.get(key)
        self._rows[key] = (counts, at_seconds)
        if before is None or at_seconds <= before[1] or len(before[0]) != len(counts):
            return None
        old_counts = before[0]
        if old_counts == counts:
            return [None if count is None else 0 for count in counts], at_seconds - before[1]
        grown: list[int | None] = []
        for old, new, width in zip(old_counts, counts, bits, strict=True):
            if old is None or new is None:
                grown.append(None)
                continue
            growth = new - old
            if growth < 0 and width == 32:
                growth += 2**32
            grown.append(None if growth < 0 else growth)
        return grown, at_seconds - before[1]

    def forget(self) -> None:
        """The device has restarted."""
        self._last.clear()
        self._rows.clear()


class Uptime:
    """sysUpTime over the rounds: after 497 days it begins again, which is no restart."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None
        self._wraps = 0
        self._boots: int | None = None
        self.has_restarted = False

    def look(self, ticks: int, at_seconds: float, engine_seconds: int | None = None, boots: int | None = None) -> float:
        """The true uptime in seconds; `has_restarted` tells whether the device began anew since the look before.

        engine_seconds, boots: snmpEngineTime and snmpEngineBoots, which count further than sysUpTime.
        """
        self.has_restarted = self._is_restart(ticks, at_seconds) or (
            boots is not None and self._boots is not None and boots != self._boots
        )
        self._boots = boots if boots is not None else self._boots
        if self.has_restarted:
            self._wraps = 0
        elif self._before and ticks < self._before[0]:
            self._wraps += 1
        self._before = (ticks, at_seconds)
        return max(self._wraps, self._wraps_of(ticks, engine_seconds)) * TICKS_WRAP / TICKS_PER_SECOND + (
            ticks / TICKS_PER_SECOND
        )

    def _is_restart(self, ticks: int, at_seconds: float) -> bool:
        if self._before is None or ticks >= self._before[0]:
            return False
        due = self._before[0] + (at_seconds - self._before[1]) * TICKS_PER_SECOND
        return abs(due - TICKS_WRAP - ticks) > WRAP_TOLERANCE_SECONDS * TICKS_PER_SECOND

    @staticmethod
    def _wraps_of(ticks: int, engine_seconds: int | None) -> int:
        """How often sysUpTime wrapped before we looked first, as the engine's own clock tells."""
        if engine_seconds is None:
            return 0
        beyond = engine_seconds * TICKS_PER_SECOND - ticks
        wraps = round(beyond / TICKS_WRAP)
        is_near = abs(beyond - wraps * TICKS_WRAP) <= WRAP_TOLERANCE_SECONDS * TICKS_PER_SECOND
        return wraps if wraps > 0 and is_near else 0
