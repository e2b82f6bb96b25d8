"""The publisher: sends what the spool holds and frees it by receipts alone."""

import asyncio
import logging
import random as randomness
import time
from collections.abc import Callable, Coroutine

from agent.broker import SAY_AGAIN_SECONDS
from agent.errors import InfravitalsError, LinkError, MissingSecret, NameTaken, SpoolError
from agent.language import say
from agent.link import Link, Session
from agent.refusals import Refusals
from agent.spool import Outgoing, Spool
from agent.wire import Address

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0
TAKEN_WAIT_SECONDS = 300.0
"""How long to leave the broker to another agent of our name: two that dial at once end each other's sessions for ever."""
ASK_AGAIN_SECONDS = 3.0
"""When a session that was asked to end is asked again; a farewell takes less."""
_READ_AT_ONCE = 4
"""Batches read from the spool in one go: a quarter of a megabyte each at worst."""


def wait_seconds(attempts: int, chance: float) -> float:
    """How long to wait before dialling again; chance is evenly between 0 and 1, so that agents do not come in step."""
    return chance * min(LONGEST_WAIT_SECONDS, 2.0 ** min(attempts, 10))


class Publisher:
    """Keeps a session over `link` and everything in `spool` on its way.

    max_in_flight: batches sent and not yet receipted. resend_seconds: how long a receipt may take before its batch is
    sent again. taken_wait_seconds: the longest wait after another agent took our name, the shortest is half of it.
    random: evenly between 0 and 1. All methods belong to one event loop.
    """

    def __init__(
        self,
        spool: Spool,
        link: Link,
        address: Address,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
        max_in_flight: int = 20,
        resend_seconds: float = 30.0,
        taken_wait_seconds: float = TAKEN_WAIT_SECONDS,
    ) -> None:
        self._spool = spool
        self._link = link
        self._name = f"{address.site}/{address.agent}"
        self._monotonic = monotonic
        self._random = random
        self._max_in_flight = max_in_flight
        self._resend_seconds = resend_seconds
        self._taken_wait_seconds = taken_wait_seconds
        self._in_flight: dict[int, float] = {}  # made_at -> when to send it again
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_connected = False
        self._attempts = 0
        self._told: dict[str, float] = {}
        self._is_name_shared = False
        self._session_since = 0.0
        self._refusals = Refusals(self._name, monotonic)

    @property
    def is_connected(self) -> bool:
        """Whether a session is open; no promise that a collector listens."""
        return self._is_connected

    def wake(self) -> None:
        """The spool has something new."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled: open a session, send, take receipts; after a trouble wait a growing random time."""
        while True:
            is_taken = False
            try:
                await _in_own_task(self._serve())
            except* NameTaken as group:
                is_taken = True
                self._begin_sharing(str(_first(group)))
            except* (LinkError, SpoolError) as group:
                trouble = _first(group)
                self._begin_trouble(str(trouble), is_repeated=isinstance(trouble, MissingSecret))
            chance = self._random()
            if is_taken:
                await asyncio.sleep(self._taken_wait_seconds * (1 + chance) / 2)
            else:
                await asyncio.sleep(wait_seconds(self._attempts, chance))
                self._attempts += 1

    async def drain(self, deadline_seconds: float) -> bool:
        """Wait until nothing waits in the spool; False when the deadline comes first. `run` must be running."""
        try:
            async with asyncio.timeout(deadline_seconds):
                while True:
                    self._settled.clear()
                    if (await asyncio.to_thread(self._spool.state)).batches == 0:
                        return True
                    await self._settled.wait()
        except TimeoutError:
            return False

    async def _serve(self) -> None:
        try:
            async with self._link.session() as session, asyncio.TaskGroup() as tasks:
                self._is_connected = True
                self._session_since = self._monotonic()
                self._in_flight.clear()
                live_since = await asyncio.to_thread(self._spool.newest)
                tasks.create_task(self._take_receipts(session), name="receipts")
                tasks.create_task(self._send(session, live_since), name="send")
        finally:
            self._is_connected = False

    async def _send(self, session: Session, live_since: int) -> None:
        while True:
            self._news.clear()
            for made_at in self._overdue():
                await self._send_again(session, made_at)
            if not await self._send_new(session, live_since):
                await self._wait_for_news()

    async def _send_new(self, session: Session, live_since: int) -> bool:
        """Send a few batches; False when there was none or no more may be in flight."""
        free = min(_READ_AT_ONCE, self._max_in_flight - len(self._in_flight))
        if free <= 0:
            return False
        in_flight = tuple(self._in_flight)
        found = await asyncio.to_thread(self._spool.take, free, live_since=live_since, in_flight=in_flight)
        for batch in found:
            await self._send_one(session, batch)
        return bool(found)

    async def _send_again(self, session: Session, made_at: int) -> None:
        batch = await asyncio.to_thread(self._spool.again, made_at)
        if batch is None:  # dropped by the spool's bound
            self._in_flight.pop(made_at, None)
            return
        self._begin_trouble(
            say(
                f"{self._resend_seconds:g} 秒内没有收到采集中心的回执；数据留在缓存，继续重发",
                f"no receipt from a collector within {self._resend_seconds:g} s; the data stay in the spool and are sent again",
            )
        )
        await self._send_one(session, batch)

    async def _send_one(self, session: Session, batch: Outgoing) -> None:
        self._in_flight[batch.made_at] = self._monotonic() + self._resend_seconds  # its receipt may outrun `send`
        await session.send(batch.payload(self._spool.sent_at(batch)), batch.boot, batch.seq, batch.points)

    async def _wait_for_news(self) -> None:
        """Until there is something new, something settled, or something to send again."""
        now = self._monotonic()
        due_in_seconds = min((max(0.0, due - now) for due in self._in_flight.values()), default=None)
        try:
            async with asyncio.timeout(due_in_seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _overdue(self) -> list[int]:
        now = self._monotonic()
        return [made_at for made_at, due in self._in_flight.items() if due <= now]

    async def _take_receipts(self, session: Session) -> None:
        async for receipt in session.receipts():
            for made_at in await asyncio.to_thread(self._spool.settle, receipt):
                self._in_flight.pop(made_at, None)
            self._end_trouble()
            self._end_sharing()
            self._refusals.note(receipt.reasons)
            self._settled.set()
            self._news.set()
        raise LinkError(say("连接已关闭", "the connection was closed"))

    def _begin_trouble(self, text: str, *, is_repeated: bool = False) -> None:
        """Log each different trouble once until a receipt ends them all; again and again, but rarely, what a person has to mend."""
        now = self._monotonic()
        told = self._told.get(text)
        if told is None or (is_repeated and now - told >= SAY_AGAIN_SECONDS):
            self._told[text] = now
            logger.warning("%s: %s", self._name, text)

    def _end_trouble(self) -> None:
        self._attempts = 0
        if self._told:
            self._told.clear()
            logger.warning("%s: %s", self._name, say("采集中心恢复回执，积压数据正在补送", "receipts are coming again"))

    def _begin_sharing(self, text: str) -> None:
        """A trouble of its own: receipts come all the same while two agents take turns."""
        if not self._is_name_shared:
            self._is_name_shared = True
            logger.warning("%s: %s", self._name, text)

    def _end_sharing(self) -> None:
        """Over when a session outlasts the longest wait of the other one by far."""
        if self._is_name_shared and self._monotonic() - self._session_since > 2 * self._taken_wait_seconds:
            self._is_name_shared = False
            logger.warning(
                "%s: %s", self._name, say("同名的采集代理不再出现", "no other agent with this name shows up any more")
            )


async def _in_own_task(work: Coroutine[None, None, None]) -> None:
    """Await `work`, which ends with us: what it loses of a cancellation cannot be lost here.

    A TaskGroup of Python 3.11 that is ending because of a child's error forgets that it was cancelled meanwhile, and so does
    asyncio.wait_for when what it awaits completes.
    """
    task = asyncio.create_task(work, name="session")
    try:
        await asyncio.wait({task})
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=ASK_AGAIN_SECONDS)
        if not task.cancelled():
            task.exception()  # seen, also when our own cancellation comes before it
    task.result()


def _first(group: BaseExceptionGroup[InfravitalsError]) -> BaseException:
    """The first trouble; the others of a session follow from it."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
