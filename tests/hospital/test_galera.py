"""galera: one of three nodes is killed, then a second one freezes, which leaves the third without a majority."""

import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from hospital.mariadb import Server, galera_cluster
from hospital.tokens import PERIOD, login, probing
from servers import until_async

from agent.continuity.sql import SqlTokens
from agent.continuity.tokens import Token
from agent.errors import SourceError
from agent.points import Value
from agent.sources import Surroundings, continuity_probe, mysql_replication

PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Server]]:
    with galera_cluster() as servers:
        yield servers


@asynccontextmanager
async def asking(folder: Path, nodes: list[Server]) -> AsyncIterator[mysql_replication.Source]:
    pair = {"addresses": [node.address for node in nodes], "token_table": "infravitals_token", **login(folder, "mysql")}
    config = msgspec.convert({"pairs": {"his": pair}, "answer_seconds": 3}, mysql_replication.Config)
    source = mysql_replication.Source(config, Surroundings("gateway"))
    try:
        yield source
    finally:
        await source.close()


async def look(source: mysql_replication.Source) -> dict[str, Value]:
    try:
        readings = await source.collect()
    except SourceError:  # a busy machine: nobody answered in time
        return {}
    assert undeclared("mysql_replication", readings) == []
    return {key: value for reading in readings for key, value in reading.fields.items()}


def good(settled: list[Token], node: Server) -> list[Token]:
    return [token for token in settled if token.is_good and token.served_by == node.address]


def is_steady(tokens: list[Token]) -> bool:
    """All good and from one node: on a busy machine one of them may be answered by another."""
    return all(token.is_good for token in tokens) and len({token.served_by for token in tokens}) == 1


@pytest.mark.parametrize("is_mutant", [True, False])
async def test_galera_one_of_three_then_two(
    is_mutant: bool, nodes: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant's round comes first: it breaks nothing, it only stops where it should see an outage."""
    if is_mutant:

        async def say_ok(reach: SqlTokens, *_: object) -> str:
            return "{}:{}".format(*reach._addresses[0])

        monkeypatch.setattr(SqlTokens, "send", say_ok)
        nodes[0].signal(signal.SIGSTOP)
        async with probing(tmp_path, "mysql", *nodes) as (source, settled):
            await until_async(lambda: len(settled) > 8)
            with pytest.raises(AssertionError, match="not so within"):
                await until_async(lambda: source._streams["his-db"].is_out, 0.2)
        nodes[0].signal(signal.SIGCONT)
        return
    async with probing(tmp_path, "mysql", *nodes) as (source, settled), asking(tmp_path, nodes) as facts:
        survivors = await lose_one(nodes, source, settled, facts)
        await lose_another(survivors[0], source, facts)


async def lose_one(
    nodes: list[Server], source: continuity_probe.Source, settled: list[Token], facts: mysql_replication.Source
) -> list[Server]:
    """The clinicians' node dies: they go to the next, which stalls until the dead one is given up. Gives the survivors."""

    async def is_whole() -> bool:
        found = await look(facts)
        return found.get("serving_sides_count") == 3 == found.get("nodes_up_count") and found.get("is_in_sync") is True

    await until_async(is_whole, PATIENCE_SECONDS)
    await until_async(lambda: len(settled) > 10 and is_steady(settled[-10:]), PATIENCE_SECONDS)
    [victim] = [node for node in nodes if node.address == settled[-1].served_by]
    survivors = [node for node in nodes if node is not victim]
    killed_at = time.time()
    victim.kill()
    drills: list[dict[str, Value]] = []

    async def is_told() -> bool:
        found = [reading for reading in await source.collect() if reading.name == "drill"]
        drills.extend(dict(reading.fields) for reading in found if reading.timestamp > killed_at * 1000)
        return bool(drills)

    await until_async(is_told, PATIENCE_SECONDS)
    back_at = min(
        token.settled_at for node in survivors for token in good(settled, node) if token.settled_at > killed_at
    )
    assert abs(float(drills[0]["rto_seconds"]) - (back_at - killed_at)) <= PERIOD + 0.05
    lost = {token.number for token in good(settled, victim)} - survivors[0].numbers("his-db")
    assert drills[0]["lost_tokens_count"] == len(lost) == 0
    assert drills[0]["rpo_seconds"] == 0.0
    print(f"galera: rto {drills[0]['rto_seconds']} s, rpo {drills[0]['rpo_seconds']} s, lost {len(lost)}")

    async def is_reduced() -> bool:
        found = await look(facts)
        return found.get("nodes_up_count") == 2 == found.get("serving_sides_count") and found.get("has_quorum") is True

    await until_async(is_reduced, PATIENCE_SECONDS)
    return survivors


async def lose_another(second: Server, source: continuity_probe.Source, facts: mysql_replication.Source) -> None:
    """The second freezes: the third has no majority and takes no work, and says so."""
    second.signal(signal.SIGSTOP)

    async def is_without_majority() -> bool:
        found = await look(facts)
        return found.get("has_quorum") is False is found.get("is_running") and found.get("nodes_up_count") == 0

    await until_async(is_without_majority, PATIENCE_SECONDS)
    await until_async(lambda: source._streams["his-db"].is_out)
    second.signal(signal.SIGCONT)

    async def is_back() -> bool:
        return (await look(facts)).get("nodes_up_count") == 2

    await until_async(is_back, PATIENCE_SECONDS)
    await until_async(lambda: source._streams["his-db"].is_up, PATIENCE_SECONDS)
