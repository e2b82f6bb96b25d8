"""collector.yaml: read whole, or refused with every mistake and its line."""

from pathlib import Path

import msgspec
import pytest

from agent.broker import Broker
from agent.documents import FileMistakes
from agent.language import speaking
from agent.logs import LogConfig
from collector.cli import main
from collector.config import CollectorFile, PageConfig, read_config, sample

LEAST = "site: hospital\nbroker:\n  host: broker.local\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "collector.yaml"
    path.write_text(text, "utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    with speaking("en"), pytest.raises(FileMistakes) as caught:
        read_config(write(folder, text))
    return [f"{Path(mistake.file).name}:{mistake.line}: {mistake.text}" for mistake in caught.value.mistakes]


def test_the_least_file_has_all_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, LEAST))
    assert (config.site, config.broker) == ("hospital", Broker(host="broker.local"))
    assert config.data_directory == Path("/var/lib/infravitals")
    assert (config.store.kind, config.store.config.path) == ("duckdb", "/var/lib/infravitals/infravitals.duckdb")
    assert (config.page, config.log) == (PageConfig(host="127.0.0.1", port=8650), LogConfig())
    assert (config.share_group, config.receive_maximum) == ("infravitals", 64)
    assert (config.rules_directory, config.site_folder, config.time_zone) == (None, None, "Asia/Shanghai")


def test_relative_directories_are_taken_from_where_the_file_stands(tmp_path: Path) -> None:
    text = (
        LEAST
        + "data_directory: data\nrules_directory: my-rules\nsite_folder: site\nstore: {kind: duckdb, path: points.duckdb}\n"
    )
    config = read_config(write(tmp_path, text))
    assert config.data_directory == tmp_path / "data"
    assert config.rules_directory == tmp_path / "my-rules"
    assert config.site_folder == tmp_path / "site"
    assert config.store.config.path == str(tmp_path / "data" / "points.duckdb")


def test_a_store_in_memory_has_no_directory(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, LEAST + "store: {kind: duckdb, path: ':memory:'}\n"))
    assert config.store.config.path == ":memory:"


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
site: St. Mary
broker:
  hots: broker.local
store:
  kind: duckdb
  memroy_bytes: 1
receive_maximum: 0
page:
  host: 0.0.0.0
  port: 99999
time_zone: Asia/Shangai
shared_group: x
"""
    found = mistakes(tmp_path, text)
    assert [line.split(" ")[0] for line in found] == [f"collector.yaml:{line}:" for line in (1, 3, 6, 7, 9, 10, 11, 12)]
    assert "'St. Mary' cannot be a name" in found[0]
    assert "unknown key 'hots'; did you mean 'host'?" in found[1]
    assert "unknown key 'memroy_bytes'; did you mean 'memory_bytes'?" in found[2]
    assert "on '0.0.0.0' the page needs a password and a certificate" in found[4]
    assert "knows no zone 'Asia/Shangai'" in found[6]
    assert "unknown key 'shared_group'; did you mean 'share_group'?" in found[7]


@pytest.mark.parametrize("url", ["http://a..b:8086", "http://h:99999", "http://[::1", "http://h:0"])
def test_a_host_or_port_that_cannot_be_is_a_mistake_of_the_store_and_the_broker(tmp_path: Path, url: str) -> None:
    found = mistakes(
        tmp_path, f"site: s\nbroker: {{host: a..b}}\nstore: {{kind: influxdb, url: '{url}', database: d, user: u}}\n"
    )
    assert [line.split(" ")[0] for line in found] == ["collector.yaml:2:", "collector.yaml:3:"]
    assert "'a..b' is no host name or address" in found[0] and "https://host:8086" in found[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_a_host_of_the_page(tmp_path: Path, host: str) -> None:
    assert read_config(write(tmp_path, f"{LEAST}page: {{host: '{host}'}}\n")).page.host == host


@pytest.mark.parametrize("zone", ["Asia", "../etc/passwd", "/etc/localtime", "", "Nowhere/At/All"])
def test_what_is_no_time_zone_is_refused(tmp_path: Path, zone: str) -> None:
    (found,) = mistakes(tmp_path, f"{LEAST}time_zone: '{zone}'\n")
    assert found.startswith("collector.yaml:4: 'time_zone'")


def test_an_unknown_store_and_a_store_without_kind_are_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, LEAST + "store:\n  kind: duckbd\n") == [
        "collector.yaml:5: unknown store 'duckbd'; did you mean 'duckdb'?"
    ]
    (found,) = mistakes(tmp_path, LEAST + "store:\n  path: x\n")
    assert "key 'kind' is missing" in found


def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "- site\n")
    assert mistakes(tmp_path, "")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_sample_passes_its_own_check_also_with_every_key_in_force(tmp_path: Path, language: str) -> None:
    with speaking(language):  # type: ignore[arg-type]  # one of the two literals
        text = sample()
    assert read_config(write(tmp_path, text)).site == "my-hospital"
    assert read_config(write(tmp_path, take_comments_away(text))).share_group == "infravitals"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_sample_names_every_key(tmp_path: Path, language: str) -> None:
    with speaking(language):  # type: ignore[arg-type]  # one of the two literals
        text = sample()
    for kind in (CollectorFile, Broker, PageConfig, LogConfig):
        for field in msgspec.structs.fields(kind):
            assert f"{field.name}:" in text


def take_comments_away(text: str) -> str:
    """Every key behind a # in force."""
    lines = []
    for line in text.splitlines():
        margin, mark, rest = line.partition("# ")
        is_key = bool(mark) and not margin.strip() and rest.split(":")[0].isidentifier() and rest[0].islower()
        lines.append(margin + rest if is_key and ": " in rest else line)
    return "\n".join(lines) + "\n"


def test_check_reads_the_secrets_of_broker_and_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    store = f"store: {{kind: influxdb, url: 'http://127.0.0.1:1', org: o, bucket: b, token: {{file: {token}}}}}\n"
    path = write(tmp_path, LEAST + store)
    words = ["check", "-c", str(path), "--lang", "en"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"{path}: cannot read the password file {token}: it does not exist; mend it or change store.token"
    )
    assert said.endswith(f"run install -m 600 /dev/stdin {token}, type the secret and press Ctrl-D\n")
    token.touch(0o600)
    token.write_text("a token of the test's own")
    assert main(words) == 0
    assert "a token" not in "".join(capsys.readouterr())


def test_check_reads_the_page_s_secret_without_which_serve_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, LEAST + "page: {metrics_token: {file: token}}\n")
    assert main(["check", "-c", str(path), "--lang", "en"]) == 2
    said = capsys.readouterr().err
    assert f"cannot read the password file {tmp_path}/token" in said and "change page.metrics_token" in said
