"""Whether DRBD's mirrors are in step, how much is not, and who is primary.

Measures: replication[pair]: is_running, is_in_sync, lag_bytes (out of sync), serving_sides_count (primaries);
role_group[group, kind cluster]: is_master, masters_count, members_count; quorum[cluster]: has_quorum. The pair is the resource.
Needs: DRBD 9's drbdsetup, as root. Nothing is changed.
Reference: drbdsetup-status(8), its JSON.

In step means that both disks are UpToDate over an established connection; StandAlone is a mirror that goes apart.
"""

from typing import Annotated, ClassVar

import msgspec

from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Reading, SourceConfig, Surroundings

COMMAND_SHARE = 0.8
KIBIBYTE = 1024


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0


class Device(msgspec.Struct, frozen=True, rename="kebab"):
    """A volume here."""

    disk_state: str
    quorum: bool = True


class PeerDevice(msgspec.Struct, frozen=True):
    """A volume there. out_of_sync in KiB."""

    replication_state: str = msgspec.field(default="", name="replication-state")
    peer_disk_state: str = msgspec.field(default="", name="peer-disk-state")
    out_of_sync: float = msgspec.field(default=0.0, name="out-of-sync")


class Connection(msgspec.Struct, frozen=True):
    """The way to a peer."""

    state: str = msgspec.field(name="connection-state")
    peer_role: str = msgspec.field(default="", name="peer-role")
    volumes: tuple[PeerDevice, ...] = msgspec.field(default=(), name="peer_devices")

    @property
    def is_running(self) -> bool:
        """Whether data flows, also while it catches up."""
        return self.state == "Connected" and all(volume.replication_state != "Off" for volume in self.volumes)

    @property
    def is_in_step(self) -> bool:
        """Whether the peer has everything."""
        return self.is_running and all(
            (volume.replication_state, volume.peer_disk_state) == ("Established", "UpToDate") for volume in self.volumes
        )


class Resource(msgspec.Struct, frozen=True):
    """One mirror."""

    name: str
    role: str
    devices: tuple[Device, ...] = ()
    connections: tuple[Connection, ...] = ()


class Source:
    """The mirrors of the host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._command = surroundings.command
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without drbdsetup or resources, SourceError when it fails or says what is not understood."""
        output = await self._command(("drbdsetup", "status", "--json"), self._timeout_seconds)
        if output.status:
            why = (output.stderr.strip().splitlines() or [f"exit {output.status}"])[0][:200]
            raise SourceError(say(f"drbdsetup 失败：{why}；须为 root", f"drbdsetup fails: {why}; be root"))
        try:
            resources = msgspec.json.decode(output.stdout, type=tuple[Resource, ...])
        except msgspec.DecodeError as error:
            raise SourceError(
                say(f"看不懂 drbdsetup 的回答：{error}", f"cannot make sense of drbdsetup: {error}")
            ) from error
        if not resources:
            raise NoData(say("没有 DRBD 资源", "there is no DRBD resource"))
        return [reading for resource in resources for reading in _read_resource(resource)]

    async def close(self) -> None:
        """Nothing to close."""


def _read_resource(resource: Resource) -> list[Reading]:
    is_whole = bool(resource.devices) and all(device.disk_state == "UpToDate" for device in resource.devices)
    behind = [sum(volume.out_of_sync for volume in peer.volumes) for peer in resource.connections]
    roles = [resource.role, *(peer.peer_role for peer in resource.connections)]
    fields: dict[str, Value] = {
        "is_running": any(peer.is_running for peer in resource.connections),
        "is_in_sync": is_whole and any(peer.is_in_step for peer in resource.connections),
        "serving_sides_count": roles.count("Primary"),
    }
    if behind:
        fields["lag_bytes"] = min(behind) * KIBIBYTE
    group: dict[str, Value] = {
        "is_master": resource.role == "Primary",
        "masters_count": roles.count("Primary"),
        "members_count": len(roles),
    }
    quorum: dict[str, Value] = {"has_quorum": all(device.quorum for device in resource.devices)}
    return [
        Reading("replication", fields, {"pair": resource.name}),
        Reading("role_group", group, {"group": resource.name, "kind": "cluster"}),
        Reading("quorum", quorum, {"cluster": resource.name}),
    ]
