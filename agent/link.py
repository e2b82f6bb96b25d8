"""The link between spool and collector: one contract, over MQTT or inside one process.

What a link promises is little on purpose: it carries bytes and brings receipts back. Only a receipt frees the spool.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from agent.wire import Address, Receipt


class Session(Protocol):
    """One connection, from its opening until it breaks. Every call raises LinkError when the other side is away."""

    async def send(self, payload: bytes, boot: str, seq: int, points: int) -> None:
        """Hand one batch over; returning is no promise that it is stored."""

    def receipts(self) -> AsyncIterator[Receipt]:
        """The receipts as they come."""


class Link(Protocol):
    """A way to the collector."""

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Dial; raises LinkError with one sentence when that fails."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch as it reached the collector, undecoded.

    boot, seq and points come from the user properties ('' and -1 when a foreign sender gave none).
    reply: sends a receipt to that agent. acknowledge: tells the link that it need not deliver this again;
    called only after the write, after the batch was set aside, or while the agent's spool keeps it for want of a receipt.
    """

    address: Address
    payload: bytes
    boot: str
    seq: int
    points: int
    reply: Callable[[Receipt], Awaitable[None]]
    acknowledge: Callable[[], Awaitable[None]]
