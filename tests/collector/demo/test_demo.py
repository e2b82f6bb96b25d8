"""The made-up hospital: complete, the same however it is cut, played through the real line, and never taken for a real one."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import language
from agent.documents import read_document
from agent.wire import Address, Batch, decode_batch, encode_batch
from collector.beside import embedded_place, read_site
from collector.check import Checker
from collector.cli import main
from collector.demo.curves import DAY_MS, HOUR_MS
from collector.demo.hospital import things
from collector.demo.play import Player, pieces
from collector.demo.series import Signals
from collector.demo.story import Story
from collector.evaluate import evaluate, format_time
from collector.register import Registered
from collector.ruleset import load_rules
from collector.score import Scorecard
from collector.simulated import PREFIX, SITE, is_simulated, notice
from collector.site_folder import SiteFolder
from collector.stores import Store

END = 1_774_886_400_000 + 5 * HOUR_MS
"""2026-03-31, some hours after midnight in China."""
LONGER = {
    "critical-service-availability", "network-availability", "telemed-line-availability",
    "auto-recovery-rate", "fault-recovery-time-p95", "restore-test-recency",
}  # fmt: skip
"""Criteria whose windows want more than the days that this test plays."""
STORY = Story(END)
SERIES = list(Signals(STORY).series())


@pytest.fixture(autouse=True)
def _usual_language() -> Iterator[None]:
    """A command that was called in here leaves its language behind; those in processes of their own speak the usual one."""
    yield
    language.choose(None)


def test_it_has_what_the_name_says() -> None:
    kinds = Counter(thing.said.get("class") for thing in things() if thing.section == "assets")
    assert kinds == {"server": 40, "network": 30, "firewall": 2, "storage": 2, "hypervisor": 12, "ups": 2}
    names = [thing.id for thing in things()]
    assert len(names) == len(set(names))


def test_every_asset_reports_and_every_reporter_is_one() -> None:
    assets = {thing.id: thing for thing in things() if thing.section == "assets"}
    assert {one.tags["asset"] for one in SERIES} == set(assets)
    assert all(assets[one.tags["asset"]].reporter == one.agent for one in SERIES)


def test_nothing_of_it_fails_or_is_silent_on_the_pages_of_now() -> None:
    rounds = [one for one in SERIES if one.measurement == "source_round"]
    assert {"is_success", "points_count"} <= set.intersection(*(set(one.fields) for one in rounds))
    for one in SERIES:
        if one.measurement == "service_probe":
            assert len(one.points(END - HOUR_MS, END + HOUR_MS)) == 120, (
                "the page of continuity calls 5 min without one silence"
            )


@pytest.mark.parametrize("words", [("--port", "99999"), ("--port", "http"), ("--days", "9"), ("--days", "366")])
def test_a_port_or_a_year_that_cannot_be_is_told_before_anything_is_made(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--data-dir", str(tmp_path / "demo"), *words, "--lang", "en"])
    assert ended.value.code == 2
    assert f"found '{words[1]}'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@settings(max_examples=30, deadline=None)
@given(
    number=st.integers(0, len(SERIES) - 1),
    day=st.integers(1, 364),
    minutes=st.lists(st.integers(0, 2 * 1440), min_size=1, max_size=4, unique=True),
)
def test_a_series_is_the_same_however_time_is_cut(number: int, day: int, minutes: list[int]) -> None:
    one, start = SERIES[number], STORY.at(day)
    cuts = [start, *(start + cut * 60_000 for cut in sorted(minutes)), start + 2 * DAY_MS]
    whole = one.points(cuts[0], cuts[-1])
    parts = [point for since, until in itertools.pairwise(cuts) for point in one.points(since, until)]
    assert parts == whole
    assert len({point.timestamp for point in whole}) == len(whole)


def test_the_collector_takes_every_point_of_a_bad_day_and_of_every_event() -> None:
    player, checker = Player(STORY), Checker(load_rules().rules.catalogue, Registered(SITE, SiteFolder()))
    refused: Counter[str] = Counter()
    taken = 0
    for start, end in ((STORY.at(73), STORY.at(72)), (STORY.at(365), STORY.at(364))):
        for agent, points in player.points(start, end).items():
            batch = Batch(points, boot="b", seq=1, made_at=end, sent_at=end, points=len(points))
            checked = checker.check(Address(SITE, agent), decode_batch(encode_batch(batch)), end)
            refused.update(
                map(str, checked.counts.elements() if isinstance(checked.counts, Counter) else checked.counts)
            )
            taken += len(checked.points)
    assert (dict(refused), taken > 10_000) == ({}, True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 days of it, made by the command itself in a process of its own."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    command = [sys.executable, "-m", "collector.cli", "demo", "--once", "--days", "40", "--data-dir", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert (ended.returncode, notice() in ended.stderr) == (0, True), ended.stderr
    return folder


@pytest.fixture(scope="module")
def store(made: Path) -> Iterator[Store]:
    with embedded_place(made, None).store() as opened:
        yield opened


def test_nothing_was_set_aside_or_lost_on_the_way(store: Store) -> None:
    totals = store.totals()
    assert {(one.set_aside, one.dropped, tuple(one.holes)) for one in totals} == {(0, 0, ())}
    assert len(totals) == len(Player(STORY).agents)


def test_its_books_balance(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "--data-dir", str(made), "--format", "json"]) == 0
    ledger = json.loads(capsys.readouterr().out)
    assert ledger["is_balanced"] and len(ledger["agents"]) == len(Player(STORY).agents)
    assert all(one["points"]["made"] == one["points"]["applied"] > 0 for one in ledger["agents"])


def test_every_row_says_that_it_is_simulated(store: Store) -> None:
    sites = {
        row.tags["site"] for name in ("service_probe", "replication", "isolation_cell") for row in store.latest(name, 0)
    }
    assert sites == {SITE}
    assert is_simulated(SITE)
    assert {row.tags["source"] for row in store.latest("source_round", 0)} == {"simulated"}


def test_most_measured_criteria_are_scored_and_the_rest_wait_for_a_longer_history(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--data-dir", str(made), "--format", "json"]) == 0
    card = json.loads(capsys.readouterr().out)
    criteria = {
        one["id"]: one for node in card["nodes"] for one in node.get("criteria", []) if one["kind"] == "measured"
    }
    unscored = {name for name, one in criteria.items() if one["status"] != "scored"}
    assert unscored == LONGER
    assert 40 < next(node for node in card["nodes"] if node["id"] == "hospital.data-availability")["low"] < 95


def test_what_is_scored_is_not_told_to_switch_on_what_measured_it(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The drill of a year's window may be older than the week in which a signal is looked for."""
    assert main(["rules", "coverage", "--lang", "en", "--data-dir", str(made), "--format", "json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["criteria"]}
    assert (rows["achieved-rto"]["status"], rows["achieved-rto"]["todo"]["en"]) == ("scored", "mend the subjects shown")
    assert {signal["state"] for signal in rows["achieved-rto"]["signals"]} == {"seen"}
    advised = {name: row["todo"]["en"] for name, row in rows.items() if row["status"] == "scored" and row["todo"]}
    assert [name for name, todo in advised.items() if todo.startswith(("switch on", "no source"))] == []


def test_its_scores_are_headed_by_the_notice(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--data-dir", str(made)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == notice()


def test_its_scorecard_says_that_it_is_simulated_and_is_whole_without_that(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "--data-dir", str(made), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told)[:3] == ["site", "simulated", "as_of"] and told["simulated"] is True
    own = msgspec.convert({key: value for key, value in told.items() if key != "simulated"}, Scorecard)
    assert own.identity() == msgspec.convert(told, Scorecard).identity()


def test_scorecards_of_its_past_are_there(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "--data-dir", str(made), "--format", "json"]) == 0
    story = Story(json.loads((made / "demo.json").read_bytes())["end"])
    due = [format_time(piece.end) for piece in pieces(story, 40) if piece.is_scored]
    assert [card["as_of"] for card in json.loads(capsys.readouterr().out)] == due
    assert len(due) >= 3, "of the last midnights; and the last full hour's where one has passed since"


def test_what_came_while_a_day_was_scored_changed_no_byte_of_it(made: Path, store: Store) -> None:
    """The next days are taken in beside the scoring: scored again, with all of them there, it is the same."""
    rules = load_rules().rules
    place, _ = read_site(embedded_place(made, None)._replace(site_folder=made / "site"), rules)
    stored = store.scorecards(place.site.id, 0)
    assert [evaluate(store, rules, place.site, card.as_of).identity() for card in stored] == [
        card.digest for card in stored
    ]


def test_once_made_it_is_not_made_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "demo.json").read_bytes()
    assert main(["demo", "--once", "--data-dir", str(made)]) == 0
    assert (made / "demo.json").read_bytes() == before
    assert notice() in capsys.readouterr().err


def test_a_directory_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    assert main(["demo", "--once", "--data-dir", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_real_site_may_not_take_its_name(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["up", "--once", "--site", f"{PREFIX}mine", "--data-dir", str(tmp_path)])
    assert ended.value.code == 2


def test_a_real_collector_is_not_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "collector.yaml"
    config.write_text("site: first-hospital\ndata_directory: data\nbroker: {host: 127.0.0.1}\n")
    assert main(["demo", "--once", "-c", str(config)]) == 2
    assert "first-hospital" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_its_site_folder_passes_its_own_check(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["register", "check", "--site-folder", str(made / "site"), "--data-dir", str(made)]) == 0
    register = read_document(made / "site" / "register.yaml").value
    assert len(register["assets"]) == 88
