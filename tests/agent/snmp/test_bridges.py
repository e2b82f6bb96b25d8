"""Spanning tree and the stations that a switch sees, from walks that are put together here."""

from replayed import find, replayed

from agent.snmp import ber
from agent.snmp.bridges import MOST_NAMED
from agent.sources import Reading

CHANGES, ROOT = "1.3.6.1.2.1.17.2.4.0", "1.3.6.1.2.1.17.2.5.0"
FDB = "1.3.6.1.2.1.17.7.1.2.2.1.3"


def root(last: int) -> bytes:
    return bytes((0x80, 0, 0, 0x1A, 0xFF, 0, 0, last))


async def test_changes_of_the_tree_are_counted_from_round_to_round() -> None:
    async with replayed("built_bridge") as bench:
        assert "topology_changes_count" not in await bench.fields("bridge")
        bench.replayed.put(CHANGES, ber.COUNTER32, 20)
        assert (await bench.fields("bridge"))["topology_changes_count"] == 3.0
        assert (await bench.fields("bridge"))["topology_changes_count"] == 0.0


async def test_another_root_is_told_once_and_the_device_itself_may_be_it() -> None:
    async with replayed("built_bridge") as bench:
        assert (await bench.fields("bridge"))["root_changes_count"] == 0.0
        bench.replayed.put(ROOT, ber.OCTETS, root(9))
        fields = await bench.fields("bridge")
        assert (fields["root_changes_count"], fields["is_root"], fields["root"]) == (1.0, True, "00:1a:ff:00:00:09")
        assert (await bench.fields("bridge"))["root_changes_count"] == 0.0


async def test_a_bridge_without_spanning_tree_has_no_root() -> None:
    async with replayed("built_bridge") as bench:
        bench.replayed.put(ROOT, ber.OCTETS, bytes(8))
        assert not {"root", "is_root"} & (await bench.fields("bridge")).keys()


async def test_a_station_at_the_address_of_a_polled_device_is_managed_wherever_its_mac_is_seen() -> None:
    """The router knows its address, the switch only hears its MAC: what one learnt the other knows."""
    managed, addresses = frozenset({"192.0.2.8", "2001:db8::a"}), dict[str, str]()
    async with replayed("built_stations") as router, replayed("built_stations_old") as switch:
        for bench in (router, switch):
            bench.device.memory.managed, bench.device.memory.addresses = managed, addresses
        switch.replayed.put("1.3.6.1.2.1.17.4.3.1.3.0.26.255.0.0.8", ber.INTEGER, 3)
        told = await router.round()
        assert find(told, "neighbour", neighbour="00:1a:ff:00:00:08")["is_managed"] is True
        assert find(told, "neighbour", neighbour="00:1a:ff:00:00:0a")["is_managed"] is True
        assert find(told, "neighbour", neighbour="00:1a:ff:00:00:07")["is_managed"] is False
        heard = find(await switch.round(), "neighbour", neighbour="00:1a:ff:00:00:08")
        assert heard == {"is_managed": True, "system_name": "192.0.2.8"}


async def test_of_many_stations_some_are_named_and_all_are_counted() -> None:
    async with replayed("built_stations") as bench:
        for number in range(3000):
            bench.replayed.put(f"{FDB}.7.0.26.255.1.{number >> 8}.{number & 255}", ber.INTEGER, 3)
        told = await bench.round()
        assert find(told, "neighbour_list", seen_by="fdb") == {
            "neighbours_count": 3002.0,
            "unmanaged_count": 3002.0,
            "is_complete": False,
        }
        assert len(stations(told)) <= MOST_NAMED + 3
        assert find(told, "neighbour_list", seen_by="arp")["is_complete"] is True


async def test_stations_are_told_when_they_are_read_which_is_seldom() -> None:
    async with replayed("built_stations") as bench:
        rounds = [len(stations(await bench.round())) for _ in range(61)]
    assert [number for number, count in enumerate(rounds) if count] == [0, 30, 60]


def stations(readings: list[Reading]) -> list[Reading]:
    return [one for one in readings if one.name == "neighbour"]


async def test_groups_and_virtual_routers_are_no_stations() -> None:
    async with replayed("built_stations") as bench:
        told = {one.tags["neighbour"] for one in stations(await bench.round())}
    assert not told & {"00:00:5e:00:01:01", "01:00:5e:00:00:01", "00:1a:ff:00:00:0c"}
