"""Interfaces from IF-MIB and EtherLike-MIB: rates of 64-bit counters, or of 32-bit ones where they can be trusted.

RFC 2863: ifSpeed ends at 4.3 Gb/s, ifHighSpeed goes on in Mb/s; a discontinuity time that moved says that the counters began anew.
"""

from collections.abc import Iterator

from agent.points import Value as FieldValue
from agent.snmp.decode import read_number, read_text
from agent.snmp.shapes import Look, Row
from agent.sources import Reading

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
_PACKETS = ("in_unicast", "out_unicast", "in_unicast_32", "out_unicast_32")


def shape_interfaces(look: Look) -> Iterator[Reading]:
    """A `net_interface` for each row; one that vanished is down."""
    named: dict[str, dict[str, str]] = {}
    columns, bits = _counters(look)
    for instance, cells in look.seen.rows.items():
        name = _name(instance, cells)
        if cells.get("type") in IGNORED_TYPES:
            continue
        if name in named:
            name = f"{name} #{instance}"
        speed = _speed(cells)
        fields = _states(cells, speed)
        fields |= _rates(look, instance, cells, speed, columns, bits)
        if fields:
            named[name] = tags = look.memory.parts.tags_of(look.key, name) or {"interface": name}
            yield Reading("net_interface", fields, tags)
    for tags in look.memory.parts.lost(look.key, named, look.seen.is_whole):
        yield Reading("net_interface", {"is_up": False}, tags)


def _name(instance: str, cells: Row) -> str:
    for column in ("name", "description"):
        if column in cells and (text := read_text(cells[column])):
            return text
    return f"#{instance}"


_STATES = (
    ("is_up", "oper_status", _OPER),
    ("is_admin_up", "admin_status", _ADMIN),
    ("is_full_duplex", "duplex", _DUPLEX),
)


def _states(cells: Row, speed: float | None) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {}
    for field, column, states in _STATES:
        state = states.get(cells.get(column))  # type: ignore[arg-type]  # what is no number is in no map
        if state is not None:
            fields[field] = state
    if speed:
        fields["speed_bits_per_second"] = speed
    if (raw := cells.get("alias")) and (alias := read_text(raw)):
        fields["alias"] = alias
    return fields


def _speed(cells: Row) -> float | None:
    """The negotiated speed; None where the device gives none, as for tunnels."""
    high = read_number(cells["high_speed"]) if "high_speed" in cells else None
    if high:
        return high * 1e6
    low = read_number(cells["speed"]) if "speed" in cells else None
    return low or None


_BITS = {"counter32": 32, "counter64": 64}


def _counters(look: Look) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The columns of the table that count, the discontinuity first, and the width of each."""
    columns = look.seen.table.columns
    counting = [(name, bits) for name, column in columns.items() if (bits := _BITS.get(column.kind))]
    return ("discontinuity", *(name for name, _ in counting)), (64, *(bits for _, bits in counting))


def _rates(
    look: Look, instance: str, cells: Row, speed: float | None, columns: tuple[str, ...], bits: tuple[int, ...]
) -> dict[str, FieldValue]:
    """What the counters tell; nothing after a discontinuity of this one interface."""
    get = cells.get
    counts = tuple(value if isinstance(value := get(column), int) else None for column in columns)
    grown = look.memory.counters.row_growth((look.key, instance), counts, look.at_seconds, bits)
    if grown is None or grown[0][0]:
        return {}
    growth, seconds = dict(zip(columns, grown[0], strict=True)), grown[1]
    fields: dict[str, FieldValue] = {}
    into = _bit_rate(growth, "in_octets", "in_octets_32", seconds, speed)
    out = _bit_rate(growth, "out_octets", "out_octets_32", seconds, speed)
    if into is not None:
        fields["in_bits_per_second"] = into
    if out is not None:
        fields["out_bits_per_second"] = out
    if speed and into is not None and out is not None:
        fields["busy_ratio"] = min(1.0, max(into, out) / speed)
    packets = [count for column in _PACKETS if (count := growth.get(column)) is not None]
    if packets:
        good = sum(packets)
        for field, pair in (("error_ratio", _ERRORS), ("discard_ratio", _DISCARDS)):
            bad = [count for column in pair if (count := growth.get(column)) is not None]
            if bad:
                lost = sum(bad)
                fields[field] = lost / (lost + good) if lost else 0.0
    return fields


def _bit_rate(
    growth: dict[str, int | None], wide: str, narrow: str, seconds: float, speed: float | None
) -> float | None:
    """Bits per second one way. A 32-bit counter that may wrap more than once in a round tells nothing."""
    octets = growth.get(wide)
    if octets is None:
        octets = growth.get(narrow)
        if octets is None or speed is None or speed * seconds / 8 >= 2**32:
            return None
    rate = 8 * octets / seconds
    return None if speed and rate > SLACK * speed else rate
