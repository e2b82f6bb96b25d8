"""`infravitals up` as a person starts it: gathers, scores, shows, answers beside itself, ends cleanly."""

import contextlib
import fcntl
import html
import json
import os
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, until
from snmpd import COMMUNITY, Snmpd

COMMAND = [sys.executable, "-m", "collector.cli"]
ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}


def infravitals(*words: str | Path, timeout_seconds: float = 180) -> subprocess.CompletedProcess[str]:
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
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def read_bytes(path: Path) -> bytes:
    """A file that comes and goes; empty while it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def provisional(card: dict[str, object]) -> set[str]:
    """The criteria of a scorecard of which something is known."""
    return {criterion["id"] for node in card["nodes"] for criterion in node["criteria"] if criterion["provisional"]}  # type: ignore[attr-defined]


def first_card(port: int) -> dict[str, Any]:
    """The first scorecard on the page that knows of the data; the very first look may come before the first round ends."""
    found: dict[str, Any] = {}

    def is_there() -> bool:
        body = get(port, "/api/scorecard")
        found.update(json.loads(body) if body.startswith(b"{") else {})
        return bool(found) and "telemetry-completeness" in provisional(found)

    until(is_there, 180)
    return found


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


def test_one_snmp_target_gives_criteria_data_that_had_none(tmp_path: Path) -> None:
    (tmp_path / "community").write_text(COMMUNITY)
    sources = tmp_path / "sources.yaml"
    with Snmpd(tmp_path, "") as snmpd:
        sources.write_text(
            f"sources:\n  snmp_device:\n    credentials: {{ward: {{community: {{file: {tmp_path}/community}}}}}}\n"
            f"    targets: [{{asset: ward-switch, host: 127.0.0.1, port: {snmpd.port}}}]\n"
        )
        alone = json.loads(infravitals("up", "--once", "--format", "json", "--data-dir", tmp_path / "a").stdout)
        words = ["up", "--once", "--format", "json", "--data-dir", tmp_path / "b", "--sources", sources]
        done = infravitals(*words)
    assert done.returncode == 0, done.stderr
    gained = provisional(json.loads(done.stdout)) - provisional(alone)
    assert gained >= {"managed-device-coverage", "secure-management-ratio"}


def test_mistakes_of_the_sources_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text("sources:\n  snmp_devise: {}\n")
    done = infravitals("up", "--once", "--data-dir", tmp_path / "a", "--sources", path)
    assert done.returncode == 2 and f"{path}:2: unknown source 'snmp_devise'" in done.stderr


def test_every_node_can_be_recomputed_from_its_children(tmp_path: Path) -> None:
    card = json.loads(infravitals("up", "--once", "--format", "json", "--data-dir", tmp_path).stdout)
    for node in card["nodes"]:
        parts = [*node["criteria"], *(child for child in card["nodes"] if child["parent"] == node["id"])]
        for end in ("low", "high"):
            total = (
                sum(part["effective_weight"] * part[end] for part in parts) if parts else {"low": 0, "high": 100}[end]
            )
            cap = node[{"low": "cap", "high": "cap_high"}[end]]  # a condition that is unknown caps the left end only
            assert node[end] == pytest.approx(min(100 if cap is None else cap, total), abs=1e-6), node["id"]


def test_up_shows_figures_answers_commands_beside_it_and_ends_cleanly(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    with running_up(data, port) as process:
        card = first_card(port)
        assert (data / "control.sock").stat().st_mode & 0o777 == 0o600
        beside = infravitals("score", "--as-of", card["as_of"], "--format", "json", "--data-dir", data)
        assert beside.returncode == 0, beside.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    alone = infravitals("score", "--as-of", card["as_of"], "--format", "json", "--data-dir", data)
    assert alone.stdout == beside.stdout
    assert f"http://127.0.0.1:{port}" in (tmp_path / "up.log").read_text()
    assert "Traceback" not in (tmp_path / "up.log").read_text()


def test_the_command_on_the_page_gives_the_scorecard_of_the_page_when_it_is_copied(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("infravitals")
    data, port = tmp_path / "a data directory", free_port()
    words = ["up", "--data-dir", str(data), "--port", str(port)]
    environment = {**ENVIRONMENT, "PATH": "/usr/bin:/bin"}  # as after `make up`: nothing leads to the venv
    process = subprocess.Popen([str(program), *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        first_card(port)
        page = html.unescape(get(port, "/criterion/telemetry-completeness").decode())
    finally:
        process.kill()
        process.wait()
    commands = re.findall(
        r"^\S.*infravitals (?:score|rules) .*$", page.replace('<pre tabindex="0">', "\n"), re.MULTILINE
    )
    assert len(commands) == 2
    done = [subprocess.run(["/bin/sh", "-c", c], env=environment, capture_output=True, text=True) for c in commands]
    assert [copied.returncode for copied in done] == [0, 0], done
    assert json.loads(done[0].stdout)["as_of"] in commands[0]
    assert "telemetry-completeness" in provisional(json.loads(done[0].stdout))


def test_up_on_a_small_terminal_shows_the_address_in_every_picture_and_never_scrolls(tmp_path: Path) -> None:
    """A picture begins by going up as many lines as the one before had; more than the screen has would scroll it."""
    port, (mine, theirs) = free_port(), pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [*COMMAND, "up", "--data-dir", str(tmp_path / "data"), "--port", str(port)]
    environment = {**ENVIRONMENT, "TERM": "xterm-256color"}
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while (shown.count(b"page: http://") < 4 or b"more not shown" not in shown) and len(shown) < 1_000_000:
            shown += os.read(mine, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # that is how a terminal says that nobody writes to it any more
            while os.read(mine, 65536):
                pass
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(mine)
    _, *pictures = shown.split(f"page: http://127.0.0.1:{port}/".encode())
    assert [count for picture in pictures if (count := picture.count(b"\x1b[1A")) >= 24] == []
    assert [count for picture in pictures if (count := picture.count(b"\n")) >= 24] == []
    assert any(b"more not shown; the page shows them all" in picture for picture in pictures)


def test_the_rules_in_a_pipe_are_one_line_each() -> None:
    rows = json.loads(infravitals("rules", "list", "--format", "json").stdout)
    _, *lines = infravitals("rules", "list").stdout.splitlines()
    assert [line.split()[1] for line in lines] == [row["id"] for row in rows]
    assert [row["id"] for row, line in zip(rows, lines, strict=True) if not line.endswith(row["title"]["en"])] == []


def test_killed_up_starts_again_on_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_up(data, free_port()) as process:
        until(lambda: b"source_round" in read_bytes(data / "store.duckdb.wal"))
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
        until(lambda: get(port, "/"))
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
        card = first_card(port)
        checked = infravitals("register", "check", "--data-dir", data)
        assert checked.returncode == 0, checked.stderr
        assert "is not registered" in checked.stdout and "'somebody-else' is registered and never" in checked.stdout
        drafted = infravitals("register", "draft", "--data-dir", data)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    alone = infravitals("score", "--as-of", card["as_of"], "--format", "json", "--data-dir", data)
    assert json.loads(alone.stdout)["digests"] == card["digests"]
    assert drafted.stdout == infravitals("register", "draft", "--data-dir", data).stdout
    (site / "register.yaml").write_text("asets: {}\n")
    broken = infravitals("up", "--once", "--data-dir", data, "--site-folder", site)
    assert broken.returncode == 2
    assert f"{site}/register.yaml:1: unknown key 'asets'; did you mean 'assets'?" in broken.stderr


def once_on_small_disk(disk: Path, *, filled_kb: int = 0, times: int = 1) -> list[subprocess.CompletedProcess[str]]:
    """`up --once` again and again on a tmpfs of 1 MB at `disk`, in a mount namespace of its own."""
    disk.mkdir()
    once = shlex.join([*COMMAND, "up", "--once", "--data-dir", str(disk / "data")])
    runs = [f"{once} >{disk.parent}/out-{n} 2>{disk.parent}/err-{n}; echo $?" for n in range(times)]
    script = f"mount -t tmpfs -o size=1m none {disk} && head -c {filled_kb}k /dev/zero >{disk}/other || exit 9\n"
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *as_root, "--mount", "sh", "-c", script + "\n".join(runs)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 9, f"this kernel lets nobody mount a tmpfs: {done.stderr}"
    return [
        subprocess.CompletedProcess(
            once, int(status), (disk.parent / f"out-{n}").read_text(), (disk.parent / f"err-{n}").read_text()
        )
        for n, status in enumerate(done.stdout.split())
    ]


@pytest.mark.parametrize("filled_kb", [0, 800])  # the store's log is what does not fit, or the spool
def test_once_on_a_full_disk_ends_with_one_sentence_every_time(tmp_path: Path, filled_kb: int) -> None:
    full = "is full, new data cannot be kept"
    for done in once_on_small_disk(tmp_path / "disk", filled_kb=filled_kb, times=2):
        assert (done.returncode, done.stdout) == (1, "")
        *_, last = done.stderr.splitlines()
        assert full in last and str(tmp_path / "disk") in last, done.stderr
        assert "Traceback" not in done.stderr and "I/O error" not in done.stderr
