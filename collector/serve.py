"""`serve`: the collector of a hospital, fed by a broker."""

import asyncio
import gc
import logging
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from agent.broker import SAY_AGAIN_SECONDS, Tls, refuse_unfit
from agent.certificates import Certificate, certificates_of, read_expiry
from agent.errors import LinkError, MissingSecret
from agent.language import say
from agent.link import Delivery
from agent.logs import set_up_logging
from agent.mqtt import deliveries
from agent.notify import feed_watchdog, tell
from collector.beside import Place, place_of, read_site, refuse_second, remember_site
from collector.config import CollectorConfig, PageConfig
from collector.intake import Intake
from collector.metrics import Meters
from collector.ruleset import load_rules, unsourced_criteria
from collector.service import Service, stop_on_signals
from collector.web.guard import Keys
from collector.web.serving import Entrance

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0
STEADY_SECONDS = 30.0
"""A connection that lasted so long was a good one."""
MOST_SHORT = 3
"""So many in a row that did not are worth a word."""
YOUNG_OBJECTS = 50_000
"""How many objects come before cycles are looked for: a batch is a thousand that hold none, and Python's own bound is 700."""
CERTIFICATES_SECONDS = 3600.0
"""How often they are looked at."""


def run(config: CollectorConfig) -> int:
    """Collect until SIGTERM or SIGINT; gives the exit code. A broker that is down is waited for. Raises UnfitSecret."""
    set_up_logging(config.log)
    config.broker.begin()
    refuse_unfit(*config.store.secrets())
    named = place_of(config)
    refuse_second(named)
    loaded = load_rules(named.rules_directory)
    place, warnings = read_site(named, loaded.rules)
    remember_site(named)
    for warning in warnings:
        log.warning("%s", warning)
    text = say(
        "%d 条准则所问的信号尚无采集源，见 infravitals rules check --all",
        "nobody emits yet what %d criteria ask, see infravitals rules check --all",
    )
    log.info(text, len(unsourced_criteria(loaded.rules)))
    with Intake(place, loaded.rules) as intake, _settled():
        asyncio.run(_run(intake, named, config))
    return 0


@contextmanager
def _settled() -> Iterator[None]:
    """What is loaded by now stays: cycles are no longer looked for in it, which took a seventh of a busy collector's time."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()  # else libraries see their objects outlive the program, and complain on the terminal


async def _run(intake: Intake, named: Place, config: CollectorConfig) -> None:
    stop = stop_on_signals()
    service = Service(intake, named, config.page.port, entrance_of(config.page))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(service.run(_follow_broker(config)), name="service")
        looking = group.create_task(_watch_certificates(config, intake.meters), name="certificates")
        await service.page.started.wait()
        log.info(say("采集中心已启动，网页 %s", "the collector runs, its page is %s"), service.page.url)
        feeding = group.create_task(feed_watchdog(lambda: intake.threads.write(int)), name="watchdog")
        tell("READY=1")
        await stop.wait()
        tell("STOPPING=1")
        log.info(say("正在结束", "ending"))
        feeding.cancel()
        serving.cancel()
        looking.cancel()


def entrance_of(page: PageConfig) -> Entrance:
    """How the page is reached. Raises LinkError or UnfitSecret for a token that is not there or none."""
    token = page.metrics_token.read(key="page.metrics_token") if page.metrics_token else None
    keys = Keys(page.password_scrypt, token) if page.password_scrypt else None
    names = ("*",) if page.behind_proxy and not page.names else page.names
    tls = page.tls or Tls()
    return Entrance(page.host, names, keys, tls.certificate, tls.key)


async def _watch_certificates(config: CollectorConfig, meters: Meters) -> None:
    """Tell the meters when certificates end, for ever; what cannot be seen now stays as it was seen last."""
    while config.broker.tls is not None or config.page.tls is not None:
        try:
            meters.certificates = await asyncio.to_thread(lambda: tuple(_certificates(config)))
        except LinkError as error:
            log.debug("certificates: %s", error)
        await asyncio.sleep(CERTIFICATES_SECONDS if meters.certificates else LONGEST_WAIT_SECONDS)


def _certificates(config: CollectorConfig) -> Iterator[Certificate]:
    yield from certificates_of(config.broker)
    page = config.page.tls.certificate if config.page.tls else None
    if page is not None:
        yield Certificate("page", read_expiry(page))


async def _follow_broker(config: CollectorConfig) -> AsyncIterator[Delivery]:
    """What the broker brings, over as many connections as it takes."""
    identifier = f"collector-{socket.gethostname()}-{os.getpid()}"
    news = Connecting(time.monotonic)
    while True:
        try:
            subscribing = deliveries(
                config.broker,
                site=config.site,
                share_group=config.share_group,
                identifier=identifier,
                receive_maximum=config.receive_maximum,
            )
            async with subscribing as subscription:
                news.began()
                async for delivery in subscription:
                    news.goes_on()
                    yield delivery
        except LinkError as error:
            news.ended(error)
        await asyncio.sleep(random.random() * news.longest_wait_seconds)  # noqa: S311 - a wait, no secret


class Connecting:
    """How it goes with the broker: trouble is said once when it begins and once when it ends, and waits grow while nobody is there.

    Connections that break again and again as soon as they are made are one trouble. Two collectors may share a user: mosquitto
    ends the session of one for the other, and does not say why.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began_at: float | None = None
        self._attempts = self._short = 0
        self._is_told, self._told_at = False, 0.0

    @property
    def longest_wait_seconds(self) -> float:
        """Before the next attempt."""
        return min(LONGEST_WAIT_SECONDS, 2.0**self._attempts)

    def began(self) -> None:
        """There is a connection."""
        self._began_at, self._attempts = self._monotonic(), 0
        if self._short < MOST_SHORT:
            self._tell_the_end()

    def goes_on(self) -> None:
        """It brought something."""
        if self._short and self._is_steady():
            self._short = 0
            self._tell_the_end()

    def ended(self, error: LinkError) -> None:
        """There is none, or none any more."""
        if self._is_steady():
            self._short = 0
        elif self._began_at is not None:
            self._short += 1
        self._began_at = None
        self._attempts = min(self._attempts + 1, 10)
        is_due = isinstance(error, MissingSecret) and self._monotonic() - self._told_at >= SAY_AGAIN_SECONDS
        if not self._is_told or is_due:
            self._is_told, self._told_at = True, self._monotonic()
            log.warning(say("消息服务器不可用，会继续重试：%s", "the broker is away, trying on: %s"), error)
        if self._short == MOST_SHORT:
            text = say(
                "与消息服务器的连接屡次刚建立就断开；若另有采集中心用同一个用户登录，请给每个采集中心各建一个用户",
                "connections to the broker break again and again as soon as they are made; if another collector logs in as the"
                " same user, give each collector a user of its own",
            )
            log.warning("%s", text)

    def _is_steady(self) -> bool:
        return self._began_at is not None and self._monotonic() - self._began_at >= STEADY_SECONDS

    def _tell_the_end(self) -> None:
        if self._is_told:
            self._is_told = False
            log.warning(say("已重新连上消息服务器", "the broker is back"))
