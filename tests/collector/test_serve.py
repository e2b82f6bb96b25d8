"""What a collector says of its broker: once when trouble begins, once when it ends, and a word when it never lasts."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import answers, free_port, until

from agent.broker import SAY_AGAIN_SECONDS
from agent.errors import LinkError, MissingSecret
from agent.language import speaking
from collector.serve import LONGEST_WAIT_SECONDS, MOST_SHORT, STEADY_SECONDS, Connecting

AWAY, BACK = "the broker is away, trying on: gone", "the broker is back"
SHARED = "connections to the broker break again and again"


class Broker:
    """Trouble with a broker, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.news = Connecting(lambda: self.now)

    def connect(self, lasts_seconds: float) -> None:
        """A connection that brings something at its end, and ends."""
        self.news.began()
        self.now += lasts_seconds
        self.news.goes_on()
        self.fail()

    def fail(self) -> None:
        self.news.ended(LinkError("gone"))


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    with speaking("en"):
        yield


def test_trouble_is_said_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    for _ in range(5):
        broker.fail()
    broker.connect(STEADY_SECONDS)
    broker.fail()
    assert caplog.messages == [AWAY, BACK, AWAY]


def test_secret_that_is_not_there_is_said_again_every_hour(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    for _ in range(10):
        broker.news.ended(MissingSecret("no password file"))
        broker.now += SAY_AGAIN_SECONDS / 4
    assert caplog.messages == ["the broker is away, trying on: no password file"] * 3


def test_waits_grow_until_somebody_is_there() -> None:
    broker = Broker()
    waits = []
    for _ in range(8):
        broker.fail()
        waits.append(broker.news.longest_wait_seconds)
    assert waits == [2, 4, 8, 16, 32, LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS]
    broker.connect(1.0)
    assert broker.news.longest_wait_seconds == 2


def test_connections_that_never_last_are_explained_once_and_then_silent(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker()
    for _ in range(20):
        broker.connect(1.0)
    told = [text[: len(SHARED)] for text in caplog.messages]
    assert told.count(SHARED) == 1
    assert len(told) <= 2 * MOST_SHORT
    broker.connect(STEADY_SECONDS)
    assert caplog.messages[-2:] == [BACK, AWAY]


@pytest.mark.parametrize(
    ("journal", "time"),
    [({"JOURNAL_STREAM": "8:1"}, ""), ({}, r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")],
    ids=["journal", "elsewhere"],
)
def test_the_last_word_of_a_collector_that_is_stopped_is_its_own(
    tmp_path: Path, journal: dict[str, str], time: str
) -> None:
    page = free_port()
    file = tmp_path / "collector.yaml"
    broker = f"{{host: 127.0.0.1, port: {free_port()}}}"
    file.write_text(f"{{site: hospital, broker: {broker}, data_directory: {tmp_path}/data, page: {{port: {page}}}}}\n")
    argv = [sys.executable, "-m", "collector.cli", "serve", "-c", str(file), "--lang", "en"]
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"} | journal
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment) as collector:
        until(lambda: answers(page), 60.0)
        collector.terminate()
        said = collector.stderr.read() if collector.stderr else ""
    assert re.fullmatch(f"{time}INFO collector.serve: ending", said.splitlines()[-1])
    assert collector.returncode == 0
