"""Which services run, which come back by themselves, and how often they had to.

Measures: service_unit[unit]: is_active, restarts_count (automatic restarts since the last round; a point's field only
when there were some, for it is an event), has_restart_policy (one that acts on a
failure, so not `on-success`), has_watchdog.
Needs: systemd as the running init, `systemctl`; restarts_count needs systemd 235. No rights.
Reference: systemctl(1) show, systemd.service(5), org.freedesktop.systemd1(5).

Without `units` it watches the enabled services, without those of type oneshot, which are meant to end.
systemd starts NRestarts at 0 again when a unit is started by hand: a count that falls is not an event, and restarts
while the agent itself was down are not seen.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec

from agent.errors import NoData, SourceError
from agent.language import say
from agent.rates import Rates
from agent.sources import Output, Reading, SourceConfig, Surroundings

MAX_UNITS = 200
COMMAND_SHARE = 0.4
"""Of a round's deadline, for one of its two commands."""

PROPERTIES = "Id,LoadState,ActiveState,UnitFileState,Type,Restart,NRestarts,WatchdogUSec"
POLICIES_WITHOUT_RECOVERY = ("no", "on-success")
ACTIVE_STATES = ("active", "reloading", "refreshing")

UnitPattern = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9:_.@\\*?\[][A-Za-z0-9:_.@\\*?\[\]!-]*$")]
"""As systemctl takes it; a leading dash would be an option."""

Properties = Mapping[str, str]

_log = logging.getLogger(__name__)


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """units: names or patterns such as `postgresql@*.service`; empty: the enabled services."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0
    units: tuple[UnitPattern, ...] = ()


class Source:
    """The units of the host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._patterns = config.units
        self._surroundings = surroundings
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE
        self._restarts = Rates()
        self._is_cut = False

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """One reading per unit. Raises NoData without systemd or such units, SourceError when it does not answer."""
        # The folder is what sd_booted(3) looks at; systemctl alone may be there in a container too.
        if not (self._surroundings.root / "run/systemd/system").is_dir():
            raise NoData(say("本机没有以 systemd 启动", "this machine was not booted with systemd"))
        patterns = self._patterns or await self._list_services()
        output = await self._run("show", f"--property={PROPERTIES}", "--", *patterns) if patterns else None
        units = _read_show(output) if output else []
        if not self._patterns:
            units = [unit for unit in units if _is_watched(unit)]
        if not units:
            wanted = say("已启用的服务", "enabled service") if not self._patterns else " ".join(self._patterns)
            raise NoData(say(f"systemd 中没有 {wanted}", f"systemd has no {wanted}"))
        return [self._read_unit(unit) for unit in self._cut(units)]

    async def close(self) -> None:
        """Nothing to close."""

    async def _run(self, *arguments: str) -> Output:
        output = await self._surroundings.command(("systemctl", *arguments), self._timeout_seconds)
        if output.status:
            reason = (output.stderr.strip().splitlines() or [f"exit {output.status}"])[0]
            raise SourceError(say(f"systemctl {arguments[0]} 失败：{reason}", f"systemctl {arguments[0]}: {reason}"))
        return output

    async def _list_services(self) -> tuple[str, ...]:
        output = await self._run("list-units", "--type=service", "--all", "--plain", "--no-legend", "--full")
        names = (line.split(maxsplit=1)[0] for line in output.stdout.splitlines() if line.strip())
        return tuple(name for name in names if name.endswith(".service"))

    def _cut(self, units: Sequence[Properties]) -> Sequence[Properties]:
        is_cut = len(units) > MAX_UNITS
        if is_cut and not self._is_cut:
            _log.warning(
                say(
                    f"systemd_units：有 {len(units)} 个单元，只采集前 {MAX_UNITS} 个；请用 units 指定需要的单元",
                    f"systemd_units: {len(units)} units, only the first {MAX_UNITS} are gathered; name those you need in units",
                )
            )
        self._is_cut = is_cut
        return units[:MAX_UNITS]

    def _read_unit(self, unit: Properties) -> Reading:
        fields: dict[str, float | bool] = {"is_active": unit["ActiveState"] in ACTIVE_STATES}
        is_found = unit.get("LoadState") != "not-found"
        if is_found and "Restart" in unit:
            fields["has_restart_policy"] = unit["Restart"] not in POLICIES_WITHOUT_RECOVERY
        if is_found and "WatchdogUSec" in unit:
            fields["has_watchdog"] = unit["WatchdogUSec"] not in ("0", "infinity")
        count = unit.get("NRestarts", "")
        if count.isdecimal():
            growth = self._restarts.growth(unit["Id"], float(count), self._surroundings.monotonic())
            if growth is not None and growth[0] > 0:
                fields["restarts_count"] = growth[0]
        return Reading("service_unit", fields, {"unit": unit["Id"]})


def _read_show(output: Output) -> list[Properties]:
    """The units in a `systemctl show` of several: blocks of KEY=VALUE with an empty line between them.

    An alias and its unit, or two patterns for one unit, give one. Raises SourceError when a block names no unit.
    """
    units: dict[str, Properties] = {}
    for block in output.stdout.strip().split("\n\n"):
        unit = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if not block.strip():
            continue
        if "Id" not in unit or "ActiveState" not in unit:
            raise SourceError(
                say(
                    f"看不懂 systemctl show 的回答：{block[:60]!r}",
                    f"cannot make sense of systemctl show: {block[:60]!r}",
                )
            )
        units[unit["Id"]] = unit
    return [units[name] for name in sorted(units)]


def _is_watched(unit: Properties) -> bool:
    return unit.get("UnitFileState", "").startswith("enabled") and unit.get("Type") != "oneshot"
