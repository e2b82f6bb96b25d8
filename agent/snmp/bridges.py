"""Layer 2: what spanning tree does (BRIDGE-MIB, RFC 4188), and whom a device sees by ARP (RFC 4293) and in its table of MAC addresses."""

import ipaddress
from collections.abc import Iterator, Mapping

from agent.points import Value as FieldValue
from agent.snmp.decode import TICKS_PER_SECOND, Value, read_mac, read_number
from agent.snmp.shapes import Look, Row
from agent.sources import Reading

MOST_NAMED = 256
"""So many stations of one table have a point of their own; of the others there is the count: a hospital has tens of thousands."""

BLOCKING, FORWARDING, BROKEN = 2, 5, 6
"""dot1dStpPortState; disabled is no part of the tree, listening and learning pass."""

LEARNED = 3
"""dot1dTpFdbStatus: seen on a port; the others are the device's own or written by hand."""

_ROUTERS_VIRTUAL = ("00:00:5e:00:01:", "00:00:5e:00:02:")
"""RFC 9568 7.3: addresses of VRRP are no station's."""


def shape_bridge(look: Look) -> Iterator[Reading]:
    """Changes of the tree since the round before, when the last one was, and who is its root."""
    for cells in look.seen.rows.values():
        fields = _tree(look, cells)
        own = _station(cells.get("own"))
        root = _root(cells.get("root"))
        if own:
            look.memory.learn(own, look.memory.host)
        if root:
            before = look.memory.masters.get((look.key, "root"), root)
            look.memory.masters[look.key, "root"] = root
            fields |= {"root": root, "root_changes_count": float(before != root)}
            fields |= {"is_root": root == own} if own else {}
        if fields:
            yield Reading("bridge", fields, {})


def _tree(look: Look, cells: Row) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {}
    changes, age, vlans = cells.get("changes"), cells.get("age"), cells.get("vlans")
    if isinstance(changes, int):
        grown = look.memory.counters.growth((look.key, "changes"), changes, look.at_seconds, bits=32)
        if grown is not None:
            fields["topology_changes_count"] = float(grown[0])
    if isinstance(age, int):
        fields["topology_age_seconds"] = age / TICKS_PER_SECOND
    if isinstance(vlans, int):
        fields["vlans_count"] = float(vlans)
    return fields


def _root(value: Value | None) -> str:
    """BridgeId: two octets of priority and an address; nothing where spanning tree is off."""
    return _station(value[2:]) if isinstance(value, bytes) and len(value) == 8 else ""


def shape_bridge_ports(look: Look) -> Iterator[Reading]:
    """How many ports forward, are held back, are broken."""
    states = [read_number(cells["state"]) for cells in look.seen.rows.values() if "state" in cells]
    if states and look.seen.is_whole:
        counted = {"forwarding": FORWARDING, "blocking": BLOCKING, "broken": BROKEN}
        yield Reading("bridge", {f"{name}_ports_count": float(states.count(one)) for name, one in counted.items()}, {})


def shape_arp(look: Look) -> Iterator[Reading]:
    """A `neighbour` for each station that the device spoke IP with; one at the address of a polled device is managed."""
    stations: dict[str, str] = {}
    for instance, cells in look.seen.rows.items():
        mac, host = _station(cells.get("physical", cells.get("media"))), _address(instance)
        if mac and host:
            stations[mac] = host
            look.memory.learn(mac, host)
    yield from _tell(look, "arp", stations)


def shape_fdb(look: Look) -> Iterator[Reading]:
    """A `neighbour` for each address that a port of the switch has heard."""
    stations: dict[str, str] = {}
    for instance, cells in look.seen.rows.items():
        mac = _station(bytes(int(number) & 0xFF for number in instance.split(".")[-6:]))
        if mac and LEARNED in (cells.get("status"), cells.get("old_status")):
            stations[mac] = look.memory.addresses.get(mac, "")
    yield from _tell(look, "fdb", stations)


def _tell(look: Look, seen_by: str, stations: Mapping[str, str]) -> Iterator[Reading]:
    """Once for each time that the table was read, which is seldom."""
    if look.memory.told.get(look.key) == look.seen.read_at_seconds:
        return
    look.memory.told[look.key] = look.seen.read_at_seconds
    managed = {mac for mac, host in stations.items() if look.memory.is_managed(mac, host)}
    named = sorted(stations, key=lambda mac: (mac in managed, mac))[:MOST_NAMED]
    for mac in named:
        fields: dict[str, FieldValue] = {"is_managed": mac in managed, "system_name": stations[mac] or mac}
        yield Reading("neighbour", fields, {"neighbour": mac})
    counts = {"neighbours_count": len(stations), "unmanaged_count": len(stations) - len(managed)}
    yield Reading(
        "neighbour_list",
        {**{name: float(count) for name, count in counts.items()}, "is_complete": len(named) == len(stations)},
        {"seen_by": seen_by},
    )


def _station(value: Value | None) -> str:
    """The address of one station; "" for groups, for nobody and for what is no address."""
    if not isinstance(value, bytes) or len(value) != 6 or value[0] & 1 or not any(value):
        return ""
    mac = read_mac(value)
    return "" if mac.startswith(_ROUTERS_VIRTUAL) else mac


def _address(instance: str) -> str:
    """The address in an index: of ipNetToMediaTable four numbers behind the interface, of ipNetToPhysicalTable kind, length, octets."""
    numbers = [int(number) & 0xFF for number in instance.split(".")[1:]]
    octets = numbers if len(numbers) == 4 else numbers[2 : 2 + numbers[1]] if len(numbers) > 2 else []
    return str(ipaddress.ip_address(bytes(octets))) if len(octets) in (4, 16) else ""
