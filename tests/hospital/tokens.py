"""The clinicians' tokens at a real database, every 100 ms, and a test's own record of what became of each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from agent.continuity.tokens import Token
from agent.sources import Surroundings
from agent.sources.continuity_probe import Config, Source

PERIOD = 0.1
DATABASES = {"postgresql": "postgres", "mysql": "his"}


class Addressed(Protocol):
    """A server of the hospital."""

    @property
    def address(self) -> str: ...


def login(folder: Path, kind: str) -> dict[str, object]:
    """What a configuration says of the user that both kinds of servers know."""
    secret = folder / "password"
    secret.write_text("right\n")
    return {"database": DATABASES[kind], "user": "infravitals", "password": {"file": str(secret)}}


@asynccontextmanager
async def probing(
    folder: Path, kind: str, *servers: Addressed, **settings: object
) -> AsyncIterator[tuple[Source, list[Token]]]:
    """A probe of the service `his` at these servers, and every token as it settled."""
    addresses = [server.address for server in servers]
    probe = {"service": "his", "kind": kind, "addresses": addresses, **login(folder, kind)}
    config = msgspec.convert({"probes": {"his-db": probe}, "period_seconds": PERIOD, **settings}, Config)
    source = Source(config, Surroundings("his-probe"))
    await source.open()
    settled: list[Token] = []
    source._streams["his-db"].observe = settled.append
    try:
        yield source, settled
    finally:
        await source.close()
