"""What really leaves an interface: a packet socket inside a namespace, read by a thread of its own."""

import ipaddress
import socket
import threading
from types import TracebackType
from typing import Self

from namespaces import Namespace

EVERY_PROTOCOL, IPV4, IPV6 = 0x0003, 0x0800, 0x86DD
BUFFER_BYTES = 16 << 20
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
"""Of linux/if_packet.h and asm/socket.h; the socket module does not name them."""


class Tap:
    """A context manager; `destinations` are the addresses that packets were sent to while it was open.

    Without link-local multicast: neighbour discovery, which is the kernel's. Fails when the kernel had to drop a packet.
    """

    def __init__(self, namespace: Namespace, interface: str = "eth0") -> None:
        self.destinations: set[str] = set()
        self._namespace, self._interface = namespace, interface
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        self._socket = self._namespace.call(self._open)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        dropped = int.from_bytes(self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)[4:], "little")
        self._socket.close()
        assert dropped == 0, f"{dropped} packets were not seen"

    def _open(self) -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERY_PROTOCOL))
        tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        tap.bind((self._interface, EVERY_PROTOCOL))
        tap.settimeout(0.1)
        return tap

    def _read(self) -> None:
        """Until it is over and nothing is left to read."""
        while True:
            try:
                packet, (_, protocol, kind, *_) = self._socket.recvfrom(2048)
            except TimeoutError:
                if self._is_over.is_set():
                    return
                continue
            if kind == socket.PACKET_OUTGOING and protocol in (IPV4, IPV6):
                target = ipaddress.ip_address(packet[16:20] if protocol == IPV4 else packet[24:40])
                if not (protocol == IPV6 and target.is_multicast):
                    self.destinations.add(str(target))
