"""host_uptime on files of a root folder; the wtmp stretches are recorded in util-linux's binary form (utmpdump -r)."""

import struct
from pathlib import Path

import psutil
import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.sources import Surroundings
from agent.sources.host_uptime import Config, Source, count_unannounced_boots

RECORDED = Path(__file__).parent / "recorded_host_uptime"


class Host:
    """A root folder with what the source reads, and a state directory."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.state = folder / "state"
        self.wtmp = self.root / "var/log/wtmp"
        for path in (self.wtmp.parent, self.root / "proc/sys/kernel/random"):
            path.mkdir(parents=True)
        self.boot("11111111-0000-4000-8000-000000000001")
        self.wtmp.write_bytes((RECORDED / "wtmp_before").read_bytes())

    def boot(self, boot_id: str, uptime_seconds: float = 500.25) -> None:
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{boot_id}\n")
        (self.root / "proc/uptime").write_text(f"{uptime_seconds} 900.00\n")

    def append(self, recorded: str) -> None:
        with self.wtmp.open("ab") as file:
            file.write((RECORDED / recorded).read_bytes())

    def start(self) -> Source:
        return Source(Config(), Surroundings("his-db", root=self.root, state_directory=self.state, system="linux"))

    def look(self, source: Source | None = None) -> dict[str, object]:
        readings = (source or self.start()).collect()
        assert undeclared("host_uptime", readings) == []
        return dict(readings[0].fields)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_first_look_claims_no_restart(host: Host) -> None:
    assert host.look() == {"uptime_seconds": 500.25}


def test_recorded_power_loss_is_one_unexpected_restart(host: Host) -> None:
    host.look()
    host.boot("2")
    host.append("wtmp_power_loss")
    assert host.look() == {"uptime_seconds": 500.25, "unexpected_restart_count": 1.0}


def test_recorded_announced_restart_is_no_event(host: Host) -> None:
    host.look()
    host.boot("2")
    host.append("wtmp_announced")
    assert host.look() == {"uptime_seconds": 500.25}


def test_two_recorded_power_losses_while_the_agent_was_away_are_two(host: Host) -> None:
    host.look()
    host.boot("3")
    host.append("wtmp_two_power_losses")
    assert host.look()["unexpected_restart_count"] == 2.0


def test_event_is_given_once_though_the_agent_starts_again(host: Host) -> None:
    host.look()
    host.boot("2")
    host.append("wtmp_power_loss")
    source = host.start()
    looks = [host.look(source), host.look(source), host.look()]
    assert ["unexpected_restart_count" in look for look in looks] == [True, False, False]


def test_boot_record_that_comes_late_is_waited_for(host: Host) -> None:
    host.look()
    host.boot("2", uptime_seconds=20.0)
    source = host.start()
    assert host.look(source) == {"uptime_seconds": 20.0}
    host.append("wtmp_power_loss")
    assert host.look(source) == {"uptime_seconds": 20.0, "unexpected_restart_count": 1.0}


def test_boot_record_that_never_comes_claims_nothing_for_good(host: Host) -> None:
    host.look()
    host.boot("2", uptime_seconds=400.0)
    assert host.look() == {"uptime_seconds": 400.0}
    host.append("wtmp_power_loss")
    assert host.look() == {"uptime_seconds": 400.0}


def test_restart_without_wtmp_claims_nothing(host: Host) -> None:
    host.wtmp.unlink()
    host.look()
    host.boot("2")
    assert host.look() == {"uptime_seconds": 500.25}


def test_wtmp_rotated_during_the_restart_claims_nothing(host: Host) -> None:
    host.look()
    host.boot("2")
    host.wtmp.rename(host.wtmp.with_name("wtmp.1"))
    host.append("wtmp_power_loss")
    assert host.look() == {"uptime_seconds": 500.25}


def test_wtmp_rotated_long_before_the_power_loss_hides_nothing(host: Host) -> None:
    host.look()
    host.wtmp.rename(host.wtmp.with_name("wtmp.1"))
    host.wtmp.touch()
    host.look()
    host.boot("2")
    host.append("wtmp_power_loss")
    assert host.look()["unexpected_restart_count"] == 1.0


def test_state_is_written_once_per_boot(host: Host) -> None:
    host.look()
    written = (host.state / "host_uptime.json").stat().st_mtime_ns
    host.append("wtmp_before")
    host.look()
    assert (host.state / "host_uptime.json").stat().st_mtime_ns == written


def test_damaged_state_is_a_first_look(host: Host) -> None:
    host.look()
    (host.state / "host_uptime.json").write_text('{"boot_id": ')
    host.boot("2")
    host.append("wtmp_power_loss")
    assert host.look() == {"uptime_seconds": 500.25}


def test_without_a_state_directory_only_uptime_is_given(host: Host) -> None:
    source = Source(Config(), Surroundings("his-db", root=host.root, system="linux"))
    assert host.look(source) == {"uptime_seconds": 500.25}


def test_state_that_cannot_be_written_is_trouble_that_names_the_file(host: Host) -> None:
    host.state.write_text("a file where a directory should be")
    with pytest.raises(SourceError, match=r"state/host_uptime\.json"):
        host.look()


def test_missing_proc_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="proc/uptime"):
        Source(Config(), Surroundings("his-db", root=tmp_path, system="linux")).collect()


def test_unreadable_uptime_is_trouble(host: Host) -> None:
    (host.root / "proc/uptime").write_text("soon\n")
    with pytest.raises(SourceError, match="'soon'"):
        host.look()


def _record_of_400_bytes(kind: int, user: bytes) -> bytes:
    """A record as aarch64 has it: 64-bit session and times."""
    return struct.pack(
        "=hxxi32s4s32s256s4xqqq16s20s4x", kind, 0, b"~", b"~~", user, b"5.10", 0, 1748912400, 0, b"", b""
    )


def test_power_loss_is_seen_in_the_longer_records_of_aarch64() -> None:
    login, boot, level = ((7, b"ops"), (2, b"reboot"), (1, b"runlevel"))
    content = b"".join(_record_of_400_bytes(*record) for record in (login, boot, level))
    assert (len(content), count_unannounced_boots(content)) == (1200, 1)


def test_announced_restart_is_seen_in_the_longer_records_of_aarch64() -> None:
    content = _record_of_400_bytes(1, b"shutdown") + _record_of_400_bytes(2, b"reboot")
    assert count_unannounced_boots(content) == 0


def test_half_a_record_says_nothing() -> None:
    assert count_unannounced_boots((RECORDED / "wtmp_power_loss").read_bytes()[:-10]) is None


def test_off_linux_uptime_comes_from_psutil() -> None:
    boot_time = psutil.boot_time()
    source = Source(Config(), Surroundings("his-db", clock=lambda: boot_time + 5.0, system="win32"))
    assert source.collect()[0].fields == {"uptime_seconds": pytest.approx(5.0, abs=2.0)}


def test_this_host_says_how_long_it_is_up() -> None:
    fields = Source(Config(), Surroundings("his-db", system="linux")).collect()[0].fields
    assert set(fields) == {"uptime_seconds"}
    assert isinstance(fields["uptime_seconds"], float) and fields["uptime_seconds"] > 0
