"""Whether this machine's connections to other zones pass a registered boundary device, or go around it.

Measures: zone_flow.flows_count (TCP connections that stand now, between this machine's zone and another, by who opened them) and
controlled_flows_count (those whose route leaves through one of `boundaries`), of every pair of zones that has this one.
Needs: /proc; the addresses of the zones and of the boundary devices on this machine's own links.
Reference: proc(5); RFC 1812 (5.2.4.3) for the choice of the longest prefix.

A gateway cannot see what goes around it; the machines at both ends can. A second network card, a private line or a wrong route
shows as a connection whose next hop is no boundary. Connections shorter than a round, and UDP, are not seen.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from agent.catalogue import explain_id, is_id
from agent.language import say
from agent.sources import Reading, Seconds, SourceConfig, Surroundings
from agent.sources._kernel_files import read_attribute, read_kernel_file
from agent.sources._ways import read_address

PROC = "proc/thread-self/net"
ESTABLISHED, LISTENING = "01", "0A"
USABLE, BY_GATEWAY, REFUSING = 0x0001, 0x0002, 0x0200
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Network | ipaddress.IPv6Network


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """zone: where this machine stands. zones: the networks of each; the longest prefix wins, so outside may be 0.0.0.0/0.

    boundaries: addresses of the registered boundary devices (firewall, gap), as this machine's routes name them.
    """

    interval_seconds: Seconds = 60.0
    zone: str
    zones: Mapping[str, Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]]
    boundaries: tuple[str, ...]

    def __post_init__(self) -> None:
        for zone in (self.zone, *self.zones):
            if not is_id(zone):
                raise ValueError(explain_id("zone", zone))
        if self.zone not in self.zones:
            raise ValueError(say(f"zones 里没有 '{self.zone}'", f"'{self.zone}' is not among zones"))
        for text in chain.from_iterable(self.zones.values()):
            read_network(text)
        for text in self.boundaries:
            read_address(text)


def read_network(text: str) -> Net:
    """A network such as 10.1.0.0/16. Raises ValueError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            say(f"'{text}' 应写成 10.1.0.0/16", f"write a network as 10.1.0.0/16, not '{text}'")
        ) from error


class Route(NamedTuple):
    """gateway: None for what is on the link itself."""

    net: Net
    gateway: Address | None
    metric: int


class Connection(NamedTuple):
    """A TCP socket. state: as the kernel writes it."""

    port: int
    peer: Address
    state: str


class Source:
    """This machine's connections, once a round."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._folder = surroundings.root / PROC
        self._nets = [(read_network(text), zone) for zone, texts in config.zones.items() for text in texts]
        self._nets.sort(key=lambda one: -one[0].prefixlen)
        self._boundaries = {read_address(text) for text in config.boundaries}

    async def open(self) -> None:
        """Nothing to open."""

    def collect(self) -> list[Reading]:
        """A reading for each pair of zones, with 0 where nothing flows. Raises NoData without /proc."""
        own = self._config.zone
        counts = {pair: [0, 0] for zone in self._config.zones if zone != own for pair in ((own, zone), (zone, own))}
        connections = list(self._connections())
        served = {one.port for one in connections if one.state == LISTENING}
        routes = list(self._routes())
        for one in connections:
            zone = self._zone_of(one.peer) if one.state == ESTABLISHED else None
            if zone is None or zone == own:
                continue
            count = counts[(zone, own) if one.port in served else (own, zone)]
            count[0] += 1
            count[1] += next_hop(routes, one.peer) in self._boundaries
        return [
            Reading(
                "zone_flow",
                {"flows_count": flows, "controlled_flows_count": controlled},
                {"from_zone": a, "to_zone": b},
            )
            for (a, b), (flows, controlled) in counts.items()
        ]

    async def close(self) -> None:
        """Nothing to close."""

    def _zone_of(self, address: Address) -> str | None:
        if address.is_loopback:
            return None
        return next((zone for net, zone in self._nets if net.version == address.version and address in net), None)

    def _connections(self) -> Iterator[Connection]:
        texts = (read_kernel_file(self._folder / "tcp"), read_attribute(str(self._folder / "tcp6")) or "")
        for text in texts:
            for line in text.splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                yield Connection(int(local.rpartition(":")[2], 16), read_hex(remote.partition(":")[0]), state)

    def _routes(self) -> Iterator[Route]:
        yield from read_routes(read_kernel_file(self._folder / "route"))
        yield from read_routes6(read_attribute(str(self._folder / "ipv6_route")) or "")


def read_hex(word: str) -> Address:
    """An address as /proc/net/tcp has it: words of 32 bits in the order of this machine; a mapped one is its IPv4 self."""
    data = b"".join(bytes.fromhex(word[place : place + 8])[::-1] for place in range(0, len(word), 8))
    if len(data) == 4:
        return ipaddress.IPv4Address(data)
    address = ipaddress.IPv6Address(data)
    return address.ipv4_mapped or address


def read_routes(text: str) -> Iterator[Route]:
    """The routes of /proc/net/route."""
    for line in text.splitlines()[1:]:
        _, to, gateway, flags, _, _, metric, mask, *_ = line.split()
        bits = int(flags, 16)
        if bits & USABLE and not bits & REFUSING:
            net = ipaddress.IPv4Network(f"{read_hex(to)}/{read_hex(mask)}")
            yield Route(net, read_hex(gateway) if bits & BY_GATEWAY else None, int(metric))


def read_routes6(text: str) -> Iterator[Route]:
    """The routes of /proc/net/ipv6_route, whose addresses are in the order of the network."""
    for line in text.splitlines():
        to, length, _, _, gateway, metric, _, _, flags, interface = line.split()
        bits = int(flags, 16)
        if bits & USABLE and not bits & REFUSING and interface != "lo":
            net = ipaddress.IPv6Network((bytes.fromhex(to), int(length, 16)))
            hop = ipaddress.IPv6Address(bytes.fromhex(gateway)) if bits & BY_GATEWAY else None
            yield Route(net, hop, int(metric, 16))


def next_hop(routes: Iterable[Route], peer: Address) -> Address | None:
    """Through whom a packet to `peer` leaves: the longest prefix, then the least metric; None for nobody."""
    fitting = [one for one in routes if one.net.version == peer.version and peer in one.net]
    return min(fitting, key=lambda one: (-one.net.prefixlen, one.metric)).gateway if fitting else None
