"""management_access against a real snmpd, dropbear, chronyd, TLS and HTTP servers; telnet's door is a listening socket."""

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from declared import undeclared
from namespaces import Network
from servers import Authority, Daemon, answers, free_port, program, until_async

from agent.broker import Secret
from agent.errors import SourceError
from agent.sources import Reading, Surroundings
from agent.sources.management_access import Config, Device, Source


async def look(device: Device, *communities: Secret) -> tuple[dict[str, object], list[Reading]]:
    """Which protocols answer, and all readings."""
    source = Source(Config(devices=(device,), communities=communities, timeout_seconds=4), Surroundings("gateway-1"))
    await source.open()
    readings = await source.collect()
    assert undeclared("management_access", readings) == []
    assert {reading.asset for reading in readings} <= {device.asset}
    found = {one.tags["protocol"]: one.fields["is_answering"] for one in readings if one.name == "management_access"}
    return found, readings


def closed_ports() -> dict[str, int]:
    return {protocol: free_port() for protocol in ("telnet", "http", "ssh", "https", "snmp", "ntp")}


class Redirecting(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(301)
        self.send_header("Location", "https://switch.example/")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Mapping[str, int]]:
    """http pages, http that only redirects, https."""
    issued = Authority(tmp_path / "ca").issue("switch")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    kinds = {"pages": http.server.SimpleHTTPRequestHandler, "redirect": Redirecting, "https": Redirecting}
    servers = {
        name: http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind, bind_and_activate=True)
        for name, kind in kinds.items()
    }
    servers["https"].socket = context.wrap_socket(servers["https"].socket, server_side=True)
    servers["https"].handle_error = lambda request, address: None  # type: ignore[method-assign]  # a handshake alone
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {name: server.server_port for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


def snmpd(folder: Path, port: int, settings: str) -> Daemon:
    """An agent of its own; v3 discovery is answered by every snmpd."""
    (folder / "snmpd.conf").write_text(f"agentAddress udp:127.0.0.1:{port}\n{settings}\n")
    argv = [
        program("snmpd", "snmpd"),
        "-f",
        "-Lf",
        folder / "log",
        "-C",
        "-c",
        folder / "snmpd.conf",
        "-p",
        folder / "pid",
    ]
    environment = {"SNMP_PERSISTENT_DIR": str(folder), "MIBS": "", "PATH": "/usr/bin"}
    return Daemon(argv, folder, lambda: (folder / "pid").exists(), environment)


async def test_insecure_device_is_seen_through(tmp_path: Path, web: Mapping[str, int]) -> None:
    ports = closed_ports() | {"http": web["pages"]}
    with socket.create_server(("127.0.0.1", ports["telnet"])), snmpd(tmp_path, ports["snmp"], "rocommunity public"):
        found, _ = await look(Device(asset="core-sw-1", address="127.0.0.1", ports=ports))
    assert {protocol for protocol, is_answering in found.items() if is_answering} == {
        "telnet",
        "http",
        "snmp-v1",
        "snmp-v2c",
        "snmp-v3",
    }


async def test_secure_device_answers_secure_protocols_only(tmp_path: Path, web: Mapping[str, int]) -> None:
    ports = closed_ports() | {"http": web["redirect"], "https": web["https"]}
    key = tmp_path / "host.key"
    subprocess.run(
        [program("dropbearkey", "dropbear-bin"), "-t", "ed25519", "-f", key], check=True, capture_output=True
    )
    where = f"127.0.0.1:{ports['ssh']}"
    argv = [program("dropbear", "dropbear-bin"), "-F", "-E", "-r", key, "-p", where, "-P", tmp_path / "ssh.pid"]
    users = "createUser ops SHA secretsecret AES secretsecret\nrouser ops priv"
    with Daemon(argv, tmp_path, lambda: answers(ports["ssh"])), snmpd(tmp_path, ports["snmp"], users):
        found, _ = await look(Device(asset="core-sw-1", address="127.0.0.1", ports=ports))
    assert {protocol for protocol, is_answering in found.items() if is_answering} == {"ssh", "https", "snmp-v3"}


async def test_community_that_is_in_use_is_tried_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMUNITY", "hospital-ro")
    ports = closed_ports()
    device = Device(asset="core-sw-1", address="127.0.0.1", ports=ports)
    with snmpd(tmp_path, ports["snmp"], "rocommunity hospital-ro"):
        found, _ = await look(device)
        assert found["snmp-v2c"] is False
        found, _ = await look(device, Secret(env="COMMUNITY"))
    assert (found["snmp-v1"], found["snmp-v2c"]) == (True, True)


async def test_clock_of_a_device_by_ntp(tmp_path: Path) -> None:
    ports = closed_ports()
    folder = tmp_path / "chrony"
    folder.mkdir(mode=0o750)
    (folder / "chrony.conf").write_text(
        f"bindaddress 127.0.0.1\ncmdport 0\nbindcmdaddress {folder}/c.sock\npidfile {folder}/pid\n"
        f"port {ports['ntp']}\nallow 127.0.0.1\nlocal stratum 3\n"
    )
    argv = [program("chronyd", "chrony"), "-x", "-d", "-u", "root", "-f", folder / "chrony.conf"]

    async def is_in_step() -> bool:  # what we stand still between asking and hearing goes into the offset
        _, readings = await look(Device(asset="core-sw-1", address="127.0.0.1", ports=ports))
        [clock] = [reading.fields for reading in readings if reading.name == "host_clock"]
        assert clock["is_synchronised"] is True
        return abs(float(clock["offset_seconds"])) < 0.05

    with Daemon(argv, tmp_path, (folder / "c.sock").exists):
        await until_async(is_in_step)


async def test_device_that_refuses_everything_is_alive_and_closed() -> None:
    found, _ = await look(Device(asset="core-sw-1", address="127.0.0.1", ports=closed_ports()))
    assert len(found) == 7 and not any(found.values())


def test_device_that_is_off_is_not_called_closed() -> None:
    with Network("off") as network:
        network.add("gateway", "other")
        network.cable("gateway", "eth0", "other", "eth0")
        network["gateway"].ip("addr add 10.9.0.1/24 dev eth0")
        found, readings = network["gateway"].do(look(Device(asset="core-sw-1", address="10.9.0.9")))
    assert (found, readings) == ({}, [])


async def test_community_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    config = Config(devices=(), communities=(Secret(file=str(tmp_path / "none")),))
    with pytest.raises(SourceError, match="communities"):
        await Source(config, Surroundings("gateway-1")).open()


@pytest.mark.parametrize(
    "wrong",
    [{"asset": "Core"}, {"address": "core.example"}, {"ports": {"rlogin": 513}}],
    ids=["asset", "address", "ports"],
)
def test_mistakes_are_refused(wrong: Mapping[str, object]) -> None:
    with pytest.raises(ValueError):
        Device(**({"asset": "core-sw-1", "address": "192.0.2.1"} | dict(wrong)))  # type: ignore[arg-type]
