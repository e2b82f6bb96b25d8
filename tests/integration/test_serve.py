"""The commands of a hospital: `infravitals-agent run` and `infravitals serve` around a real broker with TLS and passwords."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import Authority, Influx, Mosquitto, free_port, until, write_passwords

ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}
AGENT_PASSWORD, COLLECTOR_PASSWORD = "canary-agent-3141", "canary-collector-2718"

AGENT = """
site: hospital
agent: his-db-1
broker:
  host: 127.0.0.1
  port: {port}
  tls: {{ca: {ca}}}
  username: hospital/his-db-1
  password: {{file: {folder}/agent.password}}
state_directory: {folder}/agent
sources:
  host_cpu: {{interval_seconds: 1}}
  host_memory: {{interval_seconds: 1}}
"""

COLLECTOR = """
site: hospital
broker:
  host: 127.0.0.1
  port: {port}
  tls: {{ca: {ca}}}
  username: collector
  password: {{file: {folder}/collector.password}}
data_directory: {folder}/collector
page: {{port: {page}}}
"""


class Hospital:
    """A broker with TLS and passwords, and the configuration of one agent and one collector."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.page = folder, free_port()
        authority = Authority(folder)
        served = authority.issue("broker")
        passwords = write_passwords(
            folder / "passwords", {"hospital/his-db-1": AGENT_PASSWORD, "collector": COLLECTOR_PASSWORD}
        )
        settings = f"""allow_anonymous false
password_file {passwords}
cafile {authority.certificate}
certfile {served.certificate}
keyfile {served.key}"""
        self.broker = Mosquitto(folder, settings)
        (folder / "agent.password").write_text(AGENT_PASSWORD + "\n")
        (folder / "collector.password").write_text(COLLECTOR_PASSWORD + "\n")
        words = {"port": self.broker.port, "ca": authority.certificate, "folder": folder, "page": self.page}
        (folder / "agent.yaml").write_text(AGENT.format(**words))
        (folder / "collector.yaml").write_text(COLLECTOR.format(**words))

    @contextmanager
    def running(self, module: str, command: str, config: str) -> Iterator["subprocess.Popen[str]"]:
        """One of the two programs, its words in `<command>.log`."""
        with (self.folder / f"{command}.log").open("a") as log:
            words = [sys.executable, "-m", module, command, "-c", str(self.folder / config)]
            process = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT, text=True)
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text()

    def scorecard(self) -> dict[str, object]:
        """What the page says; empty while it has nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/api/scorecard", timeout=60) as answer:
                return dict(json.loads(answer.read()))
        except OSError:
            return {}

    def is_scored(self) -> bool:
        """Whether the page shows what both sources of the agent gave; one of them may have come first."""
        found = self.completeness()
        return bool(found.get("provisional")) and found["subjects"] == 2

    def completeness(self) -> dict[str, object]:
        """The one criterion that every agent feeds."""
        for node in self.scorecard().get("nodes", []):  # type: ignore[attr-defined]
            for criterion in node["criteria"]:
                if criterion["id"] == "telemetry-completeness":
                    return dict(criterion)
        return {}


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def test_agent_and_collector_meet_over_a_broker_that_came_late(hospital: Hospital) -> None:
    with (
        hospital.running("collector.cli", "serve", "collector.yaml") as collector,
        hospital.running("agent.cli", "run", "agent.yaml") as agent,
    ):
        until(lambda: "trying on" in hospital.log("serve"))
        with hospital.broker:
            until(hospital.is_scored)
            for process in (agent, collector):
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0
    words = hospital.log("serve") + hospital.log("run")
    assert "Traceback" not in words
    assert AGENT_PASSWORD not in words and COLLECTOR_PASSWORD not in words


def test_collector_starts_before_its_influxdb_and_scores_once_that_is_there(hospital: Hospital) -> None:
    influx = Influx(hospital.folder / "influx")
    (hospital.folder / "influx.password").write_text(influx.ADMIN[1])
    section = f"""
store:
  kind: influxdb
  url: {influx.url}
  database: hospital
  user: {influx.ADMIN[0]}
  password: {{file: {hospital.folder}/influx.password}}
"""
    with (hospital.folder / "collector.yaml").open("a") as file:
        file.write(section)
    with (
        hospital.broker,
        hospital.running("collector.cli", "serve", "collector.yaml") as collector,
        hospital.running("agent.cli", "run", "agent.yaml"),
    ):
        until(lambda: "does InfluxDB run" in hospital.log("serve"))
        with influx:
            influx.ask("CREATE DATABASE hospital")
            until(hospital.is_scored, 90)
            command = ["collector.cli", "score", "-c", str(hospital.folder / "collector.yaml"), "--format", "json"]
            beside = subprocess.run([sys.executable, "-m", *command], env=ENVIRONMENT, capture_output=True, text=True)
            assert (beside.returncode, json.loads(beside.stdout)["site"]) == (0, "hospital")
            collector.send_signal(signal.SIGTERM)
            assert collector.wait(60) == 0
    words = hospital.log("serve")
    assert "Traceback" not in words
    assert influx.ADMIN[1] not in words


def test_wrong_password_is_one_sentence_and_the_agent_keeps_its_points(hospital: Hospital) -> None:
    (hospital.folder / "agent.password").write_text("canary-wrong-1618")
    with hospital.broker, hospital.running("agent.cli", "run", "agent.yaml") as agent:
        until(lambda: "the login was refused" in hospital.log("run"))
        assert agent.poll() is None
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0
    words = hospital.log("run")
    assert "canary-wrong-1618" not in words and "Traceback" not in words
    assert (hospital.folder / "agent" / "spool.sqlite").stat().st_size > 0


def test_collector_tells_systemd_ready_alive_and_ending(hospital: Hospital) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(hospital.folder / "notify"))
        systemd.settimeout(60)
        words = [sys.executable, "-m", "collector.cli", "serve", "-c", str(hospital.folder / "collector.yaml")]
        told = {"NOTIFY_SOCKET": str(hospital.folder / "notify"), "WATCHDOG_USEC": "300000"}
        with subprocess.Popen(words, env={**ENVIRONMENT, **told}, stderr=subprocess.DEVNULL) as collector:
            while heard.count("WATCHDOG=1") < 3:
                heard.append(systemd.recv(4096).decode())
            collector.send_signal(signal.SIGTERM)
            while heard[-1] != "STOPPING=1":
                heard.append(systemd.recv(4096).decode())
            assert collector.wait(60) == 0
    assert heard[0] == "READY=1"
