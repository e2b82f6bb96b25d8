"""The network page: policy against wire, exposed services, lines; both languages, and no markup from the data."""

import dataclasses
import re
from collections.abc import Callable, Iterator

import pytest

from agent import language
from agent.points import Point
from collector.evaluate import Rules
from collector.explain_network import matrix_lines
from collector.network import read_network
from collector.site_folder import Entry
from collector.snapshot import Snapshot
from collector.stores import AppliedBatch, Store, load_store

AT = 1_774_900_000_000


def cell(way: str, at: int = AT, **fields: float | str) -> Point:
    protocol, port = way.split("/")
    tags = {"asset": "outside-probe", "from_zone": "outside", "to_zone": "medical", "protocol": protocol, "port": port}
    usual = {
        "is_as_expected": 1.0,
        "is_proven": 1.0,
        "is_reached": 0.0,
        "is_breached": 0.0,
        "outcome": 2.0,
        "is_allowed": 0.0,
    }
    return Point("isolation_cell", tags, {**usual, "nonce": "5f" * 16, **fields}, at)


POINTS = [
    cell("tcp/443", is_as_expected=1.0, is_reached=1.0, outcome=1.0, is_allowed=1.0),
    cell("tcp/22", AT - 60_000),
    cell("tcp/22", is_as_expected=0.0, is_reached=1.0, is_breached=1.0, outcome=1.0, nonce="abcdef01" * 4),
    cell("udp/161", is_as_expected=0.0, is_proven=0.0, outcome=5.0),
    cell("tcp/23", outcome=4.0, refused_by="<b>10.0.0.1</b>"),
    Point(
        "exposure_scan",
        {"asset": "scan-1", "scanner": "scan-1"},
        {
            "exposed_databases_count": 1.0,
            "scanned_count": 38.0,
            "is_complete": 1.0,
            "exposed": "198.51.100.1:5432",
            "udp_silent_count": 7.0,
        },
        AT,
    ),
    *(  # of the hours before this one two are known: a whole one, and one in which it was down half of the time
        Point(
            "line", {"asset": "consult-1", "line": "city-line"}, {"is_up": is_up}, AT - AT % 3_600_000 - back * 60_000
        )
        for back, is_up in ((30, 1.0), (10, 1.0), (70, 0.0), (100, 1.0))
    ),
    Point(
        "neighbour",
        {"asset": "fw-1", "neighbour": "aa:bb"},
        {"system_name": "<i>cabinet-switch</i>", "is_managed": 0.0},
        AT,
    ),
    Point(
        "neighbour",
        {"asset": "fw-1", "neighbour": "aa:cc"},
        {"system_name": "SW-9.hospital.local", "is_managed": 0.0},
        AT,
    ),
    Point("neighbour", {"asset": "fw-1", "neighbour": "aa:dd"}, {"system_name": "sw-1", "is_managed": 1.0}, AT),
    Point(
        "line",
        {"asset": "consult-1", "line": "city-line"},
        {"is_up": 1.0, "live_routes_count": 2.0, "has_tested_fallback": 0.0, "committed_bits_per_second": 1e8},
        AT,
    ),
]


@pytest.fixture
def store(rules: Rules) -> Iterator[Store]:
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as opened:
        opened.write([AppliedBatch("renmin", "a", "", -1, "a", AT, AT, POINTS, 0, ())])
        opened.write([AppliedBatch("elsewhere", "b", "", -1, "b", AT, AT, POINTS, 0, ())])
        yield opened


Shown = Callable[[Snapshot, Store | None, str], str]


@pytest.fixture
def page_of(fetched: Callable[[Snapshot, str], str]) -> Shown:
    def show(snapshot: Snapshot, store: Store | None, language: str) -> str:
        if store is not None:
            snapshot = dataclasses.replace(snapshot, network=read_network(store, "renmin", AT), taken_at=AT)
        return fetched(snapshot, f"/network?lang={language}")

    return show


def test_what_disagrees_comes_first_and_only_of_this_site(store: Store) -> None:
    facts = read_network(store, "renmin", AT)
    assert [(one.protocol, one.port) for one in facts.cells] == [
        ("tcp", "22"),
        ("udp", "161"),
        ("tcp", "23"),
        ("tcp", "443"),
    ]
    assert facts.cells[0].nonce == "abcdef01" * 4
    assert (facts.scans[0].exposed, facts.lines[0].committed) == (["198.51.100.1:5432"], 1e8)
    assert not read_network(store, "renmin", AT + 8 * 86_400_000).cells


def test_page_shows_policy_against_wire_exposure_and_lines(snapshot: Snapshot, store: Store, page_of: Shown) -> None:
    body = page_of(snapshot, store, "en")
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))
    assert "outside → medical open 2 4 1 tcp/22" in shown
    assert "outside → medical tcp/22 blocked reached open" in shown
    assert "outside → medical udp/161 blocked unproven: the positive control was not seen unproven" in shown
    assert "outside → medical tcp/443 allowed reached as the policy says" in shown
    assert "abcdef01" in shown and "198.51.100.1:5432" in shown
    assert "city-line consult-1 up 2 100 Mbit/s 75 %, worst hour 50 %, known 0.277 %" in shown
    assert "<b>10.0.0.1</b>" not in body
    assert "UDP silent (no proof of closed) 7" in shown


def test_a_pair_without_a_hole_says_so(snapshot: Snapshot, rules: Rules, page_of: Shown) -> None:
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        store.write([AppliedBatch("renmin", "a", "", -1, "a", AT, AT, POINTS[:1], 0, ())])
        shown = [re.sub(r"<[^>]+>", " ", page_of(snapshot, store, language)).split() for language in ("zh", "en")]
    assert "outside → medical 与策略一致 1 1 0 无" in " ".join(shown[0])
    assert "outside → medical as the policy says 1 1 0 none" in " ".join(shown[1])


def test_neighbours_that_nobody_polls_are_held_against_the_register(
    snapshot: Snapshot, store: Store, page_of: Shown
) -> None:
    entry = Entry("sw-9", "assets", {})
    folder = dataclasses.replace(snapshot.folder, entries={"assets": {"sw-9": entry}})
    body = page_of(dataclasses.replace(snapshot, folder=folder), store, "en")
    shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body[body.index('id="neighbours"') :]))
    assert "&lt;i&gt;cabinet-switch&lt;/i&gt; not in the register fw-1" in shown
    assert "SW-9.hospital.local registered, not polled fw-1" in shown
    assert shown.index("cabinet-switch") < shown.index("SW-9") and "sw-1" not in shown


def test_a_cell_of_which_the_policy_says_nothing_is_not_called_blocked(
    snapshot: Snapshot, rules: Rules, page_of: Shown
) -> None:
    unsaid = cell("tcp/8080", is_as_expected=0.0, is_reached=1.0, outcome=1.0)
    fields = {key: value for key, value in unsaid.fields.items() if key != "is_allowed"}
    unsaid = Point(unsaid.name, unsaid.tags, fields, unsaid.timestamp)
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store, language.speaking("en"):
        store.write([AppliedBatch("renmin", "a", "", -1, "a", AT, AT, [unsaid], 0, ())])
        assert any("policy —, wire reached" in line for line in matrix_lines(read_network(store, "renmin", AT)))
        shown = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page_of(snapshot, store, "en")))
    assert "outside → medical tcp/8080 — reached" in shown


def test_zones_that_the_register_lacks_are_named(snapshot: Snapshot, store: Store, page_of: Shown) -> None:
    zones = {"medical": Entry("medical", "zones", {})}
    folder = dataclasses.replace(snapshot.folder, entries={"zones": zones}, has_register=True)
    told = "Zones that the register does not have under zones: "
    assert f"{told}outside<" in page_of(dataclasses.replace(snapshot, folder=folder), store, "en")
    folder = dataclasses.replace(folder, entries={"zones": zones | {"outside": Entry("outside", "zones", {})}})
    assert told not in page_of(dataclasses.replace(snapshot, folder=folder), store, "en")
    folder = dataclasses.replace(folder, entries={}, has_register=False)
    assert told not in page_of(dataclasses.replace(snapshot, folder=folder), store, "en"), "nothing to compare"


def test_page_is_chinese_first(snapshot: Snapshot, store: Store, page_of: Shown) -> None:
    body = page_of(snapshot, store, "zh")
    assert "策略与实测" in body and "有漏洞" in body and "未证实：阳性对照不可见" in body


def test_page_of_a_hospital_without_these_sources_says_what_to_do(snapshot: Snapshot, page_of: Shown) -> None:
    body = page_of(snapshot, None, "en")
    assert "isolation_responder" in body and "exposure_scan" in body and "path_probe" in body
