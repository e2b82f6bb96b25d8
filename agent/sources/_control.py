"""The positive control: an exchange with the responder before the probes and one after them, between the same two addresses.

It proves that prober, path and responder live, and brings back which nonces came. Either side may open the connection:
where nothing may pass inward, the responder calls out to the prober instead.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.foreign_words import explain
from agent.language import say
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
    """One target's control in one round; every failure is an answer of None, and `why` says which it was."""

    def __init__(self, key: bytes, name: str, talk: Talk) -> None:
        self._key = key
        self._name = name
        self._talk = talk
        self.why = ""

    async def hello(self) -> Here | None:
        """Whether the responder is there, and what it can hear."""
        challenge = new_nonce()
        message = await self._say("hello", challenge)
        if message is None:
            return None
        if message.kind != "here" or len(message.words) != 4 or message.words[2] != challenge:
            self.why = say("答非所问", "the answer is none to our question")
            return None
        return Here(message.words[1], split(message.words[3]))

    async def ask(self, here: Here, nonces: Sequence[str]) -> frozenset[str] | None:
        """Which of the nonces came; None when nobody says so, or one who started anew meanwhile."""
        challenge = new_nonce()
        message = await self._say("ask", challenge, join(nonces))
        if message is None:
            return None
        if message.kind != "saw" or len(message.words) != 4 or message.words[2] != challenge:
            self.why = say("答非所问", "the answer is none to our question")
            return None
        if message.words[1] != here.boot:
            self.why = say("应答端在这一轮中间重启了", "the responder started anew in the middle of the round")
            return None
        return split(message.words[3])

    async def _say(self, kind: str, *words: str) -> Message | None:
        try:
            line = await self._talk.exchange(seal(self._key, kind, self._name, *words))
        except ConnectionRefusedError:
            self.why = say(
                "连接被拒绝；请确认应答端在运行，控制端口一致",
                "the connection was refused; see that the responder runs, and on this control port",
            )
        except TimeoutError:
            self.why = say(
                "没有回音；请在防火墙为这两台机器放行控制端口，并确认应答端在运行",
                "no answer; let the control port through between these two machines, and see that the responder runs",
            )
        except (OSError, ValueError) as error:
            why = explain(error)
            self.why = say(f"无法交谈({why})；请核对地址与路由", f"no talk ({why}); check address and routes")
        else:
            if message := unseal(self._key, line):
                return message
            self.why = say(
                f"应答端不认本机：密钥不同，或它的 keys 里没有 '{self._name}'",
                f"the responder does not know us: another key, or no '{self._name}' in its 'keys'",
            )
        return None
