"""What the sources of database replication share: pairs in the configuration, sessions kept open, a round, roles over time."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Generic, Protocol, TypeVar

import msgspec

from agent.broker import Secret
from agent.continuity.settings import Addresses, Id, TableName, split_address
from agent.databases import Account, Dial, Session, TlsMode, check_tls
from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Incomplete, Reading, SourceConfig, Surroundings

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Servers that hold the same data. token_table: write a token at each that takes it and read it at the others.

    tls, ca: see `Account`.
    """

    addresses: Addresses
    database: str
    user: str
    password: Secret | None = None
    token_table: TableName | None = None
    tls: TlsMode | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        check_tls(self.tls, self.ca)


class PairsConfig(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """pairs: by name."""

    pairs: dict[Id, Pair] = msgspec.field(default_factory=dict)
    answer_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 3.0


def refuse_tokens(pairs: Mapping[str, Pair]) -> None:
    """For a source that writes nothing. Raises ValueError."""
    for name, pair in pairs.items():
        if pair.token_table is not None:
            raise ValueError(
                say(
                    f"'{name}'：这里不写令牌，没有 token_table",
                    f"'{name}': no tokens are written here, so there is no token_table",
                )
            )


class Sides:
    """Sessions to all servers of a pair, asked at the same time; a side that hangs costs its own answer only."""

    def __init__(self, pair: Pair, key: str, dial: Dial, timeout_seconds: float) -> None:
        self.names = list(pair.addresses)
        self._account = Account(pair.database, pair.user, pair.password, key, pair.tls, pair.ca)
        self._dial = dial
        self._timeout_seconds = timeout_seconds
        self._sessions: dict[str, Session] = {}

    async def ask(self, question: Callable[[Session], Awaitable[T]]) -> dict[str, T | SourceError]:
        """What each side answers, or why it does not."""
        answers = await asyncio.gather(*(self.ask_one(name, question) for name in self.names))
        return dict(zip(self.names, answers, strict=True))

    async def ask_one(self, name: str, question: Callable[[Session], Awaitable[T]]) -> T | SourceError:
        """What one side answers, or why it does not; never longer than the time it has."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await question(await self._session(name))
        except (SourceError, OSError, TimeoutError) as error:
            await self._drop(name)
            if isinstance(error, SourceError):
                return error
            seconds = self._timeout_seconds
            return SourceError(say(f"{name} 在 {seconds:g} 秒内没有应答", f"{name}: no answer within {seconds:g} s"))

    async def _session(self, name: str) -> Session:
        session = self._sessions.get(name)
        if session is None or not session.is_usable:
            await self._drop(name)
            session = await self._dial(*split_address(name), self._account, self._timeout_seconds)
            self._sessions[name] = session
        return session

    async def _drop(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            await session.close()

    async def close(self) -> None:
        """Close all sessions."""
        for name in list(self._sessions):
            await self._drop(name)


class Mastery:
    """Adds up the time in which both or no side was master, from round to round."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._before: tuple[float, int] | None = None

    def note(self, masters: int) -> dict[str, float]:
        """both_master_seconds and no_master_seconds since the last round, whose state is taken to have lasted until now."""
        now, before = self._monotonic(), self._before
        self._before = (now, masters)
        if before is None:
            return {}
        passed = min(now - before[0], 86400.0)
        return {
            "both_master_seconds": passed if before[1] > 1 else 0.0,
            "no_master_seconds": passed if before[1] == 0 else 0.0,
        }


async def find_serving_sides(
    sides: Sides, table: str, pair: str, number: int, is_refused: Callable[[SourceError], bool]
) -> int | None:
    """How many sides take a token that another side then shows: 2 and more is active-active in truth.

    None when fewer than two sides answer at all: nothing is proven then. is_refused: that a side is read only.
    """
    answering = 0
    carried = 0
    for writer in sides.names:
        stream = f"{pair}/{writer}"[:60]

        async def write(session: Session, stream: str = stream) -> None:
            sql = f"INSERT INTO {table} (stream, number, sent_at) VALUES (%s, %s, %s)"  # noqa: S608
            await session.query(f"DELETE FROM {table} WHERE stream = %s", (stream,))  # noqa: S608
            await session.query(sql, (stream, number, float(number)))

        wrote = await sides.ask_one(writer, write)
        if isinstance(wrote, SourceError):
            answering += is_refused(wrote)
            continue
        answering += 1
        carried += await _is_shown(sides, table, writer, stream, number)
    return carried if answering > 1 else None


async def _is_shown(sides: Sides, table: str, writer: str, stream: str, number: int) -> bool:
    """Whether a side other than the writer has the token within two seconds."""

    async def look(session: Session) -> bool:
        sql = f"SELECT count(*) FROM {table} WHERE stream = %s AND number = %s"  # noqa: S608
        [[found]] = await session.query(sql, (stream, number))
        return int(str(found)) > 0

    for _ in range(20):
        answers = await sides.ask(look)
        if any(answer is True for name, answer in answers.items() if name != writer):
            return True
        await asyncio.sleep(0.1)
    return False


def share(parts: Sequence[float]) -> float | None:
    """What all parts but the greatest carry together; None of nothing."""
    whole = sum(parts)
    return (whole - max(parts)) / whole if whole > 0 else None


class Server(Protocol):
    """What a source has read of one server."""

    @property
    def clients(self) -> float:
        """How many are connected besides us."""


S = TypeVar("S", bound=Server)


class PairsSource(ABC, Generic[S]):
    """One round over all pairs, each asked on its own. A source says what its servers are asked and what follows from it."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: PairsConfig, surroundings: Surroundings, name: str, dial: Dial) -> None:
        self._config = config
        self._clock = surroundings.clock
        self._sides = {
            pair: Sides(settings, f"{name}.pairs.{pair}", dial, config.answer_seconds)
            for pair, settings in config.pairs.items()
        }
        self._mastery = {pair: Mastery(surroundings.monotonic) for pair in config.pairs}
        self._troubles: dict[str, str] = {}

    @abstractmethod
    async def read_server(self, session: Session, pair: Pair) -> S:
        """What one server of a pair says. Raises SourceError."""

    @abstractmethod
    def is_refused(self, error: SourceError) -> bool:
        """Whether a server that answered so takes no tokens because it is no master."""

    @abstractmethod
    def find_masters(self, known: Mapping[str, S]) -> list[S]:
        """Those that take writes."""

    @abstractmethod
    def read_state(self, known: Mapping[str, S], masters: Sequence[S]) -> dict[str, Value]:
        """Whether replication runs, is in step, and how far it is behind."""

    async def open(self) -> None:
        """Sessions are opened as they are needed."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without pairs, SourceError for a pair of which no server answers or gives the right; the others keep their readings."""
        if not self._sides:
            raise NoData(say("没有配置 pairs", "no pairs are configured"))
        found = await asyncio.gather(*(self._read_pair(name) for name in self._sides))
        troubles = [str(each) for each in found if isinstance(each, SourceError)]
        if len(troubles) == len(found):
            raise SourceError(say("；", "; ").join(troubles))
        readings = [reading for each in found if not isinstance(each, SourceError) for reading in each]
        if troubles:
            raise Incomplete(say("；", "; ").join(troubles), readings, is_partly=True)
        remarks = [self._troubles[one] for one in sorted(self._troubles)]
        first = readings[0]
        return [msgspec.structs.replace(first, remark="\n".join(filter(None, (first.remark, *remarks)))), *readings[1:]]

    async def close(self) -> None:
        """Close all sessions."""
        await asyncio.gather(*(sides.close() for sides in self._sides.values()))

    async def _read_pair(self, name: str) -> list[Reading] | SourceError:
        pair = self._config.pairs[name]
        answers = await self._sides[name].ask(lambda session: self.read_server(session, pair))
        known = {key: server for key, server in answers.items() if not isinstance(server, SourceError)}
        if not known:
            return SourceError(say("；", "; ").join(map(str, answers.values())))
        self._note_troubles(name, answers)
        return self.make_readings(name, known, await self._read_load(name, known))

    def _note_troubles(self, name: str, answers: Mapping[str, S | SourceError]) -> None:
        """A server that says nothing beside one that does is told once, and once when it speaks again: no round fails of it."""
        for where, answer in answers.items():
            key = f"{name} {where}"
            was_well = key not in self._troubles
            if isinstance(answer, SourceError):
                self._troubles[key] = f"{name}: {answer}"
                if was_well:
                    _log.warning(self._troubles[key])
            elif not was_well:
                del self._troubles[key]
                _log.warning(say(f"{name}：{where} 又应答了", f"{name}: {where} answers again"))

    def make_readings(self, name: str, known: Mapping[str, S], load: Mapping[str, Value]) -> list[Reading]:
        """Of a pair with at least one server that answers."""
        masters = self.find_masters(known)
        fields = {**self.read_state(known, masters), **self._mastery[name].note(len(masters)), **load}
        roles: dict[str, Value] = {"masters_count": len(masters), "members_count": len(self._sides[name].names)}
        return [
            Reading("replication", fields, {"pair": name}),
            Reading("role_group", roles, {"group": name, "kind": "database"}),
        ]

    async def _read_load(self, name: str, known: Mapping[str, S]) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        part = share([server.clients for server in known.values()])
        if part is not None and len(known) > 1:
            fields["secondary_share_ratio"] = part
        table = self._config.pairs[name].token_table
        serving: int | None = sum(server.clients > 0 for server in known.values())
        if table is not None:
            serving = await find_serving_sides(self._sides[name], table, name, int(self._clock() * 10), self.is_refused)
        if serving is not None:
            fields["serving_sides_count"] = serving
        return fields
