"""mysql_replication against a real MariaDB master and replica; Galera is in tests/hospital/test_galera.py."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from hospital.mariadb import replica_pair
from servers import free_port, until_async

from agent.errors import NoData, SourceError
from agent.language import speaking
from agent.points import Value
from agent.sources import Surroundings
from agent.sources.mysql_replication import Config, Source


@asynccontextmanager
async def asking(
    folder: Path, *addresses: str, user: str = "infravitals", answer_seconds: float = 30, **more: object
) -> AsyncIterator[Source]:
    secret = folder / "password"
    secret.write_text("right\n")
    database = "" if user == "nobody_special" else "his"
    written = {"addresses": addresses, "database": database, "user": user, "password": {"file": str(secret)}, **more}
    config = msgspec.convert({"pairs": {"his-db": written}, "answer_seconds": answer_seconds}, Config)
    source = Source(config, Surroundings("gateway"))
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def look(source: Source, name: str = "replication") -> dict[str, Value]:
    readings = await source.collect()
    assert undeclared("mysql_replication", readings) == []
    [found] = [reading for reading in readings if reading.name == name]
    return dict(found.fields)


async def test_master_and_replica_in_step_delayed_stopped_and_alone(tmp_path: Path) -> None:
    with replica_pair() as (master, replica):
        addresses = (master.address, replica.address)
        async with asking(tmp_path, *addresses, token_table="infravitals_token") as source:

            async def is_in_step() -> bool:
                found = await look(source)
                return found["is_in_sync"] is True and found.get("lag_bytes") == 0 == found.get("lag_seconds")

            await until_async(is_in_step)
            assert (await look(source))["serving_sides_count"] == 1
            assert await look(source, "role_group") == {"masters_count": 1, "members_count": 2}

            replica.sql("STOP SLAVE SQL_THREAD")
            assert (await look(source))["is_running"] is False
            replica.sql("STOP SLAVE; CHANGE MASTER TO master_delay=3600; START SLAVE")

            async def is_behind() -> bool:
                found = await look(source)
                return found["is_running"] is True and float(found.get("lag_bytes", 0)) > 0 and not found["is_in_sync"]

            await until_async(is_behind)
            replica.sql("STOP SLAVE; SET GLOBAL read_only=0")
            assert (await look(source, "role_group"))["masters_count"] == 2
            assert float((await look(source))["both_master_seconds"]) > 0
            master.kill()
            assert (await look(source))["is_running"] is False
        async with asking(tmp_path, replica.address, user="nobody_special") as source:
            with pytest.raises(SourceError, match="GRANT"):
                await source.collect()
        port = free_port()
        async with asking(tmp_path, f"127.0.0.1:{port}") as source:
            with (
                speaking("en"),
                pytest.raises(SourceError, match=rf"127\.0\.0\.1:{port}: .*refused\); check the address, the port"),
            ):
                await source.collect()


@pytest.mark.parametrize("ahead_seconds", [60, -60])
async def test_replica_whose_clock_is_a_minute_off_has_no_minute_of_lag(ahead_seconds: int, tmp_path: Path) -> None:
    """The server itself takes the difference out of it when its thread starts."""
    with replica_pair(ahead_seconds) as (master, replica):
        async with asking(tmp_path, master.address, replica.address) as source:
            replica.sql("STOP SLAVE; CHANGE MASTER TO master_delay=3600; START SLAVE")
            master.sql("CREATE TABLE his.more (n int); INSERT INTO his.more VALUES (1)")

            async def is_behind() -> bool:
                found = await look(source)
                return found["is_running"] is True and float(found.get("lag_bytes", 0)) > 0 and "lag_seconds" in found

            await until_async(is_behind)
            assert 0 <= float((await look(source))["lag_seconds"]) < 30


async def test_server_that_accepts_and_never_answers_costs_its_own_word_only(tmp_path: Path) -> None:
    with replica_pair() as (master, replica):
        async with asking(tmp_path, master.address, replica.address, answer_seconds=3) as source:
            assert (await look(source, "role_group"))["masters_count"] == 1
            master.signal(signal.SIGSTOP)
            found = await look(source)
            assert found["is_running"] is False and (await look(source, "role_group"))["masters_count"] == 0
        async with asking(tmp_path, master.address, answer_seconds=2) as source:
            with (
                speaking("en"),
                pytest.raises(SourceError, match=f"{master.address}: .*(no answer within 2 s|timed out)"),
            ):
                await source.collect()


async def test_nothing_configured_is_no_trouble() -> None:
    with pytest.raises(NoData):
        await Source(Config(), Surroundings("gateway")).collect()
