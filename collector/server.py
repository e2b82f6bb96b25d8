"""The collector as it runs: ingest, the store's threads, the hourly scorecard, and the snapshot that the faces show."""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from agent.errors import StoreError
from agent.language import say
from collector.continuity import read_continuity
from collector.coverage import measure_coverage, running_sources, seen_signals
from collector.evaluate import Rules, evaluate, format_time
from collector.health import read_health
from collector.history import assets_of, explain_revision, read_history, scores_of, summarize
from collector.inquiry import Site
from collector.ledger import read_ledger
from collector.network import read_network
from collector.past import Past
from collector.query import HOUR_MS
from collector.reasons import Reason
from collector.score import Scorecard
from collector.snapshot import Commands, Snapshot
from collector.stores import LATENESS_MS, Store

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 3.0
LONGEST_PAUSE_SECONDS = 60.0
"""The live view is taken at growing pauses: soon after the start, later once a minute."""

HISTORY_MS = 30 * 24 * HOUR_MS
"""How far back the live view lists stored scorecards."""

REVISED_MS = 24 * HOUR_MS
"""How far back scorecards are evaluated again when points came late; an agent that was cut off longer shows in the newest."""

COST_FACTOR = 20
"""The pause is at least this many times what the last look took, so that a large site is not scored all day."""


class StoreThreads:
    """The one thread that writes, and one that reads; whatever touches the store goes through here."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._reader = ThreadPoolExecutor(1, "store-reader")

    async def write(self, call: Callable[..., T], *arguments: object) -> T:
        """Run `call` in the writing thread."""
        context = contextvars.copy_context()  # the reader's language goes along
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(context.run, call, *arguments))

    async def read(self, call: Callable[..., T], *arguments: object) -> T:
        """Run `call` in the reading thread."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._reader, partial(context.run, call, *arguments))

    def close(self) -> None:
        """Wait for what runs; nothing is started any more."""
        self._reader.shutdown(cancel_futures=True)
        self._writer.shutdown()


def revise(store: Store, card: Scorecard, as_of: int) -> Scorecard:
    """The scorecard with its revision: the stored one of the same content, else the next; nothing is written."""
    stored = store.scorecard_list(card.site, as_of, as_of + 1)
    known = [row.revision for row in stored if row.digest == card.identity()]
    revision = known[0] if known else max((row.revision for row in stored), default=0) + 1
    return msgspec.structs.replace(card, revision=revision)


def score_at(store: Store, rules: Rules, site: Site, as_of: int) -> Scorecard:
    """The scorecard at `as_of`, evaluated now, with its revision."""
    return revise(store, evaluate(store, rules, site, as_of), as_of)


class Evaluator:
    """Writes the scorecard of every full hour and keeps the snapshot of now.

    site: may be replaced when the site folder changes. set_aside: what ingest refused so far, by reason. commands: how a
    reader asks for the same. folder_trouble: what is wrong in the site folder now, empty for nothing. note_evaluation: is told
    what for and for how many seconds there was scoring. clocks_off: agents whose clocks are off, as ingest sees it.
    """

    def __init__(
        self,
        threads: StoreThreads,
        rules: Rules,
        site: Site,
        set_aside: Callable[[], Mapping[Reason, int]],
        clock: Callable[[], float] = time.time,
        commands: Commands | None = None,
        folder_trouble: Callable[[], str] = str,
        note_evaluation: Callable[[str, float], None] = lambda kind, seconds: None,
        clocks_off: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._threads, self._rules, self.site, self._set_aside, self._clock = threads, rules, site, set_aside, clock
        self._commands = commands or Commands()
        self._folder_trouble = folder_trouble
        self._note_evaluation = note_evaluation
        self._clocks_off = clocks_off
        self.kept_hour: int | None = None
        """As-of of the newest full hour that was dealt with."""
        self.snapshot: Snapshot | None = None
        self.has_snapshot = asyncio.Event()
        self._is_failing = False
        self._past = Past()
        self._late_since = int(clock() * 1000) - REVISED_MS

    async def run(self) -> None:
        """Both for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="live-view")
            group.create_task(self._keep_hours(), name="hourly-scorecard")

    async def _watch(self) -> None:
        pause = FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            with contextlib.suppress(StoreError):  # told already
                await self.look()
            pause = max(min(pause * 1.5, LONGEST_PAUSE_SECONDS), COST_FACTOR * (time.monotonic() - began))

    async def look(self) -> Snapshot:
        """Take a new snapshot. Raises StoreError, and the one before then says that it is old."""
        now = int(self._clock() * 1000)
        try:
            self.snapshot = await self._threads.read(self._snapshot, now)
        except StoreError as error:
            self._complain(error)
            raise
        self.has_snapshot.set()
        self._recover()
        return self.snapshot

    def _snapshot(self, now: int) -> Snapshot:
        store = self._threads.store
        began = time.perf_counter()
        card = score_at(store, self._rules, self.site, now)
        self._note_evaluation("live", time.perf_counter() - began)
        seen = seen_signals(store, self._rules, self.site, now)
        running = running_sources(store, self.site, now)
        return Snapshot(
            taken_at=now,
            zone=self.site.zone,
            rules=self._rules,
            scorecard=card,
            agents=read_health(store, self.site.id, self.site.folder.revoked, now),
            set_aside=dict(self._set_aside()),
            owners=store.owners(self.site.id),
            folder=self.site.folder,
            coverage=measure_coverage(self._rules, card, seen, running, self.site.folder.has_register),
            history=read_history(store, self.site.id, now - HISTORY_MS),
            commands=self._commands,
            ledger=read_ledger(store, self._rules.catalogue, self.site.id, now),
            folder_trouble=self._folder_trouble(),
            network=read_network(store, self.site.id, now),
            continuity=read_continuity(store, self.site.folder, self.site.id, now),
            past=self._past.read(store, self.site.id, self.site.zone, now),
            clocks_off=self._clocks_off(),
        )

    async def _keep_hours(self) -> None:
        while True:
            now = int(self._clock() * 1000)
            hour = (now - LATENESS_MS) // HOUR_MS * HOUR_MS
            try:
                await self.keep(hour)
                self.kept_hour = hour
                await self.revise_late(hour)
            except StoreError as error:
                self._complain(error)
            due = hour + HOUR_MS + LATENESS_MS
            await asyncio.sleep(max(1.0, due / 1000 - self._clock()))

    async def keep(self, hour: int) -> int:
        """Evaluate a full hour and store its scorecard; gives the revision, 0 while there are no points at all.

        The buckets that it read are kept for the next hour, and points beyond their retention go.
        """
        revision = await self.score_hour(hour)
        if revision:
            await self._threads.write(self._threads.store.prune, int(self._clock() * 1000))
        return revision

    async def score_hour(self, hour: int, *, is_kept: bool = True) -> int:
        """What `keep` does but for the points beyond their retention; not is_kept: nor are the buckets kept that it read."""
        if not await self._threads.read(self._threads.store.totals):
            return 0
        read_at = int(self._clock() * 1000) if is_kept else None
        began = time.perf_counter()
        card = await self._threads.read(evaluate, self._threads.store, self._rules, self.site, hour, read_at)
        self._note_evaluation("scheduled", time.perf_counter() - began)
        why = await self._threads.read(self._why, card, hour)
        now = int(self._clock() * 1000)
        owners = await self._threads.read(self._threads.store.owners, self.site.id)
        assets = assets_of(self.site.folder, owners, hour)
        body, told = msgspec.json.encode(card), (why, summarize(card), scores_of(card), assets)
        revision = await self._threads.write(
            self._threads.store.save_scorecard, self.site.id, hour, card.identity(), body, now, *told
        )
        log.info(say("%s 的评分已存，修订 %d", "scorecard of %s stored, revision %d"), format_time(hour), revision)
        await self._threads.write(self._threads.store.keep)
        return revision

    async def revise_late(self, newest: int) -> list[int]:
        """Evaluate again the stored hours before `newest` whose data came late; gives them, oldest first.

        Each becomes a revision beside what was stored, or nothing where the late points change no byte.
        """
        asked_at = int(self._clock() * 1000)
        late = await self._threads.read(self._threads.store.late_hours, self.site.id, self._late_since)
        earliest = min((row.hour for row in late), default=newest)
        since = max(earliest + HOUR_MS, newest - REVISED_MS)
        stored = await self._threads.read(self._threads.store.scorecard_list, self.site.id, since, newest)
        hours = sorted({row.as_of for row in stored})
        for hour in hours:
            await self.keep(hour)
        self._late_since = asked_at
        return hours

    def _why(self, card: Scorecard, hour: int) -> str:
        """Why this hour's scorecard is not the stored one; empty when none is."""
        stored = self._threads.store.scorecard_at(self.site.id, hour)
        if stored is None or stored.digest == card.identity():
            return ""
        return explain_revision(msgspec.json.decode(stored.body, type=Scorecard), card)

    def _complain(self, error: StoreError) -> None:
        if not self._is_failing:
            log.warning(say("暂时无法评分：%s", "cannot score for now: %s"), error)
        self._is_failing = True
        if self.snapshot is not None:  # what was true stays on the page, with the word that it may not be now
            self.snapshot = replace(self.snapshot, store_trouble=str(error))

    def _recover(self) -> None:
        if self._is_failing:
            log.warning(say("评分已恢复", "scoring works again"))
        self._is_failing = False
