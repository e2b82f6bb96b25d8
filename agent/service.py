"""`run`: runner, spool, publisher and link together in one process, from start to a clean end."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from functools import partial

from agent.config import AgentConfig
from agent.errors import SpoolError
from agent.foreign_words import explain_system
from agent.language import say
from agent.logs import set_up_logging
from agent.mqtt import MqttLink
from agent.notify import feed_watchdog, tell
from agent.points import Point
from agent.publish import Publisher
from agent.rounds import in_thread
from agent.run import Runner
from agent.spool import Spool
from agent.wire import Address

DRAIN_SECONDS = 1.0
"""What the end of the process may take for batches under way; the spool keeps the rest."""

_log = logging.getLogger(__name__)


def serve(config: AgentConfig) -> int:
    """Gather and send until SIGTERM or SIGINT; gives the exit code. Raises SpoolError or UnfitSecret when it cannot begin."""
    set_up_logging(config.log)
    config.broker.begin()
    # the MQTT library needs a loop with a selector, which is not the default on Windows
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(_serve(config))
    return 0


async def _serve(config: AgentConfig) -> None:
    stop = _stop_on_signals()
    spool = await _open_spool(config)
    address = Address(config.site, config.agent)
    publisher = Publisher(spool, MqttLink(config.broker, address), address)

    async def keep(points: list[Point]) -> None:
        await in_thread(partial(spool.put, points), "spool")
        publisher.wake()

    runner = Runner(config.watches(), asset=config.asset, sink=keep, spool_state=spool.state)
    count, name = len(config.sources), f"{config.site}/{config.agent}"
    _log.info(say(f"{name} 开始采集，{count} 个采集源", f"{name} gathers from {count} sources"))
    try:
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(publisher.run(), name="publisher")
            running = group.create_task(runner.run(), name="runner")
            feeding = group.create_task(feed_watchdog(partial(_prove_spool, spool)), name="watchdog")
            tell("READY=1")
            await stop.wait()
            tell("STOPPING=1")
            feeding.cancel()
            _log.info(say("正在结束", "ending"))
            running.cancel()
            await asyncio.wait({running})
            if publisher.is_connected:
                with contextlib.suppress(SpoolError):  # told already, and what is in the spool stays there
                    await publisher.drain(DRAIN_SECONDS)
            publishing.cancel()
    finally:
        spool.close()


async def _prove_spool(spool: Spool) -> None:
    """Returns when the spool answers, were it with trouble: a full disk is told elsewhere and no restart mends it."""
    with contextlib.suppress(SpoolError):
        await in_thread(spool.state, "spool")


def _stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; asyncio's own handlers do not exist on Windows."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop


async def _open_spool(config: AgentConfig) -> Spool:
    """The spool, proven to be readable and writable: who cannot keep a point need not gather any."""
    folder = config.spool_path.parent
    try:
        config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        text = say(
            f"无法建立目录 {error.filename}：{explain_system(error)}；请检查权限，或在配置中改 state_directory",
            f"cannot make the directory {error.filename}: {explain_system(error)}; mend its rights or set state_directory",
        )
        raise SpoolError(text) from error
    spool = Spool(
        config.spool_path,
        max_bytes=config.spool.max_bytes,
        max_age_seconds=config.spool.max_age_seconds,
        clock=time.time,
        new_boot=lambda: os.urandom(16).hex(),
    )
    await in_thread(spool.state, "spool")
    return spool
