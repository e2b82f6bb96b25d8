"""Tokens as rows of a small table: written and committed one by one, read back after an outage, pruned all the time.

Every token takes an idle connection or dials one, as the pools of clinical applications do. The table is the DBA's to make, its SQL is printed
by `sample`; nothing else in the database is touched.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agent.continuity.tokens import plain_name
from agent.databases import Account, Dial, Session
from agent.errors import NotAsked, OwnMistake, SourceError
from agent.foreign_words import explain
from agent.language import say

KEPT = 5000
"""Tokens of a stream that stay: more than are looked for after an outage."""

DRILL = "drill-"
"""How a drill's stream begins; it is deleted at the drill's end, unless that was killed."""

DRILL_KEPT_SECONDS = 604_800.0
"""Tokens of a drill that are older belong to one that was killed: no drill lasts longer than a day."""

PRUNE_EVERY = 200
READ_SECONDS = 3.0
CLOSE_SECONDS = 0.3
MAX_IDLE = 2

_log = logging.getLogger(__name__)

Identify = Callable[[Session], Awaitable[str]]
"""Who serves this session, by its own word. Raises SourceError when it may not be written to, as a standby."""


class SqlTokens:
    """A Reach through a database. addresses: the one that served last is tried first, then the others in order."""

    keeps_tokens = True

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        account: Account,
        table: str,
        stream: str,
        dial: Dial,
        identify: Identify,
        timeout_seconds: float = 0.9,
    ) -> None:
        self._addresses = addresses
        self._account, self._table, self._stream = account, table, stream
        self._dial, self._identify = dial, identify
        self._timeout_seconds = timeout_seconds
        self._idle: list[tuple[Session, str]] = []
        self._sent = 0
        self._newest_at = 0.0
        self._is_full_told = False
        self._is_closed = False
        self._current = addresses[0]
        self._pruning: asyncio.Task[None] | None = None

    async def send(self, number: int, sent_at: float) -> str:
        """Write and commit one token."""
        self._newest_at = max(self._newest_at, sent_at)
        session, name = self._idle.pop() if self._idle else await self._open(self._timeout_seconds)
        try:
            # the table's name was checked when the configuration was read
            sql = f"INSERT INTO {self._table} (stream, number, sent_at) VALUES (%s, %s, %s)"  # noqa: S608
            await session.query(sql, (self._stream, number, sent_at))
        except BaseException:
            await session.close()
            raise
        await self._give_back(session, name)
        return name

    async def read_back(self, first: int, last: int) -> set[int]:
        """Which tokens first..last whoever serves now has; tokens that were pruned count as there."""
        async with asyncio.timeout(READ_SECONDS):
            session, name = await self._open(READ_SECONDS)
            try:
                sql = f"SELECT number FROM {self._table} WHERE stream = %s AND number BETWEEN %s AND %s"  # noqa: S608
                rows = await session.query(sql, (self._stream, first, last))
            except BaseException:
                await session.close()
                raise
            await self._give_back(session, name)
        return {int(str(row[0])) for row in rows}

    async def forget(self) -> None:
        """Take this stream's tokens out of the table: a drill leaves nothing behind."""
        session, name = await self._open(READ_SECONDS)
        try:
            await session.query(f"DELETE FROM {self._table} WHERE stream = %s", (self._stream,))  # noqa: S608
        finally:
            await self._give_back(session, name)

    async def close(self) -> None:
        """Close what is idle; what is in use closes at its end."""
        self._is_closed = True
        if (pruning := self._pruning) is not None:
            # one that is cancelled before it begins would never close its session; most are over in no time
            await asyncio.wait({pruning}, timeout=CLOSE_SECONDS)
            pruning.cancel()
            await asyncio.wait({pruning})
        idle, self._idle = self._idle, []
        for session, _ in idle:
            await session.close()

    async def _open(self, timeout_seconds: float) -> tuple[Session, str]:
        """A session at the first address that may be written to; a dead one may take its share of the time only.

        Raises SourceError, and OwnMistake where any of them could not be asked for a mistake of ours.
        """
        share = timeout_seconds / len(self._addresses)
        troubles: list[str] = []
        is_own = False
        for host, port in self._in_order():
            session: Session | None = None
            try:
                async with asyncio.timeout(share):
                    session = await self._dial_or_knock(host, port, share)
                    own = await self._identify(session)
                self._current = (host, port)
                return session, f"{host}:{port}" if len(self._addresses) > 1 else plain_name(own)
            except (SourceError, OSError, TimeoutError) as error:
                is_own = is_own or isinstance(error, OwnMistake)
                troubles.append(explain(error) or say(f"{host}:{port} 没有应答", f"{host}:{port} does not answer"))
                await _discard(session)
            except BaseException:
                await _discard(session)
                raise
        # whom our own mistake kept us from asking may well serve: then nobody knows
        raise (OwnMistake if is_own else SourceError)(say("；", "; ").join(troubles))

    async def _dial_or_knock(self, host: str, port: int, share: float) -> Session:
        """A session. Raises SourceError; where we have nothing to log in with, OwnMistake only if somebody is there all the same."""
        try:
            return await self._dial(host, port, self._account, share)
        except NotAsked:
            # to the end of a login, without a secret: MySQL shuts out who breaks off before
            bare = msgspec.structs.replace(self._account, password=None, tls=None, ca=None)
            with contextlib.suppress(OwnMistake):
                await _discard(await self._dial(host, port, bare, share))
            raise

    def _in_order(self) -> list[tuple[str, int]]:
        """The addresses, the one that took the last token first: a client stays where it is served."""
        return sorted(self._addresses, key=lambda address: address != self._current)

    async def _give_back(self, session: Session, name: str) -> None:
        self._sent += 1
        if self._sent % PRUNE_EVERY == 1 and self._pruning is None:
            # beside the tokens: a slow DELETE is no outage
            self._pruning = asyncio.create_task(self._prune(session, name))
        else:
            await self._keep(session, name)

    async def _keep(self, session: Session, name: str) -> None:
        if session.is_usable and not self._is_closed and len(self._idle) < MAX_IDLE:
            self._idle.append((session, name))
        else:
            await session.close()

    async def _prune(self, session: Session, name: str) -> None:
        """The oldest tokens go, by the primary key; a failure to prune is no failure of the service, and is told once."""
        newest = f"SELECT max(number) FROM {self._table} WHERE stream = %s"  # noqa: S608
        oldest = f"DELETE FROM {self._table} WHERE stream = %s AND number < %s"  # noqa: S608
        left = f"DELETE FROM {self._table} WHERE stream LIKE %s AND sent_at < %s"  # noqa: S608
        try:
            async with asyncio.timeout(READ_SECONDS):
                [[last]] = await session.query(newest, (self._stream,))
                if last is not None:
                    await session.query(oldest, (self._stream, int(str(last)) - KEPT))
                # whoever comes next clears up after a drill that was killed, be it a drill or the agent
                await session.query(left, (f"{DRILL}%", self._newest_at - DRILL_KEPT_SECONDS))
            await self._keep(session, name)
        except (SourceError, OSError, TimeoutError) as error:
            self._tell_full(explain(error))
            await session.close()
        except BaseException:
            await session.close()
            raise
        finally:
            self._pruning = None

    def _tell_full(self, why: str) -> None:
        if why and not self._is_full_told:  # a time that was up is no more than a busy moment
            self._is_full_told = True
            _log.warning(
                say(
                    f"旧令牌删不掉，表 {self._table} 会越来越大：{why}",
                    f"old tokens cannot be deleted, the table {self._table} grows: {why}",
                )
            )


async def _discard(session: Session | None) -> None:
    if session is not None:
        await session.close()


async def identify_postgresql(session: Session) -> str:
    """The server's cluster_name (the same on both sides in some packages: then a move behind one address is not seen)."""
    [[is_standby, name]] = await session.query("SELECT pg_is_in_recovery(), current_setting('cluster_name')")
    if is_standby:
        raise SourceError(say("备库，不可写", "a standby, which takes no writes"))
    return str(name)


async def identify_mysql(session: Session) -> str:
    """The server's host name and port."""
    [[host, port, is_read_only]] = await session.query("SELECT @@hostname, @@port, @@read_only")
    if str(is_read_only) not in ("0", "OFF", "NO_LOCK"):
        raise SourceError(say("只读，不可写", "read only, which takes no writes"))
    return f"{host}:{port}"
