"""One device, round by round: which profiles it answers, the columns that they name, each walked once, and what they mean."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.errors import SourceError
from agent.language import say
from agent.points import Value as FieldValue
from agent.snmp.bridges import shape_arp, shape_bridge, shape_bridge_ports, shape_fdb
from agent.snmp.client import Session, Walked
from agent.snmp.decode import Uptime, Value, read_number
from agent.snmp.entities import shape_sensors
from agent.snmp.interfaces import shape_interfaces
from agent.snmp.links import shape_bundles, shape_neighbours
from agent.snmp.parts import Parts
from agent.snmp.profile import Column, Profile, Shape, Table
from agent.snmp.shapes import Look, Memory, Seen, shape_group, shape_roles, shape_rows
from agent.snmp.trend import Trends
from agent.snmp.troubles import AgentTrouble, EndlessWalk, NoAnswer, Refused, explain_late
from agent.sources import Incomplete, Reading

OBJECT_ID = "1.3.6.1.2.1.1.2.0"
UPTIME, ENGINE_BOOTS, ENGINE_SECONDS = "1.3.6.1.2.1.1.3.0", "1.3.6.1.6.3.10.2.1.2.0", "1.3.6.1.6.3.10.2.1.3.0"
HOST_UPTIME = "1.3.6.1.2.1.25.1.1.0"
CLOCKS = (UPTIME, ENGINE_BOOTS, ENGINE_SECONDS, HOST_UPTIME)

CHOOSE_SECONDS, CHOOSE_SOON_SECONDS = 3600.0, 15.0
"""How often it is asked again which profiles fit: cards and licences come and go. Sooner after a start, four times later with
each look: a device that has just booted does not know all its tables yet. What it did not know is asked for no more until then."""

_log = logging.getLogger(__name__)

_SHAPES: Mapping[Shape, Callable[[Look], Iterator[Reading]]] = {
    "interface": shape_interfaces,
    "entity_sensor": shape_sensors,
    "lag": shape_bundles,
    "neighbour": shape_neighbours,
    "bridge": shape_bridge,
    "bridge_ports": shape_bridge_ports,
    "arp": shape_arp,
    "fdb": shape_fdb,
}


@dataclass(slots=True)
class _Kept:
    """A column that changes rarely: what it held, for which rows, and when that was read."""

    walked: Walked
    instances: frozenset[str]
    at_seconds: float


@dataclass(slots=True)
class _Round:
    """What one round has read so far. troubles: one sentence for each column that failed while the device answers.

    found: what the tables gave that were read whole; waiting: the others, by their key.
    """

    at_seconds: float = 0.0
    found: list[Reading] = field(default_factory=list)
    waiting: dict[str, Table] = field(default_factory=dict)
    walked: dict[str, Walked] = field(default_factory=dict)
    scalars: dict[str, Value] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


class Device:
    """A target as it is known by now.

    budget_seconds: how long a round may take. names: the profiles that the configuration prescribes; none: those that fit.
    managed: names and addresses of the devices that are polled. engines: which target has which v3 engine id, addresses: which
    station has which, both shared by all targets of a section.
    """

    def __init__(
        self,
        session: Session,
        profiles: Mapping[str, Profile],
        clock: Callable[[], float],
        *,
        budget_seconds: float = 30.0,
        names: tuple[str, ...] | None = None,
        parts: Parts | None = None,
        managed: frozenset[str] = frozenset(),
        engines: dict[bytes, str] | None = None,
        addresses: dict[str, str] | None = None,
        trends: Trends | None = None,
    ) -> None:
        self.session = session
        self.memory = Memory(managed, session.host, {} if addresses is None else addresses, parts=parts or Parts())
        self.chosen: tuple[Profile, ...] = ()
        self.object_id = ""
        self._known = profiles
        self._clock = clock
        self._budget_seconds = budget_seconds
        self._names = names
        self._chosen_at: float | None = None
        self._choose_seconds = CHOOSE_SOON_SECONDS
        self._uptime, self._host_uptime = Uptime(), Uptime()
        self._kept: dict[str, _Kept] = {}
        self._told: set[str] = set()
        self._trends = trends or Trends()
        self._engines = {} if engines is None else engines
        self._scalars_at: dict[str, float] = {}
        self._unknown: set[str] = set()
        self._answered: set[str] = set()
        self._reading = ""

    async def look(self, target: str) -> list[Reading]:
        """One round. Raises Incomplete: with what was seen when a table failed or the time was up, with the poll alone when the device fell silent."""
        effort = self.session.effort
        retries, rows = effort.retries, effort.rows
        effort.fastest_seconds = None
        this = _Round()
        try:
            async with asyncio.timeout(self._budget_seconds):
                await self._gather(this)
            self._check_engine(target)
        except TimeoutError as trouble:
            is_answering = effort.fastest_seconds is not None
            missing = [key for key, table in this.waiting.items() if not table.is_scalar]
            late = explain_late(self.session.where, self._budget_seconds, self._reading, missing)
            found = (
                this.found + self._known_scalars(this) + self._poll(target, retries, rows, is_answering=is_answering)
            )
            self._save()
            raise Incomplete(say("；", "; ").join((late, *this.troubles)), merge(found)) from trouble
        except Incomplete as trouble:
            self._save()
            raise Incomplete(str(trouble), merge(this.found + self._poll(target, retries, rows))) from trouble
        except SourceError as trouble:
            # who lets nobody in is no more watched than who is silent
            is_shut = isinstance(trouble, (NoAnswer, Refused))
            raise Incomplete(str(trouble), self._poll(target, retries, rows, is_answering=not is_shut)) from trouble
        readings = merge(this.found + self._poll(target, retries, rows))
        controllers = _count_controllers(readings)
        readings = [self._complete(one, controllers) if one.name == "storage_pool" else one for one in readings]
        self._save()
        return readings

    def _complete(self, pool: Reading, controllers: float | None) -> Reading:
        """A pool with when it will be full, and whether two controllers or more serve it."""
        fields = dict(pool.fields)
        used, size = fields.get("used_bytes"), fields.get("size_bytes")
        if not isinstance(used, float) or not isinstance(size, float):
            used, size = fields.get("used_ratio"), 1.0
        if isinstance(used, float):
            seconds = self._trends.time_to_full(pool.tags["pool"], used, size)
            fields |= {} if seconds is None else {"time_to_full_seconds": seconds}
        if controllers is not None:
            fields["is_dual_controller"] = controllers > 1
        return Reading(pool.name, fields, pool.tags)

    def _save(self) -> None:
        self.memory.parts.save()
        self._trends.save()

    def _check_engine(self, target: str) -> None:
        """RFC 3411 wants an engine id to be one engine's; copied configurations break that, and v3 with it."""
        engine_id = self.session.engine_id
        if not engine_id:
            return
        other = self._engines.setdefault(engine_id, target)
        if other != target and (pair := f"{other} {target}") not in self._told:
            self._told.add(pair)
            _log.warning(
                say(
                    f"{target} 与 {other} 的 SNMPv3 引擎标识相同({engine_id.hex()})；请在其中一台上更改",
                    f"{target} and {other} have the same SNMPv3 engine id ({engine_id.hex()}); change it on one of them",
                )
            )

    def close(self) -> None:
        """Give the socket back."""
        self.session.close()

    def _poll(self, target: str, retries: int, rows: int, *, is_answering: bool = True) -> list[Reading]:
        effort = self.session.effort
        fields: dict[str, FieldValue] = {"is_answering": is_answering, "retries_count": float(effort.retries - retries)}
        if is_answering:
            fields["rows_count"] = float(effort.rows - rows)
        if is_answering and effort.fastest_seconds is not None:
            fields["rtt_seconds"] = effort.fastest_seconds
        found = [Reading("poll", fields, {"target": target})]
        if is_answering:
            protocol = f"snmp-v{self.session.credential.version}"
            found.append(Reading("management_access", {"is_answering": True}, {"protocol": protocol}))
        return found

    async def _gather(self, this: _Round) -> None:
        self._reading = ""
        await self.session.open()
        clocks = await self.session.get((*CLOCKS, OBJECT_ID))
        this.found += self._read_clocks(clocks)
        await self._choose(str(clocks.get(OBJECT_ID, "")))
        this.at_seconds = self._clock()
        await self._read_scalars(this)
        tables = {f"{profile.name}/{name}": one for profile in self.chosen for name, one in profile.file.tables.items()}
        # one that the device does not know, and never knew, is left alone for a while
        this.waiting = {key: table for key, table in tables.items() if key not in self._unknown}
        for key, table in list(this.waiting.items()):
            self._reading = key
            seen = self._scalar_rows(this, table) if table.is_scalar else await self._read_table(this, table)
            this.found += self._tell(this, seen, key)
            del this.waiting[key]
        if this.troubles:
            raise Incomplete(say("；", "; ").join(dict.fromkeys(this.troubles)), this.found)

    def _known_scalars(self, this: _Round) -> list[Reading]:
        """What the variables give that were read before the time was up: they are asked for all at once, and some not again for long."""
        scalars = [(key, table) for key, table in this.waiting.items() if table.is_scalar]
        return [one for key, table in scalars for one in self._tell(this, self._scalar_rows(this, table), key)]

    def _tell(self, this: _Round, seen: Seen, key: str) -> list[Reading]:
        """What one table gives."""
        if not seen.rows and not seen.is_whole:
            return []
        found = list(self._shape(seen, key, this.at_seconds))
        if not seen.rows and not found:
            self._unknown.add(key)
        return found

    def _read_clocks(self, clocks: Mapping[str, Value]) -> list[Reading]:
        """The uptime, and whether counters begin anew."""
        now = self._clock()
        ticks = read_number(clocks[UPTIME]) if UPTIME in clocks else None
        if ticks is None:
            return []
        seconds, boots = _integer(clocks, ENGINE_SECONDS), _integer(clocks, ENGINE_BOOTS)
        uptime = self._uptime.look(int(ticks), now, seconds, boots)
        if self._uptime.has_restarted:
            self._choose_seconds = CHOOSE_SOON_SECONDS
            self.memory.counters.forget()
            self._kept.clear()
        host = _integer(clocks, HOST_UPTIME)
        if host is not None:
            uptime = max(uptime, self._host_uptime.look(host, now))
        return [Reading("host_uptime", {"uptime_seconds": uptime})]

    async def _choose(self, object_id: str) -> None:
        """Now and then, or when another device answers at this address. A profile that fitted stays: its parts may be lost."""
        now = self._clock()
        is_other = object_id != self.object_id
        if self._chosen_at is not None and now - self._chosen_at < self._choose_seconds and not is_other:
            return
        before = () if is_other else self.chosen
        candidates = [self._known[name] for name in self._names] if self._names else self._fitting(object_id)
        chosen = []
        for profile in candidates:
            if profile in before or not profile.file.needs or await self._has_any(profile):
                chosen.append(profile)
        if self._chosen_at is not None:
            self._choose_seconds = min(CHOOSE_SECONDS, 4 * self._choose_seconds)
        self.chosen, self.object_id, self._chosen_at = tuple(chosen), object_id, now
        self._unknown.clear()

    def _fitting(self, object_id: str) -> list[Profile]:
        return [profile for profile in self._known.values() if profile.fits(object_id)]

    async def _has_any(self, profile: Profile) -> bool:
        for subtree in profile.file.needs:
            if await self.session.has_rows(subtree):
                return True
        return False

    async def _read_scalars(self, this: _Round) -> None:
        """All scalars that are due, in as few questions as may be."""
        due = {
            column.oid: column
            for profile in self.chosen
            for table in profile.file.tables.values()
            if table.is_scalar
            for column in table.columns.values()
            if self._is_due(column, this.at_seconds)
        }
        this.scalars.update(await self.session.get(list(due)))
        self._answered |= this.scalars.keys()
        self._unknown |= due.keys() - self._answered
        for oid in due:
            self._scalars_at[oid] = this.at_seconds

    def _is_due(self, column: Column, now: float) -> bool:
        if column.oid in self._unknown:
            return False
        before = self._scalars_at.get(column.oid)
        return before is None or column.every_seconds is None or now - before >= column.every_seconds

    def _scalar_rows(self, this: _Round, table: Table) -> Seen:
        cells = {name: this.scalars[column.oid] for name, column in table.columns.items() if column.oid in this.scalars}
        return Seen(table, {"0": cells} if cells else {}, is_whole=False)

    async def _read_table(self, this: _Round, table: Table) -> Seen:
        """The table's rows: columns that change every time first, then those whose rows are not known yet."""
        read: dict[str, Walked] = {}
        for name, column in table.columns.items():
            if column.every_seconds is None and not _is_spared(column, read):
                read[name] = await self._walk(this, column)
        instances: dict[str, None] = {}
        for walked in read.values():
            instances.update(dict.fromkeys(walked.rows))
        is_whole = all(walked.is_whole for walked in read.values())
        kept: dict[str, Mapping[str, Value]] = {}
        if not read or instances:
            wanted = frozenset(instances)
            for name, column in table.columns.items():
                if column.every_seconds is not None and not _is_spared(column, read):
                    read[name] = await self._keep(this, column, wanted)
                    kept[name] = read[name].rows
        if len(kept) == len(read):
            for walked in read.values():
                instances.update(dict.fromkeys(walked.rows))
        read_at = [self._kept[table.columns[name].oid].at_seconds for name in kept]
        return Seen(table, _join(table, read, list(instances)), is_whole, kept, max(read_at, default=0.0))

    async def _walk(self, this: _Round, column: Column) -> Walked:
        """A column of this round; one that fails while the device answers costs only what needs it."""
        if column.oid not in this.walked:
            began = time.monotonic()
            try:
                this.walked[column.oid] = await self.session.walk(column.oid)
            except (AgentTrouble, EndlessWalk) as trouble:
                what, took = f"{self._reading} {column.symbol}", round(1000 * (time.monotonic() - began))
                this.troubles.append(say(f"{what}({took} 毫秒)：{trouble}", f"{what} ({took} ms): {trouble}"))
                this.walked[column.oid] = Walked({}, is_whole=False)
            except NoAnswer as trouble:
                what = f"{self._reading} {column.symbol}"
                raise NoAnswer(say(f"{what}：{trouble}", f"{what}: {trouble}")) from trouble
        return this.walked[column.oid]

    async def _keep(self, this: _Round, column: Column, instances: frozenset[str]) -> Walked:
        kept = self._kept.get(column.oid)
        every = column.every_seconds or 0.0
        if kept is None or this.at_seconds - kept.at_seconds >= every or not instances <= kept.instances:
            walked = await self._walk(this, column)
            kept = self._kept[column.oid] = _Kept(walked, instances, this.at_seconds)
        return kept.walked

    def _shape(self, seen: Seen, key: str, at_seconds: float) -> Iterator[Reading]:
        look = Look(seen, self.memory, key, at_seconds)
        if seen.table.shape:
            yield from _SHAPES[seen.table.shape](look)
        for number, rows in enumerate(seen.table.rows):
            yield from shape_rows(look, rows, number)
        for number, group in enumerate(seen.table.groups):
            yield from shape_group(look, group, number)
        for number, roles in enumerate(seen.table.roles):
            yield from shape_roles(look, roles, number)


def _join(table: Table, read: Mapping[str, Walked], instances: list[str]) -> dict[str, dict[str, Value]]:
    """Columns as rows. Most columns have all rows in the same order, and those are joined at once."""
    alike: dict[str, Mapping[str, Value]] = {}
    others: dict[str, Mapping[str, Value]] = {}
    for name, walked in read.items():
        is_alike = table.columns[name].kind != "unsigned" and list(walked.rows) == instances
        (alike if is_alike else others)[name] = walked.rows
    if alike:
        cells = zip(*(column.values() for column in alike.values()), strict=True)
        rows = {instance: dict(zip(alike, row, strict=True)) for instance, row in zip(instances, cells, strict=True)}
    else:
        rows = {instance: {} for instance in instances}
    for name, column in others.items():
        is_unsigned = table.columns[name].kind == "unsigned"
        for instance, value in column.items():
            if instance in rows:  # else a name of something that is no longer there, or that is none of this table's
                rows[instance][name] = value + 2**32 if is_unsigned and isinstance(value, int) and value < 0 else value
    return rows


def _is_spared(column: Column, read: Mapping[str, Walked]) -> bool:
    """Whether another column gave already what this one would."""
    other = read.get(column.unless) if column.unless else None
    return other is not None and bool(other.rows)


def _count_controllers(readings: list[Reading]) -> float | None:
    """How many controllers an array has; None where its profile does not tell."""
    for one in readings:
        if one.name == "redundant_group" and one.tags["kind"] == "controller":
            count = one.fields.get("members_count")
            return count if isinstance(count, float) else None
    return None


def merge(readings: list[Reading]) -> list[Reading]:
    """One reading for each measurement and tags; where two tables tell the same field the first is kept."""
    merged: dict[tuple[str, frozenset[tuple[str, str]]], Reading] = {}
    for reading in readings:
        key = (reading.name, frozenset(reading.tags.items()))
        before = merged.get(key)
        if before is not None:
            fields = {name: value for name, value in reading.fields.items() if name not in before.fields}
            reading = Reading(reading.name, {**before.fields, **fields}, before.tags)
        merged[key] = reading
    return list(merged.values())


def _integer(values: Mapping[str, Value], oid: str) -> int | None:
    value = values.get(oid)
    return value if isinstance(value, int) else None
