"""Ways out that no rule of the firewall shows: the resolver that asks the world, the proxy, a stray default route."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from isolation_hospital import IsolationHospital, breached, cells, controls, say_fine
from namespaces import Network
from servers import Daemon, program

from agent.sources.isolation_probe import Source as Probe
from agent.sources.isolation_probe import Target

RESOLVER, PROXY = "10.77.2.1", "10.77.2.1:3128"
"""Both run on the firewall, as they do in small hospitals."""

DOMAIN = "probe.hospital.test"


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolationHospital]:
    with Network("out") as network:
        built = IsolationHospital(network, tmp_path_factory.mktemp("out")).build(["medical", "office", "outside"])
        built.answer("outside")
        yield built
        built.close()


def resolver(hospital: IsolationHospital, folder: Path, *settings: str) -> Daemon:
    """dnsmasq; what it forwards stands for a delegated domain."""
    words = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=", "--user=root"]
    argv = [program("dnsmasq", "dnsmasq-base"), *words, "--bind-interfaces", f"--listen-address={RESOLVER}", *settings]
    fw = hospital.network["fw"]
    return Daemon(fw.command(*argv), folder, lambda: f"{RESOLVER}:53 " in fw.run("ss", "-uln"))


def proxy(hospital: IsolationHospital, folder: Path, connect_port: int) -> Daemon:
    """tinyproxy, which tunnels to one port only."""
    (folder / "proxy.conf").write_text(f"Port 3128\nListen 10.77.2.1\nTimeout 5\nConnectPort {connect_port}\n")
    fw = hospital.network["fw"]
    argv = fw.command(program("tinyproxy", "tinyproxy-bin"), "-d", "-c", folder / "proxy.conf")
    return Daemon(argv, folder, lambda: ":3128 " in fw.run("ss", "-tln"))


def look(hospital: IsolationHospital, **helpers: object) -> Mapping[str, Mapping[str, object]]:
    """The cells of one round from the office outward, by protocol."""
    target = Target(zone="outside", address=hospital.addresses["outside"], **helpers)  # type: ignore[arg-type]
    with hospital.probing("office", [target]) as probe:
        readings = hospital.network["office"].do(probe.collect())
    assert controls(readings) == {("office", "outside"): True}
    return {cell[2]: fields for cell, fields in cells(readings).items()}


def test_resolver_that_asks_the_world_is_a_way_out(hospital: IsolationHospital, tmp_path: Path) -> None:
    with resolver(hospital, tmp_path, f"--server=/{DOMAIN}/{hospital.addresses['outside']}"):
        found = look(hospital, resolvers=(RESOLVER,), domain=DOMAIN)
    assert (found["dns"]["outcome"], found["dns"]["is_breached"]) == (1, True)


def test_resolver_that_keeps_to_the_hospital_is_none(hospital: IsolationHospital, tmp_path: Path) -> None:
    with resolver(hospital, tmp_path):
        found = look(hospital, resolvers=(RESOLVER,), domain=DOMAIN)
    assert (found["dns"]["outcome"], found["dns"]["is_as_expected"]) == (3, True)


def test_proxy_that_tunnels_to_anybody_is_a_way_out(hospital: IsolationHospital, tmp_path: Path) -> None:
    with proxy(hospital, tmp_path, 443):
        found = look(hospital, proxies=(PROXY,))
    assert (found["proxy"]["outcome"], found["proxy"]["is_breached"]) == (1, True)


def test_proxy_that_refuses_is_none(hospital: IsolationHospital, tmp_path: Path) -> None:
    with proxy(hospital, tmp_path, 8443):
        found = look(hospital, proxies=(PROXY,))
    assert (found["proxy"]["outcome"], found["proxy"]["is_as_expected"]) == (3, True)


def test_dead_resolver_and_dead_proxy_prove_nothing(hospital: IsolationHospital) -> None:
    found = look(hospital, resolvers=(RESOLVER,), domain=DOMAIN, proxies=(PROXY,))
    assert {fields["outcome"] for fields in found.values()} == {5}
    assert not any(fields["is_as_expected"] for fields in found.values())


def test_stray_default_route_is_a_way_out_around_the_firewall(hospital: IsolationHospital) -> None:
    """A second cable from the medical zone: the firewall's rules are as right as before."""
    network = hospital.network
    targets = hospital.targets("medical", ["outside"])
    with hospital.probing("medical", targets) as probe:
        assert breached(network["medical"].do(probe.collect())) == set()
        network.cable("medical", "modem0", "outside", "modem0")
        network["medical"].ip("addr add 10.78.0.1/30 dev modem0\nroute replace default via 10.78.0.2")
        network["outside"].ip("addr add 10.78.0.2/30 dev modem0")
        open_ways = breached(network["medical"].do(probe.collect()))
    ports = {(protocol, port) for _, _, protocol, port in open_ways}
    assert ports == {("tcp", "22"), ("tcp", "443"), ("tcp", "5432"), ("udp", "53"), ("udp", "161"), ("icmp", "echo")}


SCENARIOS = [
    test_resolver_that_asks_the_world_is_a_way_out,
    test_proxy_that_tunnels_to_anybody_is_a_way_out,
    lambda hospital, _: test_dead_resolver_and_dead_proxy_prove_nothing(hospital),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=["resolver", "proxy", "dead"])
def test_mutant_that_always_says_fine_turns_the_scenario_red(
    scenario: Callable[[IsolationHospital, Path], None],
    hospital: IsolationHospital,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Probe, "collect", say_fine)
    with pytest.raises(AssertionError):
        scenario(hospital, tmp_path)
