"""The prober's beat and its patience, by a clock that the test sets and a fake reach that never lets go."""

import asyncio
import contextlib

from agent.continuity.prober import MAX_HANGING, Pace, Prober, Steady
from agent.continuity.tokens import Token


class Clock:
    """Seconds that pass only in sleeps, and, once, in a standstill of the whole machine."""

    def __init__(self, standstill_before: int, standstill_seconds: float, beats: int) -> None:
        self.now = 0.0
        self._before, self._seconds, self._beats = standstill_before, standstill_seconds, beats
        self._slept = 0

    async def sleep(self, seconds: float) -> None:
        for _ in range(9):  # what was sent goes first
            await asyncio.sleep(0)
        self._slept += 1
        if self._slept > self._beats:
            await asyncio.Event().wait()
        self.now += seconds + (self._seconds if self._slept == self._before else 0.0)


class Reach:
    """Answers at once; or, stubborn, neither answers nor lets itself be cancelled before `release`."""

    keeps_tokens = False

    def __init__(self, *, is_stubborn: bool = False) -> None:
        self.sent_at: list[float] = []
        self.release = asyncio.Event()
        self._is_stubborn = is_stubborn

    async def send(self, number: int, sent_at: float) -> str:
        self.sent_at.append(sent_at)
        while self._is_stubborn and not self.release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.release.wait()
        return "a"

    async def read_back(self, first: int, last: int) -> set[int]:
        return set()

    async def close(self) -> None:
        """Holds nothing."""


async def probe(reach: Reach, clock: Clock, pace: Pace, wanted: int) -> list[Token]:
    """The first `wanted` tokens that settle."""
    settled: list[Token] = []
    enough = asyncio.Event()

    def settle(token: Token) -> None:
        settled.append(token)
        if len(settled) == wanted:
            enough.set()

    prober = Prober(reach, pace, settle, Steady(lambda: clock.now, lambda: clock.now), sleep=clock.sleep)
    task = asyncio.create_task(prober.run())
    async with asyncio.timeout(30):
        await enough.wait()
    reach.release.set()
    task.cancel()
    await asyncio.wait({task})
    return settled


async def test_beats_that_passed_in_a_standstill_are_left_out() -> None:
    reach = Reach()
    await probe(reach, Clock(3, 10.0, 6), Pace(1.0, 0.9), 6)
    assert reach.sent_at == [0.0, 1.0, 12.0, 12.0, 13.0, 14.0]


async def test_requests_that_never_let_go_are_bounded_and_the_rest_fail_at_once() -> None:
    reach, beats = Reach(is_stubborn=True), MAX_HANGING + 8
    settled = await probe(reach, Slow(beats), Pace(1.0, 0.001), beats)
    assert (len(reach.sent_at), len(settled)) == (MAX_HANGING, beats)
    assert not any(token.is_good for token in settled)


class Slow(Clock):
    """Gives each token the time to be given up before the next is sent."""

    def __init__(self, beats: int) -> None:
        super().__init__(0, 0.0, beats)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.01)
        await super().sleep(seconds)
