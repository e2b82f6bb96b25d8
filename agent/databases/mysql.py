"""The door to MySQL and MariaDB: PyMySQL in threads, its errors translated."""

import asyncio
import functools
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from agent.databases import Account, Found, Session, Statements, dial_in_thread, read_all, unchecked_tls
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

if TYPE_CHECKING:
    import pymysql

MAX_THREADS = 24
"""Each blocks until its own socket's time is up, never longer."""

DENIED = (1044, 1045, 1142, 1143, 1227)
NO_TABLE = 1146
OWN = (*DENIED, NO_TABLE, 1049, 1054, 1130, 1251, 1698, 1820, 1862, 2059, 3118, 3159, 4151)
"""Our right, table, database, column, host or way to log in is wrong, our account locked, its password expired; of the service
that says nothing."""

NO_TLS = 2026
UNREACHABLE = (2002, 2003, 2006, 2013)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="mysql")


async def dial(host: str, port: int, account: Account, timeout_seconds: float) -> Session:
    """A session at one server, each of whose answers may take `timeout_seconds`. Raises SourceError."""
    try:
        import pymysql
    except ModuleNotFoundError as error:
        raise missing_client("MySQL", "databases") from error

    password, checked_with = account.read_password() or "", _required(account)

    def connect() -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        made = pymysql.connect(
            host=host,
            port=port,
            database=account.database or None,
            user=account.user,
            password=password,
            autocommit=True,
            connect_timeout=timeout_seconds,
            read_timeout=timeout_seconds,
            write_timeout=timeout_seconds,
            program_name="infravitals",
            defer_connect=True,
            ssl_disabled=account.wire in ("off", "prefer"),
            ssl=checked_with,
        )
        if account.wire == "prefer":
            # as the library does by default, TLS where the server offers it, but for its context, made anew each time
            made.ssl = True
            made.ctx = unchecked_tls()  # type: ignore[attr-defined]
        made.connect()
        return made

    try:
        connection = await dial_in_thread(_threads(), connect, _cut)
    except (pymysql.MySQLError, OSError, RuntimeError) as error:
        # RuntimeError: a way to log in that needs TLS or another package
        is_own = isinstance(error, RuntimeError) or _code(error) in OWN
        raise trouble(f"{host}:{port}: {_explain_dial(error, host, account)}", is_own=is_own) from error
    return _Session(connection, f"{host}:{port}", account)


class _Session(Statements):
    def __init__(
        self, connection: "pymysql.connections.Connection[pymysql.cursors.Cursor]", where: str, account: Account
    ) -> None:
        super().__init__(where, account)
        self._connection = connection

    @property
    def is_usable(self) -> bool:
        return self._is_usable and self._connection.open

    async def _run(self, sql: str, values: Sequence[object]) -> Found:
        import pymysql

        # while it is under way, or was given up, nobody else may use it
        self._is_usable = False
        try:
            found = await asyncio.get_running_loop().run_in_executor(_threads(), self._query, sql, values)
        except (pymysql.MySQLError, OSError) as error:
            self._is_usable = isinstance(error, pymysql.err.ProgrammingError)
            raise self._trouble(error) from error
        self._is_usable = True
        return found

    def _trouble(self, error: Exception) -> SourceError:
        return trouble(f"{self._where}: {_explain(error, self._account)}", is_own=_code(error) in OWN)

    def _query(self, sql: str, values: Sequence[object]) -> Found:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(values) or None)
            return read_all(cursor)

    async def close(self) -> None:
        _cut(self._connection)


def _cut(connection: "pymysql.connections.Connection[pymysql.cursors.Cursor]") -> None:
    # the polite end of a session is a word to the server, which may hang; closing the socket says enough
    connection._force_close()  # type: ignore[attr-defined]


def _required(account: Account) -> ssl.SSLContext | None:
    """What a connection that must be enciphered is checked with; None where it need not be. Raises SourceError for a file of no use."""
    if account.wire == "verify":
        return account.read_authority()
    return unchecked_tls() if account.wire == "require" else None


def _explain_dial(error: Exception, host: str, account: Account) -> str:
    causes = (error, error.__cause__, error.__context__, getattr(error, "original_exception", None))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return explain_certificate(host, cause.verify_message, account)
    if error.args and error.args[0] == NO_TLS:
        return explain_plain(account)
    return _explain(error, account)


def _code(error: Exception) -> int:
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def _explain(error: Exception, account: Account) -> str:
    code = _code(error)
    first = str(error.args[1] if len(error.args) > 1 else error).splitlines()[0][:200]
    if code in DENIED:
        return explain_right(account, first)
    if code == NO_TABLE:
        return explain_no_table(first)
    if code in UNREACHABLE:
        return explain_unreachable(first.partition("(")[2].rstrip(")") or first)
    return first
