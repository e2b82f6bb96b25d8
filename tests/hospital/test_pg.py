"""pg_async, pg_sync: a primary is killed under load and its standby promoted; what was lost is known from the dead one's disk.

The clinicians' client knows both servers. In pg_async the line between them stalls just before (the primary's sender is stopped),
so that the loss is certain; in pg_sync it stalls too, and nothing is acknowledged any more.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hospital.postgres import Server, numbers_on_disk, postgres_pair, promote
from hospital.tokens import PERIOD, probing
from servers import until_async

from agent.continuity.sql import SqlTokens
from agent.continuity.tokens import Token
from agent.sources import Reading
from agent.sources.continuity_probe import Source

PATIENCE_SECONDS = 60.0


async def wait_for_drill(source: Source) -> dict[str, object]:
    found: list[Reading] = []

    async def is_told() -> bool:
        found.extend(reading for reading in await source.collect() if reading.name == "drill")
        return bool(found)

    await until_async(is_told, PATIENCE_SECONDS)
    return dict(found[0].fields)


def good(settled: list[Token], server: Server) -> list[Token]:
    return [token for token in settled if token.is_good and token.served_by == server.address]


@dataclass(frozen=True)
class Truth:
    """When the service stopped and when the survivor could be written to, seconds since the epoch."""

    stopped_at: float
    back_at: float


async def fail_over(primary: Server, standby: Server, settled: list[Token], *, is_synchronous: bool) -> Truth:
    """The line stalls; the primary goes on alone (or, synchronous, acknowledges nothing), is killed, the standby takes over."""
    await until_async(lambda: len(good(settled, primary)) >= 10)
    os.kill(primary.child("walsender"), signal.SIGSTOP)
    stopped_at, before = time.time(), len(settled)
    await until_async(lambda: len(settled) >= before + (2 if is_synchronous else 8))
    if not is_synchronous:
        stopped_at = time.time()
    primary.kill()
    await until_async(lambda: any(not token.is_good for token in settled), PATIENCE_SECONDS)
    return Truth(stopped_at, await asyncio.to_thread(promote, standby))


async def test_pg_async_loses_exactly_the_tokens_that_the_survivor_lacks(tmp_path: Path) -> None:
    with postgres_pair(is_synchronous=False) as (primary, standby):
        async with probing(tmp_path, "postgresql", primary, standby, failures=1) as (source, settled):
            truth_of_time = await fail_over(primary, standby, settled, is_synchronous=False)
            drill = await wait_for_drill(source)
        acknowledged = {token.number for token in good(settled, primary)}
        truth = (numbers_on_disk(primary) - standby.numbers("his-db")) & acknowledged
        assert len(truth) >= 7
        assert drill["lost_tokens_count"] == len(truth)
        first_lost = min(settled, key=lambda token: (token.number not in truth, token.number))
        last_lost = max((token for token in settled if token.number in truth), key=lambda token: token.number)
        span = last_lost.settled_at - first_lost.sent_at
        assert span <= drill["rpo_seconds"] <= span + 2 * PERIOD  # type: ignore[operator]
        assert_time(drill, truth_of_time)
        print(f"rpo {drill['rpo_seconds']} s, {drill['lost_tokens_count']} tokens; lost in truth {len(truth)}")


async def test_pg_sync_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with postgres_pair(is_synchronous=True) as (primary, standby):
        async with probing(tmp_path, "postgresql", primary, standby, failures=1) as (source, settled):
            truth_of_time = await fail_over(primary, standby, settled, is_synchronous=True)
            drill = await wait_for_drill(source)
        acknowledged = {token.number for token in good(settled, primary)}
        on_disk = numbers_on_disk(primary)
        assert on_disk >= acknowledged and on_disk - standby.numbers("his-db"), "something was written and lost"
        assert not acknowledged - standby.numbers("his-db")
        assert (drill["lost_tokens_count"], drill["rpo_seconds"]) == (0, 0.0)
        assert_time(drill, truth_of_time)


def assert_time(drill: dict[str, object], truth: Truth) -> None:
    """Within one probe period, and what a busy machine adds to one answer."""
    measured, known = drill["rto_seconds"], truth.back_at - truth.stopped_at
    print(f"rto {measured} s, truth {known:.3f} s")
    assert abs(measured - known) <= PERIOD + 0.05  # type: ignore[operator]


async def test_server_that_accepts_and_never_answers_is_an_outage(tmp_path: Path) -> None:
    with postgres_pair(is_synchronous=False) as (primary, _):
        async with probing(tmp_path, "postgresql", primary, failures=1) as (source, settled):
            await until_async(lambda: any(token.is_good for token in settled))
            primary.signal(signal.SIGSTOP)
            await until_async(lambda: source._streams["his-db"].is_out, PATIENCE_SECONDS)
            primary.signal(signal.SIGCONT)
            await until_async(lambda: source._streams["his-db"].is_up)


SCENARIOS = [
    test_pg_async_loses_exactly_the_tokens_that_the_survivor_lacks,
    test_pg_sync_loses_nothing_that_was_acknowledged,
    test_server_that_accepts_and_never_answers_is_an_outage,
]


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_mutant_that_always_says_ok_turns_the_scenario_red(
    scenario: Callable[[Path], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say_ok(reach: SqlTokens, *_: object) -> str:
        return "{}:{}".format(*reach._addresses[0])

    monkeypatch.setattr(SqlTokens, "send", say_ok)
    monkeypatch.setitem(globals(), "PATIENCE_SECONDS", 3.0)
    with pytest.raises(AssertionError, match="not so within"):
        await scenario(tmp_path)


async def test_tokens_are_pruned_and_leave_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.continuity.sql.KEPT", 5)
    monkeypatch.setattr("agent.continuity.sql.PRUNE_EVERY", 10)
    with postgres_pair(is_synchronous=False) as (primary, _):
        async with probing(tmp_path, "postgresql", primary, failures=1) as (_, settled):
            await until_async(lambda: len(settled) >= 25)
            await until_async(lambda: len(primary.numbers("his-db")) < 20)
