"""What a continuity probe is told: the path that clinicians use, and how to tell that it works."""

from typing import Annotated, Literal

import msgspec

from agent.broker import Secret, Tls, tls_context
from agent.continuity.reach import Http, Reach, Tcp
from agent.continuity.sql import SqlTokens, identify_mysql, identify_postgresql
from agent.databases import Account, TlsMode, check_tls, mysql, postgresql
from agent.errors import LinkError, SourceError
from agent.language import say

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Id = Annotated[
    str,
    msgspec.Meta(
        pattern="^[a-z0-9][a-z0-9-]{0,62}$",
        description="小写字母、数字和连字符，最长 63 个字符 / small letters, digits and hyphens, at most 63",
    ),
]
TableName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$",
        description="表名：小写字母、数字、下划线，可带模式名 / the name of a table: lower case, digits, underscores, with its schema if need be",
    ),
]
Address = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!\.|.*\.\.|.*[A-Za-z0-9_-]{64})[A-Za-z0-9._:\[\]-]+:"
        r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$",
        description="主机:端口，端口 1 到 65535 / host:port, the port 1 to 65535",
    ),
]
Addresses = Annotated[
    tuple[Address, ...],
    msgspec.Meta(
        min_length=1,
        max_length=16,
        description='1 到 16 个 主机:端口，如 ["10.1.2.100:5432"] / 1 to 16 of host:port, such as ["10.1.2.100:5432"]',
    ),
]


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One path. addresses: host:port; several only for a database whose client knows all its nodes, tried in this order.

    tcp: banner, whether the server speaks first and its first line says who it is. http: path, expect (words of the
    body), identity_header, tls (files). postgresql, mysql: database, user, password, table, tls (a word) and ca.
    """

    service: Id
    kind: Literal["tcp", "http", "postgresql", "mysql"]
    addresses: Addresses
    banner: bool = False
    path: Annotated[
        str, msgspec.Meta(pattern=r"^/[!-~]*$", description="以 / 开头的路径 / a path that begins with /")
    ] = "/"
    expect: str = ""
    identity_header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]*$")] = ""
    tls: Tls | TlsMode | None = None
    ca: str | None = None
    database: str = ""
    user: str = ""
    password: Secret | None = None
    table: TableName = "infravitals_token"

    def __post_init__(self) -> None:
        if self.kind in ("tcp", "http") and len(self.addresses) > 1:
            raise ValueError(
                say(f"kind 为 {self.kind} 时 addresses 只能写一个", f"a {self.kind} probe has one address only")
            )
        if self.kind in ("postgresql", "mysql") and not (self.database and self.user):
            raise ValueError(
                say(f"kind 为 {self.kind} 时要写 database 和 user", f"a {self.kind} probe needs database and user")
            )

        self._check_tls()

    def _check_tls(self) -> None:
        is_database = self.kind in ("postgresql", "mysql")
        if is_database and not isinstance(self.tls, Tls):
            check_tls(self.tls, self.ca)
        elif is_database:
            raise ValueError(
                say(
                    "数据库的 tls 应为 verify、require 或 off，CA 文件写在 ca",
                    "tls of a database is verify, require or off; the CA file goes to ca",
                )
            )
        elif isinstance(self.tls, str) or self.ca is not None:
            raise ValueError(
                say(
                    f"kind 为 {self.kind} 时，CA 文件写在 tls 一节的 ca",
                    f"of a {self.kind} probe the CA file stands in the section tls, as its ca",
                )
            )

    def make_reach(self, stream: str, name: str | None = None) -> Reach:
        """The way of its tokens; `stream` tells them from those of others. name: the probe's in the file, where it is not the stream's.

        Raises SourceError when a file cannot be read.
        """
        host, port = split_address(self.addresses[0])
        if self.kind == "tcp":
            return Tcp(host, port, banner=self.banner)
        if self.kind == "http":
            try:
                tls = tls_context(self.tls) if isinstance(self.tls, Tls) else None
            except LinkError as error:
                raise SourceError(str(error).replace("broker.tls", "tls")) from error
            return Http(host, port, self.path, expect=self.expect, identity_header=self.identity_header, tls=tls)
        addresses = [split_address(address) for address in self.addresses]
        mode = None if isinstance(self.tls, Tls) else self.tls
        key = f"continuity_probe.probes.{name or stream}"
        account = Account(self.database, self.user, self.password, key, mode, self.ca)
        if self.kind == "postgresql":
            return SqlTokens(addresses, account, self.table, stream, postgresql.dial, identify_postgresql)
        return SqlTokens(addresses, account, self.table, stream, mysql.dial, identify_mysql)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host may stand in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
