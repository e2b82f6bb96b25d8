"""config_backup on real files: age, drift against the approved copy, lines that change by themselves."""

import os
from pathlib import Path

import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.sources import Reading, Surroundings
from agent.sources.config_backup import Config, Source

NOW = 1_700_000_000.0
STORED = (
    "! Last configuration change at 10:00:00 by admin\nhostname core-sw-1\ninterface Vlan1\n ip address 10.0.0.1/24\n"
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    stored, approved = tmp_path / "stored", tmp_path / "approved"
    stored.mkdir()
    approved.mkdir()
    return stored, approved


def store(folder: Path, asset: str, text: str, age_seconds: float = 3600) -> None:
    path = folder / f"{asset}.cfg"
    path.write_text(text)
    os.utime(path, (NOW - age_seconds, NOW - age_seconds))


def look(folders: tuple[Path, Path], *assets: str, **more: object) -> list[Reading]:
    stored, approved = folders
    config = Config(folder=str(stored), approved=str(approved), assets=assets, **more)  # type: ignore[arg-type]
    readings = Source(config, Surroundings("gateway-1", clock=lambda: NOW)).collect()
    assert undeclared("config_backup", readings) == []
    return readings


def test_age_and_drift_per_device(folders: tuple[Path, Path]) -> None:
    stored, approved = folders
    for asset in ("same", "changed", "unknown"):
        store(stored, asset, STORED)
    store(approved, "same", STORED.replace("10:00:00 by admin", "09:00:00 by ops") + "\n", 10 * 86400)
    store(approved, "changed", STORED.replace("10.0.0.1", "10.0.0.2"))
    readings = look(folders, "same", "changed", "unknown", "never-fetched")
    assert {reading.asset: dict(reading.fields) for reading in readings} == {
        "same": {"age_seconds": 3600.0, "has_drift": False},
        "changed": {"age_seconds": 3600.0, "has_drift": True},
        "unknown": {"age_seconds": 3600.0},
    }


def test_line_that_changes_by_itself_can_be_named(folders: tuple[Path, Path]) -> None:
    stored, approved = folders
    store(stored, "fw-1", "uptime 3 days\nrule 1 deny\n")
    store(approved, "fw-1", "uptime 2 days\nrule 1 deny\n")
    assert look(folders, "fw-1")[0].fields["has_drift"] is True
    assert look(folders, "fw-1", ignore=("^uptime ",))[0].fields["has_drift"] is False


def test_nothing_stored_is_no_data_and_no_folder_is_trouble(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(NoData):
        look(folders, "core-sw-1")
    with pytest.raises(SourceError, match="gone"):
        look((tmp_path / "gone", folders[1]), "core-sw-1")


def test_nothing_of_a_configuration_is_reported(folders: tuple[Path, Path]) -> None:
    store(folders[0], "core-sw-1", "snmp-server community very-secret\n")
    assert "very-secret" not in repr(look(folders, "core-sw-1"))


@pytest.mark.parametrize("wrong", [{"assets": ("Core",)}, {"ignore": ("(",)}])
def test_mistakes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Config(**({"folder": "/x", "assets": ("a",)} | wrong))  # type: ignore[arg-type]
