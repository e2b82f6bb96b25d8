"""`infravitals-agent snmp …` as a person calls it, with real agents."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from replayed import WALKS
from servers import program, until
from snmpd import AUTH_PASSWORD, AUTHS, COMMUNITY, PRIV_PASSWORD, PRIVS, Snmpd, free_udp_port, users

from agent.snmp.credentials import Opened
from agent.snmp.discover import Search, guess_class
from agent.snmp.profile import load_profiles
from agent.snmp.walkfile import read_walk


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    with Snmpd(tmp_path_factory.mktemp("snmpd"), users()) as daemon:
        yield daemon


def run(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "agent.cli", "snmp", *map(str, words), "--lang", "en"]
    return subprocess.run(argv, capture_output=True, text=True, env={"LANG": "C", "PATH": "/usr/bin:/bin"}, timeout=60)


@pytest.fixture
def config(tmp_path: Path, snmpd: Snmpd) -> Path:
    (tmp_path / "community").write_text(COMMUNITY)
    path = tmp_path / "agent.yaml"
    path.write_text(f"""
site: s
agent: gateway-1
broker: {{host: h}}
sources:
  snmp_device:
    credentials: {{ward: {{community: {{file: {tmp_path}/community}}}}}}
    targets: [{{asset: ward-switch, host: 127.0.0.1, port: {snmpd.port}}}]
    discover: {{ranges: [127.0.0.0/30], requests_per_second: 100}}
""")
    return path


def move_target(config: Path, asset: str, host: str) -> None:
    """Its one target is another asset, elsewhere."""
    text = config.read_text()
    assert "asset: ward-switch, host: 127.0.0.1," in text
    config.write_text(text.replace("asset: ward-switch, host: 127.0.0.1,", f"asset: {asset}, host: {host},"))


def test_try_shows_profiles_points_and_time(snmpd: Snmpd) -> None:
    done = run("try", f"127.0.0.1:{snmpd.port}", "--community", COMMUNITY)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^interfaces +Network interfaces$", done.stdout, re.MULTILINE)
    assert "net_interface.is_up" in done.stdout and "net_interface.in_bits_per_second" in done.stdout
    assert re.search(rf"^127\.0\.0\.1:{snmpd.port} v2c: \d+ points in \d+ ms$", done.stdout, re.MULTILINE)


def test_try_with_v3_as_json(snmpd: Snmpd, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(AUTH_PASSWORD)
    (tmp_path / "p").write_text(PRIV_PASSWORD)
    words = ["--v3", "user-sha512-aes256", "--auth", "sha512", "--auth-password", tmp_path / "a"]
    done = run(
        "try",
        f"127.0.0.1:{snmpd.port}",
        *words,
        "--priv",
        "aes256",
        "--priv-password",
        tmp_path / "p",
        "--format",
        "json",
    )
    told = json.loads(done.stdout)
    assert "interfaces" in told["profiles"] and told["object_id"] == "1.3.6.1.4.1.8072.3.2.10"
    assert {"asset_info", "net_interface", "poll"} <= {point["name"] for point in told["points"]}


def test_try_of_an_enrolled_target_takes_its_credential(config: Path) -> None:
    assert run("try", "ward-switch", "-c", config).returncode == 0
    done = run("try", "10.9.9.9", "-c", config)
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "the configuration has no target 10.9.9.9; known are: ward-switch",
    )


def test_try_without_a_target_takes_the_only_one_and_names_several(config: Path) -> None:
    assert run("try", "-c", config).returncode == 0
    text = config.read_text()
    config.write_text(text.replace("targets: [", "targets: [{asset: core-switch, host: 127.0.0.9}, "))
    done = run("try", "-c", config)
    assert (done.returncode, done.stderr) == (2, "which target? The configuration has: core-switch, ward-switch\n")
    assert run("try").stderr == "which device? Write HOST[:PORT]\n"
    done = run("walk", "core-swich", "-c", config, "-o", "/tmp/never")
    assert done.stderr == "the configuration has no target core-swich; did you mean 'core-switch'?\n"


def test_try_says_which_community_it_assumed(snmpd: Snmpd) -> None:
    done = run("try", f"127.0.0.1:{snmpd.port}", "--timeout", "0.1", "--retries", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("no credential given: asking by v2c with community public (--community, --v3 or -c")
    told = run("try", f"127.0.0.1:{snmpd.port}", "--community", COMMUNITY).stderr
    assert told == ""


def test_try_of_a_silent_device_says_so_and_ends_with_1() -> None:
    port = free_udp_port()
    done = run("try", f"127.0.0.1:{port}", "--timeout", "0.1", "--retries", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].startswith(f"127.0.0.1:{port}: nobody listens on that port")
    assert done.stdout == ""
    done = run("try", f"127.0.0.1:{port}", "--timeout", "0.1", "--retries", "0", "--format", "json")
    assert [point["fields"]["is_answering"] for point in json.loads(done.stdout)["points"]] == [0.0]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["try", "127.0.0.1:port"], "'port' is no port"),
        (["try", "21161"], "'21161' is no host name or address; write 'HOST:21161'"),
        (["try", "127.0.0.1", "--v3", "u", "--auth", "sha999"], "sha999"),
        (["try", "127.0.0.1", "--community", "c", "--profile", "nope"], "there is no profile 'nope'"),
        (["replay", "/nowhere.snmprec"], "cannot read"),
    ],
)
def test_wrong_calls_are_one_sentence(words: list[str], text: str) -> None:
    done = run(*words)
    assert done.returncode == 2 and text in done.stderr and "Traceback" not in done.stderr


def test_walk_is_scrubbed_and_can_be_replayed(snmpd: Snmpd, tmp_path: Path) -> None:
    path = tmp_path / "walk.snmprec"
    assert run("walk", f"127.0.0.1:{snmpd.port}", "--community", COMMUNITY, "-o", path).returncode == 0
    assert "ward-switch" not in path.read_text() and len(read_walk(path)) > 100
    argv = [sys.executable, "-m", "agent.cli", "snmp", "replay", str(path), "--listen", "127.0.0.1:0", "--lang", "en"]
    # who starts tests in the background has SIGINT ignored, and would hand that down
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        try:
            assert process.stdout
            [(host, port)] = re.findall(r"answering on (.*):(\d+);", process.stdout.readline())
            done = run("try", f"{host}:{port}", "--format", "json")
            assert "net_interface" in {point["name"] for point in json.loads(done.stdout)["points"]}
        finally:
            process.send_signal(signal.SIGINT)
            until(lambda: process.poll() is not None)
    assert process.returncode == 130


def test_replay_takes_a_port_alone_as_one_of_this_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = run("replay", WALKS / "built_lldp.snmprec", "--listen", port)
    assert done.returncode == 2 and done.stderr.startswith(f"cannot listen on 127.0.0.1:{port}: ")


@pytest.mark.parametrize(("auth", "priv"), [("sha1", "des"), ("sha256", "aes128"), ("sha512", "aes256")])
def test_replay_answers_net_snmp_s_own_manager_enciphered(auth: str, priv: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(AUTH_PASSWORD)
    (tmp_path / "p").write_text(PRIV_PASSWORD)
    words = ["--v3", "ward", "--auth", auth, "--auth-password", tmp_path / "a", "--priv", priv]
    words += ["--priv-password", tmp_path / "p", "--listen", "127.0.0.1:0", "--lang", "en"]
    argv = [sys.executable, "-m", "agent.cli", "snmp", "replay", str(WALKS / "built_h3c.snmprec"), *map(str, words)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            [(host, port)] = re.findall(r"answering on (.*):(\d+);", process.stdout.readline())
            asked = [program("snmpget", "snmp"), "-v3", "-u", "ward", "-l", "authPriv", "-a", AUTHS[auth]]
            asked += ["-A", AUTH_PASSWORD, "-x", PRIVS[priv], "-X", PRIV_PASSWORD, "-On", "-Oq", f"{host}:{port}"]
            done = subprocess.run(
                [*asked, "1.3.6.1.2.1.1.2.0"], capture_output=True, text=True, env={"MIBS": ""}, timeout=60
            )
        finally:
            process.terminate()  # not SIGINT: who starts tests in the background has that ignored
            until(lambda: process.poll() is not None)
    assert done.stdout.split()[1].startswith(".1.3.6.1.4.1.25506."), done.stderr


def test_profile_check_names_mistakes_with_their_line(tmp_path: Path) -> None:
    assert "profiles, in order" in run("profile", "check").stdout
    path = tmp_path / "mine.yaml"
    path.write_text("""title: {zh: 一, en: one}
select: ["*"]
tables:
  psu:
    columns: {state: {oid: 1.3.6.1.4.1.1.2, symbol: x}}
    rows:
      - signal: sensors
        fields: {is_healthy: {column: state}}
    groups:
      - {kind: psu, group: psu, state: status, ok: [1], failed: [2]}
""")
    done = run("profile", "check", path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{path}:7: the catalogue has no 'sensors'; did you mean 'sensor'?",
        f"{path}:10: this table has no column 'status'; did you mean 'state'?",
    ]


def test_discover_asks_only_what_is_allowed_and_writes_a_register(config: Path, snmpd: Snmpd, tmp_path: Path) -> None:
    draft = tmp_path / "register.yaml"
    move_target(config, "attic-switch", "127.0.0.9")
    done = run("discover", "-c", config, "-o", draft, "--format", "json")  # on the ports of the targets too
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"2 addresses, port 161, {snmpd.port}, 0 s at most\n"
    assert json.loads(done.stdout)["targets"] == [
        {"asset": "ward-switch", "host": "127.0.0.1", "port": snmpd.port, "credential": "ward"}
    ]
    assert [(one["host"], one["name"]) for one in json.loads(done.stdout)["found"]] == [("127.0.0.1", "ward-switch")]
    assert draft.read_text() == "assets:\n  ward-switch:\n    class: server\n    reporters:\n    - gateway-1\n"
    draft.write_text("# looked at\n")
    done = run("discover", "-c", config, "--port", snmpd.port, "-o", draft)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        f"{draft} is there already and stays; choose another name",
    )
    assert draft.read_text() == "# looked at\n"
    done = run("discover", "10.0.0.0/8", "-c", config)
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "10.0.0.0/8 is outside of what snmp_device.discover.ranges allows",
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_discover_names_what_is_enrolled_already_and_drafts_no_twin(config: Path, tmp_path: Path, host: str) -> None:
    draft = tmp_path / "register.yaml"
    move_target(config, "ward-1", host)
    done = run("discover", "-c", config, "-o", draft, "--format", "json")
    told = json.loads(done.stdout)
    assert (done.returncode, [one["target"] for one in told["found"]], told["targets"]) == (0, ["ward-1"], [])
    assert done.stderr.splitlines()[-1] == "every device that answers is enrolled already; nothing is drafted"
    assert not draft.exists()
    done = run("discover", "-c", config)
    assert re.search(r"^127\.0\.0\.1:\d+ +ward-1 +ward +ward-switch ", done.stdout, re.MULTILINE)
    assert "# agent.yaml" not in done.stdout and "# register.yaml" not in done.stdout


def test_a_new_device_gets_a_name_that_no_target_bears(config: Path, snmpd: Snmpd) -> None:
    move_target(config, "ward-switch", "no-such-host.invalid")
    done = run("discover", "-c", config, "--format", "json")
    assert [(one["asset"], one["host"]) for one in json.loads(done.stdout)["targets"]] == [
        ("ward-switch-2", "127.0.0.1")
    ]


@pytest.mark.parametrize(
    ("object_id", "asset_class"),
    [
        ("1.3.6.1.4.1.2011.2.91", "storage"),
        ("1.3.6.1.4.1.2011.2.235", "server"),
        ("1.3.6.1.4.1.2011.2.23.92", "network"),
        ("1.3.6.1.4.1.99999.1", None),
    ],
)
def test_class_of_a_device_is_that_of_the_profile_that_knows_most_of_it(object_id: str, asset_class: str) -> None:
    assert guess_class(object_id, load_profiles()) == asset_class


def test_discover_that_finds_nobody_says_what_to_check(config: Path, tmp_path: Path) -> None:
    done = run("discover", "-c", config, "--port", free_udp_port(), "-o", tmp_path / "register.yaml")
    assert done.returncode == 1
    assert "check the credentials, the port (--port)" in done.stderr
    assert not (tmp_path / "register.yaml").exists()


def test_unknown_algorithm_and_profile_are_named_beside_those_there_are() -> None:
    done = run("try", "127.0.0.1:9", "--v3", "u", "--auth", "sha")
    assert (done.returncode, "'sha'" in done.stderr, "sha512" in done.stderr) == (2, True, True)
    done = run("try", "127.0.0.1:9", "--community", "c", "--profile", "interface")
    assert (done.returncode, done.stderr) == (2, "there is no profile 'interface'; did you mean 'interfaces'?\n")


async def test_discover_asks_one_question_a_step_whoever_asks_it() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    credentials = {"a": Opened(community="a"), "b": Opened(community="b")}
    ports = [free_udp_port(), free_udp_port()]
    search = Search(credentials, {}, 4.0, ports=ports, clock=lambda: 1000.0, sleep=sleep)
    assert await search.run(["127.0.0.1", "127.0.0.2"]) == []
    assert waited == [number * 0.25 for number in range(8)]


def test_every_command_has_its_help() -> None:
    for name in ("try", "walk", "replay", "profile", "discover"):
        assert run(name, "--help").returncode == 0
    assert WALKS.is_dir()
