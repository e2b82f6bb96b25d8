"""Doors to databases: one file per client library, imported only when a configured source dials. All speak `Session`."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from agent.broker import Secret
from agent.errors import LinkError, NotAsked, OwnMistake, SourceError
from agent.language import say

Row = tuple[object, ...]
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
            why = (error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)) or error
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


def explain_certificate(host: str, why: str, account: Account) -> str:
    """A sentence for a server that could not prove who it is; why: in the library's words, which tell the name from the signer."""
    if any(words in why.lower() for words in ("match", "not valid for", "hostname")):
        return say(
            f"服务器证书(由 {account.ca} 核对)不是签给 {host} 的：{why}；请按此地址重新签发，或在 {account.key} 中改用证书上的名称",
            f"the server's certificate, checked with {account.ca}, is not for {host}: {why}; issue one for that address, or use "
            f"the name that it holds in {account.key}",
        )
    return say(
        f"服务器证书不是由 {account.ca} 中的 CA 签发的：{why}；请把签发它的 CA 放进该文件({account.key}.ca)",
        f"the server's certificate is not signed by the CA in {account.ca}: {why}; put the CA that signed it into that file "
        f"({account.key}.ca)",
    )


def explain_plain(account: Account) -> str:
    """A sentence for a server that offers no TLS where the configuration asks for it."""
    return say(
        f"服务器没有启用 TLS，而 {account.key} 要求 TLS({account.wire})；请在服务器上启用，或写 tls: off",
        f"the server offers no TLS and {account.key} asks for it ({account.wire}); switch it on there, or set tls: off",
    )


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


def trouble(text: str, *, is_own: bool) -> SourceError:
    """The error of a door. is_own: whether our account, right or table is wrong, which says nothing of the service."""
    return OwnMistake(text) if is_own else SourceError(text)


def explain_unreachable(why: str) -> str:
    """A sentence for a server that no session could be opened at, or whose session broke; why: in the library's words."""
    return say(
        f"连不上或连接中断({why}),请核对地址、端口、账号，以及数据库是否在运行",
        f"cannot be reached, or the connection broke ({why}); check the address, the port, the user, and that the database runs",
    )


def count(value: object) -> float | None:
    """A number as databases give it (int, Decimal, float, text of digits); None for NULL and for what is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(str(value))
    except ValueError:
        return None
