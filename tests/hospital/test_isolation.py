"""The isolation matrix on the wire: exactly the holes that were opened, and never isolation where a sensor is dead."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from declared import undeclared
from isolation_hospital import (
    ALLOWED,
    INWARD,
    WAYS,
    ZONES,
    IsolationHospital,
    breached,
    cells,
    controls,
    say_fine,
    unexpected,
)
from namespaces import Network
from servers import until

from agent.language import speaking
from agent.sources import Reading
from agent.sources._attempt import Attempt, Came
from agent.sources._ways import Way
from agent.sources.isolation_probe import Pace, Target
from agent.sources.isolation_probe import Source as Probe

HOLES = {
    ("outside", "medical", "tcp", "5432"): 'iifname "outside" oifname "medical" tcp dport 5432 accept',
    ("medical", "outside", "udp", "53"): 'iifname "medical" oifname "outside" udp dport 53 accept',
    ("office", "device", "icmp", "echo"): 'iifname "office" oifname "device" meta l4proto icmp accept',
    ("dmz", "medical", "tcp", "22"): 'iifname "dmz" oifname "medical" tcp dport 22 accept',
}
"""In both directions, over every protocol."""

PAIRS = [(a, b) for a in ZONES for b in ZONES if a != b]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolationHospital]:
    with Network("iso") as network:
        built = IsolationHospital(network, tmp_path_factory.mktemp("isolation")).build()
        built.answer()
        yield built
        built.close()


@pytest.fixture(autouse=True)
def policy(hospital: IsolationHospital) -> None:
    hospital.put_in_force()


def round_of(hospital: IsolationHospital, zones: Iterable[str] = ZONES, kind: type[Probe] = Probe) -> list[Reading]:
    """One round of the probers of these zones towards all others, at the same time."""
    probers = {zone: hospital.prober(zone, hospital.targets(zone), kind) for zone in zones}
    try:
        for zone, prober in probers.items():
            hospital.network[zone].do(prober.open())
            until(
                lambda zone=zone, prober=prober: prober.has_calls(
                    [hospital.addresses[b] for a, b in INWARD if a == zone]
                )
            )
        running = [hospital.network[zone].submit(prober.collect()) for zone, prober in probers.items()]
        return [reading for one in running for reading in one.result(60)]
    finally:
        for zone, prober in probers.items():
            hospital.network[zone].do(prober.close())


def one_round(
    hospital: IsolationHospital, zone: str, targets: list[Target], kind: type[Probe] = Probe
) -> list[Reading]:
    with hospital.probing(zone, targets, kind) as probe:
        return hospital.network[zone].do(probe.collect())


def assert_matrix(readings: list[Reading], holes: Iterable[tuple[str, str, str, str]]) -> None:
    """The wire agrees with the policy everywhere but in the holes, and both ends say so."""
    assert undeclared("isolation_probe", readings) == []
    seen = cells(readings)
    assert len(seen) == len(PAIRS) * len(WAYS)
    assert breached(readings) == unexpected(readings) == set(holes)
    assert [cell for cell, fields in seen.items() if not fields["is_proven"]] == []
    assert controls(readings) == dict.fromkeys(PAIRS, True)
    reached = {cell for cell, fields in seen.items() if fields["is_reached"]}
    allowed = sum(len(ways) for ways in ALLOWED.values())
    assert len(reached) == allowed + len(set(holes))


class AlwaysBlocked(Probe):
    """The mutant: sends nothing and says that nothing came back."""

    async def _try(self, target: Target, way: Way, is_allowed: bool, pace: Pace) -> Attempt:
        return Attempt("0" * 32, Came.SILENCE)


def test_matrix_agrees_with_the_policy(hospital: IsolationHospital) -> None:
    assert_matrix(round_of(hospital), ())


def test_matrix_shows_exactly_the_holes_that_were_opened(hospital: IsolationHospital) -> None:
    hospital.put_in_force("\n".join(HOLES.values()))
    assert_matrix(round_of(hospital), HOLES)


def test_matrix_is_red_for_a_prober_that_always_says_blocked(hospital: IsolationHospital) -> None:
    hospital.put_in_force("\n".join(HOLES.values()))
    readings = round_of(hospital, kind=AlwaysBlocked)
    with pytest.raises(AssertionError):
        assert_matrix(readings, HOLES)
    assert breached(readings) == set()


def test_hole_ipv6_is_found_where_ipv4_is_closed(hospital: IsolationHospital) -> None:
    hospital.put_in_force('meta nfproto ipv6 iifname "office" oifname "medical" tcp dport 5432 accept')
    targets = hospital.targets("office", ["medical"]) + hospital.targets("office", ["medical"], ipv6=True)
    readings = one_round(hospital, "office", targets)
    assert len(cells(readings)) == 2 * len(WAYS)
    assert breached(readings) == {("office", "medical", "tcp6", "5432")}
    assert unexpected(readings) == breached(readings)


def test_reject_on_the_way_is_no_reach_and_its_sender_is_named(hospital: IsolationHospital) -> None:
    hospital.put_in_force(
        'iifname "office" oifname "medical" tcp dport 22 reject with tcp reset\n'
        'iifname "office" oifname "medical" tcp dport 5432 reject with icmp type admin-prohibited\n'
        'iifname "office" oifname "medical" udp dport 161 reject'
    )
    readings = one_round(hospital, "office", hospital.targets("office", ["medical"]))
    found = {cell[2:]: fields for cell, fields in cells(readings).items()}
    assert unexpected(readings) == set()
    assert [found[way]["outcome"] for way in (("tcp", "22"), ("tcp", "5432"), ("udp", "161"))] == [3, 4, 3]
    assert found["udp", "161"]["refused_by"] == "10.77.3.1"


def test_reject_by_a_target_that_does_not_listen_there_proves_nothing(hospital: IsolationHospital) -> None:
    """The packet went all the way; only who listens there can say so."""
    hospital.put_in_force('iifname "office" oifname "medical" tcp dport 8443 accept')
    target = Target(zone="medical", address=hospital.addresses["medical"], blocked=("tcp/8443",))
    [fields] = cells(one_round(hospital, "office", [target])).values()
    assert (fields["outcome"], fields["is_proven"], fields["is_as_expected"]) == (6, False, False)


def test_blocked_control_leaves_silence_unproven_and_an_open_way_proven(hospital: IsolationHospital) -> None:
    hospital.put_in_force(
        'iifname "office" oifname "medical" tcp dport 7177 drop\niifname "office" oifname "medical" tcp dport 22 accept'
    )
    readings = one_round(hospital, "office", hospital.targets("office", ["medical"]))
    found = {cell[2:]: fields for cell, fields in cells(readings).items()}
    assert controls(readings) == {("office", "medical"): False}
    assert {way for way, fields in found.items() if fields["is_proven"]} == {("tcp", "443"), ("tcp", "22")}
    assert breached(readings) == {("office", "medical", "tcp", "22")}
    assert found["udp", "161"]["outcome"] == 5


def test_dead_responder_is_no_isolation(hospital: IsolationHospital) -> None:
    """The zone's machine lives and refuses; nobody listens there any more."""
    network = hospital.network["medical"]
    network.do(hospital.responders["medical"].close())
    try:
        readings = one_round(hospital, "office", hospital.targets("office", ["medical"]))
    finally:
        network.do(hospital.responders["medical"].open())
    assert controls(readings) == {("office", "medical"): False}
    assert {fields["outcome"] for fields in cells(readings).values()} == {5}
    assert len(unexpected(readings)) == len(WAYS)


def test_responder_that_starts_anew_in_the_middle_of_a_round_proves_nothing(hospital: IsolationHospital) -> None:
    medical = hospital.network["medical"]

    class Interrupted(Probe):
        async def _try(self, target: Target, way: Way, is_allowed: bool, pace: Pace) -> Attempt:
            attempt = await super()._try(target, way, is_allowed, pace)
            if way.port == 22:
                medical.do(hospital.responders["medical"].open())
            return attempt

    readings = one_round(hospital, "office", hospital.targets("office", ["medical"]), Interrupted)
    assert controls(readings) == {("office", "medical"): False}
    assert not cells(readings)["office", "medical", "udp", "161"]["is_proven"]


def test_responder_that_comes_back_within_the_round_costs_no_proof(hospital: IsolationHospital) -> None:
    medical, office = hospital.network["medical"], hospital.network["office"]
    medical.do(hospital.responders["medical"].close())
    probe = hospital.prober("office", hospital.targets("office", ["medical"]), retries=20)
    office.do(probe.open())
    running = office.submit(probe.collect())
    medical.do(hospital.responders["medical"].open())
    readings = running.result(60)
    office.do(probe.close())
    assert controls(readings) == {("office", "medical"): True} and unexpected(readings) == set()


def test_dead_responder_is_not_waited_for_beyond_the_round(hospital: IsolationHospital) -> None:
    """A pause that would not fit into the deadline is not begun: the other targets' cells must not be lost."""
    medical, office = hospital.network["medical"], hospital.network["office"]
    medical.do(hospital.responders["medical"].close())
    probe = hospital.prober("office", hospital.targets("office", ["medical", "dmz"]), retries=5, pause_seconds=60)
    office.do(probe.open())
    try:
        readings = office.do(probe.collect(), 30)
    finally:
        office.do(probe.close())
        medical.do(hospital.responders["medical"].open())
    assert controls(readings) == {("office", "medical"): False, ("office", "dmz"): True}
    assert {cell[1] for cell in unexpected(readings)} == {"medical"}


def test_dead_prober_s_silence_is_no_isolation(hospital: IsolationHospital) -> None:
    """Its cable is out: nothing gets through, and nothing is proven."""
    office = hospital.network["office"]
    with hospital.probing("office", hospital.targets("office")) as probe:
        office.ip("link set eth0 down")
        try:
            readings = office.do(probe.collect())
        finally:
            office.ip(
                "link set eth0 up\naddr replace fd00:77:3::10/64 dev eth0 nodad\n"
                "route add default via 10.77.3.1\nroute add default via fd00:77:3::1"
            )
    assert set(controls(readings).values()) == {False}
    assert {fields["outcome"] for fields in cells(readings).values()} <= {5, 8}
    assert len(unexpected(readings)) == len(WAYS) * (len(ZONES) - 1)


def test_probes_held_back_on_the_prober_s_own_machine_are_no_isolation(hospital: IsolationHospital) -> None:
    """The control passes, the probes never leave: a rule on the prober itself."""
    hospital.network["office"].nft(
        "table inet own {\nchain out {\ntype filter hook output priority 0\nudp dport 161 drop\n"
        "meta l4proto icmp drop\n}\n}"
    )
    try:
        readings = one_round(hospital, "office", hospital.targets("office", ["medical"]))
    finally:
        hospital.network["office"].nft("delete table inet own")
    found = {cell[2:]: fields for cell, fields in cells(readings).items()}
    assert found["udp", "161"]["outcome"] == found["icmp", "echo"]["outcome"] == 8
    assert not found["udp", "161"]["is_as_expected"] and found["tcp", "22"]["is_as_expected"]


def test_after_failover_the_standby_firewall_s_hole_is_found(tmp_path: Path) -> None:
    with Network("fail") as network:
        hospital = IsolationHospital(network, tmp_path).build(["medical", "office"])
        network.add("standby")
        for number, zone in enumerate(("medical", "office"), 1):
            network.cable("standby", zone, zone, "eth1")
            network["standby"].ip(f"addr add 10.88.{number}.1/24 dev {zone}")
            network[zone].ip(f"addr add 10.88.{number}.10/24 dev eth1")
            network["standby"].ip(f"route add 10.77.{number}.0/24 via 10.88.{number}.10")
        network["standby"].run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        hospital.put_in_force('iifname "office" oifname "medical" tcp dport 5432 accept', firewall="standby")
        hospital.answer("medical")
        with hospital.probing("office", hospital.targets("office", ["medical"])) as probe:
            office = network["office"]
            assert breached(office.do(probe.collect())) == set()
            network["fw"].ip("link set office down\nlink set medical down")
            during = office.do(probe.collect())
            for number, zone in enumerate(("medical", "office"), 1):
                network[zone].ip(f"route replace default via 10.88.{number}.1 src 10.77.{number}.10")
            after = office.do(probe.collect())
        hospital.close()
    assert not any(fields["is_as_expected"] for fields in cells(during).values())
    assert breached(after) == unexpected(after) == {("office", "medical", "tcp", "5432")}
    assert controls(during) == {("office", "medical"): False} and controls(after) == {("office", "medical"): True}


def test_rate_limit_on_the_way_is_named_and_no_blocked_way(
    hospital: IsolationHospital, caplog: pytest.LogCaptureFixture
) -> None:
    """The firewall lets all through, but only a few new flows a second: asked slowly the ways answer."""
    hospital.put_in_force(
        'iifname "office" oifname "dmz" ct state new limit rate over 1/second burst 1 packets counter drop\n'
        'iifname "office" oifname "dmz" counter accept'
    )
    target = Target(
        zone="dmz", address=hospital.addresses["dmz"], allowed=("tcp/22", "tcp/443", "tcp/5432", "udp/53", "udp/161")
    )
    with speaking("en"), hospital.probing("office", [target]) as probe:
        readings = hospital.network["office"].do(probe.collect())
    assert unexpected(readings) == set()
    assert "dmz: " in caplog.text and "limits the rate" in caplog.text


def test_way_that_is_closed_is_no_rate_limit(hospital: IsolationHospital, caplog: pytest.LogCaptureFixture) -> None:
    hospital.put_in_force('iifname "office" oifname "dmz" tcp dport 443 counter drop')
    with hospital.probing("office", hospital.targets("office", ["dmz"])) as probe:
        readings = hospital.network["office"].do(probe.collect())
    assert unexpected(readings) == {("office", "dmz", "tcp", "443")}
    assert caplog.records == []


def test_ways_that_stay_silent_are_not_asked_slowly_beyond_the_end_of_the_round(hospital: IsolationHospital) -> None:
    """A round that overruns its deadline gives nothing at all, of the other targets neither."""
    allowed = ("tcp/22", "tcp/443", "tcp/5432", "udp/53", "udp/161")
    hospital.put_in_force('iifname "office" oifname "dmz" th dport { 22, 443, 5432, 53, 161 } counter drop')
    target = Target(zone="dmz", address=hospital.addresses["dmz"], allowed=allowed)
    probe, office = hospital.prober("office", [target], deadline_seconds=7.0), hospital.network["office"]
    office.do(probe.open())
    try:
        readings = office.do(asyncio.wait_for(probe.collect(), 7.0))
    finally:
        office.do(probe.close())
    assert len(unexpected(readings)) == len(allowed)
    assert controls(readings) == {("office", "dmz"): True}


SCENARIOS = [
    test_matrix_shows_exactly_the_holes_that_were_opened,
    test_hole_ipv6_is_found_where_ipv4_is_closed,
    test_reject_on_the_way_is_no_reach_and_its_sender_is_named,
    test_reject_by_a_target_that_does_not_listen_there_proves_nothing,
    test_blocked_control_leaves_silence_unproven_and_an_open_way_proven,
    test_dead_responder_is_no_isolation,
    test_responder_that_starts_anew_in_the_middle_of_a_round_proves_nothing,
    test_dead_prober_s_silence_is_no_isolation,
    test_probes_held_back_on_the_prober_s_own_machine_are_no_isolation,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_mutant_that_always_says_fine_turns_the_scenario_red(
    scenario: Callable[[IsolationHospital], None], hospital: IsolationHospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "collect", say_fine)
    with pytest.raises(AssertionError):
        scenario(hospital)


def test_mutant_is_green_where_all_is_well(hospital: IsolationHospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is red above for what it hides, and not for being broken."""
    monkeypatch.setattr(Probe, "collect", say_fine)
    test_matrix_agrees_with_the_policy(hospital)


def test_mutant_that_always_says_fine_turns_the_failover_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "collect", say_fine)
    with pytest.raises(AssertionError):
        test_after_failover_the_standby_firewall_s_hole_is_found(tmp_path)
