"""From a device's walk to the score: what each profile gives, kept up for weeks, read by the shipped rules.

A rule that asks for what no profile gives any more, or a profile whose state means something else to a rule, turns this red. The walks are
those of tests/walks; that a device answered like this for weeks is told to the store by repeating its points.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from replayed import WALKS, replayed

from agent.catalogue import load
from agent.points import Point
from agent.readings import Settler
from agent.snmp.ber import INTEGER, Binding
from agent.snmp.discover import guess_class
from agent.snmp.profile import load_profiles
from agent.snmp.trend import Trends
from agent.snmp.walkfile import order, read_walk
from agent.sources import Reading
from collector.evaluate import Rules, evaluate, parse_time
from collector.inquiry import Site
from collector.query import DAY_MS
from collector.ruleset import load_rules, memory_store
from collector.score import CriterionResult
from collector.site_files import read_site_folder
from collector.stores import AppliedBatch

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
DAYS, OFTEN_SECONDS, SELDOM_SECONDS = 8, 100, 1200
"""A week and a day is what the rules ask for at least; buckets of five minutes, of an hour and more hold three rounds at least."""

INDICATORS = (
    "network-capacity",
    "network-management",
    "dual-active-backup",
    "fault-self-healing",
    "virtualization",
    "tiered-storage",
)
ROLES = "[core, aggregation, uplink, platform, imaging, path-probe, inter-site, inter-site-probe, database]"
CALENDARS = 'busy: {days: {mon-sun: ["00:00-24:00"]}}\n'


async def told(walk: str | list[Binding]) -> tuple[list[Reading], str]:
    """What a device gives in a round once it is known: rates are there, and when its pools are full. And its class."""
    async with replayed(walk) as bench:
        now = [0.0]
        bench.device._trends = Trends(clock=lambda: now[0])
        first = await bench.round()
        now[0] = 2 * 86400.0
        readings = [*await bench.round(), *(one for one in first if one.name.startswith("neighbour"))]
        is_ups = any(one.name == "power_supply" for one in readings)
    return readings, "ups" if is_ups else guess_class(bench.device.object_id, load_profiles()) or "network"


def kept_up(points: Sequence[Point], interval_seconds: int) -> Iterator[Point]:
    """The same points in every round of the last days."""
    about = {"is_success": 1.0, "is_complete": 1.0, "interval_seconds": float(interval_seconds)}
    source_round = Point("source_round", {"asset": "it", "source": "snmp_device", "target": "it"}, about, 0)
    for time in range(AS_OF - DAYS * DAY_MS, AS_OF, interval_seconds * 1000):
        for one in (source_round, *points):
            yield Point(one.name, one.tags, one.fields, time)


def score(
    rules: Rules, folder: Path, readings: Sequence[Reading], asset_class: str, interval_seconds: int = OFTEN_SECONDS
) -> Mapping[str, CriterionResult]:
    """The measured criteria of the indicators that SNMP feeds, for a hospital of this one device."""
    register = f"assets: {{it: {{class: {asset_class}, criticality: critical, role: {ROLES}, from: 2026-03-23}}}}\n"
    (folder / "register.yaml").write_text(register)
    (folder / "calendars.yaml").write_text(CALENDARS)
    read, _ = read_site_folder(folder)
    points = Settler(load(), "it").settle(tuple(readings), AS_OF, "snmp_device").points
    with memory_store(rules.catalogue) as store:
        store.write(
            [AppliedBatch("hospital", "it", "", -1, "it", AS_OF, AS_OF, list(kept_up(points, interval_seconds)), 0, ())]
        )
        card = evaluate(store, rules, Site("hospital", read.zone, read), AS_OF)
    nodes = [one for one in card.nodes if one.id.rpartition(".")[2] in INDICATORS]
    return {one.id: one for node in nodes for one in node.criteria if one.kind == "measured"}


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


def device(*walks: str) -> list[Binding]:
    """One device that answers what these walks hold, and is what the first one is."""
    held: dict[str, Binding] = {}
    for walk in walks:
        for one in read_walk(WALKS / f"{walk}.snmprec"):
            held.setdefault(one.oid, one)
    return list(held.values())


EXPECTED = [
    (("built_interfaces",), {"backbone-bandwidth-class": 70, "core-link-peak-util": 100}),
    (("built_interfaces_32_bits",), {"backbone-bandwidth-class": 0, "core-link-peak-util": 100}),
    (("built_cisco",), {"network-device-peak-load": 100, "inter-site-link-redundancy": 100}),
    (
        ("built_h3c", "built_interfaces"),
        {
            "network-device-peak-load": 100,
            "inter-site-latency": 50,
            "inter-site-link-redundancy": 100,
            "backbone-bandwidth-class": 70,
            "secure-management-ratio": 0,
            "managed-device-coverage": 100,
        },
    ),
    (
        ("built_huawei",),
        {"network-device-peak-load": 100, "inter-site-latency": 50, "inter-site-link-redundancy": 40},
    ),
    (("built_ruijie",), {"network-device-peak-load": 100, "inter-site-link-redundancy": 40}),
    (("built_ruijie_old",), {"network-device-peak-load": 100}),
    (("built_fortigate",), {"network-device-peak-load": 85}),
    (("built_hillstone",), {"network-device-peak-load": 100}),
    (("built_ping", "built_interfaces"), {"inter-site-latency": 90, "link-quality": 0}),
    (("built_ups",), {"power-ride-through": 55, "managed-device-coverage": 100}),
    (("built_oceanstor",), {"storage-headroom": 0, "storage-pool-ratio": 15, "managed-device-coverage": 100}),
    (("built_isilon",), {"storage-headroom": 100, "storage-pool-ratio": 100}),
    (("built_datadomain",), {"storage-headroom": 100, "dual-active-system-coverage": 40}),
    (("built_netapp",), {"replication-lag-p99": 65, "dual-active-system-coverage": 40}),
    (("built_vmware_esxi",), {"storage-headroom": 100}),
]
"""Walks of one device, and what its criteria earn for certain: `low`."""

WHOLE = ("psu", "fan", "controller", "raid", "disk")
"""The kinds of parts that redundant-component-health asks for and that profiles give."""

WITH_PARTS = [
    "built_cisco",
    "built_dell_sc",
    "built_entity_state",
    "built_h3c",
    "built_hpe_ilo",
    "built_huawei",
    "built_huawei_ibmc",
    "built_idrac",
    "built_netapp",
    "built_nutanix",
    "built_oceanstor",
    "built_ruijie",
    "built_ruijie_entity",
    "built_ruijie_old",
    "built_synology",
]


@pytest.mark.parametrize(
    ("walks", "expected"), EXPECTED, ids=lambda one: "+".join(one) if isinstance(one, tuple) else ""
)
async def test_criteria_that_a_device_feeds_are_scored(
    walks: tuple[str, ...], expected: Mapping[str, float], rules: Rules, tmp_path: Path
) -> None:
    readings, asset_class = await told(device(*walks))
    criteria = score(rules, tmp_path, readings, asset_class)
    assert {name: (criteria[name].status, criteria[name].low) for name in expected} == {
        name: ("scored", low) for name, low in expected.items()
    }


@pytest.mark.parametrize("walk", WITH_PARTS)
async def test_failed_parts_cost_everything_and_whole_ones_earn_everything(
    walk: str, rules: Rules, tmp_path: Path
) -> None:
    for bindings, low in ((device(walk), 0), (mended(device(walk)), 100)):
        readings, asset_class = await told(bindings)
        found = score(rules, tmp_path, readings, asset_class, SELDOM_SECONDS)["redundant-component-health"]
        assert (found.status, found.low) == ("scored", low), [dict(one.tags) for one in readings]


def mended(bindings: list[Binding]) -> list[Binding]:
    """The same device with all its redundant parts in order, as its profiles read them."""
    [object_id] = [str(one.value) for one in bindings if one.oid == "1.3.6.1.2.1.1.2.0"]
    healthy: dict[str, int] = {}
    for profile in load_profiles().values():
        for table in profile.file.tables.values() if profile.fits(object_id) else ():
            healthy |= {table.columns[one.state].oid: int(one.ok[0]) for one in table.groups if one.kind in WHOLE}
            for rows in table.rows:
                rule = rows.fields.get("is_healthy") if rows.tags.get("kind") in WHOLE else None
                if rule and rule.column and rule.states:
                    good = next(int(raw) for raw, state in rule.states.items() if state == 1)
                    healthy[table.columns[rule.column].oid] = good
    return [
        one._replace(tag=INTEGER, value=next((v for oid, v in healthy.items() if _is_of(one, oid)), one.value))
        if any(_is_of(one, oid) for oid in healthy)
        else one
        for one in bindings
    ]


def _is_of(one: Binding, column: str) -> bool:
    return order(one.oid)[: len(order(column))] == order(column)


def test_every_criterion_that_snmp_feeds_is_scored_here(rules: Rules) -> None:
    """A field that the catalogue says this source emits, and that a criterion asks for: the criterion stands in the cases above."""
    measurements = load().measurements
    fed = {
        name
        for name, plan in rules.plans.items()
        if any("snmp_device" in measurements[one.measurement].emitters(one.field) for one in plan.questions.values())
    }
    of_indicators = {name for name, indicator in rules.book.indicators.items() if indicator in INDICATORS}
    assert fed & of_indicators == {name for _, expected in EXPECTED for name in expected} | {
        "redundant-component-health"
    }
