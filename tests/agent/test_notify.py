"""What systemd is told, over a real socket of the kind that it listens on."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import READY_SECONDS, until

from agent.notify import feed_watchdog, tell, watchdog_seconds


class Listener:
    """Stands where systemd does."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Every word so far."""
        while True:
            try:
                self._heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path / "notify")
    yield listener
    listener.close()


def test_word_arrives(systemd: Listener) -> None:
    assert tell("READY=1", systemd.environment)
    assert systemd.heard() == ["READY=1"]


def test_abstract_address_is_reached_too() -> None:
    name = f"iv-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        assert tell("READY=1", {"NOTIFY_SOCKET": f"@{name}"})
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "vsock:2:9"}])
def test_nobody_there_is_no_trouble(environment: dict[str, str]) -> None:
    assert not tell("READY=1", environment)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_is_ours_only_when_it_waits_for_this_process(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environment) == seconds


async def test_watchdog_is_fed_while_the_line_answers_and_starves_when_it_hangs(systemd: Listener) -> None:
    hangs, answers = asyncio.Event(), 0

    async def prove() -> None:
        nonlocal answers
        if answers == 3:
            hangs.set()
            await asyncio.Event().wait()
        answers += 1

    feeding = asyncio.create_task(feed_watchdog(prove, {**systemd.environment, "WATCHDOG_USEC": "30000"}))
    async with asyncio.timeout(READY_SECONDS):
        await hangs.wait()
    assert systemd.heard() == ["WATCHDOG=1"] * 3
    feeding.cancel()


AGENT = """
site: hospital
agent: his-db-1
broker: {host: 127.0.0.1, port: 1}
state_directory: state
sources:
  host_cpu: {}
"""


@pytest.mark.parametrize("stops_by", [signal.SIGTERM, signal.SIGINT])
def test_agent_tells_ready_alive_and_ending(systemd: Listener, tmp_path: Path, stops_by: signal.Signals) -> None:
    (tmp_path / "agent.yaml").write_text(AGENT)
    environment = {**os.environ, **systemd.environment, "WATCHDOG_USEC": "300000"}
    words = [sys.executable, "-m", "agent.cli", "run", "-c", str(tmp_path / "agent.yaml")]
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as agent:
        until(lambda: systemd.heard().count("WATCHDOG=1") >= 3)
        agent.send_signal(stops_by)
        until(lambda: systemd.heard() and agent.poll() is not None)
        assert agent.returncode == 0
    heard = systemd.heard()
    assert {heard[0], heard[1]} == {"READY=1", "WATCHDOG=1"}
    assert heard[-1] == "STOPPING=1"
