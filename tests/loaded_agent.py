"""An agent under load as a program that can be killed: the real spool, publisher and link, and points without end.

    python tests/loaded_agent.py agent.yaml ENOUGH START

Makes batches until the file ENOUGH is there, sends them, and ends with 0 when nothing waits. The value of a
point is its number in the ledger and its time so many milliseconds after START, so that one that is lost or stored twice is seen. Prints the ledger as JSON lines.
"""

import asyncio
import contextlib
import os
import sys
from functools import partial
from pathlib import Path

import msgspec

from agent.config import AgentConfig, read_config
from agent.mqtt import MqttLink
from agent.points import Point
from agent.publish import Publisher
from agent.spool import Spool
from agent.wire import Address

POINTS = 10


async def make(spool: Spool, publisher: Publisher, asset: str, enough: Path, start: int) -> None:
    """Fill the spool, a few milliseconds a batch."""
    first = spool.state().made_points
    while not enough.exists():
        numbers = range(first, first + POINTS)
        points = [Point("host_uptime", {"asset": asset}, {"uptime_seconds": float(n)}, start + n) for n in numbers]
        await asyncio.to_thread(partial(spool.put, points))
        publisher.wake()
        first += POINTS
        await asyncio.sleep(0.005)


async def tell(spool: Spool) -> None:
    """The ledger, again and again."""
    while True:
        state = await asyncio.to_thread(spool.state)
        print(msgspec.json.encode(state._asdict()).decode(), flush=True)
        await asyncio.sleep(0.02)


async def run(config: AgentConfig, enough: Path, start: int) -> None:
    spool = Spool(config.spool_path, max_bytes=2**26, max_age_seconds=1e9, new_boot=lambda: os.urandom(8).hex())
    address = Address(config.site, config.agent)
    link = MqttLink(config.broker, address)
    publisher = Publisher(spool, link, address, random=lambda: 0.05, resend_seconds=1.0)
    side = [asyncio.ensure_future(work) for work in (publisher.run(), tell(spool))]
    await make(spool, publisher, config.asset, enough, start)
    while not await publisher.drain(1.0):
        for task in side:
            if task.done():
                task.result()
    for task in side:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    spool.close()


if __name__ == "__main__":
    asyncio.run(run(read_config(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])))
