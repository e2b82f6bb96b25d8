"""`infravitals store init`: on a fresh server, again, without the right to, and on the embedded store."""

from pathlib import Path

import pytest
from servers import Influx

from collector.cli import main

YAML = """\
site: hospital
broker: {{host: 127.0.0.1}}
store: {store}
"""


def written(folder: Path, store: str) -> str:
    path = folder / "collector.yaml"
    path.write_text(YAML.format(store=store))
    return str(path)


def influx_store(influx: Influx, folder: Path, name: str) -> str:
    (folder / "secret").write_text('it\'s "secret"\n')
    place = f"url: '{influx.url}', database: {name}, user: u-{name}, password: {{file: {folder}/secret}}"
    return written(folder, f"{{kind: influxdb, {place}}}")


def admin(influx: Influx, folder: Path) -> list[str]:
    influx.ask("SHOW DATABASES")  # makes the administrator
    (folder / "admin").write_text(influx.ADMIN[1])
    return ["--admin-user", influx.ADMIN[0], "--admin-password-file", str(folder / "admin")]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    status = main(["store", "init", *words, "--lang", "en"])
    out, err = capsys.readouterr()
    assert "secret" not in out + err
    return status, [*out.splitlines(), *err.splitlines()]


def test_init_makes_database_user_and_rights_and_may_be_run_again(
    influx: Influx, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, acting = influx_store(influx, tmp_path, "made"), admin(influx, tmp_path)
    assert run(capsys, "-c", config, *acting) == (
        0,
        [
            "database made made, kept for good",
            "user u-made made",
            "user u-made may read and write made",
            "made: can be read and written",
        ],
    )
    assert run(capsys, "-c", config, *acting)[1][:2] == ["database made was there", "user u-made was there"]


def test_init_without_the_right_to_says_so(influx: Influx, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = influx_store(influx, tmp_path, "unmade")
    admin(influx, tmp_path)
    status, said = run(capsys, "-c", config)
    assert (status, len(said)) == (1, 1)
    assert "the token, or the user and password, are wrong" in said[0]
    assert "name an administrator: --admin-user, --admin-password-file" in said[0]


def test_init_refuses_a_database_that_forgets(
    influx: Influx, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    influx.ask("CREATE DATABASE forgets WITH DURATION 30d")
    status, said = run(capsys, "-c", influx_store(influx, tmp_path, "forgets"), *admin(influx, tmp_path))
    assert status == 1
    assert said[-1].endswith(
        "forgets is kept for a limited time, scorecards and subjects would be lost; let its retention be infinite"
    )


def test_init_of_the_embedded_store_makes_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(tmp_path, "{kind: duckdb}\ndata_directory: data")
    assert run(capsys, "-c", config) == (0, [f"{tmp_path}/data: ready"])
    assert (tmp_path / "data" / "infravitals.duckdb").exists()
