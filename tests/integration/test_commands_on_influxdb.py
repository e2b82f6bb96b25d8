"""Every command that opens the store, on InfluxDB: beside a running `serve`, and after it has ended."""

import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from doctored import Guarded
from influxstore import DATABASE, KeptInInfluxDB
from servers import until

from collector.evaluate import format_time

ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}
JSON = ("--format", "json")
MACHINE = ("clock", "disk")
"""What depends on the machine that runs the tests."""


class Line:
    """A broker, an InfluxDB, one agent and one collector, each with its configuration; nothing runs yet."""

    def __init__(self, folder: Path, kept: KeptInInfluxDB) -> None:
        self.kept, self.guarded = kept, Guarded(folder)
        self.folder, self.collector = folder, self.guarded.collector
        self.collector.write_text(f"{self.collector.read_text()}store: {kept.section}\n")
        self.page = self.collector.read_text().split("page: {port: ")[1].split("}")[0]

    @contextmanager
    def running(self, module: str, command: str, config: Path) -> Iterator[None]:
        """A program that is asked to end, and ends well."""
        with (self.folder / f"{command}.log").open("a") as log:
            words = [sys.executable, "-m", module, command, "-c", str(config)]
            process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log)
            try:
                yield
                process.terminate()
                assert process.wait(60) == 0
            finally:
                process.kill()
                process.wait()

    def serving(self) -> Any:
        return self.running("collector.cli", "serve", self.collector)

    def gathering(self) -> Any:
        return self.running("agent.cli", "run", self.guarded.agent)

    def said(self, command: str, words: str) -> int:
        """How often a program said these words."""
        return (self.folder / f"{command}.log").read_text(errors="replace").count(words)

    def has_unreceipted(self) -> bool:
        """Whether the agent, which has ended, holds what may still be on its way to the store."""
        with closing(sqlite3.connect(self.folder / "agent" / "spool.sqlite")) as spool:
            return bool(spool.execute("SELECT count(*) FROM batch").fetchone()[0])

    def run(self, *words: str, code: int | None = 0) -> str:
        """What a command prints; it ends with `code`, None for any, and complains of nothing."""
        argv = [sys.executable, "-m", "collector.cli", *words, "-c", str(self.collector)]
        done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False)
        assert (done.returncode if code is None else code, "") == (done.returncode, done.stderr), (words, done.stdout)
        return done.stdout

    def ask(self, *words: str, code: int | None = 0) -> Any:
        return json.loads(self.run(*words, *JSON, code=code))

    def ledger(self, code: int = 0) -> Any:
        """The only agent's account."""
        (account,) = self.ask("ledger", code=code)["agents"]
        return account

    def has(self, field: str, measurement: str, least: int = 1) -> bool:
        """Whether so many such values are in the store."""
        query = f'SELECT {field} FROM "{measurement}" LIMIT 1 OFFSET {least - 1}'
        return "values" in self.kept.server.ask(query, DATABASE)

    def doctor(self) -> dict[str, Any]:
        """Check -> its finding, the last where there are several."""
        found = {one["check"]: one for one in self.ask("doctor", code=None)["findings"]}
        return {check: finding for check, finding in found.items() if check not in MACHINE}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/metrics", timeout=60) as answer:
            text: str = answer.read().decode()
            return text


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with KeptInInfluxDB(tmp_path) as kept:
        line = Line(tmp_path, kept)
        with line.guarded.broker:
            yield line


def answers(line: Line, as_of: str, code: int = 0) -> dict[str, Any]:
    """What the commands say of one moment; the same whoever answers. code: how `ledger` ends."""
    at = ("--as-of", as_of)
    return {
        "score": line.ask("score", *at),
        "explain": line.ask("explain", "telemetry-completeness", *at),
        "coverage": line.ask("rules", "coverage", *at),
        "history": line.ask("history", "--since", "2020-01-01T00:00:00Z"),
        "quarantine": line.ask("quarantine"),
        "register": line.run("register", "draft"),
        "ledger": {key: value for key, value in line.ledger(code).items() if key != "findings"},
    }


def test_commands_answer_the_same_beside_a_server_and_without_one(line: Line) -> None:
    with line.serving():
        until(lambda: line.said("serve", "its page is"))
        with line.gathering():
            until(lambda: line.has("seq", "batch", least=3), 60)
        with line.gathering():  # at an agent's start it tells what it made before, later once a minute
            until(lambda: line.has("ledger_made_batches_count", "agent_health"), 120)
            doctor = line.doctor()
            until(lambda: 'infravitals_ledger_batches{agent="his-db-1",outcome="applied"}' in line.metrics(), 90)
        while line.has_unreceipted():  # the second in which an agent ends is short on a busy machine
            starts = line.said("run", "gathers from")
            with line.gathering():
                until(lambda starts=starts: line.said("run", "gathers from") > starts)  # type: ignore[misc]
        as_of = format_time(int(time.time() * 1000))
        beside = answers(line, as_of)
        argv = [sys.executable, "-m", "collector.cli", "serve", "-c", str(line.collector)]
        second = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False)
        assert second.returncode == 1 and "use it, or stop it first" in second.stderr
        deleted = [delete_one(line)]
        assert named_as_lost(line) == deleted, "the server had counted it"
    assert [one for one in doctor.values() if one["state"] == "bad"] == []
    assert doctor["server"]["text"].startswith("running: pid ")
    assert doctor["store"]["text"].startswith("influxdb was written and read back in ")
    assert beside["ledger"]["state"] == "balanced"
    assert beside["ledger"]["batches"]["applied"] > 0 == beside["ledger"]["batches"]["difference"]
    line.kept.server.ask("DROP SERIES FROM bucket", DATABASE)  # what was kept is read anew
    alone = answers(line, as_of, code=1)
    hours = len(beside["history"])  # one more may have become full while the server still ran
    assert {**alone, "ledger": beside["ledger"], "history": alone["history"][:hours]} == beside
    assert named_as_lost(line) == deleted
    bad = {check: one["text"] for check, one in line.doctor().items() if one["state"] == "bad"}
    assert {"ledger", "server"} <= bad.keys() and "the store lacks 1 batches" in bad["ledger"]
    assert '"probe"' not in line.kept.server.ask("SHOW MEASUREMENTS", DATABASE)


def delete_one(line: Line) -> int:
    """What an administrator does to the database: one batch's row goes; gives its number."""
    rows = json.loads(line.kept.server.ask('SELECT seq FROM "batch" LIMIT 3', DATABASE, epoch="ns"))
    time_ns, seq = rows["results"][0]["series"][0]["values"][1]
    line.kept.server.ask(f'DELETE FROM "batch" WHERE time = {time_ns}', DATABASE)
    return int(seq)


def named_as_lost(line: Line) -> list[int]:
    account = line.ledger(code=1)
    assert (account["state"], account["batches"]["difference"]) == ("unbalanced", 1)
    return [seq for _, first, last in account["lost"] for seq in range(first, last + 1)]


def test_without_a_server_and_without_influxdb_every_command_says_so_in_one_sentence(line: Line) -> None:
    line.kept.server.kill()
    for words in (("score",), ("ledger",), ("history",), ("explain", "telemetry-completeness"), ("register", "draft")):
        argv = [sys.executable, "-m", "collector.cli", *words, "-c", str(line.collector)]
        done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 1
        assert done.stderr == f"{line.kept.server.url}: cannot connect; does InfluxDB run, is the address right?\n"
    found = line.doctor()
    assert "the store cannot be written and read" in found["data"]["text"]
    assert found["data"]["mend"].startswith(f"curl -sI {line.kept.server.url}/ping")
