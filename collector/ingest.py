"""Ingest: what the link delivers is checked, written, and only then acknowledged and receipted.

Deliveries that come close together are written together, up to a bound, so that batches grow under load. While the store is
in trouble nothing is acknowledged and nothing more is read: the agents' spools hold what waits.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from agent.catalogue import Catalogue
from agent.errors import LinkError, StoreError
from agent.language import say
from agent.link import Delivery
from agent.wire import Address, Receipt, to_ranges
from collector.arrival import Arrival, receive
from collector.check import Checked, Checker
from collector.quarantine import PAYLOAD_BYTES, Entry, Quarantine
from collector.reasons import MEANINGS, Reason
from collector.register import Register
from collector.stores import AppliedBatch, Store
from collector.tally import IngestCounts, Tallies

T = TypeVar("T")
logger = logging.getLogger(__name__)

MOST_RECENT = 20_000
"""Identities remembered as stored, so that the store is not asked for a batch that comes again."""
MOST_TOLD = 10_000
LONG_ROUND_MS = 60_000
LINK_SECONDS = 10.0


class StoreCall(Protocol):
    """Runs a blocking call in the one thread that writes to the store."""

    def __call__(self, call: Callable[..., T], *arguments: object) -> Awaitable[T]:
        """The call's result."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How deliveries are gathered and how long trouble with the store waits.

    most_batches, most_bytes: of one write. waiting_batches: read ahead of it.
    """

    gather_seconds: float = 0.05
    most_batches: int = 256
    most_bytes: int = 16 * 1024 * 1024
    waiting_batches: int = 64
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 30.0


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
        self._checker = Checker(catalogue, register)
        self._quarantine = quarantine
        self._clock = clock
        self._pace = pace or Pace()
        self._recent = _Recent()
        self._delay = _Delay()
        self._tallies = Tallies()
        self._told: set[tuple[Address, Reason]] = set()
        self._turn = asyncio.Lock()
        self._trouble_since: float | None = None

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
                if gathered:
                    async with self._turn:  # one round at a time: the checker and the claims know no other
                        await self._take(gathered)
            await reader
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _gather(self, inbox: "asyncio.Queue[Delivery | None]") -> tuple[list[Delivery], bool]:
        """The next deliveries; and whether there will be more."""
        first = await inbox.get()
        if first is None:
            return [], False
        gathered, size = [first], len(first.payload)
        try:
            async with asyncio.timeout(self._pace.gather_seconds):
                while len(gathered) < self._pace.most_batches and size < self._pace.most_bytes:
                    following = await inbox.get()
                    if following is None:
                        return gathered, False
                    gathered.append(following)
                    size += len(following.payload)
        except TimeoutError:
            pass
        return gathered, True

    async def _take(self, gathered: Sequence[Delivery]) -> None:
        began = self._now()
        arrivals = []
        for delivery in gathered:
            arrivals.append(receive(delivery, began))
            await asyncio.sleep(0)  # a large round must not hold up whatever else this loop serves
        known = await self._write_for_sure(arrivals)
        await self._count(arrivals, known)
        await self._answer(arrivals)
        self._delay.note(began, self._now())

    async def _write_for_sure(self, arrivals: Sequence[Arrival]) -> set[int]:
        """Write what is new, trying until the store takes it. Gives the positions of those it had already."""
        wait_seconds = self._pace.first_wait_seconds
        while True:
            try:
                known = await self._write(arrivals)
            except StoreError as error:
                self._begin_trouble(error)
            else:
                self._end_trouble()
                return known
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(wait_seconds * 2, self._pace.longest_wait_seconds)

    async def _write(self, arrivals: Sequence[Arrival]) -> set[int]:
        """One try. The store is asked anew each time: a try that failed may have been stored all the same."""
        stored = await self._find_stored(arrivals)
        known: set[int] = set()
        new: list[AppliedBatch] = []
        for position, arrival in enumerate(arrivals):
            name = (arrival.address, arrival.identity)
            if name in stored:
                if arrival.batch is None:  # else it was an earlier try of this very write that did arrive
                    known.add(position)
                continue
            if arrival.batch is None:
                await self._check(arrival)
            if arrival.batch is not None:
                stored.add(name)
                new.append(arrival.batch)
        if new:
            await self._call(self._store.write, new)
        for address, identity in stored:
            self._recent.add(address, identity)
        return known

    async def _find_stored(self, arrivals: Iterable[Arrival]) -> set[tuple[Address, str]]:
        """Those that have their row, from memory or by asking the store once for all agents."""
        stored: set[tuple[Address, str]] = set()
        asked: dict[Address, list[str]] = {}
        for arrival in arrivals:
            if self._recent.has(arrival.address, arrival.identity):
                stored.add((arrival.address, arrival.identity))
            else:
                asked.setdefault(arrival.address, []).append(arrival.identity)
        if asked:
            stored |= await self._call(_ask_applied, self._store, asked)
        return stored

    async def _check(self, arrival: Arrival) -> None:
        """Hold a new batch against catalogue and register; the store is asked first about assets that are new here."""
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

    async def _count(self, arrivals: Sequence[Arrival], known: set[int]) -> None:
        """Count every arrival once, and keep in the quarantine what was set aside."""
        entries: list[Entry] = []
        counts: Counter[Reason] = Counter()
        for position, arrival in enumerate(arrivals):
            tally = self._tallies.of(arrival.address)
            tally.received_at = arrival.received_at
            if position in known:
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
            await _try_link(arrival.delivery.acknowledge())
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

    def _begin_trouble(self, error: StoreError) -> None:
        if self._trouble_since is None:
            self._trouble_since = self._clock()
            logger.error(
                say(
                    f"存储无法写入：{error}；暂停接收，数据留在各采集代理的缓存中",
                    f"the store does not take data: {error}; nothing more is read, the agents' spools keep it",
                )
            )

    def _end_trouble(self) -> None:
        if self._trouble_since is not None:
            seconds = max(0.0, self._clock() - self._trouble_since)
            self._trouble_since = None
            logger.warning(
                say(f"存储已恢复，中断 {seconds:.0f} 秒", f"the store takes data again after {seconds:.0f} s")
            )

    def _now(self) -> int:
        return int(self._clock() * 1000)


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


def _ask_applied(store: Store, asked: Mapping[Address, list[str]]) -> set[tuple[Address, str]]:
    return {
        (address, identity)
        for address, identities in asked.items()
        for identity in store.applied(address.site, address.agent, identities)
    }


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
