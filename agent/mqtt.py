"""The one door to the MQTT library: connections to a broker, and the link and the subscription made of them."""

import asyncio
import contextlib
import logging
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import aiomqtt
import msgspec
from aiomqtt import MqttCodeError, MqttError
from paho.mqtt import client as paho_client
from paho.mqtt.client import MQTT_ERR_SUCCESS
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.broker import Broker, tls_context
from agent.errors import LinkError, LoginRefused, NameTaken, NotAllowed
from agent.language import say
from agent.link import Delivery, Session
from agent.mqtt_packets import take_apart
from agent.mqtt_trouble import (
    BAD_LOGIN,
    NO_ANSWER,
    NOT_AUTHORIZED,
    TAKEN_OVER,
    UNSPECIFIED,
    explain_code,
    explain_dialling,
    explain_double,
    explain_login,
    explain_size,
)
from agent.wire import (
    PREFIX,
    Address,
    Receipt,
    Undecodable,
    decode_receipt,
    encode_receipt,
    points_topic,
    read_topic,
    receipt_topic,
    state_topic,
)

__all__ = [
    "PROBE",
    "Broker",
    "Connection",
    "Incoming",
    "MqttLink",
    "Subscription",
    "Will",
    "connect",
    "deliveries",
    "own_broker",
]

logger = logging.getLogger(__name__)
_library_logger = logging.getLogger(f"{__name__}.library")
_library_logger.setLevel(logging.CRITICAL)  # every error comes to us, and we say it in one sentence

PROBE = "infravitals-probe"
"""A user property: nobody takes such a message for data. A doctor tries with it what the broker must forbid."""

_FAREWELL_SECONDS = 2.0
_DOUBLE_SECONDS = 900.0
"""How long a session may still be taken over by the other agent of our name: it comes back after its own long wait."""
_OWN_SESSIONS = 8
_PACKET_BYTES = 512
"""What a packet holds besides topic and payload, our user properties among it; more than it ever is."""


def _quicker(decode: Callable[[int, bytes, Any], Any]) -> Callable[[int, bytes, Any], Any]:
    """The library's decoding of a PUBLISH, the same answers, with what costs most done by `take_apart`."""

    def decode_publish(header: int, packet: bytes, protocol: Any) -> Any:
        published = take_apart(header, packet) if protocol == aiomqtt.ProtocolVersion.V5 else None
        if published is None:
            return decode(header, packet, protocol)
        decoded = decode(header, published.head + b"\0", protocol)  # as if without properties and payload
        if published.properties:
            decoded.properties.UserProperty = published.properties
        return decoded._replace(payload=published.payload)

    return decode_publish


_packets: Any = getattr(paho_client, "_packet", None)
if hasattr(_packets, "decode_publish"):  # paho 2.2; tests/agent/test_mqtt_packets.py says when it is not so any more
    _packets.decode_publish = _quicker(_packets.decode_publish)


class Will(NamedTuple):
    """What the broker publishes, retained, when this client is gone without a farewell."""

    topic: str
    payload: bytes


class Incoming(NamedTuple):
    """A message as it came; `acknowledge` matters on a connection with manual_ack alone."""

    topic: str
    payload: bytes
    properties: Mapping[str, str]
    acknowledge: Callable[[], Awaitable[None]]


class _Client(aiomqtt.Client):
    """aiomqtt 2, that also hears a refused publish, and a connection that ends while somebody waits for an answer."""

    refusal: ReasonCode | None = None
    is_abandoned = False
    most_bytes: int | None = None
    """The largest packet that the broker takes, where it says so."""

    def _client_connect(self) -> None:  # in a thread that cannot be cancelled
        super()._client_connect()
        if self.is_abandoned:
            self._loop.call_soon_threadsafe(self._client.disconnect)

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        self.most_bytes = getattr(properties, "MaximumPacketSize", None)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Any) -> None:
        if reason_code.is_failure:
            self.refusal = reason_code
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def _on_disconnect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Any = None
    ) -> None:
        if self.is_abandoned:
            return
        if not self._connected.done():
            self._connected.set_exception(MqttCodeError(reason_code))
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)
        self._look_at_end()  # aiomqtt throws it away when it comes right after the welcome
        for published in self._pending_publishes.values():
            published.set()
        for subscribed in self._pending_subscribes.values():
            if not subscribed.done():
                subscribed.set_exception(MqttCodeError(reason_code))

    def is_lost(self) -> bool:
        """Whether the connection has ended."""
        return self._disconnected.done()

    def acknowledge(self, message: aiomqtt.Message) -> bool:
        """Send the broker its PUBACK; False when it cannot be sent."""
        return self._client.ack(message.mid, message.qos) == MQTT_ERR_SUCCESS

    def prepare(self, connect_timeout_seconds: float, manual_ack: bool) -> None:
        """What aiomqtt has no parameter for."""
        self._client.connect_timeout = connect_timeout_seconds  # the TLS handshake's too
        self._client.manual_ack_set(manual_ack)

    def abandon(self) -> None:
        """Let go of the socket, however the connection stands."""
        self._look_at_end()
        self.is_abandoned = True
        self._client.disconnect()

    def _look_at_end(self) -> None:
        """Else asyncio complains that nobody did."""
        if self._disconnected.done() and not self._disconnected.cancelled():
            self._disconnected.exception()


class Connection:
    """An open connection. Every call raises LinkError, with the broker's name and the reason, when it is lost.

    has_double: another agent uses our name, so an end without a reason is a takeover: mosquitto 2.0 gives none. Without it a
    takeover that the broker tells of may be a doctor's short visit: then dialling at once is right.
    """

    has_double = False

    def __init__(self, client: _Client, broker: Broker) -> None:
        self._client = client
        self._broker = broker

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Publish, and with QoS 1 wait for the broker's word; its refusal is a LinkError too."""
        self._check_size(topic, payload)
        packet = None
        if properties:
            packet = _properties(PacketTypes.PUBLISH)
            packet.UserProperty = list(properties.items())
        try:
            with _hearing_cancellation():
                await self._client.publish(topic, payload, qos=qos, retain=retain, properties=packet)
        except MqttError as error:
            raise self._lost(error) from error
        refusal, self._client.refusal = self._client.refusal, None
        if refusal is not None:
            raise self._refused(say("发布到", "publish to"), topic, refusal)
        if self._client.is_lost():
            raise self._lost(None)

    async def subscribe(self, topic_filter: str) -> None:
        """Subscribe with QoS 1."""
        try:
            with _hearing_cancellation():
                granted = await self._client.subscribe(topic_filter, qos=1)
        except MqttError as error:
            raise self._lost(error) from error
        for code in granted:
            if isinstance(code, ReasonCode) and code.is_failure:
                raise self._refused(say("订阅", "subscribe to"), topic_filter, code)

    async def messages(self) -> AsyncIterator[Incoming]:
        """What arrives on all subscriptions."""
        try:
            async for message in self._client.messages:
                yield self._incoming(message)
        except MqttError as error:
            raise self._lost(error) from error

    def _incoming(self, message: aiomqtt.Message) -> Incoming:
        async def acknowledge() -> None:
            if not self._client.acknowledge(message):
                raise self._lost(None)

        pairs = getattr(message.properties, "UserProperty", [])
        payload = message.payload if isinstance(message.payload, bytes) else b""
        return Incoming(str(message.topic), payload, dict(pairs), acknowledge)

    def _check_size(self, topic: str, payload: bytes) -> None:
        """The library sends what the broker does not take, and the broker hangs up without a reason that arrives."""
        most = self._client.most_bytes
        if most is not None and len(payload) + len(topic) + _PACKET_BYTES > most:
            raise LinkError(explain_size(len(payload), most, self._broker.where))

    def _lost(self, error: BaseException | None) -> LinkError:
        cause = error.__cause__ if error is not None and error.__cause__ is not None else error
        code = cause.rc if isinstance(cause, MqttCodeError) else None
        if isinstance(code, ReasonCode):
            value = code.value
        else:
            value = NO_ANSWER if error and isinstance(error.__context__, TimeoutError) else UNSPECIFIED
        is_double = self.has_double and value in (UNSPECIFIED, TAKEN_OVER)
        where, reason = self._broker.where, explain_double() if is_double else explain_code(value)
        text = say(f"与 MQTT 服务器 {where} 的连接中断：{reason}", f"lost the MQTT broker {where}: {reason}")
        return NameTaken(text) if is_double else LinkError(text)

    def _refused(self, what: str, topic: str, code: ReasonCode) -> LinkError:
        where, reason = self._broker.where, explain_code(code.value)
        kind = NotAllowed if code.value == NOT_AUTHORIZED else LinkError
        return kind(
            say(
                f"MQTT 服务器 {where} 不允许用户 {self._broker.username} {what} {topic}：{reason}",
                f"the MQTT broker {where} does not let user {self._broker.username} {what} {topic}: {reason}",
            )
        )


@asynccontextmanager
async def connect(
    broker: Broker,
    *,
    identifier: str,
    will: Will | None = None,
    receive_maximum: int | None = None,
    manual_ack: bool = False,
) -> AsyncIterator[Connection]:
    """An open connection, MQTT 5, clean start, no session kept. Raises LinkError with one sentence.

    receive_maximum: how many unacknowledged messages the broker may have under way to us.
    manual_ack: a message is acknowledged by its `acknowledge` and not on arrival.
    """
    client = await _make_client(broker, identifier, will, receive_maximum)
    client.prepare(broker.connect_timeout_seconds, manual_ack)
    try:
        with _hearing_cancellation():
            await client.__aenter__()
    except MqttError as error:
        client.abandon()
        raise _refusal(error, broker) from error
    except BaseException:
        client.abandon()
        raise
    try:
        yield Connection(client, broker)
    finally:
        try:
            with _hearing_cancellation(), contextlib.suppress(MqttError):
                await client.__aexit__(None, None, None)
        finally:
            client.abandon()


async def _make_client(broker: Broker, identifier: str, will: Will | None, receive_maximum: int | None) -> _Client:
    secret = broker.password
    password = await asyncio.to_thread(lambda: secret.read(key="broker.password")) if secret else None
    properties = _properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0
    if receive_maximum is not None:
        properties.ReceiveMaximum = receive_maximum
    host, _, port = broker.where.rpartition(":")
    return _Client(
        host,
        int(port),
        username=broker.username,
        password=password,
        identifier=identifier,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=True,
        will=aiomqtt.Will(will.topic, will.payload, qos=1, retain=True) if will else None,
        keepalive=broker.keepalive_seconds,
        timeout=broker.connect_timeout_seconds,
        tls_context=await asyncio.to_thread(tls_context, broker.tls) if broker.tls else None,
        properties=properties,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # else each answer waits 40 ms for company
        logger=_library_logger,
    )


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves this one constructor untyped


def _refusal(error: MqttError, broker: Broker) -> LinkError:
    code = error.rc if isinstance(error, MqttCodeError) else None
    kind = LinkError
    if isinstance(code, ReasonCode):
        reason = explain_login(code.value, broker.username)
        kind = LoginRefused if code.value in (BAD_LOGIN, NOT_AUTHORIZED) else LinkError
    else:
        reason = explain_dialling(error.__context__, broker.host, broker.tls is not None)
    return kind(
        say(f"无法连接 MQTT 服务器 {broker.where}：{reason}", f"cannot reach the MQTT broker {broker.where}: {reason}")
    )


class _State(msgspec.Struct):
    """What is retained at an agent's state topic. since: milliseconds, when its session began."""

    state: str
    since: int


def own_broker(broker: Broker, address: Address) -> Broker:
    """The broker as this agent uses it: with a password and no user name it is told `{site}/{agent}`."""
    if broker.password is not None and broker.username is None:
        return msgspec.structs.replace(broker, username=f"{address.site}/{address.agent}")
    return broker


class MqttLink:
    """The agent's side of the link. A broker with a password and no user name is told `{site}/{agent}`."""

    def __init__(self, broker: Broker, address: Address, *, clock: Callable[[], float] = time.time) -> None:
        self._broker = own_broker(broker, address)
        self._address = address
        self._clock = clock
        self._own: deque[int] = deque(maxlen=_OWN_SESSIONS)
        """When our latest sessions began: a state that bears another time is not by us."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Dial, subscribe to the receipts, and be `online` until the end."""
        topic, since = state_topic(*self._address), int(self._clock() * 1000)
        offline = msgspec.json.encode(_State("offline", since))
        identifier = f"{self._address.site}/{self._address.agent}"
        async with connect(self._broker, identifier=identifier, will=Will(topic, offline)) as connection:
            self._own.append(since)
            await connection.subscribe(receipt_topic(*self._address))
            with contextlib.suppress(LinkError):  # a broker that refuses our own state to us costs a hint, no more
                await connection.subscribe(topic)
            await connection.publish(topic, msgspec.json.encode(_State("online", since)), retain=True)
            try:
                yield _MqttSession(connection, self._address, self._own, self._clock)
            finally:
                with contextlib.suppress(LinkError, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_SECONDS):
                        await connection.publish(topic, offline, retain=True)


class _MqttSession:
    def __init__(
        self, connection: Connection, address: Address, own: Sequence[int], clock: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._points_topic = points_topic(*address)
        self._state_topic = state_topic(*address)
        self._own = tuple(own)
        self._clock = clock

    async def send(self, payload: bytes, boot: str, seq: int, points: int) -> None:
        properties = {"boot": boot, "seq": str(seq), "points": str(points)}
        await self._connection.publish(self._points_topic, payload, properties=properties)

    async def receipts(self) -> AsyncIterator[Receipt]:
        async for message in self._connection.messages():
            if self._clock() - self._own[-1] / 1000 > _DOUBLE_SECONDS:
                self._connection.has_double = False
            if message.topic == self._state_topic:
                self._note_state(message.payload)
                continue
            try:
                yield decode_receipt(message.payload)
            except Undecodable as error:
                logger.warning(say("收到无法解析的回执：%s", "a receipt that cannot be read: %s"), error)

    def _note_state(self, payload: bytes) -> None:
        """Our own state as it is retained: whoever wrote another time into it after our last session has our name.

        In a process's first session it may be by the process before, which proves nothing.
        """
        with contextlib.suppress(msgspec.DecodeError):
            if len(self._own) > 1 and msgspec.json.decode(payload, type=_State).since not in self._own:
                self._connection.has_double = True


class Subscription:
    """The collector's side: an async iterator of deliveries. foreign_count: messages on topics that are none of ours, and probes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.foreign_count = 0

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        async for message in self._connection.messages():
            address = read_topic(message.topic)
            if address is None or message.topic != points_topic(*address) or PROBE in message.properties:
                self.foreign_count += 1
                await message.acknowledge()
                continue
            yield self._delivery(address, message)

    def _delivery(self, address: Address, message: Incoming) -> Delivery:
        async def reply(receipt: Receipt) -> None:
            await self._connection.publish(receipt_topic(*address), encode_receipt(receipt))

        found = message.properties
        boot, seq, points = found.get("boot", ""), _number(found.get("seq")), _number(found.get("points"))
        return Delivery(address, message.payload, boot, seq, points, reply, message.acknowledge)


@asynccontextmanager
async def deliveries(
    broker: Broker, *, site: str | None, share_group: str, identifier: str, receive_maximum: int
) -> AsyncIterator[Subscription]:
    """Batches of one site, or of all sites, shared with every collector of the same group.

    receive_maximum bounds what waits here unacknowledged. What was not acknowledged when this ends may be gone at the
    broker (mosquitto forgets it); the agents send again what has no receipt.
    """
    connection = connect(broker, identifier=identifier, receive_maximum=receive_maximum, manual_ack=True)
    async with connection as opened:
        await opened.subscribe(f"$share/{share_group}/{PREFIX}/{site or '+'}/+/points")
        yield Subscription(opened)


@contextmanager
def _hearing_cancellation() -> Iterator[None]:
    """asyncio.wait_for below every call of aiomqtt loses a cancellation that comes while it completes (Python 3.11)."""
    before = _cancellations()
    try:
        yield
    finally:
        if _cancellations() > before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    """How often the running task was asked to end; a TaskGroup that failed before may have left the count above 0."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _number(text: str | None) -> int:
    """A sequence number or a count that somebody else wrote; -1 when it is none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 18 else -1
