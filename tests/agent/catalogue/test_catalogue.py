"""What the catalogue declares: every name, in both languages, with a unit or a fact, on an exact grid."""

import random
import re
import typing
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.catalogue import RESERVED_TAGS, UNITS, Field, load, unit
from agent.snmp.events import Kind

MEASUREMENTS = {
    "line": ["source_round", "agent_health", "asset_info"],
    "servers": [
        "host_cpu",
        "host_memory",
        "host_uptime",
        "host_clock",
        "filesystem",
        "disk_device",
        "device_load",
        "sensor",
        "redundant_group",
        "role_group",
        "role_change",
        "device_event",
        "notification_intake",
        "service_unit",
        "power_supply",
    ],
    "services": ["service_probe", "outage", "drill", "record_retrieval"],
    "virtualization": ["hypervisor_cluster", "virtual_machine", "vm_event", "platform_member"],
    "storage": [
        "storage_pool",
        "storage_cluster",
        "storage_tier",
        "lifecycle_job",
        "retention_policy",
        "replication",
        "quorum",
        "backup_job",
        "backup_copy",
        "restore_test",
    ],
    "network": [
        "net_interface",
        "network_segment",
        "path_probe",
        "path_reflector",
        "line",
        "poll",
        "neighbour",
        "neighbour_list",
        "bridge",
        "management_access",
        "config_backup",
        "alarm",
        "log_archive",
    ],
    "security": [
        "isolation_cell",
        "isolation_control",
        "isolation_responder",
        "boundary",
        "zone_flow",
        "illegal_connection",
        "connection_sensor",
        "exposure_scan",
        "endpoint_class",
        "rogue_wireless",
        "wireless_sensor",
        "virtual_segment",
        "endpoint_protection",
        "threat_sensor",
        "vulnerability_scan",
        "egress_channel",
        "canary",
    ],
}

EMITTED = {
    "source_round": ("runner",),
    "agent_health": ("runner",),
    "asset_info": ("host_inventory",),
    "host_cpu": ("host_cpu",),
    "host_memory": ("host_memory",),
    "host_uptime": ("host_uptime",),
    "host_clock": ("host_clock",),
    "filesystem": ("host_disk",),
    "disk_device": ("host_disk",),
    "redundant_group": ("host_network", "host_raid", "multipath"),
    "device_event": ("snmp_trap",),
    "notification_intake": ("snmp_trap",),
    "service_unit": ("systemd_units",),
    "net_interface": ("host_network",),
    "network_segment": ("path_probe",),
    "path_probe": ("path_probe",),
    "path_reflector": ("path_reflector",),
    "line": ("path_probe",),
    "boundary": ("firewall_rules",),
    "exposure_scan": ("exposure_scan",),
    "neighbour_list": ("snmp_device",),
    "bridge": ("snmp_device",),
    "management_access": ("management_access",),
    "config_backup": ("config_backup",),
    "log_archive": ("log_archive",),
    "isolation_cell": ("isolation_probe",),
    "isolation_control": ("isolation_probe",),
    "isolation_responder": ("isolation_responder",),
    "zone_flow": ("zone_flows",),
    "service_probe": ("continuity_probe",),
    "outage": ("continuity_probe",),
    "drill": ("continuity_probe",),
    "replication": ("mysql_replication", "oracle_dataguard", "postgresql_replication", "sqlserver_alwayson"),
    "storage_cluster": ("ceph",),
}

CJK = re.compile("[\u4e00-\u9fff]")
FACT = re.compile("(is|has)_[a-z0-9_]+|became_master|outcome")
LARGEST_EXACT = 2**53


def all_fields() -> Iterator[tuple[str, str, Field]]:
    """Signal, the field's own name, the field."""
    for name, measurement in load().measurements.items():
        for key, field in measurement.fields.items():
            yield f"{name}.{key}", key, field


def all_texts() -> Iterator[tuple[str, str, str]]:
    """Where a meaning stands, in Chinese, in English."""
    for name, measurement in load().measurements.items():
        yield name, measurement.zh, measurement.en
        for key, tag in measurement.tags.items():
            yield f"{name}.tags.{key}", tag.zh, tag.en
    for signal, _, field in all_fields():
        yield signal, field.zh, field.en
        for number, text in field.states.items():
            yield f"{signal}.states.{number}", text.zh, text.en


def test_families_hold_exactly_the_known_measurements() -> None:
    assert {family: list(names) for family, names in load().families.items()} == MEASUREMENTS


def test_only_what_has_a_source_names_one() -> None:
    measurements = load().measurements
    assert {name: each.emitted_by for name, each in measurements.items() if each.emitted_by} == EMITTED


def test_no_measurement_with_a_source_has_a_field_that_nobody_gives() -> None:
    unknown = [
        f"{name}.{key}"
        for name, measurement in load().measurements.items()
        for key in measurement.fields
        if measurement.emitted_by and not measurement.emitters(key)
    ]
    assert unknown == []


def ends_in_unit(key: str) -> bool:
    return any(f"_{key}".endswith(ending) for ending in UNITS)


def test_every_number_ends_in_a_unit_or_states_a_fact() -> None:
    others = [signal for signal, key, field in all_fields() if field.is_number and not ends_in_unit(key)]
    assert [signal for signal in others if not FACT.fullmatch(signal.split(".")[1])] == []


def test_what_has_no_unit_is_a_whole_number() -> None:
    fractions = [
        signal
        for signal, key, field in all_fields()
        if not ends_in_unit(key) and (field.kind == "gauge" or field.resolution not in ("2^0", None))
    ]
    assert fractions == []


def test_no_label_bears_a_unit() -> None:
    assert [signal for signal, key, field in all_fields() if field.kind == "label" and ends_in_unit(key)] == []


def test_every_meaning_stands_in_chinese_and_in_english() -> None:
    assert [where for where, zh, _ in all_texts() if not CJK.search(zh)] == []
    assert [where for where, _, en in all_texts() if CJK.search(en) or not re.search("[A-Za-z]", en)] == []


def test_every_number_has_a_closed_range_that_floats_hold_exactly() -> None:
    wrong = [
        signal
        for signal, _, field in all_fields()
        if field.is_number
        and not (field.least < field.greatest and max(-field.least, field.greatest) / field.step <= LARGEST_EXACT)
    ]
    assert wrong == []


def test_every_state_is_a_fact_or_names_all_its_numbers() -> None:
    for signal, _, field in all_fields():
        if field.kind == "state":
            numbers = [float(number) for number in field.states] or [0.0, 1.0]
            assert numbers == [field.least + step for step in range(round(field.greatest - field.least) + 1)], signal


def test_level_names_all_its_numbers() -> None:
    levels = {
        signal: (field.range, list(field.states)) for signal, key, field in all_fields() if key.endswith("_level")
    }
    assert levels == {
        "storage_pool.tier_level": ((1, 3), ["1", "2", "3"]),
        "storage_tier.tier_level": ((1, 3), ["1", "2", "3"]),
        "boundary.strength_level": ((0, 4), ["0", "1", "2", "3", "4"]),
        "threat_sensor.tier_level": ((0, 3), ["0", "1", "2", "3"]),
    }


def test_closed_tags_hold_exactly_their_values() -> None:
    closed = {
        f"{name}.{key}": tag.values
        for name, measurement in load().measurements.items()
        for key, tag in measurement.tags.items()
        if tag.values
    }
    roles = ("vrrp", "hsrp", "stack", "firewall", "cluster", "database")
    parts = ("psu", "fan", "controller", "raid", "nic", "path", "disk", "lag", "gateway", "stack", "firewall", "link")
    assert closed == {
        "redundant_group.kind": parts,
        "role_group.kind": roles,
        "role_change.kind": roles,
        "device_event.kind": typing.get_args(Kind),
        "neighbour_list.seen_by": ("arp", "fdb"),
        "vm_event.kind": ("migration", "crash", "ha_restart"),
        "management_access.protocol": ("telnet", "http", "snmp-v1", "snmp-v2c", "snmp-v3", "ssh", "https"),
        "endpoint_class.class": ("iot", "mobile", "cloud", "ai", "medical"),
    }


def test_no_tag_is_reserved_or_a_field() -> None:
    for name, measurement in load().measurements.items():
        assert not {*RESERVED_TAGS, *measurement.fields} & measurement.tags.keys(), name


def test_a_value_outlives_four_intervals_and_is_kept_longer_than_it_counts() -> None:
    for name, measurement in load().measurements.items():
        assert measurement.staleness_seconds >= 4 * measurement.interval_seconds, name
        assert measurement.retention_days * 86_400 > measurement.staleness_seconds, name


@pytest.mark.parametrize(
    ("name", "days"),
    [
        ("service_probe", 365),
        ("line", 365),
        ("restore_test", 365),
        ("outage", 365),
        ("drill", 730),
        ("host_uptime", 180),
        ("role_change", 180),
        ("service_unit", 180),
        ("vm_event", 180),
        ("alarm", 90),
        ("rogue_wireless", 90),
        ("wireless_sensor", 90),
        ("vulnerability_scan", 90),
    ],
)
def test_points_are_kept_as_long_as_a_criterion_looks_back(name: str, days: int) -> None:
    assert load().measurements[name].retention_days > days


def test_everything_is_kept_for_a_thirty_day_window() -> None:
    assert min(measurement.retention_days for measurement in load().measurements.values()) > 30


@pytest.mark.parametrize(
    ("field", "symbol"),
    [
        ("busy_ratio", "1"),
        ("bytes", "B"),
        ("lag_bytes", "B"),
        ("read_bytes_per_second", "B/s"),
        ("in_bits_per_second", "bit/s"),
        ("rtt_seconds", "s"),
        ("value_celsius", "°C"),
        ("nodes_count", ""),
        ("is_up", ""),
    ],
)
def test_unit_is_what_the_name_ends_in(field: str, symbol: str) -> None:
    assert unit(field) == symbol


def test_settle_gives_facts_as_numbers_and_leaves_labels_alone() -> None:
    settled = load().settle("net_interface", {"is_up": True, "is_full_duplex": False, "alias": "到核心交换机"})
    assert settled == {"is_up": 1.0, "is_full_duplex": 0.0, "alias": "到核心交换机"}
    assert type(settled["is_up"]) is float


def test_settle_rounds_to_the_nearest_step() -> None:
    settled = load().settle("host_cpu", {"busy_ratio": 0.1})
    assert settled == {"busy_ratio": 104858 / 2**20}
    assert load().settle("sensor", {"value_celsius": -21.37}) == {"value_celsius": -21.375}
    assert load().settle("filesystem", {"size_bytes": 5_000_000_000.0}) == {"size_bytes": 4882812 * 1024.0}


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=2, max_size=200),
    seed=st.integers(0, 2**32),
)
def test_sum_of_settled_ratios_is_the_same_in_any_order(values: list[float], seed: int) -> None:
    settled = [load().settle("host_cpu", {"busy_ratio": value})["busy_ratio"] for value in values]
    numbers = [float(value) for value in settled]
    shuffled = random.Random(seed).sample(numbers, len(numbers))
    assert sum(numbers) == sum(shuffled)
    assert all(abs(number - value) <= 2.0**-21 for number, value in zip(numbers, values, strict=True))


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(0, 1e12), min_size=2, max_size=200),
    seed=st.integers(0, 2**32),
)
def test_sum_of_settled_bytes_is_the_same_in_any_order(values: list[float], seed: int) -> None:
    settled = [load().settle("filesystem", {"used_bytes": value})["used_bytes"] for value in values]
    numbers = [float(value) for value in settled]
    assert sum(numbers) == sum(random.Random(seed).sample(numbers, len(numbers)))
    assert all(number % 1024 == 0 for number in numbers)


def test_field_is_found_by_its_signal_name() -> None:
    field = load().field("host_clock.offset_seconds")
    assert field is not None and field.range == (-315360000.0, 315360000.0)
    assert load().field("host_clock.ofset_seconds") is None
    assert load().field("host_klock.offset_seconds") is None
