"""Ingest: what the link delivers is checked, written, and only then acknowledged and receipted.

Deliveries that come close together are written together, up to a bound, so that batches grow under load. While the store is
in trouble nothing is acknowledged and no more is read than the bound: the agents' spools hold what waits.

A batch that the store refuses while it takes others is a suspect: it is held back so that the line goes on, tried again after
growing waits, and set aside when it was refused often enough, each time beside points that were written. It is acknowledged
at once, else suspects would take up all that the link lets be under way; what has no receipt stays in its agent's spool.
What the store says it will never take, while it took the points beside it, is set aside at once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.catalogue import Catalogue
from agent.errors import PointsRefused, StoreError
from agent.language import say
from agent.link import Delivery
from agent.wire import Address, BatchReader
from collector.applier import Applier, StoreCall, try_link
from collector.arrival import Arrival, receive
from collector.quarantine import Quarantine
from collector.reasons import Reason, SetAside, show_text
from collector.register import Register
from collector.stores import Store
from collector.tally import IngestCounts

logger = logging.getLogger(__name__)

MOST_SUSPECTS = 64
MOST_PROBES = 8
"""Batches written singly in one pass until one is taken; a store that is away need not refuse each of them."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How deliveries are gathered and how long trouble with the store waits.

    gather_seconds: how long to wait for one more; longest_gather_seconds: for all of one write, so that agents that are not
    in step share it. most_batches, most_bytes: of one write. waiting_batches: read ahead of it. tries_together: before each
    batch is tried by itself. most_refusals: of a suspect, at waits that begin with suspect_wait_seconds and double each time.
    """

    gather_seconds: float = 0.05
    longest_gather_seconds: float = 0.25
    most_batches: int = 256
    most_bytes: int = 16 * 1024 * 1024
    waiting_batches: int = 64
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30.0
    tries_together: int = 3
    most_refusals: int = 5
    suspect_wait_seconds: float = 30.0


@dataclass(slots=True)
class _Suspect:
    """A batch that was refused beside others that were taken. next_at: when to try it again, seconds."""

    arrival: Arrival
    refusals: int
    next_at: float


class Ingest:
    """Takes deliveries into the store. `run` may be called for several links at once on one event loop.

    clock: seconds since the epoch. Nothing but a bug ends `run` before its deliveries end.
    """

    def __init__(
        self,
        store: Store,
        store_call: StoreCall,
        catalogue: Catalogue,
        register: Register,
        quarantine: Quarantine,
        clock: Callable[[], float] = time.time,
        pace: Pace | None = None,
    ) -> None:
        self._applier = Applier(store, store_call, catalogue, register, quarantine)
        self._reader = BatchReader()
        self.clock = clock
        self._pace = pace or Pace()
        self._turn = asyncio.Lock()
        self._trouble_since: float | None = None
        self._is_trouble_told = False
        self._suspects: dict[tuple[Address, str], _Suspect] = {}

    def counts(self) -> IngestCounts:
        """What happened so far."""
        return self._applier.counts()

    @property
    def is_stalled(self) -> bool:
        """Whether the store refuses at the moment."""
        return self._trouble_since is not None

    async def run(self, deliveries: AsyncIterable[Delivery]) -> None:
        """Until the deliveries end; cancelling loses nothing that was not acknowledged."""
        inbox: asyncio.Queue[Delivery | None] = asyncio.Queue(self._pace.waiting_batches)
        reader = asyncio.create_task(_read(deliveries, inbox), name="ingest-reader")
        try:
            is_open = True
            while is_open:
                gathered, is_open = await self._gather(inbox)
                async with self._turn:  # one round at a time
                    if gathered:
                        await self._take(gathered, inbox)
                    else:
                        await self._try_suspects(has_points=False)
            await reader
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _gather(self, inbox: "asyncio.Queue[Delivery | None]") -> tuple[list[Delivery], bool]:
        """The next deliveries, none when a suspect's time comes before; and whether there will be more."""
        try:
            async with asyncio.timeout(self._rest_of_suspects()):
                first = await inbox.get()
        except TimeoutError:
            return [], True
        if first is None:
            return [], False
        gathered, size = [first], len(first.payload)
        loop, pace = asyncio.get_running_loop(), self._pace
        ends_at = loop.time() + pace.longest_gather_seconds
        try:
            async with asyncio.timeout(pace.gather_seconds) as limit:
                while len(gathered) < self._pace.most_batches and size < self._pace.most_bytes:
                    following = await inbox.get()
                    if following is None:
                        return gathered, False
                    gathered.append(following)
                    size += len(following.payload)
                    limit.reschedule(min(loop.time() + pace.gather_seconds, ends_at))
        except TimeoutError:
            pass
        return gathered, True

    async def _take(self, gathered: Sequence[Delivery], inbox: "asyncio.Queue[Delivery | None]") -> None:
        """One round: until everything is written, held back as a suspect, or set aside."""
        began = self._now()
        pending = await self._receive(gathered, began)
        wait_seconds, tries = self._pace.first_wait_seconds, 0
        while pending:
            tries += 1
            pending = await self._try(pending, tries)
            if not pending:
                break
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(wait_seconds * 2, self._pace.longest_wait_seconds)
            # what the store takes besides tells whether it is away or refuses this alone
            pending += await self._receive(self._at_hand(pending, inbox), self._now())
        self._applier.note_round(began, self._now())

    async def _receive(self, deliveries: Iterable[Delivery], now: int) -> list[Arrival]:
        """Decode; what an agent sends again of a suspect takes the place of the delivery before."""
        arrivals = []
        for delivery in deliveries:
            arrival = receive(delivery, now, self._reader)
            suspect = self._suspects.get((arrival.address, arrival.identity))
            if suspect is None:
                arrivals.append(arrival)
            else:
                await suspect.arrival.acknowledge(try_link)
                suspect.arrival.take_over(delivery)
                await self._hold(suspect.arrival)
            await asyncio.sleep(0)  # a large round must not hold up whatever else this loop serves
        return arrivals

    def _at_hand(self, pending: Sequence[Arrival], inbox: "asyncio.Queue[Delivery | None]") -> list[Delivery]:
        """What waits already, as much as one write may hold."""
        found: list[Delivery] = []
        size = 0
        while len(pending) + len(found) < self._pace.most_batches and size < self._pace.most_bytes:
            if inbox.empty():
                break
            delivery = inbox.get_nowait()
            if delivery is None:
                inbox.put_nowait(None)  # the end is for `run`; it was the last, so there is room
                break
            found.append(delivery)
            size += len(delivery.payload)
        return found

    async def _try(self, pending: list[Arrival], tries: int) -> list[Arrival]:
        """Write what is new; gives what the store did not take."""
        try:
            has_points = await self._applier.write(pending)
        except StoreError as error:
            self._trouble_since = self._trouble_since or self.clock()
            if tries < self._pace.tries_together and not isinstance(error, PointsRefused):
                return pending
            left = await self._try_singly(pending)
            if len(left) == len(pending):
                self._tell_trouble(error)
            return left
        self._end_trouble()
        await self._applier.finish(pending)
        if has_points:
            await self._try_suspects(has_points)
        return []

    async def _try_singly(self, pending: Sequence[Arrival]) -> list[Arrival]:
        """Write each by itself. Only when points were written are the refused ones to blame, and not the store."""
        refused: list[Arrival] = []
        has_points, tried = False, 0
        for arrival in pending:
            if len(refused) >= MOST_PROBES and not has_points:
                break
            tried += 1
            try:
                has_points |= await self._applier.write([arrival])
            except PointsRefused as error:
                has_points = True  # those beside them are stored
                if not await self._set_aside(arrival, error):
                    refused.append(arrival)
            except StoreError:
                refused.append(arrival)
            else:
                await self._applier.finish([arrival])
        left = [*pending[tried:], *refused]  # others are probed the next time
        if not has_points:
            return left
        self._end_trouble()
        await self._try_suspects(has_points)
        return [arrival for arrival in left if not await self._suspect(arrival)]

    async def _set_aside(self, arrival: Arrival, error: PointsRefused) -> bool:
        """Set aside at once what the store will never take whole; its other points are stored. False when not even its row is taken."""
        aside = arrival.set_aside(SetAside(Reason.STORE_REFUSES, show_text(str(error))))
        try:
            if aside.batch is not None:
                await self._applier.write([aside])
        except StoreError:
            return False
        await self._applier.finish([aside])
        return True

    async def _suspect(self, arrival: Arrival) -> bool:
        """Hold a batch back; False when too many are held already."""
        if len(self._suspects) >= MOST_SUSPECTS:
            return False
        next_at = self.clock() + self._pace.suspect_wait_seconds
        name = (arrival.address, arrival.identity)
        twin, self._suspects[name] = self._suspects.get(name), _Suspect(arrival, 1, next_at)
        if twin is not None:
            await twin.arrival.acknowledge(try_link)
        await self._hold(arrival)
        sender = "/".join(arrival.address)
        logger.info("the store refuses batch %s of %s and takes others", arrival.identity, sender)
        return True

    async def _hold(self, arrival: Arrival) -> None:
        if arrival.boot:  # a foreign sender has no spool and gets no receipt: the broker has to keep its batch
            await arrival.acknowledge(try_link)

    def _rest_of_suspects(self) -> float | None:
        """Seconds until one is tried again; None without any."""
        due_at = min((suspect.next_at for suspect in self._suspects.values()), default=None)
        return None if due_at is None else max(self._pace.gather_seconds, due_at - self.clock())

    async def _try_suspects(self, has_points: bool) -> None:
        """Try those again whose time has come. A refusal counts only beside points that were written, now or just before."""
        now = self.clock()
        refused: list[tuple[_Suspect, StoreError]] = []
        for suspect in list(self._suspects.values()):
            if now < suspect.next_at:
                continue
            try:
                has_points |= await self._applier.write([suspect.arrival])
            except StoreError as error:
                refused.append((suspect, error))
            else:
                await self._release(suspect.arrival)
        for suspect, refusal in refused:
            suspect.next_at = now + self._pace.suspect_wait_seconds * 2**suspect.refusals
            suspect.refusals += has_points
            if has_points and (aside := await self._give_up(suspect, refusal)):
                await self._release(aside)

    async def _release(self, arrival: Arrival) -> None:
        del self._suspects[arrival.address, arrival.identity]
        await self._applier.finish([arrival])

    async def _give_up(self, suspect: _Suspect, error: StoreError) -> Arrival | None:
        """Set a suspect aside if it was refused often enough; its row should be stored, else it looks like a hole."""
        if suspect.refusals < self._pace.most_refusals:
            return None
        aside = suspect.arrival.set_aside(SetAside(Reason.STORE_REFUSES, show_text(str(error))))
        try:
            if aside.batch is not None:
                await self._applier.write([aside])
        except StoreError:
            # the store may have failed just now; or even the row is what it refuses, and a hole is the truth then
            return aside if suspect.refusals >= 2 * self._pace.most_refusals else None
        return aside

    def _tell_trouble(self, error: StoreError) -> None:
        """Said when nothing is taken; one batch that is refused beside others is no trouble of the store."""
        if not self._is_trouble_told:
            self._is_trouble_told = True
            logger.error(
                say(
                    f"存储无法写入：{error}；暂停接收，数据留在各采集代理的缓存中",
                    f"the store does not take data: {error}; nothing more is read, the agents' spools keep it",
                )
            )

    def _end_trouble(self) -> None:
        if self._trouble_since is not None:
            seconds = max(0.0, self.clock() - self._trouble_since)
            self._trouble_since = None
            if self._is_trouble_told:
                text = say(f"存储已恢复，中断 {seconds:.0f} 秒", f"the store takes data again after {seconds:.0f} s")
                logger.warning(text)
            self._is_trouble_told = False

    def _now(self) -> int:
        return int(self.clock() * 1000)


async def _read(deliveries: AsyncIterable[Delivery], inbox: "asyncio.Queue[Delivery | None]") -> None:
    """Move deliveries into the inbox, waiting while it is full; None says that no more will come, for whatever reason."""
    try:
        async for delivery in deliveries:
            await inbox.put(delivery)
    except Exception:
        await inbox.put(None)
        raise
    finally:
        if isinstance(deliveries, AsyncGenerator):
            await deliveries.aclose()
    await inbox.put(None)
