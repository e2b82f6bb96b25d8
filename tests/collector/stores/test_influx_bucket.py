"""A bucket of InfluxDB 2.x, which Debian does not have: its bytes go to VictoriaMetrics, which takes the same writes; its answers come
from a named fake, put together from the public API reference and from answers that people quote."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import urllib3
from linkstore import CATALOGUE, START, ask, batch, point
from servers import Daemon, answers, free_port, program, until

from agent.broker import Secret
from agent.errors import PointsRefused, StoreError
from agent.language import choose
from collector.stores._influx_http import Door
from collector.stores._influx_series import SeriesMemory
from collector.stores._influx_setup import Admin
from collector.stores._influx_write import PointWriter
from collector.stores.influxdb import Config, Store, set_up

TOKEN = {"T": "s3cr3t-token=="}


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


def config(url: str, **more: float) -> Config:
    return Config(url=url, org="hospital", bucket="vitals", token=Secret(env="T"), **more)  # type: ignore[arg-type]


# -- the bytes


def test_bytes_of_a_bucket_s_write_are_taken_and_found_again(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [
        program("victoria-metrics", "victoria-metrics"),
        f"-storageDataPath={tmp_path}/data",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=100y",
    ]
    name = 'it\'s, "x" = C:\\'
    with Daemon(argv, tmp_path, lambda: answers(port)), Door(config(url).place(TOKEN)) as door:
        series = SeriesMemory(door)
        series._series["main", "link"] = {}
        series._owners["main"] = set()
        points = [point(at * 1000, tags={"interface": name}, busy_ratio=at / 8, is_up=1.0) for at in range(500)]
        door.write(PointWriter(CATALOGUE, series).lines([batch(0, *points)]).lines)

        def found() -> list[dict[str, object]]:
            query = "/api/v1/export?match[]=link_busy_ratio"
            text = urllib3.request("GET", f"{url}{query}", retries=False).data.decode()
            return [json.loads(line) for line in text.splitlines()]

        def is_there() -> bool:
            urllib3.request("GET", f"{url}/internal/force_flush", retries=False)
            return bool(found())

        until(is_there)
        [series] = found()
        assert series["metric"] == {
            "__name__": "link_busy_ratio",
            "agent": "gw-1",
            "asset": "core-1",
            "interface": name.replace("\\", "%5C"),
            "site": "main",
        }
        assert series["values"] == [at / 8 for at in range(500)]
        assert series["timestamps"] == [START + at * 1000 for at in range(500)]


# -- the answers


class Answer(NamedTuple):
    """What the fake says next."""

    status: int
    body: dict[str, object]
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed


class FakeInflux2:
    """Takes down what it is asked and answers from a list; then everything is well. No more of InfluxDB 2.x is in it."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.next: list[Answer] = []
        self.seen: list[tuple[str, dict[str, list[str]], dict[str, str], bytes]] = []

    def answer(self, path: str) -> Answer:
        if self.next and not path.startswith("/ping"):
            return self.next.pop(0)
        return Answer(200, {"results": []}) if path.startswith("/query") else Answer(204, {})


@contextmanager
def fake(version: str = "v2.7.11") -> Iterator[tuple[FakeInflux2, str]]:
    server = FakeInflux2(version)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            parts = urlsplit(self.path)
            server.seen.append((parts.path, parse_qs(parts.query), dict(self.headers), body))
            status, said, headers = server.answer(parts.path)
            text = b"" if status == 204 else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {"X-Influxdb-Version": version, **headers}.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def test_bucket_is_written_and_asked_with_its_token() -> None:
    with fake() as (server, url), Store(config(url), CATALOGUE, TOKEN) as store:
        store.write([batch(0, point(0, busy_ratio=1.0))])
        store.buckets(ask())
    writes = [one for one in server.seen if one[0] == "/api/v2/write"]
    asked = [one for one in server.seen if one[0] == "/query"]
    assert writes[1][1] == {
        "bucket": ["vitals"],
        "org": ["hospital"],
        "precision": ["ns"],
    }
    assert (
        writes[1][3] == f"link,agent=gw-1,asset=core-1,interface=eth0,site=main busy_ratio=1.0 {START}000000".encode()
    )
    assert [one[3].split(b",")[0] for one in writes][-1] == b"batch", "the row is the last word"
    assert parse_qs(asked[0][3].decode())["db"] == ["vitals"]
    assert {one[2]["Authorization"] for one in writes + asked} == {f"Token {TOKEN['T']}"}


@pytest.mark.parametrize("is_packed", [True, False])
def test_what_is_written_goes_packed_when_the_configuration_says_so(is_packed: bool) -> None:
    with fake() as (server, url):
        places = [
            msgspec.structs.replace(config(url), gzip=is_packed),
            Config(url=url, database="vitals", gzip=is_packed),
        ]
        for place in places:
            with Door(place.place(TOKEN)) as door:
                door.write(["link busy_ratio=1.0 1"])
    said = [(path, headers.get("Content-Encoding") == "gzip", body) for path, _, headers, body in server.seen]
    line = b"link busy_ratio=1.0 1"
    assert said == [("/api/v2/write", is_packed, line), ("/write", is_packed, line)]


def test_bucket_is_pruned_by_the_delete_api() -> None:
    with fake() as (server, url), Door(config(url).place(TOKEN)) as door:
        door.delete("link", 0, START * 1_000_000, {"site": "main"})
    [(path, query, _, body)] = server.seen
    assert (path, query) == ("/api/v2/delete", {"bucket": ["vitals"], "org": ["hospital"]})
    assert json.loads(body) == {
        "start": "1970-01-01T00:00:00.000000000Z",
        "stop": "2025-10-09T23:59:59.999999999Z",
        "predicate": '_measurement="link" AND site="main"',
    }


BUCKET = {"id": "0a" * 8, "orgID": "0b" * 8, "name": "vitals", "retentionRules": []}
ORGS = {"orgs": [{"id": "0b" * 8, "name": "hospital"}]}


def test_missing_bucket_is_made_for_good_with_the_administrator_s_token() -> None:
    with fake() as (server, url):
        server.next = [
            Answer(200, {"buckets": []}),
            Answer(200, ORGS),
            Answer(201, BUCKET),
        ]
        assert list(set_up(config(url), Admin(token="all-mighty"), TOKEN)) == [
            "bucket vitals made, kept for good",
            "vitals: can be read and written",
        ]
    (made,) = (one for one in server.seen if one[0] == "/api/v2/buckets" and one[3])
    assert json.loads(made[3]).items() >= {"orgID": "0b" * 8, "name": "vitals", "retentionRules": []}.items()
    assert made[2]["Authorization"] == "Token all-mighty"
    assert server.seen[-1][2]["Authorization"] == f"Token {TOKEN['T']}", "its own rights are tried with its own token"


def test_bucket_that_forgets_is_refused_and_one_that_keeps_is_taken() -> None:
    with fake() as (server, url):
        server.next = [Answer(200, {"buckets": [BUCKET]})]
        assert next(iter(set_up(config(url), None, TOKEN))) == "bucket vitals was there"
        rules = [{"type": "expire", "everySeconds": 86400}]
        server.next = [Answer(200, {"buckets": [{**BUCKET, "retentionRules": rules}]})]
        with pytest.raises(StoreError, match="vitals is kept for a limited time"):
            list(set_up(config(url), None, TOKEN))


PARTIAL = "failure writing points to database: partial write: "
REFUSALS = [
    (Answer(401, {"code": "unauthorized", "message": "unauthorized access"}), "are wrong; look at the store's token"),
    (Answer(403, {"code": "forbidden", "message": "forbidden"}), "no right to read and write vitals"),
    (Answer(404, {"code": "not found", "message": 'bucket "vitals" not found'}), "no database or bucket vitals"),
    (Answer(413, {"code": "request too large", "message": "too large"}), "the write is too large"),
    (Answer(400, {"code": "invalid", "message": "no such thing"}), r"refuses \(HTTP 400\): no such thing"),
    (Answer(422, {"code": "unprocessable entity", "message": "odd"}), r"refuses \(HTTP 422\): odd"),
    (Answer(500, {"code": "internal error", "message": "oh no"}), r"the server is in trouble \(HTTP 500\): oh no"),
    (Answer(503, {"code": "unavailable", "message": "starting"}), r"the server is in trouble \(HTTP 503\): starting"),
    (Answer(500, {"code": "internal error", "message": "write /x: no space left on device"}), "disk is full"),
    (
        Answer(422, {"message": f"{PARTIAL}max-series-per-database limit exceeded: (1000000) dropped=3"}),
        "raise the server's max-series-per-database",
    ),
]


@pytest.mark.parametrize(("answer", "said"), REFUSALS)
def test_refusal_of_a_bucket_is_one_sentence_without_the_token(answer: Answer, said: str) -> None:
    with fake() as (server, url), Store(config(url), CATALOGUE, TOKEN) as store:
        for path in ("query", "write"):
            server.next = [answer] if path == "query" else [Answer(200, {"results": []})] * 4 + [answer]
            with pytest.raises(StoreError, match=said) as caught:
                store.write([batch(0, point(0, busy_ratio=1.0))])
            assert not isinstance(caught.value, PointsRefused)
            assert TOKEN["T"] not in str(caught.value)
            assert TOKEN["T"] not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            'field type conflict: input field "busy_ratio" on measurement "link" is type float, already exists as type integer dropped=1',
            "field link.busy_ratio has another type",
        ),
        ("points beyond retention policy dropped=1", "older than the database's retention"),
    ],
)
def test_partial_write_of_a_bucket_is_for_good(message: str, said: str) -> None:
    with fake() as (server, url), Door(config(url).place(TOKEN)) as door:
        server.next = [Answer(422, {"code": "unprocessable entity", "message": PARTIAL + message})]
        with pytest.raises(PointsRefused, match=said):
            door.write(["link busy_ratio=1.0 1"])


# -- a server that asks for patience


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_names_a_time_is_waited_for(status: int) -> None:
    clock = Clock()
    with fake() as (server, url), Door(config(url).place(TOKEN), clock.sleep, lambda: clock.now) as door:
        server.next = [Answer(status, {"message": "slow down"}, {"Retry-After": "7"})] * 3
        door.write(["link busy_ratio=1.0 1"])
        assert clock.slept == [7.0, 7.0, 7.0]
        server.next = [Answer(status, {"message": "slow down"}, {"Retry-After": "2"})]
        assert list(door.ask(["SELECT 1"])) == []
        assert clock.slept[3:] == [2.0]


def test_server_that_asks_for_more_patience_than_the_limit_is_in_trouble() -> None:
    clock = Clock()
    with (
        fake() as (server, url),
        Door(config(url, timeout_seconds=20).place(TOKEN), clock.sleep, lambda: clock.now) as door,
    ):
        server.next = [Answer(429, {"message": "slow down"}, {"Retry-After": "15"})] * 2
        with pytest.raises(StoreError, match="the server is busy and asks to come later"):
            door.write(["link busy_ratio=1.0 1"])
        assert clock.slept == [15.0]


# -- versions


@pytest.mark.parametrize("version", ["1.6.7~rc0", "1.8.10"])
def test_bucket_on_1_x_is_refused_with_what_to_write(version: str) -> None:
    with (
        fake(version) as (_, url),
        pytest.raises(StoreError, match="give database, user and password"),
        Store(config(url), CATALOGUE, TOKEN),
    ):
        pass


def test_database_on_2_x_is_refused_with_what_to_write() -> None:
    with (
        fake() as (_, url),
        pytest.raises(StoreError, match="give bucket, org and token"),
        Store(Config(url=url, database="vitals"), CATALOGUE),
    ):
        pass


def test_window_that_3_x_refuses_says_why() -> None:
    message = "Error while planning query: External error: Query would exceed file limit of 432 parquet files."
    with fake("3.4.1") as (server, url), Store(config(url), CATALOGUE, TOKEN) as store:
        server.next = [Answer(500, {"error": message})]
        with pytest.raises(StoreError, match="InfluxDB 3 refuses so long a window; use"):
            store.buckets(ask())


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b'{"results":[{"statem', b'{"results":[{"error":"odd"}]}'])
def test_answer_that_makes_no_sense_is_said(body: bytes) -> None:
    said = pytest.raises(StoreError, match=r"not to be understood|refuses \(HTTP 400\): odd")
    with Door(config("http://nobody").place(TOKEN)) as door, said:
        list(door._read(body))
