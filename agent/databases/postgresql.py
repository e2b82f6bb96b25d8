"""The door to PostgreSQL: psycopg, its errors translated."""

import asyncio
import os
import re
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.databases import Account, Found, Row, Session, Statements
from agent.databases.troubles import (
    explain_certificate,
    explain_no_table,
    explain_plain,
    explain_right,
    explain_unreachable,
    missing_client,
    trouble,
)
from agent.errors import SourceError
from agent.language import say

if TYPE_CHECKING:
    import psycopg

APPLICATION = "infravitals"
_closing: set[asyncio.Task[None]] = set()
"""Connections whose last query has not let go yet; a task that nobody holds may be collected."""

OWN_STATES = ("28000", "28P01", "3D000", "42501", "42703", "42P01")
"""Login, password, database, right, column, table, as in the manual's appendix A."""

OWN_WORDS = (
    "authentication failed|认证.*失败|no password supplied|pg_hba\\.conf|(role|database) .* does not exist|(角色|数据库) .* 不存在"
    "|is not permitted to log in|不允许角色|permission denied for database|权限不够|requires a valid client certificate"
)

SSL_MODES = {"verify": "verify-full", "require": "require", "off": "disable", "prefer": "prefer"}


async def dial(host: str, port: int, account: Account, timeout_seconds: float) -> Session:
    """A session at one server. Raises SourceError."""
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise missing_client("PostgreSQL", "databases") from error
    account.read_authority()  # a file of no use is said in our words
    try:
        connection = await psycopg.AsyncConnection.connect(
            host=host,
            port=port,
            dbname=account.database,
            user=account.user,
            password=account.read_password(),
            application_name=APPLICATION,
            autocommit=True,
            sslmode=SSL_MODES[account.wire],
            sslrootcert=account.ca,
            connect_timeout=max(2, round(timeout_seconds)),
            prepare_threshold=None,  # a pooler in between knows no prepared statements
        )
    except psycopg.Error as error:
        raise trouble(f"{host}:{port}: {_explain_dial(error, host, account)}", is_own=_is_own(error)) from error
    return _Session(connection, f"{host}:{port}", account)


class _Session(Statements):
    def __init__(self, connection: "psycopg.AsyncConnection[Row]", where: str, account: Account) -> None:
        super().__init__(where, account)
        self._connection = connection
        self._warnings: list[str] = []
        self._given_up: asyncio.Task[Found] | None = None
        connection.add_notice_handler(self._note)

    @property
    def is_usable(self) -> bool:
        return self._given_up is None and not self._connection.closed

    async def _run(self, sql: str, values: Sequence[object]) -> Found:
        task = asyncio.create_task(self._query(sql, values))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # psycopg would ask the server to cancel and wait for it, which a server that hangs never does
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._given_up = task
            self._cut()
            raise

    async def _query(self, sql: str, values: Sequence[object]) -> Found:
        import psycopg

        self._warnings.clear()
        try:
            cursor = await self._connection.execute(sql.encode(), values or None)
            names = [column.name for column in cursor.description or ()]
            rows = await cursor.fetchall() if names else []
        except psycopg.Error as error:
            raise trouble(f"{self._where}: {_explain(error, self._account)}", is_own=_is_own(error)) from error
        if self._warnings:
            # as when the wait for a synchronous standby is cancelled: committed here, and only here
            raise SourceError(f"{self._where}: {self._warnings[0]}")
        return names, rows

    async def close(self) -> None:
        if self._given_up is None or self._given_up.done():
            await self._connection.close()
            return
        # the query that was given up still reads: freed under its hands the connection crashes the process, and its socket's
        # number would be another's by the time that it lets go. Both ends see the end, so that it is over at once
        closing = asyncio.create_task(self._close_after(self._given_up))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)

    async def _close_after(self, query: asyncio.Task[Found]) -> None:
        await asyncio.wait({query})
        await self._connection.close()

    def _note(self, notice: "psycopg.errors.Diagnostic") -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings.append((notice.message_primary or "")[:200])

    def _cut(self) -> None:
        """Both ends see the end of the connection now; whoever waits on it stops waiting."""
        if self._connection.closed:
            return
        with socket.socket(fileno=os.dup(self._connection.fileno())) as twin:
            try:
                twin.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _is_own(error: "psycopg.Error") -> bool:
    """Whether the server answered and only our account, right, database or table is wrong.

    A refused login has no code, only words, which are those of the server's language.
    """
    return error.sqlstate in OWN_STATES or (not error.sqlstate and re.search(OWN_WORDS, str(error)) is not None)


def _explain_dial(error: "psycopg.Error", host: str, account: Account) -> str:
    text = str(error)
    if "certificate verify failed" in text or "does not match host name" in text:
        [line, *_] = [line for line in text.splitlines() if "certificate" in line]
        return explain_certificate(host, line.rpartition("failed: ")[2].strip()[:200], account)
    if "does not support SSL" in text:
        return explain_plain(account)
    return _explain(error, account)


def _explain(error: "psycopg.Error", account: Account) -> str:
    """One sentence; where a right or the table is missing, what to run."""
    import psycopg

    state = error.sqlstate or ""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if state == "42501":
        return explain_right(account, first)
    if state == "42P01":
        return explain_no_table(first)
    if re.search("authentication failed|认证.*失败", first):
        return say(
            f"账号 {account.user} 登录被拒绝；请核对用户名与 {account.key}.password",
            f"user {account.user} is refused, password authentication failed; check the user and {account.key}.password",
        )
    if isinstance(error, psycopg.OperationalError) and not state:  # libpq's own words repeat the address, in English
        return explain_unreachable(first.rpartition("failed: ")[2])
    return first
