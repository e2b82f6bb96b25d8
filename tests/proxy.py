"""A TCP proxy in front of a real server: it delays, cuts, freezes, and forgets connections, as networks do."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from typing import Self

from servers import READY_SECONDS

TURNS_OF_A_START = 3
"""After so many turns of the loop what was accepted just now is a connection, which can be closed."""


class Proxy:
    """Forwards the loopback port `port` to `target`; a context manager with a thread and a loop of its own.

    delay_seconds: of every piece, one way. cut_after: gives, for each new connection, after how many bytes it breaks.
    """

    def __init__(self, target: int, *, delay_seconds: float = 0.0, cut_after: Callable[[], int] | None = None) -> None:
        self._target, self._delay_seconds, self._cut_after = target, delay_seconds, cut_after
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[_Pair] = set()
        self._near: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._is_frozen = False
        self.port = 0
        self.cuts = 0
        self.accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(self._listen)
        return self

    def __exit__(self, *exc: object) -> None:
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(READY_SECONDS)
        self._loop.close()

    def cut(self) -> None:
        """Break every connection, and every new one, until `mend`."""
        self._is_cut = True
        self.break_all()

    def mend(self) -> None:
        """Forward again."""
        self._is_cut = self._is_frozen = False

    def break_all(self) -> None:
        """Break the connections that are open now, with a reset."""
        self._call(self._break_all)

    def freeze(self) -> None:
        """The network goes silent: connections stay open on both sides, new ones too, and nothing passes until `mend`."""
        self._is_frozen = True
        self.forget_all()

    def forget_all(self) -> None:
        """Of the connections that are open now nothing passes any more, ever, and neither side hears of it; new ones work."""
        self._call(self._forget_all)

    def mute(self) -> None:
        """Of the connections that are open now no answer passes any more; what the client sends arrives."""
        self._call(self._mute)

    def _mute(self) -> None:
        for pair in self._open:
            pair.is_muted = True

    def _call(self, work: Callable[[], object]) -> object:
        async def run() -> object:
            result = work()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(READY_SECONDS)

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _end(self) -> None:
        assert isinstance(self._server, asyncio.Server)
        self._server.close()
        for _ in range(TURNS_OF_A_START):
            await asyncio.sleep(0)
        for writer in self._near:
            writer.transport.abort()
        self._break_all()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _break_all(self) -> None:
        for pair in list(self._open):
            pair.abort()

    def _forget_all(self) -> None:
        for pair in self._open:
            pair.is_forgotten = True

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """No coroutine: one that is cancelled before its first step would leave the connection open."""
        self._near.add(writer)
        serving = self._loop.create_task(self._accept(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._near.discard(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._is_cut:
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:  # the end of the proxy: what it took is closed with it
            writer.transport.abort()
            raise
        pair = _Pair(writer, far_writer, self._cut_after() if self._cut_after else None)
        pair.is_forgotten = self._is_frozen
        self._open.add(pair)
        if self._is_cut:  # meanwhile
            pair.abort()
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, pair), self._pump(far_reader, writer, pair, is_answer=True)
            )
        finally:
            self._open.discard(pair)
            pair.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: "_Pair", *, is_answer: bool = False
    ) -> None:
        """One direction: pieces are delayed in order, without one waiting for the delay of another."""
        loop = asyncio.get_running_loop()
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        sending = asyncio.create_task(self._send(line, writer, pair))
        try:
            with contextlib.suppress(OSError):
                while piece := await reader.read(16384):
                    if is_answer and pair.is_muted:
                        continue
                    await line.put((loop.time() + self._delay_seconds, piece))
            await line.put((loop.time() + self._delay_seconds, b""))
            await sending
        finally:
            sending.cancel()

    async def _send(
        self, line: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter, pair: "_Pair"
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await line.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if pair.is_forgotten:
                continue  # also the end: a peer that vanished sends none
            if not piece:
                pair.abort()
                return
            if pair.spend(len(piece)):
                self.cuts += 1
                pair.abort()
                return
            with contextlib.suppress(OSError):
                writer.write(piece)
                await writer.drain()


class _Pair:
    """Both ends of a connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter, rest: int | None) -> None:
        self._ends, self._rest = (near, far), rest
        self.is_forgotten = self.is_muted = False

    def spend(self, size: int) -> bool:
        """Whether these bytes are more than this connection may carry."""
        if self._rest is None:
            return False
        self._rest -= size
        return self._rest < 0

    def abort(self) -> None:
        for end in self._ends:
            end.transport.abort()


def random_cuts(seed: int, least: int, most: int) -> Callable[[], int]:
    """After how many bytes each connection breaks; the same numbers in every run."""
    chance = random.Random(seed)
    return lambda: chance.randint(least, most)
