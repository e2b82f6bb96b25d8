"""Interfaces from IF-MIB and EtherLike-MIB: rates of 64-bit counters, or of 32-bit ones where they can be trusted.

RFC 2863: ifSpeed ends at 4.3 Gb/s, ifHighSpeed goes on in Mb/s; a discontinuity time that moved says that the counters began anew.
"""

from collections.abc import Iterator

from agent.points import Value as FieldValue
from agent.snmp.decode import read_number, read_text
from agent.snmp.shapes import Look, Row
from agent.sources import Reading

UP, DOWN = 1, 2
_OPER = {1: True, 2: False, 3: False, 5: False, 6: False, 7: False}
"""up; down, testing, dormant, notPresent, lowerLayerDown carry nothing; 4 is unknown and says nothing."""
_ADMIN = {1: True, 2: False, 3: False}
_DUPLEX = {2: False, 3: True}

IGNORED_TYPES = frozenset({24})
"""softwareLoopback: no link that could fail."""

SLACK = 1.05
"""A rate so far above the speed is still a matter of clocks; beyond it the counter was cleared or has wrapped twice."""

_ERRORS = ("in_errors", "out_errors")
_DISCARDS = ("in_discards", "out_discards")
_PACKETS = tuple(f"{way}_{cast}" for way in ("in", "out") for cast in ("unicast", "multicast", "broadcast"))


def shape_interfaces(look: Look) -> Iterator[Reading]:
    """A `net_interface` for each row; one that vanished is down."""
    named: dict[str, dict[str, str]] = {}
    for instance, cells in look.seen.rows.items():
        name = _name(instance, cells)
        if _int(cells, "type") in IGNORED_TYPES:
            continue
        if name in named:
            name = f"{name} #{instance}"
        fields = _states(cells)
        fields |= _rates(look, instance, cells)
        if fields:
            named[name] = {"interface": name}
            yield Reading("net_interface", fields, {"interface": name})
    for tags in look.memory.parts.lost(look.key, named, look.seen.is_whole):
        yield Reading("net_interface", {"is_up": False}, tags)


def _name(instance: str, cells: Row) -> str:
    for column in ("name", "description"):
        if column in cells and (text := read_text(cells[column])):
            return text
    return f"#{instance}"


def _int(cells: Row, column: str) -> int | None:
    value = cells.get(column)
    return value if isinstance(value, int) else None


def _states(cells: Row) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {}
    for field, column, states in (
        ("is_up", "oper_status", _OPER),
        ("is_admin_up", "admin_status", _ADMIN),
        ("is_full_duplex", "duplex", _DUPLEX),
    ):
        raw = _int(cells, column)
        if raw in states:
            fields[field] = states[raw]
    if speed := _speed(cells):
        fields["speed_bits_per_second"] = speed
    if "alias" in cells and (alias := read_text(cells["alias"])):
        fields["alias"] = alias
    return fields


def _speed(cells: Row) -> float | None:
    """The negotiated speed; None where the device gives none, as for tunnels."""
    high = read_number(cells["high_speed"]) if "high_speed" in cells else None
    if high:
        return high * 1e6
    low = read_number(cells["speed"]) if "speed" in cells else None
    return low or None


def _rates(look: Look, instance: str, cells: Row) -> dict[str, FieldValue]:
    """What the counters tell; nothing after a discontinuity of this one interface."""
    began = look.memory.counters.growth(
        (look.key, "discontinuity", instance), _int(cells, "discontinuity") or 0, look.at_seconds
    )
    grown = {
        column: look.memory.counters.growth((look.key, column, instance), count, look.at_seconds, bits)
        for column in look.seen.table.columns
        if (bits := _BITS.get(look.seen.table.columns[column].kind)) and (count := _int(cells, column)) is not None
    }
    if began is None or began[0]:
        return {}
    speed = _speed(cells)
    fields: dict[str, FieldValue] = {}
    rates = [_octet_rate(grown, way, speed) for way in ("in", "out")]
    for field, rate in zip(("in_bits_per_second", "out_bits_per_second"), rates, strict=True):
        if rate is not None:
            fields[field] = rate
    if speed and None not in rates:
        fields["busy_ratio"] = min(1.0, max(rate for rate in rates if rate is not None) / speed)
    for field, columns in (("error_ratio", _ERRORS), ("discard_ratio", _DISCARDS)):
        ratio = _share(grown, columns)
        if ratio is not None:
            fields[field] = ratio
    return fields


_BITS = {"counter32": 32, "counter64": 64}
Grown = dict[str, tuple[int, float] | None]


def _octet_rate(grown: Grown, way: str, speed: float | None) -> float | None:
    """Bits per second one way. A 32-bit counter that may wrap more than once in a round tells nothing."""
    wide, narrow = grown.get(f"{way}_octets"), grown.get(f"{way}_octets_32")
    if wide is None and narrow is not None and (speed is None or speed * narrow[1] / 8 >= 2**32):
        return None
    octets = wide or narrow
    if octets is None:
        return None
    rate = 8 * octets[0] / octets[1]
    return None if speed and rate > SLACK * speed else rate


def _share(grown: Grown, columns: tuple[str, ...]) -> float | None:
    """The bad ones among all packets of the round; 0 where none passed and none was bad."""
    bad = [grown[column] for column in columns if grown.get(column)]
    good = [grown[column] for column in _PACKETS if grown.get(column)]
    if not bad or not good:
        return None
    lost = sum(pair[0] for pair in bad if pair)
    total = lost + sum(pair[0] for pair in good if pair)
    return lost / total if total else 0.0
