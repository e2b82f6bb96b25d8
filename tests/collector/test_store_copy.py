"""`infravitals store copy` as it is run: a site to InfluxDB and back scores the same bytes, also when the command was killed on its way."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from influxstore import config_of
from servers import Influx

from agent.catalogue import load
from agent.language import speaking
from agent.points import Point
from collector.beside import score_bytes
from collector.cli import main
from collector.evaluate import Rules, evaluate
from collector.history import scores_of, summarize
from collector.inquiry import Site
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules
from collector.stores import AppliedBatch, Period, Store
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB
from collector.stores.influxdb import Store as InfluxDB

SITE = Site("hospital", ZoneInfo("Asia/Shanghai"))
START = 1_760_054_400_000
LATER = START + 40 * DAY_MS
"""By then the raw points of START are pruned."""
HOURS = 3
WORDS = ["store", "copy", "--lang", "en"]
COMMAND = [sys.executable, "-m", "collector.cli", *WORDS]
MORTAL = """
import signal, sys
from collector.cli import main

class Mouth:
    def __init__(self, lines):
        self.left = lines

    def write(self, text):
        while not self.left:
            signal.pause()
        self.left -= text.count("\\n")
        sys.__stderr__.write(text)

    def flush(self):
        sys.__stderr__.flush()

sys.stderr = Mouth(int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
"""
"""The command that tells so many lines, works on, and waits to be killed before it tells one more: it is never done first."""
numbers = itertools.count()


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    with speaking("en"):
        yield


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


class Line:
    """A store's collector.yaml, and the store."""

    def __init__(self, folder: Path, store: str) -> None:
        folder.mkdir()
        self.folder, self.file = folder, folder / "collector.yaml"
        self.file.write_text(f"site: hospital\nbroker: {{host: 127.0.0.1}}\ndata_directory: data\nstore: {store}\n")


class Embedded(Line):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "{kind: duckdb}")
        (folder / "data").mkdir()

    def open(self) -> Store:
        store: Store = DuckDB(Config(path=str(self.folder / "data" / "infravitals.duckdb")), load())
        return store


class OnServer(Line):
    def __init__(self, folder: Path, influx: Influx) -> None:
        self.database, self._influx = f"copied_{next(numbers)}", influx
        influx.ask(f"CREATE DATABASE {self.database}")
        config = config_of(influx, self.database)
        place = {"url": influx.url, "database": self.database, "user": config.user}
        super().__init__(
            folder, json.dumps({"kind": "influxdb", **place, "password": {"file": f"{influx.folder}/password"}})
        )

    def open(self) -> Store:
        store: Store = InfluxDB(config_of(self._influx, self.database), load())
        return store


def round_of(agent: str, at: int, step: int) -> Iterator[Point]:
    """What an agent gathers at once."""
    host, place = {"asset": agent}, step % 64 / 64
    yield Point("host_cpu", host, {"busy_ratio": place, "iowait_ratio": 0.125}, at)
    yield Point("host_uptime", host, {"uptime_seconds": float(step), "unexpected_restart_count": 0.0}, at)
    for mount in ("/", "/data disk"):
        yield Point("filesystem", {**host, "mount": mount}, {"used_ratio": place / 2, "is_responding": 1.0}, at)
    link: dict[str, float | str] = {"busy_ratio": place, "is_up": 1.0}
    yield Point(
        "net_interface", {**host, "interface": "eth0"}, link | ({"alias": '上联 "A"\\'} if step % 9 else {}), at
    )
    for source in ("host_cpu", "host_uptime", "filesystem", "net_interface"):
        fields = {"is_success": float(step % 50 > 0), "interval_seconds": 60.0, "duration_seconds": 0.25}
        yield Point("source_round", {**host, "source": source}, fields, at)


def batches(agent: str, begin: int, first: int) -> Iterator[AppliedBatch]:
    """Some hours of an agent, a minute each: a gap, a loss that was announced, one that was not, and a late one at the end."""
    waiting: list[AppliedBatch] = []
    for minute in range(HOURS * 60):
        at, seq = begin + minute * 60_000, first + minute
        dropped = [("b1", first + 60, first + 69, 90)] if minute == 70 else []
        if 60 <= minute < 70 or minute == 100:
            continue
        points = list(round_of(agent, at, minute))
        made = AppliedBatch("hospital", agent, "b1", seq, f"b1/{seq}", at, at + 2000, points, minute % 7, dropped)
        if minute == 110:
            waiting.append(made._replace(received_at=begin + 9 * HOUR_MS))
        else:
            yield made
    yield from waiting


def fill(store: Store, rules: Rules) -> None:
    """Two stretches of a site, scored at the end of each; points of the first are pruned."""
    for number, begin in enumerate((START, LATER)):
        for agent in ("his-1", "his-2"):
            store.write(list(batches(agent, begin, number * HOURS * 60)))
        for as_of in (begin + HOURS * HOUR_MS, begin + DAY_MS):
            card = evaluate(store, rules, SITE, as_of, as_of + 200_000)
            told = (f"why {as_of}", summarize(card), scores_of(card))
            store.save_scorecard("hospital", as_of, card.identity(), msgspec.json.encode(card), as_of + 9, *told)
            store.keep()
    assert store.prune(LATER + DAY_MS) > 1000


_QUERY = re.compile(rb'"query":"(?:[^"\\]|\\.)*"')
"""What each store was asked, in its own language: the only part of a scorecard that differs between them."""


def told_by(store: Store, rules: Rules) -> list[object]:
    """What a store says of the site: scores of hours whose points are there and whose are not, the ledger, the stored cards."""
    moments = [START + HOURS * HOUR_MS, START + DAY_MS, LATER + HOUR_MS, LATER + HOURS * HOUR_MS]
    return [
        tuple(_QUERY.sub(b"", score_bytes(store, rules, SITE, as_of)) for as_of in moments),
        dict(store.accounts("hospital", {agent: Period(START, LATER + DAY_MS) for agent in ("his-1", "his-2")})),
        store.totals(),
        dict(store.owners("hospital")),
        store.scorecards("hospital", 0),
        [store.subjects(name, ("asset",), {}, LATER + DAY_MS) for name in ("host_cpu", "source_round")],
    ]


def without_revisions(told: list[object]) -> list[object]:
    """A stored card is asked in its store's language: scored anew on another store it is the next revision of the same."""
    [cards, *rest] = told
    assert isinstance(cards, tuple)
    return [[re.sub(rb'"revision":[12],', b"", card) for card in cards], *rest]


@pytest.fixture(scope="module")
def filled(rules: Rules, tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedded, list[object]]:
    embedded = Embedded(tmp_path_factory.mktemp("filled") / "embedded")
    with embedded.open() as store:
        fill(store, rules)
        return embedded, told_by(store, rules)


def copy(source: Line, target: Line, *more: str) -> subprocess.CompletedProcess[str]:
    words = [*COMMAND, "--from", str(source.file), "--to", str(target.file), *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def kill_after(source: Line, target: Line, lines: int) -> None:
    """Starts the command and ends it with SIGKILL once it has told so much."""
    words = [sys.executable, "-c", MORTAL, str(lines), *WORDS, "--from", str(source.file), "--to", str(target.file)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for _ in range(lines):
            assert running.stderr.readline()
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL


def test_copied_to_influxdb_and_back_scores_the_same_bytes_though_killed_on_the_way(
    filled: tuple[Embedded, list[object]], rules: Rules, influx: Influx, tmp_path: Path
) -> None:
    source, expected = filled
    server, back = OnServer(tmp_path / "server", influx), Embedded(tmp_path / "back")
    for begin, end in ((source, server), (server, back)):
        for lines in (2, 3):
            kill_after(begin, end, lines)
        done = copy(begin, end)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("done: ")
        assert "net_interface 2025-11-1" in done.stderr or "bucket" in done.stderr
        with end.open() as store:
            found = told_by(store, rules)
        assert without_revisions(found) == without_revisions(expected)
    assert found == expected, "where it came from the revisions are the same too"
    with source.open() as first, back.open() as last:
        moments = range(LATER + HOUR_MS, LATER + 4 * HOUR_MS, HOUR_MS)
        for as_of in moments:
            assert score_bytes(last, rules, SITE, as_of) == score_bytes(first, rules, SITE, as_of)
    again = copy(server, back)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "this copy is complete and the target may be used" in again.stderr


def test_kept_buckets_make_the_difference(filled: tuple[Embedded, list[object]], rules: Rules, tmp_path: Path) -> None:
    """Without what only kept buckets know the scores would be others: the test above would be blind."""
    source, expected = filled
    bare = Embedded(tmp_path / "bare")
    assert copy(source, bare).returncode == 0
    with bare.open() as store:
        assert told_by(store, rules)[0] == expected[0]
        for digit in "0123456789abcdef":
            store._open().connection.run(f"DELETE FROM kept_{digit}")  # type: ignore[attr-defined]
        assert told_by(store, rules)[0] != expected[0]


def test_dry_run_counts_and_writes_nothing(filled: tuple[Embedded, list[object]], tmp_path: Path) -> None:
    target = Embedded(tmp_path / "target")
    done = copy(filled[0], target, "--dry-run")
    counted = dict(line.split(" ") for line in done.stdout.splitlines())
    minutes = 2 * (HOURS * 60 - 11)
    assert (done.returncode, counted["host_cpu"], counted["filesystem"]) == (0, str(minutes), str(2 * minutes))
    assert (counted["batch"], counted["scorecard"]) == (str(2 * minutes), "4")
    assert not list((target.folder / "data").iterdir())


def test_source_that_another_process_holds_is_refused_in_one_sentence(
    filled: tuple[Embedded, list[object]], tmp_path: Path
) -> None:
    with filled[0].open():
        done = copy(filled[0], Embedded(tmp_path / "target"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"process {os.getpid()}" in done.stderr
    assert "holds the database file; stop it" in done.stderr


def test_full_target_says_so_and_goes_on_once_there_is_room(
    filled: tuple[Embedded, list[object]], rules: Rules, tmp_path: Path
) -> None:
    source, expected = filled
    target = Embedded(tmp_path / "target")
    disk, first, second = target.folder / "data", tmp_path / "first", tmp_path / "second"
    words = f"{' '.join(COMMAND)} --from {source.file} --to {target.file}"
    script = f"""mount -t tmpfs -o size=240k none {disk} || exit 9
{words} 2> {first}; echo $? >> {first}
mount -o remount,size=200m {disk} || exit 9
{words} 2> {second}; echo $? >> {second}
cp {disk}/infravitals.duckdb {tmp_path}/kept.duckdb"""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(["unshare", *as_root, "--mount", "sh", "-c", script], timeout=300, check=False)
    assert done.returncode == 0
    *_, said, status = first.read_text().splitlines()
    assert (status, "the disk is full" in said) == ("1", True), said
    assert second.read_text().endswith("\n0\n")
    with DuckDB(Config(path=f"{tmp_path}/kept.duckdb"), load()) as store:
        assert told_by(store, rules) == expected


@pytest.mark.parametrize(
    ("site", "to", "said"),
    [
        ("other", "target", "the two files name different sites: 'hospital' and 'other'"),
        ("hospital", "source", "source and target are the same store"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    site: str, to: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = {name: Embedded(tmp_path / name) for name in ("source", "target")}
    lines["target"].file.write_text(f"site: {site}\nbroker: {{host: 127.0.0.1}}\ndata_directory: data\n")
    status = main(["store", "copy", "--from", str(lines["source"].file), "--to", str(lines[to].file), "--lang", "en"])
    assert (status, said in capsys.readouterr().err) == (2, True)


def test_source_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = Embedded(tmp_path / "source"), Embedded(tmp_path / "target")
    status = main(["store", "copy", "--from", str(source.file), "--to", str(target.file), "--lang", "en"])
    assert (status, "there is no such database file" in capsys.readouterr().err) == (2, True)
    assert not list((source.folder / "data").iterdir())
