"""A year of scorecards by days: what is read of it, how often, and what moved a score between two days."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from influxstore import config_of
from stored_cards import SITE, store_card

from agent.errors import StoreError
from collector.evaluate import Rules, parse_time
from collector.past import Cause, DayCard, Past, causes_of, midnights
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules
from collector.stores import ScorecardRow, Store, StoredScorecard, duckdb, influxdb

ZONE = ZoneInfo("Asia/Shanghai")
NOW = parse_time("2026-03-31T18:20:00+08:00")
TODAY = parse_time("2026-03-31T00:00:00+08:00")
SECURITY, AVAILABILITY = "hospital.network-security", "hospital.data-availability"


class Read:
    """What was asked of a store."""

    def __init__(self) -> None:
        self.edges: list[int] = []
        self.bodies: list[int] = []

    def take(self) -> tuple[list[int], list[int]]:
        """How many edges each question named and the moments of the bodies since the last asking."""
        found = self.edges, self.bodies
        self.edges, self.bodies = [], []
        return found


class CountedDuckDB(duckdb.Store):
    read = Read()
    lost = 0
    """The moment of a scorecard whose body went missing."""

    def last_scorecards(self, site: str, edges: Sequence[int]) -> list[ScorecardRow]:
        self.read.edges.append(len(edges))
        return super().last_scorecards(site, edges)

    def scorecard_at(self, site: str, as_of: int, revision: int | None = None) -> StoredScorecard | None:
        self.read.bodies.append(as_of)
        if as_of == self.lost:
            raise StoreError("the body of a scorecard is missing")
        return super().scorecard_at(site, as_of, revision)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture
def counted(rules: Rules) -> Iterator[CountedDuckDB]:
    with CountedDuckDB(duckdb.Config(path=":memory:"), rules.catalogue) as store:
        store.read = Read()
        yield store


@pytest.fixture(params=["duckdb", "influxdb"])
def store(rules: Rules, request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "duckdb":
        with duckdb.Store(duckdb.Config(path=":memory:"), rules.catalogue) as embedded:
            yield embedded
    else:
        config = config_of(request.getfixturevalue("influx"), request.getfixturevalue("database"))
        with influxdb.Store(config, rules.catalogue) as served:
            yield served


def read(past: Past, store: Store, now: int = NOW) -> Sequence[DayCard]:
    return past.read(store, SITE, ZONE, now)


# -- what is read


def test_of_each_day_of_the_site_the_last_scorecard_is_read_with_all_its_numbers(store: Store, rules: Rules) -> None:
    for hour, points in ((-30, 10.0), (-1, 20.0), (0, 30.0), (17, 40.0)):
        store_card(store, rules, TODAY + hour * HOUR_MS, {"telemetry-completeness": points})
    last = store_card(store, rules, TODAY + 18 * HOUR_MS, {"telemetry-completeness": 55.0})
    days = read(Past(), store)
    assert [(one.as_of - TODAY) // HOUR_MS for one in days] == [-30, -1, 18]
    assert [one.criteria["telemetry-completeness"].low for one in days] == [10.0, 20.0, 55.0]
    for node in last.nodes:
        found = days[-1].nodes[node.id]
        assert (found.low, found.high, found.coverage, found.parent) == (
            node.low,
            node.high,
            node.coverage,
            node.parent or "",
        )


def test_days_are_those_of_a_year_and_begin_at_the_site_s_midnight_also_where_clocks_are_put_on() -> None:
    edges = midnights(ZoneInfo("Europe/Berlin"), parse_time("2026-03-31T18:20:00+02:00"))
    assert len(edges) == 367 and edges[0] == parse_time("2025-03-31T00:00:00+02:00")
    assert edges[-1] == parse_time("2026-04-01T00:00:00+02:00")
    lengths = {(after - before) // HOUR_MS for before, after in pairwise(edges)}
    assert lengths == {23, 24, 25}


def test_a_scorecard_older_than_a_year_is_not_drawn(counted: CountedDuckDB, rules: Rules) -> None:
    for back in (366, 365):
        store_card(counted, rules, TODAY - back * DAY_MS + HOUR_MS, {})
    assert [one.as_of for one in read(Past(), counted)] == [TODAY - 365 * DAY_MS + HOUR_MS]


def test_what_did_not_change_is_never_read_again(counted: CountedDuckDB, rules: Rules) -> None:
    for back in range(25):
        for hour in (1, 9, 18):
            store_card(counted, rules, TODAY - back * DAY_MS + hour * HOUR_MS, {"telemetry-completeness": back})
    past, taken = Past(bodies_at_once=10), counted.read.take
    newest_first = [TODAY - back * DAY_MS + 18 * HOUR_MS for back in range(25)]
    for number, length in enumerate((10, 10, 5)):
        days = read(past, counted)
        assert taken()[1] == newest_first[10 * number : 10 * number + length]
        assert sum(one.is_read for one in days) == 10 * number + length and len(days) == 25
    for second in range(5):
        read(past, counted, NOW + second * 1000)
    assert taken() == ([4] * 5, []), "only the last three days are asked for, and no scorecard is decoded"

    store_card(counted, rules, TODAY - DAY_MS + 12 * HOUR_MS, {})
    read(past, counted)
    assert taken()[1] == [], "it is not the last of its day"
    store_card(counted, rules, TODAY - DAY_MS + 18 * HOUR_MS, {"telemetry-completeness": 77.0})
    store_card(counted, rules, TODAY + 19 * HOUR_MS, {"telemetry-completeness": 88.0})
    days = read(past, counted, NOW + HOUR_MS)
    assert taken()[1] == [TODAY + 19 * HOUR_MS, TODAY - DAY_MS + 18 * HOUR_MS], "a new one and a revision"
    assert [(one.revision, one.criteria["telemetry-completeness"].low) for one in days[-2:]] == [(2, 77.0), (1, 88.0)]


def test_the_whole_year_is_listed_again_when_a_day_begins_and_old_days_that_were_put_in_appear(
    counted: CountedDuckDB, rules: Rules
) -> None:
    past = Past()
    store_card(counted, rules, TODAY, {})
    read(past, counted)
    store_card(counted, rules, TODAY - 200 * DAY_MS, {})
    assert len(read(past, counted)) == 1
    counted.read.take()
    assert len(read(past, counted, NOW + DAY_MS)) == 2
    assert counted.read.take() == ([367], [TODAY - 200 * DAY_MS])


def test_until_a_body_is_read_and_where_it_is_none_of_ours_its_summary_is_shown(
    counted: CountedDuckDB, rules: Rules
) -> None:
    card = store_card(counted, rules, TODAY - DAY_MS, {"telemetry-completeness": 50.0})
    foreign = '{"low":1,"high":2,"coverage":0.5,"nodes":{"hospital.network-security":[7.0,90.0]}}'
    counted.save_scorecard(SITE, TODAY, "foreign", b'{"nodes": "of another program"}', TODAY, "", foreign)
    counted.save_scorecard(SITE, TODAY - 2 * DAY_MS, "bare", b"", TODAY)
    past = Past(bodies_at_once=1)
    bare, unread, other = read(past, counted)
    assert [one.is_read for one in (bare, unread, other)] == [False, False, True]
    node = next(one for one in card.nodes if one.id == SECURITY)
    assert unread.nodes[SECURITY][2:] == (node.low, node.high, round(node.coverage, 4))
    assert other.nodes[SECURITY][2:] == (7.0, 90.0, None) and not bare.nodes
    for _ in range(3):
        days = read(past, counted)
    assert [one.is_read for one in days] == [True] * 3
    assert len(counted.read.take()[1]) == 3, "what cannot be read is not tried again"


def test_a_body_that_went_missing_costs_the_pages_nothing_but_itself(
    counted: CountedDuckDB, rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    for back in (1, 2, 3):
        store_card(counted, rules, TODAY - back * DAY_MS, {"telemetry-completeness": 50.0})
    counted.lost = TODAY - 2 * DAY_MS
    past = Past()
    for _ in range(3):
        days = read(past, counted)
    assert [one.is_read for one in days] == [True, False, True] and SECURITY in days[1].nodes
    assert counted.read.take()[1].count(counted.lost) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "一份旧评分卡读不出来：the body of a scorecard is missing"
    ]


# -- what moved a score


def days_of(store: Store, past: Past | None = None) -> tuple[DayCard, DayCard]:
    before, after = read(past or Past(), store)
    return before, after


def test_causes_add_up_to_the_change_and_the_largest_comes_first(counted: CountedDuckDB, rules: Rules) -> None:
    store_card(counted, rules, TODAY - DAY_MS, {"telemetry-completeness": 40.0, "log-retention-days": 90.0})
    store_card(counted, rules, TODAY, {"telemetry-completeness": 100.0, "log-retention-days": 30.0})
    before, after = days_of(counted)
    causes = causes_of(before, after, SECURITY)
    assert [(one.kind, one.id, one.before, one.after) for one in (causes[0], causes[-1])] == [
        ("criterion", "telemetry-completeness", 40.0, 100.0),
        ("criterion", "log-retention-days", 90.0, 30.0),
    ]
    change = after.nodes[SECURITY].low - before.nodes[SECURITY].low
    assert sum(one.points for one in causes) == pytest.approx(change)
    assert causes_of(before, after, AVAILABILITY) == [], "nothing below the other indicator moved"


def test_a_cap_that_came_to_hold_is_a_cause_of_its_own(counted: CountedDuckDB, rules: Rules) -> None:
    cap = next(one for one in rules.book.index.caps if one.node.startswith(SECURITY))
    below = {one.id: 100.0 for place in rules.book.places() if place.path == cap.node for one in place.node.criteria}
    store_card(counted, rules, TODAY - DAY_MS, below)
    store_card(counted, rules, TODAY, below, {cap.id: "met"})
    before, after = days_of(counted)
    change = after.nodes[SECURITY].low - before.nodes[SECURITY].low
    assert change < -1
    [cause] = causes_of(before, after, SECURITY)
    assert cause == Cause("cap", cap.node, pytest.approx(change), 0.0, 0.0)


def test_without_whole_scorecards_nothing_is_blamed(counted: CountedDuckDB, rules: Rules) -> None:
    store_card(counted, rules, TODAY - DAY_MS, {"telemetry-completeness": 40.0})
    store_card(counted, rules, TODAY, {"telemetry-completeness": 100.0})
    before, after = days_of(counted, Past(bodies_at_once=1))
    assert causes_of(before, after, SECURITY) == [] and before.nodes[SECURITY].low < after.nodes[SECURITY].low
