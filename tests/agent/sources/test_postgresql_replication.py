"""postgresql_replication against a real primary and standby: in step, paused, promoted, hanging, without rights."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from hospital.postgres import Server, postgres_pair
from servers import free_port, until_async

from agent.errors import NoData, SourceError
from agent.language import speaking
from agent.points import Value
from agent.sources import Incomplete, Surroundings
from agent.sources.postgresql_replication import GRANTS, Config, Source


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    with postgres_pair(is_synchronous=False) as servers:
        yield servers


@asynccontextmanager
async def asking(
    folder: Path,
    *addresses: str,
    user: str = "infravitals",
    password: str = "right",
    answer_seconds: float = 30,
    **more: object,
) -> AsyncIterator[Source]:
    secret = folder / "password"
    secret.write_text(password + "\n")
    written = {"addresses": addresses, "database": "postgres", "user": user, "password": {"file": str(secret)}, **more}
    config = msgspec.convert({"pairs": {"his-db": written}, "answer_seconds": answer_seconds}, Config)
    source = Source(config, Surroundings("gateway"))
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def look(source: Source, name: str = "replication") -> dict[str, Value]:
    readings = await source.collect()
    assert undeclared("postgresql_replication", readings) == []
    [found] = [reading for reading in readings if reading.name == name]
    return dict(found.fields)


async def test_pair_in_step_then_paused_then_two_masters(pair: tuple[Server, Server], tmp_path: Path) -> None:
    primary, standby = pair
    async with asking(tmp_path, primary.address, standby.address, token_table="infravitals_token") as source:

        async def is_in_step() -> bool:
            found = await look(source)
            return found["is_in_sync"] is True and found["lag_bytes"] == 0 == found["lag_seconds"]

        await until_async(is_in_step)
        found = await look(source)
        assert found["is_running"] is True
        assert found["serving_sides_count"] == 1, "the standby takes no token"
        assert await look(source, "role_group") == {"masters_count": 1, "members_count": 2}

        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql("CREATE TABLE big AS SELECT generate_series(1, 50000) AS n")

        async def is_behind() -> bool:
            behind = await look(source)
            assert behind["is_running"] is True
            return float(behind["lag_bytes"]) > 1e6 and float(behind["lag_seconds"]) > 0

        await until_async(is_behind)
        standby.sql("SELECT pg_wal_replay_resume()")
        await until_async(is_in_step)

        standby.sql("SELECT pg_promote()")
        found = await look(source)
        assert found["is_running"] is False and found["is_in_sync"] is False
        assert (await look(source, "role_group"))["masters_count"] == 2
        assert float((await look(source))["both_master_seconds"]) > 0


async def test_primary_that_is_gone_or_hangs_leaves_no_master_and_the_standby_still_answers(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, standby = pair
    async with asking(tmp_path, primary.address, standby.address, answer_seconds=3) as source:
        assert (await look(source, "role_group"))["masters_count"] == 1
        primary.signal(signal.SIGSTOP)
        found = await look(source)
        assert found["is_running"] is False and "lag_bytes" not in found
        primary.signal(signal.SIGCONT)

        async def is_running() -> bool:
            return (await look(source))["is_running"] is True

        await until_async(is_running)
        primary.kill()
        assert (await look(source, "role_group"))["masters_count"] == 0
        assert float((await look(source))["no_master_seconds"]) > 0
        standby.kill()
        with pytest.raises(SourceError, match="127"):
            await source.collect()


@pytest.mark.parametrize("ahead_seconds", [60, -60])
async def test_clocks_a_minute_apart_are_told_once_and_make_no_lag(
    ahead_seconds: int, pair: tuple[Server, Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    primary, standby = pair
    standby.stop()
    standby.start(ahead_seconds)
    async with asking(tmp_path, primary.address, standby.address) as source:

        async def is_streaming() -> bool:
            return (await look(source))["is_running"] is True

        await until_async(is_streaming)
        standby.sql("SELECT pg_wal_replay_pause()")
        primary.sql("CREATE TABLE more AS SELECT generate_series(1, 1000) AS n")

        async def is_behind() -> bool:
            return float((await look(source)).get("lag_bytes", 0)) > 0

        await until_async(is_behind)
        [reading] = [one for one in await source.collect() if one.name == "replication"]
        assert 0 <= float(reading.fields["lag_seconds"]) < 30
    ahead, behind = (standby, primary) if ahead_seconds > 0 else (primary, standby)
    said = [record.message for record in caplog.records if "60" in record.message and ahead.address in record.message]
    assert len(said) == 1 and behind.address in said[0] and reading.remark == said[0]


async def test_missing_right_wrong_password_and_missing_table_are_sentences(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, _ = pair
    async with asking(tmp_path, primary.address, user="nobody_special") as source:
        with pytest.raises(SourceError, match="GRANT pg_monitor"):
            await source.collect()
    async with asking(tmp_path, primary.address, password="wr0ng-pass") as source:
        with speaking("en"), pytest.raises(SourceError, match="password authentication failed") as caught:
            await source.collect()
        assert "wr0ng-pass" not in str(caught.value)
    async with asking(tmp_path, f"127.0.0.1:{free_port()}") as source:
        with speaking("en"), pytest.raises(SourceError, match=r"\(Connection refused\); check the address, the port"):
            await source.collect()


async def test_pair_that_refuses_us_is_told_and_the_other_keeps_its_readings(
    pair: tuple[Server, Server], tmp_path: Path
) -> None:
    primary, standby = pair
    (tmp_path / "right").write_text("right\n")
    (tmp_path / "wrong").write_text("wr0ng-pass\n")
    pairs = {
        name: {
            "addresses": [primary.address, standby.address],
            "database": "postgres",
            "user": "infravitals",
            "password": {"file": str(tmp_path / name)},
        }
        for name in ("right", "wrong")
    }
    source = Source(msgspec.convert({"pairs": pairs, "answer_seconds": 30}, Config), Surroundings("gateway"))
    try:
        with pytest.raises(Incomplete, match=r"pairs\.wrong\.password|password authentication failed") as caught:
            await source.collect()
    finally:
        await source.close()
    assert {reading.tags.get("pair", "right") for reading in caught.value.readings} == {"right"}
    assert len(caught.value.readings) == 2


async def test_server_that_is_silent_beside_one_that_answers_is_told_once(
    pair: tuple[Server, Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    absent = f"127.0.0.1:{free_port()}"
    async with asking(tmp_path, pair[0].address, absent) as source:
        for _ in range(2):
            first, *_ = await source.collect()
            assert absent in first.remark
    assert len([record for record in caplog.records if absent in record.message]) == 1


async def test_password_file_that_is_missing_is_named_with_its_key(tmp_path: Path) -> None:
    async with asking(tmp_path, "127.0.0.1:1") as source:
        (tmp_path / "password").unlink()
        with pytest.raises(SourceError, match=r"postgresql_replication\.pairs\.his-db\.password"):
            await source.collect()


async def test_nothing_configured_is_no_trouble() -> None:
    with pytest.raises(NoData):
        await Source(Config(), Surroundings("gateway")).collect()


def test_rights_that_sample_prints_are_enough(pair: tuple[Server, Server]) -> None:
    """The printed SQL runs as it stands; that it is enough the tests above show with the same rights."""
    primary, _ = pair
    primary.sql("DROP TABLE infravitals_token; DROP ROLE infravitals")
    primary.sql(GRANTS)
