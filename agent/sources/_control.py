"""The positive control: an exchange with the responder before the probes and one after them, between the same two addresses.

It proves that prober, path and responder live, and brings back which nonces came. Either side may open the connection:
where nothing may pass inward, the responder calls out to the prober instead.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.sources._proof import CONTROL_BYTES, Message, join, new_nonce, seal, split, unseal


@dataclass(frozen=True, slots=True)
class Here:
    """What the responder said before the probes. boot: another one means that it started anew."""

    boot: str
    ways: frozenset[str]


class Talk(Protocol):
    """Somewhere to say a line and hear one."""

    async def exchange(self, line: bytes) -> bytes:
        """The other side's line; '' when it says nothing. Raises OSError or TimeoutError."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """We connect, anew for every exchange: the path is proven each time."""

    address: str
    port: int
    timeout_seconds: float
    source_address: str = ""

    async def exchange(self, line: bytes) -> bytes:
        """One connection, one line each way."""
        async with asyncio.timeout(self.timeout_seconds):
            local = (self.source_address, 0) if self.source_address else None
            reader, writer = await asyncio.open_connection(
                self.address, self.port, local_addr=local, limit=CONTROL_BYTES
            )
            try:
                writer.write(line)
                return await reader.readline()
            finally:
                writer.close()


class Called:
    """The responder connected to us and keeps the connection open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_seconds: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_seconds = timeout_seconds
        self._lock = asyncio.Lock()

    async def exchange(self, line: bytes) -> bytes:
        """One line each way on the standing connection; one that failed is of no use any more."""
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    self._writer.write(line)
                    return await self._reader.readline()
            except (OSError, TimeoutError, ValueError):
                self.close()
                raise

    def close(self) -> None:
        """End it; the responder calls again."""
        self._writer.close()


class Control:
    """One target's control in one round; every failure is an answer of None."""

    def __init__(self, key: bytes, name: str, talk: Talk) -> None:
        self._key = key
        self._name = name
        self._talk = talk

    async def hello(self) -> Here | None:
        """Whether the responder is there, and what it can hear."""
        challenge = new_nonce()
        message = await self._say("hello", challenge)
        if message is None or message.kind != "here" or len(message.words) != 4 or message.words[2] != challenge:
            return None
        return Here(message.words[1], split(message.words[3]))

    async def ask(self, here: Here, nonces: Sequence[str]) -> frozenset[str] | None:
        """Which of the nonces came; None when nobody says so, or one who started anew meanwhile."""
        challenge = new_nonce()
        message = await self._say("ask", challenge, join(nonces))
        if message is None or message.kind != "saw" or len(message.words) != 4:
            return None
        _, boot, echoed, seen = message.words
        return split(seen) if (boot, echoed) == (here.boot, challenge) else None

    async def _say(self, kind: str, *words: str) -> Message | None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            return unseal(self._key, await self._talk.exchange(seal(self._key, kind, self._name, *words)))
        return None
