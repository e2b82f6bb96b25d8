"""What people vouch for: every leaf outside telemetry, the published averages recomputed, and what does not apply."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agent.documents import build, read_document
from collector.cases import SHARED, CaseFile
from collector.evaluate import Rules, evaluate, parse_time, prepare
from collector.inquiry import Site
from collector.query import DAY_MS
from collector.rulebook import Counted, Criterion, Node, Rulebook
from collector.ruleset import load_rules, memory_store
from collector.score import NodeResult, Scorecard
from collector.site_folder import DEFAULT_ZONE, Attestation, Document, SiteFolder
from collector.stores import Store

ROOT = Path(__file__).parent.parent.parent
AS_OF = parse_time("2026-03-31T00:00:00+08:00")
AVERAGES = {"infrastructure": 32.1, "government": 60.8, "industry": 64.3, "hospital": 57.4}
"""The published national averages of the four indicators of the first level."""
MEASURED = {"hospital.data-availability", "hospital.network-security"}

EXPIRES = {
    "ev-critical-asset-register": "180d",
    "ev-machine-room-class": "1095d",
    "ev-generator-load-test": "365d",
    "ev-virtualization-exceptions": "365d",
    "ev-dual-site-topology": "365d",
    "ev-dual-active-declaration": "180d",
    "ev-data-classification": "365d",
    "ev-media-inventory": "365d",
    "ev-dr-plan": "365d",
    "ev-drill-report": "365d",
    "ev-dr-location": "365d",
    "ev-wireless-survey": "365d",
    "ev-critical-segment-list": "180d",
    "ev-line-contract": "1095d",
    "ev-telemed-encryption": "365d",
    "ev-telemed-ups": "365d",
    "ev-ops-policy-set": "365d",
    "ev-topology-diagram": "365d",
    "ev-newtech-security-assessment": "365d",
    "ev-ai-system-review": "180d",
    "ev-medical-device-network-risk": "365d",
    "ev-zone-map": "180d",
    "ev-boundary-device-approval": "1825d",
    "ev-djbh-level3-report": "365d",
    "ev-ransomware-playbook": "365d",
    "ev-backup-credential-separation": "180d",
    "ev-encryption-at-rest": "365d",
    "ev-pentest-report": "365d",
    "ev-data-asset-inventory": "365d",
}
"""Supporting document -> how long it may hold: fixed for good. Those that end with a contract or a certificate say so."""


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="module")
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


def vouch(criterion: str, value: float | None, document: Document | None = None) -> Attestation:
    """A value, or with None that it does not apply; valid at AS_OF."""
    return Attestation(
        criterion=criterion,
        value=value,
        is_not_applicable=value is None,
        author="wang",
        role="cio",
        reason="declared" if value is None else "",
        document=document,
        since=AS_OF - DAY_MS,
        expires=AS_OF + DAY_MS,
        place="site/attestations.yaml:1",
    )


def score(store: Store, rules: Rules, attestations: Sequence[Attestation]) -> Scorecard:
    return evaluate(store, rules, Site("a-site", DEFAULT_ZONE, SiteFolder(attestations=tuple(attestations))), AS_OF)


def nodes_of(card: Scorecard) -> Mapping[str, NodeResult]:
    return {node.id: node for node in card.nodes}


# -- what is shipped


def test_each_of_the_43_leaves_outside_telemetry_holds_one_attested_criterion_of_its_own(rules: Rules) -> None:
    book = rules.book
    leaves = [place for place in book.places() if not place.node.children and place.parent not in MEASURED]
    assert len(leaves) == 43
    for place in leaves:
        [counted] = place.node.criteria
        assert (counted.id, counted.weight) == (f"{place.node.id}-assessed", 1.0)
        assert book.indicators[counted.id] == place.node.id
        assert book.criteria[counted.id].kind == "attested"
        assert book.criteria[counted.id].scale == "assessed-share"
        assert place.node.documents == ()


def test_measured_leaves_count_nothing_that_is_attested(rules: Rules) -> None:
    book = rules.book
    leaves = [place for place in book.places() if place.parent in MEASURED]
    assert len(leaves) == 11
    assert {book.criteria[item.id].kind for place in leaves for item in place.node.criteria} == {"measured"}


def test_supporting_documents_stand_in_their_indicator_with_their_expiry(rules: Rules) -> None:
    book = rules.book
    listed = {name: place.node.id for place in book.places() for name in place.node.documents}
    assert {name: book.criteria[name].valid for name in listed} == EXPIRES
    assert {name: book.indicators[name] for name in listed} == listed


def test_no_two_attested_criteria_share_a_text(rules: Rules) -> None:
    attested = [one for one in rules.book.criteria.values() if one.kind == "attested"]
    assert len(attested) == 43 + 29
    for key in ("title", "why", "fix"):
        for language in ("zh", "en"):
            assert len({getattr(getattr(one, key), language) for one in attested}) == len(attested)
    ways = [basis.note.zh for one in attested if one.scale == "assessed-share" for basis in one.basis
            if basis.source == "own" and basis.note]  # fmt: skip
    assert len(set(ways)) == 43


def test_shared_cases_try_every_rung_and_both_ends_of_every_scale_of_attested_criteria(rules: Rules) -> None:
    book = rules.book
    scales = {one.scale for one in book.criteria.values() if one.kind == "attested"}
    folder = ROOT / "tests" / "rules" / SHARED
    assert {path.stem for path in folder.glob("*.yaml")} == scales
    for name in scales:
        cases = build(read_document(folder / f"{name}.yaml"), CaseFile).cases
        tried = {case.site.attested for case in cases if case.site and not case.site.is_expired}
        scale = book.scales[name]
        steps = {rung.at for rung in scale.rungs} | {at for at, _ in scale.line} | {0.0}
        assert steps <= tried, name
        assert [case.name for case in cases if case.site is None] == ["nobody_attested"]
        assert [case.name for case in cases if case.site and case.site.is_expired] == ["expired"]


# -- the whole tree from what people vouch for


def all_attested(book: Rulebook) -> Rulebook:
    """The shipped tree with one attested criterion in each of its 54 leaves, no documents and no caps."""
    pattern = book.criteria["unified-cloud-assessed"]
    criteria: dict[str, Criterion] = {}

    def settle(node: Node) -> Node:
        if node.children:
            return msgspec.structs.replace(node, children=tuple(settle(child) for child in node.children))
        criteria[f"{node.id}-assessed"] = pattern
        return msgspec.structs.replace(node, criteria=(Counted(id=f"{node.id}-assessed", weight=1.0),), documents=())

    index = msgspec.structs.replace(book.index, tree=tuple(settle(node) for node in book.index.tree), caps=())
    return replace(book, criteria=criteria, indicators=dict.fromkeys(criteria, "any"), index=index)


def test_published_averages_in_all_54_leaves_give_the_published_total(store: Store, rules: Rules) -> None:
    book = all_attested(rules.book)
    leaves = [place for place in book.places() if not place.node.children]
    assert len(leaves) == 54
    vouched = [
        vouch(place.node.criteria[0].id, AVERAGES[place.path.split(".", maxsplit=1)[0]] / 100) for place in leaves
    ]
    card = score(store, prepare(book, rules.catalogue), vouched)
    assert (card.total.low, card.total.high, card.total.coverage) == (49.745, 49.745, 1.0)
    nodes = nodes_of(card)
    assert {name: (nodes[name].low, nodes[name].high) for name in AVERAGES} == {
        name: (average, average) for name, average in AVERAGES.items()
    }


def test_full_marks_everywhere_are_a_hundred_and_one_leaf_without_proof_costs_its_weight(
    store: Store, rules: Rules
) -> None:
    book = all_attested(rules.book)
    full = [vouch(name, 1) for name in book.criteria]
    ready = prepare(book, rules.catalogue)
    assert score(store, ready, full).total.low == 100
    without = [one for one in full if one.criterion != "smart-logistics-assessed"]
    card = score(store, ready, without)
    assert card.total.low == pytest.approx(100 - 100 * 0.40 * 0.15 * 0.30)
    assert card.total.high == 100


# -- what does not apply


def test_a_whole_leaf_that_does_not_apply_leaves_its_share_to_its_siblings(store: Store, rules: Rules) -> None:
    vouched = [
        vouch("port-risk-warning-assessed", None),
        vouch("disease-surveillance-assessed", 0.6),
        vouch("mobile-emergency-warning-assessed", 0.3),
    ]
    nodes = nodes_of(score(store, rules, vouched))
    parent = "government.decision-warning"
    port, disease, mobile = (
        nodes[f"{parent}.{name}"] for name in ("port-risk-warning", "disease-surveillance", "mobile-emergency-warning")
    )
    assert (port.status, port.weight, port.effective_weight) == ("not_applicable", 0.4, 0.0)
    assert (disease.weight, disease.effective_weight) == (0.4, pytest.approx(2 / 3))
    assert (mobile.weight, mobile.effective_weight) == (0.2, pytest.approx(1 / 3))
    assert nodes[parent].low == pytest.approx(60 * 2 / 3 + 30 / 3)
    assert nodes[parent].high == nodes[parent].low
    assert nodes[parent].coverage == pytest.approx(1)


def test_a_branch_of_which_nothing_applies_does_not_apply(store: Store, rules: Rules) -> None:
    book = all_attested(rules.book)
    inside = [place for place in book.places() if place.parent == "government.decision-warning"]
    criteria = {**book.criteria}
    for place in inside:
        name = place.node.criteria[0].id
        criteria[name] = msgspec.structs.replace(criteria[name], not_applicable=book.criteria[name].title)
    ready = prepare(replace(book, criteria=criteria), rules.catalogue)
    none_of_it = {place.node.criteria[0].id for place in inside}
    vouched = [vouch(name, None if name in none_of_it else 0.5) for name in book.criteria]
    card = score(store, ready, vouched)
    nodes = nodes_of(card)
    branch = nodes["government.decision-warning"]
    assert (branch.status, branch.effective_weight) == ("not_applicable", 0)
    siblings = [node for node in nodes.values() if node.parent == "government" and node is not branch]
    assert [node.effective_weight for node in siblings] == [
        pytest.approx(node.weight / (1 - branch.weight)) for node in siblings
    ]
    assert (card.total.low, card.total.high) == (50, 50)


def test_one_criterion_that_does_not_apply_leaves_its_share_inside_the_leaf(store: Store, rules: Rules) -> None:
    node = nodes_of(score(store, rules, [vouch("inter-site-latency", None)]))[
        "hospital.data-availability.dual-active-backup"
    ]
    weights = {one.id: (one.weight, one.effective_weight) for one in node.criteria}
    assert weights["inter-site-latency"] == (0.1, 0.0)
    assert weights["replication-lag-p99"] == (0.25, pytest.approx(0.25 / 0.9))
    assert math.fsum(effective for _, effective in weights.values()) == pytest.approx(1)


def test_what_may_not_be_declared_away_stays(store: Store, rules: Rules) -> None:
    nodes = nodes_of(score(store, rules, [vouch("smart-logistics-assessed", None), vouch("backup-currency", None)]))
    [logistics] = nodes["hospital.digital-management.smart-logistics"].criteria
    assert (logistics.status, logistics.effective_weight, logistics.low, logistics.high) == ("no_data", 1, 0, 100)
    backup = next(one for one in nodes["hospital.data-availability.failover"].criteria if one.id == "backup-currency")
    assert (backup.status, backup.effective_weight) == ("no_data", 0.2)


def test_a_document_that_was_changed_proves_nothing(store: Store, rules: Rules) -> None:
    name = "smart-ward-assessed"
    there, gone = (Document("papers/ward.pdf", "0" * 64, is_there) for is_there in (True, False))
    for document, status, low in ((there, "scored", 80), (gone, "no_data", 0)):
        node = nodes_of(score(store, rules, [vouch(name, 0.8, document)]))[
            "hospital.in-hospital-applications.smart-ward"
        ]
        assert (node.criteria[0].status, node.low) == (status, low)
        assert node.criteria[0].attestation is not None
        assert node.criteria[0].attestation.document == "papers/ward.pdf"


def test_supporting_documents_change_no_score_unless_a_cap_names_them(store: Store, rules: Rules) -> None:
    before = nodes_of(score(store, rules, []))
    after = nodes_of(score(store, rules, [vouch(name, 1) for name in EXPIRES if name != "ev-dr-location"]))
    assert {name: (one.low, one.high, one.coverage) for name, one in after.items()} == {
        name: (one.low, one.high, one.coverage) for name, one in before.items()
    }
    shown = {one.id: one.status for one in after["hospital.network-security.network-management"].criteria}
    assert shown["ev-topology-diagram"] == "scored"
