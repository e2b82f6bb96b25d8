"""Sensors of ENTITY-SENSOR-MIB (RFC 3433): a value comes with its own unit, power of ten and precision."""

from collections.abc import Iterator

from agent.points import Value as FieldValue
from agent.snmp.decode import Value, read_number, read_text
from agent.snmp.shapes import Look, Row
from agent.sources import Reading

CELSIUS = 8
UNITS_SCALE = 9
"""EntitySensorDataScale: 9 is the unit itself, every step a thousand."""

_STATES = {1: True, 3: False}
"""ok and nonoperational; 2 is unavailable and says nothing."""
LOWEST, HIGHEST = -60.0, 250.0
"""What no sensor in a building reads is a value that means "not there"."""


def shape_sensors(look: Look) -> Iterator[Reading]:
    """A `sensor` for each row that has a value or a state; one that vanished is not healthy."""
    named: dict[str, dict[str, str]] = {}
    for instance, cells in look.seen.rows.items():
        if "value" not in cells and "status" not in cells:
            continue  # an entity that is no sensor: the names come from the whole inventory
        name = _name(instance, cells)
        name = f"{name} #{instance}" if name in named else name
        fields: dict[str, FieldValue] = {}
        state = _number(cells, "status")
        if state in _STATES:
            fields["is_healthy"] = _STATES[int(state)]
        degrees = _celsius(cells)
        if degrees is not None and state == 1:
            fields["value_celsius"] = degrees
        if fields:
            named[name] = {"sensor": name}
            yield Reading("sensor", fields, {"sensor": name})
    for tags in look.memory.parts.lost(look.key, named, look.seen.is_whole):
        yield Reading("sensor", {"is_healthy": False}, tags)


def _name(instance: str, cells: Row) -> str:
    for column in ("name", "description"):
        if column in cells and (text := read_text(cells[column])):
            return text
    return f"#{instance}"


def _number(cells: Row, column: str) -> float:
    value: Value | None = cells.get(column)
    found = None if value is None else read_number(value)
    return -1.0 if found is None else found


def _celsius(cells: Row) -> float | None:
    if _number(cells, "type") != CELSIUS or "value" not in cells:
        return None
    power = 3 * (_number(cells, "scale") - UNITS_SCALE) - _number(cells, "precision")
    degrees = _number(cells, "value") * 10.0**power
    return degrees if LOWEST <= degrees <= HIGHEST else None
