"""What keeps the made-up hospital running: replication, backups, the cluster, its services, its power. No I/O."""

from collections.abc import Iterator
from dataclasses import replace

from collector.demo import curves
from collector.demo.curves import DAY_MS, HOUR_MS, noisy, state, steady
from collector.demo.hospital import CAMPUSES, DATABASES, GATEWAYS, SERVICES, Campus
from collector.demo.sampled import FIVE_MINUTES_MS, Cast, Series

COPIES = {"disk": 1, "vault": 3}
"""The hour of the night in which each is made."""


def continuity(cast: Cast) -> Iterator[Series]:
    """Between the campuses, then of each campus."""
    for name in DATABASES:
        yield _replication(cast, name)
    for number, system in enumerate(SERVICES):
        for copy in COPIES:
            yield _copy(cast, system, copy, is_immutable=copy == "vault" and number != 4)
    yield from _between(cast)
    for campus in CAMPUSES:
        for service in SERVICES:
            yield _service(cast, campus, service)
        yield _power(cast, campus)


def _replication(cast: Cast, name: str) -> Series:
    weak = cast.story.weak_fibre
    fields = {
        "is_in_sync": state(weak),
        "is_running": state(),
        "lag_seconds": curves.during(noisy(0.02, 0.03), noisy(14.0, 9.0), weak),
        "serving_sides_count": steady(2.0),
        "secondary_share_ratio": steady(0.38),
    }
    return cast.series(f"east-{name}-1", "replication", FIVE_MINUTES_MS, fields, pair=f"{name}-pair")


def _copy(cast: Cast, system: str, copy: str, *, is_immutable: bool) -> Series:
    skipped = (cast.story.late_backup,) if system == "pacs" else ()
    is_vault, at = copy == "vault", COPIES[copy]
    fields = {
        "age_seconds": curves.age(6 * HOUR_MS, at * HOUR_MS, *skipped),
        "full_age_seconds": curves.age(DAY_MS, at * HOUR_MS, *skipped),
        "verified_age_seconds": curves.age(DAY_MS if is_vault else HOUR_MS, (at + 1) * HOUR_MS, *skipped),
        "is_full": steady(1.0),
        "is_automatic": steady(1.0),
        "is_offsite": steady(float(is_vault)),
        "is_isolated": steady(float(is_vault)),
        "is_immutable": steady(float(is_immutable)),
    }
    return cast.series("east-backup-1", "backup_copy", HOUR_MS, fields, system=system, copy=copy)


def _between(cast: Cast) -> Iterator[Series]:
    weak = cast.story.weak_fibre
    quorum = {
        "has_quorum": state(),
        "is_witness_reachable": state(weak),
        "is_manager_up": state(),
        "nodes_up_count": steady(2.0),
    }
    yield cast.series("east-cluster-1", "quorum", FIVE_MINUTES_MS, quorum, cluster="his-cluster")
    path = {
        "is_reachable": state(),
        "rtt_seconds": curves.during(noisy(0.0011, 0.0004), noisy(0.0061, 0.004), weak),
        "loss_ratio": curves.during(noisy(1e-5, 2e-5), noisy(0.012, 0.01), weak),
    }
    yield cast.series(GATEWAYS["east"], "path_probe", FIVE_MINUTES_MS, path, target=GATEWAYS["west"], probe="icmp")


def _service(cast: Cast, campus: Campus, service: str) -> Series:
    away = cast.story.away(service)
    fields = {"is_up": state(*away), "latency_seconds": noisy(0.008, 0.01)}
    one = cast.series(GATEWAYS[campus], "service_probe", HOUR_MS, fields, service=service, probe="http")
    return replace(one, close=(*away, cast.story.today))


def _power(cast: Cast, campus: Campus) -> Series:
    lost = cast.story.lost_power
    fields = {
        "runtime_seconds": curves.during(noisy(5_400.0, 600.0), noisy(3_000.0, 300.0), lost),
        "charge_ratio": steady(1.0),
        "is_on_battery": curves.during(steady(0.0), steady(1.0), lost),
        "feeds_up_count": curves.during(steady(2.0), steady(1.0), lost),
        "is_generator_available": steady(1.0),
    }
    return cast.series(f"{campus}-ups-1", "power_supply", HOUR_MS, fields, ups="ups-1")
