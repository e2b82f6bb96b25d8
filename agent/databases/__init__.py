"""Doors to databases: one file per client library, imported only when a configured source dials. All speak `Session`."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from agent.broker import Secret
from agent.errors import LinkError, SourceError
from agent.language import say

Row = tuple[object, ...]


class Account(msgspec.Struct, frozen=True):
    """Who we are there. key: where it is configured, for complaints."""

    database: str
    user: str
    password: Secret | None
    key: str

    def read_password(self) -> str | None:
        """The password, read at every dialling so that a changed file counts. Raises SourceError when it is not there."""
        if self.password is None:
            return None
        try:
            return self.password.read(key=f"{self.key}.password")
        except LinkError as error:
            raise SourceError(str(error)) from error


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
