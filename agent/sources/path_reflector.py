"""The far end of two-ended path probes: counts the packets of each stream and returns them.

Measures: path_reflector.is_listening, packets_count (since the round before), strangers_count (what came without the key),
and where senders are enrolled transfers_count and refused_count of throughput.
Needs: the key that the probing agents have, and one UDP port; for `senders` the TCP port of the same number.
Reference: RFC 5357 (TWAMP) and RFC 8762 (STAMP) for the method; docs/paths.md for the packets.

Only what carries the key is answered, by no more bytes than came.
"""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import ClassVar

from agent.broker import Secret
from agent.errors import SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.sources import Reading, Seconds, SourceConfig, Surroundings
from agent.sources._arrivals import answer, arrivals, listen
from agent.sources._proof import check_keys, read_keys
from agent.sources._stream import Reflector
from agent.sources._throughput import Receiver, Sender
from agent.sources._ways import read_address
from agent.sources.isolation_responder import Port

PORT = 7180


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """keys: one for each prober, by its agent's name; key: one that all others share. addresses: where to listen. senders: agents, by name, that may measure throughput to here; none by default."""

    interval_seconds: Seconds = 60.0
    key: Secret | None = None
    keys: Mapping[str, Secret] = {}
    port: Port = PORT
    addresses: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - probes come from everywhere
    senders: Mapping[str, Sender] = {}

    def __post_init__(self) -> None:
        check_keys(self.key, self.keys)
        for text in self.addresses:
            read_address(text)


class Source:
    """Listens between the rounds."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._monotonic = surroundings.monotonic
        self._reflector: Reflector | None = None
        self._sockets: list[socket.socket] = []
        self._receiver: Receiver | None = None
        self._servers: list[asyncio.Server] = []

    async def open(self) -> None:
        """Listen. Raises SourceError without a key, or when an address cannot be listened at."""
        await self.close()
        keys = read_keys(self._config.key, self._config.keys)
        reflector = self._reflector = Reflector(keys, self._monotonic)
        for address in self._config.addresses:
            opened = self._bind(address)
            self._sockets.append(opened)
            asyncio.get_running_loop().add_reader(opened, _reflect, opened, reflector)
        if self._config.senders:
            receiver = self._receiver = Receiver(keys, self._config.senders, self._monotonic)
            for address in self._config.addresses:
                self._servers.append(await self._serve(address, receiver))

    async def collect(self) -> list[Reading]:
        """One reading about the time since the round before."""
        reflector = self._reflector
        assert reflector is not None  # noqa: S101 - open came first
        fields = {
            "is_listening": True,
            "packets_count": reflector.packets_count,
            "strangers_count": reflector.strangers_count,
        }
        reflector.packets_count = reflector.strangers_count = 0
        if receiver := self._receiver:
            fields["strangers_count"] += receiver.strangers_count
            fields |= {"transfers_count": receiver.transfers_count, "refused_count": receiver.refused_count}
            receiver.transfers_count = receiver.refused_count = receiver.strangers_count = 0
        return [Reading("path_reflector", fields)]

    async def close(self) -> None:
        """Stop listening."""
        for opened in self._sockets:
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()
        self._sockets = []
        for server in self._servers:
            server.close()
        self._servers = []

    def _bind(self, address: str) -> socket.socket:
        port = self._config.port
        try:
            return listen(address, port)
        except OSError as error:
            raise _cannot_listen("UDP", address, port, error) from error

    async def _serve(self, address: str, receiver: Receiver) -> asyncio.Server:
        port = self._config.port
        try:
            return await asyncio.start_server(receiver.serve, address, port, reuse_address=True, backlog=16)
        except OSError as error:
            raise _cannot_listen("TCP", address, port, error) from error


def _cannot_listen(protocol: str, address: str, port: int, error: OSError) -> SourceError:
    why = explain_system(error)
    return SourceError(
        say(
            f"无法在 {address} 的 {protocol} {port} 上监听：{why}；请换端口或停掉占用它的程序",
            f"cannot listen at {protocol} {port} of {address}: {why}; choose another port or stop who has it",
        )
    )


def _reflect(opened: socket.socket, reflector: Reflector) -> None:
    """Everything that waits; a packet that cannot be returned counts as lost on its way back."""
    with contextlib.suppress(OSError):
        for arrival in arrivals(opened):
            words = reflector.hear(arrival.data, arrival.received_ns)
            if words and len(words) <= len(arrival.data):
                with contextlib.suppress(OSError):
                    answer(opened, arrival, words)
