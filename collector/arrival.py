"""A delivery on its way into the store: decoded, its identity known, fit to be written or set aside as a whole. No I/O."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from agent.link import Delivery
from agent.wire import Address, BatchReader, Decoded, Undecodable
from collector.check import MOST_POINTS, Checked, find_header_trouble, is_identity
from collector.reasons import Reason, SetAside, show_text
from collector.stores import AppliedBatch

MOST_BYTES = 16 * 1024 * 1024
"""A batch of more bytes is not even decoded."""
_MOST_CLAIMED_POINTS = 1_000_000
UNSAID_MS = 7 * 86_400_000


@dataclass(slots=True)
class Arrival:
    """One delivery. boot: '' for a foreign sender, who gets no receipt; identity is the payload's SHA-256 then.

    decoded: None when the batch is set aside as a whole for `trouble`. checked, batch: once it was held against the
    catalogue; batch stays None for bytes that have no identity worth a row. is_known: the store had it before.
    """

    delivery: Delivery
    received_at: int
    boot: str
    seq: int
    identity: str
    decoded: Decoded | None
    trouble: SetAside | None
    checked: Checked | None = None
    batch: AppliedBatch | None = None
    is_known: bool = False
    is_acknowledged: bool = False

    @property
    def address(self) -> Address:
        """Who sent it."""
        return self.delivery.address

    @property
    def made(self) -> tuple[int, int]:
        """Between which milliseconds it was made; what does not say so has not been under way for longer than UNSAID_MS."""
        if self.batch is not None:
            return self.batch.made_at, self.batch.made_at
        if self.decoded is not None and self.decoded.batch.made_at:
            return self.decoded.batch.made_at, self.decoded.batch.made_at
        return self.received_at - UNSAID_MS, self.received_at + UNSAID_MS

    def settle(self, checked: Checked | None) -> None:
        """Make the batch that is written; `checked` is None when `decoded` is."""
        self.checked = checked
        if checked and self.decoded:
            self.batch = self._batch(checked, self.decoded.batch.made_at or self.received_at)
        elif self.boot:
            self.batch = self._batch(None, self.received_at)

    async def acknowledge(self, attempt: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        """Tell the link once; a second word might be for another message with the same number."""
        if not self.is_acknowledged:
            self.is_acknowledged = True
            await attempt(self.delivery.acknowledge())

    def take_over(self, delivery: Delivery) -> None:
        """The same batch came again: its answer goes there."""
        self.delivery, self.is_acknowledged = delivery, False

    def set_aside(self, trouble: SetAside) -> "Arrival":
        """The same delivery set aside as a whole; its batch is a row without points, for who has an identity."""
        aside = replace(self, decoded=None, trouble=trouble, checked=None, batch=None)
        aside.settle(None)
        if aside.batch is not None and self.batch is not None:
            aside.batch = aside.batch._replace(made_at=self.batch.made_at)  # where it is looked for when it comes again
        return aside

    def set_aside_counts(self) -> Mapping[Reason, int]:
        """What of it was set aside, by reason."""
        if self.trouble:
            return {self.trouble.reason: 1}
        return self.checked.counts if self.checked else {}

    def _batch(self, checked: Checked | None, made_at: int) -> AppliedBatch:
        """A batch that is set aside whole still gets its row: else it would look like a hole for ever."""
        claimed = min(max(self.delivery.points, 0), _MOST_CLAIMED_POINTS)
        return AppliedBatch(
            site=self.address.site,
            agent=self.address.agent,
            boot=self.boot,
            seq=self.seq,
            identity=self.identity,
            made_at=made_at,
            received_at=self.received_at,
            points=checked.points if checked else (),
            set_aside=checked.points_set_aside if checked else claimed,
            dropped=checked.dropped if checked else (),
        )


def receive(delivery: Delivery, received_at: int, reader: BatchReader) -> Arrival:
    """Decode a delivery; whatever its bytes are, this gives an arrival and raises nothing."""
    decoded, trouble = _decode(delivery, reader)
    boot, seq = delivery.boot, delivery.seq
    if not is_identity(boot, seq):
        boot, seq = (decoded.batch.boot, decoded.batch.seq) if decoded else ("", -1)
    if not is_identity(boot, seq):
        boot, seq = "", -1
    identity = f"{boot}/{seq}" if boot else hashlib.sha256(delivery.payload).hexdigest()
    return Arrival(delivery, received_at, boot, seq, identity, None if trouble else decoded, trouble)


def _decode(delivery: Delivery, reader: BatchReader) -> tuple[Decoded | None, SetAside | None]:
    size = len(delivery.payload)
    if size > MOST_BYTES:
        return None, SetAside(Reason.TOO_LARGE, f"{size} bytes, at most {MOST_BYTES}")
    try:
        decoded = reader.decode(delivery.payload)
    except Undecodable as error:
        return None, SetAside(Reason.UNDECODABLE, show_text(str(error)))
    if text := find_header_trouble(decoded.batch, delivery.boot, delivery.seq):
        return decoded, SetAside(Reason.BAD_HEADER, show_text(text))
    count = len(decoded.batch.metrics) + len(decoded.set_aside)
    if count > MOST_POINTS:
        return decoded, SetAside(Reason.TOO_LARGE, f"{count} points, at most {MOST_POINTS}")
    return decoded, None
