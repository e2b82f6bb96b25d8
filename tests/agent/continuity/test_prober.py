"""The prober of tokens: a client that does not let go costs a bounded number of requests, and no longer than it hangs."""

import asyncio
import time

from servers import until_async

from agent.continuity.prober import MAX_HANGING, Pace, Prober, Steady
from agent.continuity.tokens import Token
from agent.language import speaking


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
