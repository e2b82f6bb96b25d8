"""The Unix socket beside a running server: commands ask there what only the server may look at.

A request is one line of JSON; the answer is a line of JSON with status and length, then so many bytes.
"""

import asyncio
import fcntl
import logging
import os
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from agent.errors import InfravitalsError, LinkError, StoreError
from agent.foreign_words import explain_system
from agent.language import say

logger = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""What fits into a socket's address."""
MOST_REQUEST_BYTES = 64 * 1024
MOST_OUTPUT_BYTES = 256 * 1024 * 1024
MOST_CONNECTIONS = 16
REQUEST_SECONDS = 10.0


class Reply(NamedTuple):
    """What a command prints and its exit status; with a status that is not 0 the output is one sentence."""

    output: bytes
    status: int


Handler = Callable[[Mapping[str, object]], Awaitable[Reply]]


class _Request(msgspec.Struct):
    command: str
    arguments: dict[str, object] = {}


class _Head(msgspec.Struct):
    status: int
    bytes: int


class ControlServer:
    """Answers commands at `path`, for this user alone (0600), as long as `run` runs.

    handlers: command -> coroutine function of the arguments. An InfravitalsError of a handler is answered with its
    sentence and status 1; any other is our bug: logged with its traceback, and answered with status 1 too.
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self._handlers = handlers
        self._answering: set[asyncio.Task[None]] = set()
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled. Raises StoreError when a server runs here already or the socket cannot be made."""
        with _sole_server(self.path), _listening(self.path) as listener:
            server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MOST_REQUEST_BYTES)
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:  # commands that are still being answered end too, however long they would have taken
                server.close()
                answering = set(self._answering)
                for task in answering:
                    task.cancel()
                if answering:
                    await asyncio.wait(answering)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served in a task of its own")
        self._answering.add(task)
        try:
            if len(self._answering) <= MOST_CONNECTIONS:
                await self._answer_one(reader, writer)
        except (OSError, TimeoutError) as error:
            logger.debug("a command went away: %r", error)
        except asyncio.CancelledError:
            logger.debug("a command was left without an answer at the end")
        finally:
            self._answering.discard(task)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = msgspec.json.decode(await reader.readline(), type=_Request)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            reply = _refuse(say("无法读懂这个请求", "this request cannot be read"))
        else:
            reply = await self._handle(request)
        if len(reply.output) > MOST_OUTPUT_BYTES:
            reply = _refuse(
                say(f"结果超过 {MOST_OUTPUT_BYTES} 字节", f"the result has more than {MOST_OUTPUT_BYTES} bytes")
            )
        writer.write(msgspec.json.encode(_Head(reply.status, len(reply.output))) + b"\n" + reply.output)
        async with asyncio.timeout(REQUEST_SECONDS):
            await writer.drain()

    async def _handle(self, request: _Request) -> Reply:
        handler = self._handlers.get(request.command)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return _refuse(
                say(
                    f"运行中的服务不认识命令 '{request.command}'，可用的有：{known}；版本不同？",
                    f"the running server has no command '{request.command}', it has: {known}; is it another version?",
                )
            )
        task = asyncio.ensure_future(handler(request.arguments))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()  # only matters when we were cancelled
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, InfravitalsError):
            return _refuse(str(error))
        logger.error("a bug in command %s", request.command, exc_info=error)
        return _refuse(say("服务内部出错，详见其日志", "the server met an error of its own; its log has the details"))


def ask(path: Path, command: str, arguments: Mapping[str, object], timeout_seconds: float) -> Reply | None:
    """What the server at `path` answers; None when none runs there.

    Raises LinkError when it does not answer within the time, or not in our way.
    """
    request = msgspec.json.encode(_Request(command, dict(arguments))) + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            _at_address(path, connection.connect)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unreachable(path, error) from error
        try:
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                head = msgspec.json.decode(answer.readline(1024), type=_Head)
                output = answer.read(min(head.bytes, MOST_OUTPUT_BYTES))
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreachable(path, error) from error
    if len(output) != head.bytes:
        raise _unreachable(path, None)
    return Reply(output, head.status)


def _refuse(sentence: str) -> Reply:
    return Reply(sentence.encode(), 1)


def _unreachable(path: Path, error: Exception | None) -> LinkError:
    reason = say("回答不完整或超时", "its answer is incomplete or late")
    if isinstance(error, OSError) and error.errno is not None:
        reason = explain_system(error)
    return LinkError(
        say(f"{path} 处的服务没有正常回答：{reason}", f"the server at {path} does not answer as it should: {reason}")
    )


def _at_address(path: Path, use: Callable[[str], T]) -> T:
    """Call `use` with a form of `path` that fits into a socket's address, which a deep directory does not."""
    if len(os.fsencode(path)) <= LONGEST_PATH_BYTES or sys.platform != "linux":
        return use(str(path))
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return use(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


@contextmanager
def _sole_server(path: Path) -> Iterator[None]:
    """Hold the lock beside the socket: it ends with the process, so a socket without it is a dead server's."""
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreError(
            say(
                f"{path.parent} 已有一个 infravitals 在运行；请先结束它，或另选数据目录",
                f"an infravitals is already running on {path.parent}; end it first, or choose another data directory",
            )
        ) from error
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket at `path`; what a dead server left there goes first."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
                raise FileExistsError(0, say("那里已有一个普通文件", "an ordinary file stands there"))
            path.unlink(missing_ok=True)
            os.fchmod(listener.fileno(), 0o600)  # before it has a name: nobody else may come in between
            _at_address(path, listener.bind)
            path.chmod(0o600)
            listener.listen(MOST_CONNECTIONS)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _unusable(path: Path, error: OSError) -> StoreError:
    most = say(
        f"路径过长(最多 {LONGEST_PATH_BYTES} 字节)", f"the path is too long (at most {LONGEST_PATH_BYTES} bytes)"
    )
    reason = explain_system(error) if error.errno is not None else most
    return StoreError(say(f"无法建立命令套接字 {path}：{reason}", f"cannot open the command socket {path}: {reason}"))
