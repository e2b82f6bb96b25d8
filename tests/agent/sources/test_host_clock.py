"""host_clock against a real chronyd pair on the loopback; ntpd and timesyncd, which would move the clock, recorded."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from servers import Daemon, free_port, program, until_async

from agent.errors import NoData, SourceError
from agent.sources import Output, Reading, Surroundings, run_command
from agent.sources.host_clock import Config, Source, read_chrony, read_ntpq, read_timedatectl

RECORDED = Path(__file__).parent / "recorded_host_clock"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text("utf-8")


class Chronyd(Daemon):
    """A chronyd of its own that leaves the system's clock alone (-x), asked through its own socket."""

    def __init__(self, folder: Path, settings: str) -> None:
        folder.mkdir(mode=0o750)
        self.socket = folder / "c.sock"
        configuration = folder / "chrony.conf"
        configuration.write_text(
            f"bindaddress 127.0.0.1\ncmdport 0\nbindcmdaddress {self.socket}\npidfile {folder}/pid\n{settings}\n"
        )
        super().__init__(
            [program("chronyd", "chrony"), "-x", "-d", "-u", "root", "-f", configuration], folder, self.socket.exists
        )

    async def ask(self, argv: Sequence[str], timeout_seconds: float) -> Output:
        """What a source's `command` does, with chronyc pointed at this daemon."""
        return await run_command([argv[0], "-h", str(self.socket), *argv[1:]], timeout_seconds)

    async def read(self) -> Mapping[str, object]:
        source = Source(Config(program="chrony"), Surroundings("his-db", command=self.ask))
        readings = await source.collect()
        assert undeclared("host_clock", readings) == []
        return readings[0].fields


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Chronyd, int]]:
    port = free_port()
    with Chronyd(tmp_path / "s", f"port {port}\nallow 127.0.0.1\nlocal stratum 3") as daemon:
        yield daemon, port


@pytest.fixture
def client(tmp_path: Path, server: tuple[Chronyd, int]) -> Iterator[Chronyd]:
    # `offset 0.25` makes the server's clock look 0.25 s ahead: so this clock is behind by as much.
    asking = f"server 127.0.0.1 port {server[1]} iburst minpoll -3 maxpoll -3 offset 0.25"
    with Chronyd(tmp_path / "c", f"port 0\n{asking}") as daemon:
        yield daemon


async def _is_synchronised(daemon: Chronyd) -> bool:
    return (await daemon.read())["is_synchronised"] is True


async def test_clock_behind_its_chrony_server_has_a_negative_offset(client: Chronyd) -> None:
    behind = {"is_synchronised": True, "sources_count": 1.0, "offset_seconds": pytest.approx(-0.25, abs=0.05)}

    async def is_behind() -> bool:  # on a busy machine chronyd's first measurements may be off by more
        return await client.read() == behind

    await until_async(is_behind)


async def test_chrony_whose_only_server_died_is_not_synchronised(server: tuple[Chronyd, int], client: Chronyd) -> None:
    await until_async(lambda: _is_synchronised(client))
    server[0].kill()

    async def is_lost() -> bool:
        return not await _is_synchronised(client)

    await until_async(is_lost)
    assert await client.read() == {"is_synchronised": False, "sources_count": 0.0}


async def test_chrony_that_only_follows_itself_is_not_synchronised(server: tuple[Chronyd, int]) -> None:
    assert await server[0].read() == {"is_synchronised": False, "sources_count": 0.0}


def test_recorded_chrony_without_sources_still_says_normal_and_is_not_believed() -> None:
    tracking = recorded("chrony_tracking_slow.csv")
    assert tracking.rstrip().endswith("Normal")
    reading = read_chrony(tracking, recorded("chrony_sources_lost.csv"))
    assert reading == Reading("host_clock", {"is_synchronised": False, "sources_count": 0.0})


def test_recorded_chrony_sources_count_those_that_answer_and_are_believed() -> None:
    reading = read_chrony(recorded("chrony_tracking_slow.csv"), recorded("chrony_sources_mixed.csv"))
    assert reading.fields == {"is_synchronised": True, "sources_count": 3.0, "offset_seconds": -0.249997735}


def test_recorded_ntpq_offset_is_the_servers_lead() -> None:
    fields = read_ntpq(recorded("ntpq_synchronised.txt")).fields
    assert fields == {"is_synchronised": True, "sources_count": 3.0, "offset_seconds": 0.000912}


def test_recorded_ntpq_on_its_own_local_clock_is_not_synchronised() -> None:
    assert read_ntpq(recorded("ntpq_local_clock.txt")).fields == {"is_synchronised": False, "sources_count": 0.0}


def test_recorded_ntpq_that_just_started_is_not_synchronised() -> None:
    assert read_ntpq(recorded("ntpq_starting.txt")).fields == {"is_synchronised": False, "sources_count": 0.0}


def test_recorded_timesyncd_offset_is_the_servers_lead() -> None:
    fields = read_timedatectl("NTPSynchronized=yes\n", recorded("timesync_status.txt")).fields
    assert fields == {"is_synchronised": True, "sources_count": 1.0, "offset_seconds": pytest.approx(-0.001032)}


@pytest.mark.parametrize(
    ("offset", "ahead_seconds"), [("-6.9ms", 0.0069), ("+123us", -0.000123), ("-1min 2.5s", 62.5), ("+2s 10ms", -2.01)]
)
def test_recorded_timesyncd_offsets_of_every_size_are_read(offset: str, ahead_seconds: float) -> None:
    status = recorded("timesync_status.txt").replace("+1.032ms", offset)
    assert read_timedatectl("NTPSynchronized=yes\n", status).fields["offset_seconds"] == pytest.approx(ahead_seconds)


def test_timedatectl_beside_another_time_service_tells_only_whether_it_is_synchronised() -> None:
    assert read_timedatectl("NTPSynchronized=no\n", "").fields == {"is_synchronised": False}


@pytest.mark.parametrize("tracking", ["", "7F000001,127.0.0.1,4\n", "a,b,c,d,soon,f,g,h,i,j,k,l,m,Normal\n"])
def test_answer_that_is_not_chronys_is_trouble(tracking: str) -> None:
    with pytest.raises(SourceError, match="chronyc"):
        read_chrony(tracking, "")


class RecordedPrograms:
    """A `command` that answers from a list; a program that is not in it is not installed."""

    def __init__(self, answers: Mapping[str, Output]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def __call__(self, argv: Sequence[str], timeout_seconds: float) -> Output:
        self.asked.append(" ".join(argv))
        if argv[0] not in self._answers:
            raise NoData(f"{argv[0]} is not here")
        return self._answers[argv[0]]


def _source(programs: RecordedPrograms, config: Config | None = None) -> Source:
    return Source(config or Config(), Surroundings("his-db", command=programs))


async def test_recorded_chrony_that_is_down_leaves_the_word_to_ntpq() -> None:
    programs = RecordedPrograms(
        {
            "chronyc": Output("506 Cannot talk to daemon\n", "", 1),
            "ntpq": Output(recorded("ntpq_synchronised.txt"), "", 0),
        }
    )
    (reading,) = await _source(programs).collect()
    assert reading.fields["offset_seconds"] == 0.000912
    assert programs.asked == ["chronyc -c -n tracking", "ntpq -n -c rv -c peers"]


async def test_configured_program_is_the_only_one_asked() -> None:
    programs = RecordedPrograms({"timedatectl": Output("NTPSynchronized=yes\n", "", 0)})
    await _source(programs, Config(program="timedatectl")).collect()
    assert programs.asked == ["timedatectl show -p NTPSynchronized", "timedatectl timesync-status"]


async def test_machine_without_any_time_program_has_no_data() -> None:
    with pytest.raises(NoData, match="chrony"):
        await _source(RecordedPrograms({})).collect()


async def test_time_daemon_that_is_installed_and_down_is_the_fact_not_synchronised() -> None:
    down = Output("", "Connection refused", 1)
    [reading] = await _source(RecordedPrograms({"ntpq": down, "timedatectl": down})).collect()
    assert reading.fields == {"is_synchronised": False, "sources_count": 0.0}


async def test_timedatectl_without_a_bus_says_nothing_about_the_clock() -> None:
    with pytest.raises(SourceError, match="timedatectl") as caught:
        await _source(RecordedPrograms({"timedatectl": Output("", "Host is down", 1)})).collect()
    assert not isinstance(caught.value, NoData)


def test_a_round_faster_than_a_minute_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=">= 60"):
        msgspec.convert({"interval_seconds": 15}, Config)
