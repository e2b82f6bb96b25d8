"""Traps and informs of enrolled devices: links, changes of role, split stacks, power, fans, restarts, as events.

Needs: UDP port 162 (root, or CAP_NET_BIND_SERVICE, or another port); for v3 the extra `snmp`. Only the targets written here are
heard. A storm is counted and shed before anything of it is decoded. Reference: RFC 1157, RFC 3416, RFC 3584, RFC 3414.
"""

import asyncio
import ipaddress
import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Protocol

import msgspec

from agent.catalogue import explain_host_name, explain_id, is_host_name, is_id
from agent.foreign_words import explain_system
from agent.language import say
from agent.snmp import ber
from agent.snmp.ber import Binding, Malformed
from agent.snmp.credentials import Credential, Opened
from agent.snmp.events import find_notice, load_notices, make_events, read_notification
from agent.sources import Reading, SourceConfig, SourceError, Surroundings

MOST_WAITING = 20_000
"""Events between two rounds; beyond it they are shed too."""

READ_AT_ONCE = 256
"""So many datagrams are taken before anything else in the process has its turn."""

BUFFER_BYTES = 4 * 1024 * 1024
MOST_BYTES = 8192
REMEMBERED_INFORMS = 4096
MOST_NAMED = 256
"""So many refusals are said, each once; who makes up addresses fills no log."""

_log = logging.getLogger(__name__)
_COUNTS = ("received", "events", "unknown", "refused", "shed", "garbled")

Peer = tuple[str, int]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class Sender(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A device that may send: its address, as its datagrams carry it."""

    asset: str
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]

    def __post_init__(self) -> None:
        if not is_host_name(self.host):
            raise ValueError(explain_host_name("host", self.host))


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """credentials: communities and v3 users that are accepted; without any, every community of an enrolled sender.

    per_second: notifications taken from all; per_sender: from one; v3_per_second: of v3, which cost a hundred times more.
    """

    interval_seconds: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    listen: str = "0.0.0.0"  # noqa: S104 - notifications come from everywhere; who is heard stands in targets
    port: Port = 162
    credentials: tuple[Credential, ...] = ()
    targets: tuple[Sender, ...] = ()
    per_second: Rate = 500.0
    per_sender: Rate = 100.0
    v3_per_second: Rate = 50.0

    def __post_init__(self) -> None:
        assets = [target.asset for target in self.targets]
        mistakes = [explain_id("asset", asset) for asset in assets if not is_id(asset)]
        hosts = [target.host.lower() for target in self.targets]
        mistakes += [say(f"{host} 写了两次", f"{host} stands twice") for host, n in Counter(hosts).items() if n > 1]
        try:
            ipaddress.ip_address(self.listen)
        except ValueError:
            mistakes.append(say(f"listen：'{self.listen}' 不是地址", f"listen: '{self.listen}' is no address"))
        if mistakes:
            raise ValueError(say("；", "; ").join(mistakes))

    def split(self) -> "dict[str, SourceConfig]":
        """Nothing where nobody is enrolled."""
        return {"local": self} if self.targets else {}


class Allowance:
    """So many a second, and as many saved up as two seconds give."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second, self._clock = per_second, clock
        self._left, self._at = 2 * per_second, clock()

    def take(self) -> bool:
        """Whether one more may be taken now."""
        now = self._clock()
        self._left = min(2 * self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class V3Side(Protocol):
    """The engine that opens v3 messages; it is loaded only for configured users."""

    @property
    def refused(self) -> int: ...

    def feed(self, data: bytes, peer: Peer) -> bool: ...

    def add_user(self, user: Opened, engine_id: bytes | None = None) -> None: ...

    def take_notifications(self, take: Callable[[list[Binding], int | None], None]) -> None: ...

    def close(self) -> None: ...


class Source:
    """Listens from `open` on; a round gives what came since the one before."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._clock, self._monotonic = surroundings.clock, surroundings.monotonic
        self._counts: Counter[str] = Counter()
        self._events: deque[Reading] = deque()
        self._assets: dict[str, str] = {}
        self._all = Allowance(config.per_second, self._monotonic)
        self._v3 = Allowance(config.v3_per_second, self._monotonic)
        self._senders: dict[str, Allowance] = {}
        self._communities: frozenset[bytes] = frozenset()
        self._users: tuple[Opened, ...] = ()
        self._informs: deque[tuple[str, int, int]] = deque(maxlen=REMEMBERED_INFORMS)
        self._engine: V3Side | None = None
        self._engines: set[tuple[str, bytes, str]] = set()
        self._v3_peer: Peer = ("", 0)
        self._last_at: dict[tuple[str, ...], int] = {}
        self._named: set[tuple[str, str]] = set()
        self._socket: socket.socket | None = None
        self._notices = load_notices()

    async def open(self) -> None:
        """Read the secrets, look the senders up, listen. Raises SourceError."""
        if self._socket is not None:
            return
        opened = [credential.open() for credential in self._config.credentials]
        self._communities = frozenset(one.community.encode() for one in opened if one.version != "3")
        self._users = tuple(one for one in opened if one.version == "3")
        await self._look_up()
        if self._users:
            self._engine = self._make_engine()
        self._socket = listening = _listen(self._config.listen, self._config.port)
        asyncio.get_running_loop().add_reader(listening.fileno(), self._read)

    def _make_engine(self) -> V3Side:
        from agent.snmp.engine import Engine

        engine = Engine(self._users, self._send)
        engine.take_notifications(self._take_v3)
        return engine

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        for target in self._config.targets:
            try:
                found = await loop.getaddrinfo(target.host, None, type=socket.SOCK_DGRAM)
            except OSError as error:
                text = say(f"{target.host}：无法解析主机名", f"{target.host}: the name does not resolve")
                raise SourceError(text) from error
            for entry in found:
                address = str(entry[4][0])
                self._assets[address] = target.asset
                self._senders[address] = Allowance(self._config.per_sender, self._monotonic)

    async def collect(self) -> list[Reading]:
        """The events since the last round, and how many notifications came, were refused and were shed."""
        events, self._events = list(self._events), deque()
        counts, self._counts = self._counts, Counter()
        self._last_at.clear()
        return [*events, Reading("notification_intake", {f"{name}_count": float(counts[name]) for name in _COUNTS})]

    async def close(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._engine:
            self._engine.close()
            self._engine = None

    def _read(self) -> None:
        """Everything that has come, up to a bound: who sent it is looked at first, then how much he sent."""
        listening = self._socket
        if listening is None:
            return
        for _ in range(READ_AT_ONCE):
            try:
                data, address = listening.recvfrom(MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:  # what an ICMP message said about an answer of ours
                continue
            self._counts["received"] += 1
            host = str(address[0]).removeprefix("::ffff:")
            asset = self._assets.get(host)
            if asset is None:
                self._refuse(host, "stranger")
            elif not self._senders[host].take() or not self._all.take() or len(self._events) >= MOST_WAITING:
                self._counts["shed"] += 1
            else:
                self._open(data, (host, int(address[1])), asset)

    def _refuse(self, host: str, why: str) -> None:
        """Count it; of each sender and reason it is said once, for whoever wonders where a device's notifications are."""
        self._counts["refused"] += 1
        if (host, why) not in self._named and len(self._named) < MOST_NAMED:
            self._named.add((host, why))
            _log.warning(_explain_refusal(host, why))

    def _open(self, data: bytes, peer: Peer, asset: str) -> None:
        try:
            if ber.read_version(data) == 3:
                self._open_v3(data, peer)
                return
            message = ber.read_message(data)
            if self._config.credentials and message.community not in self._communities:
                self._refuse(peer[0], "community")
                return
            if message.pdu.tag not in (ber.TRAP_V1, ber.TRAP_V2, ber.INFORM):
                raise Malformed("no notification")
            variables = read_notification(data, message)
        except Malformed:
            self._counts["garbled"] += 1
            return
        if message.pdu.tag == ber.INFORM and not self._confirm(data, message, peer):
            return
        self._take(variables, asset)

    def _confirm(self, data: bytes, message: ber.Message, peer: Peer) -> bool:
        """Answer an inform; False for one that was taken already and is only repeated."""
        pdu = ber.read_pdu(data, message.pdu)
        variables = ber.element(ber.SEQUENCE, data[pdu.variables.start : pdu.variables.end])
        answer = ber.pdu(ber.RESPONSE, pdu.request_id, 0, 0, variables)
        self._send(ber.message(message.version, message.community, answer), peer)
        return self._is_new(peer, pdu.request_id)

    def _is_new(self, peer: Peer, request_id: int) -> bool:
        """Whether an inform came for the first time: one whose confirmation got lost is sent again."""
        if (key := (*peer, request_id)) in self._informs:
            return False
        self._informs.append(key)
        return True

    def _open_v3(self, data: bytes, peer: Peer) -> None:
        """Through the engine; a trap is its sender's, so his engine's id is learnt from his own enrolled address."""
        if self._engine is None:
            self._refuse(peer[0], "version")
            return
        if not self._v3.take():
            self._counts["shed"] += 1
            return
        engine_id, name = _read_security(data)
        if engine_id and not self._introduce(peer[0], engine_id, name):
            self._refuse(peer[0], "engines")
            return
        self._v3_peer = peer
        before = self._engine.refused
        if not self._engine.feed(data, peer):
            self._counts["garbled"] += 1
        for _ in range(self._engine.refused - before):
            self._refuse(peer[0], "key")

    def _introduce(self, host: str, engine_id: bytes, name: str) -> bool:
        """Make a sender's engine know the user that it names: his keys are hashed over megabytes, so nobody else's are.

        False for one engine too many.
        """
        if (host, engine_id, name) in self._engines:
            return True
        if len({known for at, known, _ in self._engines if at == host} | {engine_id}) > MOST_ENGINES:
            return False
        for user in self._users:
            if user.user == name and self._engine:
                self._engine.add_user(user, engine_id)
                self._engines.add((host, engine_id, name))
        return True

    def _take_v3(self, variables: list[Binding], inform: int | None) -> None:
        if inform is None or self._is_new(self._v3_peer, inform):
            self._take(variables, self._assets[self._v3_peer[0]])

    def _take(self, variables: list[Binding], asset: str) -> None:
        named = find_notice(variables, self._notices)
        if named is None:
            self._counts["unknown"] += 1
            return
        self._counts["events"] += 1
        self._events.extend(self._one_each(make_events(named, variables, asset, round(self._clock() * 1000))))

    def _one_each(self, events: list[Reading]) -> Iterator[Reading]:
        """Two events of one thing in one millisecond are still two."""
        for event in events:
            key = (event.asset or "", event.name, *event.tags.values())
            at = max(event.timestamp or 0, self._last_at.get(key, 0) + 1)
            self._last_at[key] = at
            yield Reading(event.name, event.fields, event.tags, event.asset, at)

    def _send(self, data: bytes, peer: Peer) -> None:
        if self._socket is not None:
            host = f"::ffff:{peer[0]}" if self._socket.family == socket.AF_INET6 and ":" not in peer[0] else peer[0]
            try:
                self._socket.sendto(data, (host, peer[1]))
            except OSError:  # he asks again
                self._counts["unanswered"] += 1


def _explain_refusal(host: str, why: str) -> str:
    """One sentence: what is wrong with what this sender sends, and what to do."""
    reasons = {
        "stranger": say(
            "不在 targets 中；若是自己的设备，请写进 targets",
            "it is not among targets; write it there where it is a device of yours",
        ),
        "community": say(
            "团体字不在 credentials 中；请核对设备或 credentials",
            "its community is none of credentials; mend the device or credentials",
        ),
        "version": say(
            "它用 v3 发送，而 credentials 中没有 v3 用户；请加上",
            "it speaks v3 and credentials have no v3 user; add it",
        ),
        "engines": say(
            f"同一地址用了 {MOST_ENGINES} 个以上的引擎标识；请核对是否多台设备共用一个地址",
            f"more than {MOST_ENGINES} engines speak from this address; see whether devices share it",
        ),
        "key": say(
            "v3 的用户、密钥或安全级别与 credentials 不符；请核对",
            "its v3 user, keys or level are not those of credentials; compare them",
        ),
    }
    return say(
        f"snmp_trap：未采纳 {host} 发来的通知：{reasons[why]}(只说一次，次数见 notification_intake)",
        f"snmp_trap: notifications of {host} are refused: {reasons[why]} (said once; notification_intake counts them)",
    )


MOST_ENGINES = 4
"""So many engines may speak from one address; a device changes its id when it is replaced or reset."""


def _read_security(data: bytes) -> tuple[bytes, str]:
    """The authoritative engine of a v3 message and the user that it names (RFC 3414 2.4). Raises Malformed."""
    outer = ber.read_element(data, 0, len(data))
    parts = ber.read_children(data, outer)
    if len(parts) < 3 or parts[2].tag != ber.OCTETS:
        raise Malformed("no v3 message")
    fields = ber.read_children(data, ber.read_element(data, parts[2].start, parts[2].end))
    if len(fields) < 4:
        raise Malformed("no v3 message")
    engine, name = fields[0], fields[3]
    return data[engine.start : engine.end], data[name.start : name.end].decode("utf-8", "replace")


def _listen(address: str, port: int) -> socket.socket:
    """A UDP socket with a large buffer. Raises SourceError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_DGRAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        listening.bind((address, port))
    except OSError as error:
        listening.close()
        text = say(
            f"无法监听 UDP {address}:{port}：{explain_system(error)}；端口 1024 以下需要特权，或另写 port",
            f"cannot listen on UDP {address}:{port}: {explain_system(error)}; ports below 1024 take a privilege, or set port",
        )
        raise SourceError(text) from error
    return listening
