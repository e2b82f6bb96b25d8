"""The doctors at the broker as it is shipped, which knows one client id for each user: they end a running program's session."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, until
from shipped_broker import SITE, ShippedBroker
from unprivileged import open_folder

from collector.beside import place_of
from collector.config import read_config

ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}
AGENT = "his-db-1"
USER = f"{SITE}/{AGENT}"
VISITS = 4


class Line:
    """The shipped broker, an agent and a collector with a user each; nothing runs yet but the broker."""

    def __init__(self, folder: Path, broker: ShippedBroker) -> None:
        self.folder, self.broker, self.page = folder, broker, free_port()
        for user in (USER, "collector"):
            broker.add_user(user, f"password of {user}")
        broker.reload()
        words = f"site: {SITE}\nbroker: {{host: 127.0.0.1, port: {broker.port}, tls: {{ca: {broker.authority.certificate}}}, "
        own = f"password: {{file: {broker.secrets}/{USER.replace('/', '_')}}}}}\nagent: {AGENT}\nstate_directory: {folder}/state\n"
        (folder / "agent.yaml").write_text(f"{words}{own}sources: {{host_uptime: {{interval_seconds: 1}}}}\n")
        own = f"username: collector, password: {{file: {broker.secrets}/collector}}}}\ndata_directory: {folder}/data\n"
        (folder / "collector.yaml").write_text(f"{words}{own}page: {{port: {self.page}}}\n")

    @contextmanager
    def running(self, module: str, command: str, config: str) -> Iterator[Path]:
        """A program that is asked to end, and ends well; gives the file with its words."""
        log = self.folder / f"{command}.log"
        with log.open("w") as out:
            words = [sys.executable, "-m", module, command, "-c", str(self.folder / config)]
            process = subprocess.Popen(words, env=ENVIRONMENT, stdout=out, stderr=out)
            try:
                yield log
                process.terminate()
                assert process.wait(60) == 0
            finally:
                process.kill()
                process.wait()

    def doctor(self, module: str, config: str) -> dict[str, list[Any]]:
        """Check -> its findings."""
        words = [sys.executable, "-m", module, "doctor", "-c", str(self.folder / config), "--format", "json"]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=180, check=False)
        found: dict[str, list[Any]] = {}
        for finding in json.loads(done.stdout)["findings"]:
            found.setdefault(finding["check"], []).append(finding)
        return found

    def batches(self) -> float:
        """How many the collector has written since it started."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/metrics", timeout=60) as answer:
            found = re.search(rf'^infravitals_batches_total{{agent="{AGENT}"}} (.+)$', answer.read().decode(), re.M)
        return float(found[1]) if found else 0.0

    def goes_on(self) -> None:
        """Batches come in as before, within seconds."""
        before = self.batches()
        until(lambda: self.batches() >= before + 3, 60)

    def sessions_ended(self) -> int:
        return self.broker.said("already connected, closing old connection")


@pytest.fixture
def line() -> Iterator[Line]:
    with open_folder() as folder, ShippedBroker(folder) as broker:
        yield Line(folder, broker)


def test_agent_and_collector_are_back_at_once_after_a_doctor_and_nothing_is_lost(line: Line) -> None:
    with line.running("collector.cli", "serve", "collector.yaml") as collector_s:
        until(lambda: "its page is" in collector_s.read_text(), 60)
        with line.running("agent.cli", "run", "agent.yaml") as agent_s:
            line.goes_on()
            for visit in range(VISITS):
                found = line.doctor("agent.cli", "agent.yaml")
                assert line.sessions_ended() > visit, "else this test shows nothing"
                assert [one["text"] for one in found["broker"]] == [f"127.0.0.1:{line.broker.port} lets user {USER} in"]
                assert [one["text"].split("/", 3)[3] for one in found["permissions"]] == [
                    "doctor-nobody/points is refused",
                    f"{AGENT}/receipt is refused",
                ]
                line.goes_on()
            ended = line.sessions_ended()
            found = line.doctor("collector.cli", "collector.yaml")
            assert line.sessions_ended() > ended
            assert [one["state"] for one in found["broker"] + found["permissions"]] == ["good"] * 2
            line.goes_on()
    told = agent_s.read_text() + collector_s.read_text()
    assert "another agent" not in told and "Traceback" not in told
    with closing(sqlite3.connect(line.folder / "state" / "spool.sqlite")) as spool:
        (made, dropped) = spool.execute("SELECT made_batches, dropped_batches FROM ledger").fetchone()
        waiting = {seq for (seq,) in spool.execute("SELECT seq FROM batch")}
    with place_of(read_config(line.folder / "collector.yaml")).store() as store:
        (total,) = store.totals()
    missing = {seq for _, first, last in total.holes for seq in range(first, last + 1)}
    assert dropped == 0 and missing <= waiting, "what has no receipt is sent again after 30 s"
    assert made - len(waiting) <= total.batches <= made
