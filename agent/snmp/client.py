"""The door to gufo_snmp: one session with one agent, with our own retries, walks that cannot go on for ever, sizes that adapt.

The library sends and decodes; it neither repeats a question nor notices a walk that goes in circles, and takes an error
status for the end of a table. RFC 3416 (operations), RFC 3414 (users, keys, time windows).
"""

import asyncio
import contextlib
import functools
import ipaddress
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from gufo.snmp import (
    Aes128Key,
    Aes192Key,
    Aes256Key,
    BaseAuthKey,
    BasePrivKey,
    DesKey,
    KeyExpansion,
    Md5Key,
    NoSuchInstance,
    Sha1Key,
    Sha224Key,
    Sha256Key,
    Sha384Key,
    Sha512Key,
    SnmpAuthError,
    SnmpDecodeError,
    User,
    ValueType,
)
from gufo.snmp._fast import GetIter, SnmpV1ClientSocket, SnmpV2cClientSocket, SnmpV3ClientSocket
from gufo.snmp.user import KeyType

from agent.errors import SourceError
from agent.snmp.ber import read_error_status
from agent.snmp.credentials import Auth, Opened
from agent.snmp.decode import Value
from agent.snmp.troubles import (
    AgentTrouble,
    EndlessWalk,
    NoAnswer,
    Refused,
    Silence,
    explain_endless,
    explain_refusal,
    explain_silence,
    explain_status,
    explain_unresolved,
    explain_unsendable,
)

T = TypeVar("T")
Agent = SnmpV1ClientSocket | SnmpV2cClientSocket | SnmpV3ClientSocket
GET_OIDS = 20
"""So many variables are asked for at once: the answer fits one datagram of the smallest agents."""

FIRST_REPETITIONS = 25
MOST_REPETITIONS = 100
"""A column of a 48-port switch in one answer; where answers that long do not come through they are made shorter, for good."""
MOST_ROWS = 200_000
"""No table of a device has more; a walk that does is no walk."""

TIME_WINDOW_SECONDS = 120.0
"""RFC 3414 allows 150 s of drift; after a longer silence boots and time are asked for again."""

NO_SUCH_NAME = 2
"""The one error status that is an end: v1 has no other word for it."""

PEEKED_BYTES = 600
"""Enough for the head of an answer with the longest community that there is."""

_AUTH: dict[str, type[BaseAuthKey]] = {
    "md5": Md5Key,
    "sha1": Sha1Key,
    "sha224": Sha224Key,
    "sha256": Sha256Key,
    "sha384": Sha384Key,
    "sha512": Sha512Key,
}
_PRIV: dict[str, type[BasePrivKey]] = {"des": DesKey, "aes128": Aes128Key, "aes192": Aes192Key, "aes256": Aes256Key}


@dataclass(frozen=True, slots=True)
class Patience:
    """timeout_seconds: for one answer; it doubles with every retry. retries: further attempts after the first."""

    timeout_seconds: float = 1.0
    retries: int = 2


@dataclass(slots=True)
class Effort:
    """What a session cost so far."""

    requests: int = 0
    retries: int = 0
    rows: int = 0
    fastest_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Walked:
    """One column. rows: value by instance. is_whole: whether something behind the column was seen, so that no row is missing."""

    rows: dict[str, Value]
    is_whole: bool


class _End(Enum):
    """What stands for the end of what there is."""

    OF_VIEW = 0


class Session:
    """Questions to one agent, one at a time. The socket and, for v3, engine id, boots and time are kept between rounds."""

    def __init__(self, host: str, port: int, credential: Opened, patience: Patience | None = None) -> None:
        self.host, self.port, self.credential = host, port, credential
        self.patience = patience or Patience()
        self.effort = Effort()
        self.engine_id = b""
        self._agent: Agent | None = None
        self._wire: socket.socket | None = None
        self._watched: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._waiting: tuple[asyncio.Future[Any], Callable[[], None]] | None = None
        self._repetitions, self._most_repetitions = FIRST_REPETITIONS, MOST_REPETITIONS
        self._spoke_at = 0.0
        self._was_discovered = self._has_spoken = False
        self._heard_garbage = False
        self._refused_at_once = False

    @property
    def where(self) -> str:
        """host:port as sentences name it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def open(self) -> None:
        """Make the socket; for v3 also learn engine id, boots and time. Raises NoAnswer, Refused."""
        is_stale = asyncio.get_running_loop().time() - self._spoke_at > TIME_WINDOW_SECONDS
        if self._agent is None or (self.credential.version == "3" and is_stale):
            await self._dial()

    def close(self) -> None:
        """Give the socket back."""
        self._unwatch()
        if self._wire is not None:
            self._wire.detach()  # it is the library's socket, and the library closes it
        self._wire = self._agent = None

    async def get(self, oids: Sequence[str]) -> dict[str, Value]:
        """The values of exact object ids; what the agent does not have is left out. Raises NoAnswer, Refused."""
        found: dict[str, Value] = {}
        for first in range(0, len(oids), GET_OIDS):
            asked = list(oids[first : first + GET_OIDS])
            answered = await self._ask(partial(_send_get, asked), _receive_get)
            found.update({oid: value for oid, value in _known(answered).items() if oid in asked})
            # v1, and an agent that has trouble with one variable, answer nothing at all then
            if not found.keys() & set(asked):
                for oid in asked if len(asked) > 1 else ():
                    value = await self._get_one(oid)
                    if value is not None:
                        found[oid] = value
        return found

    async def has_rows(self, subtree: str) -> bool:
        """Whether the agent knows anything below `subtree`."""
        step = GetIter(subtree)
        return await self._next(step) is not None

    async def walk(self, column: str) -> Walked:
        """All rows of a column, by what follows its object id. Raises NoAnswer, Refused, EndlessWalk."""
        while True:
            repetitions = 1 if self.credential.version == "1" else self._repetitions
            try:
                walked = await self._walk(column, repetitions)
            except NoAnswer:
                if repetitions == 1 or not await self._answers_shortly(column):
                    raise
                # an answer that long may never get through
                self._repetitions = self._most_repetitions = max(1, repetitions // 4)
                continue
            self.effort.rows += len(walked.rows)
            return walked

    async def _answers_shortly(self, column: str) -> bool:
        """Whether an agent that gave no long answer gives a short one; not asked of one that never spoke or is not there."""
        if not self._has_spoken or self._refused_at_once:
            return False
        step = GetIter(column)
        try:
            await self._exchange(
                lambda agent: agent.send_get_next(step),
                lambda agent: agent.recv_get_next(step),
                self.patience.timeout_seconds,
            )
        except (TimeoutError, SnmpAuthError, SourceError):
            return False
        return True

    async def _walk(self, column: str, repetitions: int) -> Walked:
        rows: dict[str, Value | None] = {}
        step = GetIter(column, repetitions)
        is_bulk = repetitions > 1
        while True:
            answer: list[tuple[str, ValueType] | None] | _End = _End.OF_VIEW
            if is_bulk:
                answer = await self._ask(
                    lambda agent: agent.send_get_bulk(step), lambda agent: agent.recv_get_bulk(step)
                )
            if isinstance(answer, _End):
                # v1; or the end of everything, or an error status: only a plain step can tell whether there is more
                is_bulk = False
                pair = await self._next(step)
                if pair is None:
                    return _walked(rows, is_whole=self._wire is not None)  # v3 does not show us an error status
                answer = [pair]
            if not self._take(column, answer, rows):
                self._grow(len(rows), repetitions)
                return _walked(rows, is_whole=True)

    def _take(self, column: str, answer: list[tuple[str, ValueType] | None], rows: dict[str, Value | None]) -> bool:
        """Add an answer's rows; whether the column goes on behind them. Raises EndlessWalk for rows that were there before."""
        is_end = bool(answer) and answer[-1] is None
        before, skip = len(rows), len(column) + 1
        # one string of an index for all columns of all devices
        rows.update({sys.intern(pair[0][skip:]): pair[1] for pair in answer if pair})
        if not answer or len(rows) - before < len(answer) - is_end or len(rows) > MOST_ROWS:
            raise EndlessWalk(explain_endless(self.where, column, before))
        return not is_end

    def _grow(self, rows: int, repetitions: int) -> None:
        if rows >= repetitions == self._repetitions:
            self._repetitions = min(self._most_repetitions, 2 * repetitions)

    async def _next(self, step: GetIter) -> tuple[str, ValueType] | None:
        answer = await self._ask(lambda agent: agent.send_get_next(step), lambda agent: agent.recv_get_next(step))
        return None if isinstance(answer, _End) else answer

    async def _get_one(self, oid: str) -> Value | None:
        answer = await self._ask(lambda agent: agent.send_get(oid), lambda agent: agent.recv_get())
        return None if isinstance(answer, _End) else answer

    async def _ask(self, send: Callable[[Agent], None], receive: Callable[[Agent], T]) -> T | _End:
        """One question with its retries; the end of a walk is an answer too."""
        last_refusal: SnmpAuthError | None = None
        self._heard_garbage = self._refused_at_once = False
        began = asyncio.get_running_loop().time()
        for attempt in range(1 + self.patience.retries):
            try:
                if attempt:
                    self.effort.retries += 1
                    await self._begin_again(attempt)
                return await self._exchange(send, receive, self.patience.timeout_seconds * 2**attempt)
            except TimeoutError:
                continue
            except SnmpAuthError as error:
                # the device's clock may have jumped (a restart): learn it anew before believing the refusal
                if last_refusal:
                    break
                last_refusal = error
        if last_refusal:
            raise Refused(explain_refusal(self.where, self.credential.kind, _since(began))) from last_refusal
        raise NoAnswer(self._explain_silence())

    async def _begin_again(self, attempt: int) -> None:
        if self._refused_at_once:
            await asyncio.sleep(self.patience.timeout_seconds * 2 ** (attempt - 1))
        if self.credential.version == "3":  # engine id, boots or time may be others by now
            await self._dial_once(self.patience.timeout_seconds * 2**attempt)

    async def _exchange(self, send: Callable[[Agent], None], receive: Callable[[Agent], T], seconds: float) -> T | _End:
        agent = self._agent
        if agent is None:
            raise NoAnswer(self._explain_silence())
        self.effort.requests += 1
        began = asyncio.get_running_loop().time()
        try:
            send(agent)
        except OSError as error:
            raise NoAnswer(explain_unsendable(self.where, error)) from error
        answer = await self._receive(agent, receive, seconds)
        self._spoke_at, self._has_spoken = asyncio.get_running_loop().time(), True
        took = self._spoke_at - began
        if self.effort.fastest_seconds is None or took < self.effort.fastest_seconds:
            self.effort.fastest_seconds = took
        return answer

    async def _receive(self, agent: Agent, receive: Callable[[Agent], T], seconds: float) -> T | _End:
        """What the next fitting datagram holds; others are left lying. Raises TimeoutError, SnmpAuthError."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[T | _End] = loop.create_future()
        timer = loop.call_later(seconds, _give_up, answered)

        def read() -> None:
            try:
                answered.set_result(self._decode(agent, receive))
            except BlockingIOError:
                return  # an answer to somebody else's question, or to one of ours that was given up
            except TimeoutError as error:
                self._refused_at_once = True  # nobody listens on that port: the library's word for ECONNREFUSED
                answered.set_exception(error)
            except SnmpDecodeError:
                self._heard_garbage = True
            except (SnmpAuthError, SourceError) as error:
                answered.set_exception(error)

        self._waiting = (answered, read)
        self._watch(loop, agent.get_fd())
        try:
            return await answered
        finally:
            timer.cancel()
            self._waiting = None

    def _watch(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        """Let the loop look at the socket; it goes on looking between the questions of a round, which come one upon the other."""
        if self._watched != (loop, number):
            self._unwatch()
            loop.add_reader(number, self._on_readable)
            self._watched = (loop, number)

    def _unwatch(self) -> None:
        if self._watched is not None:
            loop, number = self._watched
            self._watched = None
            if not loop.is_closed():
                loop.remove_reader(number)

    def _on_readable(self) -> None:
        """A datagram is there: for the question that waits, or, where none does, left lying until one is asked."""
        if self._waiting is None:
            self._unwatch()
        elif not self._waiting[0].done():
            self._waiting[1]()

    def _decode(self, agent: Agent, receive: Callable[[Agent], T]) -> T | _End:
        status = 0 if self._wire is None else read_error_status(_peek(self._wire))
        try:
            answer: T | _End = receive(agent)
        except NoSuchInstance:
            answer = _End.OF_VIEW
        except StopAsyncIteration:
            answer = _End.OF_VIEW
        if status and not (status == NO_SUCH_NAME and self.credential.version == "1"):
            raise AgentTrouble(explain_status(self.where, status))
        return answer

    async def _dial(self) -> None:
        """A new socket, tried as often as a question is."""
        began = asyncio.get_running_loop().time()
        for attempt in range(1 + self.patience.retries):
            self.effort.retries += bool(attempt)
            try:
                return await self._dial_once(self.patience.timeout_seconds * 2**attempt)
            except TimeoutError:
                if self._refused_at_once and attempt < self.patience.retries:
                    await asyncio.sleep(self.patience.timeout_seconds * 2**attempt)
            except SnmpAuthError as error:
                raise Refused(explain_refusal(self.where, self.credential.kind, _since(began))) from error
        raise NoAnswer(self._explain_silence())

    async def _dial_once(self, seconds: float) -> None:
        """A new socket. Raises TimeoutError, SnmpAuthError."""
        self.close()
        self._was_discovered = False
        address = await self._resolve()
        try:
            if self.credential.version == "3":
                await self._discover(address, seconds)
            else:
                kind = SnmpV1ClientSocket if self.credential.version == "1" else SnmpV2cClientSocket
                self._agent = kind(address, self.credential.community, 0, 0, 0, 0)
                number = self._agent.get_fd()
                family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
                self._wire = socket.socket(family, socket.SOCK_DGRAM, 0, number)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise NoAnswer(explain_unsendable(self.where, error)) from error

    async def _discover(self, address: str, seconds: float) -> None:
        """RFC 3414 4: the engine's id first, then, by an authenticated question, its boots and time."""
        user = _user(self.credential)
        nobody = User.default()
        self._agent = agent = SnmpV3ClientSocket(
            address, b"", nobody.name, nobody.get_auth_alg(), b"", nobody.get_priv_alg(), b"", 0, 0, 0, 0
        )
        await self._exchange(lambda _: agent.send_refresh(), lambda _: agent.recv_refresh(), seconds)
        self._was_discovered = True
        self.engine_id = agent.get_engine_id()
        agent.set_keys(user.name, user.get_auth_alg(), user.get_auth_key(), user.get_priv_alg(), user.get_priv_key())
        if user.require_auth():
            await self._exchange(lambda _: agent.send_refresh(), lambda _: agent.recv_refresh(), seconds)

    async def _resolve(self) -> str:
        """The address as the library wants it. Raises NoAnswer for an unknown name."""
        host = self.host
        with contextlib.suppress(ValueError):
            parsed = ipaddress.ip_address(host)
            return f"[{parsed}]:{self.port}" if parsed.version == 6 else f"{parsed}:{self.port}"
        began = asyncio.get_running_loop().time()
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, self.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise NoAnswer(explain_unresolved(host, error, _since(began))) from error
        address = found[0][4][0]
        return f"[{address}]:{self.port}" if found[0][0] == socket.AF_INET6 else f"{address}:{self.port}"

    def _explain_silence(self) -> str:
        waits = [self.patience.timeout_seconds * 2**attempt for attempt in range(1 + self.patience.retries)]
        if self._heard_garbage:
            why = Silence.GARBAGE
        elif self._refused_at_once:
            why = Silence.CLOSED_PORT
        elif self.credential.priv and self._was_discovered:
            why = Silence.ENCRYPTED
        else:
            why = Silence.V3 if self.credential.version == "3" else Silence.COMMUNITY
        return explain_silence(why, self.where, self.credential.kind, round(1000 * sum(waits)), len(waits))


def _walked(rows: Mapping[str, Value | None], *, is_whole: bool) -> Walked:
    """Rows without those that hold nothing."""
    return Walked({instance: value for instance, value in rows.items() if value is not None}, is_whole)


def _since(began: float) -> int:
    """Whole milliseconds since this time of the running loop."""
    return round((asyncio.get_running_loop().time() - began) * 1000)


def _give_up(answered: "asyncio.Future[T]") -> None:
    if not answered.done():
        answered.set_exception(TimeoutError())


def _known(answered: dict[str, ValueType] | _End) -> dict[str, Value]:
    held = {} if isinstance(answered, _End) else answered
    return {oid: value for oid, value in held.items() if value is not None}


def _peek(wire: socket.socket) -> bytes:
    """The beginning of the datagram that the library is about to take. Raises TimeoutError when nobody listens there."""
    try:
        return wire.recv(PEEKED_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""
    except OSError as error:  # the kernel tells what ICMP said once only; the library calls it a timeout too
        raise TimeoutError from error


def _send_get(oids: list[str], agent: Agent) -> None:
    agent.send_get_many(oids)


def _receive_get(agent: Agent) -> dict[str, ValueType]:
    return agent.recv_get_many()


@functools.cache
def _master_key(auth: Auth, password: str) -> bytes:
    """A password hashed over a megabyte, as RFC 3414 A.2 has it: milliseconds each, so once per password."""
    return _AUTH[auth].get_master_key(password.encode())


def _user(credential: Opened) -> User:
    """The library's user of a credential."""
    if credential.auth is None:
        return User(credential.user)
    auth = _AUTH[credential.auth](_master_key(credential.auth, credential.auth_password), key_type=KeyType.Master)
    priv = None
    if credential.priv:
        priv = _PRIV[credential.priv](_master_key(credential.auth, credential.priv_password), key_type=KeyType.Master)
    expansion = KeyExpansion.Cisco if credential.key_expansion == "cisco" else KeyExpansion.Blumenthal
    return User(credential.user, auth_key=auth, priv_key=priv, key_expansion=expansion)
