"""TLS to databases: a real PostgreSQL and a real MariaDB with certificates of the test's own authority."""

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hospital.mariadb import lone_server
from hospital.postgres import Server as Postgres
from hospital.postgres import postgres_pair
from servers import Authority, Issued, until

from agent.broker import Secret
from agent.config import read_config
from agent.continuity.settings import Probe
from agent.databases import Account, Dial, Session, TlsMode, mysql, postgresql
from agent.documents import FileMistakes
from agent.errors import SourceError
from agent.language import speaking
from agent.sources import Surroundings, load_source, postgresql_replication

KEY = "continuity_probe.probes.his-db"


class Place:
    """A server with its door. show: what says whether a session is enciphered."""

    def __init__(self, port: int, dial: Dial, database: str, show: Callable[[Session], Awaitable[bool]]) -> None:
        self.port, self.dial, self.database, self.is_enciphered = port, dial, database, show


async def ask_postgresql(session: Session) -> bool:
    [[enciphered]] = await session.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    return enciphered is True


async def ask_mariadb(session: Session) -> bool:
    [[_, cipher]] = await session.query("SHOW STATUS LIKE 'Ssl_cipher'")
    return bool(cipher)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("right"), "the hospital's authority")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Authority(tmp_path_factory.mktemp("wrong"), "somebody else").certificate


def hand_over(issued: Issued, folder: Path, user: str) -> tuple[Path, Path]:
    """Certificate and key where `user` alone may read them."""
    places = []
    for name, source in (("server.crt", issued.certificate), ("server.key", issued.key)):
        place = folder / name
        shutil.copy(source, place)
        shutil.chown(place, user, user)
        place.chmod(0o600)
        places.append(place)
    return places[0], places[1]


def set_certificate(server: Postgres, issued: Issued) -> None:
    """The server shows this certificate from now on."""
    certificate, key = hand_over(issued, server.data, "postgres")
    for setting in (f"ssl_cert_file = '{certificate}'", f"ssl_key_file = '{key}'", "ssl = on"):
        server.sql(f"ALTER SYSTEM SET {setting}")
    server.sql("SELECT pg_reload_conf()")
    until(lambda: server.sql("SHOW ssl") == ["on"])


@contextmanager
def postgresql_place(issued: Issued) -> Iterator[Place]:
    with postgres_pair(is_synchronous=False) as (primary, _):
        set_certificate(primary, issued)
        yield Place(primary.port, postgresql.dial, "postgres", ask_postgresql)


@contextmanager
def mariadb_place(issued: Issued, folder: Path) -> Iterator[Place]:
    os.chmod(folder, 0o755)  # noqa: PTH101  the server's user goes through it
    certificate, key = hand_over(issued, folder, "mysql")
    with lone_server(f"ssl_cert={certificate}\nssl_key={key}\n") as server:
        yield Place(server.port, mysql.dial, "his", ask_mariadb)


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Place]:
    """A server whose certificate is for `localhost` alone: the address 127.0.0.1 is a wrong name."""
    issued = authority.issue("db", alternative_names="DNS:localhost")
    if request.param == "postgresql":
        with postgresql_place(issued) as made:
            yield made
        return
    folder = Path("/tmp") / f"infravitals-tls-{os.getpid()}"
    folder.mkdir()
    try:
        with mariadb_place(issued, folder) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def password(tmp_path: Path) -> Secret:
    file = tmp_path / "password"
    file.write_text("right\n")
    return Secret(file=str(file))


async def is_enciphered(
    place: Place, password: Secret, host: str, tls: TlsMode | None = None, ca: Path | None = None
) -> bool:
    account = Account(place.database, "infravitals", password, KEY, tls, str(ca) if ca else None)
    session = await place.dial(host, place.port, account, 60.0)
    try:
        return await place.is_enciphered(session)
    finally:
        await session.close()


async def test_server_that_proves_itself_is_taken_and_the_way_is_enciphered(
    place: Place, authority: Authority, password: Secret
) -> None:
    assert await is_enciphered(place, password, "localhost", ca=authority.certificate)
    assert await is_enciphered(place, password, "localhost", "verify", authority.certificate)


async def test_without_a_ca_it_is_as_before_or_as_said(place: Place, password: Secret) -> None:
    assert await is_enciphered(place, password, "127.0.0.1"), "where the server offers it"
    assert await is_enciphered(place, password, "127.0.0.1", "require")
    assert not await is_enciphered(place, password, "127.0.0.1", "off")


async def test_wrong_authority_and_wrong_name_are_refused_in_one_sentence_that_names_the_file(
    place: Place, authority: Authority, wrong: Path, password: Secret
) -> None:
    with speaking("en"):
        with pytest.raises(SourceError) as caught:
            await is_enciphered(place, password, "localhost", ca=wrong)
        assert f"is not signed by the CA in {wrong}" in str(caught.value)
        assert f"put the CA that signed it into that file ({KEY}.ca)" in str(caught.value)
        with pytest.raises(SourceError) as caught:
            await is_enciphered(place, password, "127.0.0.1", ca=authority.certificate)
    said = str(caught.value)
    assert f"checked with {authority.certificate}, is not for 127.0.0.1" in said and KEY in said
    assert "\n" not in said


async def test_replication_and_tokens_dial_as_their_section_says(
    place: Place, authority: Authority, wrong: Path, password: Secret
) -> None:
    kind = "postgresql" if place.dial is postgresql.dial else "mysql"
    module = load_source(f"{kind}_replication")
    for ca in (authority.certificate, wrong):
        login = {"database": place.database, "user": "infravitals", "password": {"file": password.file}, "ca": str(ca)}
        where = {"addresses": [f"localhost:{place.port}"], **login}
        source = module.Source(msgspec.convert({"pairs": {"his-db": where}}, module.Config), Surroundings("gateway"))
        reach = msgspec.convert({"service": "his", "kind": kind, **where}, Probe).make_reach("his-db")
        if ca == wrong:
            with speaking("en"), pytest.raises(SourceError, match=f"CA in {wrong}.*pairs.his-db.ca"):
                await source.collect()
            with speaking("en"), pytest.raises(SourceError, match=f"CA in {wrong}.*probes.his-db.ca"):
                await reach.send(1, 0.0)
        else:
            assert await source.collect()
            assert await reach.send(1, 0.0)
        await source.close()
        await reach.close()


async def test_file_that_is_none_is_named(place: Place, password: Secret, tmp_path: Path) -> None:
    nothing, nonsense = tmp_path / "absent.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate\n")
    for file in (nothing, nonsense):
        with speaking("en"), pytest.raises(SourceError, match=f"cannot use the CA file {file}: .*{KEY}.ca must name"):
            await is_enciphered(place, password, "localhost", ca=file)


async def test_server_without_tls_is_refused_where_it_is_asked_for(password: Secret) -> None:
    with postgres_pair(is_synchronous=False) as (primary, _), lone_server("skip_ssl\n") as server:
        places = (
            Place(primary.port, postgresql.dial, "postgres", ask_postgresql),
            Place(server.port, mysql.dial, "his", ask_mariadb),
        )
        for one in places:
            assert not await is_enciphered(one, password, "127.0.0.1"), "as before: in the clear"
            with speaking("en"), pytest.raises(SourceError, match=f"offers no TLS and {KEY} asks for it"):
                await is_enciphered(one, password, "127.0.0.1", "require")


def test_tls_and_ca_that_contradict_each_other_are_refused() -> None:
    pair = {"addresses": ["db:5432"], "database": "postgres", "user": "infravitals"}
    probe = {"service": "his", "kind": "mysql", **pair}
    for more in ({"tls": "verify"}, {"tls": "off", "ca": "/ca.pem"}, {"tls": "require", "ca": "/ca.pem"}):
        for written, kind in ((pair, postgresql_replication.Config), (probe, Probe)):
            made = {"pairs": {"his": {**pair, **more}}} if kind is not Probe else {**written, **more}
            with pytest.raises(msgspec.ValidationError, match="ca"):
                msgspec.convert(made, kind)
    for wrong in (
        {**probe, "tls": {"ca": "/ca.pem"}},
        {"service": "his", "kind": "http", "addresses": ["a:1"], "ca": "/c"},
    ):
        with pytest.raises(msgspec.ValidationError, match="ca"):
            msgspec.convert(wrong, Probe)
    assert msgspec.convert({**probe, "ca": "/ca.pem"}, Probe).ca == "/ca.pem"


def test_word_that_is_none_of_those_names_them(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    probe = "{service: his, kind: mysql, addresses: ['db:1'], database: his, user: u, tls: verfy}"
    head = "site: a-hospital\nagent: his-probe\nbroker: {host: 127.0.0.1}\nsources:\n  continuity_probe:\n    probes:\n"
    path.write_text(f"{head}      db: {probe}\n")
    with speaking("en"), pytest.raises(FileMistakes, match=r"7: 'tls': expected verify, require, off"):
        read_config(path)
