"""Interfaces from IF-MIB and EtherLike-MIB: rates of 64-bit counters, or of 32-bit ones where they can be trusted.

RFC 2863: ifSpeed ends at 4.3 Gb/s, ifHighSpeed goes on in Mb/s; a discontinuity time that moved says that the counters began anew.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

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

_BAD = (("error_ratio", ("in_errors", "out_errors")), ("discard_ratio", ("in_discards", "out_discards")))
_PACKETS = ("in_unicast", "out_unicast", "in_unicast_32", "out_unicast_32")


def shape_interfaces(look: Look) -> Iterator[Reading]:
    """A `net_interface` for each row; one that vanished is down."""
    named: dict[str, dict[str, str]] = {}
    counting = _count_columns(look)
    for instance, cells in look.seen.rows.items():
        name = _name(instance, cells)
        if cells.get("type") in IGNORED_TYPES:
            continue
        if name in named:
            name = f"{name} #{instance}"
        speed = _speed(cells)
        fields = _states(cells, speed)
        _add_rates(look, instance, cells, speed, counting, fields)
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


def _count_columns(look: Look) -> "_Counting":
    """The columns that count, of those of which the device gave anything."""
    given = frozenset[str]().union(*look.seen.rows.values())
    columns = look.seen.table.columns
    return _Counting.of(tuple((name, column.kind) for name, column in columns.items() if name in given))


class _Counting(NamedTuple):
    """The columns of the table that count, the discontinuity first; the width of each, and which places hold what."""

    columns: tuple[str, ...]
    bits: tuple[int, ...]
    pick: Callable[[Row], tuple[Any, ...]] | None
    """Takes all of them from a row that has them."""
    octets: tuple[tuple[int | None, int | None], ...]
    """In and out: the place of the wide counter and of the narrow one."""
    packets: tuple[int, ...]
    bad: tuple[tuple[str, tuple[int, ...]], ...]

    @staticmethod
    @functools.cache
    def of(kinds: tuple[tuple[str, str], ...]) -> "_Counting":
        """For a table with these columns and kinds."""
        counting = [(name, bits) for name, kind in kinds if (bits := _BITS.get(kind))]
        columns = ("discontinuity", *(name for name, _ in counting))
        place = {name: number for number, name in enumerate(columns)}
        return _Counting(
            columns,
            (64, *(bits for _, bits in counting)),
            operator.itemgetter(*columns) if counting else None,
            tuple((place.get(f"{way}_octets"), place.get(f"{way}_octets_32")) for way in ("in", "out")),
            tuple(place[name] for name in _PACKETS if name in place),
            tuple((field, tuple(place[name] for name in names if name in place)) for field, names in _BAD),
        )


def _add_rates(
    look: Look,
    instance: str,
    cells: Row,
    speed: float | None,
    counting: _Counting,
    fields: dict[str, FieldValue],
) -> None:
    """What the counters tell; nothing after a discontinuity of this one interface."""
    counts = _read_counts(cells, counting)
    grown = look.memory.counters.row_growth((look.key, instance), counts, look.at_seconds, counting.bits)
    if grown is None or grown[0][0]:
        return
    growth, seconds = grown
    into, out = [_bit_rate(growth, wide, narrow, seconds, speed) for wide, narrow in counting.octets]
    if into is not None:
        fields["in_bits_per_second"] = into
    if out is not None:
        fields["out_bits_per_second"] = out
    if speed and into is not None and out is not None:
        fields["busy_ratio"] = min(1.0, max(into, out) / speed)
    packets = [count for place in counting.packets if (count := growth[place]) is not None]
    if packets:
        good = sum(packets)
        for field, places in counting.bad:
            bad = [count for place in places if (count := growth[place]) is not None]
            if bad:
                lost = sum(bad)
                fields[field] = lost / (lost + good) if lost else 0.0


def _read_counts(cells: Row, counting: _Counting) -> tuple[int | None, ...]:
    """What the row's counters say; nearly always there are all of them, and all are numbers."""
    try:
        counts: tuple[int | None, ...] = counting.pick(cells) if counting.pick else ()
        if set(map(type, counts)) == {int}:
            return counts
    except KeyError:
        pass
    return tuple([value if isinstance(value := cells.get(column), int) else None for column in counting.columns])


def _bit_rate(
    growth: Sequence[int | None], wide: int | None, narrow: int | None, seconds: float, speed: float | None
) -> float | None:
    """Bits per second one way. A 32-bit counter that may wrap more than once in a round tells nothing."""
    octets = None if wide is None else growth[wide]
    if octets is None:
        octets = None if narrow is None else growth[narrow]
        if octets is None or speed is None or speed * seconds / 8 >= 2**32:
            return None
    rate = 8 * octets / seconds
    return None if speed and rate > SLACK * speed else rate
