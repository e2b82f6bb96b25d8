"""Datagrams with the time at which the kernel got them, and answers that leave from the address that was asked.

How busy this process is then adds nothing to a delay, and a machine with several addresses answers as the one it was spoken
to. Reference: socket(7), ip(7), ipv6(7); Documentation/networking/timestamping.rst.
"""

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

SO_TIMESTAMPNS = 35
IP_PKTINFO = 8
_TIME = struct.Struct("@ll")
_PKTINFO = struct.Struct("=I4s4s")
"""Interface, our own address for the route back, the address that was asked."""

MOST_BYTES = 2048
ANCILLARY_BYTES = 128
BUFFER_BYTES = 1024 * 1024


class Arrival(NamedTuple):
    """sender: the address as the family of the socket has it. received_ns: since the epoch. asked: how to answer, if kept."""

    data: bytes
    sender: Any
    received_ns: int
    asked: tuple[tuple[int, int, bytes], ...]


def keep_times(opened: socket.socket) -> None:
    """Have the kernel stamp what comes, and keep much of it while we are busy."""
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def listen(address: str, port: int) -> socket.socket:
    """A datagram socket of one family only (`::` would take the IPv4 port too), to be answered by `answer`. Raises OSError."""
    is_ipv6 = ":" in address
    opened = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        keep_times(opened)
        if is_ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        opened.bind((address, port))
    except OSError:
        opened.close()
        raise
    return opened


def arrivals(opened: socket.socket) -> Iterator[Arrival]:
    """All datagrams that wait at a non-blocking socket. Raises OSError but for BlockingIOError."""
    while True:
        try:
            data, ancillary, _, sender = opened.recvmsg(MOST_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return
        yield Arrival(data, sender, _stamp(ancillary), tuple(_asked(ancillary)))


def answer(opened: socket.socket, arrival: Arrival, data: bytes) -> None:
    """Send `data` back from the address that was asked. Raises OSError."""
    opened.sendmsg([data], arrival.asked, 0, arrival.sender)


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIME.size:
            seconds, nanoseconds = _TIME.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def _asked(ancillary: list[tuple[int, int, bytes]]) -> Iterator[tuple[int, int, bytes]]:
    """What makes the kernel answer from where it was asked."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and len(data) >= _PKTINFO.size:
            _, own, _ = _PKTINFO.unpack_from(data)
            yield level, kind, _PKTINFO.pack(0, own, bytes(4))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            yield level, kind, data
