"""The prober: its beat by a clock that the test sets, and a client that does not let go, which costs a bounded number of requests."""

import asyncio
import time

from servers import until_async

from agent.continuity.prober import MAX_HANGING, Pace, Prober, Steady
from agent.continuity.tokens import Token
from agent.language import speaking


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
    """Answers at once."""

    keeps_tokens = False

    def __init__(self) -> None:
        self.sent_at: list[float] = []

    async def send(self, number: int, sent_at: float) -> str:
        self.sent_at.append(sent_at)
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
    task.cancel()
    await asyncio.wait({task})
    return settled


async def test_beats_that_passed_in_a_standstill_are_left_out() -> None:
    reach = Reach()
    await probe(reach, Clock(3, 10.0, 6), Pace(1.0, 0.9), 6)
    assert reach.sent_at == [0.0, 1.0, 12.0, 12.0, 13.0, 14.0]


class Deaf:
    """A client that hears no cancellation until it is told to let go; after that it answers at once."""

    def __init__(self) -> None:
        self.begun = 0
        self.lets_go = asyncio.Event()

    async def send(self, number: int, sent_at: float) -> str:
        self.begun += 1
        while not self.lets_go.is_set():
            try:
                await self.lets_go.wait()
            except asyncio.CancelledError:
                continue
        return "here"

    async def close(self) -> None:
        self.lets_go.set()


async def test_clients_that_never_let_go_are_no_more_than_a_bound_and_tokens_fail_meanwhile() -> None:
    deaf, settled = Deaf(), list[Token]()

    async def wait_for_the_one_before(_: float) -> None:
        await until_async(lambda: len(settled) >= prober.next_number)

    clock = Steady(time.time, time.monotonic)
    prober = Prober(deaf, Pace(1.0, 0.002), settled.append, clock, sleep=wait_for_the_one_before)
    with speaking("en"):
        running = asyncio.create_task(prober.run())
        try:
            await until_async(lambda: len(settled) >= MAX_HANGING + 10)
            assert deaf.begun == MAX_HANGING
            reasons = [token.reason for token in settled[: MAX_HANGING + 10]]
            assert all("no answer within" in reason for reason in reasons[:MAX_HANGING])
            assert all("have not let go" in reason for reason in reasons[MAX_HANGING:])
            assert not any(token.is_good for token in settled)
            deaf.lets_go.set()
            await until_async(lambda: settled[-1].is_good)
            assert deaf.begun > MAX_HANGING
        finally:
            deaf.lets_go.set()
            running.cancel()
            await asyncio.wait({running})
