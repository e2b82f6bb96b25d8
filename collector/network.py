"""What the wire said last: the matrix of zones, exposed services, lines, neighbours; for the pages, never for a score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collector.query import HOUR_MS, Question, Take
from collector.stores import Latest, Store

LOOK_BACK_MS = 7 * 86_400_000
MONTH_HOURS = 30 * 24
PROVEN = (1, 2, 3, 4)
"""Outcomes of a cell that stand; the others say that nobody knows."""


@dataclass(frozen=True)
class TriedCell:
    """The last round of one cell of the matrix. outcome: the catalogue's number. is_allowed: by the policy, None when not said."""

    asset: str
    from_zone: str
    to_zone: str
    protocol: str
    port: str
    is_allowed: bool | None
    outcome: int
    is_as_expected: bool
    is_breached: bool
    tried_at: int
    nonce: str
    refused_by: str

    @property
    def is_proven(self) -> bool:
        """Whether both ends agree on what became of it."""
        return self.outcome in PROVEN


@dataclass(frozen=True)
class Scan:
    """The last scan from outside. exposed: `address:port` each. udp_silent: UDP ports without a sign of life, closed or not."""

    scanner: str
    exposed: Sequence[str]
    databases: int
    scanned: int
    is_complete: bool
    scanned_at: int
    udp_silent: int


@dataclass(frozen=True)
class LineMonth:
    """The last 30 days of a line, hour by hour. up: mean of the hours that are known. known: the share of hours that are."""

    up: float
    worst_hour: float
    known: float


@dataclass(frozen=True)
class LineNow:
    """A line as its prober saw it last. committed: bits per second, None when nobody said."""

    line: str
    asset: str
    is_up: bool
    live_routes: int
    has_fallback: bool
    committed: float | None
    seen_at: int
    month: LineMonth | None = None


@dataclass(frozen=True)
class Neighbour:
    """A device that another one hears on a link. name: as it calls itself. heard_by: the asset that hears it."""

    name: str
    heard_by: str
    is_managed: bool
    seen_at: int


@dataclass(frozen=True)
class NetworkFacts:
    """All of it, in the order in which it is shown: what is wrong first."""

    cells: Sequence[TriedCell] = ()
    scans: Sequence[Scan] = ()
    lines: Sequence[LineNow] = ()
    neighbours: Sequence[Neighbour] = ()


NOTHING_SEEN = NetworkFacts()


def read_network(store: Store, site: str, now: int) -> NetworkFacts:
    """What was seen of a site's network in the last week."""

    def latest(measurement: str) -> list[Latest]:
        return [row for row in store.latest(measurement, now - LOOK_BACK_MS) if row.tags["site"] == site]

    cells = [_cell(row) for row in latest("isolation_cell")]
    months = _months(store, site, now)
    return NetworkFacts(
        sorted(
            cells,
            key=lambda one: (
                not one.is_breached,
                one.is_as_expected,
                one.from_zone,
                one.to_zone,
                one.protocol,
                one.port,
            ),
        ),
        sorted((_scan(row) for row in latest("exposure_scan")), key=lambda one: one.scanner),
        sorted((_line(row, months) for row in latest("line")), key=lambda one: (one.line, one.asset)),
        sorted(
            (_neighbour(row) for row in latest("neighbour")), key=lambda one: (one.is_managed, one.name, one.heard_by)
        ),
    )


def _cell(row: Latest) -> TriedCell:
    allowed = row.number("is_allowed")
    return TriedCell(
        asset=row.tags["asset"],
        from_zone=row.tags["from_zone"],
        to_zone=row.tags["to_zone"],
        protocol=row.tags["protocol"],
        port=row.tags["port"],
        is_allowed=None if allowed is None else allowed == 1.0,
        outcome=int(row.number("outcome") or 0),
        is_as_expected=row.number("is_as_expected") == 1.0,
        is_breached=row.number("is_breached") == 1.0,
        tried_at=row.timestamp,
        nonce=str(row.fields.get("nonce", "")),
        refused_by=str(row.fields.get("refused_by", "")),
    )


def _scan(row: Latest) -> Scan:
    return Scan(
        scanner=row.tags["scanner"],
        exposed=str(row.fields.get("exposed", "")).split(),
        databases=int(row.number("exposed_databases_count") or 0),
        scanned=int(row.number("scanned_count") or 0),
        is_complete=row.number("is_complete") == 1.0,
        scanned_at=row.timestamp,
        udp_silent=int(row.number("udp_silent_count") or 0),
    )


def _months(store: Store, site: str, now: int) -> Mapping[tuple[str, ...], LineMonth]:
    """By asset and line. The hour that is not over yet is left out."""
    end, mean = now - now % HOUR_MS, Take("mean")
    start = end - MONTH_HOURS * HOUR_MS
    where, per = (("site", (site,)),), ("asset", "line")
    hours = store.buckets(Question("line", "is_up", where, per, start, end, HOUR_MS, mean, mean))
    return {
        key: LineMonth(float(one.values.mean()), float(one.values.min()), len(one.values) / MONTH_HOURS)
        for key, one in hours.items()
        if len(one.values)
    }


def _line(row: Latest, months: Mapping[tuple[str, ...], LineMonth]) -> LineNow:
    return LineNow(
        line=row.tags["line"],
        asset=row.tags["asset"],
        is_up=row.number("is_up") == 1.0,
        live_routes=int(row.number("live_routes_count") or 0),
        has_fallback=row.number("has_tested_fallback") == 1.0,
        committed=row.number("committed_bits_per_second"),
        seen_at=row.timestamp,
        month=months.get((row.tags["asset"], row.tags["line"])),
    )


def _neighbour(row: Latest) -> Neighbour:
    return Neighbour(
        name=str(row.fields.get("system_name") or row.tags["neighbour"]),
        heard_by=row.tags["asset"],
        is_managed=row.number("is_managed") == 1.0,
        seen_at=row.timestamp,
    )
