"""Deliveries without a link: what a collector is given, and what it answered."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar

from agent.link import Delivery
from agent.points import Point, Value
from agent.wire import Address, Batch, Dropped, Receipt, encode_batch

T = TypeVar("T")

NOW = 1_790_000_000_000
"""The collector's clock in these tests, in ms."""

ADDRESS = Address("hospital", "srv-1")


class Sender:
    """One agent's end: makes its deliveries and takes down receipts and acknowledgements."""

    def __init__(self, address: Address = ADDRESS, boot: str = "boot") -> None:
        self.address = address
        self.boot = boot
        self.receipts: list[Receipt] = []
        self.acknowledged: list[int] = []

    def deliver(self, payload: bytes, boot: str | None = None, seq: int = -1, points: int = -1) -> Delivery:
        """These bytes; boot and seq as the properties say them."""

        async def reply(receipt: Receipt) -> None:
            self.receipts.append(receipt)

        async def acknowledge() -> None:
            self.acknowledged.append(seq)

        return Delivery(self.address, payload, boot or "", seq, points, reply, acknowledge)

    def batch(self, seq: int, points: list[Point], *, sent_at: int = NOW, dropped: Iterable[Dropped] = ()) -> Delivery:
        """A batch as our own agents send it."""
        batch = Batch(points, self.boot, seq, NOW - 1000 + seq, sent_at, len(points), list(dropped))
        return self.deliver(encode_batch(batch), self.boot, seq, len(points))


def cpu(at: int = NOW, asset: str = "srv-1", **fields: Value) -> Point:
    """A point of host_cpu."""
    return Point("host_cpu", {"asset": asset}, fields or {"busy_ratio": 0.5}, at)


async def stream(items: Iterable[Delivery]) -> AsyncIterator[Delivery]:
    """These deliveries, then the end."""
    for item in items:
        yield item


async def at_once(call: Callable[..., T], *arguments: object) -> T:
    """A store call that runs where it is made."""
    return call(*arguments)
