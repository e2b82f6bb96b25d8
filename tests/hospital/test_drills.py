"""`infravitals drill` as an operator types it, against a real keepalived and a real PostgreSQL, beside what the test knows."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from hospital.lan import TESTS, Lan
from hospital.postgres import Server, numbers_on_disk, postgres_pair, promote
from hospital.test_vip import PORT, VIP, Hospital
from hospital.tokens import PERIOD, login
from servers import program, until

from agent.continuity.tokens import Token
from agent.sources import Surroundings
from agent.sources.continuity_probe import Config, Source

OBSERVE_SECONDS = 30.0
PATIENCE_SECONDS = 60.0
COMMAND = [sys.executable, "-m", "collector.cli", "drill"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS), "INFRAVITALS_LANG": "en"}

AGENT = """
site: my-hospital
agent: his-probe
broker: {{host: 127.0.0.1}}
state_directory: {state}
sources:
  continuity_probe:
    probes:
      his-path: {probe}
"""


def write_agent(folder: Path, probe: dict[str, object]) -> Path:
    file = folder / "agent.yaml"
    file.write_text(AGENT.format(state=json.dumps(str(folder / "state")), probe=json.dumps(probe)))
    return file


def drill(*words: str | Path, status: int = 0) -> str:
    done = subprocess.run([*COMMAND, *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    with Lan("a", "b", "c") as lan:
        place = Hospital(lan, tmp_path)
        for host in ("a", "b"):
            place.serve(host)
            place.start_keepalived(host)
        until(lambda: place.holds("a") and not place.holds("b"))
        yield place


def write_plan(folder: Path, lan: Lan, **more: object) -> Path:
    """Kill the master's keepalived, and start it again as it was."""
    now = datetime.now(UTC)
    configuration = folder / "a" / "keepalived.conf"
    pids = [word for key in "pr" for word in (f"-{key}", str(folder / "a" / f"again-{key}.pid"))]
    again = [program("ip", "iproute2"), "netns", "exec", lan.namespace("a"), program("keepalived", "keepalived")]
    plan = {
        "drill": "vip-1",
        "probe": "his-path",
        "people": ["zhang-san", "li-si"],
        "window": {"from": now.isoformat(), "until": (now + timedelta(hours=1)).isoformat()},
        "hook": {
            "switch": [["kill", "-TERM", str(lan.pids("a", "keepalived")[0])]],
            "back": [[*again, "-P", "-f", str(configuration), *pids]],
        },
        "calm_seconds": 1,
        "observe_seconds": OBSERVE_SECONDS,
        **more,
    }
    file = folder / "plan.yaml"
    file.write_text(json.dumps(plan))
    return file


def test_drill_run_prints_the_rto_that_the_servers_know_and_passes_when_the_service_is_back(hospital: Hospital) -> None:
    folder, lan = hospital.folder, hospital.lan
    probe = {"service": "his", "kind": "tcp", "addresses": [f"{VIP}:{PORT}"], "banner": True}
    agent, plan = write_agent(folder, probe), write_plan(folder, lan)
    lan.start_python("c", "hospital.people", "use", VIP, PORT, log=folder / "use.log")
    until(lambda: hospital.served("a"))

    printed = drill("plan", plan, "-c", agent)
    assert '["kill","-TERM",' in printed and not (folder / "state").exists(), "it prints and touches nothing"
    code = printed.split("code ")[1].strip()
    refused = drill("run", plan, "-c", agent, "--by", "zhang-san", "--code", code, status=2)
    assert "--by" in refused and hospital.holds("a")

    words = [*COMMAND[1:], "run", plan, "-c", agent, "--by", "zhang-san", "--by", "li-si", "--code", code]
    said = lan.run("c", sys.executable, *words)
    record = json.loads(drill("show", "vip-1", "-c", agent, "--format", "json"))
    truth = hospital.truth("a", "b")
    assert record["outages"], said
    print(
        f"drill: rto {record['outages'][0]['ended_at'] - record['outages'][0]['began_at']:.3f} s, truth {truth:.3f} s\n{said}"
    )
    first = record["outages"][0]
    assert abs(first["ended_at"] - first["began_at"] - truth) <= PERIOD + 0.05
    assert record["rto_seconds"] >= first["ended_at"] - first["began_at"] - 1e-6
    assert record["is_passed"] is True and record["is_automatic"] is True
    assert "moved and came back: yes" in said and "RPO not measured" in said, "TCP keeps no tokens"
    shown = drill("show", "vip-1", "-c", agent)
    assert "started by zhang-san, li-si, code of the plan " + code in shown and "it agrees" in shown
    assert "a -> b" in shown and "b -> a" in shown and "ended without a person" in shown
    assert "vip-1" in drill("list", "-c", agent)


def test_drill_does_not_begin_when_the_service_is_not_in_order(hospital: Hospital) -> None:
    probe = {"service": "his", "kind": "tcp", "addresses": [f"{VIP}:9"], "banner": True}
    agent, plan = write_agent(hospital.folder, probe), write_plan(hospital.folder, hospital.lan, calm_seconds=0.3)
    code = drill("plan", plan, "-c", agent).split("code ")[1].strip()
    words = [*COMMAND[1:], "run", plan, "-c", agent, "--by", "zhang-san", "--by", "li-si", "--code", code, "2>&1"]
    said = hospital.lan.run("c", "sh", "-c", " ".join([sys.executable, *map(str, words)]), is_checked=False)
    assert f"does not begin: his-path ({VIP}:9): " in said
    assert hospital.holds("a"), "nothing was touched"
    assert "no drill yet" in drill("list", "-c", agent)
    assert not list((hospital.folder / "state/drills").iterdir()), "its id may be used again"


def test_outage_that_lasts_too_long_breaks_the_drill_off_and_undoes_it(hospital: Hospital) -> None:
    folder, lan = hospital.folder, hospital.lan
    for pid in lan.pids("b", "keepalived"):
        with contextlib.suppress(ProcessLookupError):  # the first takes the others along
            os.kill(pid, signal.SIGTERM)
    until(lambda: not lan.pids("b", "keepalived"))
    probe = {"service": "his", "kind": "tcp", "addresses": [f"{VIP}:{PORT}"], "banner": True}
    agent, plan = write_agent(folder, probe), write_plan(folder, lan, abort_seconds=1)
    code = drill("plan", plan, "-c", agent).split("code ")[1].strip()
    words = [*COMMAND[1:], "run", plan, "-c", agent, "--by", "zhang-san", "--by", "li-si", "--code", code]
    assert "broken off" in lan.run("c", sys.executable, *words)
    record = json.loads(drill("show", "vip-1", "-c", agent, "--format", "json"))
    assert record["is_aborted"] is True and record["is_passed"] is False and record["is_automatic"] is False
    until(lambda: hospital.holds("a"))


def read_log(folder: Path) -> list[Token]:
    file = folder / "state/drills/pg-1.tokens.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [msgspec.json.decode(line, type=Token) for line in lines]


def act_as_operator(folder: Path, primary: Server, standby: Server) -> set[int]:
    """The line stalls, the primary dies, the standby is promoted; the numbers that the survivor has."""
    until(lambda: sum(token.is_good for token in read_log(folder)) > 35)
    os.kill(primary.child("walsender"), signal.SIGSTOP)
    seen = len(read_log(folder))
    until(lambda: len(read_log(folder)) > seen + 6)
    primary.kill()
    until(lambda: not read_log(folder)[-1].is_good, PATIENCE_SECONDS)
    promote(standby)
    until(lambda: sum(token.is_good and token.served_by == standby.address for token in read_log(folder)) > 5)
    return standby.numbers("drill-pg-1")


def test_drill_watch_counts_exactly_the_lost_tokens_and_its_record_reaches_the_line(tmp_path: Path) -> None:
    with postgres_pair(is_synchronous=False) as (primary, standby):
        addresses = [primary.address, standby.address]
        probe = {"service": "his", "kind": "postgresql", "addresses": addresses, **login(tmp_path, "postgresql")}
        agent = write_agent(tmp_path, probe)
        words = [*COMMAND, "watch", "his-path", "-c", str(agent), "--id", "pg-1", "--by", "zhang-san"]
        watching = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            survived = act_as_operator(tmp_path, primary, standby)
            watching.send_signal(signal.SIGINT)
            said, _ = watching.communicate(timeout=60)
        finally:
            watching.kill()
            watching.communicate()
        acknowledged = {token.number for token in read_log(tmp_path) if token.served_by == primary.address}
        truth = (acknowledged & numbers_on_disk(primary)) - survived
        record = json.loads(drill("show", "pg-1", "-c", agent, "--format", "json"))
        print(f"drill: rpo {record['rpo_seconds']} s, lost {len(record['lost'])}, in truth {len(truth)}\n{said}")
        assert len(truth) >= 6 and set(record["lost"]) == truth
        assert f"{len(truth)} acknowledged tokens lost" in said
        assert standby.numbers("drill-pg-1") == set(), "the drill's tokens are deleted"
    assert_reported(tmp_path, record)
    log = tmp_path / "state/drills/pg-1.tokens.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"is_good":false', b'"is_good":true'))
    assert "was changed" in drill("show", "pg-1", "-c", agent, status=1)


@contextmanager
def watched_drill(folder: Path, server: Server, name: str) -> Iterator["subprocess.Popen[str]"]:
    """`drill watch` of one database, with some tokens written."""
    (folder / "password").write_text("right\n")
    login = {"database": "postgres", "user": "infravitals", "password": {"file": str(folder / "password")}}
    agent = write_agent(folder, {"service": "his", "kind": "postgresql", "addresses": [server.address], **login})
    words = [*COMMAND, "watch", "his-path", "-c", str(agent), "--id", name]
    watching = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: len(server.numbers(f"drill-{name}")) > 3)
        yield watching
    finally:
        watching.kill()
        watching.communicate()


def test_tokens_of_a_drill_killed_with_9_are_deleted_by_the_next_one_once_they_are_old(tmp_path: Path) -> None:
    with postgres_pair(is_synchronous=False) as (primary, _):
        for name in ("pg-old", "pg-new"):
            with watched_drill(tmp_path, primary, name) as watching:
                watching.kill()
        assert primary.numbers("drill-pg-old") and primary.numbers("drill-pg-new")
        primary.sql("UPDATE infravitals_token SET sent_at = sent_at - 604900 WHERE stream = 'drill-pg-old'")
        with watched_drill(tmp_path, primary, "pg-next"):
            until(lambda: not primary.numbers("drill-pg-old"))
            assert primary.numbers("drill-pg-new"), "that one may still be on"


def assert_reported(folder: Path, record: dict[str, object]) -> None:
    """The running agent tells each drill until it was handed over once."""

    async def gather() -> list[list[dict[str, object]]]:
        probe = {"service": "his", "kind": "tcp", "addresses": ["127.0.0.1:9"]}
        config = msgspec.convert({"probes": {"his-path": probe}}, Config)
        source = Source(config, Surroundings("his-probe", state_directory=folder / "state"))
        await source.open()
        try:
            rounds = [list(await source.collect()) for _ in range(2)]
        finally:
            await source.close()
        assert undeclared("continuity_probe", rounds[0]) == []
        return [[dict(reading.fields) for reading in readings if reading.name == "drill"] for readings in rounds]

    first, second = asyncio.run(gather())
    [told] = first
    assert second == []
    assert told["is_planned"] is True and told["token_log_digest"] == record["token_log_digest"]
    assert told["rto_seconds"] == record["rto_seconds"] and told["rpo_seconds"] == record["rpo_seconds"]


SCENARIOS = [
    (
        test_drill_run_prints_the_rto_that_the_servers_know_and_passes_when_the_service_is_back,
        "neither an outage nor a move was seen",
    ),
    (test_drill_does_not_begin_when_the_service_is_not_in_order, "the drill begins"),
    (test_outage_that_lasts_too_long_breaks_the_drill_off_and_undoes_it, "the drill begins"),
]
"""Each with what the mutant says instead."""


@pytest.fixture
def mutant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same command line, as whole as the other, with a probe that always says ok."""
    monkeypatch.setitem(globals(), "COMMAND", [sys.executable, "-m", "hospital.people", "mutant", "drill"])
    monkeypatch.setitem(globals(), "OBSERVE_SECONDS", 3.0)
    monkeypatch.setitem(globals(), "PATIENCE_SECONDS", 3.0)
    assert "no drill yet" in drill("list", "--folder", tmp_path)


@pytest.mark.usefixtures("mutant")
@pytest.mark.parametrize(("scenario", "said"), SCENARIOS)
def test_mutant_that_always_says_ok_turns_the_scenario_red(
    scenario: Callable[[Hospital], None], said: str, hospital: Hospital
) -> None:
    with pytest.raises(AssertionError, match=said):
        scenario(hospital)


@pytest.mark.usefixtures("mutant")
def test_mutant_that_always_says_ok_turns_the_watched_drill_red(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not so within"):
        test_drill_watch_counts_exactly_the_lost_tokens_and_its_record_reaches_the_line(tmp_path)
