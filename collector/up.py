"""`up`: agent and collector in one process, over the in-process link into DuckDB; nothing to configure."""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.logging import RichHandler

from agent.inprocess import InProcessLink
from agent.language import say
from agent.points import Point
from agent.publish import Publisher
from agent.rounds import in_thread
from agent.run import Runner
from agent.wire import Address
from collector.beside import Place, embedded_place, read_site, refuse_second, remember_site
from collector.embedded import LINK_CAPACITY, Options, agent_name, make_watches, open_spool
from collector.evaluate import Rules
from collector.health import Snapshot
from collector.intake import Intake
from collector.report import criteria_table, facts_table, scorecard_table
from collector.ruleset import load_rules
from collector.service import Service, stop_on_signals
from collector.stores import Latest, Store

log = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
SCREEN_SECONDS = 2.0
FACTS_MS = 10 * 60_000
"""Facts older than this are not shown as what is now."""


def run(options: Options) -> int:
    """Gather, store, score and show until Ctrl-C; gives the exit code."""
    named = embedded_place(options.data_directory, options.site, options.rules_directory, options.site_folder)
    refuse_second(named)
    rules = load_rules(options.rules_directory).rules
    place, warnings = read_site(named, rules)
    remember_site(named)
    console = Console()
    handler = RichHandler(console=console, show_path=False, show_level=True, markup=False)
    logging.basicConfig(level="WARNING", format="%(message)s", handlers=[handler], force=True)
    for warning in warnings:
        log.warning("%s", warning)
    with Intake(place, rules) as intake:
        asyncio.run(_run(intake, named, options.port, console))
    return 0


async def _run(intake: Intake, named: Place, port: int, console: Console) -> None:
    stop = stop_on_signals()
    service = Service(intake, named, port)
    address = Address(intake.place.site.id, agent_name())
    link = InProcessLink(address, LINK_CAPACITY)
    spool = open_spool(intake.place)
    publisher = Publisher(spool, link, address)

    async def keep(points: list[Point]) -> None:
        await in_thread(partial(spool.put, points), "spool")
        publisher.wake()

    runner = Runner(make_watches(intake.place), asset=agent_name(), sink=keep, spool_state=spool.state)
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(service.run(link.deliveries()), name="service")
            sending = group.create_task(publisher.run(), name="publisher")
            gathering = group.create_task(runner.run(), name="runner")
            screen = group.create_task(_Screen(intake, service, console).run(), name="screen")
            await stop.wait()
            screen.cancel()
            gathering.cancel()
            await asyncio.wait({gathering, screen})
            await publisher.drain(DRAIN_SECONDS)
            sending.cancel()
            await link.close()
            await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
            serving.cancel()
    finally:
        spool.close()
    console.print(say("已结束，数据已保存", "ended, everything is kept"))


class _Screen:
    """The terminal: the page's address, then tables that fill as facts arrive; without a terminal, once."""

    def __init__(self, intake: Intake, service: Service, console: Console) -> None:
        self._intake, self._service, self._console = intake, service, console

    async def run(self) -> None:
        await self._service.page.started.wait()
        site = self._intake.place.site.id
        self._console.print(
            say(
                f"网页：{self._service.page.url}   数据：{self._intake.place.data_directory}   站点：{site}   Ctrl-C 结束",
                f"page: {self._service.page.url}   data: {self._intake.place.data_directory}   site: {site}   Ctrl-C ends",
            )
        )
        if self._console.is_terminal:
            with Live(
                self._show([], None), console=self._console, auto_refresh=False, vertical_overflow="visible"
            ) as live:
                while True:
                    await asyncio.sleep(SCREEN_SECONDS)
                    live.update(self._show(await self._facts(), self._service.evaluator.snapshot), refresh=True)
        await self._service.evaluator.has_snapshot.wait()
        self._console.print(self._show(await self._facts(), self._service.evaluator.snapshot))

    async def _facts(self) -> Sequence[tuple[str, Latest]]:
        return await self._intake.threads.read(_read_facts, self._intake.threads.store, self._intake.rules)

    def _show(self, facts: Sequence[tuple[str, Latest]], snapshot: Snapshot | None) -> RenderableType:
        parts: list[RenderableType] = [facts_table(self._intake.rules.catalogue, facts)]
        if snapshot is not None:
            parts += [scorecard_table(snapshot.scorecard), criteria_table(snapshot.scorecard)]
        return Group(*parts)


def _read_facts(store: Store, rules: Rules) -> list[tuple[str, Latest]]:
    """The newest row of every series of this machine's measurements, by measurement."""
    since = int(time.time() * 1000) - FACTS_MS
    emitted = [
        name
        for name, measurement in rules.catalogue.measurements.items()
        if measurement.emitted_by and measurement.emitted_by != ("runner",)
    ]
    return [(name, row) for name in emitted for row in store.latest(name, since)]
