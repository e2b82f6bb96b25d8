"""How much a line carries: one bounded TCP transfer to a far end that has enrolled us, counted there.

    transfer agent, number, bytes, bits a second   ->   accept number, bytes, bits a second   or   refuse number, why
    (so many bytes, no faster, then the end)       ->   carried number, bytes, bits a second

The receiver's limits hold when they are lower. The first fifth of the time is TCP finding its pace and does not count.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec

from agent.errors import SourceError
from agent.language import say
from agent.sources._hours import read_hours
from agent.sources._proof import Keys, Message, new_nonce, seal, unseal
from agent.sources._ways import read_address

CHUNK_BYTES = 16384
LEAST_SECONDS = 0.2
"""A shorter transfer says nothing about a rate."""

LONGEST_SECONDS = 60.0
PATIENCE_SECONDS = 5.0
SETTLING_SHARE = 0.2
SAMPLE_SECONDS = 0.01
BETWEEN_SECONDS = 300.0
"""A sender is served once in so many seconds, however often it asks."""

NOT_ENROLLED, TOO_SOON, BUSY = "not-enrolled", "too-soon", "busy"
Bytes = Annotated[int, msgspec.Meta(ge=100_000, le=2_000_000_000)]
Rate = Annotated[float, msgspec.Meta(ge=100_000, le=1e11)]


class Throughput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be sent, and when: hours such as 02:00-04:00, at most so many bytes, no faster, no longer, no oftener."""

    hours: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    most_bits_per_second: Rate
    most_bytes: Bytes = 10_000_000
    seconds: Annotated[float, msgspec.Meta(ge=1, le=30)] = 5.0
    every_seconds: Annotated[float, msgspec.Meta(ge=BETWEEN_SECONDS)] = 3600.0

    def __post_init__(self) -> None:
        for text in self.hours:
            read_hours(text)


class Sender(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent that may send to us: from which address, how much, how fast."""

    address: str
    most_bytes: Bytes = 10_000_000
    most_bits_per_second: Rate = 100_000_000.0

    def __post_init__(self) -> None:
        read_address(self.address)


async def send(key: bytes, name: str, place: tuple[str, int], wanted: Throughput, timeout_seconds: float) -> float:
    """Bits a second that came through, as the far end counted. Raises SourceError when it refuses, OSError or TimeoutError."""
    async with asyncio.timeout(wanted.seconds + 2 * timeout_seconds):
        reader, writer = await asyncio.open_connection(*place)
        try:
            number = new_nonce()
            words = (name, number, str(wanted.most_bytes), str(int(wanted.most_bits_per_second)))
            writer.write(seal(key, "transfer", *words))
            answer = await _hear(key, reader)
            if answer is None or answer.words[:1] != (number,) or answer.kind != "accept":
                raise SourceError(_explain(answer))
            await _pour(writer, int(answer.words[1]), float(answer.words[2]), wanted.seconds)
            writer.write_eof()
            carried = await _hear(key, reader)
        finally:
            writer.close()
    if carried is None or carried.kind != "carried" or carried.words[0] != number or not float(carried.words[2]):
        raise SourceError(say("传输太短或中断，无法得出吞吐", "the transfer was too short or broke off: no throughput"))
    return float(carried.words[2])


async def _hear(key: bytes, reader: asyncio.StreamReader) -> Message | None:
    """What the far end says; None when it is none of our lines, and however much somebody else pours out there."""
    try:
        return unseal(key, await reader.readline())
    except ValueError:  # longer than any line
        return None


async def _pour(writer: asyncio.StreamWriter, most_bytes: int, bits_per_second: float, seconds: float) -> None:
    """So many bytes at no more than this pace, and no longer than so many seconds. What nobody can compress."""
    opened = writer.get_extra_info("socket")
    # little is left to send at the end
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 4 * CHUNK_BYTES)
    writer.transport.set_write_buffer_limits(high=CHUNK_BYTES)
    clock = asyncio.get_running_loop().time
    chunk, begin, sent = os.urandom(CHUNK_BYTES), clock(), 0
    while sent < most_bytes and clock() - begin < seconds:
        due = begin + sent * 8 / bits_per_second
        await asyncio.sleep(max(0.0, due - clock()))
        writer.write(chunk[: most_bytes - sent])
        sent += min(CHUNK_BYTES, most_bytes - sent)
        await writer.drain()


def _explain(answer: Message | None) -> str:
    why = answer.words[1] if answer and answer.kind == "refuse" and len(answer.words) > 1 else ""
    if why == NOT_ENROLLED:
        return say("对端没有登记本机(senders)", "the far end has not enrolled us in its 'senders'")
    if why in (TOO_SOON, BUSY):
        return say(
            "对端刚收过或正在接收，请放宽 every_seconds",
            "the far end has just received or is receiving: ask less often",
        )
    return say("对端没有接收吞吐测量，或密钥不同", "the far end receives no transfers, or has another key")


class Receiver:
    """The far end: serves enrolled senders, one at a time, and counts."""

    def __init__(self, keys: Keys, senders: Mapping[str, Sender], monotonic: Callable[[], float]) -> None:
        self._keys, self._senders, self._monotonic = keys, senders, monotonic
        self._served: dict[str, float] = {}
        self._is_busy = False
        self.transfers_count = self.refused_count = self.strangers_count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, bounded in bytes and time."""
        try:
            with contextlib.suppress(OSError, TimeoutError, ValueError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    unsealed = self._keys.unseal(await reader.readline())
                if unsealed is None or unsealed[1].kind != "transfer" or len(unsealed[1].words) != 4:
                    self.strangers_count += 1
                    return
                address = str(writer.get_extra_info("peername")[0]).removeprefix("::ffff:")
                await self._answer(*unsealed, address, reader, writer)
        finally:
            writer.close()

    async def _answer(
        self, key: bytes, message: Message, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name, number, most_bytes, rate = message.words
        if why := self._refuse(name, address):
            self.refused_count += 1
            writer.write(seal(key, "refuse", number, why))
            return
        sender = self._senders[name]
        allowed = min(int(most_bytes), sender.most_bytes)
        writer.write(seal(key, "accept", number, str(allowed), str(min(float(rate), sender.most_bits_per_second))))
        self._is_busy, self._served[name] = True, self._monotonic()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                carried, bits_per_second = await self._count(reader, allowed)
        finally:
            self._is_busy = False
        self.transfers_count += 1
        writer.write(seal(key, "carried", number, str(carried), f"{bits_per_second:.0f}"))
        await writer.drain()

    def _refuse(self, name: str, address: str) -> str:
        """Why nothing is taken from a sender now; empty when it is."""
        if name not in self._senders or self._senders[name].address != address:
            return NOT_ENROLLED
        if self._is_busy:
            return BUSY
        served = self._served.get(name)
        return TOO_SOON if served is not None and self._monotonic() - served < 0.9 * BETWEEN_SECONDS else ""

    async def _count(self, reader: asyncio.StreamReader, most_bytes: int) -> tuple[int, float]:
        """Bytes until the end, and the rate after TCP had found its pace; 0 when it was over too soon. Raises ValueError for more."""
        samples: list[tuple[float, int]] = []
        total = 0
        while chunk := await reader.read(4 * CHUNK_BYTES):
            total += len(chunk)
            now = self._monotonic()
            if total > most_bytes:
                raise ValueError("more than was agreed")
            if len(samples) > 1 and now - samples[-2][0] < SAMPLE_SECONDS:
                samples[-1] = (now, total)
            else:
                samples.append((now, total))
        return total, rate_of(samples)


def rate_of(samples: list[tuple[float, int]]) -> float:
    """Bits a second of (seconds, bytes so far) after the first fifth of the time; 0 of too short a time."""
    if not samples or samples[-1][0] - samples[0][0] < LEAST_SECONDS:
        return 0.0
    (begin, _), (end, total) = samples[0], samples[-1]
    settled, before = next(one for one in samples if one[0] >= begin + SETTLING_SHARE * (end - begin))
    return (total - before) * 8 / (end - settled)
