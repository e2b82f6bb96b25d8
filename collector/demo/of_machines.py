"""Servers, arrays and virtual machines of the made-up hospital, and how all devices are looked after. No I/O."""

from collections.abc import Iterator

from collector.demo import curves
from collector.demo.curves import DAY_MS, HOUR_MS, noisy, state, steady
from collector.demo.hospital import CAMPUSES, GATEWAYS, Thing
from collector.demo.sampled import FIVE_MINUTES_MS, Cast, Series
from collector.simulated import SOURCE

VIRTUALIZATION = "east-vcenter-1"
HOSTS = dict(zip(CAMPUSES, (8, 4), strict=True))
TIERS = {"flash": 1.0, "disk": 2.0, "archive": 3.0}


def rounds(cast: Cast) -> Iterator[Series]:
    """That agents ran, and that every device answered; one that did not say so would be listed as failing."""
    for thing in cast.assets("server", "network", "firewall", "storage", "ups", "hypervisor"):
        step = HOUR_MS if thing.reporter == thing.id else DAY_MS
        fields = {"interval_seconds": steady(DAY_MS / 1000), "is_success": state(), "points_count": steady(12.0)}
        yield cast.series(thing.id, "source_round", step, fields, source=SOURCE, target="local")


def servers(cast: Cast) -> Iterator[Series]:
    """What each server's own agent gives."""
    for thing in cast.assets("server"):
        seed, role = curves.seed_of(thing.id), str(thing.said.get("role"))
        is_virtual = "application" in role or "dr" in role or seed % 3 > 0
        info = {"is_virtual": steady(float(is_virtual)), "is_up": state(), "cores_count": steady(16.0)}
        yield cast.series(thing.id, "asset_info", DAY_MS, info)
        yield cast.series(thing.id, "host_cpu", DAY_MS, {"busy_ratio": curves.busy(0.05, 0.2 + seed % 40 / 100)})
        yield cast.series(thing.id, "host_memory", DAY_MS, {"used_ratio": noisy(0.4 + seed % 30 / 100, 0.05)})
        stale = cast.story.span(30, 26) if seed % 11 == 0 else (0, 0)
        ages = curves.age(DAY_MS, 5 * HOUR_MS, stale)
        protected = {"is_running": steady(float(seed % 19 > 0)), "signature_age_seconds": ages}
        yield cast.series(thing.id, "endpoint_protection", HOUR_MS, protected)


def machines(cast: Cast) -> Iterator[Series]:
    """Arrays, and what runs on the hypervisor hosts."""
    for campus in CAMPUSES:
        yield from _array(cast, f"{campus}-array-1")
    for probe, usual in (("study-of-5-years", 6.0), ("study-of-last-week", 1.8)):
        fields = {"response_seconds": noisy(usual, 1.2), "is_success": state()}
        yield cast.series(GATEWAYS["east"], "record_retrieval", HOUR_MS, fields, probe=probe)
    cluster = {
        "hosts_count": steady(12.0),
        "hosts_up_count": steady(12.0),
        "is_critical_load_fitting": state(cast.story.lost_power),
    }
    yield cast.series(VIRTUALIZATION, "hypervisor_cluster", FIVE_MINUTES_MS, cluster, cluster="hospital")
    for campus, hosts in HOSTS.items():
        for number in range(1, hosts + 1):
            yield from _host(cast, f"{campus}-host-{number:02}", number)
        watched = {"has_live_sensor": state(cast.story.dead_sensor)}
        yield cast.series(VIRTUALIZATION, "virtual_segment", HOUR_MS, watched, segment=f"{campus}-virtual")


def _array(cast: Cast, array: str) -> Iterator[Series]:
    yield cast.series(array, "asset_info", DAY_MS, {"is_up": state()})
    for kind in ("controller", "disk", "psu"):
        yield from cast.redundant(array, kind)
    for tier, level in TIERS.items():
        yield from _tier(cast, array, tier, level)
    for kind in ("imaging", "records", "logs"):
        kept = {
            "is_conformant": steady(float(kind != "logs")),
            "is_locked": steady(1.0),
            "retention_seconds": steady(15 * 365 * 86_400.0),
        }
        yield cast.series(array, "retention_policy", DAY_MS, kept, **{"class": kind})


def _tier(cast: Cast, array: str, tier: str, level: float) -> Iterator[Series]:
    began = cast.story.at(365)
    pool = {
        "size_bytes": steady(8e13 * level),
        "used_ratio": curves.growing(began, 0.46 + 0.05 * level, 0.0004),
        "time_to_full_seconds": noisy(400 * 86_400.0, 8e6),
        "tier_level": steady(level),
        "is_virtualised": steady(1.0),
        "is_dual_controller": steady(1.0),
        "is_distributed": steady(0.0),
        "is_synchronous": steady(float(level == 1)),
        "is_healthy": state(),
    }
    yield cast.series(array, "storage_pool", DAY_MS, pool, pool=tier)
    cold = curves.growing(began, 2e13, 3e10)
    fields = {
        "tier_level": steady(level),
        "last_access_age_seconds": noisy(3_600.0 * level, 3_000.0),
        "cold_bytes": cold,
        "cold_below_top_bytes": curves.scaled(cold, 0.83),
    }
    yield cast.series(array, "storage_tier", DAY_MS, fields, tier=tier)


def _host(cast: Cast, host: str, number: int) -> Iterator[Series]:
    yield cast.series(host, "asset_info", DAY_MS, {"is_up": state()})
    yield from cast.redundant(host, "psu")
    yield from cast.redundant(host, "nic")
    yield cast.series(VIRTUALIZATION, "platform_member", HOUR_MS, {"is_reporting": state()}, member=host)
    for vm in range(1, 5):
        protected = float((number, vm) != (3, 4))
        fields = {"is_ha_protected": steady(protected), "is_running": state(), "is_autostart": steady(1.0)}
        yield cast.series(host, "virtual_machine", DAY_MS, fields, vm=f"{host}-vm-{vm}")


def management(cast: Cast) -> Iterator[Series]:
    """How every device is reached and kept, and how long its logs are."""
    for thing in cast.assets("network", "firewall", "storage", "ups"):
        yield from _managed(cast, thing)
    for origin, days in (("network", 400), ("server", 400), ("emr-database", 260)):
        kept = {
            "oldest_age_seconds": curves.growing(cast.story.at(days), 200 * 86_400.0, 86_400.0),
            "last_arrival_age_seconds": noisy(4.0, 6.0),
        }
        yield cast.series("east-log-1", "log_archive", 6 * HOUR_MS, kept, origin=origin)


def _managed(cast: Cast, thing: Thing) -> Iterator[Series]:
    seed, kind = curves.seed_of(thing.id), thing.said["class"]
    answered = {"is_answering": state(), "rtt_seconds": noisy(0.003, 0.002)}
    yield cast.series(thing.id, "poll", DAY_MS, answered, target=thing.id)
    if kind == "ups":
        return
    for protocol in ("telnet", "http", "snmp-v1", "snmp-v2c"):
        answers = float(protocol == "snmp-v2c" and seed % 5 == 0)
        yield cast.series(thing.id, "management_access", DAY_MS, {"is_answering": steady(answers)}, protocol=protocol)
    clock = {"offset_seconds": noisy(0.02, 0.03), "is_synchronised": steady(1.0)}
    yield cast.series(thing.id, "host_clock", DAY_MS, clock)
    if kind != "storage":
        kept = {"age_seconds": curves.age(DAY_MS, 2 * HOUR_MS), "has_drift": steady(float(seed % 17 == 0))}
        yield cast.series(thing.id, "config_backup", DAY_MS, kept)
