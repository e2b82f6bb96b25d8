"""The virtual machines of this host: running or not, started with the host or not, how large, and those that crashed or moved.

Measures: virtual_machine[vm]: is_running, is_autostart, vcpu_count, memory_bytes; vm_event[vm, kind]: is_success: crash (0: it
ended by a fault, 1: it runs again), migration (1: it arrived here).
Needs: virsh, and the right to read (`virsh -r`): root, or the group libvirt. Nothing is changed.
Reference: virsh(1) list, domstats; libvirt-domain.h, virDomainState and its reasons.

Events are seen as changes between rounds: a machine that left and came back within one is not told. Names that are no
plain text are left out of the data.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import msgspec

from agent.continuity.tokens import plain_name
from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Reading, SourceConfig, Surroundings

COMMAND_SHARE = 0.4
"""Of a round's deadline, for one of its two commands."""

RUNNING, SHUT_OFF, CRASHED = 1, 5, 6
RUNNING_MIGRATED = 2
SHUT_OFF_CRASHED, SHUT_OFF_FAILED = 3, 6
KIBIBYTE = 1024

LOCAL = "qemu:///system"
DAEMONS = ("usr/sbin/libvirtd", "usr/sbin/virtqemud")
"""Without either the local hypervisor is not there; virsh alone is a client of others."""


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """uri: the hypervisor, as virsh takes it."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0
    uri: Annotated[str, msgspec.Meta(pattern=r"^[a-z][!-~]*$")] = LOCAL


class Machine(msgspec.Struct, frozen=True):
    """What domstats says of one machine. state, reason: virDomainState and its reason."""

    state: int
    reason: int
    facts: Mapping[str, str]

    @property
    def has_crashed(self) -> bool:
        """Whether it ended by a fault."""
        return self.state == CRASHED or (self.state == SHUT_OFF and self.reason in (SHUT_OFF_CRASHED, SHUT_OFF_FAILED))


class Source:
    """The hypervisor of the host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._uri = config.uri
        self._root = surroundings.root
        self._command = surroundings.command
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE
        self._before: Mapping[str, Machine] | None = None

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without virsh or without libvirt's own daemon, SourceError when it is gone, hangs, or may not be asked."""
        if self._uri == LOCAL and not any((self._root / daemon).exists() for daemon in DAEMONS):
            raise NoData(say("本机没有安装 libvirt", "libvirt is not installed on this machine"))
        machines = _read_stats(await self._ask("domstats"))
        starting = set((await self._ask("list", "--all", "--autostart", "--name")).split())
        readings = [_read_machine(name, machine, name in starting) for name, machine in machines.items()]
        if self._before is not None:
            readings += _read_events(self._before, machines)
        self._before = machines
        return readings

    async def close(self) -> None:
        """Nothing to close."""

    async def _ask(self, *words: str) -> str:
        output = await self._command(("virsh", "-r", "-q", "-c", self._uri, *words), self._timeout_seconds)
        if output.status:
            lines = [line for line in output.stderr.splitlines() if line.startswith("error:")] or ["?"]
            why = lines[-1].removeprefix("error:").strip()[:200]
            raise SourceError(
                say(f"libvirt({self._uri})没有应答：{why}", f"libvirt ({self._uri}) does not answer: {why}")
            )
        return output.stdout


def _read_stats(text: str) -> dict[str, Machine]:
    """The machines of a `virsh domstats`: `Domain: 'name'`, then indented key=value lines."""
    machines: dict[str, Machine] = {}
    for block in text.split("Domain: ")[1:]:
        first, *lines = block.splitlines()
        facts = dict(line.strip().partition("=")[::2] for line in lines if "=" in line)
        name = plain_name(first.strip().strip("'"))
        if name and facts.get("state.state", "").isdecimal():
            reason = facts.get("state.reason", "")
            machines[name] = Machine(int(facts["state.state"]), int(reason) if reason.isdecimal() else 0, facts)
    return machines


def _read_machine(name: str, machine: Machine, is_autostart: bool) -> Reading:
    fields: dict[str, Value] = {"is_running": machine.state == RUNNING, "is_autostart": is_autostart}
    processors, memory = machine.facts.get("vcpu.current", ""), machine.facts.get("balloon.maximum", "")
    if processors.isdecimal():
        fields["vcpu_count"] = int(processors)
    if memory.isdecimal():
        fields["memory_bytes"] = int(memory) * KIBIBYTE
    return Reading("virtual_machine", fields, {"vm": name})


def _read_events(before: Mapping[str, Machine], now: Mapping[str, Machine]) -> Iterator[Reading]:
    for name, machine in now.items():
        earlier = before.get(name)
        was_crashed = earlier is not None and earlier.has_crashed
        if machine.has_crashed and not was_crashed:
            yield Reading("vm_event", {"is_success": False}, {"vm": name, "kind": "crash"})
        if machine.state == RUNNING and was_crashed:
            yield Reading("vm_event", {"is_success": True}, {"vm": name, "kind": "crash"})
        arrived = machine.state == RUNNING and machine.reason == RUNNING_MIGRATED
        if arrived and (earlier is None or (earlier.state, earlier.reason) != (RUNNING, RUNNING_MIGRATED)):
            yield Reading("vm_event", {"is_success": True}, {"vm": name, "kind": "migration"})
