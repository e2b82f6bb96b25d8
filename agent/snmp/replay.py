"""A recorded walk answers as its device did: v1 and v2c here, v3 through the engine in `engine`."""

import asyncio
import bisect
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from agent.snmp import ber
from agent.snmp.ber import Binding, Malformed
from agent.snmp.credentials import Opened
from agent.snmp.walkfile import order

MOST_BYTES = 1400
"""An answer stays in one datagram that no network cuts."""

MOST_REPETITIONS = 100


class Device:
    """What a device knows; `put` and `drop` change it while it answers."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._held = {order(one.oid): one for one in bindings}
        self._sort()

    def put(self, oid: str, tag: int, value: ber.Value) -> None:
        """Set one variable."""
        self._held[order(oid)] = Binding(oid, tag, value)
        self._sort()

    def drop(self, subtree: str) -> None:
        """Forget everything at and below an object id."""
        start = order(subtree)
        self._held = {key: one for key, one in self._held.items() if key[: len(start)] != start}
        self._sort()

    def _sort(self) -> None:
        self._keys = sorted(self._held)
        self._encoded: dict[tuple[int, ...], bytes] = {}

    def get(self, oid: str) -> Binding | None:
        """An exact variable."""
        return self._held.get(order(oid))

    def after(self, oid: str) -> Binding | None:
        """The first variable behind an object id."""
        place = bisect.bisect_right(self._keys, order(oid))
        return self._held[self._keys[place]] if place < len(self._keys) else None

    def answer(self, data: bytes, community: bytes) -> bytes | None:
        """The answer to a v1 or v2c request; None for another community and for what is no request. Raises Malformed."""
        message = ber.read_message(data)
        if message.version not in (0, 1) or message.community != community:
            return None
        pdu = ber.read_pdu(data, message.pdu)
        asked = [ber.read_binding(data, one).oid for one in ber.read_children(data, pdu.variables)]
        if message.pdu.tag == ber.GET_BULK:
            listed = self._bulk(asked, pdu.error, min(pdu.error_index, MOST_REPETITIONS))
            answer = ber.pdu(ber.RESPONSE, pdu.request_id, 0, 0, ber.element(ber.SEQUENCE, b"".join(listed)))
            return ber.message(message.version, community, answer)
        if message.pdu.tag in (ber.GET, ber.GET_NEXT):
            found = [self._one(oid, message.pdu.tag) for oid in asked]
        else:
            return None
        status, place = 0, 0
        missing = [number for number, one in enumerate(found, 1) if one.tag in (ber.NO_SUCH_INSTANCE, ber.END_OF_VIEW)]
        if message.version == 0 and missing:
            status, place, found = 2, missing[0], [Binding(oid, ber.NULL, None) for oid in asked]
        answer = ber.pdu(ber.RESPONSE, pdu.request_id, status, place, ber.bindings(found))
        return ber.message(message.version, community, answer)

    def _one(self, oid: str, tag: int) -> Binding:
        if tag == ber.GET:
            return self.get(oid) or Binding(oid, ber.NO_SUCH_INSTANCE, None)
        return self.after(oid) or Binding(oid, ber.END_OF_VIEW, None)

    def _bulk(self, asked: list[str], once: int, repetitions: int) -> list[bytes]:
        """The encoded variables of a bulk answer, as many rows as fit one datagram."""
        found = [ber.binding(self._one(oid, ber.GET_NEXT)) for oid in asked[:once]]
        places = [bisect.bisect_right(self._keys, order(oid)) for oid in asked[once:]]
        size = 0
        for _ in range(repetitions if places else 0):
            row = [self._at(place, asked[once + number]) for number, place in enumerate(places)]
            size += sum(map(len, row))
            if found and size > MOST_BYTES:
                break
            found += row
            if all(place >= len(self._keys) for place in places):
                break
            places = [place + 1 for place in places]
        return found

    def _at(self, place: int, asked: str) -> bytes:
        if place >= len(self._keys):
            last = self._held[self._keys[-1]].oid if self._keys else asked
            return ber.binding(Binding(last, ber.END_OF_VIEW, None))
        key = self._keys[place]
        if key not in self._encoded:
            self._encoded[key] = ber.binding(self._held[key])
        return self._encoded[key]


class Responder(asyncio.DatagramProtocol):
    """Answers on one socket; what is no request of ours is dropped, as agents do. user: who may ask by v3."""

    def __init__(self, device: Device, community: str, user: Opened | None = None) -> None:
        self._device, self._community = device, community.encode()
        self._engine: V3Side | None = _engine_for(device, user, self._send) if user else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """Answer one request."""
        try:
            if self._engine and ber.read_version(data) == 3:
                self._engine.feed(data, peer)
                return
            answer = self._device.answer(data, self._community)
        except Malformed:
            return
        if answer:
            self._transport.sendto(answer, peer)

    def _send(self, data: bytes, peer: tuple[str, int]) -> None:
        self._transport.sendto(data, peer)


class V3Side(Protocol):
    """The engine that speaks v3 for us; it is loaded only when a user is to be answered."""

    def feed(self, data: bytes, peer: tuple[str, int]) -> bool: ...


def _engine_for(device: Device, user: Opened, send: Callable[[bytes, tuple[str, int]], None]) -> V3Side:
    from agent.snmp.engine import Engine

    engine = Engine([user], send)
    engine.answer_as(device)
    return engine


async def serve_replay(
    device: Device, community: str, host: str = "127.0.0.1", port: int = 0, user: Opened | None = None
) -> asyncio.DatagramTransport:
    """Answer until the transport is closed; port 0: any free one, see its `sockname`."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Responder(device, community, user), local_addr=(host, port)
    )
    return transport
