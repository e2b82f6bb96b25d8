"""The door to Oracle: python-oracledb in its thin mode, its errors translated."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.databases import Account, Found, Session, Statements, unchecked_tls
from agent.databases.troubles import explain_certificate, explain_right, explain_unreachable, missing_client
from agent.errors import SourceError
from agent.language import say

if TYPE_CHECKING:
    import oracledb

CLOSE_SECONDS = 0.5
DENIED = ("ORA-01031", "ORA-00942", "ORA-01045", "ORA-41900")
"""Of a view of the system Oracle says that it does not exist where the right is missing."""

REFUSED = ("DPY-4001", "ORA-01017", "ORA-28000", "ORA-28001")
NOT_OPEN = ("ORA-01033", "ORA-01034", "ORA-12528", "ORA-12526")
NO_SERVICE = ("ORA-12514", "ORA-12505", "DPY-6001", "DPY-6003")


async def dial(host: str, port: int, account: Account, timeout_seconds: float) -> Session:
    """A session at one server; `database` is the service's name. Raises SourceError."""
    try:
        import oracledb
    except ModuleNotFoundError as error:
        raise missing_client("Oracle", "oracle") from error
    context = _context(account)
    try:
        connection = await oracledb.connect_async(
            host=host,
            port=port,
            service_name=account.database,
            user=account.user,
            password=account.read_password(),
            protocol="tcps" if context else "tcp",
            ssl_context=context,
            ssl_server_dn_match=account.wire == "verify",
            tcp_connect_timeout=timeout_seconds,
            retry_count=0,
            program="infravitals",
        )
    except (oracledb.Error, OSError) as error:
        raise SourceError(f"{host}:{port}: {_explain_dial(error, host, account)}") from error
    return _Session(connection, f"{host}:{port}", account)


class _Session(Statements):
    def __init__(self, connection: "oracledb.AsyncConnection", where: str, account: Account) -> None:
        super().__init__(where, account)
        self._connection = connection

    async def _run(self, sql: str, values: Sequence[object]) -> Found:
        import oracledb

        self._is_usable = False
        try:
            with self._connection.cursor() as cursor:
                await cursor.execute(sql, list(values))
                names = [str(column[0]).lower() for column in cursor.description or ()]
                rows = [tuple(row) for row in await cursor.fetchall()] if names else []
        except (oracledb.Error, OSError) as error:
            is_broken = not isinstance(error, oracledb.DatabaseError) or isinstance(error, oracledb.OperationalError)
            self._is_usable = not is_broken
            raise SourceError(f"{self._where}: {_explain(error, self._account)}") from error
        self._is_usable = True
        return names, rows

    async def close(self) -> None:
        import oracledb

        # a polite end is a word to the server, which may hang: it gets a moment
        with contextlib.suppress(oracledb.Error, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close()


def _context(account: Account) -> ssl.SSLContext | None:
    """What the way is enciphered with; None in the clear. Raises SourceError for a file of no use."""
    return unchecked_tls() if account.wire == "require" else account.read_authority()


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _explain_dial(error: Exception, host: str, account: Account) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return explain_certificate(host, cause.verify_message, account)
        if "DPY-6006" in str(cause):  # the library's own look at the name
            return explain_certificate(host, "the name does not match", account)
    return _explain(error, account)


def _explain(error: Exception, account: Account) -> str:
    """One sentence; where a right is missing, what to run."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = (lines[1] if lines[0].startswith("DPY-6005") and len(lines) > 1 else lines[0])[:200]  # the second says why
    if any(code in first for code in DENIED):
        return explain_right(account, first, "oracle_dataguard")
    if any(code in first for code in REFUSED):
        return say(
            f"账号 {account.user} 登录被拒绝({first})；请核对用户名与 {account.key}.password",
            f"user {account.user} is refused ({first}); check the user and {account.key}.password",
        )
    if any(code in first for code in NOT_OPEN):
        return say(
            f"数据库没有打开({first})：只装载(MOUNTED)的备库不让普通账号登录；请以只读方式打开，或只配置主库",
            f"the database is not open ({first}): a standby that is only mounted lets no plain user in; open it read only, or name "
            "the primary alone",
        )
    if any(code in first for code in NO_SERVICE):
        return say(
            f"那里没有服务 {account.database}({first})；请核对 {account.key}.database，即服务名",
            f"there is no service {account.database} ({first}); check {account.key}.database, the service's name",
        )
    return explain_unreachable(first) if first.startswith(("DPY-", "[Errno")) else first
