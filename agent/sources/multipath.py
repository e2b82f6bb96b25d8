"""Whether every storage volume still has more than one path.

Measures: redundant_group[group, kind path]: members_count, healthy_count, required_count, is_redundant, is_healthy.
Needs: multipathd, as root. Nothing is changed.
Reference: multipathd(8), `show maps json`.

A path is healthy when its checker says ready, or ghost (a standby path of an array that answers), and the kernel uses it.
"""

from typing import Annotated, ClassVar

import msgspec

from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Reading, SourceConfig, Surroundings

COMMAND_SHARE = 0.8
HEALTHY_CHECKS = ("ready", "ghost")


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0


class Way(msgspec.Struct, frozen=True):
    """One path, as its checker and the kernel see it."""

    chk_st: str
    dm_st: str = "active"

    @property
    def is_healthy(self) -> bool:
        """Whether data could go this way now."""
        return self.chk_st in HEALTHY_CHECKS and self.dm_st == "active"


class Group(msgspec.Struct, frozen=True):
    """Paths of one priority."""

    paths: tuple[Way, ...] = ()


class Map(msgspec.Struct, frozen=True):
    """One volume."""

    name: str
    path_groups: tuple[Group, ...] = ()


class Maps(msgspec.Struct, frozen=True):
    """The whole answer."""

    maps: tuple[Map, ...] = ()


class Source:
    """The volumes of the host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._command = surroundings.command
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without multipathd or volumes, SourceError when the daemon is gone or says what is not understood."""
        output = await self._command(("multipathd", "show", "maps", "json"), self._timeout_seconds)
        try:
            maps = msgspec.json.decode(output.stdout, type=Maps).maps
        except msgspec.DecodeError as error:
            why = (output.stderr.strip().splitlines() or output.stdout.strip().splitlines() or ["?"])[0][:200]
            raise SourceError(
                say(f"multipathd 没有应答：{why}；须为 root", f"multipathd does not answer: {why}; be root")
            ) from error
        if not maps:
            raise NoData(say("没有多路径卷", "there is no multipath volume"))
        return [_read_map(each) for each in maps]

    async def close(self) -> None:
        """Nothing to close."""


def _read_map(volume: Map) -> Reading:
    ways = [way for group in volume.path_groups for way in group.paths]
    healthy = sum(way.is_healthy for way in ways)
    fields: dict[str, Value] = {
        "members_count": len(ways),
        "healthy_count": healthy,
        "required_count": 1,
        "is_redundant": healthy > 1,
        "is_healthy": bool(ways) and healthy == len(ways),
    }
    return Reading("redundant_group", fields, {"group": volume.name, "kind": "path"})
