"""kill -9 under load, of each of the three programs: what the agent's ledger says was made is in the store, each point once."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from influxstore import KeptInInfluxDB
from line import Kept, KeptInDuckDB, Row
from proxy import Proxy
from servers import Daemon, free_port, until
from shipped_broker import SITE, ShippedBroker
from unprivileged import open_folder

from agent.spool import Spool
from agent.wire import Address

ADDRESS = Address(SITE, "his-db-1")
START = int(time.time() * 1000) - 3_600_000
"""The time of the first point."""
STRETCH = 60
"""So many batches are receipted between one kill and the next."""
TESTS = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en", "PYTHONPATH": str(TESTS.parent)}
SECONDS = 90.0


AGENT = """
site: my-hospital
agent: his-db-1
broker:
  host: 127.0.0.1
  port: {port}
  tls: {{ca: {ca}}}
  password: {{file: {secrets}/my-hospital_his-db-1}}
state_directory: {folder}
sources: {{host_uptime: {{}}}}
"""

COLLECTOR = """
site: my-hospital
broker:
  host: 127.0.0.1
  port: {port}
  tls: {{ca: {ca}}}
  username: collector
  password: {{file: {secrets}/collector}}
data_directory: {folder}/data
page: {{port: {page}}}
store: {store}
"""


class Hospital:
    """One agent under load behind a proxy, the shipped broker, `infravitals serve`; each a process of its own."""

    def __init__(self, folder: Path, broker: ShippedBroker, proxy: Proxy, kept: Kept) -> None:
        self.folder, self.broker, self.proxy, self.kept = folder, broker, proxy, kept
        for user in ("/".join(ADDRESS), "collector"):
            broker.add_user(user, f"password of {user}")
        broker.reload()
        words = {"ca": broker.authority.certificate, "secrets": broker.secrets, "folder": folder}
        (folder / "agent.yaml").write_text(AGENT.format(port=proxy.port, **words))
        words |= {"page": free_port(), "store": kept.section}
        (folder / "collector.yaml").write_text(COLLECTOR.format(port=broker.port, **words))
        argv = [sys.executable, "-m", "collector.cli", "serve", "-c", folder / "collector.yaml"]
        self.collector = Daemon(argv, folder, self._is_collecting, ENVIRONMENT)
        self._starts = 0

    def _is_collecting(self) -> bool:
        """Since its last start."""
        return self.collector.log.read_text(errors="replace").count("its page is") > self._starts

    def start_collector(self) -> None:
        self.collector.start()
        self._starts += 1

    def agent(self) -> "LoadedAgent":
        return LoadedAgent(self.folder)

    def assert_kept_once(self) -> None:
        """The store against the ledger; nobody has either open."""
        spool = Spool(self.folder / "spool.sqlite", max_bytes=2**26, max_age_seconds=1e9, new_boot=lambda: "r")
        state = spool.state()
        spool.close()
        rows, batches = self.kept.rows(ADDRESS), self.kept.batches(ADDRESS)
        assert state.made_batches >= 3 * STRETCH
        assert (state.applied_batches, state.batches) == (state.made_batches, 0)
        assert (len(batches), sum(points for _, _, points in batches)) == (state.made_batches, state.made_points)
        assert rows == [Row(START + number, float(number)) for number in range(state.made_points)]


def enough_of(folder: Path) -> Path:
    """The file that ends the load once it is there."""
    return folder / "enough"


class LoadedAgent:
    """tests/loaded_agent.py as a process, and what its ledger says."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "loaded_agent.log"
        self._enough = enough_of(folder)
        words = [
            sys.executable,
            str(TESTS / "loaded_agent.py"),
            str(folder / "agent.yaml"),
            str(self._enough),
            str(START),
        ]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log, cwd=folder)

    def count(self, key: str) -> int:
        """A number of the ledger as it was last told."""
        lines = [line for line in self._log.read_text().split("\n")[:-1] if line.startswith("{")]
        return int(json.loads(lines[-1])[key]) if lines else 0

    def go_on(self, key: str, by: int) -> None:
        """Return when a number of the ledger is so much higher than now, or than what is told first."""
        until(lambda: self.count("made_batches") or self._has_failed(), SECONDS)
        least = self.count(key) + by
        until(lambda: self.count(key) >= least or self._has_failed(), SECONDS)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """No more load; it ends by itself when everything that it made is receipted."""
        self._enough.touch()
        try:
            assert self._process.wait(SECONDS) == 0, self._log.read_text()[-2000:]
        except subprocess.TimeoutExpired:
            logs = [path.read_text()[-2000:] for path in (self._log, *self._log.parent.glob("*/*.log"))]
            raise AssertionError("\n".join(["it does not end", *logs])) from None
        finally:
            self.kill()

    def _has_failed(self) -> bool:
        assert self._process.poll() in (None, 0), self._log.read_text()[-2000:]
        return False


@pytest.fixture(params=[KeptInDuckDB, KeptInInfluxDB])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with request.param(tmp_path) as kept:
        yield kept


@pytest.fixture
def hospital(kept: Kept) -> Iterator[Hospital]:
    with open_folder() as folder, ShippedBroker(folder) as broker, Proxy(broker.port) as proxy:
        opened = Hospital(folder, broker, proxy, kept)
        opened.start_collector()
        yield opened
        opened.collector.kill()


@contextmanager
def loaded(hospital: Hospital) -> Iterator[LoadedAgent]:
    agent = hospital.agent()
    try:
        yield agent
    finally:
        agent.kill()


def test_agent_that_is_killed_under_load_loses_nothing_and_sends_nothing_twice(hospital: Hospital) -> None:
    for _ in range(3):
        with loaded(hospital) as agent:
            agent.go_on("applied_batches", STRETCH)
            hospital.proxy.mute()  # what is on its way gets there, and the agent never learns of it
            agent.go_on("made_batches", 20)
            agent.kill()
    enough_of(hospital.folder).touch()  # the last one sends what waits, and makes nothing of its own
    with loaded(hospital) as agent:
        agent.end()
    hospital.collector.stop()
    assert len({boot for boot, _, _ in hospital.kept.batches(ADDRESS)}) == 3
    hospital.assert_kept_once()


def test_broker_that_is_killed_under_load_costs_nothing(hospital: Hospital) -> None:
    with loaded(hospital) as agent:
        for _ in range(3):
            agent.go_on("applied_batches", STRETCH)
            hospital.broker.kill()
            agent.go_on("made_batches", 20)
            assert agent.count("batches") > 0
            hospital.broker.start()
        agent.end()
    hospital.collector.stop()
    hospital.assert_kept_once()


def test_collector_that_is_killed_under_load_costs_nothing(hospital: Hospital) -> None:
    with loaded(hospital) as agent:
        for _ in range(3):
            agent.go_on("applied_batches", STRETCH)
            hospital.collector.kill()
            agent.go_on("made_batches", 20)
            assert agent.count("batches") > 0
            hospital.start_collector()
        agent.end()
    hospital.collector.stop()
    hospital.assert_kept_once()
