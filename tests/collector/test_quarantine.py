"""The quarantine keeps a bounded part of what was set aside, and counts all of it."""

import json
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import pytest

from agent.errors import StoreError
from agent.language import speaking
from collector.quarantine import BURST_ROWS, Entry, Quarantine
from collector.reasons import Reason

AT = 1_790_000_000_000


def entry(number: int, reason: Reason = Reason.BAD_TAG, payload: bytes = b"") -> Entry:
    return Entry(AT + number, "hospital", "srv-1", reason, f"number {number}", payload)


def keep(quarantine: Quarantine, *entries: Entry) -> None:
    quarantine.keep(entries, Counter(item.reason for item in entries))


def test_entries_are_read_newest_first_and_by_reason(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite") as quarantine:
        keep(quarantine, entry(1), entry(2, Reason.UNDECODABLE, b"\x00\x01"), entry(3))
        assert quarantine.read() == [entry(3), entry(2, Reason.UNDECODABLE, b"\x00\x01"), entry(1)]
        assert quarantine.read(1) == [entry(3)]
        assert quarantine.read(reason=Reason.UNDECODABLE) == [entry(2, Reason.UNDECODABLE, b"\x00\x01")]


def test_counts_and_entries_survive_a_restart(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite") as quarantine:
        keep(quarantine, entry(1), entry(2))
    with Quarantine(tmp_path / "q.sqlite") as quarantine:
        keep(quarantine, entry(3))
        assert quarantine.counts() == {Reason.BAD_TAG: 3}
        assert len(quarantine.read()) == 3


def test_what_was_set_aside_lately_is_counted_to_the_hour_whatever_is_kept(tmp_path: Path) -> None:
    now = [1_790_000_000.0]
    with Quarantine(tmp_path / "q.sqlite", max_rows=3, clock=lambda: now[0]) as quarantine:
        for number in range(10):
            keep(quarantine, entry(number))
        now[0] += 23 * 3600
        quarantine.keep([], {Reason.NOT_YOURS: 700})
        assert quarantine.lately() == {Reason.BAD_TAG: 10, Reason.NOT_YOURS: 700}
    now[0] += 2 * 3600
    with Quarantine(tmp_path / "q.sqlite", clock=lambda: now[0]) as quarantine:
        assert quarantine.lately() == {Reason.NOT_YOURS: 700}
        assert json.loads(quarantine.render("json"))["last_day"] == {"not_yours": 700}
        quarantine.keep([], {Reason.BAD_TAG: 1})
        now[0] += 30 * 3600
        assert quarantine.lately() == {}
        assert quarantine.counts() == {Reason.BAD_TAG: 11, Reason.NOT_YOURS: 700}


def test_the_oldest_rows_go_and_the_count_stays(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite", max_rows=10) as quarantine:
        for number in range(100):
            keep(quarantine, entry(number))
        assert [item.at - AT for item in quarantine.read(1000)] == list(range(99, 89, -1))
        assert quarantine.counts() == {Reason.BAD_TAG: 100}


def test_the_bytes_are_bounded_and_of_a_payload_only_the_beginning_is_kept(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite", max_bytes=20_000) as quarantine:
        for number in range(100):
            keep(quarantine, entry(number, Reason.UNDECODABLE, b"x" * 100_000))
        kept = quarantine.read(1000)
        assert kept[0].at == AT + 99
        assert {len(item.payload) for item in kept} == {1024}
        assert 10 <= len(kept) <= 20


def test_a_flood_of_one_reason_is_thinned_and_hides_no_other(tmp_path: Path) -> None:
    now = 0.0
    with Quarantine(tmp_path / "q.sqlite", rows_per_second=5, monotonic=lambda: now) as quarantine:
        keep(quarantine, *(entry(number) for number in range(5000)))
        keep(quarantine, entry(1, Reason.NOT_YOURS))
        assert len(quarantine.read(10_000, Reason.BAD_TAG)) == BURST_ROWS
        assert len(quarantine.read(10, Reason.NOT_YOURS)) == 1
        assert quarantine.counts() == {Reason.BAD_TAG: 5000, Reason.NOT_YOURS: 1}
        now = 2.0
        keep(quarantine, *(entry(number) for number in range(5000)))
        assert len(quarantine.read(10_000, Reason.BAD_TAG)) == BURST_ROWS + 10


def test_a_locked_file_is_said_once_and_what_was_counted_meanwhile_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "q.sqlite"
    with Quarantine(path) as quarantine:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        keep(quarantine, entry(1))
        keep(quarantine, entry(2, Reason.NOT_YOURS))
        assert quarantine.counts() == {Reason.BAD_TAG: 1, Reason.NOT_YOURS: 1}
        other.execute("ROLLBACK")
        other.close()
        keep(quarantine, entry(3))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    with Quarantine(path) as quarantine:
        assert quarantine.counts() == {Reason.BAD_TAG: 2, Reason.NOT_YOURS: 1}


def test_a_damaged_file_is_put_beside_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "q.sqlite"
    path.write_bytes(b"this is no database at all" * 100)
    with Quarantine(path) as quarantine:
        keep(quarantine, entry(1))
        assert quarantine.read() == [entry(1)]
    assert (tmp_path / "q.sqlite.damaged").read_bytes().startswith(b"this is no database")
    assert "q.sqlite.damaged" in caplog.text


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/q\.sqlite"), Quarantine(tmp_path / "nowhere" / "q.sqlite"):
        pass


def test_it_may_be_read_from_a_second_place_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "q.sqlite"
    with Quarantine(path) as writing:
        keep(writing, entry(1))
        with Quarantine(path) as reading:
            keep(writing, entry(2))
            assert len(reading.read()) == 2
        keep(writing, entry(3))
        assert len(writing.read()) == 3


def test_threads_may_share_it(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite") as quarantine:
        threads = [
            threading.Thread(target=lambda: [keep(quarantine, entry(number)) for number in range(20)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert quarantine.counts() == {Reason.BAD_TAG: 80}
        assert len(quarantine.read(1000)) == 80


def test_it_is_shown_as_json_and_as_a_table_without_control_characters(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite") as quarantine:
        keep(quarantine, entry(1, Reason.UNDECODABLE, b"\x1b[2J\xff[bold]"))
        shown = json.loads(quarantine.render("json"))
        assert shown["counts"] == {"undecodable": 1}
        assert shown["entries"][0]["at"] == "2026-09-21T14:13:20Z"
        assert shown["entries"][0]["payload"] == "\\x1b[2J\\xff[bold]"
        with speaking("en"):
            table = quarantine.render("table")
        assert "\x1b" not in table
        assert "\\x1b[2J\\xff[bold]" in table
        assert "the batch cannot be decoded" in table


def test_an_empty_one_says_so(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.sqlite") as quarantine, speaking("en"):
        assert quarantine.render("table") == "the quarantine is empty\n"
