"""host_memory on recorded files, and once on this machine against free(1)."""

import subprocess
from pathlib import Path

import pytest
from declared import undeclared
from recorded_host import RecordedHost
from servers import program, until

from agent.errors import NoData, SourceError
from agent.sources import Surroundings
from agent.sources.host_memory import Config, Source


def make(surroundings: Surroundings) -> Source:
    return Source(Config(), surroundings)


def test_recorded_used_is_what_programs_cannot_have(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path, "host_memory/with_swap").open("host_memory", make)
    # 10 of 16 GB available although only 1.2 are free: the caches can be dropped
    assert rounds.collect() == {
        ("host_memory",): {"used_ratio": 0.375, "available_bytes": 10_240_000_000.0, "swap_used_ratio": 0.25}
    }


def test_recorded_machine_without_swap_has_no_share_of_it(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path, "host_memory/without_swap").open("host_memory", make)
    assert rounds.collect()[("host_memory",)].keys() == {"used_ratio", "available_bytes"}


def test_recorded_kernel_without_an_estimate_of_available_memory_is_refused(tmp_path: Path) -> None:
    host = RecordedHost(tmp_path, "host_memory/without_swap")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 1200000 kB\n")
    with pytest.raises(SourceError, match=r"3\.14"):
        host.open("host_memory", make).collect()


def test_recorded_machine_without_proc_has_no_data(tmp_path: Path) -> None:
    rounds = RecordedHost(tmp_path).open("host_memory", make)
    with pytest.raises(NoData, match="proc/meminfo"):
        rounds.collect()


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_this_machine_has_the_memory_that_free_shows(system: str) -> None:
    source = Source(Config(), Surroundings("here", system=system))  # elsewhere psutil is asked, which knows Linux too

    def is_as_shown() -> bool:  # unless a program took or gave back much between the two
        readings = list(source.collect())
        assert undeclared("host_memory", readings) == []
        shown = subprocess.run([program("free", "procps"), "-b"], check=True, capture_output=True, text=True).stdout
        total, *_, available = (int(word) for word in shown.splitlines()[1].split()[1:])
        fields = readings[0].fields
        return fields["available_bytes"] == pytest.approx(available, abs=total / 20) and fields[
            "used_ratio"
        ] == pytest.approx(1 - available / total, abs=0.05)

    until(is_as_shown)
