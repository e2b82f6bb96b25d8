"""Which ways of managing a device still answer, and how far its clock is off.

Measures, per device: management_access.is_answering of telnet, http, snmp-v1, snmp-v2c, snmp-v3, ssh and https;
host_clock.offset_seconds and is_synchronised, where the device answers NTP (against this agent's clock, which must be set).
Needs: the network way to the devices; the communities that are in use, or that nobody should be able to use.
Reference: RFC 854, RFC 9110, RFC 4253; RFC 1157, RFC 1901, RFC 3414 (discovery); RFC 4330.

One gentle question per protocol: a connection and its first line, one SNMP request for sysUpTime, one NTP packet. A device
that answers nothing at all may be off: silence is then no closed door, and nothing is said about it. A page that only sends
its reader to https does not count as http.
"""

import asyncio
import errno
import secrets
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, ClassVar

import msgspec

from agent.broker import Secret
from agent.catalogue import explain_id, is_id
from agent.errors import LinkError, SourceError
from agent.language import say
from agent.snmp import ber
from agent.sources import Reading, Seconds, SourceConfig, Surroundings
from agent.sources._datagram import ask
from agent.sources._ways import read_address
from agent.sources.isolation_probe import Pace
from agent.sources.isolation_responder import Port

NTP_EPOCH = 2208988800
NTP_PACKET = struct.Struct("!BBbb11I")
UNSYNCHRONISED_LEAP, MOST_STRATUM = 3, 15
MOST_COMMUNITY = 64
MOST_BYTES = 65507
UPTIME = "1.3.6.1.2.1.1.3.0"
PORTS: Mapping[str, int] = {"telnet": 23, "http": 80, "ssh": 22, "https": 443, "snmp": 161, "ntp": 123}


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """asset: what the register calls it. ports: where a protocol is not at its usual one."""

    asset: str
    address: str
    ports: Mapping[str, Port] = {}

    def __post_init__(self) -> None:
        read_address(self.address)
        if not is_id(self.asset):
            raise ValueError(explain_id("asset", self.asset))
        for protocol in self.ports:
            if protocol not in PORTS:
                raise ValueError(say(f"没有协议 '{protocol}'", f"there is no protocol '{protocol}'"))

    def port(self, protocol: str) -> int:
        """Where a protocol is asked."""
        return self.ports.get(protocol, PORTS[protocol])


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """communities: tried with SNMP v1 and v2c besides `public`, each where it stands."""

    interval_seconds: Seconds = 3600.0
    deadline_seconds: Seconds = 600.0
    devices: tuple[Device, ...]
    communities: tuple[Secret, ...] = ()
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=30)] = 2.0
    devices_per_second: Annotated[float, msgspec.Meta(gt=0, le=100)] = 10.0


class Source:
    """All devices of one agent, once a round."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._communities: list[bytes] = []

    async def open(self) -> None:
        """Read the communities. Raises SourceError for one that cannot be read."""
        try:
            written = [secret.read() for secret in self._config.communities]
        except LinkError as error:
            text = say(
                "读不到 communities 中的一项；请检查它的存放处",
                "one of communities cannot be read; see where it stands",
            )
            raise SourceError(text) from error
        if any(len(community) > MOST_COMMUNITY for community in written):
            raise SourceError(
                say(f"团体字最长 {MOST_COMMUNITY} 字节", f"a community has {MOST_COMMUNITY} bytes at most")
            )
        self._communities = [community.encode() for community in dict.fromkeys(["public", *written])]

    async def collect(self) -> list[Reading]:
        """One round. Raises nothing that the network may do."""
        pace = Pace(self._config.devices_per_second)
        found = await asyncio.gather(*(self._look(device, pace) for device in self._config.devices))
        return [reading for readings in found for reading in readings]

    async def close(self) -> None:
        """Nothing is kept open."""

    async def _look(self, device: Device, pace: Pace) -> list[Reading]:
        """What one device lets in; nothing when it gave no sign of life."""
        async with pace:
            doors = Doors(device, self._communities, self._config.timeout_seconds)
            questions = doors.questions()
            answers = await asyncio.gather(*(question() for question in questions.values()))
            clock = await doors.ask_clock()
        if not doors.is_alive and clock is None:
            return []
        readings = [
            Reading("management_access", {"is_answering": is_answering}, {"protocol": protocol}, asset=device.asset)
            for protocol, is_answering in zip(questions, answers, strict=True)
        ]
        return [*readings, clock] if clock else readings


class Doors:
    """One device, asked protocol by protocol. is_alive: whether anything came back, be it a refusal."""

    def __init__(self, device: Device, communities: list[bytes], timeout_seconds: float) -> None:
        self._device = device
        self._communities = communities
        self._timeout_seconds = timeout_seconds
        self.is_alive = False

    def questions(self) -> Mapping[str, Callable[[], Awaitable[bool]]]:
        """One per protocol, as the catalogue names them."""
        return {
            "telnet": lambda: self._greet("telnet", b"", lambda line: True),
            "http": lambda: self._greet("http", b"GET / HTTP/1.0\r\n\r\n", _is_page),
            "ssh": lambda: self._greet("ssh", None, lambda line: line.startswith(b"SSH-")),
            "https": self._shake_hands,
            "snmp-v1": lambda: self._ask_communities(0),
            "snmp-v2c": lambda: self._ask_communities(1),
            "snmp-v3": lambda: self._ask_snmp(discovery()),
        }

    async def ask_clock(self) -> Reading | None:
        """The device's clock against ours, by SNTP; None when it does not answer."""
        sent = time.time()
        packet = NTP_PACKET.pack(0x23, 0, 0, 0, *([0] * 9), *_ntp_time(sent))
        answer = await ask(self._device.address, self._device.port("ntp"), packet, self._timeout_seconds)
        received = time.time()
        if answer is None or len(answer) < NTP_PACKET.size or answer[24:32] != packet[40:48]:
            return None
        flags, stratum, _, _, *words = NTP_PACKET.unpack_from(answer)
        is_synchronised = flags >> 6 != UNSYNCHRONISED_LEAP and 1 <= stratum <= MOST_STRATUM
        fields: dict[str, float | bool] = {"is_synchronised": is_synchronised}
        if is_synchronised:
            there, back = (_seconds(words[place], words[place + 1]) for place in (7, 9))
            fields["offset_seconds"] = ((there - sent) + (back - received)) / 2
        return Reading("host_clock", fields, asset=self._device.asset)

    async def _greet(self, protocol: str, said: bytes | None, is_it: Callable[[bytes], bool]) -> bool:
        """Connect, say `said` (b'': the connection alone tells), and look at what comes back."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reader, writer = await asyncio.open_connection(self._device.address, self._device.port(protocol))
                self.is_alive = True
                try:
                    if said == b"":
                        return True
                    writer.write(said or b"")
                    return is_it(await reader.read(4096))
                finally:
                    writer.close()
        except TimeoutError:
            return False
        except OSError as error:
            self.is_alive |= error.errno in (errno.ECONNREFUSED, errno.ECONNRESET)
            return False

    async def _shake_hands(self) -> bool:
        """Whether TLS is spoken; who signed the certificate does not matter here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            async with asyncio.timeout(self._timeout_seconds):
                address, port = self._device.address, self._device.port("https")
                _, writer = await asyncio.open_connection(address, port, ssl=context)
                self.is_alive = True
                writer.close()
                return True
        except TimeoutError:
            return False
        except OSError as error:
            self.is_alive |= isinstance(error, ssl.SSLError) or error.errno in (errno.ECONNREFUSED, errno.ECONNRESET)
            return False

    async def _ask_communities(self, version: int) -> bool:
        return any([await self._ask_snmp(request(version, community)) for community in self._communities])

    async def _ask_snmp(self, packet: bytes) -> bool:
        answer = await ask(self._device.address, self._device.port("snmp"), packet, self._timeout_seconds)
        is_snmp = answer is not None and answer[:1] == b"\x30" and len(answer) > 10
        self.is_alive |= is_snmp
        return is_snmp


def request(version: int, community: bytes) -> bytes:
    """An SNMP GET of sysUpTime.0; version 0 is v1 and 1 is v2c."""
    variables = ber.bindings([ber.Binding(UPTIME, ber.NULL, None)])
    return ber.message(version, community, ber.pdu(ber.GET, _new_id(), 0, 0, variables))


def discovery() -> bytes:
    """An SNMPv3 message without a user, which an agent answers by a report of its engine (RFC 3414, 4)."""
    number, nothing, zero = _new_id(), ber.element(ber.OCTETS, b""), ber.number(0)
    is_reportable, model = ber.element(ber.OCTETS, b"\x04"), ber.number(3)
    head = ber.element(ber.SEQUENCE, ber.number(number) + ber.number(MOST_BYTES) + is_reportable + model)
    security = ber.element(ber.OCTETS, ber.element(ber.SEQUENCE, nothing + zero + zero + nothing * 3))
    scoped = ber.element(ber.SEQUENCE, nothing * 2 + ber.pdu(ber.GET, number, 0, 0, ber.bindings([])))
    return ber.element(ber.SEQUENCE, ber.number(3) + head + security + scoped)


def _new_id() -> int:
    return 0x01000000 | secrets.randbits(24)


def _is_page(answer: bytes) -> bool:
    """Whether something may be managed by plain HTTP: any answer but one that sends the reader to https."""
    head, _, _ = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    if not status.startswith(b"HTTP/"):
        return False
    is_redirect = status.split(b" ")[1:2] in ([b"301"], [b"302"], [b"303"], [b"307"], [b"308"])
    return not (is_redirect and any(line.lower().startswith(b"location: https://") for line in lines))


def _ntp_time(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return (whole + NTP_EPOCH) & 0xFFFFFFFF, int((seconds - whole) * 2**32)


def _seconds(whole: int, fraction: int) -> float:
    return whole - NTP_EPOCH + fraction / 2**32
