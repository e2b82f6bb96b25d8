"""What opens an SNMP agent: version and community, or a v3 user with its keys. Secrets stand elsewhere and are read late."""

from typing import Annotated, Literal

import msgspec

from agent.broker import Secret
from agent.errors import LinkError, SourceError
from agent.language import say

Auth = Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]
Priv = Literal["des", "aes128", "aes192", "aes256"]

LEAST_PASSWORD = 8
"""RFC 3414 11.2: a shorter one is not a password; agents refuse it too."""


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to be let in, under a name that targets use.

    community: of 1 and 2c. user, auth, priv: of 3; without `auth` it is noAuthNoPriv, without `priv` authNoPriv.
    key_expansion: how short keys are stretched for AES-192 and AES-256: `blumenthal` (net-snmp, most) or `cisco`.
    """

    version: Literal["1", "2c", "3"] = "2c"
    community: Secret | None = None
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    auth: Auth | None = None
    auth_password: Secret | None = None
    priv: Priv | None = None
    priv_password: Secret | None = None
    key_expansion: Literal["blumenthal", "cisco"] = "blumenthal"

    def __post_init__(self) -> None:
        if trouble := self._find_trouble():
            raise ValueError(trouble)

    def _find_trouble(self) -> str | None:
        if self.version != "3":
            if self.user or self.auth or self.priv or self.auth_password or self.priv_password:
                return say("user、auth、priv 只用于版本 3", "user, auth and priv belong to version 3")
            return None if self.community else say("缺少 community", "community is missing")
        if not self.user:
            return say("版本 3 缺少 user", "version 3 needs a user")
        if self.community:
            return say("版本 3 没有 community", "version 3 has no community")
        if (self.auth is None) != (self.auth_password is None):
            return say("auth 与 auth_password 须同时写", "auth and auth_password go together")
        if (self.priv is None) != (self.priv_password is None):
            return say("priv 与 priv_password 须同时写", "priv and priv_password go together")
        if self.priv and not self.auth:
            return say("有 priv 就必须有 auth", "priv needs auth")
        return None

    def open(self) -> "Opened":
        """The credential with its secrets. Raises SourceError when one is not there."""
        return Opened(
            version=self.version,
            community=_read("community", self.community),
            user=self.user or "",
            auth=self.auth,
            auth_password=_read_key("auth_password", self.auth_password),
            priv=self.priv,
            priv_password=_read_key("priv_password", self.priv_password),
            key_expansion=self.key_expansion,
        )


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A credential with the secrets themselves; nothing prints it."""

    version: Literal["1", "2c", "3"] = "2c"
    community: str = ""
    user: str = ""
    auth: Auth | None = None
    auth_password: str = ""
    priv: Priv | None = None
    priv_password: str = ""
    key_expansion: Literal["blumenthal", "cisco"] = "blumenthal"

    def __repr__(self) -> str:
        return f"Opened({self.kind})"

    @property
    def kind(self) -> str:
        """How it is called in sentences: the version, and for v3 the user and the level."""
        if self.version != "3":
            return f"v{self.version}"
        level = "authPriv" if self.priv else "authNoPriv" if self.auth else "noAuthNoPriv"
        return f"v3 {self.user} {level}"


def _read(key: str, secret: Secret | None) -> str:
    if secret is None:
        return ""
    try:
        return secret.read(key=key)
    except LinkError as error:
        raise SourceError(f"{key}: {error}") from error


def _read_key(key: str, secret: Secret | None) -> str:
    text = _read(key, secret)
    if secret is not None and len(text) < LEAST_PASSWORD:
        raise SourceError(
            say(
                f"{key} 少于 {LEAST_PASSWORD} 个字符，SNMPv3 不接受",
                f"{key} has fewer than {LEAST_PASSWORD} characters, which SNMPv3 does not take",
            )
        )
    return text
