"""The far end of the isolation probes: hears them, answers those that carry the key, and testifies which ones came.

Measures: isolation_responder.is_listening (whether every configured way is heard), ways_count, seen_count (probes since
the round before), strangers_count (what arrived since then without the key: nothing but probes should come here).
Needs: the keys that the probers have, and ports that no service uses: the responder listens where an attacker would
knock, so it best has a machine or an address of its own in each zone. Ports below 1024: CAP_NET_BIND_SERVICE; `icmp`:
CAP_NET_RAW.
Reference: docs/isolation.md has the protocol and what it proves.

Only what carries the key is answered, by no more bytes than came; nothing else gets a word.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, ClassVar

import msgspec

from agent.broker import Secret
from agent.errors import SourceError
from agent.foreign_words import explain
from agent.language import say
from agent.sources import Reading, Seconds, SourceConfig, Surroundings
from agent.sources._arrivals import answer, arrivals, listen
from agent.sources._echo import open_hearing, read_echo
from agent.sources._proof import CONTROL_BYTES, LINE_BYTES, check_keys, read_keys
from agent.sources._ways import Way, read_address, read_way
from agent.sources._witness import Witness

CONTROL_PORT = 7177
PATIENCE_SECONDS = 5.0
"""How long a connection may say nothing."""

CALL_PATIENCE_SECONDS = 900.0
"""The same where we called: the prober asks once a round."""

CALL_AGAIN_SECONDS = 2.0
MOST_CONNECTIONS = 200
_log = logging.getLogger(__name__)

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """listen: ways such as tcp/22, udp/161, icmp, over IPv4 and IPv6 alike. address: only there, else everywhere.

    keys: one for each prober, by its agent's name, so that none can speak for another; key: one that all others share.
    control_port: where probers ask what came. call: address:port of probers that cannot come in and are called instead.
    """

    interval_seconds: Seconds = 60.0
    key: Secret | None = None
    keys: Mapping[str, Secret] = {}
    listen: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - it is there to be knocked at
    control_port: Port = CONTROL_PORT
    call: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_keys(self.key, self.keys)
        for text in self.listen:
            read_way(text)
        for text in self.addresses:
            read_address(text)
        for text in self.call:
            read_endpoint(text)


class Source:
    """Listens between the rounds; a round says how it went."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._name = surroundings.asset
        self._monotonic = surroundings.monotonic
        self._open = contextlib.AsyncExitStack()
        self._witness: Witness | None = None
        self._told: set[str] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen on every way that can be had. Raises SourceError without a key, or when nobody could ask us."""
        await self.close()
        witness = self._witness = Witness(read_keys(self._config.key, self._config.keys), self._name, self._monotonic)
        control = Way("tcp", self._config.control_port)
        wanted = {control, *map(read_way, self._config.listen)}
        for address in self._config.addresses:
            for base in wanted:
                way = read_way(str(base), is_ipv6=":" in address)
                await self._listen(way, address, witness)
        if not {control, Way("tcp6", control.port)} & witness.ways and not self._config.call:
            await self.close()
            raise SourceError(
                say(
                    f"控制端口 {control.port} 无法监听，探测方无从核对；请换端口或停掉占用它的程序",
                    f"the control port {control.port} cannot be listened on, so no prober can check; free it or choose another",
                )
            )
        for endpoint in self._config.call:
            task = asyncio.create_task(self._keep_calling(*read_endpoint(endpoint)), name=f"call {endpoint}")
            self._open.push_async_callback(_end, task)

    async def collect(self) -> list[Reading]:
        """One reading about the time since the round before."""
        witness = self._witness
        assert witness is not None  # noqa: S101 - open came first
        due = (len(set(self._config.listen)) + 1) * len(self._config.addresses)
        fields = {
            "is_listening": len(witness.ways) >= due,
            "ways_count": len(witness.ways),
            "seen_count": witness.seen_count,
            "strangers_count": witness.strangers_count,
        }
        witness.seen_count = witness.strangers_count = 0
        return [Reading("isolation_responder", fields)]

    async def close(self) -> None:
        """Stop listening; connections that are being answered end too."""
        opened, self._open = self._open, contextlib.AsyncExitStack()
        await opened.aclose()
        for task in tuple(self._serving):
            await _end(task)

    async def _listen(self, way: Way, address: str, witness: Witness) -> None:
        """Hear one way at one address; one that cannot be had is named once and missing from what we testify."""
        try:
            match way.base:
                case "tcp":
                    limit = CONTROL_BYTES if way.port == self._config.control_port else LINE_BYTES
                    server = await asyncio.start_server(
                        self._serve, address, way.port, limit=limit, reuse_address=True, backlog=MOST_CONNECTIONS
                    )
                    self._open.callback(server.close)
                case "udp":
                    self._attend(bound := listen(address, way.port), partial(_hear_datagrams, bound, witness))
                case _:
                    hearing = open_hearing(way.is_ipv6)
                    self._attend(hearing, partial(_hear_echoes, hearing, way.is_ipv6, witness))
        except (OSError, SourceError) as error:
            self._tell(f"{address} {way}", error)
            return
        witness.ways.add(way)

    def _attend(self, opened: socket.socket, hear: Callable[[], None]) -> None:
        """Call `hear` whenever something waits at a socket, until we close."""
        self._open.callback(opened.close)
        loop = asyncio.get_running_loop()
        loop.add_reader(opened, hear)
        self._open.callback(loop.remove_reader, opened)

    def _tell(self, where: str, error: Exception) -> None:
        if where in self._told:
            return
        self._told.add(where)
        text = say(
            f"无法监听 {where}：{explain(error)}；探测到此的单元无法证实",
            f"cannot listen on {where}: {explain(error)}; cells that end there stay unproven",
        )
        _log.warning(text)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a prober, bounded in number, bytes and time."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server serves in tasks
        self._serving.add(task)
        try:
            if len(self._serving) <= MOST_CONNECTIONS:
                await self._answer_lines(reader, writer, PATIENCE_SECONDS)
        finally:
            self._serving.discard(task)
            writer.close()

    async def _answer_lines(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience_seconds: float
    ) -> None:
        """Until the other side ends, says what is not ours, or says nothing for too long."""
        assert self._witness is not None  # noqa: S101
        with contextlib.suppress(OSError, TimeoutError, ValueError):  # ValueError: a line that is too long
            while line := await asyncio.wait_for(reader.readline(), patience_seconds):
                answer = self._witness.hear(line)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()

    async def _keep_calling(self, address: str, port: int) -> None:
        """Hold a connection to a prober that cannot come in, and answer what it asks there."""
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                opening = asyncio.open_connection(address, port, limit=CONTROL_BYTES)
                reader, writer = await asyncio.wait_for(opening, PATIENCE_SECONDS)
                _keep_alive(writer)
                try:
                    await self._answer_lines(reader, writer, CALL_PATIENCE_SECONDS)
                finally:
                    writer.close()
            await asyncio.sleep(CALL_AGAIN_SECONDS)


def _hear_datagrams(opened: socket.socket, witness: Witness) -> None:
    """All datagrams that wait; an answer goes back, never longer than what came."""
    with contextlib.suppress(OSError):  # the socket is in trouble; what came is remembered
        for arrival in arrivals(opened):
            words = witness.hear(arrival.data)
            if words and len(words) <= len(arrival.data):
                with contextlib.suppress(OSError):
                    answer(opened, arrival, words)


def _hear_echoes(opened: socket.socket, is_ipv6: bool, witness: Witness) -> None:
    """All echo requests that wait; the kernel answers them, we remember them. Other people's pings are no strangers."""
    with contextlib.suppress(BlockingIOError):
        while True:
            echo = read_echo(opened.recv(2048), is_ipv6)
            if echo and echo[2].startswith(b"infravitals/"):
                witness.hear(echo[2])


def read_endpoint(text: str) -> tuple[str, int]:
    """`192.0.2.1:7177` or `[2001:db8::1]:7177`. Raises ValueError."""
    address, colon, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise ValueError(say(f"'{text}' 应写成 地址:端口", f"write address:port, not '{text}'"))
    return str(read_address(address)), int(port)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """A firewall forgets a silent connection without a word; this finds out within a minute."""
    opened = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
