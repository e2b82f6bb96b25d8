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
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from agent.catalogue import Catalogue
from agent.errors import LinkError, PointsRefused, StoreError
from agent.language import say
from agent.link import Delivery
from agent.wire import Address, BatchReader, Receipt, to_ranges
from collector.arrival import Arrival, receive
from collector.check import Checked, Checker
from collector.quarantine import PAYLOAD_BYTES, Entry, Quarantine
from collector.reasons import MEANINGS, Reason, SetAside, show_text
from collector.register import Register
from collector.stores import AppliedBatch, BatchName, Store
from collector.tally import IngestCounts, Tallies

T = TypeVar("T")
logger = logging.getLogger(__name__)

MOST_RECENT = 20_000
"""Identities remembered as stored, so that the store is not asked for a batch that comes again."""
MOST_TOLD = 10_000
MOST_SUSPECTS = 64
MOST_PROBES = 8
"""Batches written singly in one pass until one is taken; a store that is away need not refuse each of them."""
LONG_ROUND_MS = 60_000
LINK_SECONDS = 10.0


class StoreCall(Protocol):
    """Runs a blocking call in the one thread that writes to the store."""

    def __call__(self, call: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """The call's result."""


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
        self._store, self._call = store, store_call
        self._register = register
        self._reader = BatchReader()
        self._checker = Checker(catalogue, register)
        self._quarantine = quarantine
        self.clock = clock
        self._pace = pace or Pace()
        self._recent = _Recent()
        self._delay = _Delay()
        self._tallies = Tallies()
        self._told: set[tuple[Address, Reason]] = set()
        self._turn = asyncio.Lock()
        self._trouble_since: float | None = None
        self._is_trouble_told = False
        self._suspects: dict[tuple[Address, str], _Suspect] = {}

    def counts(self) -> IngestCounts:
        """What happened so far."""
        return self._tallies.counts()

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
                async with self._turn:  # one round at a time: the checker and the claims know no other
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
        self._delay.note(began, self._now())

    async def _receive(self, deliveries: Iterable[Delivery], now: int) -> list[Arrival]:
        """Decode; what an agent sends again of a suspect takes the place of the delivery before."""
        arrivals = []
        for delivery in deliveries:
            arrival = receive(delivery, now, self._reader)
            suspect = self._suspects.get((arrival.address, arrival.identity))
            if suspect is None:
                arrivals.append(arrival)
            else:
                await suspect.arrival.acknowledge(_try_link)
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
            has_points = await self._write(pending)
        except StoreError as error:
            self._trouble_since = self._trouble_since or self.clock()
            if tries < self._pace.tries_together and not isinstance(error, PointsRefused):
                return pending
            left = await self._try_singly(pending)
            if len(left) == len(pending):
                self._tell_trouble(error)
            return left
        self._end_trouble()
        await self._finish(pending)
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
                has_points |= await self._write([arrival])
            except PointsRefused as error:
                has_points = True  # those beside them are stored
                if not await self._set_aside(arrival, error):
                    refused.append(arrival)
            except StoreError:
                refused.append(arrival)
            else:
                await self._finish([arrival])
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
                await self._write([aside])
        except StoreError:
            return False
        await self._finish([aside])
        return True

    async def _suspect(self, arrival: Arrival) -> bool:
        """Hold a batch back; False when too many are held already."""
        if len(self._suspects) >= MOST_SUSPECTS:
            return False
        next_at = self.clock() + self._pace.suspect_wait_seconds
        name = (arrival.address, arrival.identity)
        twin, self._suspects[name] = self._suspects.get(name), _Suspect(arrival, 1, next_at)
        if twin is not None:
            await twin.arrival.acknowledge(_try_link)
        await self._hold(arrival)
        sender = "/".join(arrival.address)
        logger.info("the store refuses batch %s of %s and takes others", arrival.identity, sender)
        return True

    async def _hold(self, arrival: Arrival) -> None:
        if arrival.boot:  # a foreign sender has no spool and gets no receipt: the broker has to keep its batch
            await arrival.acknowledge(_try_link)

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
                has_points |= await self._write([suspect.arrival])
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
        await self._finish([arrival])

    async def _give_up(self, suspect: _Suspect, error: StoreError) -> Arrival | None:
        """Set a suspect aside if it was refused often enough; its row should be stored, else it looks like a hole."""
        if suspect.refusals < self._pace.most_refusals:
            return None
        aside = suspect.arrival.set_aside(SetAside(Reason.STORE_REFUSES, show_text(str(error))))
        try:
            if aside.batch is not None:
                await self._write([aside])
        except StoreError:
            # the store may have failed just now; or even the row is what it refuses, and a hole is the truth then
            return aside if suspect.refusals >= 2 * self._pace.most_refusals else None
        return aside

    async def _finish(self, arrivals: Sequence[Arrival]) -> None:
        await self._count(arrivals)
        await self._answer(arrivals)

    async def _write(self, arrivals: Sequence[Arrival]) -> bool:
        """One try; whether points were written. The store is asked anew each time: a try that failed may have arrived."""
        stored = await self._find_stored(arrivals)
        new: list[AppliedBatch] = []
        claimed: set[str] = set()
        for arrival in arrivals:
            arrival.is_known = False  # a twin in an earlier try that failed made nothing known
            name = (arrival.address, arrival.identity)
            if name in stored:
                # a batch that is made already was an earlier try of this very write that did arrive
                arrival.is_known = arrival.batch is None
                continue
            if arrival.batch is None and await self._check(arrival):
                claimed.add(arrival.address.site)
            if arrival.batch is not None:
                stored.add(name)
                new.append(arrival.batch)
        if new:
            await self._call(self._store.write, new)
        for site in claimed:  # another collector may have been first
            self._register.learn(site, await self._call(self._store.owners, site))
        for address, identity in stored:
            self._recent.add(address, identity)
        return any(batch.points for batch in new)

    async def _find_stored(self, arrivals: Iterable[Arrival]) -> set[tuple[Address, str]]:
        """Those that have their row, from memory or by asking the store once for all agents."""
        stored: set[tuple[Address, str]] = set()
        asked: dict[BatchName, tuple[int, int] | None] = {}
        for arrival in arrivals:
            if self._recent.has(arrival.address, arrival.identity):
                stored.add((arrival.address, arrival.identity))
            else:
                asked[BatchName(*arrival.address, arrival.identity)] = arrival.made
        if asked:
            applied = await self._call(self._store.applied, asked)
            stored.update((Address(name.site, name.agent), name.identity) for name in applied)
        return stored

    async def _check(self, arrival: Arrival) -> bool:
        """Hold a new batch against catalogue and register; the store is asked first about assets that are new here.

        Gives whether the sender claims some of them.
        """
        since = self._delay.waiting_since(arrival.received_at)

        def check() -> Checked | None:
            if arrival.decoded is None:
                return None
            return self._checker.check(arrival.address, arrival.decoded, arrival.received_at, since)

        checked = check()
        if checked and checked.newcomers:
            site = arrival.address.site
            self._register.learn(site, await self._call(self._store.owners, site))
            checked = check()
            self._register.claim(arrival.address, checked.newcomers if checked else ())
        arrival.settle(checked)
        return bool(checked and checked.newcomers)

    async def _count(self, arrivals: Sequence[Arrival]) -> None:
        """Count every arrival once, and keep in the quarantine what was set aside."""
        entries: list[Entry] = []
        counts: Counter[Reason] = Counter()
        for arrival in arrivals:
            tally = self._tallies.of(arrival.address)
            tally.received_at = arrival.received_at
            if arrival.is_known:
                tally.duplicates += 1
                continue
            tally.note(arrival)
            set_aside = arrival.set_aside_counts()
            counts.update(set_aside)
            entries += _entries(arrival)
            self._tell_once(arrival, set_aside)
        if counts:
            await self._call(self._quarantine.keep, entries, counts)

    async def _answer(self, arrivals: Sequence[Arrival]) -> None:
        """Acknowledge everything, and send one receipt to each agent and boot."""
        boots: dict[tuple[Address, str], list[Arrival]] = {}
        for arrival in arrivals:
            await arrival.acknowledge(_try_link)
            if arrival.boot:
                boots.setdefault((arrival.address, arrival.boot), []).append(arrival)
        for (_, boot), group in boots.items():
            reasons: Counter[Reason] = Counter()
            for arrival in group:
                reasons.update(arrival.set_aside_counts())
            receipt = Receipt(
                boot=boot,
                applied=to_ranges([arrival.seq for arrival in group if not arrival.trouble]),
                set_aside=to_ranges([arrival.seq for arrival in group if arrival.trouble]),
                reasons={reason.value: count for reason, count in reasons.items()},
            )
            await _try_link(group[-1].delivery.reply(receipt))

    def _tell_once(self, arrival: Arrival, reasons: Iterable[Reason]) -> None:
        """The first of a kind from an agent is worth a line; the rest is on the page and in the quarantine."""
        for reason in reasons:
            name = (arrival.address, reason)
            if name in self._told or len(self._told) >= MOST_TOLD:
                continue
            self._told.add(name)
            sender, meaning = "/".join(arrival.address), MEANINGS[reason].text
            logger.warning(
                say(
                    f"{sender} 的数据有一部分被隔离：{meaning}({reason});同样的不再提示，见 infravitals quarantine",
                    f"{sender}: set aside, {meaning} ({reason}); not said again, see infravitals quarantine",
                )
            )

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


class _Recent:
    """Identities known to be stored, the latest MOST_RECENT of them."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[Address, str], None] = OrderedDict()

    def has(self, address: Address, identity: str) -> bool:
        return (address, identity) in self._names

    def add(self, address: Address, identity: str) -> None:
        self._names[address, identity] = None
        self._names.move_to_end((address, identity))
        if len(self._names) > MOST_RECENT:
            self._names.popitem(last=False)


class _Delay:
    """From when on a batch that comes now may have waited for us.

    While a round hangs on the store, batches wait in the broker; being late by that is no wrong clock. They are let
    off for as long again as the standstill lasted.
    """

    def __init__(self) -> None:
        self._since = self._until = 0

    def note(self, began: int, ended: int) -> None:
        """A round took from `began` to `ended`."""
        if ended - began >= LONG_ROUND_MS:
            if began > self._until:
                self._since = began
            self._until = ended + (ended - self._since) + LONG_ROUND_MS

    def waiting_since(self, now: int) -> int:
        """The earliest moment at which something received now may have been sent."""
        return self._since if now <= self._until else now


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


def _entries(arrival: Arrival) -> list[Entry]:
    address, at = arrival.address, arrival.received_at
    if arrival.trouble:
        payload = arrival.delivery.payload[:PAYLOAD_BYTES]
        return [Entry(at, *address, arrival.trouble.reason, arrival.trouble.what, payload)]
    kept = arrival.checked.kept if arrival.checked else ()
    return [Entry(at, *address, item.reason, item.what) for item in kept]


async def _try_link(call: Awaitable[None]) -> None:
    """What does not get through comes again: the link delivers it anew, or the agent sends it anew."""
    try:
        async with asyncio.timeout(LINK_SECONDS):
            await call
    except (LinkError, TimeoutError) as error:
        logger.debug("a receipt or an acknowledgement did not get through: %r", error)
    task = asyncio.current_task()
    if task and task.cancelling():  # before Python 3.12 wait_for, under the MQTT library, may swallow our end
        raise asyncio.CancelledError
