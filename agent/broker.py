"""Where the broker is and who we are there: the configuration of the MQTT link, without the MQTT library."""

import logging
import os
import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from agent.catalogue import explain_host_name, is_host_name
from agent.errors import LinkError, MissingSecret, UnfitSecret
from agent.foreign_words import explain_pem, explain_system
from agent.language import say
from agent.secrets import explain_unfit, is_open_to_all

logger = logging.getLogger(__name__)

SAY_AGAIN_SECONDS = 3600.0
"""How often it is said that a secret is still not there: somebody has to do something, nothing mends itself."""


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a password stands, never the password: a file, an environment variable, or a systemd credential."""

    file: str | None = None
    env: str | None = None
    credential: str | None = None

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.file, self.env, self.credential)) != 1:
            raise ValueError(
                say("file、env、credential 三者必须且只能写一个", "give exactly one of file, env and credential")
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.env or "x"):
            raise ValueError(
                say("env 应为环境变量的名称，不是密码本身", "env is the name of a variable, not the secret itself")
            )
        if "/" in (self.credential or ""):
            raise ValueError(
                say("credential 应为凭据的名称，不是路径", "credential is the name of a credential, not a path")
            )

    def read(self, environment: Mapping[str, str] = os.environ, *, key: str | None = None) -> str:
        """The secret, without the line's end. Raises MissingSecret when it is not there, UnfitSecret when it is none.

        key: what of the configuration names it, such as `broker.password`, for whoever has to mend it.
        """
        if self.env is not None:
            if self.env not in environment:
                raise MissingSecret(
                    say(f"环境变量 {self.env} 未设置", f"the environment variable {self.env} is not set")
                )
            text, where = environment[self.env], say(f"环境变量 {self.env}", f"the environment variable {self.env}")
        else:
            path = self.path(environment)
            text, where = _read_text(path, key), say(f"文件 {path}", f"the file {path}")
        if why := explain_unfit(text):
            raise UnfitSecret(say(f"{where} 中的密码不能用：{why}", f"the secret in {where} is of no use: it {why}"))
        return text

    def path(self, environment: Mapping[str, str] = os.environ) -> Path:
        """The file that holds it, unless it is a variable. Raises MissingSecret for a credential that nobody passed on."""
        if self.credential is None:
            return Path(self.file or "")
        folder = environment.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            text = say("不是由 systemd 以 LoadCredential 启动", "not started by systemd with LoadCredential")
            raise MissingSecret(say(f"没有凭据 {self.credential}：{text}", f"no credential {self.credential}: {text}"))
        return Path(folder, self.credential)


def refuse_unfit(*secrets: Secret | None) -> None:
    """For the start: raises UnfitSecret for what is no secret, and warns of a file that everybody may read.

    What is not there yet may be mounted yet: whoever dials waits for it, and says so at once and every SAY_AGAIN_SECONDS.
    """
    for secret in filter(None, secrets):
        try:
            secret.read()
        except UnfitSecret:
            raise
        except MissingSecret:
            continue
        if secret.env is None:
            warn_of_open_files([secret.path()])


def warn_of_open_files(paths: Iterable[Path]) -> None:
    """One line for each file with a secret that every user of this machine may read."""
    for path in filter(is_open_to_all, paths):
        logger.warning(
            say(
                f"{path} 中有秘密，而本机任何用户都能读；请执行 chmod o-rwx {path}",
                f"{path} holds a secret and every user of this machine may read it; run chmod o-rwx {path}",
            )
        )


def _read_text(path: Path, key: str | None) -> str:
    try:
        return path.read_text("utf-8-sig").rstrip("\r\n")  # Windows' editor puts a mark in front
    except (OSError, UnicodeDecodeError) as error:
        why = _explain_file(error)
        text = say(
            f"无法读取密码文件 {path}：{why}；请补上该文件，或修改{f' {key}' if key else '配置'}",
            f"cannot read the password file {path}: {why}; mend it or change {key or 'the configuration'}",
        )
        raise MissingSecret(text) from error


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files. ca: who signed the broker's certificate, else the system's list. certificate, key: the client's own."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.certificate is None:
            raise ValueError(say("写了 key 却没有 certificate", "there is a key but no certificate"))


class Broker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the MQTT broker is and who we are there. port: 8883 with TLS and 1883 without, unless said."""

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    tls: Tls | None = None
    username: str | None = None
    password: Secret | None = None
    keepalive_seconds: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    connect_timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0

    def __post_init__(self) -> None:
        if set(self.host) & set("/@ "):
            raise ValueError(
                say(
                    "host 只写主机名或地址；不要 mqtt://，用户与密码写在 username、password",
                    "host is a name or an address alone; no mqtt://, and the user goes to username and password",
                )
            )
        if not is_host_name(self.host):
            raise ValueError(explain_host_name("host", self.host))

    def begin(self) -> None:
        """What is looked at once, at the start of a program. Raises UnfitSecret."""
        refuse_unfit(self.password)
        if self.tls and self.tls.key:
            warn_of_open_files([Path(self.tls.key)])

    @property
    def where(self) -> str:
        """host:port as it is used."""
        return f"{self.host}:{self.port or (8883 if self.tls else 1883)}"


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails; the MQTT library loses sight of it then."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _explain_file(error: OSError | UnicodeDecodeError) -> str:
    """Why a file that the configuration names cannot be read."""
    if isinstance(error, FileNotFoundError):
        return say("文件不存在", "it does not exist")
    if isinstance(error, PermissionError):
        return say("本用户没有读取权限", "this user may not read it")
    if isinstance(error, IsADirectoryError):
        return say("这是一个目录", "it is a directory")
    if isinstance(error, UnicodeDecodeError):
        return say("不是 UTF-8 文本", "it is no UTF-8 text")
    return explain_system(error)


def _try_reading(key: str, path: str) -> None:
    """OpenSSL does not say which of its files it misses; this does. Raises LinkError."""
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        why = _explain_file(error)
        text = say(
            f"无法读取证书文件 {path}：{why}；请补上该文件，或修改 broker.tls.{key}；之后会自动重试",
            f"cannot read the certificate file {path}: {why}; mend it or change broker.tls.{key}; it is tried on",
        )
        raise LinkError(text) from error


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The broker's certificate and its name are checked. Raises LinkError when a file cannot be used."""
    for key in ("ca", "certificate", "key"):
        path: str | None = getattr(tls, key)
        if path is not None:
            _try_reading(key, path)
    reading = tls.ca
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        context.sslsocket_class = _Socket
        if tls.certificate is not None:
            reading = " + ".join(filter(None, (tls.certificate, tls.key)))
            # an encrypted key would ask for its password on the terminal; an empty one makes it an error
            context.load_cert_chain(tls.certificate, tls.key, password=b"")
    except (OSError, ValueError) as error:
        reason = explain_pem(error)
        raise LinkError(
            say(
                f"无法使用证书文件 {reading}：{reason}；需要 PEM 格式、未加密、彼此配套的证书与密钥",
                f"cannot use the certificate files {reading}: {reason}; they must be PEM, not encrypted, and of one pair",
            )
        ) from error
    return context
