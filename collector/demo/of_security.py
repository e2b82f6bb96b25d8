"""What watches over the made-up hospital, and what its zones let through. No I/O."""

from collections.abc import Iterator, Mapping

from collector.demo import curves
from collector.demo.curves import DAY_MS, HOUR_MS, Curve, noisy, state, steady
from collector.demo.hospital import CAMPUSES, GATEWAYS, SCANNER, Campus
from collector.demo.sampled import Cast, Series

CLASSES = {"iot": (420, 0.93), "medical": (310, 0.97), "mobile": (260, 0.78), "cloud": (24, 1.0), "ai": (9, 0.89)}
"""How many endpoints of each kind, and which share of them is managed."""
WAYS = (
    ("office", "medical", "3306"),
    ("office", "device", "104"),
    ("dmz", "medical", "1521"),
    ("outside", "medical", "443"),
    ("outside", "office", "445"),
    ("device", "office", "445"),
    ("medical", "device", "104"),
)
"""From a zone into another, and the port that was tried."""


def security(cast: Cast) -> Iterator[Series]:
    """Endpoints, then the sensors of each campus, then what can be seen from outside."""
    for kind, (count, share) in CLASSES.items():
        managed = steady(round(count * share))
        fields = {
            "discovered_count": steady(count),
            "registered_count": steady(round(count * min(1, share + 0.05))),
            "authenticated_count": managed,
            "segmented_count": managed,
            "managed_count": managed,
        }
        yield cast.series("east-security-1", "endpoint_class", DAY_MS, fields, **{"class": kind})
    for campus in CAMPUSES:
        yield from _sensors(cast, campus)
    opened = cast.story.open_database
    seen = {
        "exposed_count": curves.during(steady(1.0), steady(2.0), opened),
        "exposed_databases_count": curves.during(steady(0.0), steady(1.0), opened),
        "scanned_count": steady(640.0),
        "is_complete": state(),
    }
    yield cast.series(SCANNER, "exposure_scan", DAY_MS, seen, scanner="outside")


def _sensors(cast: Cast, campus: Campus) -> Iterator[Series]:
    asset = f"{campus}-security-1"
    dead = (cast.story.dead_sensor,) if campus == "west" else ()
    wireless = {"is_live": state(*dead), "coverage_ratio": steady(0.96)}
    yield cast.series(asset, "wireless_sensor", HOUR_MS, wireless, sensor="ap")
    watching = {"is_live": state(), "coverage_ratio": steady(0.97), "endpoints_count": steady(1_350.0)}
    yield cast.series(asset, "connection_sensor", HOUR_MS, watching, sensor="nac")
    probing = {"tier_level": steady(2.0), "is_healthy": state(*dead)}
    yield cast.series(asset, "threat_sensor", HOUR_MS, probing, sensor="probe-1")
    for channel in ("mail", "web", "usb"):
        live = {"has_live_control": steady(float(channel != "usb"))}
        yield cast.series(asset, "egress_channel", HOUR_MS, live, channel=channel)
    scanned = {
        "open_high_count": noisy(6.0, 4.0),
        "open_high_age_p90_seconds": noisy(21 * 86_400.0, 3 * 86_400.0),
        "scan_age_seconds": curves.age(7 * DAY_MS, 3 * HOUR_MS),
    }
    yield cast.series(asset, "vulnerability_scan", DAY_MS, scanned, scanner="scanner-1")


def isolation(cast: Cast) -> Iterator[Series]:
    """Every way between zones that was tried, and the boundary of each campus."""
    for source, target, port in WAYS:
        asset = SCANNER if source == "outside" else GATEWAYS["east"]
        way = {"from_zone": source, "to_zone": target}
        cell = _cell(cast, source, target)
        yield cast.series(asset, "isolation_cell", DAY_MS, cell, protocol="tcp", port=port, **way)
        yield cast.series(asset, "isolation_control", DAY_MS, {"is_seen": state()}, **way)
        if target == "medical":
            flows = {"flows_count": steady(4_000.0), "controlled_flows_count": steady(3_997.0)}
            yield cast.series(GATEWAYS["east"], "zone_flow", HOUR_MS, flows, **way)
    for campus in CAMPUSES:
        fields = {
            "strength_level": steady(3.0),
            "is_in_service": state(),
            "is_default_deny": steady(1.0),
            "permit_any_count": steady(0.0),
            "rules_count": steady(212.0),
            "stale_rules_count": noisy(24.0, 3.0),
        }
        yield cast.series(f"{campus}-firewall-1", "boundary", DAY_MS, fields, boundary="internet")


def _cell(cast: Cast, source: str, target: str) -> Mapping[str, Curve]:
    hole = (cast.story.hole,) if (source, target) == ("office", "device") else ()
    is_allowed = (source, target) == ("medical", "device")
    through = steady(1.0)
    return {
        "is_as_expected": state(*hole),
        "is_proven": state(),
        "is_allowed": steady(float(is_allowed)),
        "is_breached": steady(0.0),
        "is_reached": through if is_allowed else curves.during(steady(0.0), through, *hole),
        "outcome": through if is_allowed else curves.during(steady(2.0), through, *hole),
    }
