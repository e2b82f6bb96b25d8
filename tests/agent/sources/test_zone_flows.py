"""zone_flows in namespaces: connections through the boundary, and around it by a second card or a wrong route."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from declared import undeclared
from namespaces import Network
from servers import until_async

from agent.errors import NoData
from agent.language import speaking
from agent.sources import Surroundings
from agent.sources.zone_flows import Config, Source, next_hop, read_hex, read_routes, read_routes6

ZONES = {
    "office": ("10.8.1.0/24", "fd00:8:1::/64"),
    "medical": ("10.8.2.0/24", "10.8.3.0/24", "fd00:8:2::/64"),
    "outside": ("0.0.0.0/0", "::/0"),
}
CONFIG = Config(zone="office", zones=ZONES, boundaries=("10.8.1.1", "fd00:8:1::1"))
Counts = Mapping[tuple[str, str], tuple[object, object]]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """A workstation behind a firewall, a server in another zone, and a cable between the two that nobody registered."""
    with Network("flows") as network:
        network.add("desk", "gate", "server")
        network.cable("gate", "in", "desk", "eth0")
        network.cable("gate", "out", "server", "eth0")
        network.cable("desk", "eth1", "server", "eth1")
        network["gate"].run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        network["gate"].ip(
            "addr add 10.8.1.1/24 dev in\naddr add 10.8.2.1/24 dev out\n"
            "addr add fd00:8:1::1/64 dev in nodad\naddr add fd00:8:2::1/64 dev out nodad"
        )
        for name, number, other in (("desk", 1, "2"), ("server", 2, "10")):
            network[name].ip(
                f"addr add 10.8.{number}.10/24 dev eth0\nroute add default via 10.8.{number}.1\n"
                f"addr add fd00:8:{number}::10/64 dev eth0 nodad\nroute add default via fd00:8:{number}::1\n"
                f"addr add 10.8.3.{other}/24 dev eth1"
            )
        yield network


@contextmanager
def connected(net: Network, client: str, server: str, *addresses: str) -> Iterator[None]:
    """A connection to each address, all to one port of a real server, that stand meanwhile."""

    accepted: list[asyncio.StreamWriter] = []

    async def serve() -> asyncio.Server:
        return await asyncio.start_server(lambda _, writer: accepted.append(writer), None, 5000)

    async def hang_up() -> None:
        listening.close()
        for writer in accepted:
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next turn

    async def connect(address: str) -> asyncio.StreamWriter:
        return (await asyncio.open_connection(address, 5000))[1]

    listening = net[server].do(serve())
    writers = [net[client].do(connect(address)) for address in addresses]
    try:
        net[server].do(until_async(lambda: len(accepted) == len(writers)))
        yield
    finally:
        for writer in writers:
            net[client].call(writer.transport.abort)
        net[server].do(hang_up())


def look(net: Network, config: Config = CONFIG) -> Counts:
    readings = net["desk"].call(Source(config, Surroundings("desk-1")).collect)
    assert undeclared("zone_flows", readings) == []
    return {
        (one.tags["from_zone"], one.tags["to_zone"]): (
            one.fields["flows_count"],
            one.fields["controlled_flows_count"],
        )
        for one in readings
    }


def test_nothing_flows_and_every_pair_says_so(net: Network) -> None:
    pairs = [("office", "medical"), ("medical", "office"), ("office", "outside"), ("outside", "office")]
    assert look(net) == dict.fromkeys(pairs, (0, 0))


def test_flows_through_the_boundary_are_controlled_and_one_around_it_is_not(net: Network) -> None:
    with connected(net, "desk", "server", "10.8.2.10", "fd00:8:2::10"):
        assert look(net)["office", "medical"] == (2, 2)
    with connected(net, "desk", "server", "10.8.2.10", "10.8.3.10"):
        assert look(net)["office", "medical"] == (2, 1)


def test_who_opened_the_connection_gives_the_direction(net: Network) -> None:
    with connected(net, "server", "desk", "10.8.1.10", "10.8.3.2"):
        found = look(net)
    assert (found["medical", "office"], found["office", "medical"]) == ((2, 1), (0, 0))


def test_wrong_route_goes_around_the_boundary(net: Network) -> None:
    net["desk"].ip("route add 10.8.2.0/24 via 10.8.3.10")
    try:
        with connected(net, "desk", "server", "10.8.2.10"):
            assert look(net)["office", "medical"] == (1, 0)
    finally:
        net["desk"].ip("route del 10.8.2.0/24")


def test_connections_within_the_zone_are_no_flows_between_zones(net: Network) -> None:
    wide = {"office": ("10.8.0.0/16", "fd00:8::/32"), "outside": ("0.0.0.0/0",)}
    with connected(net, "desk", "server", "10.8.2.10", "fd00:8:2::10"):
        found = look(net, Config(zone="office", zones=wide, boundaries=("10.8.1.1",)))
    assert set(found.values()) == {(0, 0)}


def test_longest_prefix_then_least_metric_decides() -> None:
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    routes = list(
        read_routes(
            head + "eth0 00000000 0101080A 0003 0 0 100 00000000 0 0 0\n"
            "eth1 00000000 0901080A 0003 0 0 50 00000000 0 0 0\n"
            "eth0 0002080A 0201080A 0003 0 0 0 00FFFFFF 0 0 0\n"
            "* 0004080A 00000000 0200 0 0 0 00FFFFFF 0 0 0\n"
        )
    )
    routes += read_routes6(f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}1 00000400 1 0 00000003 eth0\n")
    hops = [str(next_hop(routes, read_hex(word))) for word in ("0A02080A", "0A09080A", "00000120" + "0" * 24)]
    assert hops == ["10.8.1.2", "10.8.1.9", "fe80::1"]


def test_machine_without_proc_has_nothing_to_say(tmp_path: Path) -> None:
    with pytest.raises(NoData):
        Source(CONFIG, Surroundings("desk-1", root=tmp_path)).collect()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"zone": "ward"}, "'ward' is not among zones"),
        ({"zones": {"office": ("10.8.1.1/24",)}}, "write a network as"),
        ({"boundaries": ("fw.hospital",)}, "must be an IP address"),
        ({"zone": "Office 1"}, "cannot be a name"),
    ],
)
def test_mistakes_are_named(wrong: Mapping[str, object], said: str) -> None:
    right = {"zone": "office", "zones": ZONES, "boundaries": ("10.8.1.1",)}
    with speaking("en"), pytest.raises(ValueError, match=said):
        Config(**{**right, **wrong})  # type: ignore[arg-type]
