"""Doors to databases: one file per client library, imported only when a configured source dials. All speak `Session`."""

import asyncio
import functools
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from agent.broker import Secret
from agent.errors import LinkError, NotAsked
from agent.foreign_words import explain_pem
from agent.language import say

Row = tuple[object, ...]
Found = tuple[list[str], list[Row]]
"""The names of the columns, and the rows of a statement; empty both where it gives none."""

C = TypeVar("C")


TlsMode = Literal["verify", "require", "off"]
"""verify: the certificate and its name are checked. require: enciphered, whoever it is. off: in the clear."""


def check_tls(tls: TlsMode | None, ca: str | None) -> None:
    """For a section that says both: `ca` belongs to verify and verify to `ca`. Raises ValueError."""
    if tls == "verify" and ca is None:
        raise ValueError(
            say(
                "tls: verify 须同时写 ca，即签发服务器证书的 CA 的 PEM 文件",
                "tls: verify needs ca, the PEM file of the CA that signed the server's certificate",
            )
        )
    if ca is not None and tls in ("require", "off"):
        raise ValueError(
            say(
                f"写了 ca 就会核对证书，与 tls: {tls} 矛盾", f"a ca is there to check with; that contradicts tls: {tls}"
            )
        )


class Account(msgspec.Struct, frozen=True):
    """Who we are there, and how the way is enciphered. key: where it is configured, for complaints.

    Without `tls`: verify where a `ca` is given, else enciphered where the server offers it, unchecked.
    """

    database: str
    user: str
    password: Secret | None
    key: str
    tls: TlsMode | None = None
    ca: str | None = None

    @property
    def wire(self) -> Literal["verify", "require", "off", "prefer"]:
        """How to dial."""
        return self.tls or ("prefer" if self.ca is None else "verify")

    def read_authority(self) -> ssl.SSLContext | None:
        """What the server's certificate is checked with; None where it is not. Raises NotAsked for a file of no use."""
        if self.ca is None:
            return None
        try:
            with Path(self.ca).open("rb"):  # OpenSSL does not say which of its files it misses
                return ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            why = explain_pem(error)
            raise NotAsked(
                say(
                    f"无法使用 CA 文件 {self.ca}：{why}；{self.key}.ca 应为 PEM 格式的 CA 证书",
                    f"cannot use the CA file {self.ca}: {why}; {self.key}.ca must name a CA certificate in PEM",
                )
            ) from error

    def read_password(self) -> str | None:
        """The password, read at every dialling so that a changed file counts. Raises NotAsked when it is not there."""
        if self.password is None:
            return None
        try:
            return self.password.read(key=f"{self.key}.password")
        except LinkError as error:
            raise NotAsked(str(error)) from error


@functools.cache
def unchecked_tls() -> ssl.SSLContext:
    """Enciphers, whoever is there. One for all connections: a new one costs 30 ms of CPU, and in an outage every token dials."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Session(Protocol):
    """One connection; every statement is a transaction of its own. Cancelling a query costs the connection."""

    @property
    def is_usable(self) -> bool:
        """Whether another query may be tried."""

    async def query(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """The rows of one statement, none where it gives none. Raises SourceError, which says what to GRANT where that is it."""

    async def named(self, sql: str) -> list[dict[str, object]]:
        """The rows of one statement by the names of their columns, for `SHOW`. Raises SourceError."""

    async def close(self) -> None:
        """Give it back; never waits on the network."""


class Statements(ABC):
    """What every door's session makes of its one way to run a statement; sound while nothing was cancelled in the middle of it."""

    def __init__(self, where: str, account: Account) -> None:
        self._where, self._account = where, account
        self._is_usable = True

    @property
    def is_usable(self) -> bool:
        """As `Session` has it."""
        return self._is_usable

    async def query(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """As `Session` has it."""
        return (await self._run(sql, values))[1]

    async def named(self, sql: str) -> list[dict[str, object]]:
        """As `Session` has it."""
        names, rows = await self._run(sql, ())
        return [dict(zip(names, row, strict=True)) for row in rows]

    @abstractmethod
    async def _run(self, sql: str, values: Sequence[object]) -> Found:
        """Raises SourceError."""


class Cursor(Protocol):
    """Of a blocking client, PEP 249."""

    @property
    def description(self) -> Sequence[Sequence[object]] | None: ...

    def fetchall(self) -> Iterable[Sequence[object]]: ...


def read_all(cursor: Cursor) -> Found:
    """What a statement gave that was just executed."""
    names = [str(column[0]) for column in cursor.description or ()]
    return names, [tuple(row) for row in cursor.fetchall()] if names else []


class Dial(Protocol):
    """Opens a session at host:port; the caller bounds it in time. Raises SourceError."""

    async def __call__(self, host: str, port: int, account: Account, timeout_seconds: float) -> Session: ...


async def dial_in_thread(threads: Executor, connect: Callable[[], C], close: Callable[[C], None]) -> C:
    """What `connect` gives, which blocks; a connection that comes when nobody waits any more is closed."""
    dialling = asyncio.get_running_loop().run_in_executor(threads, connect)

    def let_go(done: asyncio.Future[C]) -> None:
        if not done.cancelled() and done.exception() is None:
            close(done.result())

    try:
        return await asyncio.shield(dialling)
    except asyncio.CancelledError:
        dialling.add_done_callback(let_go)
        raise


def count(value: object) -> float | None:
    """A number as databases give it (int, Decimal, float, text of digits); None for NULL and for what is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(str(value))
    except ValueError:
        return None
