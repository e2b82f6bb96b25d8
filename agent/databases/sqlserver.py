"""The door to SQL Server: python-tds in threads, its errors translated."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from agent.databases import Account, Found, Session, Statements, dial_in_thread, read_all
from agent.databases.troubles import (
    explain_certificate,
    explain_plain,
    explain_right,
    explain_unreachable,
    missing_client,
)
from agent.errors import SourceError
from agent.language import say

if TYPE_CHECKING:
    import OpenSSL.crypto
    import pytds

MAX_THREADS = 16
"""Each blocks until its own socket's time is up, never longer."""

DENIED = (229, 297, 300, 371)
REFUSED = (18452, 18456, 18486, 18487, 18488)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="sqlserver")


async def dial(host: str, port: int, account: Account, timeout_seconds: float) -> Session:
    """A session in the database `master`, each of whose answers may take `timeout_seconds`. Raises SourceError."""
    try:
        import OpenSSL.SSL
        import pytds
        import pytds.tls
    except ModuleNotFoundError as error:
        raise missing_client("SQL Server", "sqlserver") from error
    password = account.read_password() or ""
    account.read_authority()  # a file of no use is said in our words
    # python-tds 1.17 asks pyOpenSSL for what it has no more, as soon as the name stands among the alternative ones
    pytds.tls.validate_host = _is_for

    def connect() -> "pytds.Connection":
        # our own socket: the library tries a refused one again until its time is up, and the reason is lost
        carrier = socket.create_connection((host, port), timeout_seconds)
        return pytds.connect(
            dsn=host,
            port=port,
            sock=carrier,
            database="master",
            user=account.user,
            password=password,
            appname="infravitals",
            autocommit=True,
            timeout=timeout_seconds,
            login_timeout=timeout_seconds,
            disable_connect_retry=True,
            cafile=account.ca,
        )

    try:
        connection = await dial_in_thread(_threads(), connect, _cut)
    except (pytds.Error, OSError, OpenSSL.SSL.Error) as error:
        raise SourceError(f"{host}:{port}: {_explain_dial(error, host, account)}") from error
    return _Session(connection, f"{host}:{port}", account)


class _Session(Statements):
    def __init__(self, connection: "pytds.Connection", where: str, account: Account) -> None:
        super().__init__(where, account)
        self._connection = connection

    async def _run(self, sql: str, values: Sequence[object]) -> Found:
        import pytds

        # while it is under way, or was given up, nobody else may use it
        self._is_usable = False
        try:
            found = await asyncio.get_running_loop().run_in_executor(_threads(), self._query, sql, values)
        except (pytds.Error, OSError) as error:
            self._is_usable = isinstance(error, pytds.ProgrammingError)
            raise SourceError(f"{self._where}: {_explain(error, self._account)}") from error
        self._is_usable = True
        return found

    def _query(self, sql: str, values: Sequence[object]) -> Found:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(values))
            return read_all(cursor)

    async def close(self) -> None:
        _cut(self._connection)


def _cut(connection: "pytds.Connection") -> None:
    # the polite end of a session is a word to the server, which may hang; closing the socket says enough
    carried = connection._tds_socket.sock
    plain: socket.socket = getattr(carried, "_transport", carried)
    with contextlib.suppress(OSError):
        plain.shutdown(socket.SHUT_RDWR)  # whoever waits on it stops waiting
    plain.close()


def _is_for(cert: "OpenSSL.crypto.X509", name: bytes) -> bool:
    """Whether a certificate is for this host by its alternative names, as RFC 6125 has it; the common name counts no more."""
    from cryptography import x509

    host = name.decode("ascii").lower()
    try:
        extension = cert.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return False
    addresses = {str(address) for address in extension.value.get_values_for_type(x509.IPAddress)}
    names = {entry.lower() for entry in extension.value.get_values_for_type(x509.DNSName)}
    return host in addresses | names or f"*.{host.partition('.')[2]}" in names


def _explain_dial(error: Exception, host: str, account: Account) -> str:
    text = str(error)
    if "certificate verify failed" in text or "does not match host name" in text:
        return explain_certificate(host, "certificate verify failed" if "verify" in text else text, account)
    if "encryption but it is not supported" in text:
        return explain_plain(account)
    if "encryption enabled but it is required" in text:
        return say(
            f"服务器要求加密；请在 {account.key} 中写 ca，即签发服务器证书的 CA 的 PEM 文件",
            f"the server wants TLS; set ca in {account.key}, the PEM file of the CA that signed its certificate",
        )
    return _explain(error, account)


def _explain(error: Exception, account: Account) -> str:
    """One sentence; where a right is missing, what to run."""
    number = getattr(error, "number", 0)
    words = str(error.args[0]) if error.args and number else str(error)
    first = (words.strip().splitlines() or [type(error).__name__])[0][:200]
    if number in DENIED:
        return explain_right(account, first, "sqlserver_alwayson")
    if number in REFUSED:
        return say(
            f"账号 {account.user} 登录被拒绝；请核对用户名与 {account.key}.password，以及是否允许 SQL Server 身份验证",
            f"user {account.user} is refused; check the user and {account.key}.password, and that SQL Server authentication is allowed",
        )
    return first if number else explain_unreachable(first)
