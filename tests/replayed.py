"""A device replayed from a walk on the loopback, and rounds of our own against it."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from snmpd import PATIENT

from agent.points import Value
from agent.snmp.ber import Binding
from agent.snmp.client import Session
from agent.snmp.credentials import Opened
from agent.snmp.device import Device
from agent.snmp.parts import Parts
from agent.snmp.profile import load_profiles
from agent.snmp.replay import Device as Replayed
from agent.snmp.replay import serve_replay
from agent.snmp.walkfile import read_walk
from agent.sources import Incomplete, Reading

WALKS = Path(__file__).parent / "walks"


class Bench:
    """A replayed device and what our gateway makes of it; `clock` moves 60 s with every round."""

    def __init__(self, replayed: Replayed, port: int, names: tuple[str, ...] | None, parts: Parts | None) -> None:
        self.replayed = replayed
        self.now = 1000.0
        session = Session("127.0.0.1", port, Opened(community="c"), PATIENT)
        self.device = Device(session, load_profiles(), lambda: self.now, names=names, parts=parts)

    async def round(self, seconds: float = 60.0) -> list[Reading]:
        """One round; of one that failed what was seen all the same."""
        self.now += seconds
        try:
            return await self.device.look("it")
        except Incomplete as trouble:
            return list(trouble.readings)

    async def fields(self, signal: str, seconds: float = 60.0, **tags: str) -> dict[str, Value]:
        """The fields of one reading of a round, {} when there is none."""
        return find(await self.round(seconds), signal, **tags)


def find(readings: Iterable[Reading], signal: str, **tags: str) -> dict[str, Value]:
    """The fields of the reading with this signal and these tags, {} when there is none."""
    for one in readings:
        if one.name == signal and all(one.tags.get(tag) == value for tag, value in tags.items()):
            return dict(one.fields)
    return {}


@contextlib.asynccontextmanager
async def replayed(
    walk: str | list[Binding], names: tuple[str, ...] | None = None, parts: Parts | None = None
) -> AsyncIterator[Bench]:
    """A bench with the walk of this name in tests/walks, or with these variables."""
    device = Replayed(read_walk(WALKS / f"{walk}.snmprec") if isinstance(walk, str) else walk)
    transport = await serve_replay(device, "c")
    bench = Bench(device, transport.get_extra_info("sockname")[1], names, parts)
    try:
        yield bench
    finally:
        bench.device.close()
        transport.close()
