"""The page's own server; the one place that imports the HTTP server."""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from agent.errors import InfravitalsError
from agent.foreign_words import explain_pem, explain_system
from agent.language import say
from collector.web.app import Latest, create_app
from collector.web.guard import Guard, Keys

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
CERTIFICATE_SECONDS = 30.0
"""How soon a renewed certificate is taken up."""
LAST_SECONDS = 1
"""How long an answer that is on its way may still take when the server ends."""


class PageError(InfravitalsError):
    """The page cannot be served on its port."""


@dataclass(frozen=True)
class Entrance:
    """How the page is reached. host: where it listens. names: what else it answers to, `*` for anything.

    keys: what opens it, None for nobody being asked. certificate, key: PEM files, None for plain HTTP; looked at
    every `look_seconds` for new ones.
    """

    host: str = HOST
    names: Sequence[str] = ()
    keys: Keys | None = None
    certificate: str | None = None
    key: str | None = None
    look_seconds: float = CERTIFICATE_SECONDS


LOOPBACK = Entrance()
"""By whoever is on this machine, without a password."""


class PageServer:
    """Serves the page until it is closed or cancelled; run it once.

    The port is taken here already and certificates are read, so that what cannot be had is told before anything else has
    started: raises PageError then. port: 0 takes a free one. started: set once the page answers.
    """

    def __init__(
        self,
        latest: Latest,
        port: int,
        clock: Callable[[], float] = time.time,
        metrics: Callable[[], bytes] = bytes,
        entrance: Entrance = LOOPBACK,
    ) -> None:
        self._entrance = entrance
        guard = Guard(entrance.keys, is_secure=entrance.certificate is not None) if entrance.keys else None
        self._context = _context(entrance) if entrance.certificate else None
        self._listener = _listen(entrance.host, port)
        self.port: int = self._listener.getsockname()[1]
        self.started = asyncio.Event()
        config = uvicorn.Config(
            create_app(latest, clock, metrics, guard, entrance.names),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # a stray byte on the port is nobody's trouble; a fault of our own is
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_SECONDS,
        )
        config.load()
        config.ssl = self._context
        self._server = _Server(config, self.started)

    @property
    def url(self) -> str:
        """Where the page is."""
        scheme, host = "https" if self._context else "http", self._entrance.host
        return f"{scheme}://{HOST if host == '0.0.0.0' else host}:{self.port}/"  # noqa: S104 - compared, not bound

    async def run(self) -> None:
        """Serve; ends by `close` or when cancelled, and gives the port back."""
        serving = asyncio.create_task(self._server.serve([self._listener]), name="page-server")
        renewing = asyncio.create_task(self._renew_for_ever(), name="page-certificate")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self.close()
            await serving
            raise
        finally:
            renewing.cancel()
            self._listener.close()

    async def _renew_for_ever(self) -> None:
        """Take up a certificate that was put in place of the one before; connections from then on meet it."""
        seen = _stamps(self._entrance)
        while self._context is not None:
            await asyncio.sleep(self._entrance.look_seconds)
            now = _stamps(self._entrance)
            if now == seen:
                continue
            try:
                _load(self._context, self._entrance)
            except (
                PageError
            ) as error:  # half of a pair is there: the other half comes at once, and it is looked at again
                log.warning("%s", error)
            else:
                seen = now
                log.info(say("网页已换用新证书", "the page has taken up its new certificate"))

    def close(self) -> None:
        """End soon; open connections that wait for nothing are closed at once."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the program that it is part of has its own."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event) -> None:
        super().__init__(config)
        self._is_up = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_up.set()


def _context(entrance: Entrance) -> ssl.SSLContext:
    """TLS 1.2 and later, with this entrance's certificate. Raises PageError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, entrance)
    return context


def _load(context: ssl.SSLContext, entrance: Entrance) -> None:
    try:
        context.load_cert_chain(entrance.certificate or "", entrance.key, password=b"")
    except (OSError, ValueError) as error:
        why = explain_pem(error)
        text = say(
            f"网页的证书 {entrance.certificate} 与私钥 {entrance.key} 不能用：{why}；需要 PEM、未加密、彼此配套",
            f"the page's certificate {entrance.certificate} and key {entrance.key} are of no use: {why}; they must be PEM, not encrypted, and of one pair",
        )
        raise PageError(text) from error


def _stamps(entrance: Entrance) -> list[int]:
    """When the files of the certificate changed last; 0 for one that is not there now."""
    found = []
    for path in filter(None, (entrance.certificate, entrance.key)):
        try:
            found.append(Path(path).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return found


def _listen(host: str, port: int) -> socket.socket:
    # named as TCP, or asyncio leaves Nagle's delay on and every page takes 40 ms more
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # else a restart within a minute finds the port still busy with closed connections
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise PageError(_explain(host, port, error)) from error
    listener.setblocking(False)
    return listener


def _explain(host: str, port: int, error: OSError | OverflowError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return say(
            f"网页端口 {host}:{port} 已被其他程序占用，请换一个：up 用 --port，serve 用 collector.yaml 的 page.port",
            f"the page's port {host}:{port} is taken by another program; choose another: --port of up, page.port in the collector.yaml of serve",
        )
    what = explain_system(error) if isinstance(error, OSError) else str(error)
    return say(
        f"无法在 {host}:{port} 提供网页：{what}，请换一个：up 用 --port，serve 用 collector.yaml 的 page.port",
        f"cannot serve the page on {host}:{port}: {what}; choose another: --port of up, page.port in the collector.yaml of serve",
    )
