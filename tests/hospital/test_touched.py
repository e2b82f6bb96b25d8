"""Nobody is touched who is not enrolled: what leaves the agent's interface, round by round, whatever the answers say."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from namespaces import Namespace, Network
from servers import Daemon, program
from wire_tap import Tap

from agent.broker import Secret
from agent.documents import build, parse_document
from agent.sources import (
    Reading,
    Source,
    Surroundings,
    exposure_scan,
    isolation_probe,
    isolation_responder,
    management_access,
    path_probe,
    snmp_device,
)
from agent.sources._requests import connect

ENROLLED = ("10.9.1.1", "10.9.1.2")
KEY = "of-this-test-and-no-other"
STRANGER = "10.9.9.9"
"""What every answer points to; it has an address and would answer."""

LISTEN = ("tcp/443", "tcp/5432", "udp/162", "icmp")
AROUND = Surroundings("gateway")


class Pointing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://{STRANGER}/")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """An agent, and a world that answers at every address: its page points away, so do its resolver and its neighbours."""
    folder = tmp_path_factory.mktemp("touched")
    with Network("to") as network:
        agent, world = network.add("agent", "world")
        network.cable("agent", "eth0", "world", "eth0")
        agent.ip("addr add 10.9.0.2/24 dev eth0\nroute add default via 10.9.0.1")
        world.ip(
            "addr add 10.9.0.1/24 dev eth0\n" + "\n".join(f"addr add {one}/32 dev lo" for one in (*ENROLLED, STRANGER))
        )
        world.ip("neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth0")
        page = world.call(lambda: ThreadingHTTPServer(("0.0.0.0", 80), Pointing))
        Thread(target=page.serve_forever, daemon=True).start()
        (folder / "key").write_text(KEY)
        key = Secret(file=str(folder / "key"))
        responder = isolation_responder.Source(isolation_responder.Config(key=key, listen=LISTEN), AROUND)
        world.do(responder.open())
        with resolver(world, folder), snmpd(world, folder):
            yield network
        world.do(responder.close())
        page.shutdown()
        page.server_close()


def resolver(world: Namespace, folder: Path) -> Daemon:
    words = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=", "--user=root"]
    argv = [program("dnsmasq", "dnsmasq-base"), *words, f"--address=/his.test/{STRANGER}"]
    return Daemon(world.command(*argv), folder, lambda: ":53 " in world.run("ss", "-uln"))


def snmpd(world: Namespace, folder: Path) -> Daemon:
    (folder / "snmpd.conf").write_text(f"agentaddress udp:161\nrocommunity {KEY}\n")
    argv = world.command(program("snmpd", "snmpd"), "-C", "-c", folder / "snmpd.conf", "-f", "-Lo")
    environment = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return Daemon(argv, folder, lambda: ":161 " in world.run("ss", "-uln"), environment)


def isolation(folder: Path) -> Source:
    """Towards two zones; a resolver and a proxy are asked too, and point away."""
    targets = [
        isolation_probe.Target(
            zone=zone, address=address, allowed=("tcp/443", "icmp"), blocked=("tcp/5432", "udp/162"),
            resolvers=(ENROLLED[0],), proxies=(f"{ENROLLED[0]}:80",), domain="his.test",
        )
        for zone, address in zip(("medical", "office"), ENROLLED, strict=True)
    ]  # fmt: skip
    key = Secret(file=str(folder / "key"))
    return isolation_probe.Source(
        isolation_probe.Config(zone="outside", key=key, targets=tuple(targets), timeout_seconds=0.5),
        AROUND,
    )


def paths(folder: Path) -> Source:
    """A page that points away, a resolver that does, a stream whose far end is dead."""
    targets = (
        path_probe.Target(name="ping", address=ENROLLED[0]),
        path_probe.Target(name="port", kind="tcp", address=ENROLLED[1], port=80),
        path_probe.Target(name="page", kind="http", url=f"http://{ENROLLED[0]}/", statuses=(302,)),
        path_probe.Target(name="name", kind="dns", address=ENROLLED[1], ask="his.test"),
        path_probe.Target(name="stream", kind="stream", address=ENROLLED[1]),
    )
    key = Secret(file=str(folder / "key"))
    return path_probe.Source(path_probe.Config(targets=targets, key=key, stream_packets=10), AROUND)


def exposure(folder: Path) -> Source:
    config = exposure_scan.Config(
        addresses=ENROLLED[:1], control=f"{ENROLLED[1]}:80", timeout_seconds=0.5, ports_per_second=500
    )
    return exposure_scan.Source(config, AROUND)


def management(folder: Path) -> Source:
    devices = [management_access.Device(asset=f"switch-{one[-1]}", address=one) for one in ENROLLED]
    return management_access.Source(management_access.Config(devices=tuple(devices), timeout_seconds=0.5), AROUND)


def polling(folder: Path) -> Source:
    """A router whose tables name others."""
    text = f"credentials: {{c: {{community: {{file: {folder}/key}}}}}}\ntargets: [{{asset: r, host: {ENROLLED[0]}}}]\n"
    return snmp_device.Source(build(parse_document(text, "a.yaml"), snmp_device.Config), AROUND)


ROUNDS: Mapping[str, tuple[Callable[[Path], Source], tuple[str, ...]]] = {
    "isolation_probe": (isolation, ENROLLED),
    "path_probe": (paths, ENROLLED),
    "exposure_scan": (exposure, ENROLLED),
    "management_access": (management, ENROLLED),
    "snmp_device": (polling, ENROLLED[:1]),
}


async def one_round(source: Source) -> Sequence[Reading]:
    """From its opening to its close."""
    await source.open()  # type: ignore[attr-defined]
    try:
        return await source.collect()  # type: ignore[misc, no-any-return]
    finally:
        await source.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ROUNDS)
def test_round_touches_who_is_enrolled_and_nobody_else(net: Network, name: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    make, enrolled = ROUNDS[name]
    with Tap(net["agent"]) as tap:
        readings = net["agent"].do(one_round(make(tmp_path)))
    assert readings
    assert tap.destinations == set(enrolled)


def test_discovery_touches_what_is_allowed_and_nobody_else(net: Network, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "agent.yaml").write_text(f"""
site: s
agent: gateway-1
broker: {{host: h}}
sources:
  snmp_device:
    credentials: {{c: {{community: {{file: {tmp_path}/key}}}}}}
    targets: [{{asset: r, host: {ENROLLED[0]}}}]
    discover: {{ranges: [10.9.1.0/30], requests_per_second: 100}}
""")
    with Tap(net["agent"]) as tap:
        net["agent"].run(sys.executable, "-m", "agent.cli", "snmp", "discover", "-c", tmp_path / "agent.yaml")
    assert tap.destinations == set(ENROLLED)


def test_tap_sees_who_touches_a_stranger(net: Network) -> None:
    with Tap(net["agent"]) as tap:
        assert net["agent"].do(connect(STRANGER, 80))
    assert tap.destinations == {STRANGER}
