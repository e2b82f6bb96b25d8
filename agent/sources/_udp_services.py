"""Services without connections, asked one polite question each: administration first, then databases.

An answer proves that a service is there and an ICMP refusal that none is; silence proves nothing, since a service may dislike the
question or a firewall drop it. No question asks for more than it carries, so that nobody is flooded through a forged address.
Reference: RFC 1901, RFC 1350, RFC 5531, RFC 1002 (4.2.17), RFC 9327, RFC 1035; IPMI 2.0 13.2.3 (ASF presence ping); MC-SQLR 2.2.2;
memcached's doc/protocol.txt (UDP protocol).
"""

import asyncio
import contextlib
import errno
import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from enum import Enum
from typing import NamedTuple

from agent.sources._attempt import IP_RECVERR, IPV6_RECVERR
from agent.sources.management_access import request

TRIES = 2
MOST_BYTES = 4096
REFUSED_BY = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.EPROTO, errno.ECONNRESET)
RESOLVES = 0x0080
"""Recursion available, of a DNS header's flags."""

NO_ERROR, NO_SUCH_NAME = 0, 3


class Answered(Enum):
    """What came of a question. UNSENT: it did not leave this machine."""

    OPEN = "open"
    REFUSED = "refused"
    SILENT = "silent"
    UNSENT = "unsent"


class Service(NamedTuple):
    """make: the question; is_it: whether an answer to it is that of a service that must not be reached."""

    name: str
    make: Callable[[], bytes]
    is_it: Callable[[bytes, bytes], bool]
    is_database: bool = False


def _is_anything(question: bytes, answer: bytes) -> bool:
    return bool(answer)


def _resolver_question() -> bytes:
    """A name that no resolver need ask anybody about (RFC 6761, 6.4), with recursion desired."""
    head = struct.pack("!HHHHHH", secrets.randbits(16), 0x0100, 1, 0, 0, 0)
    return head + b"\x0binfravitals\x07invalid\x00" + struct.pack("!HH", 1, 1)


def _resolves(question: bytes, answer: bytes) -> bool:
    """Whether it resolves for strangers; one that only serves its own zone refuses, and may be public."""
    if len(answer) < 12 or answer[:2] != question[:2]:
        return False
    flags = int.from_bytes(answer[2:4], "big")
    return bool(flags & RESOLVES) and flags & 0x0F in (NO_ERROR, NO_SUCH_NAME)


def _portmapper_call() -> bytes:
    """The null procedure of program 100000."""
    return struct.pack("!10I", secrets.randbits(32), 0, 2, 100000, 2, 0, 0, 0, 0, 0)


def _netbios_status() -> bytes:
    name = b"\x20" + b"CK" + b"A" * 30 + b"\x00"
    return struct.pack("!HHHHHH", secrets.randbits(16), 0, 1, 0, 0, 0) + name + struct.pack("!HH", 0x21, 1)


def _repeats_id(question: bytes, answer: bytes) -> bool:
    return answer[:2] == question[:2]


def _constant(packet: bytes) -> Callable[[], bytes]:
    return lambda: packet


SERVICES: Mapping[int, Service] = {
    161: Service("SNMP", lambda: request(1, b"public"), lambda _, answer: answer[:1] == b"\x30"),
    623: Service("IPMI", _constant(bytes.fromhex("0600ff06000011be80000000")), lambda _, answer: answer[:1] == b"\x06"),
    69: Service("TFTP", lambda: b"\0\1infravitals-" + secrets.token_hex(4).encode() + b"\0octet\0", _is_anything),
    111: Service("portmapper", _portmapper_call, lambda question, answer: answer[:4] == question[:4]),
    137: Service("NetBIOS", _netbios_status, _repeats_id),
    123: Service(
        "NTP control",
        _constant(bytes.fromhex("160200010000000000000000")),
        lambda _, a: a[:1] in b"\x16\x96" and len(a) >= 12,
    ),
    53: Service("DNS resolver", _resolver_question, _resolves),
    1434: Service("SQL Server browser", _constant(b"\x03"), lambda _, answer: answer[:1] == b"\x05", is_database=True),
    11211: Service(
        "memcached", lambda: secrets.token_bytes(2) + b"\0\0\0\1\0\0version\r\n", _repeats_id, is_database=True
    ),
}


async def ask_service(address: str, port: int, service: Service, timeout_seconds: float) -> Answered:
    """Asked again once: datagrams get lost. Answers count from the same address, whatever port they leave from (TFTP)."""
    question, loop = service.make(), asyncio.get_running_loop()
    is_ipv6 = ":" in address
    with contextlib.closing(socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)) as opened:
        opened.setblocking(False)
        level, option = (socket.IPPROTO_IPV6, IPV6_RECVERR) if is_ipv6 else (socket.IPPROTO_IP, IP_RECVERR)
        opened.setsockopt(level, option, 1)
        is_sent = False
        for _ in range(TRIES):
            try:
                opened.sendto(question, (address, port))
                is_sent = True
                async with asyncio.timeout(timeout_seconds / TRIES):
                    while True:
                        answer, sender = await loop.sock_recvfrom(opened, MOST_BYTES)
                        if sender[0] == address and service.is_it(question, answer):
                            return Answered.OPEN
            except TimeoutError:
                continue
            except OSError as error:
                return Answered.REFUSED if is_sent and error.errno in REFUSED_BY else Answered.UNSENT
    return Answered.SILENT
