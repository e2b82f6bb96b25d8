"""How a token travels: a Reach sends one through the path and says who answered.

TCP: the connection is accepted, and where a banner is expected, its first line comes. HTTP: one GET.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from agent.continuity.tokens import plain_name
from agent.errors import SourceError
from agent.language import say

MAX_ANSWER_BYTES = 65_536


class Reach(Protocol):
    """A path. `send` gives who answered ("" where nobody says); raises SourceError, OSError or EOFError when it does not work."""

    keeps_tokens: bool
    """Whether acknowledged tokens can be read back afterwards."""

    async def send(self, number: int, sent_at: float) -> str:
        """Send one token; returns when it is acknowledged. The caller cancels it at its deadline."""

    async def read_back(self, first: int, last: int) -> set[int]:
        """Which tokens of first..last are there now, at whoever serves."""

    async def close(self) -> None:
        """Give back connections."""


class Tcp:
    """A connection to host:port; with `banner` the server speaks first, and its first line says who it is."""

    keeps_tokens = False

    def __init__(self, host: str, port: int, *, banner: bool) -> None:
        self._host, self._port, self._banner = host, port, banner

    async def send(self, number: int, sent_at: float) -> str:
        """Connect, and read the banner where one is expected."""
        async with connected(self._host, self._port) as (reader, _):
            if not self._banner:
                return ""
            line = await reader.readline()
            if not line:
                raise SourceError(say("连上了，但对方没有开口就断开", "connected, and it hung up without a word"))
            return plain_name(line.decode("utf-8", "replace"))

    async def read_back(self, first: int, last: int) -> set[int]:
        """Nothing keeps these tokens."""
        return set()

    async def close(self) -> None:
        """Every token has a connection of its own."""


class Http:
    """GET `path`: a status of 200..399, the words of `expect` in the body, and a header that says who answered."""

    keeps_tokens = False

    def __init__(
        self,
        host: str,
        port: int,
        path: str,
        *,
        expect: str = "",
        identity_header: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._path = host, port, path
        self._expect = expect.encode()
        self._identity = identity_header.lower()
        self._tls = tls

    async def send(self, number: int, sent_at: float) -> str:
        """One request on a connection of its own."""
        async with connected(self._host, self._port, self._tls) as (reader, writer):
            name = f"[{self._host}]" if ":" in self._host else self._host
            writer.write(
                f"GET {self._path} HTTP/1.1\r\nHost: {name}:{self._port}\r\nUser-Agent: infravitals\r\n"
                "Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            await self._check(head, reader)
            return self._find_identity(head)

    async def _check(self, head: bytes, reader: asyncio.StreamReader) -> None:
        words = head.split(b" ", 2)
        status = words[1].decode("ascii", "replace") if len(words) > 1 else ""
        if not status.isdecimal() or not 200 <= int(status) < 400:
            raise SourceError(say(f"HTTP 状态 {status[:8]}", f"HTTP status {status[:8]}"))
        body = b""
        while self._expect and self._expect not in body:
            part = await reader.read(4096)
            body += part
            if not part or len(body) > MAX_ANSWER_BYTES:
                raise SourceError(say("页面中没有约定的文字", "the page lacks the words that were agreed"))

    def _find_identity(self, head: bytes) -> str:
        for line in head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if self._identity and key.strip().lower() == self._identity:
                return plain_name(value)
        return ""

    async def read_back(self, first: int, last: int) -> set[int]:
        """Nothing keeps these tokens."""
        return set()

    async def close(self) -> None:
        """Every token has a connection of its own."""


@asynccontextmanager
async def connected(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is gone afterwards, whatever happened."""
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=MAX_ANSWER_BYTES)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
