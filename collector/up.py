"""`up`: agent and collector in one process, over the in-process link into DuckDB; nothing to configure."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.logging import RichHandler

from agent.inprocess import InProcessLink
from agent.language import say
from agent.points import Point
from agent.publish import Publisher
from agent.rounds import Watch, in_thread
from agent.run import Runner
from agent.table import display_width
from agent.wire import Address
from collector.beside import Place, embedded_place, read_site, refuse_second, remember_site
from collector.embedded import LINK_CAPACITY, Options, agent_name, make_watches, open_spool
from collector.evaluate import Rules
from collector.grid import Grid, Line, draw, dress, fit
from collector.intake import Intake
from collector.ruleset import load_rules
from collector.service import Service, stop_on_signals
from collector.stores import Latest, Store
from collector.tables import criteria_grid, facts_grid, legend, scorecard_grid

log = logging.getLogger(__name__)

DRAIN_SECONDS = 1.0
SCREEN_SECONDS = 2.0
FACTS_SHOWN = 16
"""So many lines of facts where there is no screen to fill."""
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
        watches = make_watches(place, options.sources)
        asyncio.run(_run(intake, named, options.port, console, watches))
    return 0


async def _run(intake: Intake, named: Place, port: int, console: Console, watches: list[Watch]) -> None:
    stop = stop_on_signals()
    service = Service(intake, named, port)
    address = Address(intake.place.site.id, agent_name())
    link = InProcessLink(address, LINK_CAPACITY)
    spool = open_spool(intake.place)
    publisher = Publisher(spool, link, address)

    async def keep(points: list[Point]) -> None:
        await in_thread(partial(spool.put, points), "spool")
        publisher.wake()

    runner = Runner(watches, asset=agent_name(), sink=keep, spool_state=spool.state)
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
        if self._console.is_terminal:
            # the alternate screen would swallow the warnings; so the view is kept below the height of the screen
            with Live(self._view([]), console=self._console, auto_refresh=False, vertical_overflow="crop") as live:
                while True:
                    await asyncio.sleep(SCREEN_SECONDS)
                    live.update(self._view(await self._facts()), refresh=True)
        self._print([Line("   ".join(self._head()))])
        await self._service.evaluator.has_snapshot.wait()
        facts = await self._facts()
        drawn = [draw(grid, None) for grid in self._grids(facts[:FACTS_SHOWN], None)]
        self._print([line for lines in drawn for line in lines])

    def _print(self, lines: Sequence[Line]) -> None:
        for text in dress(lines):
            self._console.print(text, soft_wrap=True)

    async def _facts(self) -> Sequence[tuple[str, Latest]]:
        return await self._intake.threads.read(_read_facts, self._intake.threads.store, self._intake.rules)

    def _view(self, facts: Sequence[tuple[str, Latest]]) -> "LiveView":
        return LiveView(self._head(), lambda width: self._grids(facts, width))

    def _head(self) -> tuple[str, str]:
        url, place = self._service.page.url, self._intake.place
        return (
            say(f"网页：{url}   Ctrl-C 结束", f"page: {url}   Ctrl-C ends"),
            say(
                f"站点：{place.site.id}   数据：{place.data_directory}",
                f"site: {place.site.id}   data: {place.data_directory}",
            ),
        )

    def _grids(self, facts: Sequence[tuple[str, Latest]], width: int | None) -> list[Grid]:
        snapshot = self._service.evaluator.snapshot
        grids = [facts_grid(self._intake.rules.catalogue, facts)]
        if snapshot is not None:
            grids = [scorecard_grid(snapshot.scorecard, width), criteria_grid(snapshot.scorecard), *grids]
        return grids


class LiveView:
    """What fits the screen of the moment: the head with the page's address always, the tables as far as there is room."""

    def __init__(self, head: Sequence[str], grids: Callable[[int], Sequence[Grid]]) -> None:
        self._head, self._grids = head, grids

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Ask for the size anew each time: a terminal may be resized."""
        width, height = console.size
        one = "   ".join(self._head)
        head = [one] if display_width(one) <= width else self._head
        # the cursor stands on a line of its own below the view
        yield Group(*dress(fit(head, self._grids(width), legend(), width, height - 1)))


def _read_facts(store: Store, rules: Rules) -> list[tuple[str, Latest]]:
    """The newest row of every series of this machine's measurements, by measurement."""
    since = int(time.time() * 1000) - FACTS_MS
    emitted = [
        name
        for name, measurement in rules.catalogue.measurements.items()
        if measurement.emitted_by and measurement.emitted_by != ("runner",)
    ]
    return [(name, row) for name in emitted for row in store.latest(name, since)]
