"""Echoes to hundreds of targets through one socket a family: sent at an even pace, told apart by what they carry."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Sequence

from agent.sources._arrivals import arrivals, keep_times
from agent.sources._echo import REPLY, REPLY6, open_echo, read_echo, write_request
from agent.sources._proof import PREFIX
from agent.sources._tally import Tally

TICK_SECONDS = 0.01
MOST_AT_ONCE = 50
"""Sent in one tick, also after a standstill of ours: our own buffer holds some hundred replies before we read the first."""

_PAYLOAD = struct.Struct("!QHHQ")
"""Which round, which target, which packet, when it was sent."""

_NAME = f"{PREFIX} ping ".encode()


class Pings:
    """One round of echoes. `tallies` has one entry per address, in their order."""

    def __init__(self, addresses: Sequence[str], packets: int, token: int) -> None:
        self.tallies = [Tally() for _ in addresses]
        self.unsent: dict[int, OSError] = {}
        self._addresses = addresses
        self._packets = packets
        self._token = token
        self._sockets: dict[bool, socket.socket] = {}
        self._due = len(addresses) * packets
        self._all_back = asyncio.Event()

    async def run(self, spacing_seconds: float, timeout_seconds: float, per_second: float) -> None:
        """Send everything and wait for the last. Raises SourceError without the right to send."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for is_ipv6 in {":" in address for address in self._addresses}:
                opened = self._sockets[is_ipv6] = stack.enter_context(contextlib.closing(open_echo(is_ipv6)))
                keep_times(opened)
                loop.add_reader(opened, self._hear, is_ipv6)
                stack.callback(loop.remove_reader, opened)
            await self._send_all(max(spacing_seconds, len(self._addresses) / per_second))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._all_back.wait()

    async def _send_all(self, seconds_per_lap: float) -> None:
        """A lap sends one packet to every target; what is due goes out in ticks, whether there are five or five hundred."""
        loop = asyncio.get_running_loop()
        begin, total = loop.time(), len(self._addresses) * self._packets
        sent = 0
        while sent < total:
            due = 1 + int((loop.time() - begin) / seconds_per_lap * len(self._addresses))
            due = min(total, due, sent + MOST_AT_ONCE)
            for number in range(sent, due):
                self._send(number % len(self._addresses), number // len(self._addresses))
            sent = max(sent, due)
            if sent < total:
                await asyncio.sleep(TICK_SECONDS)

    def _send(self, index: int, number: int) -> None:
        address = self._addresses[index]
        is_ipv6 = ":" in address
        payload = _NAME + _PAYLOAD.pack(self._token, index, number, time.time_ns())
        try:
            self._sockets[is_ipv6].sendto(write_request(is_ipv6, self._token & 0xFFFF, number, payload), (address, 0))
        except OSError as error:  # no route, or a rule of our own: for this target alone
            self.unsent[index] = error
            self._due -= 1

    def _hear(self, is_ipv6: bool) -> None:
        with contextlib.suppress(OSError):
            for data, _, received_ns, _ in arrivals(self._sockets[is_ipv6]):
                echo = read_echo(data, is_ipv6)
                if echo is None or echo[0] != (REPLY6 if is_ipv6 else REPLY) or not echo[2].startswith(_NAME):
                    continue
                self._take(echo[2][len(_NAME) :], received_ns)

    def _take(self, payload: bytes, received_ns: int) -> None:
        if len(payload) != _PAYLOAD.size:
            return
        token, index, number, sent_ns = _PAYLOAD.unpack(payload)
        if token == self._token and index < len(self.tallies) and number < self._packets and received_ns >= sent_ns:
            self._due -= self.tallies[index].add(number, sent_ns, received_ns)
            if self._due <= 0:
                self._all_back.set()
