"""One try of one way to one address: send the sealed line, and say what came back, without judging it."""

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from agent.errors import SourceError
from agent.sources._echo import REPLY, REPLY6, open_echo, read_echo, write_request
from agent.sources._proof import LINE_BYTES, Message, new_nonce, seal, unseal
from agent.sources._ways import Way

DATAGRAMS = 3
"""A lost datagram is no isolation: so many copies go out over the time of one try."""

IP_RECVERR, IPV6_RECVERR = 11, 25
_EXTENDED_ERROR = struct.Struct("=IBBBBII")


class Came(Enum):
    """What came back. ACCEPTED: somebody answered, without our key. UNSENT: it never left this machine. NO_HELPER: the resolver
    or proxy on the way gave no sign of life."""

    ANSWER = "answer"
    ACCEPTED = "accepted"
    SILENCE = "silence"
    REFUSAL = "refusal"
    UNREACHABLE = "unreachable"
    UNSENT = "unsent"
    NO_HELPER = "no helper"


OF_ERRORS: Mapping[int, Came] = {
    errno.ECONNREFUSED: Came.REFUSAL,
    errno.ECONNRESET: Came.REFUSAL,
    errno.EPIPE: Came.REFUSAL,
    errno.EHOSTUNREACH: Came.UNREACHABLE,
    errno.EACCES: Came.UNREACHABLE,
    errno.EPROTO: Came.UNREACHABLE,
    errno.ETIMEDOUT: Came.SILENCE,
}
"""Everything else, a missing route or a rule on this very machine (EPERM) among it, kept the probe at home."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """nonce: what the far end may have seen. reporter: who sent the ICMP error, where the kernel tells."""

    nonce: str
    came: Came
    reporter: str = ""


@dataclass(frozen=True, slots=True)
class Prober:
    """Who probes, with which key, how long it waits, from which address (empty: as the routes say)."""

    key: bytes
    name: str
    timeout_seconds: float
    source_address: str = ""

    async def attempt(self, address: str, way: Way) -> Attempt:
        """Try once. Raises nothing that the network may do."""
        nonce = new_nonce()
        line = seal(self.key, "probe", self.name, str(way), nonce)
        match way.base:
            case "tcp":
                return Attempt(nonce, await self._connect(address, way, line, nonce))
            case "udp":
                return await self._send_datagrams(address, way, line, nonce)
            case _:
                return Attempt(nonce, await self._send_echoes(address, way, line))

    async def _connect(self, address: str, way: Way, line: bytes, nonce: str) -> Came:
        came = Came.SILENCE
        writer = None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                local = (self.source_address, 0) if self.source_address else None
                reader, writer = await asyncio.open_connection(address, way.port, local_addr=local, limit=LINE_BYTES)
                came = Came.ACCEPTED
                writer.write(line)
                answer = await reader.readline()
                if unseal(self.key, answer) == Message("answer", (nonce,)):
                    came = Came.ANSWER
        except TimeoutError:
            pass
        except ValueError:  # more than a line's length and no end: not ours
            pass
        except OSError as error:
            if came is Came.SILENCE:
                came = OF_ERRORS.get(error.errno or 0, Came.UNSENT)
        finally:
            if writer:
                writer.close()
        return came

    async def _send_datagrams(self, address: str, way: Way, line: bytes, nonce: str) -> Attempt:
        opened = socket.socket(socket.AF_INET6 if way.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            if way.is_ipv6:
                opened.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            if self.source_address:
                opened.bind((self.source_address, 0))
            opened.connect((address, way.port))
            return await self._talk(opened, line, nonce)
        except OSError as error:
            came = OF_ERRORS.get(error.errno or 0, Came.UNSENT)
            return Attempt(nonce, came, _read_reporter(opened))
        finally:
            opened.close()

    async def _talk(self, opened: socket.socket, line: bytes, nonce: str) -> Attempt:
        """Send some copies over the time of a try; the first answer ends it. Raises OSError as the kernel gives it."""
        loop = asyncio.get_running_loop()
        came = Came.SILENCE
        for _ in range(DATAGRAMS):
            opened.send(line)
            try:
                async with asyncio.timeout(self.timeout_seconds / DATAGRAMS):
                    while unseal(self.key, await loop.sock_recv(opened, 2048)) != Message("answer", (nonce,)):
                        came = Came.ACCEPTED
                    return Attempt(nonce, Came.ANSWER)
            except TimeoutError:
                continue
        return Attempt(nonce, came)

    async def _send_echoes(self, address: str, way: Way, line: bytes) -> Came:
        """A reply with our payload is no more than `accepted`: whoever stands on the way can send one."""
        try:
            opened = open_echo(way.is_ipv6)
        except SourceError:  # no right to: said once by who tries, and no reason to lose the other ways
            return Came.UNSENT
        loop = asyncio.get_running_loop()
        try:
            if self.source_address:
                opened.bind((self.source_address, 0))
            opened.connect((address, 0))
            for number in range(DATAGRAMS):
                opened.send(write_request(way.is_ipv6, os.getpid() & 0xFFFF, number, line))
                try:
                    async with asyncio.timeout(self.timeout_seconds / DATAGRAMS):
                        while not _is_reply(await loop.sock_recv(opened, 2048), way.is_ipv6, line):
                            pass
                        return Came.ACCEPTED
                except TimeoutError:
                    continue
            return Came.SILENCE
        except OSError as error:
            return OF_ERRORS.get(error.errno or 0, Came.UNSENT)
        finally:
            opened.close()


def _is_reply(packet: bytes, is_ipv6: bool, line: bytes) -> bool:
    echo = read_echo(packet, is_ipv6)
    return echo is not None and echo[0] == (REPLY6 if is_ipv6 else REPLY) and echo[2] == line


def _read_reporter(opened: socket.socket) -> str:
    """Who sent the ICMP error that the socket got (ip(7), IP_RECVERR); '' when nobody is named."""
    try:
        _, ancillary, _, _ = opened.recvmsg(512, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError:
        return ""
    for _, kind, data in ancillary:
        if kind not in (IP_RECVERR, IPV6_RECVERR) or len(data) < _EXTENDED_ERROR.size + 8:
            continue
        offender = data[_EXTENDED_ERROR.size :]
        family = int.from_bytes(offender[:2], sys.byteorder)
        if family == socket.AF_INET:
            return socket.inet_ntop(socket.AF_INET, offender[4:8])
        if family == socket.AF_INET6 and len(offender) >= 24:
            return socket.inet_ntop(socket.AF_INET6, offender[8:24])
    return ""
