"""What the sources of database replication share: pairs in the configuration, sessions kept open, roles over time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import msgspec

from agent.broker import Secret
from agent.continuity.settings import Address, TableName, split_address
from agent.databases import Account, Dial, Session
from agent.errors import SourceError
from agent.language import say

T = TypeVar("T")


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Servers that hold the same data. token_table: write a token at each that takes it and read it at the others."""

    addresses: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1, max_length=16)]
    database: str
    user: str
    password: Secret | None = None
    token_table: TableName | None = None


class Sides:
    """Sessions to all servers of a pair, asked at the same time; a side that hangs costs its own answer only."""

    def __init__(self, pair: Pair, key: str, dial: Dial, timeout_seconds: float) -> None:
        self.names = list(pair.addresses)
        self._account = Account(pair.database, pair.user, pair.password, key)
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
