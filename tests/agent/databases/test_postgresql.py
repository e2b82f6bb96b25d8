"""The door to PostgreSQL: a query that is given up harms neither the process nor the next connection."""

import asyncio
from pathlib import Path

import pytest
from hospital.postgres import postgres_pair

from agent.broker import Secret
from agent.databases import Account, postgresql

ROUNDS = 25


async def test_query_that_is_given_up_leaves_the_next_connection_alone(tmp_path: Path) -> None:
    """Closed under the hands of the query that still reads, the connection crashed the process or the next one lost its socket."""
    (tmp_path / "password").write_text("right\n")
    account = Account("postgres", "nobody_special", Secret(file=str(tmp_path / "password")), "pairs.his-db")
    with postgres_pair(is_synchronous=False) as (primary, _):
        for _round in range(ROUNDS):
            session = await postgresql.dial("127.0.0.1", primary.port, account, 60.0)
            assert await session.query("SELECT 1") == [(1,)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await session.query("SELECT pg_sleep(60)")
            assert not session.is_usable
            await session.close()
    async with asyncio.timeout(60):
        while postgresql._closing:
            await asyncio.wait(postgresql._closing)
