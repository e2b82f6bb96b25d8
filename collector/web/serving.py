"""The page's own server on 127.0.0.1; the one place that imports the HTTP server."""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn

from agent.errors import InfravitalsError
from agent.foreign_words import explain_system
from agent.language import say
from collector.web.app import Latest, create_app

HOST = "127.0.0.1"
LAST_SECONDS = 1
"""How long an answer that is on its way may still take when the server ends."""


class PageError(InfravitalsError):
    """The page cannot be served on its port."""


class PageServer:
    """Serves the page on loopback until it is closed or cancelled; run it once.

    The port is taken here already, so that a port that cannot be had is told before anything else has started: raises
    PageError then. port: 0 takes a free one. started: set once the page answers.
    """

    def __init__(
        self, latest: Latest, port: int, clock: Callable[[], float] = time.time, metrics: Callable[[], bytes] = bytes
    ) -> None:
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        self.started = asyncio.Event()
        config = uvicorn.Config(
            create_app(latest, clock, metrics),
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
        self._server = _Server(config, self.started)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}/"

    async def run(self) -> None:
        """Serve; ends by `close` or when cancelled, and gives the port back."""
        serving = asyncio.create_task(self._server.serve([self._listener]), name="page-server")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self.close()
            await serving
            raise
        finally:
            self._listener.close()

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


def _listen(port: int) -> socket.socket:
    # named as TCP, or asyncio leaves Nagle's delay on and every page takes 40 ms more
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # else a restart within a minute finds the port still busy with closed connections
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise PageError(_explain(port, error)) from error
    listener.setblocking(False)
    return listener


def _explain(port: int, error: OSError | OverflowError) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return say(
            f"网页端口 {HOST}:{port} 已被其他程序占用，请换一个：up 用 --port，serve 用 collector.yaml 的 page.port",
            f"the page's port {HOST}:{port} is taken by another program; choose another: --port of up, page.port in the collector.yaml of serve",
        )
    what = explain_system(error) if isinstance(error, OSError) else str(error)
    return say(
        f"无法在 {HOST}:{port} 提供网页：{what}，请换一个：up 用 --port，serve 用 collector.yaml 的 page.port",
        f"cannot serve the page on {HOST}:{port}: {what}; choose another: --port of up, page.port in the collector.yaml of serve",
    )
