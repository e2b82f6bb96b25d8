"""`serve`: the collector of a hospital, fed by a broker."""

import asyncio
import logging
import os
import random
import socket
from collections.abc import AsyncIterator

from agent.broker import Broker
from agent.certificates import certificates_of
from agent.errors import LinkError
from agent.language import say
from agent.link import Delivery
from agent.logs import set_up_logging
from agent.mqtt import deliveries
from collector.beside import Place, place_of, read_site, refuse_second, remember_site
from collector.config import CollectorConfig
from collector.intake import Intake
from collector.metrics import Meters
from collector.ruleset import load_rules
from collector.service import Service, stop_on_signals

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 60.0
CERTIFICATES_SECONDS = 3600.0
"""How often they are looked at."""


def run(config: CollectorConfig) -> int:
    """Collect until SIGTERM or SIGINT; gives the exit code. A broker that is down is waited for."""
    set_up_logging(config.log)
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
    log.info(text, len(loaded.unsourced))
    with Intake(place, loaded.rules) as intake:
        asyncio.run(_run(intake, named, config))
    return 0


async def _run(intake: Intake, named: Place, config: CollectorConfig) -> None:
    stop = stop_on_signals()
    service = Service(intake, named, config.page.port)
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(service.run(_follow_broker(config)), name="service")
        looking = group.create_task(_watch_certificates(config.broker, intake.meters), name="certificates")
        await service.page.started.wait()
        log.info(say("采集中心已启动，网页 %s", "the collector runs, its page is %s"), service.page.url)
        await stop.wait()
        log.info(say("正在结束", "ending"))
        serving.cancel()
        looking.cancel()


async def _watch_certificates(broker: Broker, meters: Meters) -> None:
    """Tell the meters when certificates end, for ever; what cannot be seen now stays as it was seen last."""
    while broker.tls is not None:
        try:
            meters.certificates = await asyncio.to_thread(lambda: tuple(certificates_of(broker)))
        except LinkError as error:
            log.debug("certificates: %s", error)
        await asyncio.sleep(CERTIFICATES_SECONDS if meters.certificates else LONGEST_WAIT_SECONDS)


async def _follow_broker(config: CollectorConfig) -> AsyncIterator[Delivery]:
    """What the broker brings, over as many connections as it takes; trouble is said once when it begins and once when it ends."""
    identifier = f"collector-{socket.gethostname()}-{os.getpid()}"
    attempts = 0
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
                if attempts:
                    log.warning(say("已重新连上消息服务器", "the broker is back"))
                attempts = 0
                async for delivery in subscription:
                    yield delivery
        except LinkError as error:
            if not attempts:
                log.warning(say("消息服务器不可用，会继续重试：%s", "the broker is away, trying on: %s"), error)
        attempts = min(attempts + 1, 10)
        await asyncio.sleep(random.random() * min(LONGEST_WAIT_SECONDS, 2.0**attempts))  # noqa: S311 - a wait, no secret
