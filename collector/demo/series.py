"""Every signal of the made-up hospital: which agent gives it, how often, which values. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.points import Point, Value
from collector.demo import curves
from collector.demo.curves import DAY_MS, HOUR_MS, ZONE_MS, Curve, Spans, Times, noisy, state, steady
from collector.demo.hospital import (
    CAMPUSES,
    CRITICAL_SEGMENTS,
    DATABASES,
    GATEWAYS,
    LINES,
    SCANNER,
    SERVICES,
    Thing,
    things,
)
from collector.demo.story import MINUTE_MS, Story
from collector.simulated import SOURCE

FIVE_MINUTES_MS = 5 * MINUTE_MS
DENSE_MS = MINUTE_MS
BUSY = ((8, 12), (14, 18))
CONSULTING = ((9, 12),)
"""Hours of the working days: of the wards, of telemedicine."""
Labels = Mapping[str, Value]


@dataclass(frozen=True)
class Series:
    """One series. close: spans that are sampled every minute. silent: when nothing came.

    is_working_hours: only the wards' are sampled. is_working_minutes: telemedicine's are sampled every minute.
    """

    agent: str
    measurement: str
    tags: Mapping[str, str]
    step_ms: int
    fields: Mapping[str, Curve]
    close: Spans = ()
    silent: Spans = ()
    is_working_hours: bool = False
    is_working_minutes: bool = False

    def points(self, start: int, end: int) -> list[Point]:
        """Those from `start` until before `end`, milliseconds."""
        times = self._times(start, end)
        words = (self.measurement, *self.tags.values())
        columns = [curve(times, curves.seed_of(*words, name)).tolist() for name, curve in self.fields.items()]
        names, tags, name = tuple(self.fields), self.tags, self.measurement
        if len(names) == 1:
            (only,) = names
            return [Point(name, tags, {only: value}, at) for at, value in zip(times.tolist(), columns[0], strict=True)]
        rows = zip(times.tolist(), *columns, strict=True)
        return [Point(name, tags, dict(zip(names, row, strict=True)), at) for at, *row in rows]

    def _times(self, start: int, end: int) -> Times:
        times = np.arange(start + -start % self.step_ms, end, self.step_ms, dtype=np.int64)
        if self.is_working_hours:
            times = times[_is_working(times, *BUSY)]
        if self.is_working_minutes:
            every = np.arange(start + -start % DENSE_MS, end, DENSE_MS, dtype=np.int64)
            times = np.union1d(times, every[_is_working(every, *CONSULTING)])
        for since, until in self.close:
            since, until = max(start, since - since % HOUR_MS), min(end, until - until % HOUR_MS + HOUR_MS)
            times = np.union1d(times, np.arange(since + -since % DENSE_MS, until, DENSE_MS, dtype=np.int64))
        return times[~curves.inside(times, self.silent)] if self.silent else times


def _is_working(times: Times, *hours: tuple[int, int]) -> NDArray[np.bool_]:
    """Monday to Friday within these hours, as calendars.yaml of the demo says."""
    local = times + ZONE_MS
    hour = local % DAY_MS // HOUR_MS
    within = [(hour >= since) & (hour < until) for since, until in hours]
    found: NDArray[np.bool_] = np.logical_or.reduce(within) & ((local // DAY_MS + 3) % 7 < 5)
    return found


class Signals:
    """All series of the year that `story` tells, and all single events."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.things = {thing.id: thing for thing in things()}

    def series(self) -> Iterator[Series]:
        """Every series once."""
        for found in (self._rounds(), self._servers(), self._network(), self._lines(), self._storage(), self._virtual(),
                      self._failover(), self._security(), self._isolation(), self._management()):  # fmt: skip
            yield from found

    def _of(self, asset: str, measurement: str, step_ms: int, fields: Mapping[str, Curve], **tags: str) -> Series:
        agent = self.things[asset].reporter
        silent = (self.story.dead_agent,) if agent == GATEWAYS["west"] else ()
        return Series(agent, measurement, {"asset": asset, **tags}, step_ms, fields, silent=silent)

    def _assets(self, *classes: str) -> Iterable[Thing]:
        return (one for one in self.things.values() if one.said.get("class") in classes)

    def _rounds(self) -> Iterator[Series]:
        """That agents ran, and that every device answered; one that did not say so would be listed as failing."""
        for thing in self._assets("server", "network", "firewall", "storage", "ups", "hypervisor"):
            is_agent = thing.reporter == thing.id
            fields = {"interval_seconds": steady(DAY_MS / 1000), "is_success": state(), "points_count": steady(12.0)}
            yield self._of(
                thing.id, "source_round", HOUR_MS if is_agent else DAY_MS, fields, source=SOURCE, target="local"
            )

    def _servers(self) -> Iterator[Series]:
        for thing in self._assets("server"):
            seed = curves.seed_of(thing.id)
            is_virtual = (
                "application" in str(thing.said.get("role")) or "dr" in str(thing.said.get("role")) or seed % 3 > 0
            )
            yield self._of(
                thing.id,
                "asset_info",
                DAY_MS,
                {"is_virtual": steady(float(is_virtual)), "is_up": state(), "cores_count": steady(16.0)},
            )
            yield self._of(thing.id, "host_cpu", DAY_MS, {"busy_ratio": curves.busy(0.05, 0.2 + seed % 40 / 100)})
            yield self._of(thing.id, "host_memory", DAY_MS, {"used_ratio": noisy(0.4 + seed % 30 / 100, 0.05)})
            stale = (self.story.at(30), self.story.at(26)) if seed % 11 == 0 else (0, 0)
            ages = curves.age(DAY_MS, 5 * HOUR_MS, stale)
            yield self._of(
                thing.id,
                "endpoint_protection",
                HOUR_MS,
                {"is_running": steady(float(seed % 19 > 0)), "signature_age_seconds": ages},
            )

    def _network(self) -> Iterator[Series]:
        story = self.story
        for thing in self._assets("network", "firewall"):
            fields = {
                "cpu_busy_ratio": curves.busy(0.08, 0.42),
                "memory_used_ratio": noisy(0.55 if thing.said["class"] == "network" else 0.68, 0.05),
            }
            load = self._of(thing.id, "device_load", HOUR_MS, fields, component="chassis")
            yield replace(load, is_working_hours=True)
            yield self._of(thing.id, "asset_info", DAY_MS, {"is_up": state()})
            if thing.said.get("criticality") == "critical":
                broken = (story.broken_supply,) if thing.id == "east-core-1" else ()
                yield from self._redundant(thing.id, "psu", *broken)
                yield from self._redundant(thing.id, "fan")
        for campus in CAMPUSES:
            for number in (1, 2):
                for role, count, speed in (("core", 4, 40e9), ("aggregation", 2, 10e9)):
                    for port in range(1, count + 1):
                        yield self._interface(f"{campus}-{role}-{number}", f"port-{port}", speed)
            yield from self._redundant(f"{campus}-core-1", "link", story.weak_fibre)

    def _redundant(self, asset: str, kind: str, *broken: tuple[int, int]) -> Iterator[Series]:
        healthy = curves.during(steady(2.0), steady(1.0), *broken)
        fields = {
            "is_healthy": state(*broken),
            "is_redundant": state(*broken),
            "healthy_count": healthy,
            "members_count": steady(2.0),
        }
        yield self._of(asset, "redundant_group", DAY_MS, fields, group=f"{kind}-1", kind=kind)

    def _interface(self, asset: str, interface: str, speed: float) -> Series:
        bad = self.story.weak_fibre if interface == "port-1" and "core-1" in asset else (0, 0)
        fields = {
            "busy_ratio": curves.busy(0.04, 0.38),
            "error_ratio": curves.during(noisy(2e-8, 2e-8), noisy(2e-4, 1e-4), bad),
            "discard_ratio": noisy(4e-7, 4e-7),
            "speed_bits_per_second": steady(speed),
            "is_up": state(),
        }
        return self._of(asset, "net_interface", HOUR_MS, fields, interface=interface)

    def _lines(self) -> Iterator[Series]:
        story, probing = self.story, "east-telemedicine-1"
        for number, (line, (_, _, _, rate)) in enumerate(LINES.items()):
            cut = (story.line_cut,) if number else ()
            fields = {
                "is_up": state(*cut),
                "live_routes_count": steady(2.0 - number),
                "has_tested_fallback": steady(1.0),
                "committed_bits_per_second": steady(rate),
            }
            one = self._of(probing, "line", HOUR_MS, fields, line=line)
            yield _closely(one, cut)
            fields = {
                "is_reachable": state(*cut),
                "rtt_seconds": noisy(0.021 + 0.01 * number, 0.006),
                "one_way_delay_seconds": noisy(0.011 + 0.006 * number, 0.004),
                "jitter_seconds": noisy(0.0016 + 0.001 * number, 0.002),
                "loss_ratio": curves.during(noisy(2e-4, 3e-4), steady(1.0), *cut),
            }
            path = self._of(probing, "path_probe", FIVE_MINUTES_MS, fields, target=line, probe="stream")
            yield replace(path, is_working_minutes=True)
        for segment in CRITICAL_SEGMENTS:
            live = {"live_paths_count": steady(2.0), "has_redundant_gateway": steady(1.0)}
            yield self._of(
                GATEWAYS["west" if "west" in segment else "east"], "network_segment", DAY_MS, live, segment=segment
            )

    def _storage(self) -> Iterator[Series]:
        began = self.story.at(365)
        for campus in CAMPUSES:
            array = f"{campus}-array-1"
            yield self._of(array, "asset_info", DAY_MS, {"is_up": state()})
            for kind in ("controller", "disk", "psu"):
                yield from self._redundant(array, kind)
            for tier, level in (("flash", 1.0), ("disk", 2.0), ("archive", 3.0)):
                used = curves.growing(began, 0.46 + 0.05 * level, 0.0004)
                fields = {
                    "size_bytes": steady(8e13 * level), "used_ratio": used, "time_to_full_seconds": noisy(400 * 86_400.0, 8e6),
                    "tier_level": steady(level), "is_virtualised": steady(1.0), "is_dual_controller": steady(1.0),
                    "is_distributed": steady(0.0), "is_synchronous": steady(float(level == 1)), "is_healthy": state(),
                }  # fmt: skip
                yield self._of(array, "storage_pool", DAY_MS, fields, pool=tier)
                cold = curves.growing(began, 2e13, 3e10)
                fields = {
                    "tier_level": steady(level), "last_access_age_seconds": noisy(3_600.0 * level, 3_000.0), "cold_bytes": cold,
                    "cold_below_top_bytes": curves.scaled(cold, 0.83),
                }  # fmt: skip
                yield self._of(array, "storage_tier", DAY_MS, fields, tier=tier)
            for kind in ("imaging", "records", "logs"):
                kept = {
                    "is_conformant": steady(float(kind != "logs")),
                    "is_locked": steady(1.0),
                    "retention_seconds": steady(15 * 365 * 86_400.0),
                }
                yield self._of(array, "retention_policy", DAY_MS, kept, **{"class": kind})
        for probe in ("study-of-5-years", "study-of-last-week"):
            slow = noisy(1.8 if "last" in probe else 6.0, 1.2)
            yield self._of(
                GATEWAYS["east"],
                "record_retrieval",
                HOUR_MS,
                {"response_seconds": slow, "is_success": state()},
                probe=probe,
            )

    def _virtual(self) -> Iterator[Series]:
        manager = "east-vcenter-1"
        fields = {
            "hosts_count": steady(12.0),
            "hosts_up_count": steady(12.0),
            "is_critical_load_fitting": state(self.story.lost_power),
        }
        yield self._of(manager, "hypervisor_cluster", FIVE_MINUTES_MS, fields, cluster="hospital")
        for campus, hosts in zip(CAMPUSES, (8, 4), strict=True):
            for number in range(1, hosts + 1):
                host = f"{campus}-host-{number:02}"
                yield self._of(host, "asset_info", DAY_MS, {"is_up": state()})
                yield from self._redundant(host, "psu")
                yield from self._redundant(host, "nic")
                yield self._of(manager, "platform_member", HOUR_MS, {"is_reporting": state()}, member=host)
                for vm in range(1, 5):
                    protected = float((number, vm) != (3, 4))
                    fields = {"is_ha_protected": steady(protected), "is_running": state(), "is_autostart": steady(1.0)}
                    yield self._of(host, "virtual_machine", DAY_MS, fields, vm=f"{host}-vm-{vm}")
            yield self._of(
                manager,
                "virtual_segment",
                HOUR_MS,
                {"has_live_sensor": state(self.story.dead_sensor)},
                segment=f"{campus}-virtual",
            )

    def _failover(self) -> Iterator[Series]:
        story = self.story
        for name in DATABASES:
            lagging = curves.during(noisy(0.02, 0.03), noisy(14.0, 9.0), story.weak_fibre)
            fields = {
                "is_in_sync": state(story.weak_fibre), "is_running": state(), "lag_seconds": lagging,
                "serving_sides_count": steady(2.0), "secondary_share_ratio": steady(0.38),
            }  # fmt: skip
            yield self._of(f"east-{name}-1", "replication", FIVE_MINUTES_MS, fields, pair=f"{name}-pair")
        for number, system in enumerate(SERVICES):
            skipped = (story.late_backup,) if system == "pacs" else ()
            for copy, at in (("disk", 1), ("vault", 3)):
                is_vault = float(copy == "vault")
                fields = {
                    "age_seconds": curves.age(6 * HOUR_MS, at * HOUR_MS, *skipped),
                    "full_age_seconds": curves.age(DAY_MS, at * HOUR_MS, *skipped),
                    "verified_age_seconds": curves.age(DAY_MS if is_vault else HOUR_MS, (at + 1) * HOUR_MS, *skipped),
                    "is_full": steady(1.0), "is_automatic": steady(1.0), "is_offsite": steady(is_vault),
                    "is_isolated": steady(is_vault), "is_immutable": steady(is_vault * float(number != 4)),
                }  # fmt: skip
                yield self._of("east-backup-1", "backup_copy", HOUR_MS, fields, system=system, copy=copy)
        fields = {
            "has_quorum": state(), "is_witness_reachable": state(story.weak_fibre), "is_manager_up": state(), "nodes_up_count": steady(2.0),
        }  # fmt: skip
        yield self._of("east-cluster-1", "quorum", FIVE_MINUTES_MS, fields, cluster="his-cluster")
        fields = {
            "is_reachable": state(), "rtt_seconds": curves.during(noisy(0.0011, 0.0004), noisy(0.0061, 0.004), story.weak_fibre),
            "loss_ratio": curves.during(noisy(1e-5, 2e-5), noisy(0.012, 0.01), story.weak_fibre),
        }  # fmt: skip
        yield self._of(GATEWAYS["east"], "path_probe", FIVE_MINUTES_MS, fields, target=GATEWAYS["west"], probe="icmp")
        for campus in CAMPUSES:
            for service in SERVICES:
                away = story.away(service)
                fields = {"is_up": state(*away), "latency_seconds": noisy(0.008, 0.01)}
                one = self._of(GATEWAYS[campus], "service_probe", HOUR_MS, fields, service=service, probe="http")
                yield _closely(one, (*away, story.today))
            power = {
                "runtime_seconds": curves.during(noisy(5_400.0, 600.0), noisy(3_000.0, 300.0), story.lost_power), "charge_ratio": steady(1.0),
                "is_on_battery": lambda times, _: curves.inside(times, (story.lost_power,)).astype(float),
                "feeds_up_count": curves.during(steady(2.0), steady(1.0), story.lost_power), "is_generator_available": steady(1.0),
            }  # fmt: skip
            yield self._of(f"{campus}-ups-1", "power_supply", HOUR_MS, power, ups="ups-1")

    def _security(self) -> Iterator[Series]:
        story, security = self.story, "east-security-1"
        classes = {
            "iot": (420, 0.93),
            "medical": (310, 0.97),
            "mobile": (260, 0.78),
            "cloud": (24, 1.0),
            "ai": (9, 0.89),
        }
        for kind, (count, share) in classes.items():
            managed = steady(round(count * share))
            fields = {
                "discovered_count": steady(count), "registered_count": steady(round(count * min(1, share + 0.05))),
                "authenticated_count": managed, "segmented_count": managed, "managed_count": managed,
            }  # fmt: skip
            yield self._of(security, "endpoint_class", DAY_MS, fields, **{"class": kind})
        for campus in CAMPUSES:
            security = f"{campus}-security-1"
            dead = (story.dead_sensor,) if campus == "west" else ()
            yield self._of(
                security,
                "wireless_sensor",
                HOUR_MS,
                {"is_live": state(*dead), "coverage_ratio": steady(0.96)},
                sensor="ap",
            )
            watching = {"is_live": state(), "coverage_ratio": steady(0.97), "endpoints_count": steady(1_350.0)}
            yield self._of(security, "connection_sensor", HOUR_MS, watching, sensor="nac")
            yield self._of(
                security,
                "threat_sensor",
                HOUR_MS,
                {"tier_level": steady(2.0), "is_healthy": state(*dead)},
                sensor="probe-1",
            )
            for channel in ("mail", "web", "usb"):
                yield self._of(
                    security,
                    "egress_channel",
                    HOUR_MS,
                    {"has_live_control": steady(float(channel != "usb"))},
                    channel=channel,
                )
            scanned = {
                "open_high_count": noisy(6.0, 4.0), "open_high_age_p90_seconds": noisy(21 * 86_400.0, 3 * 86_400.0),
                "scan_age_seconds": curves.age(7 * DAY_MS, 3 * HOUR_MS),
            }  # fmt: skip
            yield self._of(security, "vulnerability_scan", DAY_MS, scanned, scanner="scanner-1")
        opened = curves.during(steady(0.0), steady(1.0), story.open_database)
        seen = {"exposed_count": curves.during(steady(1.0), steady(2.0), story.open_database), "exposed_databases_count": opened,
                "scanned_count": steady(640.0), "is_complete": state()}  # fmt: skip
        yield self._of(SCANNER, "exposure_scan", DAY_MS, seen, scanner="outside")

    def _isolation(self) -> Iterator[Series]:
        ways = [("office", "medical", "3306"), ("office", "device", "104"), ("dmz", "medical", "1521"), ("outside", "medical", "443"),
                ("outside", "office", "445"), ("device", "office", "445"), ("medical", "device", "104")]  # fmt: skip
        for source, target, port in ways:
            asset = SCANNER if source == "outside" else GATEWAYS["east"]
            hole = (self.story.hole,) if (source, target) == ("office", "device") else ()
            is_allowed = (source, target) == ("medical", "device")
            fields = {
                "is_as_expected": state(*hole), "is_proven": state(), "is_allowed": steady(float(is_allowed)), "is_breached": steady(0.0),
                "is_reached": steady(1.0) if is_allowed else curves.during(steady(0.0), steady(1.0), *hole),
                "outcome": steady(1.0) if is_allowed else curves.during(steady(2.0), steady(1.0), *hole),
            }  # fmt: skip
            way = {"from_zone": source, "to_zone": target}
            yield self._of(asset, "isolation_cell", DAY_MS, fields, protocol="tcp", port=port, **way)
            yield self._of(asset, "isolation_control", DAY_MS, {"is_seen": state()}, **way)
            if target != "medical":
                continue
            flows = {"flows_count": steady(4_000.0), "controlled_flows_count": steady(3_997.0)}
            yield self._of(GATEWAYS["east"], "zone_flow", HOUR_MS, flows, **way)
        for campus in CAMPUSES:
            fields = {
                "strength_level": steady(3.0), "is_in_service": state(), "is_default_deny": steady(1.0), "permit_any_count": steady(0.0),
                "rules_count": steady(212.0), "stale_rules_count": noisy(24.0, 3.0),
            }  # fmt: skip
            yield self._of(f"{campus}-firewall-1", "boundary", DAY_MS, fields, boundary="internet")

    def _management(self) -> Iterator[Series]:
        for thing in self._assets("network", "firewall", "storage", "ups"):
            seed = curves.seed_of(thing.id)
            yield self._of(
                thing.id, "poll", DAY_MS, {"is_answering": state(), "rtt_seconds": noisy(0.003, 0.002)}, target=thing.id
            )
            if thing.said["class"] == "ups":
                continue
            for protocol in ("telnet", "http", "snmp-v1", "snmp-v2c"):
                answers = float(protocol == "snmp-v2c" and seed % 5 == 0)
                yield self._of(
                    thing.id, "management_access", DAY_MS, {"is_answering": steady(answers)}, protocol=protocol
                )
            clock = {"offset_seconds": noisy(0.02, 0.03), "is_synchronised": steady(1.0)}
            yield self._of(thing.id, "host_clock", DAY_MS, clock)
            if thing.said["class"] != "storage":
                kept = {"age_seconds": curves.age(DAY_MS, 2 * HOUR_MS), "has_drift": steady(float(seed % 17 == 0))}
                yield self._of(thing.id, "config_backup", DAY_MS, kept)
        for origin in ("network", "server", "emr-database"):
            since = self.story.at(400 if origin != "emr-database" else 260)
            kept = {
                "oldest_age_seconds": curves.growing(since, 200 * 86_400.0, 86_400.0),
                "last_arrival_age_seconds": noisy(4.0, 6.0),
            }
            yield self._of("east-log-1", "log_archive", 6 * HOUR_MS, kept, origin=origin)

    def events(self) -> Iterator[tuple[str, Point]]:
        """Agent and point of everything that happened once."""
        gateway = GATEWAYS["east"]
        for outage in self.story.outages():
            fields: Labels = {
                "duration_seconds": (outage.end - outage.start) / 1000, "is_automatic": float(outage.is_automatic),
                "lost_tokens_count": float(outage.lost_tokens),
            }  # fmt: skip
            yield gateway, Point("outage", {"asset": gateway, "service": outage.service}, fields, outage.end)
        for drill in self.story.drills():
            fields = {
                "rto_seconds": drill.rto, "rpo_seconds": drill.rpo, "lost_tokens_count": drill.rpo * 10, "is_passed": float(drill.is_passed),
                "is_planned": 1.0, "is_automatic": float(drill.is_automatic), "sent_count": 6_000.0, "acknowledged_count": max(0.0, 6_000.0 - 10 * drill.rto),
            }  # fmt: skip
            tags = {"asset": gateway, "service": drill.service, "drill": drill.id}
            yield gateway, Point("drill", tags, fields, drill.at)
        for system, at, seconds in self.story.restore_tests():
            fields = {"is_passed": 1.0, "duration_seconds": seconds}
            yield "east-backup-1", Point("restore_test", {"asset": "east-backup-1", "system": system}, fields, at)
        for day in range(364, 0, -1):
            yield from self._daily(day)

    def _daily(self, day: int) -> Iterator[tuple[str, Point]]:
        seed = curves.seed_of("day", str(day))
        at = self.story.at(day) + seed % 20 * HOUR_MS + seed % 3_600_000
        if seed % 9 == 0:
            after = 120.0 + seed % 700
            yield (
                GATEWAYS["east"],
                Point(
                    "alarm",
                    {"asset": GATEWAYS["east"], "severity": "critical"},
                    {"acknowledged_after_seconds": after},
                    at,
                ),
            )
        if seed % 23 == 0:
            fields: Labels = {"is_contained": 1.0, "contained_after_seconds": 40.0 + seed % 90, "is_automatic": 1.0}
            yield (
                "east-security-1",
                Point("rogue_wireless", {"asset": "east-security-1", "kind": "rogue-ap"}, fields, at),
            )
        if seed % 40 == 0:
            yield (
                "east-security-1",
                Point(
                    "illegal_connection", {"asset": "east-security-1", "kind": "dual-homed"}, {"is_blocked": 1.0}, at
                ),
            )
        fields = {"is_success": float(seed % 60 > 0), "is_automatic": 1.0, "duration_seconds": 900.0 + seed % 600}
        yield (
            "east-backup-1",
            Point(
                "lifecycle_job",
                {"asset": "east-backup-1", "job": "to-archive"},
                fields,
                self.story.at(day) + 4 * HOUR_MS,
            ),
        )


def _closely(one: Series, spans: Spans) -> Series:
    return replace(one, close=spans)
