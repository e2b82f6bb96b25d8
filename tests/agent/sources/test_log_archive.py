"""log_archive on real files: the oldest line that can be read, and when the last one came."""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from declared import undeclared

from agent.errors import SourceError
from agent.sources import Surroundings
from agent.sources.log_archive import Config, Origin, Source

DAY = 86400.0
NOW = 1_774_886_400.0  # 2026-03-30T16:00:00Z


def look(folder: Path, pattern: str = "*", **more: int) -> Mapping[str, object]:
    config = Config(origins={"network": Origin(folder=str(folder), pattern=pattern)}, **more)
    readings = Source(config, Surroundings("log-1", clock=lambda: NOW)).collect()
    assert undeclared("log_archive", readings) == []
    return readings[0].fields if readings else {}


def write(path: Path, line: str, days_ago: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(line.encode()) if path.suffix == ".gz" else line.encode())
    os.utime(path, (NOW - days_ago * DAY, NOW - days_ago * DAY))


def test_oldest_line_dates_the_archive_and_the_newest_file_its_arrival(tmp_path: Path) -> None:
    write(tmp_path / "2025/09.log.gz", "2025-09-01T00:00:00+08:00 core-sw-1 %LINK-3-UPDOWN\n", 180)
    write(tmp_path / "2026/03.log", "<134>1 2026-03-01T00:00:00Z core-sw-1 - - - up\n", 0.5)
    fields = look(tmp_path)
    assert fields["last_arrival_age_seconds"] == DAY / 2
    assert fields["oldest_age_seconds"] == 211 * DAY  # 1 September, 16:00 UTC of the day before


def test_file_that_cannot_be_unpacked_is_no_archive(tmp_path: Path) -> None:
    write(tmp_path / "old.log.gz", "2025-01-01T00:00:00Z lost\n", 300)
    damaged = tmp_path / "old.log.gz"
    damaged.write_bytes(damaged.read_bytes()[:12])
    os.utime(damaged, (NOW - 300 * DAY, NOW - 300 * DAY))
    write(tmp_path / "new.log", "2026-03-20T16:00:00Z kept\n", 1)
    assert look(tmp_path)["oldest_age_seconds"] == 10 * DAY


def test_line_without_a_date_is_as_old_as_its_file_s_last_change(tmp_path: Path) -> None:
    write(tmp_path / "a.log", "Mar  1 00:00:00 core-sw-1 up\n", 5)
    assert look(tmp_path)["oldest_age_seconds"] == 5 * DAY


def test_date_that_no_file_can_have_does_not_make_the_archive_older(tmp_path: Path) -> None:
    write(tmp_path / "a.log", "1970-01-01T00:00:00Z clock not set\n", 5)
    assert look(tmp_path)["oldest_age_seconds"] == 405 * DAY


def test_empty_archive_gives_nothing_and_a_missing_one_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    assert look(tmp_path) == {}
    with pytest.raises(SourceError, match="gone"):
        look(tmp_path / "gone")


def test_too_many_files_are_said(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.log", "x\n", 1)
    with pytest.raises(SourceError, match="pattern"):
        look(tmp_path, most_files=3)
    assert look(tmp_path, pattern="0*", most_files=3)


def test_folders_and_empty_files_are_none_of_the_files_that_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}.log").touch()
    write(tmp_path / "4/newest.log", "x\n", 1)
    write(tmp_path / "4/oldest.log", "x\n", 9)
    assert look(tmp_path, most_files=3)["oldest_age_seconds"] == 9 * DAY


def test_link_to_nothing_is_no_file_and_no_trouble(tmp_path: Path) -> None:
    write(tmp_path / "old.log", "Mar 21 16:00:00 core-1 up", 9)
    (tmp_path / "gone.log").symlink_to(tmp_path / "nowhere")
    assert look(tmp_path)["oldest_age_seconds"] == 9 * DAY
