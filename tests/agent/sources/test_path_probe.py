"""path_probe on the loopback and in a namespace, against real servers: dnsmasq, Python's http.server, the kernel's echoes."""

import asyncio
import http.server
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from declared import undeclared
from namespaces import Namespace, Network
from servers import Authority, Daemon, free_port, program, tcp_server, until_async

from agent import language
from agent.broker import Secret
from agent.config import read_config
from agent.documents import FileMistakes
from agent.sources import Reading, Surroundings, _arrivals
from agent.sources._path_targets import Line, Route, Segment, Target
from agent.sources._proof import Keys
from agent.sources._stream import REPORT_TRIES, Direction, Reflector, Stream, Streamed
from agent.sources._tally import Tally
from agent.sources._throughput import Throughput, rate_of
from agent.sources.path_probe import STREAMS_AT_ONCE, Config, Source, of_stream

MS = 1_000_000


async def gather(config: Config, root: Path = Path("/")) -> list[Reading]:
    source = Source(config, Surroundings("consult-1", root=root))
    await source.open()
    readings = await source.collect()
    await source.close()
    assert undeclared("path_probe", readings) == []
    return readings


def fields_of(readings: list[Reading], target: str) -> Mapping[str, object]:
    [one] = [reading.fields for reading in readings if reading.tags.get("target") == target]
    return one


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health?deep=1" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[int, int, Path]]:
    """A plain and a TLS port of the same pages, and who signed the certificate."""
    authority = Authority(tmp_path / "ca")
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    secure = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    for server in (plain, secure):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield plain.server_port, secure.server_port, authority.certificate
    for server in (plain, secure):
        server.shutdown()
        server.server_close()


async def test_http_is_reachable_by_its_status_and_its_certificate(web: tuple[int, int, Path]) -> None:
    plain, secure, ca = web
    health = f"://127.0.0.1:{secure}/health?deep=1"
    readings = await gather(
        Config(
            targets=(
                Target(name="well", kind="http", url=f"http://127.0.0.1:{plain}/health?deep=1"),
                Target(name="ill", kind="http", url=f"http://127.0.0.1:{plain}/other"),
                Target(name="expected", kind="http", url=f"http://127.0.0.1:{plain}/other", statuses=(200, 503)),
                Target(name="signed", kind="http", url=f"https{health}", ca=str(ca)),
                Target(name="unknown-signer", kind="http", url=f"https{health}"),
                Target(name="nobody", kind="http", url=f"http://127.0.0.1:{free_port()}/"),
            ),
            timeout_seconds=30,
        )
    )
    reached = {reading.tags["target"] for reading in readings if reading.fields["is_reachable"]}
    assert reached == {"well", "expected", "signed"}
    assert all(("rtt_seconds" in reading.fields) == bool(reading.fields["is_reachable"]) for reading in readings)


async def test_tcp_and_dns(tmp_path: Path) -> None:
    port = free_port()
    settings = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces"]
    argv = [
        program("dnsmasq", "dnsmasq-base"),
        *settings,
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--address=/his.hospital.test/192.0.2.1",
        "--pid-file=",
        "--user=root",
    ]

    def is_ready() -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) == 0

    with Daemon(argv, tmp_path, is_ready):
        readings = await gather(
            Config(
                targets=(
                    Target(name="dns-1", kind="dns", address="127.0.0.1", port=port, ask="his.hospital.test"),
                    Target(name="dns-refuses", kind="dns", address="127.0.0.1", port=port, ask="elsewhere.example"),
                    Target(name="dns-gone", kind="dns", address="127.0.0.1", port=free_port(), ask="his.hospital.test"),
                    Target(name="tcp-1", kind="tcp", address="127.0.0.1", port=port),
                    Target(name="tcp-gone", kind="tcp", address="127.0.0.1", port=free_port()),
                ),
                timeout_seconds=3,
            )
        )
    reached = {reading.tags["target"] for reading in readings if reading.fields["is_reachable"]}
    assert reached == {"dns-1", "tcp-1"}


@pytest.fixture(scope="module")
def inside() -> Iterator[Namespace]:
    """A namespace with a neighbour 10.9.0.2; at 10.9.0.9 there is nobody."""
    with Network("path") as network:
        network.add("a", "b")
        network.cable("a", "eth0", "b", "eth0")
        network["a"].ip("addr add 10.9.0.1/24 dev eth0")
        network["b"].ip("addr add 10.9.0.2/24 dev eth0")
        yield network["a"]


def test_echoes_of_both_families_and_of_nobody(inside: Namespace) -> None:
    addresses = {"v4": "127.0.0.1", "v6": "::1", "silent": "10.9.0.9"}
    targets = tuple(Target(name=name, address=address) for name, address in addresses.items())
    readings = inside.do(gather(Config(targets=targets, packets=3, spacing_seconds=0.02, timeout_seconds=2)))
    for name in ("v4", "v6"):
        fields = fields_of(readings, name)
        assert (fields["is_reachable"], fields["loss_ratio"], fields["duplicate_ratio"]) == (True, 0, 0)
        assert fields["one_way_delay_seconds"] == float(str(fields["rtt_seconds"])) / 2
    assert fields_of(readings, "silent") == {"is_reachable": False, "loss_ratio": 1.0}


def test_echo_loss_is_what_the_kernel_dropped() -> None:
    """nft drops one echo in five by chance and counts them."""
    with Network("ping") as network:
        network.add("a", "b")
        network.cable("a", "eth0", "b", "eth0")
        network["a"].ip("addr add 10.9.0.1/24 dev eth0")
        network["b"].ip("addr add 10.9.0.2/24 dev eth0")
        network["b"].nft(
            "table inet loss {\nchain c {\ntype filter hook input priority 0\n"
            "icmp type echo-request numgen random mod 100 < 20 counter drop\n}\n}"
        )
        target = Target(name="b", address="10.9.0.2")
        config = Config(targets=(target,), packets=100, spacing_seconds=0.01, timeout_seconds=3)
        fields = fields_of(network["a"].do(gather(config)), "b")
        counted = re.search(r"counter packets (\d+)", network["b"].run("nft", "list", "ruleset"))
    assert counted is not None and int(counted[1]) > 0
    assert fields["loss_ratio"] == pytest.approx(int(counted[1]) / 100)


@pytest.mark.parametrize("standstill_seconds", [0.0, 0.7])
async def test_hundreds_of_targets_in_one_round(standstill_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made up for after a standstill of ours must not overflow our own buffer: that would be no loss of a path."""
    monkeypatch.setattr(_arrivals, "BUFFER_BYTES", 212_992)  # net.core.rmem_max as most systems have it
    asyncio.get_running_loop().call_later(0.2, time.sleep, standstill_seconds)
    targets = tuple(
        Target(name=f"t{number}", address=f"127.0.{number // 250}.{number % 250 + 1}") for number in range(500)
    )
    readings = await gather(
        Config(targets=targets, packets=2, spacing_seconds=0.1, per_second=1000, timeout_seconds=10)
    )
    assert len(readings) == 500
    assert all(reading.fields["loss_ratio"] == 0 for reading in readings)


def test_line_counts_providers_and_segment_counts_paths(inside: Namespace, tmp_path: Path) -> None:
    speed = tmp_path / "sys/class/net/wan0/speed"
    speed.parent.mkdir(parents=True)
    speed.write_text("1000\n")
    a, dead = Target(name="a", address="127.0.0.1"), Target(name="dead", address="10.9.0.9")
    b = Target(name="b", address="127.0.0.2")
    lines = {
        "two": Line(
            routes=(Route(provider="x", targets=("a", "dead")), Route(provider="y", targets=("b",))),
            interface="wan0",
            committed_bits_per_second=1e8,
        ),
        "one": Line(
            routes=(Route(provider="x", targets=("a",)), Route(provider="x", targets=("b",))), interface="wan0"
        ),
        "spare": Line(routes=(Route(provider="x", targets=("dead",)),), fallback=("b",), interface="wan1"),
        "down": Line(routes=(Route(provider="x", targets=("dead",)),), committed_bits_per_second=2e7),
    }
    segments = {
        "ward": Segment(paths=("a", "b", "dead"), gateways=("a", "b")),
        "lab": Segment(paths=("a",), gateways=("a", "dead")),
    }
    config = Config(
        targets=(a, dead, b), lines=lines, segments=segments, packets=2, spacing_seconds=0.02, timeout_seconds=2
    )
    readings = inside.do(gather(config, tmp_path))
    found = {next(iter(one.tags.values())): one.fields for one in readings if one.name in ("line", "network_segment")}
    up = {"is_up": True, "has_tested_fallback": False}
    assert found == {
        "two": up | {"live_routes_count": 2, "committed_bits_per_second": 1e8},
        "one": up | {"live_routes_count": 1, "committed_bits_per_second": 1e9},
        "spare": {"is_up": True, "live_routes_count": 0, "has_tested_fallback": True},
        "down": {
            "is_up": False,
            "live_routes_count": 0,
            "has_tested_fallback": False,
            "committed_bits_per_second": 2e7,
        },
        "ward": {"live_paths_count": 2, "has_redundant_gateway": True},
        "lab": {"live_paths_count": 1, "has_redundant_gateway": False},
    }


def test_target_that_stands_for_a_service_is_a_probe_of_it(inside: Namespace) -> None:
    targets = (
        Target(name="core-1", address="10.9.0.9", service="core-network"),
        Target(name="core-2", address="127.0.0.1", service="core-network"),
        Target(name="imaging", address="10.9.0.9", service="imaging-network"),
    )
    readings = inside.do(gather(Config(targets=targets, packets=1, timeout_seconds=2)))
    found = {one.tags["service"]: one.fields for one in readings if one.name == "service_probe"}
    assert (found["core-network"]["is_up"], found["imaging-network"]) == (True, {"is_up": False})
    assert float(found["core-network"]["latency_seconds"]) > 0


def test_links_between_sites_are_a_redundant_group_and_a_witness_is_reachable_by_any_of_its_addresses(
    inside: Namespace,
) -> None:
    targets = (
        Target(name="fibre-a", address="127.0.0.1", witness="his-db"),
        Target(name="fibre-b", address="10.9.0.9", witness="his-db"),
        Target(name="third-site", address="10.9.0.9", witness="lis-db"),
    )
    routes = (Route(provider="own", targets=("fibre-a",)), Route(provider="own", targets=("fibre-b",)))
    lines = {"sites": Line(routes=routes, between_sites=True), "city": Line(routes=routes)}
    readings = inside.do(gather(Config(targets=targets, lines=lines, packets=1, timeout_seconds=2)))
    [links] = [one for one in readings if one.name == "redundant_group"]
    assert links.tags == {"group": "sites", "kind": "link"}
    assert links.fields == {"members_count": 2, "healthy_count": 1, "is_healthy": False, "is_redundant": False}
    witnesses = {one.tags["cluster"]: one.fields for one in readings if one.name == "quorum"}
    assert witnesses == {"his-db": {"is_witness_reachable": True}, "lis-db": {"is_witness_reachable": False}}
    assert undeclared("path_probe", readings) == []


def test_tally_follows_rfc_3550_by_hand() -> None:
    """Sent every 20 ms; transit times 10, 14, 10, 26 ms: J = 4/16, then + (4 - J)/16, then + (16 - J)/16."""
    tally = Tally()
    for number, transit in enumerate((10, 14, 10, 26)):
        assert tally.add(number, number * 20 * MS, (number * 20 + transit) * MS)
    expected = 0.0
    for change in (4, 4, 16):
        expected += (change - expected) / 16
    assert tally.jitter_seconds == pytest.approx(expected / 1000)
    assert tally.delay_seconds == pytest.approx(0.015)


def test_tally_counts_loss_copies_and_overtaken_apart() -> None:
    tally = Tally()
    for number in (0, 2, 1, 1, 4, 4, 3):
        tally.add(number, 0, MS)
    assert (tally.received, tally.duplicates, tally.reordered) == (5, 2, 2)
    assert (tally.loss_ratio(6), tally.duplicate_ratio, tally.reorder_ratio) == (pytest.approx(1 / 6), 0.4, 0.4)


def direction(received: int = 100, delay: float = 0.01, least: float = 0.01) -> Direction:
    return Direction(received, 0, 0, 0.001, delay, least)


def test_worse_direction_counts_and_clocks_apart_fall_back_to_half_the_round_trip() -> None:
    streamed = Streamed(100, direction(90, 0.03, 0.02), direction(81, 0.01, 0.01), 90, 0.04)
    assert of_stream(streamed, one_way=True)["one_way_delay_seconds"] == 0.03
    assert of_stream(streamed, one_way=False)["one_way_delay_seconds"] == 0.02
    assert of_stream(streamed, one_way=True)["loss_ratio"] == pytest.approx(0.1)
    apart = Streamed(100, direction(100, 5.03, 5.02), direction(100, -4.99, -4.99), 100, 0.04)
    assert of_stream(apart, one_way=True)["one_way_delay_seconds"] == 0.02


def test_stream_whose_far_end_cannot_be_asked_says_only_that_it_answers() -> None:
    assert of_stream(Streamed(100, None, direction(5), 0, 0.04), one_way=False) == {"is_reachable": True}
    assert of_stream(Streamed(100, None, direction(0), 0, 0), one_way=False) == {
        "is_reachable": False,
        "loss_ratio": 1.0,
    }


class BeginsAnew(asyncio.DatagramProtocol):
    """A far end that is restarted once, after `kept` packets; a restarted one knows nothing of those before."""

    KEY = b"a key of this test only"

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._transport: asyncio.DatagramTransport | None = None
        self._reflector = Reflector(Keys(self.KEY), time.monotonic)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        if self._reflector.packets_count == self.kept:
            self.kept, self._reflector = -1, Reflector(Keys(self.KEY), time.monotonic)
        self._transport.sendto(self._reflector.hear(data, time.time_ns()) or b"", address)


@pytest.mark.parametrize("kept", [2, 5])
async def test_far_end_that_began_anew_in_the_middle_makes_no_loss_up(kept: int) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: BeginsAnew(kept), ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    streamed = await Stream(BeginsAnew.KEY, "ours", 5, 260).run("127.0.0.1", port, 0.001, 10)
    transport.close()
    assert of_stream(streamed, one_way=False) == {"is_reachable": True}


class Mute(asyncio.DatagramProtocol):
    """A far end that answers so many packets and no more."""

    KEY = b"a key of this test only"

    def __init__(self, answered: int) -> None:
        self.answered, self.kinds = answered, list[str]()
        self._transport: asyncio.DatagramTransport | None = None
        self._reflector = Reflector(Keys(self.KEY), time.monotonic)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        assert self._transport is not None
        self.kinds.append(data.split()[1].decode())
        if len(self.kinds) <= self.answered:
            self._transport.sendto(self._reflector.hear(data, time.time_ns()) or b"", address)


@pytest.mark.parametrize(("answered", "reports"), [(0, 0), (3, REPORT_TRIES)])
async def test_far_end_that_sends_nothing_back_is_not_asked_for_its_count(answered: int, reports: int) -> None:
    mute = Mute(answered)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: mute, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    streamed = await Stream(Mute.KEY, "ours", 5, 260).run("127.0.0.1", port, 0.001, 1.0)
    await until_async(lambda: len(mute.kinds) >= 5 + reports)
    transport.close()
    assert (mute.kinds.count("report"), streamed.back.received, streamed.out) == (reports, answered, None)


async def test_throughput_waits_for_a_path_that_was_there_until_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_bytes(Mute.KEY)
    mute = Mute(3)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: mute, ("127.0.0.1", 0))
    wanted = Throughput(hours=("00:00-12:00", "12:00-24:00"), most_bits_per_second=1e6)
    port = transport.get_extra_info("sockname")[1]
    target = Target(name="city", kind="stream", address="127.0.0.1", port=port, throughput=wanted)
    config = Config(targets=(target,), key=Secret(file=str(key)), stream_packets=5, timeout_seconds=1)
    with caplog.at_level(logging.WARNING):
        readings = await gather(config)
    transport.close()
    assert fields_of(readings, "city") == {"is_reachable": True}
    assert caplog.messages == []


def test_streams_that_no_round_can_hold_are_refused() -> None:
    def configured(streams: int) -> Config:
        targets = [Target(name=f"city-{n}", kind="stream", address="192.0.2.7", port=n + 1) for n in range(streams)]
        return Config(targets=tuple(targets), key=Secret(env="KEY"))

    assert len(configured(2 * STREAMS_AT_ONCE).targets) == 2 * STREAMS_AT_ONCE
    with language.speaking("en"), pytest.raises(ValueError, match="a round of 14 s has no room for its streams"):
        configured(2 * STREAMS_AT_ONCE + 1)


def test_mistakes_are_named(tmp_path: Path) -> None:
    language.choose("en")
    path = tmp_path / "agent.yaml"
    path.write_text(
        "site: north\nagent: srv-1\nbroker: {host: 127.0.0.1}\nsources:\n  path_probe:\n    targets:\n"
        "      - {name: a, address: core.example}\n      - {name: b, kind: tcp, address: 192.0.2.1}\n"
        "      - {name: c, kind: http, url: 'ftp://x'}\n      - {name: d, kind: dns, address: 192.0.2.1}\n"
    )
    with pytest.raises(FileMistakes) as caught:
        read_config(path)
    language.choose(None)
    assert [mistake.line for mistake in caught.value.mistakes] == [7, 8, 9, 10]


def test_silence_is_told_by_no_log(inside: Namespace, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        inside.do(gather(Config(targets=(Target(name="a", address="10.9.0.9"),), packets=1, timeout_seconds=0.1)))
    assert caplog.messages == []


def test_throughput_is_refused_where_a_round_has_no_room_for_it() -> None:
    wanted = Throughput(hours=("01:00-02:00",), most_bits_per_second=1e6, seconds=20)
    target = Target(name="city", kind="stream", address="192.0.2.7", throughput=wanted)
    with language.speaking("en"), pytest.raises(ValueError, match="no room for throughput"):
        Config(targets=(target,), key=Secret(env="KEY"))
    with language.speaking("en"), pytest.raises(ValueError, match="is for a stream"):
        Target(name="city", address="192.0.2.7", throughput=wanted)


def test_throughput_has_room_beside_every_batch_of_streams() -> None:
    """One dead far end in the second batch, or a transfer that stalls, would cost all targets their round."""

    def configured(streams: int) -> Config:
        wanted = Throughput(hours=("01:00-02:00",), most_bits_per_second=1e6)
        cities = [Target(name=f"city-{n}", kind="stream", address="192.0.2.7", port=n + 1) for n in range(1, streams)]
        first = Target(name="city-0", kind="stream", address="192.0.2.7", throughput=wanted)
        return Config(targets=(first, *cities), key=Secret(env="KEY"))

    assert len(configured(STREAMS_AT_ONCE).targets) == STREAMS_AT_ONCE
    with language.speaking("en"), pytest.raises(ValueError, match="no room for throughput"):
        configured(STREAMS_AT_ONCE + 1)


async def test_throughput_is_not_measured_to_somebody_who_pours_out_what_is_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def pour_out(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100_000)
        await writer.drain()
        writer.close()

    key, port = tmp_path / "key", free_port()
    key.write_bytes(BeginsAnew.KEY)
    sound, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: BeginsAnew(-1), ("127.0.0.1", port))
    wanted = Throughput(hours=("00:00-12:00", "12:00-24:00"), most_bits_per_second=1e6)
    target = Target(name="city", kind="stream", address="127.0.0.1", port=port, throughput=wanted)
    config = Config(targets=(target,), key=Secret(file=str(key)), stream_packets=5)
    async with tcp_server(pour_out, port):
        with caplog.at_level(logging.WARNING), language.speaking("en"):
            readings = await gather(config)
    sound.close()
    assert fields_of(readings, "city")["loss_ratio"] == 0
    assert "throughput_bits_per_second" not in fields_of(readings, "city")
    [told] = caplog.messages
    assert "receives no transfers" in told


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        ([], 0),
        ([(0.0, 10_000_000)], 0),
        ([(0.0, 0), (0.1, 1_000_000)], 0),
        ([(0.0, 0), (2.0, 100), (10.0, 1_000_100)], 1_000_000),
    ],
)
def test_throughput_counts_after_tcp_has_found_its_pace(samples: list[tuple[float, int]], rate: float) -> None:
    assert rate_of(samples) == rate
