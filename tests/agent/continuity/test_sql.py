"""Tokens in a real PostgreSQL and a real MariaDB without the right or without the table: the sentence says what to run."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hospital.mariadb import lone_server
from hospital.postgres import postgres_pair

from agent.continuity.settings import Probe
from agent.errors import SourceError
from agent.language import speaking


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """What a probe of it has to say."""
    if request.param == "postgresql":
        with postgres_pair(is_synchronous=False) as (primary, _):
            primary.sql("GRANT CREATE ON SCHEMA public TO nobody_special")
            yield {"kind": "postgresql", "addresses": [primary.address], "database": "postgres"}
        return
    with lone_server("") as lone:
        lone.sql("GRANT SELECT ON his.infravitals_token TO nobody_special@'%'")
        yield {"kind": "mysql", "addresses": [lone.address], "database": "his"}


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
    with speaking("en"), pytest.raises(SourceError, match=sentence) as caught:
        await reach.send(1, 0.0)
    assert "\n" not in str(caught.value)
    await reach.close()
