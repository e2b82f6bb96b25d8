"""The shipped rules against what they must be, and what the loader says of rules that a person wrote wrongly."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import catalogue
from agent.documents import FileMistakes
from agent.language import choose
from collector import plan_check, rulebook

CRITERIA = (
    ("auto-recovery-rate", "fault-self-healing", 0.25),
    ("fault-recovery-time-p95", "fault-self-healing", 0.25),
    ("critical-service-availability", "fault-self-healing", 0.2),
    ("redundant-component-health", "fault-self-healing", 0.15),
    ("power-ride-through", "fault-self-healing", 0.15),
    ("virtualized-workload-ratio", "virtualization", 0.25),
    ("virtual-ha-coverage", "virtualization", 0.25),
    ("virtual-failover-headroom", "virtualization", 0.2),
    ("storage-pool-ratio", "virtualization", 0.15),
    ("virtual-platform-managed-ratio", "virtualization", 0.15),
    ("dual-active-system-coverage", "dual-active-backup", 0.25),
    ("replication-in-sync-ratio", "dual-active-backup", 0.2),
    ("replication-lag-p99", "dual-active-backup", 0.25),
    ("inter-site-latency", "dual-active-backup", 0.1),
    ("inter-site-link-redundancy", "dual-active-backup", 0.1),
    ("arbiter-health", "dual-active-backup", 0.1),
    ("storage-tiers-in-use", "tiered-storage", 0.2),
    ("cold-data-offload-ratio", "tiered-storage", 0.2),
    ("tier-migration-success", "tiered-storage", 0.15),
    ("record-retrieval-time-p95", "tiered-storage", 0.2),
    ("storage-headroom", "tiered-storage", 0.15),
    ("retention-policy-conformity", "tiered-storage", 0.1),
    ("achieved-rto", "failover", 0.25),
    ("achieved-rpo", "failover", 0.2),
    ("backup-currency", "failover", 0.2),
    ("restore-test-recency", "failover", 0.15),
    ("failover-drill-recency", "failover", 0.1),
    ("dr-site-readiness", "failover", 0.1),
    ("core-link-peak-util", "network-capacity", 0.2),
    ("network-device-peak-load", "network-capacity", 0.15),
    ("backbone-bandwidth-class", "network-capacity", 0.15),
    ("network-path-redundancy", "network-capacity", 0.2),
    ("network-availability", "network-capacity", 0.2),
    ("link-quality", "network-capacity", 0.1),
    ("telemed-committed-bandwidth", "telemedicine-line", 0.2),
    ("telemed-delay-p95", "telemedicine-line", 0.2),
    ("telemed-loss", "telemedicine-line", 0.2),
    ("telemed-jitter", "telemedicine-line", 0.1),
    ("telemed-line-availability", "telemedicine-line", 0.15),
    ("telemed-route-diversity", "telemedicine-line", 0.15),
    ("managed-device-coverage", "network-management", 0.25),
    ("telemetry-completeness", "network-management", 0.15),
    ("config-baseline-coverage", "network-management", 0.15),
    ("alarm-handling-time", "network-management", 0.15),
    ("log-retention-days", "network-management", 0.15),
    ("secure-management-ratio", "network-management", 0.15),
    ("newtech-inventory-coverage", "frontier-protection", 0.2),
    ("iot-authenticated-access-ratio", "frontier-protection", 0.25),
    ("iot-segmentation-ratio", "frontier-protection", 0.2),
    ("rogue-wireless-control", "frontier-protection", 0.15),
    ("mobile-terminal-mdm-coverage", "frontier-protection", 0.1),
    ("virtual-traffic-visibility", "frontier-protection", 0.1),
    ("zone-isolation-proven", "network-isolation", 0.25),
    ("controlled-boundary-flow-ratio", "network-isolation", 0.1),
    ("isolation-strength-live", "network-isolation", 0.15),
    ("default-deny-ratio", "network-isolation", 0.15),
    ("stale-rule-ratio", "network-isolation", 0.05),
    ("illegal-connection-events", "network-isolation", 0.15),
    ("exposed-service-count", "network-isolation", 0.15),
    ("endpoint-protection-coverage", "leak-and-ransomware-protection", 0.2),
    ("signature-freshness", "leak-and-ransomware-protection", 0.1),
    ("threat-detection-tier", "leak-and-ransomware-protection", 0.15),
    ("isolated-copy-age", "leak-and-ransomware-protection", 0.25),
    ("critical-vuln-age", "leak-and-ransomware-protection", 0.15),
    ("egress-dlp-coverage", "leak-and-ransomware-protection", 0.15),
)
"""id, indicator, weight inside the indicator: fixed for good."""


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


def test_all_65_measured_criteria_stand_in_their_indicator_with_their_weight() -> None:
    book, _ = rulebook.load()
    measured = {name for name, criterion in book.criteria.items() if criterion.kind == "measured"}
    counted = tuple(
        (item.id, place.node.id, item.weight)
        for place in book.places()
        for item in place.node.criteria
        if item.id in measured
    )
    assert sorted(counted) == sorted(CRITERIA)
    assert {name: book.indicators[name] for name in measured} == {name: indicator for name, indicator, _ in CRITERIA}


def test_every_criterion_counts_or_is_a_document_of_the_indicator_that_it_stands_in() -> None:
    book, _ = rulebook.load()
    named = {
        name: place.node.id
        for place in book.places()
        for name in (*(item.id for item in place.node.criteria), *place.node.documents)
    }
    assert named == dict(book.indicators)


def test_the_index_has_54_leaves_and_76_nodes_on_three_levels() -> None:
    places = list(rulebook.load()[0].places())
    assert Counter(place.level for place in places) == {1: 4, 2: 18, 3: 54}
    assert sum(not place.node.children for place in places) == 54


def test_weights_add_up_to_one_below_every_node() -> None:
    book, _ = rulebook.load()
    groups = [[node.weight for node in book.index.tree]]
    groups += [[child.weight for child in place.node.children] for place in book.places() if place.node.children]
    groups += [[item.weight for item in place.node.criteria] for place in book.places() if place.node.criteria]
    assert len(groups) == 1 + 4 + 18 + 54
    assert [round(sum(group), 9) for group in groups] == [1.0] * len(groups)


def test_shipped_rules_ask_only_for_signals_that_the_catalogue_has() -> None:
    book, documents = rulebook.load()
    mistakes, _ = plan_check.check(book, documents, catalogue.load())
    assert mistakes == []


def test_every_measured_criterion_asks() -> None:
    book, _ = rulebook.load()
    assert [name for name, found in book.criteria.items() if found.kind == "measured" and not found.questions()] == []


def test_every_scale_and_every_source_is_used() -> None:
    book, _ = rulebook.load()
    assert set(book.scales) == {criterion.scale for criterion in book.criteria.values()}
    assert set(book.sources) == {basis.source for basis in shipped_bases()} | {book.index.source}


def shipped_bases() -> list[rulebook.Basis]:
    book, _ = rulebook.load()
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
    ],
)
def test_shared_scales_have_these_rungs(scale: str, rungs: list[tuple[float, float]]) -> None:
    assert [(rung.at, rung.points) for rung in rulebook.load()[0].scales[scale].rungs] == rungs


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
        rulebook.load(folder)
    return [str(mistake).replace(f"{folder}/", "") for mistake in caught.value.mistakes]


def test_smallest_rules_load(folder: Path) -> None:
    book, _ = rulebook.load(folder)
    assert [(place.path, place.node.criteria[0].id) for place in book.places()] == [("memory", "used")]


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
    [cap] = rulebook.load(folder)[0].index.caps
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
        "memory/used.yaml:8: key 'over' is missing",
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


def test_measured_criterion_without_a_question_is_refused(folder: Path) -> None:
    text = (folder / "memory/used.yaml").read_text("utf-8")
    (folder / "memory/used.yaml").write_text(text[: text.index("question:")], "utf-8")
    assert complaints(folder) == ["memory/used.yaml:2: exactly one of question and combine must be there"]


def test_attested_criterion_with_a_question_and_without_an_end_is_refused(folder: Path) -> None:
    edit(folder / "memory/used.yaml", "kind: measured", "kind: attested")
    assert [line.split(": ", 1)[1] for line in complaints(folder)] == [
        "an attested criterion has no question and no combine",
        "valid, how long it may hold, belongs to attested criteria alone",
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
    before = rulebook.load(folder)[0]
    path = folder / "scales/share.yaml"
    old = path.read_text("utf-8")
    path.write_text(change(old), "utf-8")
    after = rulebook.load(folder)[0]
    assert path.read_text("utf-8") != old
    assert after.digests == before.digests
    assert after.digest() == before.digest()


def test_changed_threshold_changes_its_digest_alone(folder: Path) -> None:
    before = rulebook.load(folder)[0]
    edit(folder / "scales/share.yaml", "at: 0.8", "at: 0.81")
    after = rulebook.load(folder)[0]
    assert {name for name in before.digests if before.digests[name] != after.digests[name]} == {"scales/share.yaml"}
    assert after.digest() != before.digest()
