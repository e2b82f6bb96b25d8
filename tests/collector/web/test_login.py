"""The page behind its password: nobody sees a figure without it, tries are bounded, certificates are taken up as they change."""

import http.client
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect, sync_playwright
from servers import READY_SECONDS, Authority, Daemon, answers, free_port, program, until

from agent import language
from agent.documents import FileMistakes
from collector.config import read_config
from collector.page_password import LONGEST_PASSWORD, hash_password, is_hash, is_password
from collector.snapshot import Snapshot
from collector.web.guard import MOST_ADDRESSES, MOST_FAILURES, MOST_SESSIONS, WAIT_SECONDS, Guard, Keys
from collector.web.serving import Entrance, PageError, PageServer

ROOT = Path(__file__).parent.parent.parent.parent
PASSWORD, TOKEN = "canary-page-3141-of-this-test", "canary-token-2718-of-this-test"
KEYS = Keys(hash_password(PASSWORD), TOKEN)


class Reader:
    """A client that keeps its cookies."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: (
            http.client.HTTPSConnection("127.0.0.1", port, context=context)
            if context
            else http.client.HTTPConnection("127.0.0.1", port)
        )
        self.cookies: dict[str, str] = {}
        self.set_cookie = ""

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> tuple[int, str]:
        """Status and body, or where it leads."""
        connection = self._connect()
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        form = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path, body, {"Cookie": cookies, **form, **headers})
        answer = connection.getresponse()
        text = answer.read().decode()
        self.headers, self.set_cookie = answer.headers, answer.headers["set-cookie"] or ""
        if found := re.match(r"([^=]+)=([^;]*)", self.set_cookie):
            self.cookies[found[1]] = found[2].strip('"')
        connection.close()
        return answer.status, answer.headers["location"] or text

    def log_in(self, password: str, **fields: str) -> tuple[int, str]:
        return self.ask("/login", "POST", urlencode({"password": password, **fields}))


@pytest.fixture
def guarded(serving: Callable[..., Any], snapshot: Snapshot) -> Iterator[Any]:
    with serving(snapshot, Entrance(keys=KEYS)).running() as server:
        yield server


@pytest.fixture
def reader(guarded: Any) -> Reader:
    return Reader(guarded.port)


def test_no_route_shows_anything_without_the_password(reader: Reader) -> None:
    pages = ("/", "/tree", "/agents", "/criterion/telemetry-completeness", "/subject/his-db-01", "/no-such")
    for path in (*pages, "/loginx", "/login/", "/static"):
        assert reader.ask(path) == (303, f"/login?next={path}")
    assert reader.ask("/api/scorecard") == (401, '{"error":"请先登录"}')
    assert reader.headers["www-authenticate"] == 'Cookie realm="infravitals", form-action="/login"'
    assert reader.ask("/api/scorecard?lang=en") == (401, '{"error":"log in first"}')
    assert reader.ask("/metrics")[0] == 401
    assert reader.headers["www-authenticate"] == 'Bearer realm="infravitals"'
    assert reader.ask("/static/no-such.css") == (404, "")
    status, form = reader.ask("/login?next=/tree")
    assert status == 200
    assert 'value="/tree"' in form and "renmin" not in form and 'href="/agents"' not in form


def test_password_opens_the_page_and_leads_to_where_the_reader_wanted(reader: Reader) -> None:
    assert reader.log_in(PASSWORD, next="/tree") == (303, "/tree")
    assert re.fullmatch(r"session=[\w-]{43}; HttpOnly; Max-Age=43200; Path=/; SameSite=strict", reader.set_cookie)
    assert reader.ask("/tree")[0] == 200
    assert reader.ask("/api/scorecard")[0] == 200
    assert reader.ask("/logout", "POST") == (303, "/login")
    assert reader.ask("/tree") == (303, "/login?next=/tree")


def test_a_span_that_stands_in_the_url_outlasts_the_password(reader: Reader) -> None:
    assert reader.ask("/history?span=365d&lang=en") == (303, "/login?next=/history%3Fspan%3D365d")
    assert reader.ask("/history?span=//evil.example") == (303, "/login?next=/history")
    assert 'value="/history?span=365d"' in reader.ask("/login?next=/history%3Fspan%3D365d")[1]
    assert reader.log_in(PASSWORD, next="/history?span=365d") == (303, "/history?span=365d")


def test_where_the_reader_wanted_to_go_outlasts_wrong_passwords(reader: Reader) -> None:
    for status in [403] * MOST_FAILURES + [429]:
        told, form = reader.log_in("guess", next="/history?span=365d")
        assert told == status and 'name="next" value="/history?span=365d"' in form
    assert 'name="next" value="/"' in reader.log_in("guess", next="//evil.example")[1]


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nSet-Cookie: x=1"]
)
def test_reader_is_led_to_this_page_alone(reader: Reader, target: str) -> None:
    assert reader.log_in(PASSWORD, next=target) == (303, "/")


def test_session_that_was_ended_or_made_up_opens_nothing(reader: Reader) -> None:
    reader.log_in(PASSWORD)
    kept = dict(reader.cookies)
    reader.ask("/logout", "POST")
    for cookies in (kept, {"session": "x" * 43}, {"session": ""}):
        reader.cookies = cookies
        assert reader.ask("/")[0] == 303


def test_wrong_passwords_are_told_and_then_not_even_looked_at(reader: Reader) -> None:
    for _ in range(MOST_FAILURES):
        status, body = reader.log_in("guess")
        assert status == 403 and "密码不对" in body
    status, body = reader.log_in(PASSWORD)
    assert status == 429 and "错误次数太多" in body
    assert reader.headers["retry-after"] == "300"
    assert reader.ask("/")[0] == 303


def test_form_that_is_too_long_or_no_form_is_a_wrong_password(reader: Reader) -> None:
    assert reader.ask("/login", "POST", "password=" + "x" * 10_000)[0] == 403
    assert reader.ask("/login", "POST", "\xff\xfe")[0] == 403
    assert reader.log_in(PASSWORD, filler="x" * 10_000)[0] == 403  # the right one, behind more than is read


def test_prometheus_shows_its_token_and_sees_nothing_else(reader: Reader) -> None:
    shown = {"Authorization": f"Bearer {TOKEN}"}
    assert reader.ask("/metrics", **shown)[0] == 200
    assert reader.ask("/metrics", Authorization="Bearer guess")[0] == 401
    assert reader.ask("/metrics", Authorization="Bearer ")[0] == 401
    assert reader.ask("/api/scorecard", **shown)[0] == 401


def test_nothing_secret_is_in_what_the_page_says(reader: Reader) -> None:
    for password in ("guess", PASSWORD):
        _, body = reader.log_in(password)
        assert PASSWORD not in body and KEYS.password_scrypt not in body
    assert PASSWORD not in repr(KEYS) and TOKEN not in repr(KEYS)


def test_tries_of_an_address_are_forgotten_in_time_and_of_another_not_counted() -> None:
    now = 0.0
    guard = Guard(KEYS, is_secure=False, monotonic=lambda: now)
    for _ in range(MOST_FAILURES):
        guard.note_failure("2001:db8::1")
    assert not guard.may_try("2001:db8::2")  # one person has a whole /64
    assert guard.may_try("2001:db8:0:1::1") and guard.may_try("10.0.0.1")
    now = WAIT_SECONDS + 1
    assert guard.may_try("2001:db8::1")


def test_right_password_forgets_the_wrong_ones_before_it() -> None:
    guard = Guard(KEYS, is_secure=False, monotonic=lambda: 0.0)
    for _ in range(2):
        for _ in range(MOST_FAILURES - 1):
            guard.note_failure("10.0.0.1")
        assert guard.may_try("10.0.0.1")
        guard.begin("10.0.0.1")


def test_what_strangers_can_make_the_guard_remember_is_bounded() -> None:
    guard = Guard(KEYS, is_secure=False, monotonic=lambda: 0.0)
    first = [guard.begin("10.0.0.1") for _ in range(MOST_SESSIONS + 1)]
    assert not guard.knows(first[0]) and guard.knows(first[1]) and guard.knows(first[-1])
    for number in range(MOST_ADDRESSES + 1):
        for _ in range(MOST_FAILURES):
            guard.note_failure(f"10.1.{number // 256}.{number % 256}")
    assert guard.may_try("10.1.0.0") and not guard.may_try("10.1.0.1")


def test_session_lasts_twelve_hours() -> None:
    now = 0.0
    guard = Guard(KEYS, is_secure=True, monotonic=lambda: now)
    session = guard.begin("10.0.0.1")
    now = 12 * 3600 - 1
    assert guard.knows(session)
    now += 1
    assert not guard.knows(session)


def test_password_is_kept_as_a_salted_hash_that_a_machine_can_pay_for() -> None:
    assert hash_password(PASSWORD) != KEYS.password_scrypt
    assert is_password(KEYS.password_scrypt, PASSWORD) and not is_password(KEYS.password_scrypt, PASSWORD + "x")
    assert is_hash(KEYS.password_scrypt) and not is_hash(PASSWORD)
    assert not is_hash(KEYS.password_scrypt.replace("scrypt$14", "scrypt$30"))
    assert not is_hash(KEYS.password_scrypt.replace("$8$1$", "$8$99$"))
    long = "x" * (LONGEST_PASSWORD + 1)
    assert is_password(hash_password(long[1:]), long[1:]) and not is_password(hash_password(long), long)


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


def test_page_has_tls_and_takes_up_a_renewed_certificate(
    serving: Callable[..., Any], snapshot: Snapshot, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    first = authority.issue("page")
    entrance = Entrance(keys=KEYS, certificate=str(first.certificate), key=str(first.key), look_seconds=0.01)
    with serving(snapshot, entrance).running() as server:
        assert server.url == f"https://127.0.0.1:{server.port}/"
        reader = Reader(server.port, trusting(authority))
        assert reader.log_in(PASSWORD) == (303, "/")
        assert reader.set_cookie.startswith("__Host-session=")
        assert reader.set_cookie.endswith("; Path=/; SameSite=strict; Secure")
        before = shown_certificate(server.port)
        authority.issue("page")
        until(lambda: shown_certificate(server.port) != before)
        assert reader.ask("/")[0] == 200  # the same session over the new certificate


def shown_certificate(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))


def test_real_prometheus_scrapes_it_as_the_shipped_file_says(
    serving: Callable[..., Any], snapshot: Snapshot, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("page")
    (tmp_path / "token").write_text(TOKEN + "\n")
    entrance = Entrance(keys=KEYS, certificate=str(issued.certificate), key=str(issued.key))
    with serving(snapshot, entrance).running() as server:
        text = (ROOT / "deploy" / "prometheus" / "prometheus-site.yaml").read_text("utf-8")
        for shipped, here in (
            ("/etc/prometheus/infravitals.token", f"{tmp_path}/token"),
            ("/etc/prometheus/infravitals-ca.pem", str(authority.certificate)),
            ("mqtt.hospital.local:8650", f"127.0.0.1:{server.port}"),
            ("scrape_interval: 60s", "scrape_interval: 5s"),  # and no answer takes longer, or it is "down"
            ("rule_files: [infravitals.rules.yaml]\n", ""),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        (tmp_path / "prometheus.yaml").write_text(text)
        port = free_port()
        argv = [program("prometheus", "prometheus"), f"--config.file={tmp_path}/prometheus.yaml"]
        argv += [f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
        with Daemon(argv, tmp_path, lambda: answers(port)):
            until(lambda: [(one["health"], one["lastError"]) for one in targets(port)] == [("up", "")])


def targets(port: int) -> list[dict[str, str]]:
    """What Prometheus says of what it scrapes."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=READY_SECONDS) as answer:
            return list(json.loads(answer.read())["data"]["activeTargets"])
    except urllib.error.HTTPError as error:  # 503 while it starts
        error.close()
        return []


def test_certificate_of_no_use_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "page.pem").write_text("nothing")
    entrance = Entrance(certificate=str(tmp_path / "page.pem"), key=str(tmp_path / "none.key"))
    with (
        language.speaking("en"),
        pytest.raises(PageError, match=r"page's certificate .*page\.pem and key .* are of no use"),
    ):
        PageServer(lambda: None, 0, entrance=entrance)


HEAD = "site: north\nbroker: {host: mqtt.local}\npage: "


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("{host: 0.0.0.0}", "on '0.0.0.0' the page needs a password and a certificate"),
        (f"{{host: 0.0.0.0, password_scrypt: '{KEYS.password_scrypt}'}}", "needs a password and a certificate"),
        ("{host: 0.0.0.0, tls: {certificate: a.pem, key: a.key}}", "needs a password and a certificate"),
        ("{password_scrypt: swordfish}", "'password_scrypt' is the hash that infravitals site init writes"),
        ("{tls: {certificate: a.pem}}", "the page's tls needs certificate and key"),
    ],
)
def test_page_beyond_loopback_without_password_and_tls_is_refused(tmp_path: Path, page: str, complaint: str) -> None:
    path = tmp_path / "collector.yaml"
    path.write_text(f"{HEAD}{page}\n")
    with language.speaking("en"), pytest.raises(FileMistakes) as told:
        read_config(path)
    [mistake] = told.value.mistakes
    assert complaint in mistake.text
    assert "swordfish" not in str(told.value)


def test_page_beyond_loopback_may_stand_behind_a_proxy_or_a_password_with_tls(tmp_path: Path) -> None:
    path = tmp_path / "collector.yaml"
    path.write_text(f"{HEAD}{{host: 0.0.0.0, behind_proxy: true}}\n")
    assert read_config(path).page.behind_proxy
    path.write_text(
        f"{HEAD}{{host: 0.0.0.0, password_scrypt: '{KEYS.password_scrypt}', tls: {{certificate: a.pem, key: a.key}}}}\n"
    )
    assert read_config(path).page.tls


def test_page_answers_to_its_own_names_alone(serving: Callable[..., Any], snapshot: Snapshot) -> None:
    with serving(snapshot, Entrance(names=["mqtt.hospital.local"])).running() as server:
        reader = Reader(server.port)
        assert reader.ask("/", Host="mqtt.hospital.local:8650")[0] == 200
        assert reader.ask("/", Host="evil.example")[0] == 400


@pytest.mark.parametrize(("width", "language_wanted"), [(1280, "zh"), (390, "en"), (390, "zh")])
def test_reader_logs_in_with_a_browser(guarded: Any, width: int, language_wanted: str, tmp_path: Path) -> None:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=flags)
        page = browser.new_context(viewport={"width": width, "height": 800}, base_url=guarded.url).new_page()
        page.goto(f"/agents?lang={language_wanted}")
        expect(page).to_have_url(re.compile("/login"))
        page.goto(f"/login?next=/agents&lang={language_wanted}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=str(tmp_path / "login.png"))
        page.get_by_label({"zh": "密码", "en": "Password"}[language_wanted]).fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("/agents$"))
        page.wait_for_load_state()  # the address is there before the stylesheet
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=str(tmp_path / "inside.png"))
        page.get_by_role("button", name={"zh": "退出", "en": "Log out"}[language_wanted]).click()
        expect(page).to_have_url(re.compile("/login"))
        browser.close()
