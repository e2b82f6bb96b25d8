"""A real net-snmp agent for tests, and a proxy that spoils its datagrams."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

from servers import Daemon, program

from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Opened

AUTH_PASSWORD, PRIV_PASSWORD, COMMUNITY = "auth-pass-of-ward", "priv-pass-of-ward", "ward-community"
PUBLIC = Opened(community=COMMUNITY)
QUICK = Patience(timeout_seconds=0.2, retries=2)
"""Where silence is expected."""
PATIENT = Patience(timeout_seconds=5.0, retries=2)
"""Where an answer is: on a busy machine it may take its time."""

AUTHS = {
    "md5": "MD5",
    "sha1": "SHA",
    "sha224": "SHA-224",
    "sha256": "SHA-256",
    "sha384": "SHA-384",
    "sha512": "SHA-512",
}
PRIVS = {"des": "DES", "aes128": "AES", "aes192": "AES-192", "aes256": "AES-256"}


def user(auth: str | None = None, priv: str | None = None, **changes: str) -> Opened:
    """The credential of one of the users that every Snmpd here knows."""
    name = "-".join(["user", *filter(None, (auth, priv))])
    fields: dict[str, str | None] = {"version": "3", "user": name, "auth": auth, "priv": priv}
    fields |= {"auth_password": AUTH_PASSWORD if auth else "", "priv_password": PRIV_PASSWORD if priv else ""}
    return Opened(**{**fields, **changes})  # type: ignore[arg-type]


def users() -> str:
    """snmpd.conf for all mixes of levels and keys."""
    lines = ["createUser user", "rouser user noauth"]
    for auth, auth_word in AUTHS.items():
        lines += [f'createUser user-{auth} {auth_word} "{AUTH_PASSWORD}"', f"rouser user-{auth} auth"]
        for priv, priv_word in PRIVS.items():
            name = f"user-{auth}-{priv}"
            lines += [
                f'createUser {name} {auth_word} "{AUTH_PASSWORD}" {priv_word} "{PRIV_PASSWORD}"',
                f"rouser {name} priv",
            ]
    return "\n".join(lines)


_given_ports: set[int] = set()


def free_udp_port() -> int:
    """A UDP port of the loopback that nobody uses now, never the same twice."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given_ports:
            _given_ports.add(port)
            return port


class Snmpd(Daemon):
    """net-snmp's snmpd on a loopback port. settings: lines of snmpd.conf besides the port, the community and the name."""

    def __init__(self, folder: Path, settings: str = "", port: int | None = None) -> None:
        self.port = port or free_udp_port()
        path = folder / f"snmpd-{self.port}.conf"
        path.write_text(
            f"agentaddress udp:127.0.0.1:{self.port}\nrocommunity {COMMUNITY} 127.0.0.1\nsysName ward-switch\n"
            f"sysLocation cellar of building 7\nsysContact nobody@example.org\n{settings}\n"
        )
        argv = [program("snmpd", "snmpd"), "-C", "-c", path, "-f", "-Lo"]
        environment = {"SNMP_PERSISTENT_DIR": str(folder / "persistent"), "MIBS": "", "PATH": "/usr/bin:/bin"}
        super().__init__(argv, folder, self._answers, environment)

    def _answers(self) -> bool:
        request = _get_uptime()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(("127.0.0.1", self.port))
                probe.send(request)
                return bool(probe.recv(1500))
            except OSError:
                return False

    def session(self, credential: Opened = PUBLIC, patience: Patience = PATIENT) -> Session:
        """A session with it."""
        return Session("127.0.0.1", self.port, credential, patience)


def _get_uptime() -> bytes:
    from agent.snmp import ber

    wanted = ber.bindings([ber.Binding("1.3.6.1.2.1.1.3.0", ber.NULL, None)])
    return ber.message(1, COMMUNITY.encode(), ber.pdu(ber.GET, 1, 0, 0, wanted))


Spoil = Callable[[bytes, int], list[bytes]]
"""What becomes of the n-th answer: nothing, itself, several, others."""


class Proxy(asyncio.DatagramProtocol):
    """Stands between us and an agent and spoils its answers. delay_seconds: of every answer."""

    def __init__(self, port: int, spoil: Spoil, delay_seconds: float = 0.0) -> None:
        self._behind, self._spoil, self._delay = ("127.0.0.1", port), spoil, delay_seconds
        self._clients: dict[tuple[str, int], asyncio.DatagramTransport] = {}
        self._tasks: set[asyncio.Future[None]] = set()
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        task = asyncio.ensure_future(self._forward(data, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, data: bytes, peer: tuple[str, int]) -> None:
        if peer not in self._clients:
            loop = asyncio.get_running_loop()
            made, _ = await loop.create_datagram_endpoint(lambda: _Back(self, peer), remote_addr=self._behind)
            self._clients[peer] = made
        self._clients[peer].sendto(data)

    def give_back(self, data: bytes, peer: tuple[str, int]) -> None:
        for answer in self._spoil(data, self.answers):
            asyncio.get_running_loop().call_later(self._delay, self._transport.sendto, answer, peer)
        self.answers += 1

    def close(self) -> None:
        for transport in (self._transport, *self._clients.values()):
            transport.close()


class _Back(asyncio.DatagramProtocol):
    def __init__(self, proxy: Proxy, peer: tuple[str, int]) -> None:
        self._proxy, self._peer = proxy, peer

    def datagram_received(self, data: bytes, _: object) -> None:
        self._proxy.give_back(data, self._peer)

    def error_received(self, _: Exception) -> None:
        """The agent is away: so is its answer."""


@contextlib.asynccontextmanager
async def spoiled(behind: int, spoil: Spoil, delay_seconds: float = 0.0) -> AsyncIterator[int]:
    """The port of a proxy before the one at the port `behind`."""
    loop = asyncio.get_running_loop()
    transport, proxy = await loop.create_datagram_endpoint(
        lambda: Proxy(behind, spoil, delay_seconds), local_addr=("127.0.0.1", 0)
    )
    try:
        yield int(transport.get_extra_info("sockname")[1])
    finally:
        proxy.close()
