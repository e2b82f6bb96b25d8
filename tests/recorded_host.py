"""A machine made of recorded /proc and /sys files, its clock moved by hand, and rounds of a source on it."""

import asyncio
import shutil
from pathlib import Path
from typing import Protocol

from declared import undeclared

from agent.points import Value
from agent.sources import Reading, Source, Surroundings

RECORDED = Path(__file__).parent / "agent/sources/recorded"

Seen = dict[tuple[str, ...], dict[str, Value]]
"""Measurement and tag values -> fields."""


class Making(Protocol):
    """Makes the source under test in its surroundings."""

    def __call__(self, surroundings: Surroundings) -> Source: ...


class RecordedHost:
    """`root` holds the recorded trees laid over each other, the last one on top; `now` is its monotonic clock."""

    def __init__(self, root: Path, *trees: str) -> None:
        self.root = root
        self.now = 1000.0
        self.lay(*trees)

    def lay(self, *trees: str) -> None:
        """Lay more recorded files over those that are there."""
        for tree in trees:
            shutil.copytree(RECORDED / tree, self.root, dirs_exist_ok=True)

    def open(self, name: str, make: Making) -> "Rounds":
        """The opened source `name` on this machine."""
        source = make(Surroundings("his-db", root=self.root, monotonic=lambda: self.now, system="linux"))
        asyncio.run(source.open())
        return Rounds(name, source)


class Rounds:
    """Rounds of one source; what is not declared in the catalogue fails at once."""

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source

    def collect(self) -> Seen:
        """One round."""
        found = self.source.collect()
        assert not hasattr(found, "__await__")
        readings: list[Reading] = list(found)
        assert undeclared(self.name, readings) == []
        seen = {(reading.name, *reading.tags.values()): dict(reading.fields) for reading in readings}
        assert len(seen) == len(readings), "two readings of one thing"
        return seen

    def close(self) -> None:
        """Close the source."""
        asyncio.run(self.source.close())
