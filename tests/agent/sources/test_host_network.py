"""host_network on recorded files (the kernel here has no bonding), and once on this machine's loopback."""

import socket
from pathlib import Path

import pytest
from declared import undeclared
from recorded_host import RecordedHost

from agent.errors import NoData
from agent.sources import Surroundings
from agent.sources.host_network import Config, Source


def make(surroundings: Surroundings) -> Source:
    return Source(Config(), surroundings)


def test_recorded_first_round_has_states_and_speeds_of_what_is_a_cable(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path, "host_network/first").open("host_network", make)
    assert rounds.collect() == {
        ("net_interface", "eno1"): {
            "speed_bits_per_second": 1e9,
            "is_full_duplex": True,
            "is_admin_up": True,
            "is_up": True,
        },
        ("net_interface", "eno2"): {
            "speed_bits_per_second": 1e8,
            "is_full_duplex": False,
            "is_admin_up": True,
            "is_up": True,
        },
        ("net_interface", "eno3"): {"is_admin_up": False, "is_up": False},  # its speed 4294967295 is an old -1
        ("net_interface", "tun0"): {"is_admin_up": True, "is_up": True},  # operstate unknown, carrier 1
    }


def test_recorded_second_round_has_rates_and_ratios_of_the_interval(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_network/first")
    rounds = host.open("host_network", make)
    rounds.collect()
    host.lay("host_network/second")
    host.now += 10.0
    eno1 = rounds.collect()[("net_interface", "eno1")]
    assert eno1["in_bits_per_second"] == 1e8  # 125 MB in 10 s
    assert eno1["out_bits_per_second"] == 2e7
    assert eno1["busy_ratio"] == pytest.approx(0.1)
    assert eno1["error_ratio"] == pytest.approx(100 / 100_000)  # 99 900 good packets, 15 + 85 bad ones
    assert eno1["discard_ratio"] == pytest.approx(25_000 / 124_900)


def test_recorded_counter_that_fell_gives_no_rate_of_its_interface(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_network/first")
    rounds = host.open("host_network", make)
    rounds.collect()
    host.lay("host_network/second")
    host.now += 10.0
    # eno2 was reset: received fell from 7 000 000 to 600 while sent rose by 99 MB, which is no rate either
    assert rounds.collect()[("net_interface", "eno2")].keys() == {
        "speed_bits_per_second",
        "is_full_duplex",
        "is_admin_up",
        "is_up",
    }


def test_recorded_silent_interface_has_rates_of_zero_and_no_ratio_of_nothing(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_network/first")
    rounds = host.open("host_network", make)
    rounds.collect()
    host.lay("host_network/second")
    host.now += 10.0
    assert rounds.collect()[("net_interface", "tun0")] == {
        "is_admin_up": True,
        "is_up": True,
        "in_bits_per_second": 0.0,
        "out_bits_per_second": 0.0,
    }


def test_recorded_patterns_choose_the_interfaces(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_network/first")
    config = Config(include=("eno*", "tun?"), exclude=("eno3",))
    rounds = host.open("host_network", lambda surroundings: Source(config, surroundings))
    assert sorted(rounds.collect()) == [("net_interface", name) for name in ("eno1", "eno2", "tun0")]


def test_recorded_machine_whose_interfaces_are_all_excluded_has_no_data(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_network/first")
    rounds = host.open("host_network", lambda surroundings: Source(Config(include=("ib*",)), surroundings))
    with pytest.raises(NoData, match="include"):
        rounds.collect()


def test_recorded_bonds_count_members_that_can_carry_traffic_now(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path, "host_network/first", "host_network/bonds_as_root").open("host_network", make)
    bonds = {key[1:]: fields for key, fields in rounds.collect().items() if key[0] == "redundant_group"}
    whole = {"members_count": 2.0, "required_count": 1.0, "healthy_count": 2.0, "is_redundant": True}
    half = {"members_count": 2.0, "required_count": 1.0, "healthy_count": 1.0, "is_redundant": False}
    assert bonds == {
        ("bond0", "nic"): whole | {"is_healthy": True},
        ("bond1", "nic"): half | {"is_healthy": False},  # active-backup, one link down
        ("bond2", "nic"): half | {"is_healthy": False},  # 802.3ad, both links up, one in another aggregator
    }


def test_recorded_bond_seen_without_privilege_takes_the_active_aggregator_from_sys(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path, "host_network/first", "host_network/bond_as_plain_user").open("host_network", make)
    assert rounds.collect()[("redundant_group", "bond0", "nic")] == {
        "members_count": 2.0,
        "required_count": 1.0,
        "healthy_count": 1.0,
        "is_redundant": False,
        "is_healthy": False,
    }


def test_recorded_bond_without_an_active_aggregator_has_no_healthy_member(tmp_path: Path) -> None:
    trees = ("host_network/first", "host_network/bond_without_aggregator")
    fields = RecordedHost(tmp_path, *trees).open("host_network", make).collect()[("redundant_group", "bond0", "nic")]
    assert fields["healthy_count"] == 0.0
    assert fields["is_healthy"] is False


def test_recorded_bond_of_unknown_aggregator_claims_no_health(tmp_path: Path) -> None:
    trees = ("host_network/first", "host_network/bond_unknown_aggregator")
    fields = RecordedHost(tmp_path, *trees).open("host_network", make).collect()[("redundant_group", "bond0", "nic")]
    assert fields == {"members_count": 2.0, "required_count": 1.0}


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_this_machines_loopback_carries_what_we_send(system: str) -> None:
    clock = iter((0.0, 1.0))
    config = Config(include=("lo",), exclude=())
    # elsewhere psutil is asked, which knows Linux too
    source = Source(config, Surroundings("here", monotonic=lambda: next(clock), system=system))
    list(source.collect())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(bytes(10_000), ("127.0.0.1", 9))
    readings = list(source.collect())
    assert undeclared("host_network", readings) == []
    assert float(readings[0].fields["in_bits_per_second"]) >= 8_000_000
