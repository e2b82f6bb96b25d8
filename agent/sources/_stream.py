"""Two-ended streams: numbered packets go out at an even pace, the far end counts and returns them, and is asked at the end.

    packet  agent, stream, number, sent            ->   back   stream, number, sent, its own number, received, returned
    report  agent, stream, challenge               ->   stats  stream, challenge, received, duplicates, reordered, jitter,
                                                               mean delay, least delay, returned

Times are nanoseconds since the epoch on the clock of whoever wrote them. Only the first copy of a packet is returned, by
no more bytes than came, so that the two directions are counted apart. Reference: RFC 5357 and RFC 8762 for the four times.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.sources._arrivals import arrivals, keep_times
from agent.sources._proof import Keys, Message, new_nonce, seal, unseal
from agent.sources._tally import NANOSECOND, Tally

REPORT_TRIES, ASKING_SHARE = 8, 0.25
MOST_STREAMS = 1000
MOST_PACKETS = 20000
FORGET_SECONDS = 120.0
GRACE_SECONDS = 0.1
"""Second copies come behind the last packet."""

_LONGEST_BACK = 260
"""Bytes of an answer at most; a packet is never shorter, so that nobody is flooded through us."""


@dataclass(frozen=True, slots=True)
class Direction:
    """What the far end counted on the way out, or we on the way back."""

    received: int
    duplicates: int
    reordered: int
    jitter_seconds: float
    delay_seconds: float
    least_delay_seconds: float

    @classmethod
    def of(cls, tally: Tally) -> "Direction":
        """As a tally stands."""
        return cls(
            tally.received,
            tally.duplicates,
            tally.reordered,
            tally.jitter_seconds,
            tally.delay_seconds,
            tally.least_delay_seconds,
        )


@dataclass(frozen=True, slots=True)
class Streamed:
    """One round of a stream. out: None when the far end could not be asked, or had begun anew. returned: packets that it sent back."""

    sent: int
    out: Direction | None
    back: Direction
    returned: int
    rtt_seconds: float


class Stream:
    """Sends one round to one reflector."""

    def __init__(self, key: bytes, name: str, packets: int, packet_bytes: int) -> None:
        self._key = key
        self._name = name
        self._packets = packets
        self._pad = "x" * max(1, max(packet_bytes, _LONGEST_BACK) - 130)
        self._id = new_nonce()
        self._back = Tally()
        self._answered: set[int] = set()
        self._rtts_ns = 0
        self._challenge = new_nonce()
        self._stats: Message | None = None
        self._is_told = asyncio.Event()
        self._all_back = asyncio.Event()

    async def run(self, address: str, port: int, spacing_seconds: float, timeout_seconds: float) -> Streamed:
        """Raises OSError when nothing can be sent there."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as opened:
            opened.setblocking(False)
            keep_times(opened)
            opened.connect((address, port))
            loop.add_reader(opened, self._hear, opened)
            try:
                await self._send(opened, spacing_seconds)
                await self._settle(timeout_seconds)
                stats = await self._ask(opened, timeout_seconds) if self._answered else None
            finally:
                loop.remove_reader(opened)
        back = Direction.of(self._back)
        rtt = self._rtts_ns * NANOSECOND / back.received if back.received else 0.0
        out, returned = _read_stats(stats) if stats else (None, 0)
        if out and out.received < len(self._answered):  # it began anew meanwhile, and counted less than it sent back
            out, returned = None, 0
        return Streamed(self._packets, out, back, returned, rtt)

    async def _send(self, opened: socket.socket, spacing_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(self._packets):
            await asyncio.sleep(max(0.0, begin + number * spacing_seconds - loop.time()))
            words = (self._name, self._id, str(number), str(time.time_ns()), self._pad)
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                opened.send(seal(self._key, "packet", *words))

    async def _settle(self, timeout_seconds: float) -> None:
        """Wait for what is still on its way."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._all_back.wait()
        await asyncio.sleep(GRACE_SECONDS)

    async def _ask(self, opened: socket.socket, timeout_seconds: float) -> Message | None:
        """What the far end counted. Of one that sent nothing back nobody asks: it would cost the round its other targets."""
        for _ in range(REPORT_TRIES):
            with contextlib.suppress(ConnectionRefusedError, BlockingIOError):
                opened.send(seal(self._key, "report", self._name, self._id, self._challenge, self._pad))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASKING_SHARE * timeout_seconds):
                    await self._is_told.wait()
                    return self._stats
        return None

    def _hear(self, opened: socket.socket) -> None:
        with contextlib.suppress(OSError):  # refused for a while: those packets are lost
            for data, _, received_ns, _ in arrivals(opened):
                message = unseal(self._key, data)
                if message and message.words[:1] == (self._id,):
                    self._take(message, received_ns)

    def _take(self, message: Message, arrived_ns: int) -> None:
        if message.kind == "back" and len(message.words) == 6:
            number, sent, own, received, returned = map(int, message.words[1:])
            self._answered.add(number)
            if self._back.add(own, returned, arrived_ns):
                self._rtts_ns += (arrived_ns - sent) - (returned - received)
            if len(self._answered) == self._packets:
                self._all_back.set()
        elif message.kind == "stats" and message.words[1:2] == (self._challenge,) and len(message.words) == 9:
            self._stats = message
            self._is_told.set()


class Reflector:
    """The far end of many streams; knows no socket."""

    def __init__(self, keys: Keys, monotonic: Callable[[], float]) -> None:
        self._keys = keys
        self._monotonic = monotonic
        self._streams: dict[tuple[str, str], tuple[Tally, float]] = {}
        self.packets_count = 0
        self.strangers_count = 0

    def hear(self, line: bytes, received_ns: int) -> bytes | None:
        """What to send back; None for a second copy, for what is not sealed with our key, and for what asks nothing."""
        unsealed = self._keys.unseal(line)
        if unsealed is None:
            self.strangers_count += 1
            return None
        key, message = unsealed
        if message.kind == "packet" and len(message.words) == 5:
            return self._return(key, message, received_ns)
        if message.kind == "report" and len(message.words) == 4:
            prober, stream, challenge, _ = message.words
            tally, _ = self._streams.get((prober, stream), (Tally(), 0.0))
            return seal(key, "stats", stream, challenge, *_write_stats(tally))
        return None

    def _return(self, key: bytes, message: Message, received_ns: int) -> bytes | None:
        prober, stream, number, sent, _ = message.words
        tally = self._find((prober, stream))
        self.packets_count += 1
        if tally.received >= MOST_PACKETS or not tally.add(int(number), int(sent), received_ns):
            return None
        words = (stream, number, sent, str(tally.received - 1), str(received_ns), str(time.time_ns()))
        return seal(key, "back", *words)

    def _find(self, stream: tuple[str, str]) -> Tally:
        now = self._monotonic()
        tally, _ = self._streams.pop(stream, (Tally(), 0.0))
        self._streams[stream] = (tally, now)  # the one heard of last stands last
        while len(self._streams) > MOST_STREAMS or now - next(iter(self._streams.values()))[1] > FORGET_SECONDS:
            del self._streams[next(iter(self._streams))]
        return tally


def _write_stats(tally: Tally) -> tuple[str, ...]:
    times = (tally.jitter_seconds, tally.delay_seconds, tally.least_delay_seconds)
    counts = (tally.received, tally.duplicates, tally.reordered)
    return (*map(str, counts), *(str(round(one / NANOSECOND)) for one in times), str(tally.received))


def _read_stats(message: Message) -> tuple[Direction, int]:
    received, duplicates, reordered, jitter, delay, least, returned = map(int, message.words[2:])
    times = (jitter * NANOSECOND, delay * NANOSECOND, least * NANOSECOND)
    return Direction(received, duplicates, reordered, *times), returned
