"""sqlserver_alwayson against a fake SQL Server that speaks MS-TDS; its rows are made by the documented views, no real server could be had."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from fake_sqlserver import Cell, FakeSqlServer, Refusal, Rows
from servers import Authority, free_port

from agent.errors import NoData, SourceError
from agent.language import speaking
from agent.points import Value
from agent.sources import Surroundings
from agent.sources.sqlserver_alwayson import GRANTS, Config, Source

COLUMNS = (
    *("is_local", "role_desc", "connected_state_desc", "availability_mode_desc", "synchronization_state_desc"),
    *("is_suspended", "log_send_queue_size", "redo_queue_size", "secondary_lag_seconds", "is_failover_ready"),
)
OWN = (True, "PRIMARY", "CONNECTED", "SYNCHRONOUS_COMMIT", "SYNCHRONIZED", False, None, None, None, True)
IN_STEP = (False, "SECONDARY", "CONNECTED", "SYNCHRONOUS_COMMIT", "SYNCHRONIZED", False, 0, 0, 0, True)
SECONDARY = (True, *IN_STEP[1:])
MEMBERS = (("CLUSTER_NODE", "UP"), ("CLUSTER_NODE", "UP"), ("FILE_SHARE_WITNESS", "UP"))


def answers(*replicas: tuple[Cell, ...], members: tuple[tuple[str, str], ...] = MEMBERS) -> dict[str, Rows | Refusal]:
    return {
        "dm_hadr_database_replica_states": Rows(COLUMNS, replicas),
        "dm_exec_sessions": Rows(("",), [(4,)]),
        "sys.dm_hadr_cluster_members": Rows(("member_type_desc", "member_state_desc"), members),
        "sys.dm_hadr_cluster": Rows(("quorum_state_desc",), [("NORMAL_QUORUM",)] if members else []),
    }


@asynccontextmanager
async def asking(folder: Path, *addresses: str, answer_seconds: float = 30, **more: object) -> AsyncIterator[Source]:
    secret = folder / "password"
    secret.write_text("right\n")
    written = {
        "addresses": addresses,
        "database": "lis",
        "user": "infravitals",
        "password": {"file": str(secret)},
        **more,
    }
    config = msgspec.convert({"pairs": {"lis-db": written}, "answer_seconds": answer_seconds}, Config)
    source = Source(config, Surroundings("gateway"))
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def look(source: Source) -> dict[str, dict[str, Value]]:
    readings = await source.collect()
    assert undeclared("sqlserver_alwayson", readings) == []
    return {reading.name: dict(reading.fields) for reading in readings}


async def test_pair_in_step_its_roles_and_its_quorum(tmp_path: Path) -> None:
    with FakeSqlServer(answers(OWN, IN_STEP)) as first, FakeSqlServer(answers(SECONDARY)) as second:
        async with asking(tmp_path, first.address, second.address) as source:
            found = await look(source)
            assert "DB_ID(" in first.statements[0] and first.logins == 1
    assert found["replication"] == {
        "is_running": True,
        "is_in_sync": True,
        "is_switch_ready": True,
        "mode": "SYNCHRONOUS_COMMIT",
        "lag_seconds": 0.0,
        "lag_bytes": 0.0,
        "serving_sides_count": 2,
        "secondary_share_ratio": 0.5,
    }
    assert found["role_group"] == {"masters_count": 1, "members_count": 2}
    assert found["quorum"] == {"has_quorum": True, "nodes_up_count": 2, "nodes_count": 2, "is_witness_reachable": True}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {4: "SYNCHRONIZING", 6: 3, 7: 2, 8: 90, 9: False},
            {
                "is_running": True,
                "is_in_sync": False,
                "lag_bytes": 5120.0,
                "lag_seconds": 90.0,
                "is_switch_ready": False,
            },
        ),
        (
            {3: "ASYNCHRONOUS_COMMIT", 4: "SYNCHRONIZING", 9: False},
            {"is_running": True, "is_in_sync": True, "mode": "ASYNCHRONOUS_COMMIT"},
        ),
        ({5: True}, {"is_running": False, "is_in_sync": False}),
        ({2: "DISCONNECTED"}, {"is_running": False, "is_in_sync": False}),
        ({4: "NOT SYNCHRONIZING"}, {"is_running": False, "is_in_sync": False}),
    ],
    ids=["behind", "asynchronous with nothing to send", "suspended", "disconnected", "not synchronizing"],
)
async def test_secondary_that_is_not_in_step_is_told(
    change: dict[int, Cell], expected: dict[str, Value], tmp_path: Path
) -> None:
    row = tuple(change.get(place, cell) for place, cell in enumerate(IN_STEP))
    with FakeSqlServer(answers(OWN, row, members=())) as server:
        async with asking(tmp_path, server.address) as source:
            found = await look(source)
    assert found["replication"].items() >= expected.items()
    assert "quorum" not in found, "a group without a failover cluster has none"


async def test_witness_that_is_down_and_two_primaries_are_told(tmp_path: Path) -> None:
    members = (*MEMBERS[:1], ("CLUSTER_NODE", "DOWN"), ("FILE_SHARE_WITNESS", "DOWN"))
    with FakeSqlServer(answers(OWN, members=members)) as first, FakeSqlServer(answers(OWN)) as second:
        async with asking(tmp_path, first.address, second.address) as source:
            found = await look(source)
            assert found["role_group"]["masters_count"] == 2 and found["replication"]["is_running"] is False
            assert found["quorum"] == {
                "has_quorum": True,
                "nodes_up_count": 1,
                "nodes_count": 2,
                "is_witness_reachable": False,
            }
            assert float((await look(source))["replication"]["both_master_seconds"]) > 0


async def test_instance_without_quorum_is_shown_no_member_and_says_so(tmp_path: Path) -> None:
    lost = answers(SECONDARY, members=())
    lost["sys.dm_hadr_cluster"] = Rows(("quorum_state_desc",), [("UNKNOWN_QUORUM_STATE",)])
    with FakeSqlServer(lost) as server:
        async with asking(tmp_path, server.address) as source:
            assert (await look(source))["quorum"] == {"has_quorum": False, "nodes_up_count": 0}


async def test_missing_right_refused_login_and_foreign_database_are_sentences(tmp_path: Path) -> None:
    denied = Refusal(300, "VIEW SERVER STATE permission was denied on object 'server', database 'master'.")
    cases: list[tuple[FakeSqlServer, str]] = [
        (
            FakeSqlServer({"dm_hadr": denied}),
            "user infravitals lacks a right: VIEW SERVER STATE .*sample sqlserver_alwayson` prints the GRANT",
        ),
        (
            FakeSqlServer({}, login=Refusal(18456, "Login failed for user 'infravitals'.")),
            r"user infravitals is refused; check .*lis-db\.password",
        ),
        (FakeSqlServer(answers()), "the database lis is in no availability group"),
    ]
    for server, sentence in cases:
        with server, speaking("en"):
            async with asking(tmp_path, server.address) as source:
                with pytest.raises(SourceError, match=sentence) as caught:
                    await source.collect()
                assert "right\n" not in str(caught.value)
    with speaking("en"):
        async with asking(tmp_path, f"127.0.0.1:{free_port()}") as source:
            with pytest.raises(SourceError, match=r"Connection refused.*check the address"):
                await source.collect()


async def test_server_that_accepts_and_never_answers_costs_its_own_word_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, FakeSqlServer(answers(OWN, IN_STEP)) as server:
        hanging = f"127.0.0.1:{silent.getsockname()[1]}"
        async with asking(tmp_path, hanging, server.address, answer_seconds=3) as source:
            assert (await look(source))["replication"]["is_running"] is True
        async with asking(tmp_path, hanging, answer_seconds=1) as source:
            with speaking("en"), pytest.raises(SourceError, match=f"{hanging}: .*(no answer within 1 s|timed out)"):
                await source.collect()


@pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning"
)  # python-tds reads the names of a certificate in pyOpenSSL's old way
async def test_certificate_is_checked_where_a_ca_is_given(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "right"), Authority(tmp_path / "wrong")
    with FakeSqlServer(answers(OWN, IN_STEP), issued=authority.issue("db", "DNS:localhost")) as server:
        async with asking(tmp_path, server.address, ca=str(authority.certificate)) as source:
            assert (await look(source))["replication"]["is_in_sync"] is True
        wrong_name = f"127.0.0.1:{server.port}"
        for address, ca, sentence in (
            (server.address, other, f"is not signed by the CA in {other.certificate}"),
            (wrong_name, authority, f"checked with {authority.certificate}, is not for 127.0.0.1"),
        ):
            async with asking(tmp_path, address, ca=str(ca.certificate)) as source:
                with speaking("en"), pytest.raises(SourceError, match=sentence):
                    await source.collect()
        assert server.logins == 1, "the password goes to nobody who has not proven himself"
    with FakeSqlServer(answers(OWN, IN_STEP)) as plain:
        async with asking(tmp_path, plain.address, ca=str(authority.certificate)) as source:
            with speaking("en"), pytest.raises(SourceError, match="offers no TLS"):
                await source.collect()


async def test_nothing_configured_is_no_trouble_and_what_does_not_fit_is_refused() -> None:
    with pytest.raises(NoData):
        await Source(Config(), Surroundings("gateway")).collect()
    pair = {"addresses": ["db:1433"], "database": "lis", "user": "infravitals"}
    for more in ({"token_table": "t"}, {"tls": "require"}):
        with pytest.raises(msgspec.ValidationError, match=r"token_table|ca"):
            msgspec.convert({"pairs": {"lis": {**pair, **more}}}, Config)
    assert "VIEW SERVER STATE" in GRANTS
