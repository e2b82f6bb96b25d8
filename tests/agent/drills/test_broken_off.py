"""`infravitals drill run` as a process that is told to stop in the middle: what it has switched is switched back."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from servers import answers, free_port, until

COMMAND = [sys.executable, "-m", "collector.cli", "drill"]
ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}
SERVER = """
import os, socket, sys
with open(sys.argv[2], "w") as file:
    file.write(str(os.getpid()))
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""


class Service:
    """A TCP service in a process of its own, which a hook can end and start again."""

    def __init__(self, folder: Path) -> None:
        self.port, self.pid_file = free_port(), folder / "pid"
        script = folder / "service.py"
        script.write_text(SERVER)
        self.command = f"{sys.executable} {script} {self.port} {self.pid_file} >/dev/null 2>&1 &"
        subprocess.run(["sh", "-c", self.command], check=True)
        until(lambda: answers(self.port))

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.pid_file.read_text()), signal.SIGKILL)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    try:
        yield running
    finally:
        running.end()


def begin(
    folder: Path, port: int, switch: list[list[str]], back: list[list[str]], observe_seconds: float = 120.0
) -> "subprocess.Popen[str]":
    """`drill run` in a process group of its own, as a shell starts it."""
    now = datetime.now(UTC)
    probe = {"service": "his", "kind": "tcp", "addresses": [f"127.0.0.1:{port}"]}
    agent = {
        "site": "s", "agent": "a", "broker": {"host": "127.0.0.1"}, "state_directory": str(folder / "state"),
        "sources": {"continuity_probe": {"probes": {"his-tcp": probe}}},
    }  # fmt: skip
    (folder / "agent.yaml").write_text(json.dumps(agent))
    window = {"from": now.isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    plan = {
        "drill": "his-1", "probe": "his-tcp", "people": ["zhang-san", "li-si"], "window": window, "calm_seconds": 0.5,
        "observe_seconds": observe_seconds, "hook": {"switch": switch, "back": back},
    }  # fmt: skip
    (folder / "plan.yaml").write_text(json.dumps(plan))
    words = [str(folder / "plan.yaml"), "-c", str(folder / "agent.yaml")]
    printed = subprocess.run([*COMMAND, "plan", *words], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    code = printed.stdout.split("code ")[1].strip()
    run = [*COMMAND, "run", *words, "--by", "zhang-san", "--by", "li-si", "--code", code]
    return subprocess.Popen(
        run, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(running: "subprocess.Popen[str]") -> str:
    """What it said until its end, which is its own."""
    try:
        said, _ = running.communicate(timeout=180)
    finally:
        running.kill()
        running.communicate()
    return said


def record(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "state/drills/his-1.json").read_text())
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_drill_that_is_told_to_stop_ends_its_action_begins_no_other_and_runs_back(
    how: signal.Signals, service: Service, tmp_path: Path
) -> None:
    begun, ended, second, returned = (tmp_path / name for name in ("begun", "ended", "second", "returned"))
    told = tmp_path / "told"
    act = f"touch {begun}; until [ -e {told} ]; do sleep 0.05; done; touch {ended}"
    switch = [["sh", "-c", act], ["touch", str(second)]]
    running = begin(tmp_path, service.port, switch, [["sh", "-c", f"sleep 0.3; touch {returned}"]])
    until(begun.exists)
    os.killpg(running.pid, how)  # as a terminal does it: to everything in front
    told.touch()
    said = finish(running)
    assert running.returncode == 0, said
    assert ended.exists(), "half a switch is worse than a whole one"
    assert returned.exists() and not second.exists()
    found = record(tmp_path)
    assert found["is_aborted"] is True and found["is_passed"] is False
    assert "switching back now" in said and "broken off" in said


def test_outage_that_is_on_at_ctrl_c_is_timed_to_its_end(service: Service, tmp_path: Path) -> None:
    switch = [["sh", "-c", f"kill -9 $(cat {service.pid_file})"]]
    running = begin(tmp_path, service.port, switch, [["sh", "-c", service.command]])
    until(lambda: not answers(service.port))
    log = tmp_path / "state/drills/his-1.tokens.jsonl"
    until(lambda: log.exists() and log.read_bytes().count(b'"is_good":false') > 3)
    running.send_signal(signal.SIGINT)
    said = finish(running)
    assert answers(service.port)
    found = record(tmp_path)
    assert found["is_aborted"] is True and found["is_passed"] is False, said
    outages = found["outages"]
    assert isinstance(outages, list) and len(outages) == 1
    assert found["rto_seconds"] == outages[0]["ended_at"] - outages[0]["began_at"]
    assert found["is_automatic"] is False, "it took `back`"


def test_ctrl_c_before_the_drill_begins_touches_nothing(tmp_path: Path) -> None:
    switched, returned = tmp_path / "switched", tmp_path / "returned"
    running = begin(tmp_path, free_port(), [["touch", str(switched)]], [["touch", str(returned)]])
    log = tmp_path / "state/drills/his-1.tokens.jsonl"
    until(lambda: log.exists() and log.read_bytes().count(b"\n") > 1)
    running.send_signal(signal.SIGINT)
    said = finish(running)
    assert "nothing was touched" in said and running.returncode == 1
    assert not switched.exists() and not returned.exists() and not log.exists()


def test_time_that_is_up_without_an_outage_is_no_reason_to_leave_it_switched(service: Service, tmp_path: Path) -> None:
    returned = tmp_path / "returned"
    running = begin(tmp_path, service.port, [["true"]], [["touch", str(returned)]], observe_seconds=0.5)
    said = finish(running)
    assert returned.exists(), said
    found = record(tmp_path)
    assert found["is_passed"] is False and found["outages"] == []
