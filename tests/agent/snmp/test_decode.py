"""Text, counters and uptime as devices give them."""

import pytest

from agent.snmp.decode import Counters, Uptime, read_mac, read_number, read_text

WRAP = 2**32 / 100
DAY = 86400


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"ward-switch\0", "ward-switch"),
        ("核心交换机".encode(), "核心交换机"),
        ("核心交换机".encode("gb18030"), "核心交换机"),
        (b"line one\r\nline two\x01", "line one line two"),
        (b"\xff\xfe\xfd", "ÿþý"),
        (b"x" * 500, "x" * 200),
        (42, "42"),
    ],
)
def test_text_of_every_character_set_is_one_line(raw: object, text: str) -> None:
    assert read_text(raw) == text  # type: ignore[arg-type]


def test_numbers_may_come_as_text() -> None:
    assert read_number(b"42.5 C") == 42.5 and read_number(b"n/a") is None
    assert read_mac(bytes(range(6))) == "00:01:02:03:04:05"


def test_counter_of_32_bits_wraps() -> None:
    counters = Counters()
    assert counters.growth("in", 2**32 - 100, 0.0, 32) is None
    assert counters.growth("in", 50, 10.0, 32) == (150, 10.0)


def test_counter_of_64_bits_that_falls_was_cleared() -> None:
    counters = Counters()
    counters.growth("in", 1000, 0.0)
    assert counters.growth("in", 50, 10.0) is None
    assert counters.growth("in", 150, 20.0) == (100, 10.0)


def test_nothing_is_known_after_a_restart() -> None:
    counters = Counters()
    counters.growth("in", 1000, 0.0, 32)
    counters.forget()
    assert counters.growth("in", 5000, 10.0, 32) is None


def test_uptime_that_falls_is_a_restart() -> None:
    uptime = Uptime()
    uptime.look(100 * DAY * 100, 0.0)
    assert uptime.look(500, 60.0) == 5.0 and uptime.has_restarted
    assert uptime.look(6500, 120.0) == 65.0 and not uptime.has_restarted


def test_uptime_of_497_days_wraps_and_is_no_restart() -> None:
    uptime = Uptime()
    uptime.look(2**32 - 3000, 0.0)
    assert uptime.look(3000, 60.0) == WRAP + 30 and not uptime.has_restarted
    assert uptime.look(9000, 120.0) == WRAP + 90


def test_restart_just_before_the_wrap_is_told_by_the_engine() -> None:
    uptime = Uptime()
    uptime.look(2**32 - 3000, 0.0, 42949643, boots=4)
    assert uptime.look(3000, 60.0, 30, boots=5) == 30.0 and uptime.has_restarted


def test_wraps_from_before_our_time_are_known_from_the_engine() -> None:
    assert Uptime().look(100 * 1000, 0.0, engine_seconds=round(2 * WRAP) + 1000) == 2 * WRAP + 1000


def test_engine_that_started_later_than_the_device_changes_nothing() -> None:
    assert Uptime().look(100 * 9000, 0.0, engine_seconds=300) == 9000.0
