"""`up --once`: one round of every source through the real line, then one scorecard."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from agent.errors import InfravitalsError, StoreError
from agent.inprocess import InProcessLink
from agent.language import say
from agent.points import Point
from agent.publish import Publisher
from agent.readings import Settler
from agent.rounds import Watch, in_thread
from agent.run import gather_once, points_of_round
from agent.spool import Spool
from agent.wire import Address
from collector.beside import ask_running_score, embedded_place, read_site, remember_site, score_bytes
from collector.embedded import LINK_CAPACITY, Options, agent_name, make_watches, open_spool
from collector.intake import Intake
from collector.room import full_disk, is_full
from collector.ruleset import load_rules

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0


def once(options: Options, as_of: int | None) -> bytes:
    """Gather once, score at `as_of` (ms; None: after the gather), give the scorecard's JSON.

    Where `up` runs on this data already, it gathers by itself and is asked for the scorecard. Raises StoreError, also when the
    disk is full by the end.
    """
    place = embedded_place(options.data_directory, options.site, options.rules_directory, options.site_folder)
    running = ask_running_score(place, as_of)
    if running is not None:
        return running
    rules = load_rules(options.rules_directory).rules
    place, warnings = read_site(place, rules)
    remember_site(place)
    for warning in warnings:
        log.warning("%s", warning)
    with Intake(place, rules) as intake:
        asyncio.run(_gather_into(intake, make_watches(place, options.sources)))
        scored = score_bytes(intake.threads.store, rules, place.site, as_of)
    if is_full(place.data_directory):  # the store says nothing when it cannot write its log into the file as it closes
        raise full_disk(place.data_directory)
    return scored


async def _gather_into(intake: Intake, watches: list[Watch]) -> None:
    """One round of every source, through spool, link and ingest into the store."""
    settler = Settler(intake.rules.catalogue, agent_name())
    points: list[Point] = []
    for watch, outcome in await gather_once(watches):
        points += points_of_round(settler, watch, outcome)
        if not outcome.is_success:
            log.warning("%s: %s", watch.label, outcome.error)
    with _singly():
        await _send(intake, points)


async def _send(intake: Intake, points: list[Point]) -> None:
    async with _sending(intake) as (spool, publisher):
        await in_thread(partial(spool.put, points), "spool")
        publisher.wake()
        if not await publisher.drain(DRAIN_SECONDS):
            if is_full(intake.place.data_directory):
                raise full_disk(intake.place.data_directory)
            raise StoreError(
                say(
                    "采集到的数据未能入库，原因见上；可重新运行",
                    "what was gathered could not be stored, the reason stands above; run again",
                )
            )


@contextmanager
def _singly() -> Iterator[None]:
    """What a task group says of a trouble that is expected is that trouble, one sentence and no group of one."""
    try:
        yield
    except ExceptionGroup as group:
        expected, bugs = group.split(InfravitalsError)
        if expected is None or bugs is not None:
            raise
        raise expected.exceptions[0] from group


@asynccontextmanager
async def _sending(intake: Intake) -> AsyncIterator[tuple[Spool, Publisher]]:
    """Spool, publisher, link and ingest running; ended in that order."""
    address = Address(intake.place.site.id, agent_name())
    link = InProcessLink(address, LINK_CAPACITY)
    spool = open_spool(intake.place)
    publisher = Publisher(spool, link, address)
    try:
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(intake.ingest.run(link.deliveries()), name="ingest")
            sending = group.create_task(publisher.run(), name="publisher")
            yield spool, publisher
            sending.cancel()
            await link.close()
            await taking
    finally:
        spool.close()
