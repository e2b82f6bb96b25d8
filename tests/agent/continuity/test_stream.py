"""A stream hands its outages over with their loss, also when the survivor cannot be asked at once."""

import time
from pathlib import Path

import msgspec
import pytest

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


def stream_of(reach: LateSurvivor, file: Path | None = None) -> Stream:
    """One whose own tokens are so rare that those of the test are alone."""
    return Stream("his", lambda: reach, Pace(3600.0, 10.0), Rule(1, 1), Steady(time.time, time.monotonic), file)


@pytest.mark.parametrize(("step", "lost"), [(1, [1]), (2, None)], ids=["lost", "not lost"])
async def test_that_nothing_was_lost_is_not_known_where_our_own_asking_was_wrong(
    step: int, lost: list[int] | None
) -> None:
    """A token that was never sent in earnest is not missed afterwards; one that was, and is not there, is lost all the same."""
    reach = LateSurvivor()
    reach.readings = 1
    stream = stream_of(reach)
    stream.start()
    await stream.wait_for_token(10)
    stream._watch.skip_to(reach.first + step)
    for after, is_good, is_unknown in ((0, True, False), (1, False, True), (2, False, False), (3, True, False)):
        number = reach.first + step + after
        stream.settle(Token(number, float(number), float(number), is_good, is_unknown=is_unknown))
    [finding] = await stream.take_findings()
    await stream.stop()
    assert (finding.outage.failed, finding.outage.is_blurred) == (1, True)
    found = finding.loss and [number - reach.first for number in finding.loss.lost]
    assert found == lost


async def test_tokens_are_told_once_it_is_known_again_how_it_stands() -> None:
    reach = LateSurvivor()
    stream = stream_of(reach)
    stream.start()
    await stream.wait_for_token(10)
    assert stream.take_tally().sent == 1
    for step, is_good, is_unknown in ((1, False, False), (2, False, True)):
        number = reach.first + step
        stream.settle(Token(number, float(number), float(number), is_good, reason="why", is_unknown=is_unknown))
    assert stream.is_up is None and stream.mistake == "why"
    assert stream.take_tally().sent == 0
    stream.settle(Token(reach.first + 3, 0.0, 0.0, True))
    tally = stream.take_tally()
    assert (tally.sent, tally.good, stream.mistake) == (2, 1, ""), "the failed one is not forgotten"
    await stream.stop()


async def test_outage_that_an_older_agent_remembered_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "his.json"
    ended = {"began_at": 1.0, "ended_at": 2.0, "failed": 3, "served_before": "a", "served_after": "a", "last_good": 1,
             "first_good": 5}  # fmt: skip
    state = {"expected": 9, "began_at": 7.0, "failed": 2, "served_by": "a", "last_good": 6, "is_good": False}
    memory = {"state": state, "waiting": [{"outage": ended, "tries": 0}], "away": None}
    file.write_bytes(msgspec.json.encode(memory))
    stream = stream_of(LateSurvivor(), file)
    stream.start()
    assert stream.out_since == 7.0 and not stream._watch.state.is_blurred
    assert [one.outage.failed for one in await stream.take_findings()] == [3]
    await stream.stop()
