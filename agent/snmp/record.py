"""A walk over all that a device says, scrubbed. Kinds of numbers that no profile names are guessed by their size."""

from collections.abc import Iterable, Mapping

from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.client import Session
from agent.snmp.decode import Value
from agent.snmp.profile import Profile
from agent.snmp.scrub import Scrubber, kept_texts
from agent.snmp.walkfile import order

ROOTS = ("1.0.8802", "1.2.840", "1.3.6.1.2.1", "1.3.6.1.3", "1.3.6.1.4.1", "1.3.6.1.6.3.10")
"""Where devices keep what may be asked; users, communities and views lie elsewhere."""

WHO = "1.3.6.1.2.1.1.2.0"
_TICKS = ("1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.25.1.1.0")


async def record_walk(session: Session, profiles: Mapping[str, Profile], roots: Iterable[str] = ROOTS) -> list[Binding]:
    """What the device knows below `roots`, in order, and nothing of whose it is. Raises SourceError."""
    kinds = column_tags(profiles)
    found: list[Binding] = []
    await session.open()
    await session.get([WHO])  # who does not answer this answers nothing
    for root in roots:
        walked = await session.walk(root)
        found += [_bind(f"{root}.{instance}", value, kinds) for instance, value in walked.rows.items()]
    found.sort(key=lambda one: order(one.oid))
    secrets = (session.credential.community, session.credential.user, session.host)
    return Scrubber(kept_texts(profiles.values()), secrets).scrub(found)


def column_tags(profiles: Mapping[str, Profile]) -> dict[str, int]:
    """The ASN.1 tag of every column whose kind a profile tells."""
    tags = {"counter32": ber.COUNTER32, "counter64": ber.COUNTER64}
    found = {
        column.oid: tags[column.kind]
        for profile in profiles.values()
        for table in profile.file.tables.values()
        for column in table.columns.values()
        if column.kind in tags
    }
    return found | dict.fromkeys(_TICKS, ber.TIME_TICKS)


def _bind(oid: str, value: Value, kinds: Mapping[str, int]) -> Binding:
    if isinstance(value, bytes):
        return Binding(oid, ber.OCTETS, value)
    if isinstance(value, str):
        is_address = value.count(".") == 3 and not value.startswith(("0.", "1.3.", "1.0.", "1.2.", "2."))
        return Binding(oid, ber.IP_ADDRESS if is_address else ber.OID, value)
    if isinstance(value, float):
        return Binding(oid, ber.OCTETS, f"{value:g}".encode())
    for length in range(oid.count(".") + 1, 1, -1):
        column = ".".join(oid.split(".")[:length])
        if column in kinds:
            return Binding(oid, kinds[column], value)
    tag = ber.INTEGER if -(2**31) <= value < 2**31 else ber.GAUGE32 if 0 <= value < 2**32 else ber.COUNTER64
    return Binding(oid, tag, value)
