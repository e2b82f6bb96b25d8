"""What the page answers over HTTP: languages, headers, refusals, the scorecard as JSON."""

import dataclasses
import html
import http.client
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from agent.catalogue import Text
from collector.snapshot import Snapshot


class Client:
    """One connection to the page, with a language and whatever headers a test wants."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self.headers: Any = {}

    def get(self, path: str, **headers: str) -> str:
        """The body of `path`; status and headers stay readable."""
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        self.status, self.headers = answer.status, answer.headers
        return answer.read().decode()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def shown(serving: Callable[..., Any], snapshot: Snapshot) -> Iterator[Any]:
    with serving(snapshot).running() as server:
        yield server


@pytest.fixture
def client(shown: Any) -> Iterator[Client]:
    client = Client(shown.port)
    yield client
    client.close()


def crawl(client: Client, language: str) -> tuple[dict[str, int], dict[str, str]]:
    """Path -> status, and path -> body, of everything that links from the first page lead to."""
    seen: dict[str, int] = {}
    bodies: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        bodies[path] = body = client.get(path, Cookie=f"lang={language}")
        seen[path] = client.status
        if client.headers["content-type"].startswith("text/html"):
            links = re.findall(r'(?:href|src)="(/[^"#]*|\?[^"]*)"', body)
            paths = [html.unescape(link if link.startswith("/") else "/" + link) for link in links]
            waiting += [path for path in dict.fromkeys(paths) if path not in seen and path not in waiting]
    return seen, bodies


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_link_of_every_page_answers(client: Client, snapshot: Snapshot, language: str) -> None:
    seen, _ = crawl(client, language)
    assert {path: status for path, status in seen.items() if status != 200} == {}
    nodes = snapshot.scorecard.nodes
    assert sum(path.startswith("/node/") for path in seen) == len(nodes)
    assert sum(path.startswith("/criterion/") for path in seen) == sum(len(node.criteria) for node in nodes)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_link_of_a_told_hospital_answers_and_no_page_shows_what_the_program_says_to_itself(
    serving: Callable[..., Any], vouched: Snapshot, language: str
) -> None:
    with serving(vouched).running() as server:
        client = Client(server.port)
        seen, bodies = crawl(client, language)
        client.close()
    assert {path: status for path, status in seen.items() if status != 200} == {}
    assert {"/subject/his-db-01", "/attestations", "/history", "/start"} <= set(seen)
    inner = re.compile(r"&lt;(?:Macro|[a-z_.]+ object)|(?:Text|Link|Tag)\(|>None<")
    assert {path: inner.findall(body) for path, body in bodies.items() if inner.search(body)} == {}


def test_an_english_page_holds_no_chinese_but_what_the_hospital_wrote(
    serving: Callable[..., Any], vouched: Snapshot
) -> None:
    with serving(vouched).running() as server:
        client = Client(server.port)
        bodies = {path: client.get(f"{path}?lang=en") for path in ("/", "/start", "/attestations", "/history")}
        client.close()
    written = {"李明", "信息科主任", "中文"}
    found = {path: set(re.findall("[\u4e00-\u9fff]+", body)) - written for path, body in bodies.items()}
    assert {path: chinese for path, chinese in found.items() if chinese} == {}


def test_the_page_is_chinese_until_the_reader_chooses(client: Client) -> None:
    assert "<h1>基础设施就绪度</h1>" in client.get("/")
    assert "<h1>Infrastructure readiness</h1>" in client.get("/?lang=en")
    assert client.headers["set-cookie"].startswith("lang=en; HttpOnly; Max-Age=31536000; Path=/; SameSite=strict")


def test_a_page_that_fetches_itself_again_chooses_no_language(client: Client) -> None:
    assert "<h1>Infrastructure readiness</h1>" in client.get("/?lang=en&again=")
    assert client.headers["set-cookie"] is None


def test_an_unknown_language_is_chinese(client: Client) -> None:
    assert 'lang="zh-CN"' in client.get("/?lang=xx")
    assert client.headers["set-cookie"] is None


def test_the_json_is_the_scorecard_of_the_page(client: Client, snapshot: Snapshot) -> None:
    body = client.get("/api/scorecard")
    assert json.loads(body) == json.loads(msgspec.json.encode(snapshot.scorecard))
    assert client.headers["content-type"] == "application/json"


def test_the_json_of_a_made_up_hospital_says_so_behind_its_name(
    serving: Callable[..., Any], snapshot: Snapshot
) -> None:
    card = msgspec.structs.replace(snapshot.scorecard, site="simulated-hospital")
    with serving(dataclasses.replace(snapshot, scorecard=card)).running() as server:
        client = Client(server.port)
        told = json.loads(client.get("/api/scorecard"))
        client.close()
    assert list(told)[:3] == ["site", "simulated", "as_of"] and told.pop("simulated") is True
    assert told == json.loads(msgspec.json.encode(card)), "nothing else of it is touched"


@pytest.mark.parametrize(
    ("title", "shown"),
    [(None, "renmin"), ("renmin", "renmin"), ("人民医院", "人民医院 <small>renmin</small>")],
)
def test_the_hospital_is_named_once_above_a_page(
    serving: Callable[..., Any], snapshot: Snapshot, title: str | None, shown: str
) -> None:
    named = dataclasses.replace(snapshot.folder, title=Text(title, title) if title else None)
    with serving(dataclasses.replace(snapshot, folder=named)).running() as server:
        client = Client(server.port)
        body = client.get("/")
        client.close()
    assert f'<span class="hospital">{shown}</span>' in body


def test_a_foreign_host_name_is_refused(client: Client) -> None:
    client.get("/", Host="evil.example:8650")
    assert client.status == 400
    client.get("/api/scorecard", Host="evil.example")
    assert client.status == 400
    client.get("/", Host="localhost:8650")
    assert client.status == 200


@pytest.mark.parametrize("path", ["/node/no-such-node", "/criterion/no-such", "/nowhere", "/node/%3Cscript%3E"])
def test_an_unknown_page_is_a_page_that_says_so(client: Client, path: str) -> None:
    body = client.get(path)
    assert client.status == 404
    assert "<h1>没有这一页</h1>" in body
    assert "renmin" in body
    assert "<script>" not in body


def test_a_page_may_load_nothing_from_elsewhere_nor_be_framed(client: Client) -> None:
    client.get("/")
    policy = client.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert client.headers["cache-control"] == "no-store"
    assert client.headers["server"] is None


def test_style_and_script_are_asked_for_anew_after_an_upgrade(client: Client) -> None:
    assert "prefers-color-scheme" in client.get("/static/style.css")
    assert client.headers["cache-control"] == "no-cache"
    etag = client.headers["etag"]
    client.get("/static/style.css", **{"If-None-Match": etag})
    assert client.status == 304


def test_before_the_first_figures_the_json_says_that_there_are_none(serving: Callable[..., Any]) -> None:
    with serving(None).running() as server:
        client = Client(server.port)
        assert json.loads(client.get("/api/scorecard")) == {"error": "还没有数字，请稍候"}
        assert json.loads(client.get("/api/scorecard?lang=en")) == {"error": "no figures yet"}
        assert client.status == 503
        assert "<h1>正在采集</h1>" in client.get("/agents")
        assert client.status == 200
        client.close()


def test_figures_that_are_not_renewed_are_called_old(serving: Callable[..., Any], snapshot: Snapshot) -> None:
    old = dataclasses.replace(snapshot, taken_at=snapshot.taken_at - 3_600_000)
    with serving(old).running() as server:
        client = Client(server.port)
        assert "以下数字是1 小时前的，之后没有更新成功" in client.get("/")
        client.close()


def test_a_hospital_without_agents_is_told_so(serving: Callable[..., Any], empty_snapshot: Snapshot) -> None:
    with serving(empty_snapshot).running() as server:
        client = Client(server.port)
        assert "还没有任何采集代理送来数据。" in client.get("/agents")
        assert "0.0 – 100.0" in client.get("/")
        client.close()
