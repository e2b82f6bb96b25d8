"""From the wire to the score: one real round of every source in the namespaces, kept up for weeks, read by the shipped rules.

The rounds are real; that they went on like this for weeks is told to the store by repeating them at their interval.
"""

import gzip
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest
from isolation_hospital import ZONES, IsolationHospital
from namespaces import Network
from polled_switch import NEIGHBOUR, PolledSwitch
from servers import Daemon, program

from agent.broker import Secret
from agent.catalogue import load
from agent.language import speaking
from agent.points import Point
from agent.readings import Settler
from agent.rounds import Watch
from agent.run import gather_once, points_of_round
from agent.sources import (
    SourceConfig,
    Surroundings,
    load_source,
)
from agent.sources._path_targets import Line, Route, Segment
from agent.sources._path_targets import Target as PathTarget
from collector.beside import embedded_place, remember_site
from collector.evaluate import Rules, evaluate, parse_time
from collector.explain import explain
from collector.inquiry import Site
from collector.query import DAY_MS
from collector.ruleset import load_rules, memory_store
from collector.score import NodeResult, Scorecard
from collector.site_files import read_site_folder
from collector.snapshot import Commands
from collector.stores import AppliedBatch

INFRAVITALS = Path(sys.executable).with_name("infravitals")
AS_OF = parse_time("2026-03-31T00:00:00+08:00")
WEEK_DAYS, QUARTER_DAYS = 8, 95
LEAST_COVERAGE = 0.7
NOT_FED = {
    "network-isolation": {"illegal-connection-events"},
    "telemedicine-line": set(),
    "network-capacity": {"network-device-peak-load"},
    "network-management": {"alarm-handling-time"},
}
"""What nothing here feeds: sensors of private connections, a system that keeps alarms; net-snmp tells the load of its
processors a minute after its start, which is not waited for."""

DOORS = 'iifname "office" oifname "outside" udp dport 7180 counter accept\n'

REGISTER = """
zones: {medical: {}, device: {}, office: {}, dmz: {}, outside: {}}
links: {city-line: {role: telemedicine, provider: telecom-a, from: 2025-12-27}}
segments: {ward-3: {criticality: critical, from: 2026-03-23}}
assets:
  outside-probe: {class: server, from: 2026-03-23}
  office-probe: {class: server, from: 2026-03-23}
  medical-probe: {class: server, from: 2026-03-23}
  device-probe: {class: server, from: 2026-03-23}
  dmz-probe: {class: server, from: 2026-03-23}
  outside-scanner: {class: server, from: 2026-03-23}
  consult-1: {class: endpoint, role: telemedicine-probe, from: 2026-03-23}
  ward-probe: {class: server, role: [access-probe, path-probe], from: 2025-12-27}
  fw-1: {class: firewall, role: [core, uplink], from: 2026-03-23}
  log-1: {class: server, from: 2026-03-23}
  gateway: {class: server, from: 2026-03-23}
"""
CALENDARS = """
service-hours: {days: {mon-sun: ["08:00-18:00"]}}
busy: {days: {mon-sun: ["08:00-18:00"]}}
"""


def node(card: Scorecard, name: str) -> NodeResult:
    [found] = [one for one in card.nodes if one.id.endswith(f".{name}")]
    return found


class ScoredHospital:
    """The five zones, their agents, and what a round of them gives."""

    def __init__(self, network: Network, folder: Path, stack: ExitStack) -> None:
        self._hospital = IsolationHospital(network, folder).build()
        self._hospital.answer()
        stack.callback(self._hospital.close)
        self._folder = folder
        self._network = network
        self._network["outside"].ip("addr add 10.77.5.11/24 dev eth0")
        reflector = load_source("path_reflector")
        source = reflector.Source(reflector.Config(key=self._key), Surroundings("partner"))
        self._network["outside"].do(source.open())
        stack.callback(lambda: self._network["outside"].do(source.close()))
        stack.enter_context(self._chronyd())
        self._switch = stack.enter_context(PolledSwitch(network, folder, at="fw", beside="device"))
        self._write_files()

    @property
    def _key(self) -> Secret:
        return Secret(file=str(self._hospital.key))

    def _chronyd(self) -> Daemon:
        """The firewall's own clock, asked by management_access."""
        folder = self._folder / "chrony"
        folder.mkdir(mode=0o750)
        (folder / "chrony.conf").write_text(
            f"cmdport 0\nbindcmdaddress {folder}/c.sock\npidfile {folder}/pid\nallow\nlocal stratum 3\n"
        )
        argv = [program("chronyd", "chrony"), "-x", "-d", "-u", "root", "-f", str(folder / "chrony.conf")]
        return Daemon(self._network["fw"].command(*argv), folder, (folder / "c.sock").exists)

    def _write_files(self) -> None:
        for name in ("stored", "approved"):
            (self._folder / name).mkdir()
            (self._folder / name / "fw-1.cfg").write_text("hostname fw-1\n")
        for origin, year in (("network", 2025), ("server", 2025), ("emr-database", 2026)):
            path = self._folder / "logs" / origin / "first.log.gz"
            path.parent.mkdir(parents=True)
            path.write_bytes(gzip.compress(f"{year}-01-02T00:00:00Z begun\n".encode()))

    def round(self, hole: str = "") -> dict[str, list[Point]]:
        """One round of every agent, by asset."""
        self._hospital.put_in_force(DOORS + hole)
        agents: dict[str, tuple[str, Mapping[str, Mapping[str, object]]]] = {
            "outside-scanner": ("outside", {"exposure_scan": self._scan()}),
            "consult-1": ("office", {"path_probe": self._streams()}),
            "ward-probe": ("office", {"path_probe": self._paths()}),
            "log-1": ("office", self._management()),
            "gateway": ("office", {"snmp_device": self._switch.settings("fw-1", "10.77.3.1")}),
        }
        agents |= {f"{zone}-probe": (zone, self._isolation(zone)) for zone in ZONES}
        agents["office-probe"] = ("office", {**self._isolation("office"), "zone_flows": self._flows()})
        points = self._gather(agents)
        return points | self._gather(
            {"fw-1": ("fw", {"firewall_rules": {"boundary": "internet", "interval_seconds": 3600.0}})}
        )

    def _gather(self, agents: Mapping[str, tuple[str, Mapping[str, Mapping[str, object]]]]) -> dict[str, list[Point]]:
        """What the runner makes of one round of some agents' sources, each inside its zone, all at the same time."""
        running = {}
        for asset, (zone, sources) in agents.items():
            surroundings = Surroundings(asset, state_directory=self._folder)
            watches = [self._watch(name, settings, surroundings) for name, settings in sources.items()]
            running[asset] = (watches, self._network[zone].submit(gather_once(watches)))
        points = {}
        for asset, (watches, future) in running.items():
            settler, gathered = Settler(load(), asset), future.result(120)
            assert [one.outcome.error for one in gathered] == [None] * len(watches)
            points[asset] = [one for watch, outcome in gathered for one in points_of_round(settler, watch, outcome)]
        return points

    def _watch(self, name: str, settings: Mapping[str, object], surroundings: Surroundings) -> Watch:
        module = load_source(name)
        config: SourceConfig = module.Config(**settings)
        [(target, own)] = config.split().items()
        return Watch(name, own, lambda: module.Source(own, surroundings), target)

    def _isolation(self, zone: str) -> Mapping[str, Mapping[str, object]]:
        settings = {
            "zone": zone,
            "key": self._key,
            "targets": tuple(self._hospital.targets(zone)),
            "call_port": 7178,
            "timeout_seconds": 0.9,
            "probes_per_second": 400.0,
            "control_pause_seconds": 2.5,
            "interval_seconds": 3600.0,
        }
        return {"isolation_probe": settings}

    def _flows(self) -> Mapping[str, object]:
        """What the office's machine sees of its own connections, some of which its probes hold meanwhile."""
        addresses = {zone: (f"{address}/24",) for zone, address in self._hospital.addresses.items()}
        networks = {zone: (str(ip_network(one[0], strict=False)),) for zone, one in addresses.items()}
        return {"zone": "office", "zones": networks, "boundaries": ("10.77.3.1",)}

    def _scan(self) -> Mapping[str, object]:
        dmz = self._hospital.addresses["dmz"]
        return {
            "addresses": (dmz,),
            "control": f"{dmz}:443",
            "timeout_seconds": 0.6,
            "ports_per_second": 400.0,
            "interval_seconds": 3600.0,
        }

    def _streams(self) -> Mapping[str, object]:
        return {
            "targets": tuple(
                PathTarget(name=f"city-{end}", kind="stream", address=f"10.77.5.1{number}")
                for number, end in enumerate("ab")
            ),
            "key": self._key,
            "stream_packets": 50,
            "one_way": True,
            "interval_seconds": 60.0,
        }

    def _paths(self) -> Mapping[str, object]:
        medical = self._hospital.addresses["medical"]
        return {
            "targets": (
                PathTarget(name="core", kind="tcp", address=medical, port=443, service="core-network"),
                PathTarget(name="gateway", address="10.77.3.1"),
                PathTarget(name="city-a", kind="stream", address="10.77.5.10"),
                PathTarget(name="city-b", kind="stream", address="10.77.5.11"),
            ),
            "key": self._key,
            "stream_packets": 20,
            "lines": {
                "city-line": Line(
                    routes=(Route(provider="a", targets=("city-a",)), Route(provider="b", targets=("city-b",))),
                    committed_bits_per_second=1e9,
                )
            },
            "segments": {"ward-3": Segment(paths=("gateway", "core"), gateways=("gateway",))},
            "interval_seconds": 600.0,
        }

    def _management(self) -> Mapping[str, Mapping[str, object]]:
        module = load_source("management_access")
        logs = load_source("log_archive").Origin
        origins = {
            name: logs(folder=str(self._folder / "logs" / name)) for name in ("network", "server", "emr-database")
        }
        folders = {"folder": str(self._folder / "stored"), "approved": str(self._folder / "approved")}
        return {
            "management_access": {
                "devices": (module.Device(asset="fw-1", address="10.77.3.1"),),
                "timeout_seconds": 0.8,
            },
            "config_backup": {"assets": ("fw-1",), **folders},
            "log_archive": {"origins": origins},
        }


def kept_up(points: Sequence[Point], days: int, as_of: int = AS_OF) -> Iterator[Point]:
    """The same points again and again at the interval of their source, up to as-of; ages grow no further."""
    intervals = {
        point.tags["source"]: int(float(point.fields["interval_seconds"]) * 1000)
        for point in points
        if point.name == "source_round"
    }
    measurements = load().measurements
    for point in points:
        source = point.tags.get("source", "")
        if point.name != "source_round":
            able = {name for field in point.fields for name in measurements[point.name].emitters(field)}
            [source] = [name for name in intervals if name in able]
        for at in range(as_of - days * DAY_MS, as_of, intervals[source]):
            yield Point(point.name, point.tags, point.fields, at)


def score(rules: Rules, site: Site, points: Mapping[str, Sequence[Point]]) -> Scorecard:
    with memory_store(rules.catalogue) as store:
        for asset, own in points.items():
            days = QUARTER_DAYS if asset == "ward-probe" else WEEK_DAYS
            repeated = list(kept_up(own, days))
            store.write([AppliedBatch("hospital", asset, "", -1, asset, AS_OF, AS_OF, repeated, 0, ())])
        return evaluate(store, rules, site, AS_OF)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    (folder / "register.yaml").write_text(REGISTER)
    (folder / "calendars.yaml").write_text(CALENDARS)
    read, warnings = read_site_folder(folder)
    assert warnings == []
    return Site("hospital", read.zone, read)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScoredHospital]:
    with Network("score") as network, ExitStack() as stack:
        yield ScoredHospital(network, tmp_path_factory.mktemp("scored"), stack)


@pytest.fixture(scope="module")
def whole(hospital: ScoredHospital) -> dict[str, list[Point]]:
    return hospital.round()


def test_neighbour_that_nobody_polls_is_seen(whole: dict[str, list[Point]]) -> None:
    [neighbour] = [one for one in whole["gateway"] if one.name == "neighbour"]
    assert neighbour.tags["asset"] == "fw-1"
    assert neighbour.fields == {"system_name": NEIGHBOUR, "is_managed": 0.0}


def test_criteria_that_these_sources_feed_have_data(rules: Rules, site: Site, whole: dict[str, list[Point]]) -> None:
    """Coverage is the scorecard's own: what its page and `infravitals score` show."""
    card = score(rules, site, whole)
    indicators = {name: node(card, name) for name in NOT_FED}
    scored = {
        name: {one.id: one for one in indicator.criteria if one.status == "scored"}
        for name, indicator in indicators.items()
    }
    for name, indicator in indicators.items():
        measured = {one.id: one for one in indicator.criteria if one.kind == "measured"}
        reasons = {one: str(measured[one].reason) for one in measured.keys() - scored[name].keys()}
        assert reasons.keys() <= NOT_FED[name], (name, reasons)
        assert indicator.coverage >= LEAST_COVERAGE, (name, indicator.coverage, reasons)
    isolation = scored["network-isolation"]
    assert {
        one: isolation[one].low for one in ("zone-isolation-proven", "exposed-service-count", "default-deny-ratio")
    } == {
        "zone-isolation-proven": 100,
        "exposed-service-count": 100,
        "default-deny-ratio": 100,
    }
    line = scored["telemedicine-line"]
    assert {name: one.low for name, one in line.items()} == dict.fromkeys(line, 100)
    states = {cap.id: cap.state for cap in node(card, "network-isolation").caps}
    assert states == {"database-exposed": "not_met", "clinical-zone-reached": "not_met"}


@pytest.mark.parametrize(
    ("hole", "cap", "criterion", "sentence"),
    [
        (
            'iifname "outside" oifname "dmz" tcp dport 5432 counter accept',
            "database-exposed",
            "exposed-service-count",
            "A database is exposed to the internet",
        ),
        (
            'iifname "outside" oifname "medical" tcp dport 22 counter accept',
            "clinical-zone-reached",
            "zone-isolation-proven",
            "The outside reaches a clinical zone",
        ),
    ],
    ids=["exposed database", "clinical zone reached"],
)
def test_hole_in_the_firewall_caps_the_indicator_and_is_shown(
    rules: Rules,
    site: Site,
    hospital: ScoredHospital,
    hole: str,
    cap: str,
    criterion: str,
    sentence: str,
) -> None:
    card = score(rules, site, hospital.round(hole))
    isolation = node(card, "network-isolation")
    assert {one.id: one.state for one in isolation.caps}[cap] == "met"
    assert isolation.high == 40
    [found] = [one for one in isolation.criteria if one.id == criterion]
    assert (found.status, found.high < 100) == ("scored", True)
    with speaking("en"):
        assert sentence in explain(rules, card, isolation, Commands())


def test_dead_responder_is_no_isolation_in_the_score_either(
    rules: Rules, site: Site, whole: dict[str, list[Point]]
) -> None:
    """The same weeks with the control unseen in each round from outside: nothing is proven, and nothing rises."""
    dead = dict(whole)
    dead["outside-probe"] = [
        Point(point.name, point.tags, {"is_seen": 0.0}, point.timestamp) if point.name == "isolation_control" else point
        for point in whole["outside-probe"]
    ]
    isolation = node(score(rules, site, dead), "network-isolation")
    [proven] = [one for one in isolation.criteria if one.id == "zone-isolation-proven"]
    assert proven.low == 0
    assert {cap.id: cap.state for cap in isolation.caps}["clinical-zone-reached"] == "unknown"
    assert isolation.low <= 40


def test_explain_shows_the_matrix_the_holes_and_the_proofs(hospital: ScoredHospital, tmp_path: Path) -> None:
    """The command of the program on a store of its own, after a month of rounds with a hole that somebody opened."""
    hole = 'iifname "outside" oifname "medical" tcp dport 22 counter accept'
    points = hospital.round(hole)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "register.yaml").write_text(REGISTER)
    place = embedded_place(tmp_path, "hospital")
    remember_site(place)
    now = int(time.time() * 1000)
    with place.store() as store:
        for asset in ("outside-probe", "office-probe", "outside-scanner"):
            repeated = list(kept_up(points[asset], 31, now))
            store.write([AppliedBatch("hospital", asset, "", -1, asset, now, now, repeated, 0, ())])
    argv = [
        INFRAVITALS,
        "--lang",
        "en",
        "explain",
        "hospital.network-security.network-isolation",
        "--data-dir",
        tmp_path,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    said = done.stdout
    [breach] = [one for one in points["outside-probe"] if one.fields.get("is_breached")]
    nonce = str(breach.fields["nonce"])
    assert "zone-isolation-proven" in said and "The outside reaches a clinical zone" in said
    assert "outside -> medical  6 cells, 5 as the policy says, 1 open, 0 unproven; last proof" in said
    assert "office -> dmz  6 cells, 6 as the policy says, 0 open, 0 unproven; last proof" in said
    [line] = [one for one in said.splitlines() if one.startswith("  hole")]
    assert "outside -> medical tcp/22  policy blocked, wire reached" in line and line.endswith(nonce)
    assert "reached from outside (outside-scanner): nothing" in said


def test_zone_that_the_register_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "register.yaml").write_text(REGISTER.replace(" dmz: {},", ""))
    place = embedded_place(tmp_path, "hospital")
    remember_site(place)
    tags = {"asset": "office-probe", "from_zone": "office", "to_zone": "dmz", "protocol": "tcp", "port": "22"}
    now = int(time.time() * 1000)
    with place.store() as store:
        cell = Point("isolation_cell", tags, {"is_as_expected": 1.0}, now)
        store.write([AppliedBatch("hospital", "office-probe", "", -1, "one", now, now, [cell], 0, ())])
    argv = [INFRAVITALS, "--lang", "en", "register", "check", "--data-dir", tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert "to_zone 'dmz' stands in the data and not under zones" in done.stdout + done.stderr
