"""The link inside one process: agent and collector share an event loop and a bounded queue."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.errors import LinkError
from agent.language import say
from agent.link import Delivery, Session
from agent.wire import Address, Receipt

_RECEIPTS_KEPT = 1024


class InProcessLink:
    """Both ends of one link: `session` is the agent's, `deliveries` the collector's.

    capacity: batches on the way. Full: `send` waits. Too many receipts that nobody fetches: the oldest go, which costs
    one more send each. Nothing is delivered twice by the link itself, so `acknowledge` has nothing to do.
    """

    def __init__(self, address: Address, capacity: int) -> None:
        self._address = address
        self._capacity = capacity
        self._waiting: deque[Delivery] = deque()
        self._receipts: deque[Receipt] = deque(maxlen=_RECEIPTS_KEPT)
        self._changed = asyncio.Condition()
        self._is_closed = False

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The agent's end; raises LinkError once the link is closed."""
        self._check()
        yield _InProcessSession(self)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """The batches as they come; ends when the link is closed and nothing is left."""
        while (delivery := await self._next_delivery()) is not None:
            yield delivery

    async def close(self) -> None:
        """End both sides; what was sent may still be fetched."""
        async with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    async def put(self, payload: bytes, boot: str, seq: int, points: int) -> None:
        """Queue one batch, waiting for room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closed or len(self._waiting) < self._capacity)
            self._check()
            delivery = Delivery(self._address, payload, boot, seq, points, self._reply, _nothing_to_acknowledge)
            self._waiting.append(delivery)
            self._changed.notify_all()

    async def next_receipt(self) -> Receipt:
        """The next receipt; raises LinkError when the link is closed and none is left."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closed or self._receipts)
            if not self._receipts:
                self._check()
            return self._receipts.popleft()

    async def _next_delivery(self) -> Delivery | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_closed or self._waiting)
            if not self._waiting:
                return None
            self._changed.notify_all()
            return self._waiting.popleft()

    async def _reply(self, receipt: Receipt) -> None:
        async with self._changed:
            self._receipts.append(receipt)
            self._changed.notify_all()

    def _check(self) -> None:
        if self._is_closed:
            raise LinkError(say("采集中心已关闭", "the collector has closed"))


class _InProcessSession:
    def __init__(self, link: InProcessLink) -> None:
        self._link = link

    async def send(self, payload: bytes, boot: str, seq: int, points: int) -> None:
        await self._link.put(payload, boot, seq, points)

    async def receipts(self) -> AsyncIterator[Receipt]:
        while True:
            yield await self._link.next_receipt()


async def _nothing_to_acknowledge() -> None:
    pass
