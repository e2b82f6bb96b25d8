"""The collector's doctor around a real broker with TLS and access control, beside `serve` and on the file alone."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from doctored import COLLECTOR_PASSWORD, Guarded
from servers import Influx, until

from agent.checkup import Finding, is_well
from agent.language import choose
from agent.points import Point
from collector.beside import embedded_place, place_of, remember_site
from collector.cli import main
from collector.config import CollectorConfig, read_config
from collector.doctor import check_http_date, examine
from collector.quarantine import Quarantine
from collector.reasons import Reason
from collector.site_revoked import spell_revoked
from collector.snapshot import Commands
from collector.stores import AppliedBatch

ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}
MACHINE = ("clock", "disk")
"""What depends on the machine that runs the tests."""


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@contextmanager
def running(guarded: Guarded, module: str, command: str, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (guarded.folder / f"{command}.log").open("w") as log:
        words = [sys.executable, "-m", module, command, "-c", str(config)]
        process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def findings_of(guarded: Guarded) -> list[Finding]:
    config = read_config(guarded.collector)
    place = place_of(config)
    found = examine(place, config, Commands("infravitals", f"-c {guarded.collector}", place.register))
    assert COLLECTOR_PASSWORD not in repr(found)
    return [finding for finding in found if finding.check not in MACHINE]


def page_of(config: CollectorConfig, path: str) -> str:
    """A page of the running server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{config.page.port}{path}", timeout=60) as answer:
        body: bytes = answer.read()
    return body.decode()


def said(guarded: Guarded) -> str:
    """What the running server has said by now."""
    return (guarded.folder / "serve.log").read_text(errors="replace")


def is_up(guarded: Guarded) -> bool:
    """Whether it answers commands: its socket has a name a moment before, its page has none before."""
    return "its page is" in said(guarded)


def is_good(guarded: Guarded, check: str) -> bool:
    """Whether a doctor finds it in order; a check of which a busy server said nothing yet is not."""
    return [one.state for one in findings_of(guarded) if one.check == check] == ["good"]


def named(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


def counts(guarded: Guarded) -> Any:
    """What the running server says of its agents and its quarantine."""
    words = [sys.executable, "-m", "collector.cli", "quarantine", "-c", str(guarded.collector), "--format", "json"]
    return json.loads(subprocess.run(words, env=ENVIRONMENT, capture_output=True, check=True).stdout)["counts"]


def test_doctors_beside_a_running_line_find_nothing_and_leave_nothing(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    with guarded.broker, running(guarded, "collector.cli", "serve", guarded.collector):
        until(lambda: is_up(guarded))
        with running(guarded, "agent.cli", "run", guarded.agent):
            until(lambda: is_good(guarded, "agents"))
            found = findings_of(guarded)
            words = [sys.executable, "-m", "agent.cli", "doctor", "-c", str(guarded.agent), "--format", "json"]
            of_agent = json.loads(subprocess.run(words, env=ENVIRONMENT, capture_output=True, check=False).stdout)
        assert counts(guarded) == {}
    assert is_well(found), [finding for finding in found if finding.state == "bad"]
    shown = {finding.check: finding for finding in found}
    assert shown["server"].text.startswith("running: pid ")
    assert shown["store"].text.startswith("duckdb was written and read back in ")
    assert (shown["quarantine"].state, shown["quarantine"].text) == (
        "good",
        "nothing was set aside within the last day",
    )
    assert shown["agents"].text == "all 1 agents report"
    assert shown["permissions"].text == "writing infravitals/v1/hospital/doctor-nobody/points is refused"
    assert shown["blind"].state == "note" and "; to enrol first: " in shown["blind"].text
    assert shown["blind"].mend == f"infravitals rules coverage -c {guarded.collector}"
    page = (Path(__file__).parent.parent.parent / "docs" / "doctor.md").read_text()
    checks = {one["check"] for one in of_agent["findings"]} | set(shown) | {"clock", "disk", "spools", "data"}
    assert {f"`{check}`" for check in checks} <= set(re.findall(r"`[a-z ]+`", page))
    bad = [one for one in of_agent["findings"] if one["state"] == "bad" and one["check"] not in MACHINE]
    assert bad == []
    words_of_both = (tmp_path / "run.log").read_text() + (tmp_path / "serve.log").read_text()
    assert "Traceback" not in words_of_both and "another agent" not in words_of_both


HOURS_BEHIND = "import time; true = time.time; time.time = lambda: true() - 7200; from agent.cli import main; raise SystemExit(main())"
"""The agent itself, on a machine whose clock is two hours behind."""

TWO_HOURS = r"72[0-5]\d s \(2\.0 h\)"
"""And what a batch needed on its way: to the second on a machine that has the time."""


def test_agent_whose_clock_is_off_is_named_by_doctor_page_and_log(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    config = read_config(guarded.collector)
    with guarded.broker, running(guarded, "collector.cli", "serve", guarded.collector):
        until(lambda: is_up(guarded))
        words = [sys.executable, "-c", HOURS_BEHIND, "run", "-c", str(guarded.agent)]
        agent = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: "the clock of agent" in said(guarded))
            found = [one for one in examine(place_of(config), config, Commands()) if "his-db-1" in one.text]
            until(lambda: re.search(rf"his-db-1 {TWO_HOURS} behind", page_of(config, "/?lang=en")))
            assert re.search(rf"clock {TWO_HOURS} behind", page_of(config, "/agents?lang=en"))
        finally:
            agent.terminate()
            agent.wait(60)
    (clock,) = [one for one in found if one.check == "clock"]
    assert (clock.state, clock.mend) == ("bad", "chronyc makestep")
    assert re.fullmatch(
        rf"the clock of agent his-db-1 is {TWO_HOURS} behind, its points are moved to the time received", clock.text
    )
    [told] = re.findall("the clock of agent (.*) behind", said(guarded))
    assert re.fullmatch(rf"hospital/his-db-1 is {TWO_HOURS}", told)
    alone = examine(place_of(config), None, Commands())
    assert [one for one in alone if one.check == "clock" and "his-db-1" in one.text] == [], (
        "nobody runs that would know"
    )


def test_probe_at_a_broker_that_lets_anyone_write_is_taken_for_data_by_nobody(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, acl=None)
    with guarded.broker, running(guarded, "collector.cli", "serve", guarded.collector):
        until(lambda: is_up(guarded))
        until(lambda: is_good(guarded, "server"))
        found = findings_of(guarded)
        assert named(found, "permissions").state == "bad"
        assert "the collector can speak in an agent's name" in named(found, "permissions").text
        with running(guarded, "agent.cli", "run", guarded.agent):
            until(lambda: is_good(guarded, "agents"))
        assert counts(guarded) == {}, "nothing was set aside either"
        assert named(findings_of(guarded), "agents").text in ("all 1 agents report", "1 agents are silent: his-db-1")


def test_without_a_server_the_file_is_asked_and_before_the_first_start_nothing_is_made(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    with guarded.broker:
        found = findings_of(guarded)
    assert named(found, "server").state == "bad"
    assert named(found, "server").mend == f"infravitals serve -c {guarded.collector}"
    assert named(found, "store").state == "note" and "does not exist" in named(found, "store").text
    assert list((tmp_path / "collector").iterdir()) == []
    with place_of(read_config(guarded.collector)).store() as store:
        store.write([applied()])
    with Quarantine(tmp_path / "collector" / "quarantine.sqlite") as quarantine:
        quarantine.keep([], {Reason.NOT_YOURS: 7, Reason.UNDECODABLE: 2})
    with guarded.broker:
        found = findings_of(guarded)
    assert named(found, "store").state == "good"
    aside = named(found, "quarantine")
    assert (aside.state, aside.mend) == ("note", f"infravitals quarantine -c {guarded.collector}")
    assert aside.text.startswith("9 things were set aside within the last day: 7 not_yours (")
    assert "; 2 undecodable (" in aside.text
    silent = named(found, "agents")
    assert (silent.state, silent.text) == ("bad", "1 agents are silent: his-db-1")
    assert silent.mend == "infravitals-agent doctor -c agent.yaml"
    assert named(found, "spools").text == "data have waited for more than an hour: his-db-1"
    wrong = named(found, "ledger")
    assert wrong.text.startswith("his-db-1: the store lacks 4 batches (40 points)")
    assert wrong.mend == f"infravitals ledger -c {guarded.collector}"


def test_revoked_agent_is_told_as_revoked_and_keeps_nobody_from_being_well(tmp_path: Path) -> None:
    guarded, folder = Guarded(tmp_path), tmp_path / "site"
    folder.mkdir()
    guarded.collector.write_text(guarded.collector.read_text() + f"site_folder: {folder}\n")
    with place_of(read_config(guarded.collector)).store() as store:
        store.write([applied()])
    with guarded.broker:
        assert named(findings_of(guarded), "agents").state == "bad"
        (folder / "revoked.json").write_text(spell_revoked({"his-db-1": 1_790_000_000_000}))
        found = findings_of(guarded)
        (folder / "revoked.json").write_text("{}}")
        broken = findings_of(guarded)
    assert [one for one in found if one.check == "spools"] == [], "what waits there comes no more"
    told = named(found, "agents")
    assert (told.state, told.text) == ("good", "revoked: his-db-1 (on 2026-09-21)")
    assert "revoked.json:1: this cannot be read" in named(broken, "site folder").text


def applied() -> AppliedBatch:
    """A batch that carries its agent's word: five made, all receipted; only the first of them is here. And something waited."""
    now = int(time.time() * 1000)
    fields: dict[str, float | str | bool] = {"spool_oldest_age_seconds": 7200.0}
    for outcome, number in {"made": 5, "applied": 5, "set_aside": 0, "dropped": 0, "waiting": 0}.items():
        fields |= {f"ledger_{outcome}_batches_count": float(number), f"ledger_{outcome}_points_count": 10.0 * number}
    fields |= {"ledger_closings_count": 0.0, "ledger_began_seconds": (now - 9000) / 1000}
    word = Point("agent_health", {"asset": "his-db-1"}, {**fields, "ledger_newest_seconds": now / 1000}, now)
    return AppliedBatch("hospital", "his-db-1", "b", 0, "b/0", now - 9000, now, (word,), 9, ())


def test_store_that_cannot_be_used_is_found_with_what_mends_it(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    (tmp_path / "collector" / "infravitals.duckdb").write_bytes(b"this is no database" * 1000)
    with guarded.broker:
        found = findings_of(guarded)
    trouble = named(found, "data")
    assert trouble.state == "bad" and "the store cannot be written and read" in trouble.text
    assert trouble.mend.startswith(f"ls -l {tmp_path / 'collector'}; df -h")


def test_refused_login_at_influxdb_is_mended_by_the_exact_command(tmp_path: Path) -> None:
    guarded, influx = Guarded(tmp_path), Influx(tmp_path / "influx")
    (tmp_path / "store.password").touch(0o600)
    (tmp_path / "store.password").write_text("canary-1618")
    store = f"store: {{kind: influxdb, url: '{influx.url}', database: d, user: writer, password: {{file: {tmp_path}/store.password}}}}\n"
    guarded.collector.write_text(guarded.collector.read_text() + store)
    with influx, guarded.broker:
        influx.ask("CREATE DATABASE d")
        influx.ask("CREATE USER writer WITH PASSWORD 'another'")
        trouble = named(findings_of(guarded), "data")
    assert "the token, or the user and password, are wrong" in trouble.text and "canary" not in repr(trouble)
    is_there, login, init = trouble.mend.splitlines()
    assert is_there == f"curl -sI {influx.url}/ping"
    assert login == (
        f"influx -host 127.0.0.1 -port {influx.port} -username <admin> -password ''"
        """ -execute 'SET PASSWORD FOR "writer" = '"'"'<password>'"'"''"""
    )
    assert init == (f"infravitals store init -c {guarded.collector} --admin-user <admin> --admin-password-file <file>")


def test_the_page_s_token_and_key_are_secrets_too(tmp_path: Path) -> None:
    guarded, page = Guarded(tmp_path), tmp_path / "page.pem"
    page.write_text(guarded.authority.certificate.read_text())
    for name, mode in (("page.key", 0o644), ("metrics-token", 0o600)):
        (tmp_path / name).write_text("canary-1618")
        (tmp_path / name).chmod(mode)
    more = f"metrics_token: {{file: {tmp_path}/metrics-token}}, tls: {{certificate: {page}, key: {tmp_path}/page.key}}"
    guarded.collector.write_text(guarded.collector.read_text().replace("page: {", f"page: {{{more}, "))
    with guarded.broker:
        found = [one for one in findings_of(guarded) if one.check == "secrets"]
    states = {Path(word).name: one.state for one in found for word in one.text.split() if Path(word).is_file()}
    assert states == {"collector.password": "good", "metrics-token": "good", "page.key": "bad"}


def test_beside_an_up_that_does_not_run_the_mend_is_to_start_it_as_it_is_called_here(tmp_path: Path) -> None:
    place = embedded_place(tmp_path / "data", "hospital")
    remember_site(place)
    with place.store() as store:
        store.write([applied()])
    found = examine(place, None, Commands("/opt/venv/bin/infravitals", place.words, place.register))
    start = f"/opt/venv/bin/infravitals up --data-dir {tmp_path}/data"
    assert (named(found, "server").mend, named(found, "agents").mend) == (start, start)


def test_mistakes_of_the_site_folder_are_found(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "register.yaml").write_text("asets: {}\n")
    with guarded.broker:
        lacking = named(findings_of(guarded), "site folder")
    register = place_of(read_config(guarded.collector)).data_directory / "site" / "register.yaml"
    assert lacking.mend == f"infravitals register draft -c {guarded.collector} -o {register}"
    guarded.collector.write_text(guarded.collector.read_text() + f"site_folder: {folder}\n")
    with guarded.broker:
        found = named(findings_of(guarded), "site folder")
    assert found.state == "bad" and "register.yaml:1" in found.text
    assert found.mend == f"infravitals register check -c {guarded.collector}"


class Dated(http.server.BaseHTTPRequestHandler):
    """Answers with the Date that the test wants, as a database's HTTP server does with its own."""

    ahead_seconds = 0.0

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.ahead_seconds)

    def do_HEAD(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("ahead_seconds", "state"), [(0.0, "good"), (-90.0, "bad"), (90.0, "bad")])
def test_clock_is_held_against_the_store_s(ahead_seconds: float, state: str) -> None:
    handler = type("Handler", (Dated,), {"ahead_seconds": ahead_seconds})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        began = time.monotonic()
        found = check_http_date(f"http://127.0.0.1:{server.server_port}")
        took_seconds = time.monotonic() - began
    assert found.state == state
    assert abs(float(found.text.split()[0]) + ahead_seconds) <= 2 + took_seconds


def test_a_store_s_clock_that_nobody_tells_is_said_to_be_unknown() -> None:
    found = check_http_date("http://127.0.0.1:1")
    assert (found.state, found.text) == ("note", "nobody can tell the store's clock")


def test_command_ends_with_1_and_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guarded = Guarded(tmp_path, days=3)
    with guarded.broker:
        command = ["doctor", "-c", str(guarded.collector), "--lang", "zh"]
        assert main(command) == 1
        text = capsys.readouterr().out
        assert main([*command, "--format", "json"]) == 1
        found = json.loads(capsys.readouterr().out)
    assert "✗ server: 采集中心没有在运行" in text and "✗ certificates: 消息服务器证书还有 3.0 天" in text
    assert found["is_well"] is False
