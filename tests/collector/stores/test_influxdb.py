"""The InfluxDB store in the troubles of the world: each is one clear sentence, costs no good point, and holds no secret."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from influxstore import config_of
from linkstore import CATALOGUE, ETH0, HIGH_IS_BAD, MINUTE_MS, START, answer, applied, ask, batch, every_minute, point
from servers import Influx, free_port, until

from agent.broker import Secret
from agent.errors import PointsRefused, StoreError
from agent.language import choose
from agent.points import Point
from collector.query import DAY_MS, Take
from collector.stores import AppliedBatch, BatchName
from collector.stores._influx_http import Door
from collector.stores._influx_ledger import NEAR_MS
from collector.stores.influxdb import Config, Store

PASSWORD = Influx.ADMIN[1]


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@pytest.fixture
def store(influx: Influx, database: str) -> Iterator[Store]:
    with Store(config_of(influx, database), CATALOGUE) as opened:
        yield opened


def refusal(store: Store, *batches: AppliedBatch) -> str:
    with pytest.raises(StoreError) as caught:
        store.write(batches)
    chain: BaseException | None = caught.value
    assert PASSWORD not in str(caught.value)
    while chain is not None:
        assert PASSWORD not in repr(chain)
        chain = chain.__cause__
    return str(caught.value)


def kept_seqs(store: Store, count: int) -> set[int]:
    found = applied(store, [f"b1/{seq}" for seq in range(count)])
    return {int(identity.partition("/")[2]) for identity in found}


# -- configuration


def test_configuration_names_one_place_only() -> None:
    for wrong in (
        {},
        {"database": "d", "bucket": "b"},
        {"database": "d", "org": "o"},
        {"database": "d", "password": {"env": "X"}},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"url": "http://h:8086", **wrong}, Config)
    with pytest.raises(msgspec.ValidationError) as caught:  # a password is not written into an address, nor shown
        msgspec.convert({"url": f"http://user:{PASSWORD}@h:8086", "database": "d"}, Config)
    assert PASSWORD not in str(caught.value)


def test_usual_environment_variables_work_as_defaults() -> None:
    environment = {"INFLUXDB_V2_URL": "https://h:8086/", "INFLUXDB_V2_ORG": "hospital", "INFLUXDB_V2_TOKEN": "t0p"}
    place = Config(bucket="vitals").place(environment)
    assert (place.url, place.org, place.token, place.database) == ("https://h:8086", "hospital", "t0p", "vitals")
    assert "t0p" not in repr(place)


def test_what_is_written_goes_packed_unless_the_server_is_on_this_machine() -> None:
    far, near = Config(url="https://h:8086", database="d"), Config(url="http://[::1]:8086", database="d")
    assert (far.place({}).is_packed, near.place({}).is_packed) == (True, False)
    local = {"INFLUXDB_V2_URL": "http://localhost:8086", "INFLUXDB_V2_ORG": "o"}
    assert not Config(bucket="b").place(local).is_packed
    assert not Config(url="https://h:8086", database="d", gzip=False).place({}).is_packed


@pytest.mark.parametrize("is_packed", [True, False])
def test_packed_or_not_the_server_has_the_same(influx: Influx, database: str, is_packed: bool) -> None:
    with Store(msgspec.structs.replace(config_of(influx, database), gzip=is_packed), CATALOGUE) as store:
        store.write([batch(0, point(0, busy_ratio=5.0))])
        assert [row.fields for row in store.latest("link", START)] == [{"busy_ratio": 5.0}]


def test_secret_that_is_not_there_is_said() -> None:
    config = Config(url="http://h", database="d", user="u", password=Secret(env="NOT_SET"))
    with pytest.raises(StoreError, match=r"store\.password: the environment variable NOT_SET is not set"):
        config.place({})
    config = Config(url="http://h", bucket="b", org="o", token=Secret(file="/nowhere"))
    with pytest.raises(StoreError, match=r"file /nowhere: it does not exist; mend it or change store\.token"):
        config.place({})
    with pytest.raises(StoreError, match="nor is the environment variable INFLUXDB_V2_URL"):
        Config(database="d").place({})


# -- rights


def test_wrong_password_is_said(influx: Influx, database: str) -> None:
    config = msgspec.structs.replace(config_of(influx, database), password=Secret(env="WRONG"))
    with Store(config, CATALOGUE, {"WRONG": "not this"}) as store:
        said = refusal(store, batch(0))
    assert (
        said
        == f"{influx.url}: the token, or the user and password, are wrong; look at the store's token, or its user and password"
    )


@pytest.mark.parametrize("right", ["READ", "WRITE"])
def test_user_with_half_the_rights_is_said(influx: Influx, database: str, right: str) -> None:
    user = f"half_{right.lower()}_{database}"
    influx.ask(f"CREATE USER {user} WITH PASSWORD 'half'")
    influx.ask(f"GRANT {right} ON {database} TO {user}")
    config = msgspec.structs.replace(config_of(influx, database), user=user, password=Secret(env="HALF"))
    with Store(config, CATALOGUE, {"HALF": "half"}) as store:
        assert refusal(store, batch(0, point(0, busy_ratio=1.0))) == (
            f"{influx.url}: no right to read and write {database}; grant this token or user both"
        )


def test_user_with_both_rights_and_no_more_is_enough(influx: Influx, database: str) -> None:
    influx.ask(f"CREATE USER u_{database} WITH PASSWORD 'half'")
    influx.ask(f"GRANT ALL ON {database} TO u_{database}")
    config = msgspec.structs.replace(config_of(influx, database), user=f"u_{database}", password=Secret(env="HALF"))
    with Store(config, CATALOGUE, {"HALF": "half"}) as store:
        store.write([batch(0, *every_minute(5))])
        store.buckets(ask(), START + DAY_MS)
        store.keep()
        assert store.prune(START + 90 * DAY_MS) == 5
        assert [total.points for total in store.totals()] == [5]


def test_missing_database_is_said(influx: Influx) -> None:
    with Store(config_of(influx, "nowhere"), CATALOGUE) as store:
        said = refusal(store, batch(0, point(0, busy_ratio=1.0)))
        assert said == f"{influx.url}: there is no database or bucket nowhere; make it first"


# -- points that the server will never take


def test_field_of_another_type_costs_its_points_alone_and_names_the_field(
    influx: Influx, database: str, store: Store
) -> None:
    with Door(config_of(influx, database).place({})) as door:
        door.write([f"link,site=main,asset=x busy_ratio=1i {START}000000"])
    good, bad = point(0, name="alarm", tags={}, raised_count=1.0), point(0, busy_ratio=1.0)
    with pytest.raises(PointsRefused) as caught:
        store.write([batch(0, bad, good)])
    assert str(caught.value).startswith(f"{influx.url}: field link.busy_ratio has another type in the database")
    assert [row.fields for row in store.latest("alarm", 0)] == [{"raised_count": 1.0}]
    assert kept_seqs(store, 1) == set(), "without its row it comes again, and is set aside by whoever reads the refusal"
    store.write([batch(1, good)])
    assert kept_seqs(store, 2) == {1}


def test_point_beyond_the_retention_of_the_database_is_refused_for_good(influx: Influx, database: str) -> None:
    influx.ask(f"ALTER RETENTION POLICY autogen ON {database} DURATION 2h SHARD DURATION 1h")
    with (
        Door(config_of(influx, database).place({})) as door,
        pytest.raises(PointsRefused, match="older than the database's retention"),
    ):
        door.write([f"link,site=main busy_ratio=1 {START}000000"])


def test_point_of_the_year_3000_is_refused_and_its_neighbours_are_stored(store: Store) -> None:
    year_3000 = Point("link", {"asset": "a", "interface": "x"}, {"busy_ratio": 1.0}, 32_503_680_000_000)
    with pytest.raises(PointsRefused, match="1 points bear a time that InfluxDB does not have"):
        store.write([batch(0, year_3000, point(0, busy_ratio=5.0))])
    assert answer(store, ask(buckets=1), [ETH0], HIGH_IS_BAD)[0].known == 5.0


def test_batch_that_says_it_was_made_in_the_year_3000_has_its_row(store: Store) -> None:
    odd = batch(0, point(0, busy_ratio=1.0))._replace(made_at=32_503_680_000_000)
    store.write([odd])
    store.write([odd])
    wanted = {BatchName("main", "gw-1", "b1/0"): (odd.made_at, odd.made_at)}
    assert store.applied(wanted) == set(wanted)
    assert [(total.batches, total.last_made_at) for total in store.totals()] == [(1, odd.made_at)]


# -- size


def test_batch_of_ten_megabytes_is_stored(store: Store) -> None:
    big = [point(place, f"asset-{place % 50}", busy_ratio=place % 100, alias="x" * 170) for place in range(50_000)]
    store.write([batch(0, *big)])
    question = ask(Take("count"), Take("sum"), per=(), buckets=1)
    assert store.buckets(question)[()].values.tolist() == [50_000.0]
    store.write([batch(0, *big)])
    assert [(total.batches, total.points) for total in store.totals()] == [(1, 50_000)]


def test_server_that_takes_less_says_what_to_raise(tmp_path: Path) -> None:
    with Influx(tmp_path / "small", "max-body-size = 4000") as influx:
        influx.ask("CREATE DATABASE small")
        with Store(config_of(influx, "small"), CATALOGUE) as store:
            store.write([batch(0, point(0, busy_ratio=1.0))])
            noise = [point(at, busy_ratio=at % 97, alias=os.urandom(32).hex()) for at in range(1000)]
            said = refusal(store, batch(1, *noise))
            assert said == f"{influx.url}: the write is too large; raise the server's max-body-size"
            store.write([batch(2, point(0, busy_ratio=1.0))])
            assert kept_seqs(store, 3) == {0, 2}


# -- a server that is away, hangs, is full, is killed


def test_nobody_there_is_said() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Store(Config(url=url, database="d"), CATALOGUE) as store, pytest.raises(StoreError) as caught:
        store.totals()
    assert str(caught.value) == f"{url}: cannot connect; does InfluxDB run, is the address right?"


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_server_that_hangs_is_said_within_the_time_limit() -> None:
    with silent_server() as url:
        config = Config(url=url, database="d", timeout_seconds=0.2)
        with Store(config, CATALOGUE) as store, pytest.raises(StoreError) as caught:
            store.totals()
    assert str(caught.value) == f"{url}: no answer within 0.2 s"


def test_server_that_goes_away_and_comes_back_takes_writes_again(tmp_path: Path) -> None:
    with Influx(tmp_path / "influx") as influx:
        influx.ask("CREATE DATABASE d")
        with Store(config_of(influx, "d"), CATALOGUE) as store:
            store.write([batch(0, *every_minute(5))])
            influx.kill()
            assert refusal(store, batch(1, *every_minute(5, start=5))).startswith(f"{influx.url}: ")
            with pytest.raises(StoreError):
                store.buckets(ask())
            influx.start()
            store.write([batch(1, *every_minute(5, start=5))])
            assert answer(store, ask(Take("count"), Take("sum")), [ETH0], HIGH_IS_BAD)[0].known == 10.0
            assert kept_seqs(store, 3) == {0, 1}


def test_server_that_comes_after_the_collector_is_used_then(tmp_path: Path) -> None:
    influx = Influx(tmp_path / "influx")
    with Store(config_of(influx, "d"), CATALOGUE) as store:
        refusal(store, batch(0))
        with influx:
            influx.ask("CREATE DATABASE d")
            store.write([batch(0, *every_minute(5))])
            assert kept_seqs(store, 1) == {0}


@pytest.mark.parametrize("seed", range(2))
def test_every_reported_write_outlives_kill_9_and_no_row_stands_without_its_points(tmp_path: Path, seed: int) -> None:
    each = 50
    with Influx(tmp_path / "influx") as influx:
        influx.ask("CREATE DATABASE d")
        config = config_of(influx, "d")
        reported: list[int] = []

        def work() -> None:
            with Store(config, CATALOGUE) as store:
                for seq in range(10_000):
                    points = [point((seq * each + place) * 1000, busy_ratio=1.0) for place in range(each)]
                    try:
                        store.write([batch(seq, *points)])
                    except StoreError:
                        return
                    reported.append(seq)

        worker = threading.Thread(target=work)
        worker.start()
        until(lambda: len(reported) > 15 + 10 * seed)
        influx.kill()
        worker.join()
        influx.start()
        with Store(config, CATALOGUE) as store:
            stored = kept_seqs(store, reported[-1] + 2)
            assert stored >= set(reported)
            question = ask(Take("count"), Take("sum"), buckets=len(stored) + 2, each_ms=each * 1000)
            counts = dict(
                zip(*(part.tolist() for part in store.buckets(question)[("core-1", "eth0")][:2]), strict=True)
            )
            assert all(counts[seq] == each for seq in stored)


@contextmanager
def on_small_disk(folder: Path, megabytes: int) -> Iterator[Influx]:
    """An InfluxDB on a file system of its own, which nobody else sees; when it ends it is started again, as systemd does."""
    influx = Influx(folder)
    configuration = folder / "influxdb.conf"
    (folder / "small").mkdir()
    text = configuration.read_text()
    configuration.write_text(text.replace(f"{folder}/", f"{folder}/small/"))
    script = f'mount -t tmpfs -o size={megabytes}m none "{folder}/small" || exit 9; while true; do "$@"; done'
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    influx.argv = ["unshare", *as_root, "--mount", "sh", "-c", script, "sh", *influx.argv]
    influx.start()
    try:
        yield influx
    finally:
        server = server_below(influx)
        influx.kill()
        os.kill(server, signal.SIGKILL)


def server_below(influx: Influx) -> int:
    """The process id of the server that the shell runs."""
    children, found = Path(f"/proc/{influx.pid}/task/{influx.pid}/children"), list[str]()
    until(lambda: found.extend(children.read_text().split()) or found)
    return int(found[0])


def test_more_series_than_the_server_may_hold_are_said_and_the_known_ones_are_still_written(tmp_path: Path) -> None:
    with Influx(tmp_path / "influx", data="  max-series-per-database = 60", index="inmem") as influx:
        influx.ask("CREATE DATABASE d")
        with Store(config_of(influx, "d"), CATALOGUE) as store:
            store.write([batch(0, *every_minute(5))])
            many = [point(0, tags={"interface": f"eth{number}"}, busy_ratio=1.0) for number in range(1, 100)]
            with pytest.raises(StoreError) as caught:
                store.write([batch(1, *many)])
            assert not isinstance(caught.value, PointsRefused), "who raises the limit gets the points"
            assert "raise the server's max-series-per-database" in str(caught.value)
            store.write([batch(2, *every_minute(5, start=5))])
            assert kept_seqs(store, 3) == {0, 2}
            found = store.buckets(ask(Take("count"), buckets=10, each_ms=MINUTE_MS))[("core-1", "eth0")]
            assert found.values.tolist() == [1.0] * 10


def test_full_disk_of_the_server_is_said_and_later_writes_hold(tmp_path: Path) -> None:
    with on_small_disk(tmp_path / "influx", 40) as influx:
        influx.ask("CREATE DATABASE d")
        with Store(config_of(influx, "d"), CATALOGUE) as store:
            store.write([batch(0, *every_minute(5))])
            ballast = Path(f"/proc/{influx.pid}/root{influx.folder}/small/ballast")
            with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            noise = [point(at, busy_ratio=at % 97, alias=os.urandom(64).hex()) for at in range(2000)]
            accepted, said = write_until_refused(store, noise)
            assert said == (
                f"{influx.url}: the server's disk is full; make room, and restart InfluxDB 1.x if it goes on refusing"
            )
            ballast.unlink()
            killed = server_below(influx)
            os.kill(killed, signal.SIGKILL)
            until(lambda: server_below(influx) != killed and influx._is_up())
            store.write([batch(60, *every_minute(5, start=5))])
            assert kept_seqs(store, 100) == {0, 60, *accepted}
            found = store.buckets(ask(Take("count"), buckets=10, each_ms=MINUTE_MS))[("core-1", "eth0")]
            assert found.values.tolist()[1:] == [1.0] * 9


def write_until_refused(store: Store, noise: list[Point]) -> tuple[list[int], str]:
    """Which batches were taken, and why the next one was not."""
    for seq in range(1, 50):
        try:
            store.write([batch(seq, *noise)])
        except StoreError as error:
            return list(range(1, seq)), str(error)
    pytest.fail("it took everything")


# -- the ledger without reading years


def statements(door: Door) -> list[str]:
    """What is asked from now on."""
    asked: list[str] = []
    ask = door.ask

    def noting(texts: list[str]) -> object:
        asked.extend(texts)
        return ask(texts)

    door.ask = noting  # type: ignore[method-assign,assignment]
    return asked


def test_round_of_twenty_agents_asks_twice_and_writes_twice(store: Store) -> None:
    agents = [f"gw-{number}" for number in range(20)]
    store.write([batch(0, point(0, agent, busy_ratio=1.0), agent=agent) for agent in agents])
    batches = [batch(1, point(1, agent, busy_ratio=1.0), agent=agent) for agent in agents]
    asked, post = [], store._open._post

    def counting(path: str, **what: object) -> object:
        asked.append(path)
        return post(path, **what)  # type: ignore[arg-type]

    store._open._post = counting  # type: ignore[method-assign]
    assert not store.applied({BatchName("main", one.agent, one.identity): (one.made_at,) * 2 for one in batches})
    store.write(batches)
    assert asked == ["/query", "/write", "/query", "/write"]
    assert [(total.batches, total.points) for total in store.totals()] == [(2, 2)] * 20


def test_totals_read_the_rows_since_the_last_count_and_the_marked_hours_alone(store: Store) -> None:
    hour = 3_600_000
    rows = [
        batch(seq)._replace(made_at=START + seq * MINUTE_MS, received_at=START + seq * MINUTE_MS) for seq in range(600)
    ]
    store.write([one for one in rows if one.seq not in (10, 11, 300)])
    assert list(store.totals()[0].holes) == [("b1", 10, 11), ("b1", 300, 300)]
    store.write([rows[10]._replace(received_at=START + 600 * MINUTE_MS)])
    store.totals()
    asked = statements(store._open)
    (total,) = store.totals()
    assert (total.batches, list(total.holes)) == (598, [("b1", 11, 11), ("b1", 300, 300)])
    read = [text for text in asked if 'FROM "batch"' in text]
    assert len(read) == 2
    newest = START + 600 * MINUTE_MS
    assert f"time >= {START}ms AND time < {START + hour}ms" in read[1]
    assert any(f"time >= {at - NEAR_MS}ms" in read[0] for at in (newest, newest - MINUTE_MS))


def test_totals_begin_with_the_stored_sums(influx: Influx, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.stores._influx_totals.MOST_UNSUMMED", 5)
    config = config_of(influx, database)
    with Store(config, CATALOGUE) as store:
        store.write(
            [batch(seq)._replace(made_at=START + seq * DAY_MS, received_at=START + seq * DAY_MS) for seq in range(20)]
        )
        before = store.totals()
    with Store(config, CATALOGUE) as store:
        asked = statements(store._open)
        store.write([batch(20)._replace(made_at=START + 20 * DAY_MS, received_at=START + 20 * DAY_MS)])
        (total,) = store.totals()
        assert (total.batches, total.holes) == (before[0].batches + 1, ())
        since = [text for text in asked if 'FROM "batch" WHERE time' in text]
        assert since == [text for text in since if f"time >= {START + 19 * DAY_MS - NEAR_MS}ms" in text]


def test_sums_of_a_foreign_sender_with_many_batches_are_stored_in_pieces(
    influx: Influx, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.stores._influx_totals.MOST_UNSUMMED", 5)
    monkeypatch.setattr("collector.stores._influx_totals.PIECE_CHARACTERS", 500)
    config = config_of(influx, database)
    rows = [
        batch(seq)._replace(boot="", seq=-1, identity=f"{seq:064x}", made_at=START + seq, received_at=START + seq)
        for seq in range(200)
    ]
    with Store(config, CATALOGUE) as store:
        store.write(rows)
        assert [(total.batches, total.holes) for total in store.totals()] == [(200, ())]
    with Store(config, CATALOGUE) as store:
        store.write(rows[:3])
        assert [(total.batches, total.holes) for total in store.totals()] == [(200, ())]


def test_applied_asks_for_the_time_of_the_batches_alone(store: Store) -> None:
    store.write([batch(seq)._replace(made_at=START + seq * DAY_MS) for seq in range(30)])
    store._ledger = type(store._ledger)()
    asked = statements(store._open)
    wanted = {BatchName("main", "gw-1", f"b1/{day}"): (START + day * DAY_MS,) * 2 for day in (3, 4)}
    assert store.applied(wanted) == set(wanted)
    assert [text[text.index("time") :] for text in asked] == [
        f"time >= {START + day * DAY_MS}ms AND time < {START + day * DAY_MS + 1}ms" for day in (3, 4)
    ]


def test_query_is_told_as_text_that_the_server_takes(influx: Influx, database: str, store: Store) -> None:
    store.write([batch(0, *every_minute(10, 20.0))])
    text = store.compiled(ask(buckets=2))
    assert text == (
        'SELECT mean("busy_ratio") AS "value", count("busy_ratio") AS "samples" FROM "link"'
        f" WHERE time >= {START}ms AND time < {START + 10 * MINUTE_MS}ms"
        ' GROUP BY time(300000ms, 0ms), "asset", "interface" fill(none)'
    )
    found = json.loads(influx.ask(text, database))["results"][0]["series"][0]
    assert found["values"] == [[START, 20, 5], [START + 5 * MINUTE_MS, 20, 5]]
