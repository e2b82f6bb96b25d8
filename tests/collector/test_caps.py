"""Ceilings of the shipped index over the real embedded store: an unknown condition caps `low` alone, a met one both."""

import math
from collections.abc import Iterator, Mapping, Sequence

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from agent.points import Point
from collector.evaluate import Rules, evaluate, evaluate_caps, evaluate_criteria, parse_time
from collector.evidence import CapResult, CriterionResult
from collector.inquiry import Site
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules, memory_store
from collector.score import DECIMALS, NodeResult, build_tree
from collector.site_folder import DEFAULT_ZONE, Attestation, SiteFolder
from collector.stores import AppliedBatch, Store

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
FAILOVER = "hospital.data-availability.failover"
ISOLATION = "hospital.network-security.network-isolation"
ROUND_MS = 10 * 60_000


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="module")
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


_serial = iter(range(10**9))


def a_site(*attestations: Attestation) -> Site:
    """A site of its own in the shared store."""
    return Site(f"site-{next(_serial)}", DEFAULT_ZONE, SiteFolder(attestations=attestations))


def copy_at(level: float, days_left: int = 1) -> Attestation:
    """Somebody vouches for where the second copy stands."""
    return Attestation(
        criterion="ev-dr-location",
        value=level,
        is_not_applicable=False,
        author="wang",
        role="cio",
        reason="",
        document=None,
        since=AS_OF - 30 * DAY_MS,
        expires=AS_OF + days_left * DAY_MS,
        place="site/attestations.yaml:1",
    )


def write(
    store: Store, site: Site, measurement: str, tags: dict[str, str], fields: dict[str, float], times: Sequence[int]
) -> None:
    """The same fields at all these times."""
    points = [Point(measurement, {"asset": "probe", **tags}, fields, time) for time in times]
    identity = f"{next(_serial)}"
    store.write([AppliedBatch(site.id, "probe", "", -1, identity, times[-1], times[-1], points, 0, ())])


def caps_of(store: Store, rules: Rules, site: Site) -> dict[str, CapResult]:
    results = evaluate_criteria(store, rules, site, AS_OF, ["ev-dr-location"])
    return evaluate_caps(store, rules, site, AS_OF, results)


def all_earn(rules: Rules, low: float, high: float) -> dict[str, CriterionResult]:
    """Every criterion of the index with the same interval."""
    empty = msgspec.convert(
        {"id": "", "title": {"zh": "", "en": ""}, "kind": "measured", "status": "scored", "weight": 0, "effective_weight": 0,
         "low": low, "high": high, "coverage": 1, "value": None, "best_value": None, "provisional": None, "unit": "ratio",
         "query": None, "window": None, "expected": 0, "found": 0, "samples": 0, "subjects": 0, "worst": [], "reason": None,
         "digest": ""},
        CriterionResult,
    )  # fmt: skip
    return {name: msgspec.structs.replace(empty, id=name) for name in rules.book.criteria}


def nodes_of(
    rules: Rules, results: Mapping[str, CriterionResult], caps: Mapping[str, CapResult]
) -> dict[str, NodeResult]:
    return {node.id: node for node in build_tree(rules.book, results, caps)[1]}


# -- where the second copy stands


@pytest.mark.parametrize(
    ("vouched", "ceiling", "ceiling_of_high"),
    [
        ((), 20, None),
        ((copy_at(0),), 20, 20),
        ((copy_at(1),), 60, 60),
        ((copy_at(2),), None, None),
        ((copy_at(4),), None, None),
        ((copy_at(4, days_left=0),), 20, None),
    ],
    ids=["nobody attested", "no copy", "same building", "another building", "another city", "expired"],
)
def test_failover_earns_no_more_than_the_place_of_its_copy_allows(
    store: Store, rules: Rules, vouched: tuple[Attestation, ...], ceiling: float | None, ceiling_of_high: float | None
) -> None:
    caps = caps_of(store, rules, a_site(*vouched))
    node = nodes_of(rules, all_earn(rules, 90, 95), caps)[FAILOVER]
    assert (node.cap, node.cap_high) == (ceiling, ceiling_of_high)
    assert (node.low, node.high) == (ceiling or 90, ceiling_of_high or 95)


# -- exposed databases


def scan(store: Store, site: Site, days: range, databases: float, complete: float = 1) -> None:
    times = [AS_OF - day * DAY_MS + hour * HOUR_MS for day in reversed(days) for hour in range(24)]
    fields = {"exposed_databases_count": databases, "is_complete": complete}
    write(store, site, "exposure_scan", {"scanner": "outside"}, fields, times)


def test_without_a_scan_nobody_knows_whether_a_database_is_exposed(store: Store, rules: Rules) -> None:
    assert caps_of(store, rules, a_site())["database-exposed"].state == "unknown"


def test_complete_scans_that_found_none_lift_the_cap(store: Store, rules: Rules) -> None:
    site = a_site()
    scan(store, site, range(1, 11), 0)
    assert caps_of(store, rules, site)["database-exposed"].state == "not_met"


def test_one_exposed_database_on_one_day_caps(store: Store, rules: Rules) -> None:
    site = a_site()
    scan(store, site, range(6, 11), 0)
    scan(store, site, range(5, 6), 1)
    scan(store, site, range(1, 5), 0)
    assert caps_of(store, rules, site)["database-exposed"].state == "met"


@pytest.mark.parametrize("databases", [0, 1])
def test_a_day_without_a_complete_scan_proves_nothing(store: Store, rules: Rules, databases: float) -> None:
    site = a_site()
    scan(store, site, range(2, 11), 0)
    scan(store, site, range(1, 2), databases, complete=0)
    assert caps_of(store, rules, site)["database-exposed"].state == "unknown"


# -- the outside in a clinical zone


def day_of(store: Store, site: Site, days_ago: int, rounds: Sequence[float], to_zone: str = "medical") -> None:
    """Some rounds of one cell at the begin of a day, each is_breached, and quiet ones through the rest of it."""
    tags = {"from_zone": "outside", "to_zone": to_zone, "protocol": "tcp", "port": "1433"}
    begin = AS_OF - days_ago * DAY_MS
    for number, time in enumerate(range(begin, begin + DAY_MS, ROUND_MS)):
        breached = rounds[number] if number < len(rounds) else 0
        write(store, site, "isolation_cell", tags, {"is_breached": breached}, [time])


def control(store: Store, site: Site, days: int, seen: float = 1, to_zone: str = "medical") -> None:
    times = range(AS_OF - days * DAY_MS, AS_OF, ROUND_MS)
    write(store, site, "isolation_control", {"from_zone": "outside", "to_zone": to_zone}, {"is_seen": seen}, times)


@pytest.mark.parametrize(
    ("days", "state"),
    [([[0]] * 3, "not_met"), ([[0], [0], [1]], "met"), ([[1], [0], [0]], "met")],
    ids=["blocked", "breached for one round today", "closed since"],
)
def test_a_forbidden_cell_reached_on_any_day_caps(
    store: Store, rules: Rules, days: list[list[float]], state: str
) -> None:
    site = a_site()
    control(store, site, len(days))
    for ago, rounds in zip(range(len(days), 0, -1), days, strict=True):
        day_of(store, site, ago, rounds)
    assert caps_of(store, rules, site)["clinical-zone-reached"].state == state


@pytest.mark.parametrize("breached", [0, 1])
def test_without_the_positive_control_a_cell_says_nothing(store: Store, rules: Rules, breached: float) -> None:
    site = a_site()
    control(store, site, 1, seen=0)
    day_of(store, site, 1, [breached])
    assert caps_of(store, rules, site)["clinical-zone-reached"].state == "unknown"


def test_a_day_without_the_control_may_hide_a_breach(store: Store, rules: Rules) -> None:
    site = a_site()
    control(store, site, 1)
    for ago in (3, 2, 1):
        day_of(store, site, ago, [0])
    assert caps_of(store, rules, site)["clinical-zone-reached"].state == "unknown"


def test_a_zone_that_is_not_clinical_neither_caps_nor_clears(store: Store, rules: Rules) -> None:
    site = a_site()
    control(store, site, 1, to_zone="office")
    day_of(store, site, 1, [1], to_zone="office")
    assert caps_of(store, rules, site)["clinical-zone-reached"].state == "unknown"


def test_one_breached_cell_among_many_is_enough(store: Store, rules: Rules) -> None:
    site = a_site()
    for zone, breached in (("medical", 0), ("device", 1)):
        control(store, site, 1, to_zone=zone)
        day_of(store, site, 1, [breached], to_zone=zone)
    caps = caps_of(store, rules, site)
    assert caps["clinical-zone-reached"].state == "met"
    node = nodes_of(rules, all_earn(rules, 90, 95), caps)[ISOLATION]
    assert (node.low, node.high) == (40, 40)
    assert [question.high for question in caps["clinical-zone-reached"].questions] == [1]


# -- what a cap may do at all


def capped(rules: Rules, states: Sequence[str]) -> dict[str, CapResult]:
    return {
        cap.id: CapResult(id=cap.id, title=cap.title, ceiling=cap.ceiling, state=state)  # type: ignore[arg-type]
        for cap, state in zip(rules.book.index.caps, states, strict=True)
    }


STATES = st.lists(st.sampled_from(["met", "unknown", "not_met"]), min_size=4, max_size=4)


@given(states=STATES, low=st.integers(0, 100), width=st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_a_cap_never_raises_and_an_unknown_one_leaves_high_alone(
    rules: Rules, states: list[str], low: int, width: int
) -> None:
    results = all_earn(rules, low, min(100, low + width))
    free = nodes_of(rules, results, capped(rules, ["not_met"] * 4))
    mine = nodes_of(rules, results, capped(rules, states))
    doubtful = nodes_of(rules, results, capped(rules, ["unknown" if one == "met" else one for one in states]))
    for name, node in mine.items():
        assert node.low <= node.high
        assert node.low <= free[name].low
        assert node.high <= free[name].high
        assert doubtful[name].high == free[name].high
        assert doubtful[name].low == node.low


@given(states=STATES, low=st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_every_node_can_be_recomputed_from_what_stands_in_it(rules: Rules, states: list[str], low: int) -> None:
    nodes = nodes_of(rules, all_earn(rules, low, 100), capped(rules, states))
    documents = {name for place in rules.book.places() for name in place.node.documents}
    for node in nodes.values():
        children = [one for one in nodes.values() if one.parent == node.id]
        parts = [*children, *(one for one in node.criteria if one.id not in documents)]
        assert {one.effective_weight for one in node.criteria if one.id in documents} <= {0.0}
        assert math.isclose(sum(part.effective_weight for part in parts), 1, abs_tol=1e-9)
        for end, ceiling in (("low", node.cap), ("high", node.cap_high)):
            summed = math.fsum(part.effective_weight * getattr(part, end) for part in parts)
            assert getattr(node, end) == round(min(math.inf if ceiling is None else ceiling, summed), DECIMALS)


def test_caps_stand_in_the_scorecard_with_what_they_asked(store: Store, rules: Rules) -> None:
    site = a_site(copy_at(1))
    scan(store, site, range(1, 3), 1)
    card = evaluate(store, rules, site, AS_OF)
    found = {cap.id: cap for node in card.nodes for cap in node.caps}
    assert {name: cap.state for name, cap in found.items()} == {
        "no-second-building": "met",
        "no-second-copy": "not_met",
        "database-exposed": "met",
        "clinical-zone-reached": "unknown",
    }
    assert found["database-exposed"].questions[0].low == 1
    other = evaluate(store, rules, a_site(copy_at(1)), AS_OF)
    assert other.digests.data != card.digests.data, "what a cap asked is part of what the card was computed from"
