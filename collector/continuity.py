"""What became of the services: their state, outages, switchovers, pairs; for the pages, never for a score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from collector.query import DAY_MS, HOUR_MS, Question, Take
from collector.site_folder import SiteFolder
from collector.stores import Latest, Store

NOW_MS = 7 * DAY_MS
"""How long a service or a pair that went silent is still listed."""

STALE_MS = 300_000
YEAR_MS = 365 * DAY_MS
DRILLS_MS = 730 * DAY_MS
MASTERS_MS = 7 * DAY_MS
MOST_OUTAGES, MOST_DRILLS, MOST_TRACES = 1000, 500, 2000

TRACE_BEFORE_MS, TRACE_AFTER_MS = 5_000, 60_000
"""What else was seen around an outage: sources look up to a minute apart, so their word comes that much later."""


@dataclass(frozen=True)
class ServiceNow:
    """A service by one of its probes. latency_seconds: None when nothing answered."""

    service: str
    probe: str
    asset: str
    is_up: bool
    latency_seconds: float | None
    seen_at: int
    is_silent: bool


@dataclass(frozen=True)
class Trace:
    """What another source saw about the time of an outage. what: `role`, `vm`; who: the asset; of: the group or the machine."""

    what: str
    who: str
    of: str


@dataclass(frozen=True)
class Outage:
    """One that has ended; times in ms. is_automatic, lost: None when nobody knows.

    drill: the planned drill that it lies in. move: the switchover that ended it. is_announced: it began in announced maintenance.
    """

    service: str
    began_at: int
    ended_at: int
    seconds: float
    is_automatic: bool | None
    lost: int | None
    drill: str
    move: str
    is_announced: bool
    traces: Sequence[Trace]


@dataclass(frozen=True)
class Switch:
    """A switchover, drilled or real. None stands for what was not measured. ended_at, began_at: ms; began_at of drills alone."""

    service: str
    drill: str
    is_planned: bool
    began_at: int | None
    ended_at: int
    rto_seconds: float | None
    rpo_seconds: float | None
    lost: int | None
    is_passed: bool
    is_automatic: bool | None
    sent: int | None
    acknowledged: int | None
    token_log_digest: str
    plan_digest: str


@dataclass(frozen=True)
class PairNow:
    """A pair as its source saw it last; both_seconds, none_seconds: with two masters and with none, in the last week."""

    pair: str
    asset: str
    is_running: bool
    is_in_sync: bool
    lag_seconds: float | None
    sides: int | None
    secondary_share: float | None
    both_seconds: float | None
    none_seconds: float | None
    seen_at: int
    is_silent: bool


@dataclass(frozen=True)
class RoleNow:
    """A group with a master, as one of its members or a watcher saw it last."""

    group: str
    kind: str
    asset: str
    masters: int
    members: int | None
    seen_at: int
    is_silent: bool


@dataclass(frozen=True)
class Continuity:
    """All of it: what is wrong first, what happened newest first. is_cut: there were more outages than are listed."""

    services: Sequence[ServiceNow] = ()
    outages: Sequence[Outage] = ()
    switches: Sequence[Switch] = ()
    pairs: Sequence[PairNow] = ()
    roles: Sequence[RoleNow] = ()
    is_cut: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all was seen."""
        return not (self.services or self.outages or self.switches or self.pairs or self.roles)


NO_SERVICES = Continuity()


def read_continuity(store: Store, folder: SiteFolder, site: str, now: int) -> Continuity:
    """What was seen of a site's services: their state of the last week, outages of a year, switchovers of two."""

    def latest(measurement: str) -> list[Latest]:
        return [row for row in store.latest(measurement, now - NOW_MS) if row.tags["site"] == site]

    switches = _switches(store.happened(site, "drill", now - DRILLS_MS, MOST_DRILLS))
    ended = store.happened(site, "outage", now - YEAR_MS, MOST_OUTAGES)
    traces = _traces(store, site, min(map(_begin_of, ended)) - TRACE_BEFORE_MS) if ended else []
    masters = {field: _week_of(store, site, field, now) for field in ("both_master_seconds", "no_master_seconds")}
    services = (_service(row, now) for row in latest("service_probe"))
    roles = (_role(row, now) for row in latest("role_group") if "masters_count" in row.fields)
    return Continuity(
        services=sorted(services, key=lambda one: (one.is_up and not one.is_silent, one.service, one.probe, one.asset)),
        outages=[_outage(row, switches, traces, folder) for row in ended],
        switches=switches,
        pairs=sorted(
            (_pair(row, masters, now) for row in latest("replication")),
            key=lambda one: (one.is_running and not one.is_silent, one.pair, one.asset),
        ),
        roles=sorted(roles, key=lambda one: (one.masters == 1, one.group, one.asset)),
        is_cut=len(ended) == MOST_OUTAGES,
    )


def _service(row: Latest, now: int) -> ServiceNow:
    return ServiceNow(
        service=row.tags["service"],
        probe=row.tags.get("probe", ""),
        asset=row.tags["asset"],
        is_up=row.number("is_up") == 1.0,
        latency_seconds=row.number("latency_seconds"),
        seen_at=row.timestamp,
        is_silent=now - row.timestamp > STALE_MS,
    )


def _switches(rows: Sequence[Latest]) -> list[Switch]:
    """One per id: what came later, such as that the service has returned, is put to what came first."""
    grouped: dict[tuple[str, str], list[Latest]] = {}
    for row in reversed(rows):
        grouped.setdefault((row.tags["service"], row.tags["drill"]), []).append(row)
    switches = [_switch(own) for own in grouped.values()]
    return sorted(switches, key=lambda one: (-one.ended_at, one.service, one.drill))


def _switch(rows: Sequence[Latest]) -> Switch:
    """From the rows of one id, the oldest first."""
    whole = rows[0]._replace(fields={name: value for row in rows for name, value in row.fields.items()})
    ended_at = next((row.timestamp for row in rows if "is_planned" in row.fields), rows[0].timestamp)
    lasted = whole.number("duration_seconds")
    return Switch(
        service=rows[0].tags["service"],
        drill=rows[0].tags["drill"],
        is_planned=whole.number("is_planned") == 1.0,
        began_at=None if lasted is None else ended_at - round(lasted * 1000),
        ended_at=ended_at,
        rto_seconds=whole.number("rto_seconds"),
        rpo_seconds=whole.number("rpo_seconds"),
        lost=_count(whole, "lost_tokens_count"),
        is_passed=whole.number("is_passed") == 1.0,
        is_automatic=_flag(whole, "is_automatic"),
        sent=_count(whole, "sent_count"),
        acknowledged=_count(whole, "acknowledged_count"),
        token_log_digest=str(whole.fields.get("token_log_digest", "")),
        plan_digest=str(whole.fields.get("plan_digest", "")),
    )


def _outage(row: Latest, switches: Sequence[Switch], traces: Sequence[tuple[int, Trace]], folder: SiteFolder) -> Outage:
    service, began_at, ended_at = row.tags["service"], _begin_of(row), row.timestamp
    own = [one for one in switches if one.service == service]
    near = range(began_at - TRACE_BEFORE_MS, ended_at + TRACE_AFTER_MS)
    return Outage(
        service=service,
        began_at=began_at,
        ended_at=ended_at,
        seconds=_duration(row),
        is_automatic=_flag(row, "is_automatic"),
        lost=_count(row, "lost_tokens_count"),
        drill=next((one.drill for one in own if one.began_at and one.began_at <= began_at <= one.ended_at), ""),
        move=next((one.drill for one in own if not one.is_planned and one.ended_at == ended_at), ""),
        is_announced=any(start <= began_at < end for start, end in folder.excuses_of(service)),
        traces=[trace for at, trace in traces if at in near],
    )


def _begin_of(row: Latest) -> int:
    return row.timestamp - round(_duration(row) * 1000)


def _traces(store: Store, site: str, since: int) -> list[tuple[int, Trace]]:
    """Masters that changed and machines that crashed, moved or started again, with their times."""
    roles = [
        (row.timestamp, Trace("role", row.tags["asset"], row.tags.get("group", "")))
        for row in store.happened(site, "role_change", since, MOST_TRACES)
        if row.number("became_master") == 1.0
    ]
    machines = [
        (row.timestamp, Trace("vm", row.tags["asset"], row.tags.get("vm", "")))
        for row in store.happened(site, "vm_event", since, MOST_TRACES)
        if row.number("is_success") == 1.0
    ]
    return sorted((*roles, *machines), key=lambda pair: pair[0])


def _pair(row: Latest, masters: Mapping[str, Mapping[tuple[str, ...], float]], now: int) -> PairNow:
    key = (row.tags["asset"], row.tags.get("pair", ""))
    return PairNow(
        pair=key[1],
        asset=key[0],
        is_running=row.number("is_running") == 1.0,
        is_in_sync=row.number("is_in_sync") == 1.0,
        lag_seconds=row.number("lag_seconds"),
        sides=_count(row, "serving_sides_count"),
        secondary_share=row.number("secondary_share_ratio"),
        both_seconds=masters["both_master_seconds"].get(key),
        none_seconds=masters["no_master_seconds"].get(key),
        seen_at=row.timestamp,
        is_silent=now - row.timestamp > STALE_MS,
    )


def _week_of(store: Store, site: str, field: str, now: int) -> Mapping[tuple[str, ...], float]:
    """(asset, pair) -> the sum over the last week and the hour that is on."""
    hour = now // HOUR_MS * HOUR_MS
    where, per, take = (("site", (site,)),), ("asset", "pair"), Take("sum")
    question = Question("replication", field, where, per, hour - MASTERS_MS, hour + HOUR_MS, HOUR_MS, take, take)
    return {subject: float(found.values.sum()) for subject, found in store.buckets(question).items()}


def _role(row: Latest, now: int) -> RoleNow:
    return RoleNow(
        group=row.tags.get("group", ""),
        kind=row.tags.get("kind", ""),
        asset=row.tags["asset"],
        masters=int(row.number("masters_count") or 0),
        members=_count(row, "members_count"),
        seen_at=row.timestamp,
        is_silent=now - row.timestamp > STALE_MS,
    )


# -- sums


@dataclass(frozen=True)
class Toll:
    """What the outages of one service came to. longest: seconds."""

    count: int
    seconds: float
    longest: float
    unplanned: int


def toll_of(outages: Sequence[Outage], service: str, since: int) -> Toll:
    """The outages of a service that ended at or after `since`."""
    own = [one for one in outages if one.service == service and one.ended_at >= since]
    seconds = [one.seconds for one in own]
    unplanned = sum(not one.drill and not one.is_announced for one in own)
    return Toll(len(own), sum(seconds), max(seconds, default=0.0), unplanned)


def newest_of_each(switches: Sequence[Switch]) -> Iterator[Switch]:
    """The newest switchover with a recovery time, service by service."""
    seen: set[str] = set()
    for one in switches:
        if one.rto_seconds is not None and one.service not in seen:
            seen.add(one.service)
            yield one


def _duration(row: Latest) -> float:
    return row.number("duration_seconds") or 0.0


def _count(row: Latest, name: str) -> int | None:
    value = row.number(name)
    return None if value is None else int(value)


def _flag(row: Latest, name: str) -> bool | None:
    value = row.number(name)
    return None if value is None else value == 1.0
