"""`infravitals up` as a person starts it: gathers, scores, shows, answers beside itself, ends cleanly."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import free_port, until

COMMAND = [sys.executable, "-m", "collector.cli"]
ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}


def infravitals(*words: str | Path, timeout_seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout_seconds)


@contextmanager
def running_up(data: Path, port: int, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """`up` on `data`, ended by pid."""
    log = (data.parent / "up.log").open("w")
    command = [*COMMAND, "up", "--data-dir", str(data), "--port", str(port), *words]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def get(port: int, path: str) -> bytes:
    """A page of the running server; empty while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def provisional(card: dict[str, object]) -> set[str]:
    """The criteria of a scorecard of which something is known."""
    return {criterion["id"] for node in card["nodes"] for criterion in node["criteria"] if criterion["provisional"]}  # type: ignore[attr-defined]


def test_once_twice_with_one_as_of_gives_the_same_bytes(tmp_path: Path) -> None:
    first = infravitals("up", "--once", "--format", "json", "--data-dir", tmp_path)
    assert first.returncode == 0, first.stderr
    card = json.loads(first.stdout)
    assert len(card["nodes"]) == 76
    assert "telemetry-completeness" in provisional(card)
    as_of = card["as_of"]
    again = [
        infravitals("up", "--once", "--format", "json", "--as-of", as_of, "--data-dir", tmp_path) for _ in range(2)
    ]
    assert again[0].stdout == again[1].stdout
    assert json.loads(again[0].stdout)["as_of"] == as_of


def test_every_node_can_be_recomputed_from_its_children(tmp_path: Path) -> None:
    card = json.loads(infravitals("up", "--once", "--format", "json", "--data-dir", tmp_path).stdout)
    for node in card["nodes"]:
        parts = [*node["criteria"], *(child for child in card["nodes"] if child["parent"] == node["id"])]
        for end in ("low", "high"):
            total = (
                sum(part["effective_weight"] * part[end] for part in parts) if parts else {"low": 0, "high": 100}[end]
            )
            assert node[end] == pytest.approx(min(node["cap"] or 100, total), abs=1e-6), node["id"]


def test_up_shows_figures_answers_commands_beside_it_and_ends_cleanly(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    with running_up(data, port) as process:
        until(lambda: get(port, "/api/scorecard").startswith(b"{"), 40)
        card = json.loads(get(port, "/api/scorecard"))
        assert "telemetry-completeness" in provisional(card)
        assert (data / "control.sock").stat().st_mode & 0o777 == 0o600
        beside = infravitals("score", "--as-of", card["as_of"], "--format", "json", "--data-dir", data)
        assert beside.returncode == 0, beside.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    alone = infravitals("score", "--as-of", card["as_of"], "--format", "json", "--data-dir", data)
    assert alone.stdout == beside.stdout
    assert f"http://127.0.0.1:{port}" in (tmp_path / "up.log").read_text()
    assert "Traceback" not in (tmp_path / "up.log").read_text()


def test_killed_up_starts_again_on_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_up(data, free_port()) as process:
        until(
            lambda: (
                b"source_round" in (data / "store.duckdb.wal").read_bytes()
                if (data / "store.duckdb.wal").exists()
                else False
            ),
            40,
        )
        process.kill()
        process.wait()
    again = infravitals("up", "--once", "--format", "json", "--data-dir", data)
    assert again.returncode == 0, again.stderr
    assert "telemetry-completeness" in provisional(json.loads(again.stdout))


def test_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = infravitals("up", "--data-dir", tmp_path, "--port", str(port))
    assert found.returncode == 1
    assert str(port) in found.stderr and "--port" in found.stderr
    assert "Traceback" not in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_data_directory_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = infravitals("up", "--data-dir", tmp_path / "file" / "data")
    assert found.returncode == 1
    assert str(tmp_path / "file") in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_second_up_on_the_same_data_says_who_holds_it(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    with running_up(data, port) as process:
        until(lambda: get(port, "/"), 40)
        found = infravitals("up", "--data-dir", data, "--port", str(free_port()))
        assert found.returncode == 1
        assert str(process.pid) in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_another_site_is_not_mixed_into_the_data(tmp_path: Path) -> None:
    assert infravitals("up", "--once", "--site", "first", "--data-dir", tmp_path).returncode == 0
    found = infravitals("up", "--once", "--site", "second", "--data-dir", tmp_path)
    assert (found.returncode, "first" in found.stderr) == (1, True)


def test_typo_in_a_rule_is_refused_with_file_line_and_the_nearest_right_key(tmp_path: Path) -> None:
    import shutil

    rules = tmp_path / "rules"
    shutil.copytree(Path(__file__).parents[2] / "rules", rules)
    path = rules / "network-management" / "telemetry-completeness.yaml"
    text = path.read_text()
    path.write_text(text.replace("across:", "acros:").replace("bucket: mean", "bucket: meen"))
    line = text.split("across:")[0].count("\n") + 1
    found = infravitals("up", "--once", "--rules", rules, "--data-dir", tmp_path / "data")
    assert found.returncode == 2
    assert f"{path}:{line}: unknown key 'acros'; did you mean 'across'?" in found.stderr
    assert f"{path}:{line - 1}: 'bucket'" in found.stderr


def test_time_in_the_future_is_refused(tmp_path: Path) -> None:
    found = infravitals("up", "--once", "--as-of", "2999-01-01T00:00:00Z", "--data-dir", tmp_path)
    assert (found.returncode, "future" in found.stderr) == (2, True)


def test_a_site_folder_is_in_force_from_the_start_and_beside_a_running_up(tmp_path: Path) -> None:
    data, port, site = tmp_path / "data", free_port(), tmp_path / "site"
    site.mkdir()
    (site / "register.yaml").write_text("assets:\n  somebody-else: {reporters: [somebody-else]}\n")
    with running_up(data, port, "--site-folder", str(site)) as process:
        until(lambda: get(port, "/api/scorecard").startswith(b"{"), 40)
        card = json.loads(get(port, "/api/scorecard"))
        checked = infravitals("register", "check", "--data-dir", data)
        assert checked.returncode == 0, checked.stderr
        assert "is not registered" in checked.stdout and "'somebody-else' is registered and never" in checked.stdout
        drafted = infravitals("register", "draft", "--data-dir", data)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    alone = infravitals("score", "--as-of", card["as_of"], "--format", "json", "--data-dir", data)
    assert json.loads(alone.stdout)["digests"] == card["digests"]
    assert drafted.stdout == infravitals("register", "draft", "--data-dir", data).stdout
    (site / "register.yaml").write_text("asets: {}\n")
    broken = infravitals("up", "--once", "--data-dir", data, "--site-folder", site)
    assert broken.returncode == 2
    assert f"{site}/register.yaml:1: unknown key 'asets'; did you mean 'assets'?" in broken.stderr
