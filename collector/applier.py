"""What becomes of the batches of one round: each is looked up, checked, written once, and then counted and acknowledged.

A write may be tried as often as need be: what the store holds already is a duplicate and is only acknowledged.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from agent.catalogue import Catalogue
from agent.errors import LinkError
from agent.language import say
from agent.wire import Address, Receipt, to_ranges
from collector.arrival import Arrival
from collector.check import Checked, Checker
from collector.clocks import ClockNews
from collector.quarantine import PAYLOAD_BYTES, Entry, Quarantine
from collector.reasons import MEANINGS, Reason
from collector.register import Register
from collector.stores import AppliedBatch, BatchName, Store
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


class Applier:
    """Applies arrivals to the store, each once. One round at a time: the checker and the claims know no other."""

    def __init__(
        self,
        store: Store,
        store_call: StoreCall,
        catalogue: Catalogue,
        register: Register,
        quarantine: Quarantine,
    ) -> None:
        self._store, self._call = store, store_call
        self._register = register
        self._checker = Checker(catalogue, register)
        self._quarantine = quarantine
        self._recent = _Recent()
        self._delay = _Delay()
        self._tallies = Tallies()
        self._told: set[tuple[Address, Reason]] = set()
        self._clocks = ClockNews()

    def counts(self) -> IngestCounts:
        """What happened so far."""
        return self._tallies.counts()

    def note_round(self, began: int, ended: int) -> None:
        """A round took from `began` to `ended`, milliseconds since the epoch."""
        self._delay.note(began, ended)

    async def write(self, arrivals: Sequence[Arrival]) -> bool:
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

    async def finish(self, arrivals: Sequence[Arrival]) -> None:
        """Count, acknowledge and receipt what is written or set aside for good."""
        await self._count(arrivals)
        await self._answer(arrivals)

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
            if arrival.checked:
                self._clocks.note(arrival.address, arrival.checked.skew_ms)
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
            await arrival.acknowledge(try_link)
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
            await try_link(group[-1].delivery.reply(receipt))

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
                    f"{sender} 的数据有一部分被隔离：{meaning}({reason})；同样的不再提示，见 infravitals quarantine",
                    f"{sender}: set aside, {meaning} ({reason}); not said again, see infravitals quarantine",
                )
            )


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


def _entries(arrival: Arrival) -> list[Entry]:
    address, at = arrival.address, arrival.received_at
    if arrival.trouble:
        payload = arrival.delivery.payload[:PAYLOAD_BYTES]
        return [Entry(at, *address, arrival.trouble.reason, arrival.trouble.what, payload)]
    kept = arrival.checked.kept if arrival.checked else ()
    return [Entry(at, *address, item.reason, item.what) for item in kept]


async def try_link(call: Awaitable[None]) -> None:
    """What does not get through comes again: the link delivers it anew, or the agent sends it anew."""
    try:
        async with asyncio.timeout(LINK_SECONDS):
            await call
    except (LinkError, TimeoutError) as error:
        logger.debug("a receipt or an acknowledgement did not get through: %r", error)
    task = asyncio.current_task()
    if task and task.cancelling():  # before Python 3.12 wait_for, under the MQTT library, may swallow our end
        raise asyncio.CancelledError
