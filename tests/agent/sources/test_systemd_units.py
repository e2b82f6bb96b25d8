"""systemd_units on recorded answers of systemctl (this machine was not booted with systemd), and on this machine."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.sources import Output, Surroundings
from agent.sources.systemd_units import MAX_UNITS, Config, Source

RECORDED = Path(__file__).parent / "recorded_systemd_units"
PROPERTIES = "--property=Id,LoadState,ActiveState,UnitFileState,Type,Restart,NRestarts,WatchdogUSec"


def recorded(name: str) -> Output:
    return Output((RECORDED / name).read_text("utf-8"), "", 0)


class RecordedSystemctl:
    """A `command` that gives recorded answers in order and keeps what it was asked."""

    def __init__(self, *answers: Output) -> None:
        self._answers = iter(answers)
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, argv: Sequence[str], timeout_seconds: float) -> Output:
        self.asked.append(tuple(argv))
        return next(self._answers)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return tmp_path


def start(root: Path, command: RecordedSystemctl, *units: str) -> Source:
    ticks = itertools.count(0.0, 60.0)
    return Source(
        Config(units=units), Surroundings("his-db", root=root, command=command, monotonic=lambda: next(ticks))
    )


async def look(source: Source) -> Mapping[str, Mapping[str, object]]:
    readings = await source.collect()
    assert undeclared("systemd_units", readings) == []
    return {reading.tags["unit"]: reading.fields for reading in readings}


async def test_recorded_enabled_services_are_watched_without_static_oneshot_and_missing_ones(root: Path) -> None:
    source = start(root, RecordedSystemctl(recorded("list_units.txt"), recorded("show_before.txt")))
    assert await look(source) == {
        "chronyd.service": {"is_active": True, "has_restart_policy": False, "has_watchdog": False},
        "his-interface.service": {"is_active": False, "has_restart_policy": True, "has_watchdog": False},
        "postgresql.service": {"is_active": True, "has_restart_policy": True, "has_watchdog": False},
        "watchdogged.service": {"is_active": True, "has_restart_policy": True, "has_watchdog": True},
    }


async def test_recorded_restarts_are_counted_from_round_to_round_and_a_fallen_count_is_none(root: Path) -> None:
    lists = recorded("list_units.txt")
    source = start(root, RecordedSystemctl(lists, recorded("show_before.txt"), lists, recorded("show_after.txt")))
    await look(source)
    restarts = {unit: fields.get("restarts_count") for unit, fields in (await look(source)).items()}
    assert restarts == {
        "chronyd.service": None,
        "his-interface.service": 3.0,
        "postgresql.service": None,
        "watchdogged.service": None,
    }


async def test_configured_units_are_asked_in_one_call(root: Path) -> None:
    systemctl = RecordedSystemctl(recorded("show_before.txt"))
    await look(start(root, systemctl, "postgresql@*.service", "chronyd"))
    assert systemctl.asked == [("systemctl", "show", PROPERTIES, "--", "postgresql@*.service", "chronyd")]


async def test_recorded_configured_unit_that_does_not_exist_is_not_active_and_has_no_policy(root: Path) -> None:
    units = await look(start(root, RecordedSystemctl(recorded("show_before.txt")), "firewalld"))
    assert units["firewalld.service"] == {"is_active": False}


async def test_recorded_old_systemd_without_restart_counts_gives_the_rest(root: Path) -> None:
    units = await look(start(root, RecordedSystemctl(recorded("show_systemd_219.txt")), "hl7"))
    assert units == {"hl7.service": {"is_active": True, "has_restart_policy": False, "has_watchdog": False}}


async def test_more_units_than_the_bound_are_cut_and_said_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocks = (f"Id=u{number:03}.service\nActiveState=active" for number in range(MAX_UNITS + 5))
    shown = Output("\n\n".join(blocks), "", 0)
    source = start(root, RecordedSystemctl(shown, shown), "u*")
    with caplog.at_level(logging.WARNING):
        sizes = [len(await look(source)), len(await look(source))]
    assert (sizes, [str(MAX_UNITS + 5) in record.message for record in caplog.records]) == ([200, 200], [True])


async def test_pattern_that_nothing_matches_has_no_data(root: Path) -> None:
    with pytest.raises(NoData, match="pacs"):
        await start(root, RecordedSystemctl(Output("\n", "", 0)), "pacs-*").collect()


async def test_recorded_systemctl_that_fails_is_trouble_with_its_own_reason(root: Path) -> None:
    failed = Output("", "Failed to connect to bus: Connection refused\n", 1)
    with pytest.raises(SourceError, match="Connection refused") as caught:
        await start(root, RecordedSystemctl(failed)).collect()
    assert not isinstance(caught.value, NoData)


async def test_answer_that_names_no_unit_is_trouble(root: Path) -> None:
    with pytest.raises(SourceError, match="show"):
        await start(root, RecordedSystemctl(Output("Restart=no\n", "", 0)), "a").collect()


async def test_machine_that_was_not_booted_with_systemd_has_no_data(tmp_path: Path) -> None:
    systemctl = RecordedSystemctl()
    with pytest.raises(NoData, match="systemd"):
        await start(tmp_path, systemctl).collect()
    assert systemctl.asked == []


@pytest.mark.parametrize("unit", ["--now", "a b", "", "x;reboot"])
def test_unit_that_is_no_name_is_refused(unit: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"units": [unit]}, Config)


def test_a_round_faster_than_a_minute_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=">= 60"):
        msgspec.convert({"interval_seconds": 30}, Config)
