"""The shipped rules against what they must be, and what the loader says of rules that a person wrote wrongly."""

import functools
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unprivileged import open_folder, run_unprivileged

from agent import catalogue
from agent.documents import FileMistakes
from agent.language import choose
from collector import plan_check, rulebook, rules_folder
from collector.cli import main

CRITERIA = (
    ("auto-recovery-rate", "fault-self-healing", 0.25, "C1 DC"),
    ("fault-recovery-time-p95", "fault-self-healing", 0.25, "C1 C2 DC"),
    ("critical-service-availability", "fault-self-healing", 0.2, "C2"),
    ("redundant-component-health", "fault-self-healing", 0.15, "C1 DC"),
    ("power-ride-through", "fault-self-healing", 0.15, "C1 GK"),
    ("virtualized-workload-ratio", "virtualization", 0.25, "C1 DC"),
    ("virtual-ha-coverage", "virtualization", 0.25, "C1 C2 DC"),
    ("virtual-failover-headroom", "virtualization", 0.2, "C1 C2 DC"),
    ("storage-pool-ratio", "virtualization", 0.15, "C1 DC"),
    ("virtual-platform-managed-ratio", "virtualization", 0.15, "C1 DC"),
    ("dual-active-system-coverage", "dual-active-backup", 0.25, "C1 DC"),
    ("replication-in-sync-ratio", "dual-active-backup", 0.2, "C1 DC"),
    ("replication-lag-p99", "dual-active-backup", 0.25, "C1 C2"),
    ("inter-site-latency", "dual-active-backup", 0.1, "C2 DC"),
    ("inter-site-link-redundancy", "dual-active-backup", 0.1, "C1 DC"),
    ("arbiter-health", "dual-active-backup", 0.1, "C2 DC"),
    ("storage-tiers-in-use", "tiered-storage", 0.2, "C1 DC"),
    ("cold-data-offload-ratio", "tiered-storage", 0.2, "C1 DC"),
    ("tier-migration-success", "tiered-storage", 0.15, "C1 DC"),
    ("record-retrieval-time-p95", "tiered-storage", 0.2, "C1"),
    ("storage-headroom", "tiered-storage", 0.15, "C1 C2 DC"),
    ("retention-policy-conformity", "tiered-storage", 0.1, "C1 C2 DC"),
    ("achieved-rto", "failover", 0.25, "C1 C2 DC"),
    ("achieved-rpo", "failover", 0.2, "C1 C2 DC"),
    ("backup-currency", "failover", 0.2, "C1 DC"),
    ("restore-test-recency", "failover", 0.15, "C1 DC"),
    ("failover-drill-recency", "failover", 0.1, "C1 DC"),
    ("dr-site-readiness", "failover", 0.1, "C1 DC"),
    ("core-link-peak-util", "network-capacity", 0.2, "C1 C2 DC"),
    ("network-device-peak-load", "network-capacity", 0.15, "C1 C2 GK DC"),
    ("backbone-bandwidth-class", "network-capacity", 0.15, "C1 DC"),
    ("network-path-redundancy", "network-capacity", 0.2, "C1 DC"),
    ("network-availability", "network-capacity", 0.2, "C2"),
    ("link-quality", "network-capacity", 0.1, "C2 GK DC"),
    ("telemed-committed-bandwidth", "telemedicine-line", 0.2, "C2"),
    ("telemed-delay-p95", "telemedicine-line", 0.2, "C2"),
    ("telemed-loss", "telemedicine-line", 0.2, "C2 GK DC"),
    ("telemed-jitter", "telemedicine-line", 0.1, "C2 GK DC"),
    ("telemed-line-availability", "telemedicine-line", 0.15, "C2"),
    ("telemed-route-diversity", "telemedicine-line", 0.15, "GK DC"),
    ("managed-device-coverage", "network-management", 0.25, "C1 DC"),
    ("telemetry-completeness", "network-management", 0.15, "C1 DC"),
    ("config-baseline-coverage", "network-management", 0.15, "C1 DC"),
    ("alarm-handling-time", "network-management", 0.15, "C1 DC"),
    ("log-retention-days", "network-management", 0.15, "C1 DC"),
    ("secure-management-ratio", "network-management", 0.15, "C1 DC"),
    ("newtech-inventory-coverage", "frontier-protection", 0.2, "C1 C2 DC"),
    ("iot-authenticated-access-ratio", "frontier-protection", 0.25, "C1 DC"),
    ("iot-segmentation-ratio", "frontier-protection", 0.2, "C1 C2 DC"),
    ("rogue-wireless-control", "frontier-protection", 0.15, "C1 DC"),
    ("mobile-terminal-mdm-coverage", "frontier-protection", 0.1, "C1 DC"),
    ("virtual-traffic-visibility", "frontier-protection", 0.1, "C1 DC"),
    ("zone-isolation-proven", "network-isolation", 0.25, "C1 DC"),
    ("controlled-boundary-flow-ratio", "network-isolation", 0.1, "C1 DC"),
    ("isolation-strength-live", "network-isolation", 0.15, "C1"),
    ("default-deny-ratio", "network-isolation", 0.15, "C1 DC"),
    ("stale-rule-ratio", "network-isolation", 0.05, "C1 DC"),
    ("illegal-connection-events", "network-isolation", 0.15, "C1 DC"),
    ("exposed-service-count", "network-isolation", 0.15, "C1 DC"),
    ("endpoint-protection-coverage", "leak-and-ransomware-protection", 0.2, "C1 DC"),
    ("signature-freshness", "leak-and-ransomware-protection", 0.1, "C1 DC"),
    ("threat-detection-tier", "leak-and-ransomware-protection", 0.15, "C1"),
    ("isolated-copy-age", "leak-and-ransomware-protection", 0.25, "C1 C2 DC"),
    ("critical-vuln-age", "leak-and-ransomware-protection", 0.15, "C1 GK DC"),
    ("egress-dlp-coverage", "leak-and-ransomware-protection", 0.15, "C1 DC"),
)
"""id, indicator, weight inside the indicator: fixed for good. And how sure its thresholds are, all of them, by SURENESS."""

SURENESS = {"C1": "confirmed", "C2": "secondary", "GK": "general-knowledge", "DC": "own-judgement"}


@functools.cache
def shipped() -> rulebook.Rulebook:
    return rules_folder.load()[0]


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


def test_all_65_criteria_stand_in_their_indicator_with_their_weight(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lang", "en", "rules", "list", "--format", "json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["kind"] == "measured"]
    found = [(row["id"], row["indicator"], row["weight"], set(row["confidence"])) for row in rows]
    wanted = [
        (name, indicator, weight, {SURENESS[sure] for sure in how.split()}) for name, indicator, weight, how in CRITERIA
    ]
    assert len(CRITERIA) == 65
    assert sorted(found, key=lambda one: one[0]) == sorted(wanted, key=lambda one: one[0])


def test_every_criterion_counts_or_is_a_document_of_the_indicator_that_it_stands_in() -> None:
    book, _ = rules_folder.load()
    named = {
        name: place.node.id
        for place in book.places()
        for name in (*(item.id for item in place.node.criteria), *place.node.documents)
    }
    assert named == dict(book.indicators)


def test_the_index_has_54_leaves_and_76_nodes_on_three_levels() -> None:
    places = list(rules_folder.load()[0].places())
    assert Counter(place.level for place in places) == {1: 4, 2: 18, 3: 54}
    assert sum(not place.node.children for place in places) == 54


def test_weights_add_up_to_one_below_every_node() -> None:
    book, _ = rules_folder.load()
    groups = [[node.weight for node in book.index.tree]]
    groups += [[child.weight for child in place.node.children] for place in book.places() if place.node.children]
    groups += [[item.weight for item in place.node.criteria] for place in book.places() if place.node.criteria]
    assert len(groups) == 1 + 4 + 18 + 54
    assert [round(sum(group), 9) for group in groups] == [1.0] * len(groups)


def test_shipped_rules_ask_only_for_signals_that_the_catalogue_has() -> None:
    book, documents = rules_folder.load()
    mistakes, _ = plan_check.check(book, documents, catalogue.load())
    assert mistakes == []


def test_every_measured_criterion_asks() -> None:
    book, _ = rules_folder.load()
    assert [name for name, found in book.criteria.items() if found.kind == "measured" and not found.questions()] == []


def test_every_scale_and_every_source_is_used() -> None:
    book, _ = rules_folder.load()
    assert set(book.scales) == {criterion.scale for criterion in book.criteria.values()}
    assert set(book.sources) == {basis.source for basis in shipped_bases()} | {book.index.source}


def shipped_bases() -> list[rulebook.Basis]:
    book, _ = rules_folder.load()
    bases = [basis for criterion in book.criteria.values() for basis in criterion.basis]
    bases += [basis for cap in book.index.caps for basis in cap.basis]
    bases += [basis for scale in book.scales.values() for basis in scale.basis]
    return bases + [basis for scale in book.scales.values() for rung in scale.rungs for basis in rung.basis]


def test_clauses_are_numbers_that_read_the_same_in_every_language() -> None:
    clauses = [basis.clause for basis in shipped_bases() if basis.clause]
    assert len(clauses) > 100
    number = r"[0-9]+(\.[0-9]+)*( \([0-9]\))?( [a-z](-[a-z])?)?( L[0-9](-L[0-9])?(, L[0-9])*)?"
    assert [clause for clause in clauses if not re.fullmatch(f"{number}(, {number})*", clause)] == []


def test_notes_are_chinese_in_chinese_and_english_in_english() -> None:
    notes = [basis.note for basis in shipped_bases() if basis.note]
    assert len(notes) > 100
    latin = {word for note in notes for word in re.findall("[A-Za-z]{3,}", note.zh)}
    assert latin == {"Tier", "III", "SNMPv"}, "names alone stay as they are"
    assert [note.en for note in notes if re.search("[^\x00-\x7f]", note.en)] == []


@pytest.mark.parametrize(
    ("scale", "rungs"),
    [
        ("coverage", [(1, 100), (0.95, 90), (0.8, 70), (0.5, 40), (0.2, 15)]),
        ("availability", [(0.9999, 100), (0.99982, 90), (0.999, 75), (0.99741, 60), (0.99671, 50), (0.99, 30)]),
        ("recovery-time", [(60, 100), (900, 90), (7200, 75), (14400, 60), (86400, 35), (172800, 15)]),
        ("data-loss", [(0, 100), (900, 90), (1800, 85), (21600, 65), (86400, 45), (604800, 15)]),
        ("utilisation", [(0.5, 100), (0.7, 85), (0.8, 60), (0.9, 25)]),
        ("test-recency", [(92 * 86400, 100), (183 * 86400, 70), (365 * 86400, 50)]),
        ("auto-recovery-rate", [(0.95, 100), (0.8, 80), (0.5, 50), (0.2, 20)]),
        ("power-ride-through", [(4, 100), (3, 80), (2, 55), (1, 30)]),
        ("virtualized-workload-ratio", [(0.9, 100), (0.8, 85), (0.5, 55), (0.2, 25)]),
        ("virtual-failover-headroom", [(1, 100), (0.99, 85), (0.95, 60), (0.8, 30)]),
        ("storage-pool-ratio", [(0.9, 100), (0.8, 85), (0.5, 55), (0.002, 25), (0.001, 15)]),
        ("replication-in-sync-ratio", [(0.9999, 100), (0.999, 85), (0.99, 60), (0.95, 30)]),
        ("inter-site-latency", [(0.001, 100), (0.005, 90), (0.01, 50), (0.03, 20)]),
        ("inter-site-link-redundancy", [(2, 100), (1, 40)]),
        ("arbiter-health", [(0.999, 100), (0.99, 70), (0.95, 40)]),
        ("storage-tiers-in-use", [(4, 100), (3, 75), (2, 50), (1, 15)]),
        ("cold-data-offload-ratio", [(0.9, 100), (0.8, 85), (0.5, 50), (0.2, 20)]),
        ("tier-migration-success", [(0.995, 100), (0.98, 80), (0.95, 50), (0.8, 20)]),
        ("record-retrieval-time-p95", [(1, 100), (3, 80), (5, 60), (10, 30)]),
        ("storage-headroom", [(3, 100), (2, 75), (1, 35)]),
        ("backup-currency", [(4, 100), (3, 65), (2, 35), (1, 10)]),
        ("failover-drill-recency", [(183 * 86400, 100), (365 * 86400, 85), (730 * 86400, 30)]),
        ("backbone-bandwidth-class", [(1e10, 100), (1e9, 70)]),
        ("link-quality", [(0.0001, 100), (0.001, 85), (0.01, 50), (0.03, 20)]),
        ("telemed-committed-bandwidth", [(1e9, 100), (1e8, 85), (2e7, 65), (1e7, 40)]),
        ("telemed-delay-p95", [(0.1, 100), (0.15, 85), (0.4, 40)]),
        ("telemed-loss", [(0.001, 100), (0.01, 70), (0.03, 25)]),
        ("telemed-jitter", [(0.03, 100), (0.05, 75), (0.1, 30)]),
        ("telemed-route-diversity", [(3, 100), (2, 60), (1, 35)]),
        ("telemetry-completeness", [(0.99, 100), (0.97, 85), (0.9, 60), (0.8, 30)]),
        ("alarm-handling-time", [(300, 100), (900, 80), (3600, 45), (14400, 15)]),
        ("log-retention-days", [(180 * 86400, 100), (90 * 86400, 45), (30 * 86400, 20)]),
        ("rogue-wireless-control", [(3, 100), (2, 75), (1, 45)]),
        ("zone-isolation-proven", [(1, 100), (0.99, 70), (0.95, 40)]),
        ("controlled-boundary-flow-ratio", [(1, 100), (0.999, 80), (0.99, 40)]),
        ("isolation-strength-live", [(4, 100), (3, 80), (2, 60), (1, 25)]),
        ("stale-rule-ratio", [(0.02, 100), (0.05, 80), (0.15, 45), (0.3, 20)]),
        ("illegal-connection-events", [(0, 100), (1, 75), (5, 40), (1e5, 10)]),
        ("exposed-service-count", [(0, 100), (1, 40)]),
        ("threat-detection-tier", [(3, 100), (2, 75), (1, 40)]),
        ("isolated-copy-age", [(86400, 100), (7 * 86400, 70), (30 * 86400, 30), (3600 * 86400, 10)]),
        ("critical-vuln-age", [(15 * 86400, 100), (30 * 86400, 80), (90 * 86400, 30)]),
    ],
)
def test_scales_have_these_rungs(scale: str, rungs: list[tuple[float, float]]) -> None:
    assert [(rung.at, rung.points) for rung in shipped().scales[scale].rungs] == rungs


SMALL = {
    "memory/used.yaml": """\
title: {zh: 内存充足, en: Enough memory}
kind: measured
why: {zh: 内存不足会停机, en: Short memory stops services}
fix: {zh: 加内存, en: Add memory}
basis:
  - {source: own, confidence: own-judgement}
scale: share
question:
  measures: host_memory.used_ratio
  per: [asset]
  over: 1h
  each: 5m
  take: {bucket: mean, subject: max}
  across:
    - take: worst
  needs: {span: 1h}
""",
    "scales/share.yaml": """\
title: {zh: 占比, en: Share}
unit: ratio
better: lower
rungs:
  - {at: 0.5, points: 100, basis: [{source: own, confidence: own-judgement}]}
  - {at: 0.8, points: 50, basis: [{source: own, confidence: own-judgement}]}
""",
    "sources.yaml": """\
own:
  zh: 自定
  en: Own
  status: {zh: 无出处, en: No source}
""",
    "indexes/dei_2021.yaml": """\
title: {zh: 指数, en: Index}
source: own
tree:
  - id: memory
    zh: 内存
    en: Memory
    weight: 1
    criteria:
      - {id: used, weight: 1}
""",
}
"""The smallest rules that load."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in SMALL.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def complaints(folder: Path) -> list[str]:
    """What the loader says of `folder`, file names relative to it."""
    with pytest.raises(FileMistakes) as caught:
        rules_folder.load(folder)
    return [str(mistake).replace(f"{folder}/", "") for mistake in caught.value.mistakes]


def test_smallest_rules_load(folder: Path) -> None:
    book, _ = rules_folder.load(folder)
    assert [(place.path, place.node.criteria[0].id) for place in book.places()] == [("memory", "used")]


def test_a_file_name_that_is_no_id_is_refused(folder: Path) -> None:
    (folder / "memory/used.yaml").rename(folder / "memory/Bad_Name.yaml")
    edit(folder / "indexes/dei_2021.yaml", "id: used", "id: Bad_Name")
    assert complaints(folder)[0].startswith(
        "memory/Bad_Name.yaml: the file's name 'Bad_Name' cannot be an id: small letters"
    )


def test_an_unreadable_folder_is_named_and_nothing_else(folder: Path) -> None:
    with open_folder() as place:
        rules = shutil.copytree(folder, place / "rules")
        rules.chmod(0o755)
        (rules / "scales").chmod(0)
        status, _, err = run_unprivileged("rules", "check", "--rules", rules)
        (rules / "scales").chmod(0o755)
    assert (status, err) == (2, f"{rules}/scales: no permission to read this folder; look at its owner and mode\n")


def test_a_criterion_that_no_index_counts_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "memory/used.yaml", folder / "memory/alone.yaml")
    assert main(["rules", "check", "--rules", str(folder), "--lang", "en"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == (
        f"warning {folder}/memory/alone.yaml:1: index dei_2021 does not count criterion 'alone'; it moves no score"
    )


def test_signals_without_a_source_are_one_line_unless_all_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "check", "--lang", "en"]) == 0
    short = capsys.readouterr().out.splitlines()
    assert main(["rules", "check", "--all", "--lang", "en"]) == 0
    whole = capsys.readouterr().out.splitlines()
    assert main(["rules", "check", "--format", "json", "--lang", "en"]) == 0
    number = len(json.loads(capsys.readouterr().out)["warnings"])
    assert len(short) == 2 and short[0].startswith(f"warning {number} uses of signals that no source emits yet")
    assert len(whole) == number + 1


def test_a_note_in_one_language_alone_is_refused(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "own-judgement}", "own-judgement, note: {zh: 百分比}}")
    assert complaints(folder) == ["memory/used.yaml:6: key 'en' is missing"]


CAP = """\
caps:
  - id: low
    node: memory
    ceiling: 40
    title: {zh: 内存用尽, en: Memory is used up}
    basis: [{source: own, confidence: own-judgement}]
    criterion: used
    points_below: 50
"""


def test_a_cap_by_points_loads(folder: Path) -> None:
    path = folder / "indexes/dei_2021.yaml"
    path.write_text(path.read_text("utf-8") + CAP, "utf-8")
    [cap] = rules_folder.load(folder)[0].index.caps
    assert (cap.criterion, cap.points_below, cap.ceiling) == ("used", 50, 40)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("node: memory", "node: memroy", "the tree has no node 'memroy'; did you mean 'memory'?"),
        ("criterion: used", "criterion: usde", "there is no criterion 'usde'; did you mean 'used'?"),
        ("source: own", "source: owm", "sources.yaml has no 'owm'; did you mean 'own'?"),
        (
            "    points_below: 50\n",
            "",
            "a condition is criterion with points_below, or question (or combine) with at_least",
        ),
        (
            "points_below: 50",
            "points_below: 50\n    at_least: 1",
            "a condition is criterion with points_below, or question (or combine) with at_least",
        ),
    ],
    ids=["node", "criterion", "source", "half a condition", "two conditions"],
)
def test_a_cap_that_says_nothing_clear_is_refused(folder: Path, old: str, new: str, complaint: str) -> None:
    path = folder / "indexes/dei_2021.yaml"
    path.write_text(path.read_text("utf-8") + CAP.replace(old, new), "utf-8")
    assert [line.split(": ", 1)[1] for line in complaints(folder)] == [complaint]


def test_a_document_that_is_measured_is_refused(folder: Path) -> None:
    edit(folder / "indexes/dei_2021.yaml", "    criteria:\n      - {id: used, weight: 1}", "    documents: [used]")
    assert complaints(folder) == ["indexes/dei_2021.yaml:8: 'used' is no attested criterion"]


def test_misspelt_key_is_refused_with_the_near_miss(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "  over: 1h", "  ovr: 1h")
    assert complaints(folder) == [
        "memory/used.yaml:11: unknown key 'ovr'; did you mean 'over'?",
    ]


def test_misspelt_weight_in_the_index_is_refused_with_the_near_miss(folder: Path) -> None:
    edit(folder / "indexes/dei_2021.yaml", "{id: used, weight: 1}", "{id: used, wieght: 1}")
    assert complaints(folder)[0] == "indexes/dei_2021.yaml:9: unknown key 'wieght'; did you mean 'weight'?"


def test_unknown_scale_is_refused(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "scale: share", "scale: shares")
    assert complaints(folder) == ["memory/used.yaml:7: there is no scale 'shares'; did you mean 'share'?"]


def test_unknown_source_is_refused_in_criteria_and_rungs(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "source: own", "source: owm")
    edit(
        folder / "scales/share.yaml",
        "at: 0.8, points: 50, basis: [{source: own",
        "at: 0.8, points: 50, basis: [{source: iso",
    )
    assert complaints(folder) == [
        "memory/used.yaml:6: sources.yaml has no 'owm'; did you mean 'own'?",
        "scales/share.yaml:6: sources.yaml has no 'iso'; known are: own",
    ]


def test_rungs_out_of_order_are_refused(folder: Path) -> None:
    edit(folder / "scales/share.yaml", "at: 0.8", "at: 0.4")
    assert complaints(folder) == ["scales/share.yaml:6: rungs must go strictly from the best to the worst"]


def test_weights_that_miss_one_are_refused(folder: Path) -> None:
    edit(folder / "indexes/dei_2021.yaml", "{id: used, weight: 1}", "{id: used, weight: 0.99}")
    assert complaints(folder) == ["indexes/dei_2021.yaml:8: the weights add up to 0.99, not to 1"]


def test_criterion_in_two_folders_is_refused(folder: Path) -> None:
    (folder / "other").mkdir()
    shutil.copy(folder / "memory/used.yaml", folder / "other/used.yaml")
    assert complaints(folder) == ["other/used.yaml:1: criterion 'used' stands in folder memory too"]


def test_criterion_counted_twice_is_refused(folder: Path) -> None:
    edit(
        folder / "indexes/dei_2021.yaml",
        "      - {id: used, weight: 1}",
        "      - {id: used, weight: 0.5}\n      - {id: used, weight: 0.5}",
    )
    assert complaints(folder) == ["indexes/dei_2021.yaml:10: criterion 'used' counts twice"]


def test_counted_criterion_that_nobody_wrote_is_refused(folder: Path) -> None:
    edit(folder / "indexes/dei_2021.yaml", "{id: used, weight: 1}", "{id: usde, weight: 1}")
    assert complaints(folder) == [
        "indexes/dei_2021.yaml:9: there is no criterion 'usde'; did you mean 'used'?",
    ]


def test_a_measured_criterion_without_a_question_is_refused(folder: Path) -> None:
    path = folder / "memory/used.yaml"
    path.write_text(path.read_text("utf-8").split("question:")[0], "utf-8")
    assert complaints(folder) == ["memory/used.yaml:2: exactly one of question and combine must be there"]


def test_an_attested_criterion_asks_nothing_and_says_how_long_it_may_hold(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "kind: measured", "kind: attested")
    assert complaints(folder) == [
        "memory/used.yaml:8: an attested criterion has no question and no combine",
        "memory/used.yaml:2: valid, how long it may hold, belongs to attested criteria alone",
    ]


def test_all_mistakes_of_all_files_come_at_once(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "kind: measured", "kind: guessed")
    edit(folder / "scales/share.yaml", "unit: ratio", "unit: percent")
    assert [line.split(": ")[0] for line in complaints(folder)] == ["scales/share.yaml:2", "memory/used.yaml:2"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f"# 说明\n\n{text}",
        lambda text: text.replace("unit: ratio\nbetter: lower\n", "better: lower   # 越低越好\nunit: 'ratio'\n"),
    ],
    ids=["a comment", "another order and quotes"],
)
def test_comments_and_layout_do_not_change_digests(folder: Path, change: Callable[[str], str]) -> None:
    before = rules_folder.load(folder)[0]
    path = folder / "scales/share.yaml"
    old = path.read_text("utf-8")
    path.write_text(change(old), "utf-8")
    after = rules_folder.load(folder)[0]
    assert path.read_text("utf-8") != old
    assert after.digests == before.digests
    assert after.digest() == before.digest()


def test_changed_threshold_changes_its_digest_alone(folder: Path) -> None:
    before = rules_folder.load(folder)[0]
    edit(folder / "scales/share.yaml", "at: 0.8", "at: 0.81")
    after = rules_folder.load(folder)[0]
    assert {name for name in before.digests if before.digests[name] != after.digests[name]} == {"scales/share.yaml"}
    assert after.digest() != before.digest()
