"""agent.yaml: all mistakes at once, each with file and line; nothing is opened or created."""

from pathlib import Path

import pytest

from agent import language
from agent.broker import Secret
from agent.config import AgentConfig, default_sources, read_config
from agent.documents import FileMistakes, nearest
from agent.relative_paths import resolve_paths
from agent.sources import load_source, names

HEAD = "site: north\nagent: srv-1\nbroker:\n  host: 127.0.0.1\n"


@pytest.fixture(autouse=True)
def _english() -> object:
    language.choose("en")
    yield
    language.choose(None)


def write(folder: Path, text: str, **parts: str) -> Path:
    """agent.yaml with `text`, and a file of conf.d for every other argument."""
    path = folder / "agent.yaml"
    path.write_text(text)
    if parts:
        (folder / "conf.d").mkdir()
    for name, part in parts.items():
        (folder / "conf.d" / f"{name}.yaml").write_text(part)
    return path


def read(folder: Path, text: str, **parts: str) -> AgentConfig:
    return read_config(write(folder, text, **parts), system="linux")


def complaints(folder: Path, text: str, system: str = "linux", **parts: str) -> list[str]:
    """The mistakes as they are printed, without the folder."""
    with pytest.raises(FileMistakes) as raised:
        read_config(write(folder, text, **parts), system=system)
    return [str(mistake).replace(f"{folder}/", "") for mistake in raised.value.mistakes]


def test_shortest_file_has_defaults_for_the_rest(tmp_path: Path) -> None:
    config = read(tmp_path, HEAD + "sources:\n  host_cpu:\n")
    assert (config.site, config.agent, config.asset) == ("north", "srv-1", "srv-1")
    assert config.spool_path == Path("/var/lib/infravitals-agent/spool.sqlite")
    assert (config.spool.max_bytes, config.spool.max_age_seconds) == (536870912, 604800.0)
    assert [section.name for section in config.sources] == ["host_cpu"]
    assert config.sources[0].config.interval_seconds == 15.0


def test_everything_that_can_be_said_is_read(tmp_path: Path) -> None:
    text = HEAD + (
        "asset: db-1\nstate_directory: /srv/state\nspool:\n  max_bytes: 2000000\n  max_age_seconds: 60\n"
        "log:\n  level: debug\n  format: json\nsources:\n  host_cpu: {interval_seconds: 5}\n  host_disk: {}\n"
    )
    config = read(tmp_path, text)
    assert config.asset == "db-1"
    assert config.spool_path == Path("/srv/state/spool.sqlite")
    assert config.spool.max_bytes == 2000000
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert [(s.name, s.config.interval_seconds) for s in config.sources] == [("host_cpu", 5.0), ("host_disk", 15.0)]


def test_spool_may_stand_elsewhere(tmp_path: Path) -> None:
    config = read(tmp_path, HEAD + "spool: {path: /srv/points.db}\nsources: {host_cpu: {}}\n")
    assert config.spool_path == Path("/srv/points.db")


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "site: North Hospital\nagent: srv-1\nbrokr: {}\nbroker: {host: 127.0.0.1}\nspool: {max_bytes: many}\n"
        "sources:\n  host_cpu: {intervall_seconds: 5}\n  host_dsk: {}\n  host_memory: {interval_seconds: 0.5}\n"
    )
    assert complaints(tmp_path, text) == [
        "agent.yaml:1: 'site': 'North Hospital' cannot be a name: small letters, digits and hyphens, at most 63, "
        "a letter or digit first",
        "agent.yaml:3: unknown key 'brokr'; known are: asset, log, state_directory",
        "agent.yaml:5: 'max_bytes': expected a whole number, found 'many'",
        "agent.yaml:7: unknown key 'intervall_seconds'; did you mean 'interval_seconds'?",
        "agent.yaml:8: unknown source 'host_dsk'; did you mean 'host_disk'?",
        "agent.yaml:9: 'interval_seconds': at least 1 s, found 0.5",
    ]


LONG = "x" * 64


@pytest.mark.parametrize("host", ["a..b", ".local", f"{LONG}.local", "gate way"])
def test_a_host_that_no_system_can_be_asked_for_is_a_mistake_of_its_line(tmp_path: Path, host: str) -> None:
    """Left to the system it ends a whole round, or a path's tokens, with an error of the text codec."""
    text = (
        f"site: north\nagent: srv-1\nbroker:\n  host: '{host}'\nsources:\n"
        f"  snmp_device: {{credentials: {{a: {{community: {{env: C}}}}}}, targets: [{{asset: a, host: '{host}'}}]}}\n"
        f"  snmp_trap: {{targets: [{{asset: a, host: '{host}'}}]}}\n"
        f"  continuity_probe: {{probes: {{p: {{service: s, kind: tcp, addresses: ['{host}:80']}}}}}}\n"
        f"  path_probe: {{targets: [{{name: p, kind: http, url: 'http://{host}/'}}]}}\n"
        f"  mysql_replication: {{pairs: {{p: {{addresses: ['{host}:3306'], database: d, user: u}}}}}}\n"
    )
    found = complaints(tmp_path, text)
    assert [line.split(" ")[0] for line in found] == [f"agent.yaml:{number}:" for number in (3, 6, 7, 8, 9, 10)]
    assert "is no host name or address" in found[1] and "host:port" in found[3]


@pytest.mark.parametrize("host", ["h", "db_1.hospital.local.", "医院.local", "10.0.0.1", "fe80::1%eth0", "x" * 63])
def test_a_host_that_may_be_there_is_taken(tmp_path: Path, host: str) -> None:
    assert read(tmp_path, HEAD.replace("127.0.0.1", f"'{host}'") + "sources: {host_cpu: {}}\n").broker.host == host


@pytest.mark.parametrize("url", ["http://h:99999/", "http://h:0/", "http://[::1/"])
def test_an_url_with_an_impossible_port_or_bracket_is_told_in_our_words(tmp_path: Path, url: str) -> None:
    section = f"sources:\n  path_probe: {{targets: [{{name: p, kind: http, url: '{url}'}}]}}\n"
    (found,) = complaints(tmp_path, HEAD + section)
    assert found == f"agent.yaml:6: 'targets': '{url}' must be an http or https URL without a user"


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_there_is_not_is_a_mistake_of_its_path(tmp_path: Path, port: int) -> None:
    probe = f"{{service: s, kind: tcp, addresses: ['h:{port}']}}"
    (found,) = complaints(tmp_path, f"{HEAD}sources:\n  continuity_probe: {{probes: {{p: {probe}}}}}\n")
    assert found.startswith("agent.yaml:6: 'addresses'")


def test_keys_where_a_list_belongs_are_told_in_the_readers_words(tmp_path: Path) -> None:
    section = "sources:\n  snmp_trap:\n    credentials: {ward: {community: {env: C}}}\n"
    assert complaints(tmp_path, HEAD + section) == [
        "agent.yaml:7: 'credentials': expected a list, found keys and values"
    ]


def test_missing_keys_are_named(tmp_path: Path) -> None:
    assert complaints(tmp_path, "site: north\nsources:\n  host_cpu:\n") == [
        "agent.yaml:1: key 'agent' is missing",
        "agent.yaml:1: key 'broker' is missing",
    ]


def test_source_that_starts_a_process_takes_a_minute(tmp_path: Path) -> None:
    assert complaints(tmp_path, HEAD + "sources:\n  systemd_units: {interval_seconds: 15}\n") == [
        "agent.yaml:6: 'interval_seconds': expected a number >= 60.0, found 15"
    ]


def test_file_without_sources_is_a_mistake(tmp_path: Path) -> None:
    assert complaints(tmp_path, HEAD) == ["agent.yaml:1: no source is configured under 'sources'"]


def test_source_of_another_system_is_a_mistake(tmp_path: Path) -> None:
    assert complaints(tmp_path, HEAD + "sources:\n  host_raid: {}\n", system="win32") == [
        "agent.yaml:6: source 'host_raid' does not serve this system (win32), only linux"
    ]


def test_sources_may_stand_in_parts(tmp_path: Path) -> None:
    config = read(tmp_path, HEAD, disk="sources:\n  host_disk: {}\n", cpu="sources:\n  host_cpu: {}\n")
    assert [section.name for section in config.sources] == ["host_cpu", "host_disk"]


def test_source_configured_twice_names_both_places(tmp_path: Path) -> None:
    text = HEAD + "sources:\n  host_cpu: {}\n"
    assert complaints(tmp_path, text, more="# again\nsources:\n  host_cpu: {}\n") == [
        f"conf.d/more.yaml:3: source 'host_cpu' is configured at {tmp_path}/agent.yaml:6 too".replace(
            f"{tmp_path}/", ""
        )
    ]


def test_part_holds_sources_only(tmp_path: Path) -> None:
    text = HEAD + "sources:\n  host_cpu: {}\n"
    assert complaints(tmp_path, text, more="sources: {}\nsite: south\n") == [
        "conf.d/more.yaml:2: this file holds the section 'sources' only, not 'site'; sources stand below 'sources:'"
    ]


def test_mistakes_of_all_files_come_together(tmp_path: Path) -> None:
    text = HEAD + "sources:\n  host_cpu: {x: 1}\n"
    assert complaints(tmp_path, text, a="sources:\n  nothing: {}\n", b="sources: [\n") == [
        "agent.yaml:6: unknown key 'x'; known are: deadline_seconds, interval_seconds",
        f"conf.d/a.yaml:2: unknown source 'nothing'{nearest('nothing', names())}",
        "conf.d/b.yaml:2: not valid YAML: did not find expected node content",
    ]


def test_empty_file_is_a_mistake(tmp_path: Path) -> None:
    assert complaints(tmp_path, "") == ["agent.yaml:1: expected keys and values here, found nothing"]


def test_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileMistakes, match="cannot read the file: No such file or directory"):
        read_config(tmp_path / "absent.yaml")


def test_reading_creates_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state"
    read(tmp_path, HEAD + f"state_directory: {state}\nsources: {{host_cpu: {{}}}}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.yaml"]


def test_chinese_reader_gets_chinese(tmp_path: Path) -> None:
    language.choose("zh")
    [complaint] = complaints(tmp_path, HEAD + "sources:\n  host_cpuu: {}\n")
    assert complaint.startswith("agent.yaml:6: 未知的采集源 'host_cpuu'")


def test_default_sources_are_those_of_the_system_that_need_nothing_said() -> None:
    needy = set()
    for name in names():
        try:
            load_source(name).Config()
        except (TypeError, ValueError):  # a key is required, or one of some
            needy.add(name)
    assert {"isolation_probe", "isolation_responder"} <= needy and "host_cpu" not in needy
    assert {section.name for section in default_sources("linux")} == set(names()) - needy
    assert "host_raid" not in {section.name for section in default_sources("win32")}


def test_watches_build_their_sources(tmp_path: Path) -> None:
    [watch] = read(tmp_path, HEAD + "sources: {host_cpu: {interval_seconds: 5}}\n").watches()
    assert (watch.label, watch.config.interval_seconds, watch.deadline_seconds) == ("host_cpu", 5.0, 5.0)
    assert watch.make() is not watch.make()


def test_relative_paths_are_taken_from_where_the_file_stands(tmp_path: Path) -> None:
    text = (
        "site: north\nagent: srv-1\nstate_directory: state\n"
        "broker: {host: mqtt.example, tls: {ca: ca.pem}, password: {file: broker.password}}\n"
        "sources:\n  isolation_responder: {key: {file: probe.key}, listen: [tcp/7]}\n"
    )
    config = read(tmp_path, text)
    assert config.broker.tls and config.broker.password
    assert config.broker.tls.ca == str(tmp_path / "ca.pem")
    assert config.broker.password.file == str(tmp_path / "broker.password")
    assert config.spool_path == tmp_path / "state" / "spool.sqlite"
    assert config.sources[0].config.key.file == str(tmp_path / "probe.key")  # type: ignore[attr-defined]


def test_credential_stands_in_the_folder_beside_the_file_where_systemd_did_not_start_us(tmp_path: Path) -> None:
    secret, folder = Secret(credential="broker-password"), tmp_path / "credentials"
    assert resolve_paths(secret, tmp_path, {}) == secret
    folder.mkdir()
    (folder / "broker-password").write_text("x")
    assert resolve_paths(secret, tmp_path, {}) == Secret(file=str(folder / "broker-password"))
    assert resolve_paths(secret, tmp_path, {"CREDENTIALS_DIRECTORY": "/run/credentials/x"}) == secret
