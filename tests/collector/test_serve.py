"""What a collector says of its broker: once when trouble begins, once when it ends, and a word when it never lasts."""

from collections.abc import Iterator

import pytest

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
