"""A running collector: scorecards, page and command socket over an open intake, from start to a clean end."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping

from agent.link import Delivery
from collector.beside import Place, make_handlers
from collector.control import ControlServer
from collector.intake import Intake
from collector.metrics import Sights
from collector.server import Evaluator
from collector.site_seen import Seen, read_seen
from collector.site_watch import SiteWatch
from collector.snapshot import Commands, program_word
from collector.web.serving import LOOPBACK, Entrance, PageServer


class Service:
    """Scorecards, page, command socket and a look at the site folder over an open intake.

    named: the place as it was named, so that its site folder is read anew as it was read first. entrance: how the page is
    reached, by default on loopback by everybody who is there.
    """

    def __init__(self, intake: Intake, named: Place, page_port: int, entrance: Entrance = LOOPBACK) -> None:
        place, rules, threads = intake.place, intake.rules, intake.threads
        self._watch = SiteWatch(named, place, rules)
        self._intake = intake
        commands = Commands(program_word(sys.argv[0]), place.words, place.register)
        self.evaluator = Evaluator(
            threads,
            rules,
            place.site,
            intake.quarantine.counts,
            commands=commands,
            folder_trouble=lambda: self._watch.trouble,
            note_evaluation=intake.meters.note_evaluation,
            clocks_off=self._clocks_off,
        )
        intake.meters.watch(
            Sights(
                ingest=intake.ingest.counts,
                set_aside=intake.quarantine.counts,
                is_stalled=lambda: intake.ingest.is_stalled,
                snapshot=lambda: self.evaluator.snapshot,
                kept_hour=lambda: self.evaluator.kept_hour,
            )
        )
        self.page = PageServer(
            lambda: self.evaluator.snapshot, page_port, metrics=intake.meters.render, entrance=entrance
        )
        self._control = ControlServer(
            place.socket,
            make_handlers(lambda: self._watch.now, threads, rules, self.page.url, self._clocks_off),
        )

    async def run(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Take deliveries until they end or this is cancelled; then end the rest."""
        async with asyncio.TaskGroup() as group:
            side = [
                group.create_task(self.page.run(), name="page"),
                group.create_task(self._control.run(), name="control"),
                group.create_task(self.evaluator.run(), name="evaluator"),
                group.create_task(self._watch.run(self._take_site, self._read_seen), name="site-folder"),
            ]
            try:
                await self._intake.ingest.run(deliveries)
            finally:
                for task in side:
                    task.cancel()

    def _clocks_off(self) -> Mapping[str, int]:
        site = self._watch.now.site
        off = self._intake.ingest.counts().clocks_off(site.id)
        return {agent: skew_ms for agent, skew_ms in off.items() if agent not in site.folder.revoked}

    def _take_site(self, place: Place) -> None:
        self._intake.register.folder = place.site.folder
        self.evaluator.site = place.site

    async def _read_seen(self) -> Seen:
        threads, catalogue = self._intake.threads, self._intake.rules.catalogue
        now = int(time.time() * 1000)
        return await threads.read(read_seen, threads.store, catalogue, self._intake.place.site.id, now)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
