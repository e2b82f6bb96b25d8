"""Sends tokens on a schedule that does not drift, each with its own deadline, however long the ones before take."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.continuity.reach import Reach
from agent.continuity.tokens import Token
from agent.errors import OwnMistake, SourceError
from agent.foreign_words import explain
from agent.language import say

MAX_HANGING = 32
"""Tokens past their deadline whose client has not let go yet; beyond it no more are sent, they fail at once."""


@dataclass(frozen=True, slots=True)
class Pace:
    """period_seconds: a token every so often. timeout_seconds: how long one may take.

    The timeout stays below TCP's first retransmission of a SYN (1 s): a token sent in an outage must not be saved by it.
    """

    period_seconds: float = 1.0
    timeout_seconds: float = 0.9


class Steady:
    """Seconds since the epoch that never jump: set by the wall clock once, then by the monotonic one.

    Outages are differences of it; a clock that is set back a minute must neither make nor hide one.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """The present time."""
        return self._monotonic() + self._offset

    def correct(self) -> None:
        """Follow the wall clock again; called only while nothing is being timed."""
        self._offset = self._wall() - self._monotonic()


class Prober:
    """Sends tokens from `first` on until it is cancelled; each settled one goes to `settle`, in the order of settling."""

    def __init__(
        self,
        reach: Reach,
        pace: Pace,
        settle: Callable[[Token], None],
        clock: Steady,
        first: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.next_number = first
        self._reach = reach
        self._pace = pace
        self._settle = settle
        self._now = clock.now
        self._sleep = sleep
        self._hanging: set[asyncio.Task[str]] = set()

    async def run(self) -> None:
        """Never returns by itself. A bug in a reach flies from here."""
        start, beat = self._now(), 0
        async with asyncio.TaskGroup() as group:
            while True:
                await self._sleep(max(0.0, start + beat * self._pace.period_seconds - self._now()))
                number, self.next_number = self.next_number, self.next_number + 1
                group.create_task(self._send(number), name=f"token {number}")
                # after a standstill the beats that passed are left out, not made up for in a burst
                beat = max(beat + 1, math.floor((self._now() - start) / self._pace.period_seconds))

    async def _send(self, number: int) -> None:
        sent_at = self._now()
        if len(self._hanging) >= MAX_HANGING:
            reason = say("之前的请求仍未放手", "earlier requests have not let go")
            self._settle(Token(number, sent_at, sent_at, False, reason=reason))
            return
        task = asyncio.create_task(self._reach.send(number, sent_at))
        try:
            await asyncio.wait({task}, timeout=self._pace.timeout_seconds)
        finally:
            if not task.done():
                self._abandon(task)
        self._settle(self._judge(number, sent_at, task))

    def _judge(self, number: int, sent_at: float, task: asyncio.Task[str]) -> Token:
        now = self._now()
        if not task.done() or task.cancelled():
            seconds = self._pace.timeout_seconds
            reason = say(f"{seconds:g} 秒内没有应答", f"no answer within {seconds:g} s")
            return Token(number, sent_at, now, False, reason=reason)
        error = task.exception()
        if error is None:
            return Token(number, sent_at, now, True, task.result())
        if isinstance(error, OwnMistake):
            return Token(number, sent_at, now, False, reason=str(error), is_unknown=True)
        if isinstance(error, SourceError | OSError | EOFError | asyncio.LimitOverrunError):
            return Token(number, sent_at, now, False, reason=_explain(error))
        raise error

    def _abandon(self, task: asyncio.Task[str]) -> None:
        """A client may take its time to let go; nobody waits for it."""
        self._hanging.add(task)

        def let_go(done: asyncio.Task[str]) -> None:
            self._hanging.discard(done)
            if not done.cancelled():
                done.exception()

        task.add_done_callback(let_go)
        task.cancel()


def _explain(error: BaseException) -> str:
    return explain(error)[:200]
