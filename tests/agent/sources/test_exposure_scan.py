"""exposure_scan from outside a namespace's firewall: what is open, and that a scanner off the net says nothing."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from declared import undeclared
from namespaces import Namespace, Network
from servers import Daemon, program

from agent.sources import Surroundings
from agent.sources._udp_services import SERVICES
from agent.sources.exposure_scan import ADMINISTRATION, DATABASES, Config, Source

PUBLIC = "10.4.0.1"


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """An agent outside, and a hospital of one address: a page, a forgotten database, SSH behind a rule."""
    with Network("scan") as network:
        network.add("hospital", "outside")
        network.cable("hospital", "eth0", "outside", "eth0")
        network["hospital"].ip(f"addr add {PUBLIC}/24 dev eth0")
        network["outside"].ip("addr add 10.4.0.2/24 dev eth0")
        network["hospital"].run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")  # else a quick scan's refusals run out
        network["hospital"].nft("table inet f {\nchain c {\ntype filter hook input priority 0\ntcp dport 22 drop\n}\n}")
        servers = [network["hospital"].do(listen(port)) for port in (443, 5432, 22)]
        yield network
        for server in servers:
            network["hospital"].call(server.close)


@pytest.fixture
def scanner(net: Network) -> Namespace:
    return net["outside"]


async def listen(port: int) -> asyncio.Server:
    return await asyncio.start_server(lambda reader, writer: writer.close(), PUBLIC, port)


async def listen_once(port: int) -> asyncio.Server:
    """Gone after its first visitor."""

    def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.close()
        writer.close()

    server = await asyncio.start_server(meet, PUBLIC, port)
    return server


def scan(scanner: Namespace, control: str = f"{PUBLIC}:443", **more: object) -> Mapping[str, object]:
    options = {
        "addresses": (PUBLIC,),
        "control": control,
        "timeout_seconds": 2.0,
        "ports_per_second": 500,
        "udp": False,
    } | more
    config = Config(**options)  # type: ignore[arg-type]
    [reading] = scanner.do(Source(config, Surroundings("outside-1")).collect())
    assert undeclared("exposure_scan", [reading]) == []
    assert reading.tags == {"scanner": "outside-1"}
    return reading.fields


def test_open_database_is_found_and_a_filtered_port_is_not(scanner: Namespace) -> None:
    ports = len({*DATABASES, *ADMINISTRATION})
    assert scan(scanner) == {
        "exposed_count": 1,
        "exposed_databases_count": 1,
        "scanned_count": ports,
        "is_complete": True,
        "exposed": f"{PUBLIC}:5432",
    }


def test_ports_of_the_hospital_s_own_are_added(scanner: Namespace) -> None:
    fields = scan(scanner, more_ports=(443,))
    assert (fields["exposed_count"], fields["exposed_databases_count"]) == (2, 1)


def test_scan_whose_control_is_not_reached_is_not_complete(scanner: Namespace) -> None:
    assert scan(scanner, control=f"{PUBLIC}:444")["is_complete"] is False


def test_scan_whose_control_went_away_meanwhile_is_not_complete(net: Network, scanner: Namespace) -> None:
    net["hospital"].do(listen_once(444))
    assert scan(scanner, control=f"{PUBLIC}:444")["is_complete"] is False


def test_scan_that_could_not_try_every_address_is_not_complete(scanner: Namespace) -> None:
    fields = scan(scanner, addresses=(PUBLIC, "10.5.0.1"))
    assert (fields["exposed"], fields["is_complete"]) == (f"{PUBLIC}:5432", False)


def test_scanner_off_the_net_has_scanned_nothing(scanner: Namespace) -> None:
    scanner.ip("link set eth0 down")
    try:
        fields = scan(scanner)
    finally:
        scanner.ip("link set eth0 up")
    assert (fields["exposed_count"], fields["scanned_count"], fields["is_complete"]) == (0, 0, False)


@pytest.mark.parametrize(
    "wrong",
    [{"addresses": ()}, {"addresses": ("his.example",)}, {"control": "192.0.2.1"}, {"control": "his.example:443"}],
)
def test_mistakes_are_refused(wrong: Mapping[str, object]) -> None:
    with pytest.raises(ValueError):
        Config(**({"addresses": (PUBLIC,), "control": f"{PUBLIC}:443"} | dict(wrong)))  # type: ignore[arg-type]


# -- services without connections

UDP_PORTS = len(SERVICES)


def udp_of(fields: Mapping[str, object]) -> tuple[object, object, object]:
    return tuple(fields[f"udp_{state}_count"] for state in ("open", "refused", "silent"))  # type: ignore[return-value]


@pytest.fixture
def answering(net: Network, tmp_path: Path) -> Iterator[None]:
    """Real servers: snmpd, dnsmasq as an open resolver and for TFTP, memcached."""
    inside, folder = net["hospital"], tmp_path / "tftp"
    folder.mkdir(mode=0o755)
    (tmp_path / "snmpd.conf").write_text(f"agentaddress udp:{PUBLIC}:161\nrocommunity public\n")
    snmpd = [program("snmpd", "snmpd"), "-C", "-c", tmp_path / "snmpd.conf", "-f", "-Lo"]
    dns = [program("dnsmasq", "dnsmasq-base"), "-k", "-C", "/dev/null", "-u", "root", f"--listen-address={PUBLIC}"]
    dns += [
        "--bind-interfaces",
        "--no-resolv",
        "--local=/invalid/",
        "--enable-tftp",
        f"--tftp-root={folder}",
        "--no-hosts",
    ]
    memcached = [program("memcached", "memcached"), "-u", "root", "-l", PUBLIC, "-U", "11211"]
    environment = {"MIBS": "", "SNMP_PERSISTENT_DIR": str(tmp_path / "p"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def is_bound(*ports: int) -> Callable[[], bool]:
        return lambda: all(f":{port} " in inside.run("ss", "-Hlun") for port in ports)

    with ExitStack() as stack:
        for words, ports in ((snmpd, (161,)), (dns, (53, 69)), (memcached, (11211,))):
            stack.enter_context(Daemon(inside.command(*words), tmp_path, is_bound(*ports), environment))
        yield


def test_udp_services_that_answer_are_exposed_and_the_others_refused(scanner: Namespace, answering: None) -> None:
    fields = scan(scanner, udp=True)
    places = str(fields["exposed"]).split()
    assert {place for place in places if place.endswith("/udp")} == {
        f"{PUBLIC}:{port}/udp" for port in (161, 53, 69, 11211)
    }
    assert udp_of(fields) == (4, UDP_PORTS - 4, 0)
    assert fields["exposed_databases_count"] == 3  # PostgreSQL, memcached over TCP and over UDP
    assert fields["is_complete"] is True


def test_silence_is_counted_as_silence_and_not_as_closed(net: Network, scanner: Namespace) -> None:
    net["hospital"].nft("table inet u {\nchain c {\ntype filter hook input priority 0\nmeta l4proto udp drop\n}\n}")
    try:
        fields = scan(scanner, udp=True)
    finally:
        net["hospital"].nft("delete table inet u")
    assert udp_of(fields) == (0, 0, UDP_PORTS)
    assert fields["exposed"] == f"{PUBLIC}:5432" and fields["is_complete"] is True


def test_nothing_listens_over_udp(scanner: Namespace) -> None:
    assert udp_of(scan(scanner, udp=True)) == (0, UDP_PORTS, 0)


def test_udp_questions_that_never_left_leave_the_scan_incomplete(scanner: Namespace) -> None:
    scanner.nft("table inet u {\nchain c {\ntype filter hook output priority 0\nmeta l4proto udp drop\n}\n}")
    try:
        fields = scan(scanner, udp=True)
    finally:
        scanner.nft("delete table inet u")
    assert (udp_of(fields), fields["is_complete"]) == ((0, 0, 0), False)


class Speaker(asyncio.DatagramProtocol):
    """A fake of a service whose answer is known from its standard; no such server is to be had here."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        self._transport.sendto(self._answer, peer)


@pytest.mark.parametrize(
    ("port", "answer", "is_open"),
    [
        (623, bytes.fromhex("0600ff06000011be4000001000000000000000000000000000000000"[:48]), True),
        (1434, b"\x05\x10\x00ServerName;HIS;;", True),
        (123, bytes.fromhex("168200010615000000000000"), True),
        (123, b"\x24" + bytes(47), False),  # it tells the time, as it may
        (53, b"\0\0\x84\x05" + bytes(8), False),  # a zone's own server, which refuses strangers
    ],
)
def test_answers_of_services_that_are_fakes_here(
    net: Network, scanner: Namespace, port: int, answer: bytes, is_open: bool
) -> None:
    async def speak() -> asyncio.DatagramTransport:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Speaker(answer), local_addr=(PUBLIC, port)
        )
        return transport

    transport = net["hospital"].do(speak())
    try:
        fields = scan(scanner, udp=True)
    finally:
        net["hospital"].call(transport.close)
    assert udp_of(fields) == ((1, UDP_PORTS - 1, 0) if is_open else (0, UDP_PORTS - 1, 1))


def test_no_question_is_answered_by_less_than_it_asks() -> None:
    """Nothing that we send could flood anybody: small, and none of the listing commands."""
    for service in SERVICES.values():
        assert len(service.make()) <= 64 and b"stats" not in service.make()
