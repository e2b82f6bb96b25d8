"""Threads for plain calls that read files: what is due together shares one hop into one thread, and one that hangs is left behind.

A hop between threads costs about as much CPU as a small source reads in; a pool would pay it for every source.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 0.5
"""A call that takes longer no longer delays the others: they get a new thread."""


@dataclass(slots=True)
class _Job(Generic[T]):
    call: Callable[[], T]
    future: "asyncio.Future[T]"
    result: T | None = None


@dataclass(slots=True)
class _Thread:
    """One daemon thread. began: since when its present call runs, on the monotonic clock; None between calls."""

    bell: SimpleQueue[bool] = field(default_factory=SimpleQueue)
    began: float | None = None
    is_left: bool = False


class Workers:
    """Runs calls for one event loop. A daemon thread that hangs in the kernel delays neither the others nor the end of the process."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._waiting: deque[_Job[object]] = deque()
        self._done: deque[_Job[object]] = deque()
        self._thread: _Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_rung = False
        self._is_watched = False

    def run(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """The result of `call`, made in a thread; whoever awaits it may give up long before it comes. `call` raises nothing."""
        self._loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Job(call, future))  # type: ignore[arg-type]  # a deque of jobs of all kinds
        if not self._is_rung:
            self._is_rung = True
            self._loop.call_soon(self._ring)  # after everything else that is due now has come
        return future

    def close(self) -> None:
        """Let the idle thread end; one that hangs ends with the process."""
        if self._thread:
            self._thread.is_left = True
            self._thread.bell.put(True)
            self._thread = None

    def _ring(self) -> None:
        self._is_rung = False
        if self._thread is None:
            self._thread = _Thread()
            name = "sources"
            threading.Thread(target=self._work, args=(self._thread,), name=name, daemon=True).start()
        self._thread.bell.put(True)
        self._watch()

    def _watch(self) -> None:
        if self._loop and not self._is_watched:
            self._is_watched = True
            self._loop.call_later(self._patience_seconds, self._look)

    def _look(self) -> None:
        """Leave a thread behind that hangs in a call, and give the others a new one."""
        self._is_watched = False
        self._deliver()
        thread = self._thread
        if thread is None or (thread.began is None and not self._waiting):
            return
        if thread.began is not None and time.monotonic() - thread.began >= self._patience_seconds:
            thread.is_left = True
            self._thread = None
            if self._waiting:
                self._ring()
            return
        self._watch()

    def _work(self, thread: _Thread) -> None:
        """The thread itself: everything that waits, then one word to the loop."""
        while thread.bell.get() and not thread.is_left:
            while not thread.is_left:
                try:
                    job = self._waiting.popleft()
                except IndexError:
                    break
                thread.began = time.monotonic()
                job.result = job.call()
                thread.began = None
                self._done.append(job)
            self._announce()

    def _announce(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended while this thread hung
            if self._loop:
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        while self._done:
            job = self._done.popleft()
            if not job.future.done():
                job.future.set_result(job.result)
