"""The door to pysnmp, which does what needs SNMPv3's other side: answering as an agent, and taking notifications.

Messages come in and go out as bytes; the sockets are the caller's. RFC 3412, RFC 3414.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pysnmp.carrier.asyncio.dgram.udp import SNMP_UDP_DOMAIN, UdpTransportAddress
from pysnmp.carrier.base import AbstractTransportDispatcher
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.entity.rfc3413.cmdrsp import CommandResponderBase
from pysnmp.entity.rfc3413.context import SnmpContext
from pysnmp.entity.rfc3413.ntfrcv import NotificationReceiver
from pysnmp.error import PySnmpError
from pysnmp.proto import rfc1902, rfc1905
from pysnmp.proto.api import v2c

from agent.errors import SourceError
from agent.language import say
from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.credentials import Opened

Peer = tuple[str, int]
Send = Callable[[bytes, Peer], None]

_AUTH = {
    "md5": config.USM_AUTH_HMAC96_MD5,
    "sha1": config.USM_AUTH_HMAC96_SHA,
    "sha224": config.USM_AUTH_HMAC128_SHA224,
    "sha256": config.USM_AUTH_HMAC192_SHA256,
    "sha384": config.USM_AUTH_HMAC256_SHA384,
    "sha512": config.USM_AUTH_HMAC384_SHA512,
}
_PRIV = {
    "des": config.USM_PRIV_CBC56_DES,
    "aes128": config.USM_PRIV_CFB128_AES,
    "aes192": config.USM_PRIV_CFB192_AES_BLUMENTHAL,
    "aes256": config.USM_PRIV_CFB256_AES_BLUMENTHAL,
}
_CISCO = {"aes192": config.USM_PRIV_CFB192_AES, "aes256": config.USM_PRIV_CFB256_AES}

AUTHORIZATION_ERROR = 16
"""RFC 3416 3: who asks may not."""

_REFUSALS = (
    "usmStatsUnknownUserNames",
    "usmStatsWrongDigests",
    "usmStatsDecryptionErrors",
    "usmStatsUnsupportedSecLevels",
)
"""RFC 3414 counts apart why a message was not opened; for us they are one thing."""

_KINDS: dict[int, Any] = {
    ber.INTEGER: rfc1902.Integer32,
    ber.OCTETS: rfc1902.OctetString,
    ber.OID: rfc1902.ObjectIdentifier,
    ber.IP_ADDRESS: rfc1902.IpAddress,
    ber.COUNTER32: rfc1902.Counter32,
    ber.GAUGE32: rfc1902.Gauge32,
    ber.TIME_TICKS: rfc1902.TimeTicks,
    ber.OPAQUE: rfc1902.Opaque,
    ber.COUNTER64: rfc1902.Counter64,
}
_TAGS = {kind.tagSet: tag for tag, kind in reversed(_KINDS.items())}


class Answering(Protocol):
    """What answers: a replayed device."""

    def get(self, oid: str) -> Binding | None: ...

    def after(self, oid: str) -> Binding | None: ...


class _Dispatcher(AbstractTransportDispatcher):  # type: ignore[misc]  # the library has no types
    """Hands what the engine sends to our socket."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def send_message(self, outgoingMessage: bytes, transportDomain: object, transportAddress: Any) -> None:
        """One message goes out."""
        self._send(bytes(outgoingMessage), (transportAddress[0], transportAddress[1]))


class Engine:
    """One SNMP engine without sockets of its own. `feed` gives it a message; what it answers goes through `send`."""

    def __init__(self, users: Sequence[Opened], send: Send, engine_id: bytes | None = None) -> None:
        own = rfc1902.OctetString(engine_id) if engine_id else None
        self._engine = SnmpEngine(snmpEngineID=own)
        self._engine.register_transport_dispatcher(_Dispatcher(send))
        self._levels: dict[str, int] = {}
        self._counters = self._engine.get_mib_builder().import_symbols("__SNMP-USER-BASED-SM-MIB", *_REFUSALS)
        self._receiver: _Receiver | None = None
        for user in users:
            self.add_user(user)

    @property
    def engine_id(self) -> bytes:
        """The id by which others know this engine."""
        return bytes(self._engine.snmpEngineID)

    @property
    def refused(self) -> int:
        """How many messages were of nobody it knows, or with a wrong key, cipher or level."""
        below = self._receiver.refused if self._receiver else 0
        return below + sum(int(counter.syntax) for counter in self._counters)

    def add_user(self, user: Opened, engine_id: bytes | None = None) -> None:
        """Know a user, also one of another engine: a v3 trap is its sender's, not ours. Raises SourceError without ciphers."""
        if user.priv and importlib.util.find_spec("cryptography") is None:
            raise SourceError(
                say(
                    "这里的 SNMPv3 加密需要 Python 包 cryptography；请安装，或改用 authNoPriv",
                    "SNMPv3 privacy on this side needs the Python package cryptography; install it or use authNoPriv",
                )
            )
        self._levels[user.user] = _level_of(user)
        priv = _CISCO if user.key_expansion == "cisco" else {}
        config.add_v3_user(
            self._engine,
            user.user,
            _AUTH[user.auth] if user.auth else config.USM_AUTH_NONE,
            user.auth_password or None,
            priv.get(user.priv, _PRIV[user.priv]) if user.priv else config.USM_PRIV_NONE,
            user.priv_password or None,
            securityEngineId=rfc1902.OctetString(engine_id) if engine_id else None,
        )

    def feed(self, data: bytes, peer: Peer) -> bool:
        """One message from `peer`; whether the engine could make something of it."""
        try:
            self._engine.message_dispatcher.receive_message(
                self._engine, SNMP_UDP_DOMAIN, UdpTransportAddress(peer), data
            )
        except PySnmpError:
            return False
        return True

    def close(self) -> None:
        """Forget what the engine registered."""
        self._engine.unregister_transport_dispatcher()

    def answer_as(self, device: Answering) -> None:
        """Answer GET, GETNEXT and GETBULK of every user with what `device` knows."""
        _Responder(self._engine, SnmpContext(self._engine), device, self._levels)

    def take_notifications(self, take: Callable[[list[Binding], int | None], None]) -> None:
        """Give the variables of every trap and inform to `take`, with the request id of an inform; informs are confirmed."""
        self._receiver = _Receiver(self._engine, take, self._levels)


def _level_of(user: Opened) -> int:
    """RFC 3411 SnmpSecurityLevel: 1 noAuthNoPriv, 2 authNoPriv, 3 authPriv."""
    return 3 if user.priv else 2 if user.auth else 1


class _Receiver(NotificationReceiver):  # type: ignore[misc]  # the library has no types
    """Takes notifications of a user on his own level only: one without his key could come from anybody who knows his name."""

    def __init__(
        self, engine: SnmpEngine, take: Callable[[list[Binding], int | None], None], levels: Mapping[str, int]
    ) -> None:
        super().__init__(engine, self._received)
        self._levels, self._give = levels, take
        self._inform: int | None = None
        self.refused = 0

    def _received(self, *about: Any) -> None:
        self._give([_binding(name, held) for name, held in about[4]], self._inform)

    def process_pdu(self, *about: Any) -> None:
        """One notification; an inform below the level is refused by name, as a view would, a trap dropped."""
        engine, _, _, name, level = about[:5]
        pdu, size, state = about[8:]
        is_inform = pdu.tagSet == rfc1905.InformRequestPDU.tagSet
        if int(level) >= self._levels.get(str(name), 0):
            self._inform = int(v2c.apiPDU.get_request_id(pdu)) if is_inform else None
            super().process_pdu(*about)
            return
        self.refused += 1
        if is_inform:
            refusal = v2c.apiPDU.get_response(pdu)
            v2c.apiPDU.set_error_status(refusal, AUTHORIZATION_ERROR)
            engine.message_dispatcher.return_response_pdu(engine, *about[1:8], refusal, size, state, {})


class _Responder(CommandResponderBase):  # type: ignore[misc]  # the library has no types
    """Answers without views: whoever has a user here and asks on his level may read all there is."""

    SUPPORTED_PDU_TYPES = (
        rfc1905.GetRequestPDU.tagSet,
        rfc1905.GetNextRequestPDU.tagSet,
        rfc1905.GetBulkRequestPDU.tagSet,
    )

    def __init__(self, engine: SnmpEngine, context: SnmpContext, device: Answering, levels: Mapping[str, int]) -> None:
        super().__init__(engine, context)
        self._device, self._levels = device, levels
        self._is_allowed = False

    def process_pdu(self, *about: Any) -> None:
        """One request, on the level of its user or above."""
        name, level = about[3:5]
        self._is_allowed = int(level) >= self._levels.get(str(name), 0)
        super().process_pdu(*about)

    def handle_management_operation(self, snmpEngine: Any, stateReference: Any, contextName: Any, PDU: Any) -> None:
        """Answer one request."""
        if not self._is_allowed:
            self.send_varbinds(snmpEngine, stateReference, AUTHORIZATION_ERROR, 0, [])
            return
        asked = [str(name) for name, _ in v2c.apiPDU.get_varbinds(PDU)]
        if PDU.tagSet == rfc1905.GetRequestPDU.tagSet:
            found = [self._device.get(oid) or Binding(oid, ber.NO_SUCH_INSTANCE, None) for oid in asked]
        else:
            is_bulk = PDU.tagSet == rfc1905.GetBulkRequestPDU.tagSet
            found = self._follow(asked, int(v2c.apiBulkPDU.get_max_repetitions(PDU)) if is_bulk else 1)
        self.send_varbinds(snmpEngine, stateReference, 0, 0, [_pair(one) for one in found])

    def _follow(self, asked: list[str], repetitions: int) -> list[Binding]:
        found: list[Binding] = []
        for _ in range(min(repetitions, MOST_REPETITIONS)):
            row = [self._device.after(oid) or Binding(oid, ber.END_OF_VIEW, None) for oid in asked]
            found += row
            asked = [one.oid for one in row]
        return found


MOST_REPETITIONS = 25
"""So many rows of one column fit a datagram."""


def _pair(one: Binding) -> tuple[Any, Any]:
    name = rfc1902.ObjectName(one.oid)
    if one.tag == ber.NO_SUCH_INSTANCE:
        return name, rfc1905.noSuchInstance
    if one.tag == ber.END_OF_VIEW:
        return name, rfc1905.endOfMibView
    return name, _KINDS.get(one.tag, rfc1902.OctetString)(one.value)


def _binding(name: Any, held: Any) -> Binding:
    tag = _TAGS.get(held.tagSet, ber.OCTETS)
    if tag in ber.NUMBERS:
        return Binding(str(name), tag, int(held))
    if tag == ber.OID:
        return Binding(str(name), tag, str(held))
    raw = bytes(held.asOctets()) if hasattr(held, "asOctets") else bytes(str(held), "utf-8")
    return Binding(str(name), tag, ".".join(map(str, raw)) if tag == ber.IP_ADDRESS else raw)
