"""One source of one target, gathered round by round: under a deadline, opened again after trouble, on a schedule."""

import asyncio
import contextlib
import inspect
import logging
import math
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from agent.errors import NoData, Off, SourceError
from agent.language import say
from agent.sources import LOCAL, Incomplete, Reading, Source, SourceConfig
from agent.sources._hours import ProbeConfig
from agent.workers import Workers

T = TypeVar("T")

CLOSE_SECONDS = 0.5
"""How long a source may take to give back what it opened, and a cancelled round to end."""

BACKOFF_SECONDS = 300.0
NO_DATA_SECONDS = 600.0
BUG_SECONDS = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time as it is given to the runner: `wall` in seconds since the epoch, `monotonic` for what lasts."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Watch:
    """What to gather: one source of one target. `make` builds the source; a bug in it costs a new one.

    spread_seconds: within which time its first round begins; None: the runner's usual.
    """

    source: str
    config: SourceConfig
    make: Callable[[], Source]
    target: str = LOCAL
    spread_seconds: float | None = None

    @property
    def label(self) -> str:
        """The name that its task and its lines in the log carry."""
        return self.source if self.target == LOCAL else f"{self.source}/{self.target}"

    @property
    def deadline_seconds(self) -> float:
        """How long one round may take; never longer than the interval."""
        return min(self.config.deadline_seconds, self.config.interval_seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one round. error: None, a SourceError (NoData is no failure), or our own bug.

    observed_at_seconds: when the round began, since the epoch.
    """

    readings: tuple[Reading, ...]
    error: BaseException | None
    observed_at_seconds: float
    duration_seconds: float

    @property
    def is_success(self) -> bool:
        """Whether somebody looked: also where there is nothing of the kind."""
        return self.error is None or isinstance(self.error, NoData)

    @property
    def is_bug(self) -> bool:
        """Whether the source raised what it must not raise."""
        return self.error is not None and not isinstance(self.error, SourceError)


Round = tuple[list[Reading], BaseException | None]
"""What one round gave, and what went wrong in it."""


class Gatherer:
    """Gathers one watch; everything that its source raises comes back in the outcome."""

    def __init__(self, watch: Watch, clocks: Clocks, workers: Workers) -> None:
        self._watch = watch
        self._clocks = clocks
        self._workers = workers
        self._source: Source | None = None
        self._is_open = False
        self._is_plain = False
        self._busy: asyncio.Future[Round] | None = None

    async def gather(self) -> Outcome:
        """One round. A thread cannot be killed: while an overdue one has not returned, every round fails."""
        began, observed_at = self._clocks.monotonic(), self._clocks.wall()
        config = self._watch.config
        if isinstance(config, ProbeConfig) and not config.is_on(observed_at):
            return Outcome((), _keeps_still(config), observed_at, 0.0)
        readings: list[Reading] = []
        error: BaseException | None
        source = self._source
        if self.is_busy:
            text = say("上一轮采集仍未返回", "the round before has not returned yet")
            error = SourceError(text)
        elif source is not None and self._is_open and self._is_plain:
            readings, error = await self._gather_plainly(source)
        else:
            readings, error = await self._gather_by_task()
        if isinstance(error, Incomplete):
            readings = list(error.readings)
        if error:
            self._is_open = False
        outcome = Outcome(tuple(readings), error, observed_at, self._clocks.monotonic() - began)
        if outcome.is_bug:
            await self.close()
        return outcome

    @property
    def is_busy(self) -> bool:
        """Whether an overdue round is still running somewhere."""
        return self._busy is not None and not self._busy.done()

    @property
    def has_rates(self) -> bool:
        """Whether the source needs a second round to give everything."""
        return self._source is not None and self._source.has_rates

    async def close(self) -> None:
        """Close the source, unless it still hangs in a round; the next round builds a new one."""
        source, self._source, self._is_open = self._source, None, False
        if source is None or self.is_busy:
            return
        task = asyncio.ensure_future(source.close())
        await asyncio.wait({task}, timeout=CLOSE_SECONDS)
        if not task.done():
            task.cancel()
        elif not task.cancelled() and (error := task.exception()):
            _log.warning("%s did not close: %r", self._watch.label, error)

    async def _gather_plainly(self, source: Source) -> Round:
        """The usual round of a plain source: one hop into the thread, no task."""
        self._busy = busy = self._workers.run(partial(_collect, source))
        await asyncio.wait({busy}, timeout=self._watch.deadline_seconds)
        return busy.result() if busy.done() else ([], self._overdue())

    async def _gather_by_task(self) -> Round:
        """A round that may wait: the first one, and every round of a source that is a coroutine."""
        task = asyncio.create_task(self._round(), name=f"{self._watch.label} round")
        await self._wait(task)
        if not task.done() or task.cancelled():
            return [], self._overdue()
        error = task.exception()
        return ([], error) if error else task.result()

    async def _round(self) -> Round:
        if self._source is None:
            self._source = self._watch.make()
            self._is_plain = not inspect.iscoroutinefunction(self._source.collect)
        source = self._source
        if not self._is_open:
            await source.open()
            self._is_open = True
        if inspect.iscoroutinefunction(source.collect):
            return list(await source.collect()), None
        self._busy = busy = self._workers.run(partial(_collect, source))
        return await asyncio.shield(busy)

    async def _wait(self, task: asyncio.Task[Round]) -> None:
        try:
            await asyncio.wait({task}, timeout=self._watch.deadline_seconds)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CLOSE_SECONDS)
                if not task.done():
                    self._busy = task

    def _overdue(self) -> SourceError:
        seconds = self._watch.deadline_seconds
        return SourceError(say(f"{seconds:g} 秒内没有完成", f"not done within {seconds:g} s"))


def _keeps_still(config: ProbeConfig) -> Off:
    hours = " ".join(config.hours)
    return Off(say(f"只在 {hours} 探测，现在停着", f"it probes at {hours} only and keeps still now"))


def _collect(source: Source) -> Round:
    """A round of a plain source, in the thread: the list is made there too, a source may well be a generator."""
    try:
        readings = source.collect()
        if not isinstance(readings, Iterable):
            raise TypeError("collect() gave an awaitable; write it as `async def`")
        return list(readings), None
    except Exception as error:  # noqa: BLE001 - the edge of a source's round: the runner logs it and goes on
        return [], error


def in_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `call` in a thread of its own.

    A daemon, not a pool's thread: one that hangs in the kernel then delays neither the other sources nor the
    end of the process. One watch has at most one of them.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended while this thread hung
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    def work() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - the edge of a source's task: the runner logs it and goes on
            failure = error  # `error` is gone when the loop comes to it
            finish(lambda: future.set_exception(failure))
        else:
            finish(lambda: future.set_result(result))

    # whoever waited may have given up long before the thread returns
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    threading.Thread(target=work, name=name, daemon=True).start()
    return future


class Schedule:
    """Beats at start + n * interval: a round that takes long shifts none of the following."""

    def __init__(self, start_seconds: float, interval_seconds: float) -> None:
        self._start = start_seconds
        self._interval = interval_seconds
        self._beat = 0

    @property
    def due_seconds(self) -> float:
        """When the current beat is due, on the clock of `start_seconds`."""
        return self._start + self._beat * self._interval

    def advance(self, now_seconds: float, beats: int = 1) -> None:
        """To the beat so many further; what has passed meanwhile is left out, not made up for."""
        next_to_come = math.floor((now_seconds - self._start) / self._interval) + 1
        self._beat = max(self._beat + beats, next_to_come)


def phase(watch: Watch) -> float:
    """A share 0..1 of the spread, the same in every run: targets are not all asked at once.

    What is read of this very machine goes together: it asks nobody, and shares one hop into a thread.
    """
    return 0.0 if watch.target == LOCAL else zlib.crc32(watch.label.encode()) / 2**32


def beats_to_wait(outcome: Outcome, failures: int, interval_seconds: float) -> int:
    """How many beats until the next round: more with every failure in a row, and few looks where nothing is."""
    error = outcome.error
    if error is None or isinstance(error, Off) or (isinstance(error, Incomplete) and error.is_partly):
        return 1
    if isinstance(outcome.error, NoData):
        return math.ceil(NO_DATA_SECONDS / interval_seconds)
    most = max(1, int(BACKOFF_SECONDS / interval_seconds))
    beats: int = min(2 ** min(failures - 1, 16), most)
    return max(beats, math.ceil(BUG_SECONDS / interval_seconds)) if outcome.is_bug else beats
