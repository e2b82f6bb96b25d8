"""A stream hands its outages over with their loss, also when the survivor cannot be asked at once."""

import time

from agent.continuity.outages import Rule
from agent.continuity.prober import Pace, Steady
from agent.continuity.stream import Stream
from agent.continuity.tokens import Token
from agent.errors import SourceError


class LateSurvivor:
    """A fake reach: takes every token, has the even ones afterwards, and cannot be read the first time."""

    keeps_tokens = True

    def __init__(self) -> None:
        self.first = -1
        self.readings = 0

    async def send(self, number: int, sent_at: float) -> str:
        self.first = number
        return "db-1"

    async def read_back(self, first: int, last: int) -> set[int]:
        self.readings += 1
        if self.readings == 1:
            raise SourceError("still recovering")
        return {number for number in range(first, last + 1) if (number - self.first) % 2 == 0}

    async def close(self) -> None:
        """Holds nothing."""


async def test_loss_waits_for_a_survivor_that_does_not_answer_yet() -> None:
    reach = LateSurvivor()
    stream = Stream("his", lambda: reach, Pace(3600.0, 10.0), Rule(1, 1), Steady(time.time, time.monotonic))
    stream.start()
    await stream.wait_for_token(10)
    for step, is_good in ((1, True), (2, False), (3, True)):
        number = reach.first + step
        stream.settle(Token(number, float(number), float(number), is_good))
    assert await stream.take_findings() == []
    [finding] = await stream.take_findings()
    await stream.stop()
    assert finding.loss is not None and finding.loss.lost == (reach.first + 1,)
    assert (finding.outage.failed, finding.outage.first_good) == (1, reach.first + 3)
