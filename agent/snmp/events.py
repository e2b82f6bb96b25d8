"""Notifications become events with one vocabulary: `traps.yaml` says what each object id means."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from agent.documents import build, read_document
from agent.snmp import ber
from agent.snmp.ber import Binding, Element, Malformed
from agent.snmp.decode import read_text
from agent.snmp.profile import ROLE_KINDS, Oid, Raw
from agent.snmp.shapes import fill, normal
from agent.sources import Reading

FILE = Path(__file__).parent / "traps.yaml"

TRAP_OID = "1.3.6.1.6.3.1.1.4.1.0"
GENERIC = "1.3.6.1.6.3.1.1.5"
"""RFC 3584 3.1: a generic v1 trap n is the notification n + 1 below this."""

ENTERPRISE_SPECIFIC = 6

Kind = Literal[
    "start", "link", "role", "split", "member", "heartbeat", "replication", "array", "power", "fan", "temperature",
    "board", "path", "service", "capacity", "configuration", "authentication", "machine", "recovery", "drill", "backup", "threat",
]  # fmt: skip


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is master, as a notification tells. became_master: where the notification itself says it; else `master` lists the states."""

    kind: ROLE_KINDS
    group: str
    state: Oid
    name: Oid | None = None
    master: tuple[Raw, ...] = ()
    became_master: bool | None = None


class Notice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One notification. part: the first of these variables that it brings names the part."""

    oid: Oid
    kind: Kind
    has_begun: bool = True
    part: tuple[Oid, ...] = ()
    role: Role | None = None


class Named(msgspec.Struct, frozen=True):
    """A notice under its name."""

    name: str
    notice: Notice


@functools.cache
def load_notices(path: Path = FILE) -> Mapping[str, Named]:
    """All known notifications by their object id. Raises FileMistakes."""
    notices = build(read_document(path), dict[str, Notice])
    return {notice.oid: Named(name, notice) for name, notice in notices.items()}


def read_notification(data: bytes, message: ber.Message) -> list[Binding]:
    """The variables of a v1 or v2c notification, the notification's own object id first. Raises Malformed."""
    if message.pdu.tag == ber.TRAP_V1:
        return _read_v1(data, message.pdu)
    pdu = ber.read_pdu(data, message.pdu)
    return [ber.read_binding(data, one) for one in ber.read_children(data, pdu.variables)]


def _read_v1(data: bytes, pdu: Element) -> list[Binding]:
    parts = ber.read_children(data, pdu)
    if len(parts) != 6 or parts[0].tag != ber.OID or parts[5].tag != ber.SEQUENCE:
        raise Malformed("no v1 trap")
    generic, specific = ber.read_number(data, parts[2]), ber.read_number(data, parts[3])
    oid = (
        f"{ber.read_oid(data, parts[0])}.0.{specific}" if generic == ENTERPRISE_SPECIFIC else f"{GENERIC}.{generic + 1}"
    )
    variables = [ber.read_binding(data, one) for one in ber.read_children(data, parts[5])]
    return [Binding(TRAP_OID, ber.OID, oid), *variables]


def find_notice(variables: Sequence[Binding], notices: Mapping[str, Named]) -> Named | None:
    """What a notification means; None for one that nobody has described."""
    for one in variables:
        if one.oid == TRAP_OID:
            oid = str(one.value)
            return notices.get(oid) or notices.get(_without_zero(oid))
    return None


def _without_zero(oid: str) -> str:
    """A v1 trap of an enterprise whose MIB was written for v1 has no zero before its last number."""
    head, _, last = oid.rpartition(".")
    return f"{head.removesuffix('.0')}.{last}"


def make_events(named: Named, variables: Sequence[Binding], asset: str, at_milliseconds: int) -> list[Reading]:
    """The event of a notification, and the change of role that it tells."""
    notice = named.notice
    tags = {"kind": str(notice.kind), "notification": named.name, "part": _part(notice, variables)}
    events = [Reading("device_event", {"has_begun": notice.has_begun}, tags, asset, at_milliseconds)]
    if notice.role and (change := _change(notice.role, variables)):
        became, group = change
        tags = {"group": group, "kind": str(notice.role.kind)}
        events.append(Reading("role_change", {"became_master": became}, tags, asset, at_milliseconds))
    return events


def _part(notice: Notice, variables: Sequence[Binding]) -> str:
    for oid in notice.part:
        for one in variables:
            if _is_of(one, oid):
                return _show(one) or one.oid[len(oid) + 1 :] or "device"
    return "device"


def _is_of(one: Binding, column: str) -> bool:
    """Whether a variable is of a column; keepalived leaves the index away."""
    return one.oid == column or one.oid.startswith(f"{column}.")


def _show(one: Binding) -> str:
    return read_text(one.value) if isinstance(one.value, bytes) else "" if one.value is None else str(one.value)


def _change(role: Role, variables: Sequence[Binding]) -> tuple[bool, str] | None:
    """Whether it became master, and of which group; None when the notification does not bring what is needed."""
    state = next((one for one in variables if _is_of(one, role.state)), None)
    if state is None:
        return None
    named = next((one for one in variables if role.name and _is_of(one, role.name)), None)
    cells = {"name": named.value} if named and isinstance(named.value, bytes) else {}
    group = fill(role.group, state.oid[len(role.state) + 1 :], cells)
    if not group:
        return None
    became = role.became_master if role.became_master is not None else _show(state) in normal(role.master)
    return became, group
