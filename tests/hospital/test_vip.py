"""vip: two clinical servers behind one address of a real keepalived, seen by the probe as clinicians see them.

The truth is the servers' own: between what the old one served last and the new one served first, noted every 10 ms.
"""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hospital.lan import Lan
from servers import program, until

VIP, PORT = "10.78.0.100", "8080"
PATIENCE_SECONDS = 60.0
PERIOD = 0.1
"""Of the probe, as in a drill."""

CONFIGURATION = """
global_defs {{
  router_id {name}
  vrrp_version 3
}}
! the address that clinicians use
vrrp_instance HIS {{
  state {state}
  interface eth0
  virtual_router_id 51
  priority {priority}
  advert_int 0.3
  virtual_ipaddress {{ {vip}/24 brd 10.78.0.255 dev eth0 }}
}}
"""


@dataclass
class Hospital:
    """Hosts a and b serve, c is where the probe and the clinicians are."""

    lan: Lan
    folder: Path

    def start_keepalived(self, host: str) -> None:
        folder = self.folder / host
        folder.mkdir(exist_ok=True)
        state, priority = ("MASTER", 150) if host == "a" else ("BACKUP", 100)
        file = folder / "keepalived.conf"
        file.write_text(CONFIGURATION.format(name=host, state=state, priority=priority, vip=VIP))
        pids = ["-p", folder / "k.pid", "-r", folder / "v.pid", "-c", folder / "c.pid"]
        for pid in pids[1::2]:
            Path(pid).unlink(missing_ok=True)
        keepalived = program("keepalived", "keepalived")
        self.lan.start(host, keepalived, "-n", "-l", "-D", "-P", "-f", file, *pids, log=folder / "keepalived.log")

    def serve(self, host: str) -> None:
        notes = self.folder / f"{host}.notes"
        notes.touch()  # who asks before the server runs finds no visitor, and not no file
        self.lan.start_python(host, "hospital.people", "serve", host, PORT, notes, log=self.folder / f"{host}.log")

    def holds(self, host: str) -> bool:
        return f"inet {VIP}/" in self.lan.run(host, program("ip", "iproute2"), "addr", "show", "dev", "eth0")

    def gather(self, host: str, source: str, **config: object) -> "Gathering":
        file, output = self.folder / f"{host}-{source}.json", self.folder / f"{host}-{source}.jsonl"
        file.write_text(json.dumps(config))
        words = ["hospital.people", "gather", source, file, self.folder / f"{host}-state"]
        self.lan.start_python(host, *words, log=output)
        return Gathering(output)

    def served(self, host: str) -> list[float]:
        """When `host` served at the virtual address."""
        notes = (self.folder / f"{host}.notes").read_text().splitlines()
        return [float(line.split()[0]) for line in notes if line.endswith(f" {VIP}")]

    def truth(self, before: str, after: str) -> float:
        """How long nobody was served when the address went from one host to the other."""
        first = self.served(after)[0]
        return first - max(at for at in self.served(before) if at < first)


@dataclass
class Gathering:
    """What a gathering agent printed so far."""

    output: Path

    def fields(self, name: str) -> list[dict[str, object]]:
        lines = self.output.read_text().split("\n")[:-1]
        assert all(line.startswith("{") or "is out" in line or "is back" in line for line in lines), lines[-20:]
        readings = [json.loads(line) for line in lines if line.startswith("{")]
        return [reading["fields"] for reading in readings if reading["name"] == name]

    def last(self, name: str) -> dict[str, object]:
        return (self.fields(name) or [{}])[-1]

    def wait_for(self, name: str) -> dict[str, object]:
        until(lambda: self.fields(name), PATIENCE_SECONDS)
        return self.last(name)


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with Lan("a", "b", "c") as lan:
        place = Hospital(lan, tmp_path)
        for host in ("a", "b"):
            place.serve(host)
            place.start_keepalived(host)
        until(lambda: place.holds("a") and not place.holds("b"))
        yield place


def probe(hospital: Hospital) -> Gathering:
    """The probe and the clinicians at work."""
    path = {"service": "his", "kind": "tcp", "addresses": [f"{VIP}:{PORT}"], "banner": True}
    log = hospital.folder / "use.log"
    hospital.lan.start_python("c", "hospital.people", "use", VIP, PORT, log=log)
    found = hospital.gather("c", "continuity_probe", probes={"his-vip": path}, period_seconds=PERIOD, failures=1)
    until(lambda: found.last("service_probe").get("is_up"))
    until(lambda: any(fields["acknowledged_count"] for fields in found.fields("service_probe")))
    until(lambda: hospital.served("a"))
    return found


def wait(condition: Callable[[], object]) -> None:
    """`until`, with the patience of the moment: a mutant gets little."""
    until(condition, PATIENCE_SECONDS)


def assert_measured(found: Gathering, earlier: int, truth: float) -> None:
    """Of the first outage after so many: a busy machine may have lost a token before."""
    wait(lambda: len(found.fields("outage")) > earlier)
    outage = found.fields("outage")[earlier]
    assert abs(outage["duration_seconds"] - truth) <= PERIOD + 0.05, f"measured {outage}, the servers say {truth:.3f} s"  # type: ignore[operator]
    drill = found.wait_for("drill")
    assert drill["is_planned"] is False and drill["rto_seconds"] == outage["duration_seconds"]
    print(f"rto {outage['duration_seconds']} s, truth {truth:.3f} s")


def test_vip_sigterm_of_the_master_is_a_short_outage(hospital: Hospital) -> None:
    found = probe(hospital)
    earlier = len(found.fields("outage"))
    [pid, *_] = hospital.lan.pids("a", "keepalived")
    hospital.lan.end(pid, signal.SIGTERM)
    wait(lambda: hospital.holds("b") and hospital.served("b"))
    assert_measured(found, earlier, hospital.truth("a", "b"))


def test_vip_port_down_is_an_outage_of_three_adverts_and_its_return_passes(hospital: Hospital) -> None:
    found = probe(hospital)
    earlier = len(found.fields("outage"))
    hospital.lan.set_port("a", is_up=False)
    wait(lambda: hospital.served("b"))
    assert_measured(found, earlier, hospital.truth("a", "b"))
    hospital.lan.set_port("a", is_up=True)
    wait(lambda: any(fields.get("is_passed") for fields in found.fields("drill")))


def keepalived_facts(hospital: Hospital, host: str) -> Gathering:
    return hospital.gather(host, "keepalived", file=str(hospital.folder / host / "keepalived.conf"))


def test_vip_kill_of_keepalived_alone_loses_nothing_and_leaves_two_holders(hospital: Hospital) -> None:
    found, a, b = probe(hospital), keepalived_facts(hospital, "a"), keepalived_facts(hospital, "b")
    watcher = hospital.gather("c", "keepalived", file="/nowhere/keepalived.conf", watched={"HIS": VIP})
    wait(lambda: a.last("role_group").get("masters_count") == 1 and a.last("role_group").get("is_master"))
    wait(lambda: b.last("role_group").get("masters_count") == 1 and not b.last("role_group").get("is_master"))
    wait(lambda: a.last("quorum") == {"is_manager_up": True})
    earlier = len(found.fields("outage"))
    hospital.lan.kill_all("a", "keepalived")
    wait(lambda: hospital.holds("b"))
    assert hospital.holds("a")
    wait(lambda: b.last("role_group").get("masters_count") == 2 and b.last("role_group").get("is_master"))
    wait(lambda: watcher.last("role_group").get("masters_count") == 2)
    wait(lambda: a.last("role_group").get("masters_count") == 2)
    wait(lambda: b.fields("role_change"))
    assert b.fields("role_change") == [{"became_master": True}]
    assert a.fields("role_change") == []
    # the clinicians went over to b without noticing: a move, and no outage
    [move] = [found.wait_for("drill")]
    assert move["is_planned"] is False and found.fields("outage")[earlier:] == []


def test_vip_split_brain_is_seen_from_outside(hospital: Hospital) -> None:
    watcher = hospital.gather("c", "keepalived", file="/nowhere/keepalived.conf", watched={"HIS": VIP})
    wait(lambda: watcher.last("role_group").get("masters_count") == 1)
    for host in ("a", "b"):
        hospital.lan.isolate(host, is_isolated=True)
    wait(lambda: watcher.last("role_group").get("masters_count") == 2)
    for host in ("a", "b"):
        hospital.lan.isolate(host, is_isolated=False)
    wait(lambda: watcher.last("role_group").get("masters_count") == 1)
    for host in ("a", "b"):
        hospital.lan.set_port(host, is_up=False)
    wait(lambda: watcher.last("role_group").get("masters_count") == 0)


SCENARIOS = [
    test_vip_sigterm_of_the_master_is_a_short_outage,
    test_vip_port_down_is_an_outage_of_three_adverts_and_its_return_passes,
    test_vip_kill_of_keepalived_alone_loses_nothing_and_leaves_two_holders,
    test_vip_split_brain_is_seen_from_outside,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_mutant_that_always_says_ok_turns_the_scenario_red(
    scenario: Callable[[Hospital], None], hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSPITAL_MUTANT", "1")
    monkeypatch.setitem(globals(), "PATIENCE_SECONDS", 4.0)
    with pytest.raises(AssertionError, match="not so within"):
        scenario(hospital)
