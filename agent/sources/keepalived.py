"""Which of keepalived's virtual addresses this host holds, whether somebody else holds them too, and whether keepalived runs.

Measures: role_group[group, kind vrrp]: is_master (all its addresses are here), priority_count, masters_count (hosts that answer
for its first address: 0 nobody, 2 split brain); role_change[group, kind]: became_master, when the role changed since the last
round; quorum[cluster]: is_manager_up.
Needs: reading keepalived.conf. masters_count: CAP_NET_RAW, else it is left out. Nothing is signalled, nothing is changed.
Reference: keepalived.conf(5); RFC 5227 section 2.1.1 (ARP probes, whose sender address is 0.0.0.0, so nobody learns from them).

keepalived that was killed leaves its addresses behind: this host still answers for them while the other one took over.
A neighbour without keepalived may watch too: `watched` names addresses to ask for.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec
import psutil

from agent.continuity.arp import NoRight, count_owners
from agent.errors import NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Value
from agent.sources import Reading, SourceConfig, Surroundings
from agent.sources._keepalived_conf import Instance, read_instances

Ipv4 = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")]
LISTEN_SECONDS = 0.3
"""How long answers to one ARP probe are waited for: a LAN's own time is below a millisecond."""


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """file: keepalived's configuration. watched: group -> address, on a host that is no member of it. arp: ask who answers."""

    file: str = "/etc/keepalived/keepalived.conf"
    watched: dict[str, Ipv4] = msgspec.field(default_factory=dict)
    arp: bool = True


class Source:
    """The VRRP groups of this host, or of its network."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._root = surroundings.root
        self._was_master: dict[str, bool] = {}

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without keepalived.conf and `watched`, SourceError when it cannot be read."""
        instances = self._read_instances()
        if not instances and not self._config.watched:
            raise NoData(say(f"没有 {self._config.file}", f"there is no {self._config.file}"))
        here = _addresses_here()
        asked = {instance.name: instance.addresses[0] for instance in instances} | self._config.watched
        masters = await self._count_masters(asked, here)
        readings = [reading for instance in instances for reading in self._read_role(instance, here, masters)]
        readings += [
            Reading("role_group", {"masters_count": masters[group]}, {"group": group, "kind": "vrrp"})
            for group in self._config.watched
            if group in masters
        ]
        if instances:
            is_up = any(process.info["name"] == "keepalived" for process in psutil.process_iter(["name"]))
            readings += [Reading("quorum", {"is_manager_up": is_up}, {"cluster": item.name}) for item in instances]
        return readings

    async def close(self) -> None:
        """Nothing to close."""

    def _read_instances(self) -> list[Instance]:
        path = self._root / self._config.file.lstrip("/")
        try:
            return read_instances(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SourceError(
                say(f"无法读取 {path}：{explain_system(error)}", f"cannot read {path}: {explain_system(error)}")
            ) from error

    def _read_role(self, instance: Instance, here: Mapping[str, str], masters: Mapping[str, int]) -> list[Reading]:
        is_master = all(address in here for address in instance.addresses)
        fields: dict[str, Value] = {"is_master": is_master, "priority_count": instance.priority}
        if instance.name in masters:
            fields["masters_count"] = masters[instance.name]
        tags = {"group": instance.name, "kind": "vrrp"}
        readings = [Reading("role_group", fields, tags)]
        if self._was_master.get(instance.name, is_master) != is_master:
            readings.append(Reading("role_change", {"became_master": is_master}, tags))
        self._was_master[instance.name] = is_master
        return readings

    async def _count_masters(self, asked: Mapping[str, str], here: Mapping[str, str]) -> dict[str, int]:
        """How many hosts answer for each group's address, this one included; empty without the right to ask."""
        if not self._config.arp:
            return {}
        try:
            counts = await asyncio.gather(
                *(asyncio.to_thread(count_owners, address, LISTEN_SECONDS) for address in asked.values())
            )
        except NoRight:
            return {}
        return {
            group: others + (address in here)
            for (group, address), others in zip(asked.items(), counts, strict=True)
            if others is not None
        }


def _addresses_here() -> dict[str, str]:
    """Every address of this host and its interface."""
    return {
        address.address.partition("%")[0]: interface
        for interface, addresses in psutil.net_if_addrs().items()
        for address in addresses
    }
