"""host_cpu on recorded files of a virtual machine with four cores, and once on this machine."""

import time
from pathlib import Path

import pytest
from declared import undeclared
from recorded_host import RecordedHost
from servers import until

from agent.errors import NoData
from agent.sources import Surroundings
from agent.sources.host_cpu import Config, Source, shares


def make(surroundings: Surroundings) -> Source:
    return Source(Config(), surroundings)


def test_recorded_first_round_gives_only_the_load_per_core(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path, "host_cpu/first").open("host_cpu", make)
    assert rounds.collect() == {("host_cpu",): {"load_per_core_ratio": 0.3}}  # 1.20 on 4 cores


def test_recorded_shares_are_those_of_the_interval_and_count_guests_once(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_cpu/first")
    rounds = host.open("host_cpu", make)
    rounds.collect()
    host.lay("host_cpu/second")
    # of 6000 ticks: user 1200 (400 of them a guest's), system 600, softirq 60, steal 240, iowait 300, idle 3600
    assert rounds.collect()[("host_cpu",)] == pytest.approx(
        {"busy_ratio": 0.35, "iowait_ratio": 0.05, "steal_ratio": 0.04, "load_per_core_ratio": 0.75}
    )


def test_recorded_iowait_that_falls_alone_is_left_out_and_spoils_nothing_else(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_cpu/first")
    rounds = host.open("host_cpu", make)
    rounds.collect()
    host.lay("host_cpu/iowait_fell")
    fields = rounds.collect()[("host_cpu",)]
    assert fields.keys() == {"busy_ratio", "steal_ratio", "load_per_core_ratio"}
    assert fields["busy_ratio"] == pytest.approx(0.3)  # 1800 busy of 1800 + 4200 idle


def test_recorded_counters_that_fell_give_no_share_and_the_next_round_starts_from_them(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_cpu/first", "host_cpu/second")
    rounds = host.open("host_cpu", make)
    rounds.collect()
    host.lay("host_cpu/restarted")
    assert rounds.collect()[("host_cpu",)].keys() == {"load_per_core_ratio"}
    host.lay("host_cpu/first")
    assert 0 < rounds.collect()[("host_cpu",)]["busy_ratio"] < 1  # type: ignore[operator]  # a number


def test_no_share_when_no_time_passed() -> None:
    assert shares({"user": 1.0, "idle": 2.0}, {"user": 1.0, "idle": 2.0}) == {}


def test_a_system_without_iowait_and_steal_has_no_such_shares() -> None:
    assert shares({"user": 1.0, "system": 1.0, "idle": 2.0}, {"user": 2.0, "system": 1.0, "idle": 5.0}) == {
        "busy_ratio": 0.25
    }


def test_recorded_machine_without_proc_has_no_data(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path).open("host_cpu", make)
    with pytest.raises(NoData, match="proc/stat"):
        rounds.collect()


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_this_machine_works_while_it_is_watched(system: str) -> None:
    source = Source(Config(), Surroundings("here", system=system))  # elsewhere psutil is asked, which knows Linux too
    list(source.collect())
    used_before = time.process_time()
    until(lambda: sum(range(500_000)) and time.process_time() - used_before > 0.05)
    readings = list(source.collect())
    assert undeclared("host_cpu", readings) == []
    assert 0 < float(readings[0].fields["busy_ratio"]) <= 1
    assert ("load_per_core_ratio" in readings[0].fields) == (system != "win32")
