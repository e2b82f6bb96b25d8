"""What a collector set aside is told to whoever runs the agent: once when it begins and once when it ended."""

from collections.abc import Iterator

import msgspec
import pytest

from agent.language import choose, speaking
from agent.reasons import MEANINGS, Reason
from agent.refusals import MOST_REASONS, QUIET_SECONDS, Refusals
from agent.wire import Ranges, Receipt, decode_receipt, encode_receipt


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def refusals(now: list[float]) -> Refusals:
    return Refusals("hospital-a/his-db-1", lambda: now[0])


def test_a_reason_is_told_once_with_what_to_do_and_its_end_once(
    refusals: Refusals, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        refusals.note({"not_yours": 7})
        now[0] += QUIET_SECONDS
        refusals.note({})
    now[0] += 1
    refusals.note({})
    refusals.note({})
    assert [record.getMessage() for record in caplog.records] == [
        "hospital-a/his-db-1: the collector set 7 things aside: not yours: this agent may not report that asset "
        "(not_yours); an asset belongs to the agent that reported it first; see whether `asset` in the configuration "
        "is used twice; not said again",
        "hospital-a/his-db-1: for an hour the collector has set nothing aside as not_yours",
    ]


def test_a_reason_of_a_newer_collector_is_told_by_its_code(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    refusals.note({"too_beautiful": 1})
    assert "the collector set 1 things aside, reason too_beautiful; `infravitals quarantine` there" in caplog.text


def test_codes_without_end_or_with_control_characters_fill_neither_log_nor_memory(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    refusals.note({"\x1b[2J": 1, "x" * 1000: 1})
    assert not caplog.records
    letters = "abcdefghijklmnopqrstuvwxyz"
    refusals.note({first + second: 1 for first in letters for second in letters})
    assert len(caplog.records) == MOST_REASONS


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_told_in_both_languages(
    reason: Reason, refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    with speaking("zh"):
        refusals.note({reason: 1})
    meaning = MEANINGS[reason]
    assert meaning.text.zh in caplog.text
    assert meaning.remedy.zh in caplog.text


class OldReceipt(msgspec.Struct):
    """The receipt as agents of the first version read it."""

    boot: str
    applied: Ranges
    set_aside: Ranges


def test_an_older_agent_reads_a_receipt_with_reasons_and_a_newer_one_reads_one_without() -> None:
    told = encode_receipt(Receipt("boot", [(0, 1)], [], {"not_yours": 2}))
    assert msgspec.json.decode(told, type=OldReceipt) == OldReceipt("boot", [(0, 1)], [])
    plain = msgspec.json.encode(OldReceipt("boot", [(0, 1)], []))
    assert decode_receipt(plain) == Receipt("boot", [(0, 1)], [])
    assert encode_receipt(Receipt("boot", [(0, 1)], [])) == plain, "nothing set aside: the same bytes as ever"
