"""exposure_scan from outside a namespace's firewall: what is open, and that a scanner off the net says nothing."""

import asyncio
from collections.abc import Iterator, Mapping

import pytest
from declared import undeclared
from namespaces import Namespace, Network

from agent.sources import Surroundings
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
    options = {"addresses": (PUBLIC,), "control": control, "timeout_seconds": 0.5, "ports_per_second": 500} | more
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
