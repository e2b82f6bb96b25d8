"""From rows to readings: the plain shapes that a profile spells out itself, and what they remember from round to round."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.points import Value as FieldValue
from agent.snmp.decode import Counters, Value, read_mac, read_number, read_text
from agent.snmp.parts import Parts
from agent.snmp.profile import Group, Raw, Roles, Rows, Rule, Table
from agent.sources import Reading

LOST = "lost"
"""A member that was there and is no longer listed."""

MOST_ADDRESSES = 100_000
"""So many stations' addresses are kept in mind for all targets of a section together."""

Row = Mapping[str, Value]
"""The cells of one row by the profile's names of columns."""


@dataclass(slots=True)
class Seen:
    """One table as it was read. is_whole: no row can be missing from it.

    kept: columns that change rarely with all their rows, also those of other things: names of interfaces, of entities.
    read_at_seconds: when the last of these was read.
    """

    table: Table
    rows: Mapping[str, Row]
    is_whole: bool
    kept: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    read_at_seconds: float = 0.0


@dataclass(slots=True)
class Memory:
    """What a device's shapes keep between rounds. managed: system names, in small letters, and addresses of the devices that are polled.

    addresses: MAC address -> IP address as ARP told any target of the section. host: the device's own address.
    """

    managed: frozenset[str] = frozenset()
    host: str = ""
    addresses: dict[str, str] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    parts: Parts = field(default_factory=Parts)
    masters: dict[tuple[str, str], str] = field(default_factory=dict)

    def learn(self, mac: str, host: str) -> None:
        """Keep in mind which IP address a MAC address has."""
        if mac in self.addresses or len(self.addresses) < MOST_ADDRESSES:
            self.addresses[mac] = host

    def is_managed(self, *names: str) -> bool:
        """Whether a neighbour is polled, by its own name or by any address of it."""
        plain = {plain_name(name) for name in (*names, *(self.addresses.get(name, "") for name in names)) if name}
        return not self.managed.isdisjoint(plain)


@dataclass(frozen=True, slots=True)
class Look:
    """One round's look at one table. key: of the table, unique in the device. at_seconds: monotonic, when it was read."""

    seen: Seen
    memory: Memory
    key: str
    at_seconds: float


def plain_name(name: str) -> str:
    """A name as neighbours are compared: small letters, without its domain; an address stays whole."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().partition(".")[0]


def shape_rows(look: Look, rows: Rows, number: int) -> Iterator[Reading]:
    """Readings of all rows; and of those that were there before and have vanished."""
    found: dict[str, Reading] = {}
    taken: set[tuple[str, ...]] = set()
    is_one = rows.mean or rows.most
    for instance, cells in look.seen.rows.items():
        if not is_wanted(instance, cells, rows.where):
            continue
        tags = {tag: fill(template, instance, cells) for tag, template in rows.tags.items()}
        if rows.is_newest:
            found = {key: one for key, one in found.items() if one.tags != tags}
        elif tags and not is_one and tuple(tags.values()) in taken:  # two things of one name are still two things
            last = next(tag for tag, template in rows.tags.items() if "{" in template or len(rows.tags) == 1)
            tags[last] = f"{tags[last]} #{instance}"
        taken.add(tuple(tags.values()))
        fields = {
            name: value
            for name, rule in rows.fields.items()
            if (value := _compute(look, rule, instance, cells, name)) is not None
        }
        if fields and all(tags.values()) and not (rows.is_whole and len(fields) < len(rows.fields)):
            found[instance] = Reading(rows.signal, fields, tags)
    if is_one:
        yield from _as_one(found, rows)
        return
    yield from found.values()
    if rows.lost:
        key = f"{look.key}/{rows.signal}/{number}"
        tags_found = {instance: dict(reading.tags) for instance, reading in found.items()}
        for lost in look.memory.parts.lost(key, tags_found, look.seen.is_whole):
            yield Reading(rows.signal, dict(rows.lost), lost)


def _as_one(found: Mapping[str, Reading], rows: Rows) -> Iterator[Reading]:
    fields: dict[str, FieldValue] = {}
    for name in rows.fields:
        values = [value for reading in found.values() if isinstance(value := reading.fields.get(name), float)]
        if values:
            fields[name] = max(values) if rows.most else sum(values) / len(values)
    if fields:
        yield Reading(rows.signal, fields, dict(rows.tags))


def shape_group(look: Look, group: Group, number: int) -> Iterator[Reading]:
    """One `redundant_group` for each name that the template gives. A member whose state is unknown is never called healthy."""
    members: dict[str, dict[str, str]] = {}
    for instance, cells in look.seen.rows.items():
        state = _raw(cells.get(group.state))
        if state is None or not is_wanted(instance, cells, group.where):
            continue
        name = fill(group.group, instance, cells)
        members.setdefault(name, {})[instance] = _judge(state, group)
    present = {
        f"{name}/{instance}": {"group": name, "member": instance}
        for name, states in members.items()
        for instance, state in states.items()
        if state != "absent"
    }
    for gone in look.memory.parts.lost(f"{look.key}/{group.kind}/{number}", present, look.seen.is_whole):
        members.setdefault(gone["group"], {})[gone["member"]] = LOST
    for name, states in members.items():
        held = [state for state in states.values() if state != "absent"]
        if held:
            yield _group_reading(name, group.kind, held)


def _judge(state: str, group: Group) -> str:
    for word, raws in (("ok", group.ok), ("failed", group.failed), ("absent", group.absent)):
        if state in normal(raws):
            return word
    return "unknown"


def _group_reading(name: str, kind: str, states: list[str]) -> Reading:
    healthy = states.count("ok")
    fields: dict[str, FieldValue] = {"members_count": float(len(states))}
    if "unknown" not in states:
        fields["healthy_count"] = float(healthy)
    if "unknown" not in states or any(state in ("failed", LOST) for state in states):
        fields["is_healthy"] = healthy == len(states)
    return Reading("redundant_group", fields, {"group": name, "kind": kind})


def shape_roles(look: Look, roles: Roles, number: int) -> Iterator[Reading]:
    """Who is master, and an event when that has changed since the round before."""
    del number
    if roles.members:
        yield from _member_roles(look, roles)
        return
    for instance, cells in look.seen.rows.items():
        state = _raw(cells.get(roles.state))
        if state is None or not is_wanted(instance, cells, roles.where):
            continue
        tags = {"group": fill(roles.group, instance, cells), "kind": str(roles.kind)}
        is_master = state in normal(roles.master)
        if not is_master and state not in normal(roles.others):
            continue
        fields: dict[str, FieldValue] = {"is_master": is_master}
        priority = read_number(cells[roles.priority]) if roles.priority and roles.priority in cells else None
        if priority is not None:
            fields["priority_count"] = priority
        yield Reading("role_group", fields, tags)
        yield from _change(look, tags, "1" if is_master else "0", became=is_master)


def _member_roles(look: Look, roles: Roles) -> Iterator[Reading]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for instance, cells in look.seen.rows.items():
        state = _raw(cells.get(roles.state))
        if state is not None and is_wanted(instance, cells, roles.where):
            groups.setdefault(fill(roles.group, instance, cells), []).append((instance, state))
    known = normal((*roles.master, *roles.others))
    for name, members in groups.items():
        tags = {"group": name, "kind": str(roles.kind)}
        masters = [instance for instance, state in members if state in normal(roles.master)]
        fields: dict[str, FieldValue] = {"members_count": float(len(members))}
        if all(state in known for _, state in members):
            fields["masters_count"] = float(len(masters))
        yield Reading("role_group", fields, tags)
        if len(masters) == 1:
            yield from _change(look, tags, masters[0], became=True)


def _change(look: Look, tags: Mapping[str, str], who: str, *, became: bool) -> Iterator[Reading]:
    key = (look.key, tags["group"])
    before = look.memory.masters.get(key)
    look.memory.masters[key] = who
    if before is not None and before != who:
        yield Reading("role_change", {"became_master": became}, tags)


def _compute(look: Look, rule: Rule, instance: str, cells: Row, name: str) -> FieldValue | None:
    """The value of a field, None where it cannot be known."""
    if rule.constant is not None:
        return rule.constant
    raw = cells.get(rule.column or "")
    if raw is None:
        return None
    if rule.states is not None:
        state = _raw(raw)
        return None if state is None else rule.states.get(state)
    column = look.seen.table.columns[rule.column or ""]
    if column.kind in ("text", "mac"):
        return (read_mac(raw) if column.kind == "mac" else read_text(raw)) or None
    value = read_number(raw)
    if value is None or value in rule.ignore:
        return None
    if rule.is_rate:
        bits = 32 if column.kind == "counter32" else 64
        grown = look.memory.counters.growth((look.key, name, instance), int(value), look.at_seconds, bits)
        if grown is None:
            return None
        value = grown[0] / grown[1]
    return _arithmetic(rule, value, cells)


def _arithmetic(rule: Rule, value: float, cells: Row) -> float | None:
    steps = [(name, _subtract) for name in rule.less]
    steps += [
        (name, step)
        for name, step in (
            (rule.at_least, _greater),
            (rule.by, _multiply),
            (rule.over, _divide),
            (rule.share_with, _share),
        )
        if name
    ]
    for name, apply in steps:
        other = read_number(cells[name]) if name in cells else None
        result = None if other is None else apply(value, other)
        if result is None:
            return None
        value = result
    return value * rule.times + rule.plus


def _subtract(value: float, other: float) -> float | None:
    return value - other


def _multiply(value: float, other: float) -> float | None:
    return value * other


def _divide(value: float, other: float) -> float | None:
    return value / other if other else None


def _greater(value: float, other: float) -> float | None:
    return max(value, other)


def _share(value: float, other: float) -> float | None:
    return _divide(value, value + other)


def is_wanted(instance: str, cells: Row, where: Mapping[str, tuple[Raw, ...]]) -> bool:
    """Whether a row's cells, and the numbers of its index, hold what `where` lists."""
    return all(_held(name, instance, cells) in normal(raws) for name, raws in where.items())


def _held(name: str, instance: str, cells: Row) -> str | None:
    return _first(name, instance, cells) if name.startswith("#") else _raw(cells.get(name))


def normal(raws: tuple[Raw, ...]) -> frozenset[str]:
    """Raw values as they are compared."""
    return frozenset(str(raw).lower() for raw in raws)


def _raw(value: Value | None) -> str | None:
    if value is None:
        return None
    return read_text(value).lower() if isinstance(value, bytes | str) else str(int(value))


def fill(template: str, instance: str, cells: Row) -> str:
    """A template with its row: `{name|descr|#}` is the first that is not empty, `#` the index, `#2` its second number.

    `#text` is an index of texts.
    """
    if "{" not in template:
        return template
    text = ""
    for piece in template.split("{"):
        inside, closed, after = piece.partition("}")
        text += f"{_first(inside, instance, cells)}{after}" if closed else piece
    return text.strip()


def _texts_of(instance: str) -> str:
    """The texts at the head of an index, each behind its length, joined by a slash; the index as it is where there is none."""
    numbers = [int(number) for number in instance.split(".")]
    texts = []
    while numbers and numbers[0] < len(numbers) and all(0 < number < 256 for number in numbers[1 : numbers[0] + 1]):
        texts.append(read_text(bytes(numbers[1 : numbers[0] + 1])))
        numbers = numbers[numbers[0] + 1 :]
    return "/".join(filter(None, texts)) or instance


def _first(choices: str, instance: str, cells: Row) -> str:
    for name in choices.split("|"):
        if name == "#":
            return instance
        if name == "#text":
            return _texts_of(instance)
        if name.startswith("#"):
            numbers = instance.split(".")
            place = int(name[1:]) - 1
            if place < len(numbers):
                return numbers[place]
        elif name in cells and (text := read_text(cells[name])):
            return text
    return ""
