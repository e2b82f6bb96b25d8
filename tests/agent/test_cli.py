"""The command `infravitals-agent`: the real program in a process of its own, and the texts that it is made of."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from servers import Mosquitto, free_port, until

from agent import language
from agent.cli import main
from agent.commandline import Parser, find_language, number, whole_number
from agent.config import AgentFile, default_sources, read_config
from agent.sample import describe_sources, explain_key, write_sample
from agent.sources import load_source, names
from agent.spool import Spool

AGENT = [sys.executable, "-m", "agent.cli"]
PLAIN = {"PATH": os.environ["PATH"], "INFRAVITALS_LANG": "en", "PYTHONWARNINGS": "error"}


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AGENT, *map(str, arguments)],
        env=PLAIN | environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture
def english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of quick sources for a broker that is not there."""
    return write_config(tmp_path, free_port())


def write_config(folder: Path, port: int, more: str = "") -> Path:
    path = folder / "agent.yaml"
    path.write_text(
        f"site: north\nagent: srv-1\nstate_directory: {folder}/state\nbroker: {{host: 127.0.0.1, port: {port}}}\n"
        f"{more}sources:\n  host_cpu: {{interval_seconds: 1}}\n  host_memory: {{interval_seconds: 1}}\n"
    )
    return path


class Running:
    """The agent as a daemon; ended by its own process id."""

    def __init__(self, config: Path) -> None:
        self.log = config.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*AGENT, "run", "-c", str(config)], env=PLAIN, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def says(self, text: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(120)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def test_check_accepts_a_right_file(config: Path) -> None:
    done = run("check", "-c", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config}: in order, 2 sources\n", "")


def test_check_shows_all_mistakes_and_ends_with_2(tmp_path: Path) -> None:
    path = write_config(tmp_path, 1883)
    path.write_text(path.read_text().replace("site:", "sight:").replace("host_cpu", "host_gpu"))
    done = run("check", "-c", path)
    assert done.returncode == 2
    lines = done.stderr.replace(f"{path}:", "").splitlines()
    assert lines == [
        "1: unknown key 'sight'; did you mean 'site'?",
        "6: unknown source 'host_gpu'; did you mean 'host_cpu'?",
    ]


def test_check_as_json_for_machines(tmp_path: Path, config: Path) -> None:
    assert json.loads(run("check", "-c", config, "--format", "json").stdout) == {"mistakes": []}
    config.write_text(config.read_text().replace("host_cpu", "host_gpu"))
    done = run("check", "-c", config, "--format", "json")
    [mistake] = json.loads(done.stdout)["mistakes"]
    assert done.returncode == 2
    assert (mistake["file"], mistake["line"]) == (str(config), 6)


SPOILED = [
    (None, "", "cannot read the password file {0}: it does not exist; mend it or change broker.password", True),
    ("", "", "broker.password: the secret in the file {0} is of no use: it is empty", True),
    ("changeme", "", "broker.password: the secret in the file {0} is of no use: it is an example's word", True),
    ("canary-3141", "o+r", "broker.password: every user of this machine may read {0}; run chmod o= {0}", False),
]


@pytest.mark.parametrize(("text", "mode", "said", "is_asked_for"), SPOILED)
def test_check_reads_the_secrets_that_are_named(
    text: str | None, mode: str, said: str, is_asked_for: bool, config: Path
) -> None:
    secret = config.parent / "broker.password"
    if text is not None:
        secret.touch(0o644 if mode else 0o600)
        secret.write_text(text)
    broker = f"{{host: 127.0.0.1, password: {{file: {secret}}}}}"
    config.write_text(re.sub("broker: .*", f"broker: {broker}", config.read_text()))
    done = run("check", "-c", config)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{config}: {said.format(secret)}")
    assert (f"run install -m 600 /dev/stdin {secret}, type the secret and press Ctrl-D" in done.stderr) is is_asked_for
    assert "canary" not in done.stderr and "changeme" not in done.stderr
    [mistake] = json.loads(run("check", "-c", config, "--format", "json").stdout)["mistakes"]
    assert done.stderr == f"{mistake['file']}: {mistake['text']}\n"


def test_check_of_a_good_secret_says_nothing_of_it(config: Path) -> None:
    secret = config.parent / "broker.password"
    secret.touch(0o600)
    secret.write_text("canary-3141")
    broker = f"{{host: 127.0.0.1, password: {{file: {secret}}}}}"
    config.write_text(re.sub("broker: .*", f"broker: {broker}", config.read_text()))
    done = run("check", "-c", config)
    assert (done.returncode, done.stderr, "canary" in done.stdout) == (0, "", False)


def test_version_is_a_flag_too() -> None:
    assert run("--version").stdout == run("version").stdout
    assert run("--version").returncode == 0


def test_check_opens_nothing(config: Path) -> None:
    """Nobody listens on the broker's port, and the state directory does not exist: neither matters."""
    assert run("check", "-c", config).returncode == 0
    assert not (config.parent / "state").exists()


@pytest.mark.parametrize("reader", ["zh", "en"])
@pytest.mark.parametrize("source", [None, *names()])
def test_sample_is_a_right_configuration(
    source: str | None, reader: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if source and sys.platform not in load_source(source).Source.systems:
        return
    words = ["sample", "--lang", reader, *([source] if source else [])]
    assert main(words) == 0
    path, key = tmp_path / "agent.yaml", tmp_path / "probe.key"
    key.touch(0o600)
    key.write_text("a key of the test's own, long enough to be one")
    path.write_text(capsys.readouterr().out.replace("/etc/infravitals-agent/probe.key", str(key)))
    assert main(["check", "--lang", reader, "-c", str(path)]) == 0, capsys.readouterr().err
    wanted = [source] if source else [section.name for section in default_sources()]
    assert [section.name for section in read_config(path).sources] == wanted


@pytest.mark.parametrize("source", [None, *names()])
def test_sample_is_right_with_every_optional_key_taken_in(source: str | None, tmp_path: Path, english: None) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(re.sub(r"^( *)#(?=\w)", r"\1", write_sample(source), flags=re.MULTILINE))
    config = read_config(path)
    assert config.sources and config.log.level == "info" and config.broker.port == 8883


def test_every_key_of_the_configuration_is_explained() -> None:
    kinds: list[tuple[str, type[msgspec.Struct]]] = [("", AgentFile)]
    kinds += [(name, load_source(name).Config) for name in names()]
    kinds += [
        (field.name, field.type)
        for field in msgspec.structs.fields(AgentFile)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    ]
    missing = [
        f'"{section}.{field.name}": Text("…", "…"),'
        for section, kind in kinds
        for field in msgspec.structs.fields(kind)
        if explain_key(section, field.name) is None
    ]
    assert not missing, "add to TEXTS in agent/sample.py:\n" + "\n".join(missing)


def test_sources_lists_what_each_measures() -> None:
    done = run("sources")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SOURCE", "MEASURES", "SYSTEMS"]
    assert [line.split()[0] for line in lines[1:]] == names()
    assert all(measures for _, measures, _ in describe_sources())


def test_try_shows_a_table() -> None:
    done = run("try", "host_memory")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["SIGNAL", "TAGS", "VALUE", "UNIT", "MEANING"]
    assert "host_memory.used_ratio" in [row[0] for row in rows]


def test_try_of_a_source_without_targets_says_how_to_name_some() -> None:
    done = run("try", "snmp_device")
    assert (done.returncode, done.stdout) == (0, "")
    assert "infravitals-agent sample snmp_device prints how, then try it with -c agent.yaml" in done.stderr


def test_try_gathers_twice_what_has_rates() -> None:
    done = run("try", "host_cpu", "--format", "json")
    [point] = json.loads(done.stdout)
    assert point["name"] == "host_cpu"
    assert 0 <= point["fields"]["busy_ratio"] <= 1
    assert point["tags"] == {"asset": "this-machine"}


def test_try_takes_asset_and_section_from_a_file(config: Path) -> None:
    done = run("try", "host_memory", "-c", config, "--format", "json")
    [point] = json.loads(done.stdout)
    assert point["tags"] == {"asset": "srv-1"}
    assert not (config.parent / "state").exists()


def test_try_ends_with_1_when_every_target_fails(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    targets = "[{asset: a, host: 127.0.0.1, port: 9}, {asset: b, host: 127.0.0.1, port: 10}]"
    credentials = f"{{c: {{community: {{file: {tmp_path}/none}}}}}}"
    section = f"snmp_device: {{credentials: {credentials}, targets: {targets}}}"
    path.write_text(f"site: s\nagent: g\nbroker: {{host: h}}\nsources: {{{section}}}\n")
    done = run("try", "snmp_device", "-c", path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2), done.stderr


PROBES = """
site: my-hospital
agent: probe
broker: {{host: 127.0.0.1}}
sources:
  continuity_probe:
    probes: {{his-web: {{service: his, kind: tcp, addresses: ["127.0.0.1:{port}"]}}}}
  path_probe:
    targets: [{{name: core, kind: tcp, address: 127.0.0.1, port: {port}}}]
"""


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("continuity_probe", r"his-web fails: .*Connect.*"),
        ("path_probe", r"core \(127\.0\.0\.1:\d+\) is not reachable: .*Connect.*"),
    ],
)
def test_try_says_why_a_port_is_not_reached(source: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(PROBES.format(port=free_port()))
    done = run("try", source, "-c", path)
    assert done.returncode == 0 and re.search(sentence, done.stderr), done.stderr


def test_try_of_an_unknown_source_ends_with_2() -> None:
    done = run("try", "host_cpuu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "unknown source 'host_cpuu'; did you mean 'host_cpu'?\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_completion_knows_the_commands(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "sample" in done.stdout and "config" in done.stdout


def test_completion_script_is_accepted_by_bash() -> None:
    script = run("completion", "bash").stdout
    assert subprocess.run(["/usr/bin/bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_version_is_that_of_the_distribution() -> None:
    assert run("version").stdout.startswith("infravitals 0.")


def test_help_speaks_the_readers_language() -> None:
    chinese, english = run("--help", "--lang", "zh"), run("--help")
    assert chinese.stdout.startswith("用法：infravitals-agent")
    assert "退出码：0 正常；1 遇到问题；2 文件或命令行有误" in chinese.stdout
    assert english.stdout.startswith("usage: infravitals-agent")
    assert "exit codes: 0 ok; 1 trouble; 2 a file or the command line is wrong" in english.stdout


def test_wrong_command_line_is_one_sentence() -> None:
    done = run("check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "infravitals-agent check: the following arguments are required: -c/--config; see --help\n"
    chinese = run("check", "--lang=zh")
    assert chinese.stderr == "infravitals-agent check：缺少参数：-c/--config(见 --help)\n"


def test_choice_that_was_not_made_is_said_in_chinese_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFRAVITALS_LANG", "zh")
    parser = Parser(prog="drill")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-c", "--config")
    where.add_argument("--folder")
    for arguments, expected in (([], "须写其中之一：-c/--config --folder"), (["-c", "a", "--folder", "b"], "不能与")):
        with pytest.raises(SystemExit):
            parser.parse_args(arguments)
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--whole", "0"), "参数 --whole：应为 1 到 9 的整数，实际是 '0'"),
        (("--whole", "1.0"), "实际是 '1.0'"),
        (("--whole", "٣"), "实际是"),
        (("--whole", "9" * 5000), "应为 1 到 9 的整数"),
        (("--part", "nan"), "参数 --part：应为 0.5 到 60 的数，实际是 'nan'"),
        (("--part", "-1"), "实际是 '-1'"),
        (("--part", "x"), "实际是 'x'"),
        (("--plain", "x"), "参数 --plain：应为整数，实际是 'x'"),
        (("--loose", "x"), "参数 --loose：应为数，实际是 'x'"),
    ],
)
def test_a_number_out_of_its_bounds_is_said_in_the_readers_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setenv("INFRAVITALS_LANG", "zh")
    parser = Parser(prog="x")
    parser.add_argument("--whole", type=whole_number(1, 9))
    parser.add_argument("--part", type=number(0.5, 60))
    parser.add_argument("--plain", type=int)
    parser.add_argument("--loose", type=float)
    assert vars(parser.parse_args(["--whole", "9", "--part", "0.5"]))["whole"] == 9
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([*words])
    assert (ended.value.code, sentence in capsys.readouterr().err) == (2, True)


def test_language_is_found_anywhere_on_the_command_line() -> None:
    assert find_language(["--lang", "zh", "sources"]) == "zh"
    assert find_language(["sources", "--lang=en"]) == "en"
    assert find_language(["try", "zh"]) is None


def test_run_with_a_wrong_file_ends_with_2(config: Path) -> None:
    config.write_text("site: north\n")
    done = run("run", "-c", config)
    assert done.returncode == 2
    assert "key 'agent' is missing" in done.stderr


def test_run_without_a_writable_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    done = run("run", "-c", write_config(tmp_path, free_port()))
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "Traceback" in line] == []
    assert f"{tmp_path}/state" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_run_without_a_broker_keeps_points_and_ends_cleanly(config: Path, how: signal.Signals) -> None:
    spool = config.parent / "state" / "spool.sqlite"
    with Running(config) as agent:
        until(lambda: agent.says("gathers from 2 sources"))
        log = spool.with_name("spool.sqlite-wal")  # the agent locks the database itself
        until(log.exists)
        size = log.stat().st_size
        until(lambda: log.stat().st_size > size)
        status = agent.end(how)
    assert status == 0, agent.log.read_text()
    assert "Traceback" not in agent.log.read_text()
    assert waiting_points(spool) > 0


def waiting_points(spool: Path) -> int:
    """What an ended agent left in its spool."""
    kept = Spool(spool, max_bytes=2**20, max_age_seconds=1e9, new_boot=lambda: "reader")
    with contextlib.closing(kept):
        return kept.state().points


def test_run_sends_batches_to_the_broker(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, Running(write_config(tmp_path, broker.port)) as agent:
        payload = subprocess.run(
            [
                "/usr/bin/mosquitto_sub",
                "-p",
                str(broker.port),
                "-t",
                "infravitals/v1/+/+/points",
                "-C",
                "3",  # the round of one source may come into the batch before that of the other
                "-W",
                "120",
            ],
            capture_output=True,
            timeout=180,
            check=True,
        ).stdout
        assert agent.end(signal.SIGTERM) == 0, agent.log.read_text()
    metrics = [metric for line in payload.splitlines() for metric in json.loads(line)["metrics"]]
    assert {"host_memory", "source_round"} <= {metric["name"] for metric in metrics}
    assert {metric["tags"]["asset"] for metric in metrics} == {"srv-1"}


def test_run_logs_one_json_object_per_line_when_asked(tmp_path: Path) -> None:
    with Running(write_config(tmp_path, free_port(), "log: {format: json}\n")) as agent:
        until(lambda: agent.says("gathers from 2 sources"))
        agent.end(signal.SIGTERM)
    entries = [json.loads(line) for line in agent.log.read_text().splitlines()]
    assert entries[0]["text"] == "north/srv-1 gathers from 2 sources"
    assert entries[0]["level"] == "info"


def test_output_into_a_closed_pipe_is_no_crash(config: Path) -> None:
    reader, writer = socket.socketpair()
    reader.close()
    with writer:
        done = subprocess.run([*AGENT, "sources"], env=PLAIN, stdout=writer, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
