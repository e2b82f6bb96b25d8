"""From stored points to sentences: explain, diff, history, rules coverage and rules diff over the real embedded store."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from agent.language import choose, speaking
from agent.points import Point
from collector import rules_folder
from collector.answers import Difference, NoSuchRevision, answer_rules_difference, card_at
from collector.beside import embedded_place, remember_site
from collector.cli import main
from collector.compare import compare
from collector.coverage import Coverage, measure_coverage, running_sources, seen_signals
from collector.evaluate import Rules, evaluate, format_time, parse_time
from collector.explain import explain, find_explained
from collector.history import explain_revision, read_history, summarize
from collector.inquiry import Site
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules, memory_store, unsourced_criteria
from collector.score import Scorecard
from collector.server import score_at
from collector.site_folder import Attestation, Entry, Exemption, SiteFolder
from collector.snapshot import Commands
from collector.stores import AppliedBatch, Store

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
ZONE = ZoneInfo("Asia/Shanghai")
COMPLETENESS = "telemetry-completeness"
MANAGEMENT = "hospital.network-security.network-management"
_serial = iter(range(10**9))


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


def write_rounds(
    store: Store, asset: str, first: int, until: int, success: float = 1.0, source: str = "host_cpu"
) -> None:
    """Rounds of one source every ten minutes, from so many hours before AS_OF until so many."""
    tags = {"asset": asset, "source": source, "target": "local"}
    fields = {"is_success": success, "interval_seconds": 600.0}
    times = range(AS_OF - first * HOUR_MS, AS_OF - until * HOUR_MS, 600_000)
    points = [Point("source_round", tags, fields, time) for time in times]
    store.write([AppliedBatch("hospital", asset, "", -1, f"{next(_serial)}", AS_OF, AS_OF, points, 0, ())])


def site_of(*entries: Entry, **parts: object) -> Site:
    folder = SiteFolder(
        zone=ZONE,
        has_register=bool(entries),
        entries={"assets": {entry.id: entry for entry in entries}},
        digest=f"digest-{len(entries)}-{sorted(parts)}",
        **parts,  # type: ignore[arg-type]
    )
    return Site("hospital", ZONE, folder)


def attested(value: float, days_left: int) -> Attestation:
    return Attestation(
        criterion="ev-dr-location",
        value=value,
        is_not_applicable=False,
        author="wang",
        role="head of IT",
        reason="",
        document=None,
        since=AS_OF - 90 * DAY_MS,
        expires=AS_OF + days_left * DAY_MS,
        place="attestations.yaml:1",
    )


def words_of(rules: Rules, card: Scorecard, name: str) -> str:
    found = find_explained(card, name)
    assert found is not None
    return explain(rules, card, found, Commands("/opt/bin/infravitals", "--data-dir /srv/data"))


# -- explain


def test_explanation_of_a_criterion_leads_from_samples_to_points(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    write_rounds(store, "srv-2", 24, 12)
    text = words_of(rules, evaluate(store, rules, site_of(), AS_OF), COMPLETENESS)
    for words in (
        "telemetry-completeness · 99 % or more of the rounds due succeeded",
        "value: 75 % at worst earns 0, 100 % at best earns 100",
        "counts in hospital.network-security.network-management (Medical network management): weight 0.15, effective 0.15",
        "over 30d in buckets of 1h",
        "2 subjects, buckets expected 48, found 36, samples 216",
        "worst asset=srv-2 source=host_cpu target=local: 50 % - 100 % (12/24)",
        "missing asset=srv-2 source=host_cpu target=local: 12 buckets",
        "≥       99 % ->   100 ◀ at best",
        "none of these -> 0 ◀ at worst (counts)",
        "FROM points.source_round",
        "fix: Look at the sources and targets that fail",
    ):
        assert words in text, words


def test_explanation_of_a_node_shows_the_sum_the_caps_and_what_would_raise_it_most(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    card = evaluate(store, rules, site_of(), AS_OF)
    text = words_of(rules, card, "network-management")
    assert "0.15 x 100 = 15" in text and "together 15" in text
    assert "what would raise it most: managed-device-coverage (+25)" in text
    capped = words_of(rules, card, "hospital.data-availability.failover")
    assert "cap at 20: " in capped and "unknown, limits the left end only (no-second-copy)" in capped


def test_explanation_of_an_attested_criterion_names_who_and_until_when(store: Store, rules: Rules) -> None:
    valid, expired = (
        words_of(rules, evaluate(store, rules, site_of(attestations=(attested(3, days),)), AS_OF), "ev-dr-location")
        for days in (30, -1)
    )
    assert "attested by wang (head of IT)" in valid and "to 2026-04-29T16:00:00Z" in valid
    assert "the attestation has expired; renew it" in expired
    nobody = words_of(rules, evaluate(store, rules, site_of(), AS_OF), "ev-dr-location")
    assert "/opt/bin/infravitals attest add --data-dir /srv/data ev-dr-location" in nobody
    assert "/opt/bin/infravitals score --data-dir /srv/data --as-of 2026-03-30T16:00:00Z --format json" in nobody
    assert "attested value: 3 earns " in valid and "document: no document attached" in valid
    assert "at worst" not in valid


def test_a_value_is_marked_on_a_scale_that_is_a_line(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 6)
    write_rounds(store, "srv-1", 6, 0, success=0.0)
    line = msgspec.structs.replace(
        rules.book.scales["telemetry-completeness"], rungs=(), line=((0.0, 0.0), (0.5, 10.0), (1.0, 100.0))
    )
    book = dataclasses.replace(rules.book, scales={**rules.book.scales, "telemetry-completeness": line})
    straight = dataclasses.replace(rules, book=book)
    text = words_of(straight, evaluate(store, straight, site_of(), AS_OF), COMPLETENESS)
    assert "  now: 75 % -> 55" in text.splitlines()


def test_explanation_names_whom_an_exemption_took_out(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    write_rounds(store, "srv-2", 24, 12)
    exemption = Exemption(COMPLETENESS, "asset", "srv-2", "decommissioned", "wang", 0, AS_OF + DAY_MS)
    text = words_of(rules, evaluate(store, rules, site_of(exemptions=(exemption,)), AS_OF), COMPLETENESS)
    assert "exempt: srv-2 host_cpu local" in text and "value: 100 %" in text


def test_explanation_is_in_the_reader_s_language_throughout(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    card = evaluate(store, rules, site_of(), AS_OF)
    with speaking("zh"):
        for name in (COMPLETENESS, "network-management", "ev-dr-plan", "power-ride-through"):
            text = words_of(rules, card, name)
            assert not [word for word in ("subjects", "missing", "weight", "bucket", "points") if f" {word} " in text]


def test_subjects_that_are_taken_together_are_named_one_by_one(store: Store, rules: Rules) -> None:
    entries = [
        Entry(name, "assets", {"criticality": ("critical",), "role": ("database",)}) for name in ("db-1", "db-2")
    ]
    interval_ms = int(rules.catalogue.measurements["replication"].interval_seconds * 1000)
    for asset, value in (("db-1", 1.0), ("db-2", 0.0)):
        times = range(AS_OF - 8 * DAY_MS, AS_OF, interval_ms)
        points = [Point("replication", {"asset": asset, "pair": "p"}, {"is_in_sync": value}, time) for time in times]
        store.write([AppliedBatch("hospital", asset, "", -1, f"{next(_serial)}", AS_OF, AS_OF, points, 0, ())])
    text = words_of(rules, evaluate(store, rules, site_of(*entries), AS_OF), "replication-in-sync-ratio")
    assert "result: 0 % at worst, 0 % at best" in text
    assert "worst asset=db-2 pair=p: 0 % (2304/2304)" in text and "worst asset=db-1 pair=p: 100 %" in text


def test_every_node_and_criterion_can_be_explained(store: Store, rules: Rules) -> None:
    card = evaluate(store, rules, site_of(), AS_OF)
    for node in card.nodes:
        assert node.id in words_of(rules, card, node.id)
        for criterion in node.criteria:
            assert words_of(rules, card, criterion.id).startswith(criterion.id)
    assert find_explained(card, "no-such-thing") is None


# -- what moved, and why


def moved(before: Scorecard, after: Scorecard) -> dict[str, tuple[str, str]]:
    return {one.id: (one.cause, one.sentence.en) for one in compare(before, after)}


def test_data_that_fell_is_named_by_its_subject(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    write_rounds(store, "srv-2", 24, 12)
    write_rounds(store, "srv-2", 12, 0, success=0.0)
    before, after = (evaluate(store, rules, site_of(), moment) for moment in (AS_OF - 12 * HOUR_MS, AS_OF))
    found = moved(before, after)
    assert found[COMPLETENESS] == ("data", "100 - 100 -> 0 - 0: srv-2 host_cpu local 1 -> 0.5")
    assert found[MANAGEMENT][0] == "below" and "by telemetry-completeness" in found[MANAGEMENT][1]


def test_a_sensor_that_died_shows_as_missing_buckets(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 6)
    before, after = (evaluate(store, rules, site_of(), moment) for moment in (AS_OF - 6 * HOUR_MS, AS_OF))
    cause, sentence = moved(before, after)[COMPLETENESS]
    assert cause == "data" and "6 more buckets are missing" in sentence


def test_nothing_moved_between_a_scorecard_and_itself(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    card = evaluate(store, rules, site_of(), AS_OF)
    assert compare(card, card) == []


def test_an_attestation_and_a_cap_that_turned_are_named(store: Store, rules: Rules) -> None:
    none, there, gone = (
        evaluate(store, rules, site_of(attestations=said), AS_OF)
        for said in ((), (attested(4, 30),), (attested(4, -1),))
    )
    assert moved(none, there)["ev-dr-location"] == ("site_folder", "0 - 100 -> 100 - 100: wang attested it")
    assert moved(there, gone)["ev-dr-location"] == ("site_folder", "100 - 100 -> 0 - 100: the attestation expired")


def test_the_register_is_named_when_it_changed_who_is_asked(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    small, large = (
        evaluate(store, rules, site_of(*(Entry(name, "assets", {}) for name in names)), AS_OF)
        for names in (["srv-1"], ["srv-1", "srv-2"])
    )
    cause, sentence = moved(small, large)[COMPLETENESS]
    assert (cause, sentence) == ("site_folder", "100 - 100 -> 0 - 100: by the register the subjects went from 1 to 2")


def test_a_changed_rule_is_named_and_who_loses_by_it_is_said(store: Store, rules: Rules, tmp_path: Path) -> None:
    write_rounds(store, "srv-1", 200, 0)
    write_rounds(store, "srv-1", 1, 0, success=0.0)
    shutil.copytree(rules_folder.default_folder(), tmp_path / "new")
    scale = tmp_path / "new" / "scales" / "telemetry-completeness.yaml"
    scale.write_text(scale.read_text("utf-8").replace("at: 0.99,", "at: 0.999,"), "utf-8")
    wanted = {"old": None, "new": str(tmp_path / "new"), "as_of": AS_OF}
    found = msgspec.json.decode(answer_rules_difference(store, rules, site_of(), wanted), type=Difference)
    changes = {one.id: (one.cause, one.low_before, one.low_after) for one in found.moved}
    assert changes[COMPLETENESS] == ("rule", 100, 85)
    assert set(changes) == {COMPLETENESS, MANAGEMENT, "hospital.network-security", "hospital"}


# -- what is lacking


def test_coverage_tells_what_is_seen_what_could_be_and_what_has_no_source(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    found = coverage_of(store, rules, site_of())
    rows = {row.id: row for row in found.criteria}
    assert [(one.signal, one.state) for one in rows[COMPLETENESS].signals] == [("source_round.is_success", "seen")]
    states = {one.state for row in found.criteria for one in row.signals}
    assert states == {"seen", "not_seen", "no_source"}
    assert found.following and COMPLETENESS not in found.following
    assert all(one.state != "no_source" for name in found.following for one in rows[name].signals)
    assert {row.kind for row in found.criteria} == {"measured"}, "documents weigh nothing and are listed elsewhere"
    assert len(found.criteria) == 65


def coverage_of(store: Store, rules: Rules, site: Site) -> Coverage:
    card = evaluate(store, rules, site, AS_OF)
    seen, running = seen_signals(store, rules, site, AS_OF), running_sources(store, site, AS_OF)
    return measure_coverage(rules, card, seen, running, site.folder.has_register)


def todos(store: Store, rules: Rules, site: Site) -> dict[str, str]:
    return {row.id: str(row.todo) for row in coverage_of(store, rules, site).criteria}


def test_advice_is_to_switch_on_a_source_only_while_it_runs_nowhere(store: Store, rules: Rules) -> None:
    name, server = "backbone-bandwidth-class", Entry("srv-1", "assets", {"role": ("server",)})
    write_rounds(store, "srv-1", 24, 0)
    assert todos(store, rules, site_of(server))[name].startswith("switch on host_network")
    write_rounds(store, "srv-1", 24, 0, source="host_network")
    assert todos(store, rules, site_of(server))[name].startswith(
        "running, but has seen no such object: host_network; enrol the devices, or register them"
    )


def test_what_has_no_source_yet_is_said_before_any_source_is_advised(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 0)
    found = coverage_of(store, rules, site_of())
    rows = {row.id: row for row in found.criteria}
    assert str(rows["power-ride-through"].todo) == (
        "no source yet: power_supply.feeds_up_count, power_supply.is_generator_available"
    )
    impossible = [row.id for row in found.criteria if not row.is_possible]
    assert impossible == [row.id for row in found.criteria if str(row.todo).startswith("no source yet")]
    assert sorted(impossible) == unsourced_criteria(rules), "what `serve` counts"
    assert len(impossible) < len(load_rules().unsourced), "a criterion may ask for several"


def test_advice_is_to_write_a_register_where_only_that_says_who_is_asked(store: Store, rules: Rules) -> None:
    sources = {one for row in coverage_of(store, rules, site_of()).criteria for s in row.signals for one in s.sources}
    for source in sorted(sources):
        write_rounds(store, "srv-1", 2, 0, source=source)
    without, registered = todos(store, rules, site_of()), todos(store, rules, site_of(Entry("srv-1", "assets", {})))
    asked = {name for name, todo in without.items() if todo.startswith("write a register first")}
    assert asked and COMPLETENESS not in asked
    assert not [todo for todo in registered.values() if "write a register" in todo]
    assert not [todo for todo in [*without.values(), *registered.values()] if todo.startswith("switch on")]


# -- stored scorecards


def test_history_lists_what_was_stored_with_the_reason_of_a_revision(store: Store, rules: Rules) -> None:
    write_rounds(store, "srv-1", 24, 12)
    first = score_at(store, rules, site_of(), AS_OF)
    store.save_scorecard("hospital", AS_OF, first.identity(), msgspec.json.encode(first), AS_OF, "", summarize(first))
    write_rounds(store, "srv-1", 12, 0)
    second = score_at(store, rules, site_of(), AS_OF)
    why = explain_revision(first, second)
    store.save_scorecard(
        "hospital", AS_OF, second.identity(), msgspec.json.encode(second), AS_OF, why, summarize(second)
    )
    rows = read_history(store, "hospital", 0)
    assert [(row.revision, row.why) for row in rows] == [(1, ""), (2, "后来又到了数据 / more data came in")]
    lows = [row.summary.nodes[MANAGEMENT][0] for row in rows if row.summary]
    assert lows == [0, 15]
    assert card_at(store, rules, site_of(), AS_OF).revision == 2
    assert card_at(store, rules, site_of(), AS_OF, 1).total == first.total
    with pytest.raises(NoSuchRevision, match="there is no revision 9 of 2026-03-30T16:00:00Z"):
        card_at(store, rules, site_of(), AS_OF, 9)


def test_each_cause_of_a_revision_is_named(store: Store, rules: Rules) -> None:
    card = evaluate(store, rules, site_of(), AS_OF)
    for name, words in (("rules", "the rules were changed"), ("site_folder", "the site folder was changed")):
        other = replace_digest(card, name)
        assert explain_revision(card, other).endswith(words)
    assert explain_revision(card, card).endswith("another version of the program")


def replace_digest(card: Scorecard, name: str) -> Scorecard:
    return msgspec.structs.replace(card, digests=msgspec.structs.replace(card.digests, **{name: "other"}))


# -- the commands on a data directory


@pytest.fixture
def data(tmp_path: Path, rules: Rules) -> Path:
    """A data directory as `up` leaves it behind, with a day of one server."""
    place = embedded_place(tmp_path / "data", "hospital")
    remember_site(place)
    with place.store() as opened:
        write_rounds(opened, "srv-1", 24, 0)
        for moment in (AS_OF - 12 * HOUR_MS, AS_OF):
            card = evaluate(opened, rules, site_of(), moment)
            body = msgspec.json.encode(card)
            opened.save_scorecard("hospital", moment, card.identity(), body, AS_OF, "", summarize(card))
    return tmp_path / "data"


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def command(*words: str) -> tuple[int, str, str]:
        status = main(["--lang", "en", *words, "--data-dir", str(data)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def test_commands_print_what_they_promise(run: Callable[..., tuple[int, str, str]]) -> None:
    moment = format_time(AS_OF)
    status, out, _ = run("explain", COMPLETENESS, "--as-of", moment)
    assert status == 0 and "revision 1" in out and "check it yourself" in out
    status, again, _ = run("score", "--as-of", moment, "--revision", "1", "--format", "json")
    assert status == 0 and json.loads(again)["revision"] == 1
    status, out, _ = run("explain", "network-management", "--as-of", moment, "--format", "json")
    assert json.loads(out)["low"] == 15
    status, out, _ = run("diff", format_time(AS_OF - 12 * HOUR_MS), moment)
    assert (status, out.splitlines()[1]) == (0, "no score moved.")
    status, out, _ = run("history", "--since", "2026-03-01T00:00:00Z")
    assert status == 0 and len(out.splitlines()) == 3
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "as of" and "data availability" in head and "network security" in head
    assert head.index("whole index") + len("whole index") == rows[0].rindex(" - ") + len(" - 100.00")
    status, out, _ = run("rules", "coverage", "--as-of", moment)
    assert status == 0 and "to do next: " in out.splitlines()[-1]


def test_a_name_that_is_none_is_answered_with_the_nearest(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = run("explain", "telemetry-completness", "--as-of", format_time(AS_OF))
    assert (status, out) == (2, "")
    assert err == "there is no criterion or indicator 'telemetry-completness'; did you mean 'telemetry-completeness'?\n"


def test_a_revision_that_is_not_stored_is_one_sentence(run: Callable[..., tuple[int, str, str]]) -> None:
    status, _, err = run("explain", COMPLETENESS, "--as-of", format_time(AS_OF), "--revision", "7")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("there is no revision 7 of 2026-03-30T16:00:00Z; infravitals history lists")


def test_rules_with_a_mistake_are_refused_with_file_and_line(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    shutil.copytree(rules_folder.default_folder(), tmp_path / "new")
    index = tmp_path / "new" / "indexes" / "dei_2021.yaml"
    index.write_text(index.read_text("utf-8").replace("weight: 0.35\n", "weight: 0.34\n", 1), "utf-8")
    status, out, err = run("rules", "diff", str(rules_folder.default_folder()), str(tmp_path / "new"))
    assert (status, out) == (2, "")
    assert "dei_2021.yaml:" in err and "the weights add up to 0.99, not to 1" in err
