"""migration: a guest moves between two hypervisor hosts while it works, then crashes and is started again.

Clinicians reach the guest through a terminal server on c, which notes whose bytes come back: the truth of where the guest
worked, to 10 ms. libvirt, QEMU, its migration and the guest's machine code are real; the processors are emulated.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hospital.hypervisors import GUEST, SERIAL_PORT, Hypervisor
from hospital.lan import Lan
from hospital.test_vip import PERIOD, Gathering
from servers import program, until

PORT = "8080"
PATIENCE_SECONDS = 60.0


@dataclass
class Hospital:
    """Hypervisors a and b, the guest on a; the terminal server, the clinicians and the probe on c."""

    lan: Lan
    folder: Path
    a: Hypervisor
    b: Hypervisor

    def gather(self, host: str, source: str, inside: list[str], **config: object) -> Gathering:
        file, output = self.folder / f"{host}-{source}.json", self.folder / f"{host}-{source}.jsonl"
        file.write_text(json.dumps(config))
        people = [sys.executable, "-m", "hospital.people", "gather", source, file, self.folder / f"{host}-state"]
        self.lan.start(host, *inside, *people, log=output)
        return Gathering(output)

    def facts(self, host: Hypervisor) -> Gathering:
        """What the source says on a hypervisor."""
        return self.gather(host.host, "libvirt", host.inside)

    def probe(self) -> Gathering:
        """The probe at work, and the clinicians."""
        address = f"{self.lan.address('c')}:{PORT}"
        self.lan.start_python("c", "hospital.people", "use", *address.split(":"), log=self.folder / "use.log")
        path = {"service": "his", "kind": "tcp", "addresses": [address], "banner": True}
        found = self.gather("c", "continuity_probe", [], probes={"his-guest": path}, period_seconds=PERIOD, failures=1)
        until(lambda: found.last("service_probe").get("is_up"))
        until(lambda: self.answered(self.a))
        return found

    def answered(self, host: Hypervisor) -> list[float]:
        """When bytes came back from a host."""
        lines = (self.folder / "notes").read_text().splitlines()
        return [float(line.split()[0]) for line in lines if line.endswith(f" {self.lan.address(host.host)}")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("libvirt-cache")


@pytest.fixture
def hospital(tmp_path: Path, cache: Path) -> Iterator[Hospital]:
    with Lan("a", "b", "c") as lan:
        hosts = [Hypervisor(lan, host, tmp_path, cache) for host in ("a", "b")]
        words = ["hospital.people", "connect", str(SERIAL_PORT), PORT, tmp_path / "notes"]
        lan.start_python("c", *words, log=tmp_path / "connect.log")
        until(
            lambda: f":{PORT} " in lan.run("c", program("ss", "iproute2"), "-tln")
        )  # the guest's line needs it at once
        for host in hosts:
            host.start()
        hosts[0].start_guest(lan.address("c"))
        yield Hospital(lan, tmp_path, *hosts)


def wait(condition: Callable[[], object]) -> None:
    """`until`, with the patience of the moment: a mutant gets little."""
    until(condition, PATIENCE_SECONDS)


def assert_time(measured: object, truth: float) -> None:
    print(f"rto {measured} s, truth {truth:.3f} s")
    assert isinstance(measured, float)
    assert abs(measured - truth) <= PERIOD + 0.05


def assert_bound(measured: object, truth: float) -> None:
    """A move that no token fell into: the time between the two answers around it, which is no less than the truth."""
    print(f"rto at most {measured} s, truth {truth:.3f} s")
    assert isinstance(measured, float)
    assert truth - 0.02 <= measured <= truth + 2 * PERIOD + 0.05


def wait_for_rounds(found: Gathering) -> None:
    """Two more rounds of a hypervisor that has the guest; both hypervisors are gathered equally often."""
    earlier = len(found.fields("virtual_machine"))
    wait(lambda: len(found.fields("virtual_machine")) >= earlier + 2)


def test_migration_moves_the_guest_and_is_seen_from_both_sides(hospital: Hospital) -> None:
    a, b = hospital.facts(hospital.a), hospital.facts(hospital.b)
    found = hospital.probe()
    wait(lambda: a.last("virtual_machine").get("is_running") is True)
    assert b.fields("virtual_machine") == []

    earlier = len(found.fields("outage"))
    hospital.a.migrate(hospital.b)
    wait(lambda: b.fields("vm_event"))
    assert b.fields("vm_event") == [{"is_success": True}]
    assert b.last("virtual_machine")["is_running"] is True
    assert (hospital.a.state(), hospital.b.state()) == ("", "running (migrated)")
    wait_for_rounds(b)  # a round of a that began during the move is over then
    seen_on_a = len(a.fields("virtual_machine"))

    wait(lambda: found.fields("drill"))
    [move] = found.fields("drill")
    truth = min(hospital.answered(hospital.b)) - max(hospital.answered(hospital.a))
    assert move["is_planned"] is False
    (assert_time if len(found.fields("outage")) > earlier else assert_bound)(move["rto_seconds"], truth)
    wait_for_rounds(b)
    assert len(a.fields("virtual_machine")) == seen_on_a, "it is none of a's any more"
    assert a.fields("vm_event") == []


def test_crash_of_the_guest_is_told_once_with_its_outage_and_its_end(hospital: Hospital) -> None:
    a, found = hospital.facts(hospital.a), hospital.probe()
    wait(lambda: a.last("virtual_machine").get("is_running") is True)
    earlier = len(found.fields("outage"))  # a busy machine may have lost a token before
    hospital.lan.kill_all("a", "qemu-system-x86")
    wait(lambda: a.fields("vm_event") == [{"is_success": False}])
    assert a.last("virtual_machine")["is_running"] is False
    assert hospital.a.state() == "shut off (crashed)"
    stopped_at = max(hospital.answered(hospital.a))

    hospital.a.virsh("start", GUEST)
    wait(lambda: a.fields("vm_event") == [{"is_success": False}, {"is_success": True}])
    wait(lambda: len(found.fields("outage")) > earlier)
    outage = found.fields("outage")[earlier]
    truth = min(at for at in hospital.answered(hospital.a) if at > stopped_at) - stopped_at
    assert_time(outage["duration_seconds"], truth)
    assert found.fields("drill") == [], "it did not move"


SCENARIOS = [
    test_migration_moves_the_guest_and_is_seen_from_both_sides,
    test_crash_of_the_guest_is_told_once_with_its_outage_and_its_end,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_mutant_that_always_says_ok_turns_the_scenario_red(
    scenario: Callable[[Hospital], None], hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSPITAL_MUTANT", "1")
    monkeypatch.setitem(globals(), "PATIENCE_SECONDS", 4.0)
    with pytest.raises(AssertionError, match="not so within"):
        scenario(hospital)
