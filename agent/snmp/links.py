"""Bundles of links (IEEE 802.3ad) and neighbours (LLDP, IEEE 802.1AB)."""

from collections.abc import Iterator

from agent.points import Value as FieldValue
from agent.snmp.decode import Value, read_mac, read_number, read_text
from agent.snmp.shapes import LOST, Look
from agent.sources import Reading

CARRYING = 0x1C
"""Of LacpState: synchronization, collecting and distributing; the first bit of BITS is the highest."""

MAC_SUBTYPES, ADDRESS_SUBTYPE = (4,), 5
"""LldpChassisIdSubtype: macAddress, networkAddress."""


def shape_bundles(look: Look) -> Iterator[Reading]:
    """A `redundant_group` for each aggregator with two ports or more; a port that left it is lost."""
    bundles: dict[str, dict[str, bool]] = {}
    for instance, cells in look.seen.rows.items():
        aggregator = read_number(cells["attached"]) if "attached" in cells else None
        selected = read_number(cells["selected"]) if "selected" in cells else None
        bundle = aggregator or selected
        if bundle:
            bundles.setdefault(f"{int(bundle)}", {})[instance] = _is_carrying(cells.get("actor_state"))
    present = {
        f"{bundle}/{port}": {"bundle": bundle, "port": port} for bundle, ports in bundles.items() for port in ports
    }
    for gone in look.memory.parts.lost(f"{look.key}/{LOST}", present, look.seen.is_whole):
        if all(gone["port"] not in ports for ports in bundles.values()):
            bundles.setdefault(gone["bundle"], {})[gone["port"]] = False
    names = {instance: read_text(name) for instance, name in look.seen.kept.get("name", {}).items()}
    for aggregated, ports in bundles.items():
        if len(ports) > 1:
            yield _bundle_reading(names.get(aggregated) or f"#{aggregated}", ports)


def _bundle_reading(name: str, ports: dict[str, bool]) -> Reading:
    healthy = sum(ports.values())
    fields: dict[str, FieldValue] = {
        "members_count": float(len(ports)),
        "healthy_count": float(healthy),
        "is_redundant": healthy > 1,
        "is_healthy": healthy == len(ports),
    }
    return Reading("redundant_group", fields, {"group": name, "kind": "lag"})


def _is_carrying(state: Value | None) -> bool:
    return isinstance(state, bytes) and bool(state) and state[0] & CARRYING == CARRYING


def shape_neighbours(look: Look) -> Iterator[Reading]:
    """A `neighbour` for each device that LLDP hears; managed are those that a gateway polls."""
    for cells in look.seen.rows.values():
        name = read_text(cells["system_name"]) if "system_name" in cells else ""
        chassis = _chassis(cells.get("chassis"), cells.get("chassis_kind"))
        who = chassis or name
        if who:
            fields: dict[str, FieldValue] = {
                "system_name": name or who,
                "is_managed": look.memory.is_managed(name, who),
            }
            yield Reading("neighbour", fields, {"neighbour": who})


def _chassis(value: Value | None, kind: Value | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes) and kind == ADDRESS_SUBTYPE and len(value) == 5 and value[0] == 1:
        return ".".join(map(str, value[1:]))
    return read_mac(value) if kind in MAC_SUBTYPES or kind is None else read_text(value)
