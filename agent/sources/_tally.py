"""What a row of numbered packets went through in one direction: lost, doubled, overtaken, delayed, and how unevenly.

Jitter is RFC 3550 (6.4.1, A.8): J += (|D| - J) / 16 over packets in order of arrival. Reordering is RFC 4737 (3.3): a packet
that comes after one with a higher number. A second copy counts as a duplicate and nowhere else.
"""

NANOSECOND = 1e-9


class Tally:
    """Counts packets as they come. Delays are differences of two clocks; only their changes are sure to mean something."""

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._highest = -1
        self._last_transit_ns: int | None = None
        self._total_ns = 0
        self.duplicates = 0
        self.reordered = 0
        self.jitter_seconds = 0.0
        self.least_delay_seconds = 0.0

    def add(self, number: int, sent_ns: int, received_ns: int) -> bool:
        """One more packet; whether it is new."""
        if number in self._numbers:
            self.duplicates += 1
            return False
        transit = received_ns - sent_ns
        if number < self._highest:
            self.reordered += 1
        if self._last_transit_ns is not None:
            change = abs(transit - self._last_transit_ns) * NANOSECOND
            self.jitter_seconds += (change - self.jitter_seconds) / 16
        least = transit * NANOSECOND
        self.least_delay_seconds = min(self.least_delay_seconds, least) if self._numbers else least
        self._numbers.add(number)
        self._highest = max(self._highest, number)
        self._last_transit_ns = transit
        self._total_ns += transit
        return True

    @property
    def received(self) -> int:
        """Packets that came, each counted once."""
        return len(self._numbers)

    @property
    def delay_seconds(self) -> float:
        """Mean of the delays; 0 without a packet."""
        return self._total_ns * NANOSECOND / self.received if self.received else 0.0

    def loss_ratio(self, sent: int) -> float:
        """Share of `sent` that never came."""
        return 1 - self.received / sent

    @property
    def reorder_ratio(self) -> float:
        """Share of the packets that came which had been overtaken."""
        return self.reordered / self.received if self.received else 0.0

    @property
    def duplicate_ratio(self) -> float:
        """Second copies per packet that came."""
        return min(1.0, self.duplicates / self.received) if self.received else 0.0
