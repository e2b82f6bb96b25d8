"""Tokens in a real PostgreSQL and a real MariaDB without the right or without the table: the sentence says what to run."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hospital.mariadb import lone_server
from hospital.postgres import postgres_pair
from servers import free_port, until_async

from agent.continuity import sql
from agent.continuity.settings import Probe
from agent.continuity.sql import SqlTokens
from agent.continuity.tokens import Token
from agent.databases import Account, Session
from agent.errors import OwnMistake, SourceError
from agent.language import speaking
from agent.sources import Incomplete, Reading, Surroundings
from agent.sources.continuity_probe import Config, Source


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """What a probe of it has to say."""
    if request.param == "postgresql":
        with postgres_pair(is_synchronous=False) as (primary, _):
            primary.sql("GRANT CREATE ON SCHEMA public TO nobody_special")
            primary.sql("CREATE ROLE may_not_delete LOGIN PASSWORD 'right'")
            primary.sql("GRANT SELECT, INSERT ON infravitals_token TO may_not_delete")
            yield {"kind": "postgresql", "addresses": [primary.address], "database": "postgres"}
        return
    with lone_server("") as lone:
        lone.sql("GRANT SELECT ON his.infravitals_token TO nobody_special@'%'")
        lone.sql("CREATE USER may_not_delete@'%' IDENTIFIED BY 'right'")
        lone.sql("GRANT SELECT, INSERT ON his.infravitals_token TO may_not_delete@'%'")
        yield {"kind": "mysql", "addresses": [lone.address], "database": "his"}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No deadline is tested here, and on a busy machine a login may take longer than a token has."""
    monkeypatch.setattr(sql, "READ_SECONDS", 60.0)
    monkeypatch.setattr(SqlTokens.__init__, "__defaults__", (60.0,))  # timeout_seconds


@pytest.mark.parametrize(
    ("user", "table", "sentence"),
    [
        ("nobody_special", "infravitals_token", "user nobody_special lacks a right: .*sample` prints the GRANT"),
        ("infravitals", "absent", "absent.*prints the (CREATE TABLE|GRANT)"),
    ],
    ids=["right", "table"],
)
async def test_missing_right_and_missing_table_say_what_to_run(
    user: str, table: str, sentence: str, server: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("right\n")
    login = {"user": user, "password": {"file": str(tmp_path / "password")}, "table": table}
    reach = msgspec.convert({"service": "his", **server, **login}, Probe).make_reach("his-db")
    with speaking("en"), pytest.raises(OwnMistake, match=sentence) as caught:
        await reach.send(1, 0.0)
    assert "\n" not in str(caught.value)
    await reach.close()


async def test_newest_tokens_stay_when_the_oldest_go(
    server: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "PRUNE_EVERY", 10)
    monkeypatch.setattr(sql, "KEPT", 5)
    (tmp_path / "password").write_text("right\n")
    login = {"user": "infravitals", "password": {"file": str(tmp_path / "password")}}
    reach = msgspec.convert({"service": "his", **server, **login}, Probe).make_reach("pruned")
    for number in range(30):
        await reach.send(number, float(number))

    async def is_pruned() -> bool:
        return 0 not in await reach.read_back(0, 29)

    await until_async(is_pruned)
    present = await reach.read_back(0, 29)
    assert {25, 26, 27, 28, 29} <= present
    await reach.close()


async def test_client_stays_with_the_address_that_served_last() -> None:
    dialled: list[int] = []
    is_first_up = False

    class Served:
        """A fake session that takes everything and is good for one use."""

        is_usable = False

        async def query(self, text: str, values: Sequence[object] = ()) -> list[list[object]]:
            return []

        async def named(self, text: str) -> list[dict[str, object]]:
            return []

        async def close(self) -> None:
            """Holds nothing."""

    async def dial(host: str, port: int, account: Account, seconds: float) -> Served:
        dialled.append(port)
        if port == 1 and not is_first_up:
            raise SourceError("down")
        return Served()

    async def identify(session: Session) -> str:
        return "any"

    account = Account("his", "infravitals", None, "probes.his")
    reach = SqlTokens([("db", 1), ("db", 2)], account, "infravitals_token", "his", dial, identify)
    assert await reach.send(1, 0.0) == "db:2"
    is_first_up = True
    assert await reach.send(2, 1.0) == "db:2"
    assert dialled == [1, 2, 2]
    await reach.close()


async def test_tokens_of_a_drill_that_was_killed_are_deleted_by_whoever_comes_next(
    server: dict[str, object], tmp_path: Path
) -> None:
    """A drill of eight days ago, one of yesterday that may be on, and a probe's own stream that is old."""
    (tmp_path / "password").write_text("right\n")
    login = {"user": "infravitals", "password": {"file": str(tmp_path / "password")}}
    probe = msgspec.convert({"service": "his", **server, **login}, Probe)
    now = 1_800_000_000.0
    written = {"drill-killed": now - 8 * 86400, "drill-on": now - 6 * 86400, "drillx": now - 8 * 86400}
    for stream, sent_at in written.items():
        reach = probe.make_reach(stream)
        await reach.send(1, sent_at)
        await reach.close()
    reaches = {stream: probe.make_reach(stream) for stream in written}
    next_one = probe.make_reach("his-db")
    await next_one.send(1, now)

    async def is_gone() -> bool:
        return not await reaches["drill-killed"].read_back(0, 9)

    await until_async(is_gone)
    assert [await reaches[stream].read_back(0, 9) for stream in ("drill-on", "drillx")] == [{1}, {1}]
    assert await next_one.read_back(0, 9) == {1}
    for reach in (next_one, *reaches.values()):
        await reach.close()


async def test_right_to_delete_that_is_missing_is_told_once_and_is_no_outage(
    server: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sql, "PRUNE_EVERY", 2)
    (tmp_path / "password").write_text("right\n")
    login = {"user": "may_not_delete", "password": {"file": str(tmp_path / "password")}}
    reach = msgspec.convert({"service": "his", **server, **login}, Probe).make_reach("kept")
    with speaking("en"):
        for number in range(9):
            await reach.send(number, float(number))
            await until_async(lambda: isinstance(reach, SqlTokens) and reach._pruning is None)
    await reach.close()
    [told] = [record.getMessage() for record in caplog.records if "cannot be deleted" in record.getMessage()]
    assert "infravitals_token grows" in told and "prints the GRANT" in told


MISTAKES = {
    "password": ({}, "wrong\n", "(authentication failed|Access denied)"),
    "no-file": ({"password": {"file": "/nowhere/password"}}, "right\n", "/nowhere/password"),
    "ca": ({"ca": "/nowhere/ca.pem", "tls": "verify"}, "right\n", "cannot use the CA file /nowhere/ca.pem"),
    "right": ({"user": "nobody_special"}, "right\n", "`infravitals-agent sample` prints the GRANT"),
    "table": ({"table": "absent"}, "right\n", "absent"),
    "database": ({"database": "absent"}, "right\n", "absent"),
    "user": ({"user": "nobody"}, "right\n", "(authentication failed|does not exist|Access denied)"),
}


async def collect(source: Source) -> tuple[dict[str, Reading], str]:
    """The service_probe of every probe that has one, and why the round failed, "" when it did not."""
    trouble = ""
    try:
        readings = list(await source.collect())
    except Incomplete as error:
        readings, trouble = list(error.readings), str(error)
    assert not [one for one in readings if one.name in ("outage", "drill")]
    return {one.tags["probe"]: one for one in readings if one.name == "service_probe"}, trouble


def probing(server: dict[str, object], folder: Path, more: dict[str, object]) -> Source:
    """The database beside a port that nobody listens on."""
    login = {"user": "infravitals", "password": {"file": str(folder / "password")}}
    probes = {
        "his-db": {"service": "his", **server, **login, **more},
        "closed": {"service": "lis", "kind": "tcp", "addresses": [f"127.0.0.1:{free_port()}"]},
    }
    config = msgspec.convert({"probes": probes, "period_seconds": 0.1}, Config)
    return Source(msgspec.structs.replace(config, timeout_seconds=60.0), Surroundings("his-probe"))


@pytest.mark.parametrize(("more", "password", "sentence"), MISTAKES.values(), ids=MISTAKES)
async def test_mistake_of_our_own_is_no_outage_and_leaves_the_other_probes_alone(
    more: dict[str, object], password: str, sentence: str, server: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(password)
    source = probing(server, tmp_path, more)
    with speaking("en"):
        await source.open()
        stream = source._streams["his-db"]
        try:
            await until_async(lambda: stream._watch.state.expected and stream.mistake)
            found, trouble = await collect(source)
            assert "his-db" not in found, "nobody knows"
            assert found["closed"].fields["is_up"] is False, "a refused connection is the service's"
            assert trouble.startswith("his-db: ")
            assert re.search(sentence, trouble)
            settled: list[Token] = []
            stream.observe = settled.append
            await until_async(lambda: len(settled) > 5)
            assert all(token.is_unknown for token in settled)
            assert not stream.is_out and not stream.is_timing
        finally:
            await source.close()


async def test_password_that_is_mended_is_used_at_once_and_no_outage_is_told(
    server: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong\n")
    source = probing(server, tmp_path, {})
    await source.open()
    try:
        await until_async(lambda: source._streams["his-db"].mistake)
        assert (await collect(source))[1]
        (tmp_path / "password").write_text("right\n")
        await source.open()  # as the runner does after a failed round; the tokens go on

        async def is_up() -> bool:
            found, trouble = await collect(source)
            return not trouble and "his-db" in found and found["his-db"].fields["is_up"] is True

        await until_async(is_up)
    finally:
        await source.close()


@pytest.mark.parametrize("mistake", ["password", "no-file", "ca"])
async def test_database_that_is_not_there_is_down_whatever_our_own_mistake(
    mistake: str, server: dict[str, object], tmp_path: Path
) -> None:
    more, password, _ = MISTAKES[mistake]
    (tmp_path / "password").write_text(password)
    source = probing({**server, "addresses": [f"127.0.0.1:{free_port()}"]}, tmp_path, more)
    await source.open()
    try:
        await until_async(lambda: source._streams["his-db"].is_out)
        found, trouble = await collect(source)
        assert found["his-db"].fields["is_up"] is False and not trouble
    finally:
        await source.close()


async def test_password_file_that_is_gone_does_not_shut_us_out(server: dict[str, object], tmp_path: Path) -> None:
    """MySQL counts clients that break off their login and blocks their address after `max_connect_errors` of them (100)."""
    login = {"user": "infravitals", "password": {"file": str(tmp_path / "password")}}
    reach = msgspec.convert({"service": "his", **server, **login}, Probe).make_reach("his-db")
    for number in range(120):
        with pytest.raises(OwnMistake, match="password"):
            await reach.send(number, 0.0)
    (tmp_path / "password").write_text("right\n")
    await reach.send(120, 0.0)
    await reach.close()
