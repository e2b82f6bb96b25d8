"""The agent's half of the all-in-one commands: this machine's name, its sources, its spool beside the store."""

import re
import socket
import uuid
import zlib
from pathlib import Path
from typing import NamedTuple

from agent.config import default_sources, read_sources
from agent.rounds import Watch
from agent.sources import Surroundings
from agent.spool import Spool
from collector.beside import Place

LINK_CAPACITY = 64
SPOOL_BYTES = 256 * 1024 * 1024
SPOOL_AGE_SECONDS = 7 * 86_400.0


class Options(NamedTuple):
    """What the command line said; None: as before, else the default."""

    data_directory: Path
    site: str | None
    port: int
    rules_directory: Path | None
    site_folder: Path | None = None
    sources: Path | None = None


def agent_name() -> str:
    """This machine's name as an id; what an id cannot hold is told apart by a checksum."""
    host = socket.gethostname().split(".")[0].lower().replace("_", "-")
    name = re.sub("[^a-z0-9-]+", "", host).strip("-")
    if name != host.strip("-"):
        name = f"{name or 'host'}-{zlib.crc32(host.encode()):08x}"
    return name[:63]


def open_spool(place: Place) -> Spool:
    """The spool, a file in the data directory."""
    return Spool(
        place.data_directory / "spool.sqlite",
        max_bytes=SPOOL_BYTES,
        max_age_seconds=SPOOL_AGE_SECONDS,
        new_boot=lambda: uuid.uuid4().hex,
    )


def make_watches(place: Place, sources: Path | None = None) -> list[Watch]:
    """Every source that serves this system, as `sources` configures it, else with its defaults. Raises FileMistakes."""
    surroundings = Surroundings(asset=agent_name(), state_directory=place.data_directory)
    sections = {section.name: section for section in default_sources()}
    if sources:
        sections |= {section.name: section for section in read_sources(sources)}
    return [watch for section in sections.values() for watch in section.watches(surroundings)]
