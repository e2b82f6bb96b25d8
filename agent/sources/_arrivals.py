"""Datagrams with the time at which the kernel got them: how busy this process is then adds nothing to a delay.

Reference: socket(7), SO_TIMESTAMPNS; Documentation/networking/timestamping.rst.
"""

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

SO_TIMESTAMPNS = 35
_TIME = struct.Struct("@ll")
MOST_BYTES = 2048
BUFFER_BYTES = 1024 * 1024


class Arrival(NamedTuple):
    """sender: the address as the family of the socket has it. received_ns: since the epoch."""

    data: bytes
    sender: Any
    received_ns: int


def keep_times(opened: socket.socket) -> None:
    """Have the kernel stamp what comes, and keep much of it while we are busy."""
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def arrivals(opened: socket.socket) -> Iterator[Arrival]:
    """All datagrams that wait at a non-blocking socket. Raises OSError but for BlockingIOError."""
    while True:
        try:
            data, ancillary, _, sender = opened.recvmsg(MOST_BYTES, 64)
        except BlockingIOError:
            return
        yield Arrival(data, sender, _stamp(ancillary))


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIME.size:
            seconds, nanoseconds = _TIME.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
