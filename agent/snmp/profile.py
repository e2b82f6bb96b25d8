"""Profiles: which object ids a family of devices answers, and which signals of the catalogue they are. `agent/profiles/*.yaml`.

Object ids are numbers; no MIB is needed at run time. What a state's map does not list is unknown: nothing is said of it.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agent.catalogue import Catalogue, Text
from agent.catalogue import load as load_catalogue
from agent.documents import Document, FileMistakes, Mistake, build, nearest, read_document
from agent.language import say

FOLDER = Path(__file__).parent.parent / "profiles"
"""The folder is the list of profiles."""

Oid = Annotated[str, msgspec.Meta(pattern=r"^[0-2](\.[0-9]+)+$")]
Prefix = Annotated[str, msgspec.Meta(pattern=r"^(\*|[0-2](\.[0-9]+)+\.?)$")]
Raw = int | str
"""A raw value of an enumeration, as the device sends it: a number, or a text."""

REDUNDANT_KINDS = Literal[
    "psu", "fan", "controller", "raid", "nic", "path", "disk", "lag", "gateway", "stack", "firewall", "link"
]
ROLE_KINDS = Literal["vrrp", "hsrp", "stack", "firewall", "cluster", "database"]
Shape = Literal["interface", "entity_sensor", "lag", "neighbour", "bridge", "bridge_ports", "arp", "fdb"]

SHAPE_COLUMNS: Mapping[Shape, tuple[str, ...]] = {
    "interface": ("name", "oper_status", "admin_status", "in_octets", "out_octets"),
    "entity_sensor": ("name", "type", "scale", "precision", "value", "status"),
    "lag": ("name", "attached", "actor_state"),
    "neighbour": ("chassis", "system_name"),
    "bridge": ("changes", "age", "root", "own"),
    "bridge_ports": ("state",),
    "arp": ("physical", "media"),
    "fdb": ("status", "old_status"),
}
"""What a shape's arithmetic needs by these names; it takes more when it is there."""

_STATIONS: Mapping[str, tuple[str, ...]] = {
    "neighbour": ("is_managed", "system_name"),
    "neighbour_list": ("neighbours_count", "unmanaged_count", "is_complete"),
}

SHAPE_SIGNALS: Mapping[Shape, Mapping[str, tuple[str, ...]]] = {
    "interface": {
        "net_interface": (
            "busy_ratio",
            "in_bits_per_second",
            "out_bits_per_second",
            "speed_bits_per_second",
            "error_ratio",
            "discard_ratio",
            "is_up",
            "is_admin_up",
            "is_full_duplex",
            "alias",
        )
    },
    "entity_sensor": {"sensor": ("value_celsius", "is_healthy")},
    "lag": {"redundant_group": ("members_count", "healthy_count", "is_redundant", "is_healthy")},
    "neighbour": {"neighbour": ("is_managed", "system_name")},
    "bridge": {
        "bridge": (
            "topology_changes_count",
            "topology_age_seconds",
            "root_changes_count",
            "is_root",
            "root",
            "vlans_count",
        )
    },
    "bridge_ports": {"bridge": ("forwarding_ports_count", "blocking_ports_count", "broken_ports_count")},
    "arp": _STATIONS,
    "fdb": _STATIONS,
}
"""What a shape emits."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One object id. unsigned: 32 bits that an agent may send as a negative number. every_seconds: how often it is read when it changes rarely. unless: only where that column gives nothing.

    is_factory: its text is written by the maker's software, never by people, so a recorded walk may keep it.
    """

    oid: Oid
    symbol: str
    kind: Literal["number", "unsigned", "counter32", "counter64", "text", "mac", "oid", "octets"] = "number"
    every_seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    unless: str | None = None
    is_factory: bool = False


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a field comes from columns: states, or (column - all of less) * by / over * times + plus.

    at_least: the greater of the value and that column. share_with: the value's share of itself and that column. ignore: raw values that mean "not known". is_rate: per second since the round before.
    """

    column: str | None = None
    states: Mapping[str, float] | None = None
    constant: float | str | None = None
    less: tuple[str, ...] = ()
    by: str | None = None
    over: str | None = None
    share_with: str | None = None
    at_least: str | None = None
    times: float = 1.0
    plus: float = 0.0
    ignore: tuple[float, ...] = ()
    is_rate: bool = False


class Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every row is a reading. lost: what a row that vanished while its device answers is said to be.

    mean, most: all rows are one reading, the mean or the greatest of them. is_newest: of rows with the same tags only the last is
    meant. is_whole: only rows that give all fields are meant.
    """

    signal: str
    fields: Mapping[str, Rule]
    tags: Mapping[str, str] = {}
    where: Mapping[str, tuple[Raw, ...]] = {}
    lost: Mapping[str, float] = {}
    mean: bool = False
    most: bool = False
    is_newest: bool = False
    is_whole: bool = False


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows are members of a `redundant_group`. absent: an empty bay, unless the part was there before: then it is lost."""

    kind: REDUNDANT_KINDS
    group: str
    state: str
    ok: tuple[Raw, ...]
    failed: tuple[Raw, ...]
    absent: tuple[Raw, ...] = ()
    where: Mapping[str, tuple[Raw, ...]] = {}


class Roles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is master. Every row is this device's part in a group; with `members` the rows are the members of one group."""

    kind: ROLE_KINDS
    group: str
    state: str
    master: tuple[Raw, ...]
    others: tuple[Raw, ...]
    priority: str | None = None
    members: bool = False
    where: Mapping[str, tuple[Raw, ...]] = {}


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Columns of one index, and what they give. is_scalar: single variables whose object ids end in .0."""

    columns: Mapping[str, Column]
    is_scalar: bool = False
    rows: tuple[Rows, ...] = ()
    groups: tuple[Group, ...] = ()
    roles: tuple[Roles, ...] = ()
    shape: Shape | None = None


class ProfileFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A profile as it is written. select: prefixes of sysObjectID, `*` for every device. needs: a device must know one of them.

    asset_class: what such a device is in the register, where the profile tells it.
    """

    title: Text
    select: tuple[Prefix, ...]
    tables: Mapping[str, Table]
    needs: tuple[Oid, ...] = ()
    asset_class: Literal["network", "firewall", "storage", "server", "ups"] | None = None


class Profile(msgspec.Struct, frozen=True):
    """A profile under its name."""

    name: str
    file: ProfileFile

    def fits(self, object_id: str) -> bool:
        """Whether a device with this sysObjectID may answer it."""
        return any(is_below(object_id, prefix) for prefix in self.file.select)


def is_below(object_id: str, prefix: str) -> bool:
    """Whether a prefix of `select` means this sysObjectID."""
    if prefix == "*":
        return True
    return f"{object_id}.".startswith(prefix if prefix.endswith(".") else f"{prefix}.")


@functools.cache
def load_profiles(folder: Path = FOLDER) -> Mapping[str, Profile]:
    """All profiles of `folder` by name. Raises FileMistakes with everything that is wrong in them."""
    profiles: dict[str, Profile] = {}
    mistakes: list[Mistake] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            profiles[path.stem] = read_profile(path)
        except FileMistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise FileMistakes(mistakes)
    return profiles


def read_profile(path: Path) -> Profile:
    """One profile. Raises FileMistakes."""
    document = read_document(path)
    file = build(document, ProfileFile)
    if mistakes := [*_check(document, file, load_catalogue())]:
        raise FileMistakes(mistakes)
    return Profile(path.stem, file)


def emitted(profile: Profile) -> set[tuple[str, str]]:
    """Every measurement and field that a profile may give."""
    found: set[tuple[str, str]] = set()
    for table in profile.file.tables.values():
        found |= {(rows.signal, field) for rows in table.rows for field in rows.fields}
        if table.groups:
            found |= {("redundant_group", field) for field in ("members_count", "healthy_count", "is_healthy")}
        for roles in table.roles:
            fields = ("masters_count", "members_count") if roles.members else ("is_master",)
            found |= {("role_group", field) for field in fields} | {("role_change", "became_master")}
            found |= {("role_group", "priority_count")} if roles.priority else set()
        for field in ("time_to_full_seconds", "is_dual_controller"):
            found |= {("storage_pool", field) for rows in table.rows if rows.signal == "storage_pool"}
        for signal, names in SHAPE_SIGNALS[table.shape].items() if table.shape else ():
            found |= {(signal, name) for name in names}
    return found


def _check(document: Document, file: ProfileFile, catalogue: Catalogue) -> Iterator[Mistake]:
    """What the types cannot say: names of columns, measurements, fields and tags that are not there."""
    for name, table in file.tables.items():
        path = ("tables", name)
        for key, column in table.columns.items():
            if table.is_scalar != column.oid.endswith(".0"):
                text = say("标量的 OID 以 .0 结尾，表列的不", "a scalar's object id ends in .0, a column's does not")
                yield document.mistake((*path, "columns", key), text)
            if column.unless and column.unless not in table.columns:
                yield document.mistake((*path, "columns", key), _explain_column(column.unless, table))
        for shaped in SHAPE_COLUMNS[table.shape] if table.shape else ():
            if shaped not in table.columns:
                yield document.mistake(path, _explain_column(shaped, table))
        for number, rows in enumerate(table.rows):
            yield from _check_rows(document, (*path, "rows", number), rows, table, catalogue)
        for number, group in enumerate(table.groups):
            yield from _check_names(
                document, (*path, "groups", number), (group.state, *group.where), group.group, table
            )
        for number, roles in enumerate(table.roles):
            names = (roles.state, *roles.where, *((roles.priority,) if roles.priority else ()))
            yield from _check_names(document, (*path, "roles", number), names, roles.group, table)


def _check_rows(
    document: Document, path: tuple[str | int, ...], rows: Rows, table: Table, catalogue: Catalogue
) -> Iterator[Mistake]:
    measurement = catalogue.measurements.get(rows.signal)
    if measurement is None:
        text = say(f"信号目录中没有 '{rows.signal}'", f"the catalogue has no '{rows.signal}'")
        yield document.mistake((*path, "signal"), text + nearest(rows.signal, catalogue.measurements))
        return
    if rows.tags.keys() != measurement.tags.keys():
        wanted = ", ".join(measurement.tags) or "-"
        yield document.mistake((*path, "tags"), say(f"标签应为：{wanted}", f"the tags are: {wanted}"))
    for field in (*rows.fields, *rows.lost):
        if field not in measurement.fields:
            text = say(f"'{rows.signal}' 没有字段 '{field}'", f"'{rows.signal}' has no field '{field}'")
            yield document.mistake((*path, "fields", field), text + nearest(field, measurement.fields))
    for field, rule in rows.fields.items():
        if (rule.column is None) == (rule.constant is None):
            text = say("column 与 constant 写且只写一个", "give exactly one of column and constant")
            yield document.mistake((*path, "fields", field), text)
        names = [name for name in (rule.column, *rule.less, rule.by, rule.over, rule.share_with, rule.at_least) if name]
        yield from _check_names(document, (*path, "fields", field), names, "", table)
    yield from _check_names(document, path, [*rows.where], "".join(rows.tags.values()), table)


def _check_names(
    document: Document, path: tuple[str | int, ...], names: "tuple[str, ...] | list[str]", template: str, table: Table
) -> Iterator[Mistake]:
    for name in (*names, *columns_of(template)):
        if name not in table.columns and not name.startswith("#"):
            yield document.mistake(path, _explain_column(name, table))


def _explain_column(name: str, table: Table) -> str:
    return say(f"此表没有列 '{name}'", f"this table has no column '{name}'") + nearest(name, table.columns)


def columns_of(template: str) -> list[str]:
    """The columns that a template such as `{name|descr|#}` takes; `#` and `#2` are the row's own index."""
    parts = [part for piece in template.split("{")[1:] for part in piece.split("}")[0].split("|")]
    return [part for part in parts if not part.startswith("#")]
