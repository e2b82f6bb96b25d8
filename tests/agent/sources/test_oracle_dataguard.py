"""oracle_dataguard with answers made by the documented views, given by a fake session in the driver's place: no server could be had.

What the driver itself does is seen with real sockets: a server that accepts and never answers, one that is not there, one whose
certificate does not hold.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from servers import Authority, Issued, free_port, tcp_server, until_async

from agent.databases import Account, Dial, Row, Session, oracle
from agent.errors import NoData, SourceError
from agent.language import speaking
from agent.points import Value
from agent.sources import Surroundings
from agent.sources.oracle_dataguard import GRANTS, Config, Source, read_lags

PRIMARY: Row = ("PRIMARY", "READ WRITE", "MAXIMUM AVAILABILITY", "TO STANDBY", "SYNCHRONIZED", "YES", 40)
STANDBY: Row = (
    "PHYSICAL STANDBY",
    "READ ONLY WITH APPLY",
    "MAXIMUM AVAILABILITY",
    "NOT ALLOWED",
    "SYNCHRONIZED",
    "YES",
    0,
)
IN_STEP: Row = ("VALID", "OK", "NO GAP")


def lag(name: str, value: str, datum: str = "11/26/2026 10:00:00", computed: str = "11/26/2026 10:00:02") -> Row:
    return (name, value, computed, datum)


NONE_BEHIND = (lag("transport lag", "+00 00:00:00"), lag("apply lag", "+00 00:00:00"))


class FakeSession:
    """Gives the rows of the first view that a statement names."""

    def __init__(self, views: Mapping[str, Sequence[Row]]) -> None:
        self._views = views
        self.is_usable = True

    async def query(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        return list(next(rows for view, rows in self._views.items() if f"FROM {view}" in sql))

    async def named(self, sql: str) -> list[dict[str, object]]:
        raise NotImplementedError

    async def close(self) -> None:
        self.is_usable = False


def primary(facts: Row = PRIMARY, *destinations: Row) -> Mapping[str, Sequence[Row]]:
    return {"v$database": (facts,), "v$archive_dest_status": destinations or (IN_STEP,)}


def standby(lags: Sequence[Row] = NONE_BEHIND, facts: Row = STANDBY) -> Mapping[str, Sequence[Row]]:
    return {"v$database": (facts,), "v$dataguard_stats": lags}


def fake_dial(servers: Mapping[str, Mapping[str, Sequence[Row]]]) -> Dial:
    async def dial(host: str, port: int, account: Account, timeout_seconds: float) -> Session:
        if host not in servers:
            raise SourceError(f"{host}:{port}: ORA-01033")
        return FakeSession(servers[host])

    return dial


@asynccontextmanager
async def asking(dial: Dial, *addresses: str, answer_seconds: float = 30, **more: object) -> AsyncIterator[Source]:
    written = {"addresses": addresses, "database": "his", "user": "infravitals", **more}
    source = Source(
        msgspec.convert({"pairs": {"his-db": written}, "answer_seconds": answer_seconds}, Config),
        Surroundings("gateway"),
        dial,
    )
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def look(**servers: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Value]]:
    async with asking(fake_dial(servers), "a:1521", "b:1521") as source:
        readings = await source.collect()
    assert undeclared("oracle_dataguard", readings) == []
    return {reading.name: dict(reading.fields) for reading in readings}


async def test_pair_in_step_its_roles_and_its_observer() -> None:
    found = await look(a=primary(), b=standby())
    assert found["replication"] == {
        "is_running": True,
        "is_in_sync": True,
        "is_switch_ready": True,
        "mode": "MAXIMUM AVAILABILITY",
        "lag_seconds": 0.0,
        "serving_sides_count": 1,
        "secondary_share_ratio": 0.0,
    }
    assert found["role_group"] == {"masters_count": 1, "members_count": 2}
    assert found["quorum"] == {"is_witness_reachable": True}


@pytest.mark.parametrize(
    ("destination", "lags", "expected"),
    [
        (
            ("VALID", "DESTINATION HAS A GAP", "RESOLVABLE GAP"),
            (lag("apply lag", "+01 02:03:04.5"),),
            {"is_running": False, "is_in_sync": False, "lag_seconds": 93784.5},
        ),
        (("ERROR", None, None), NONE_BEHIND, {"is_running": False, "is_in_sync": False}),
        (("VALID", "CHECK CONFIGURATION", "NO GAP"), NONE_BEHIND, {"is_running": True, "is_in_sync": True}),
        (
            ("VALID", "CHECK CONFIGURATION", "NO GAP"),
            (lag("transport lag", "+00 00:00:07"), lag("apply lag", "+00 00:00:09")),
            {"is_running": True, "is_in_sync": False, "lag_seconds": 9.0},
        ),
    ],
    ids=["gap", "error", "asynchronous with everything received", "asynchronous and behind"],
)
async def test_standby_that_is_behind_is_told(
    destination: Row, lags: Sequence[Row], expected: dict[str, Value]
) -> None:
    found = await look(a=primary(PRIMARY, destination), b=standby(lags))
    assert found["replication"].items() >= expected.items()


def test_lag_that_was_computed_of_old_data_is_at_least_so_old_and_an_unknown_one_is_none() -> None:
    """A primary that is gone leaves a lag of 0 that grows old; both times are the standby's, so that no clock matters."""
    gone = read_lags([lag("apply lag", "+00 00:00:00", datum="11/26/2026 10:00:00", computed="11/26/2026 10:05:00")])
    assert gone == {"apply lag": 300.0}
    assert read_lags([("apply lag", None, "11/26/2026 10:00:00", None), lag("transport lag", "unknown")]) == {}


async def test_no_primary_two_primaries_and_an_absent_observer_are_told() -> None:
    found = await look(b=standby())
    assert found["role_group"]["masters_count"] == 0 and found["replication"]["is_running"] is False
    found = await look(a=primary(), b=primary())
    assert found["role_group"]["masters_count"] == 2 and found["replication"]["is_in_sync"] is False
    found = await look(a=primary((*PRIMARY[:5], "NO", 40)), b=standby())
    assert found["quorum"] == {"is_witness_reachable": False}
    found = await look(a=primary((*PRIMARY[:4], "DISABLED", None, 40)), b=standby())
    assert "quorum" not in found, "without fast-start failover there is no observer"


async def test_standby_that_lets_nobody_in_leaves_the_primary_s_word() -> None:
    found = await look(a=primary())
    assert found["replication"]["is_in_sync"] is True and "lag_seconds" not in found["replication"]


@asynccontextmanager
async def listening(tls: Issued | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Accepts and never answers; with a certificate after the handshake. Gives its port and what was said to it."""
    said: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(4096):
                said.append(part)
        writer.close()

    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
    async with tcp_server(hear, tls=context) as port:
        yield port, said


@pytest.fixture
def password(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "password").write_text("right\n")
    return {"file": str(tmp_path / "password")}


async def test_server_that_accepts_and_never_answers_is_given_up_and_one_that_is_not_there_is_named(
    password: dict[str, str],
) -> None:
    async with (
        listening() as (port, said),
        asking(oracle.dial, f"127.0.0.1:{port}", answer_seconds=3, password=password) as source,
    ):
        with (
            speaking("en"),
            pytest.raises(SourceError, match=rf"127\.0\.0\.1:{port}: .*(no answer within 3 s|timed out)"),
        ):
            await source.collect()
        await until_async(lambda: said)  # the driver did speak to it
    port = free_port()
    async with asking(oracle.dial, f"127.0.0.1:{port}", password=password) as source:
        with speaking("en"), pytest.raises(SourceError, match=rf"127\.0\.0\.1:{port}: .*check the address, the port"):
            await source.collect()


async def test_certificate_is_checked_before_a_word_is_said(tmp_path: Path, password: dict[str, str]) -> None:
    authority, other = Authority(tmp_path / "right"), Authority(tmp_path / "wrong")
    async with listening(authority.issue("db", "DNS:localhost")) as (port, said):
        for host, ca, sentence in (
            ("localhost", other, f"is not signed by the CA in {other.certificate}"),
            ("127.0.0.1", authority, f"checked with {authority.certificate}, is not for 127.0.0.1"),
        ):
            async with asking(oracle.dial, f"{host}:{port}", ca=str(ca.certificate), password=password) as source:
                with speaking("en"), pytest.raises(SourceError, match=sentence):
                    await source.collect()
        assert said == []
        login = {"ca": str(authority.certificate), "password": password}
        async with asking(oracle.dial, f"localhost:{port}", answer_seconds=3, **login) as source:
            with pytest.raises(SourceError):
                await source.collect()
        await until_async(lambda: said)  # the right one is spoken to, through TLS


def test_errors_of_oracle_say_what_to_do() -> None:
    account = Account("his", "infravitals", None, "oracle_dataguard.pairs.his-db")
    for words, sentence in (
        ("ORA-00942: table or view does not exist", "lacks a right: ORA-00942.*prints the GRANT"),
        ("ORA-01017: invalid credential", "is refused .*his-db.password"),
        ("ORA-01033: ORACLE initialization or shutdown in progress", "only mounted lets no plain user in"),
        ("ORA-12514: TNS:listener does not currently know of service", "there is no service his"),
    ):
        with speaking("en"):
            assert re.search(sentence, oracle._explain(Exception(words), account))


async def test_nothing_configured_is_no_trouble_and_tokens_are_refused() -> None:
    with pytest.raises(NoData):
        await Source(Config(), Surroundings("gateway")).collect()
    pair = {"addresses": ["db:1521"], "database": "his", "user": "infravitals", "token_table": "t"}
    with pytest.raises(msgspec.ValidationError, match="token_table"):
        msgspec.convert({"pairs": {"his": pair}}, Config)
    assert "v_$archive_dest_status" in GRANTS
