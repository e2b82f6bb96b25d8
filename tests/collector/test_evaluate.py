"""Evaluation over the real embedded store: expected is counted, and nothing rises because a sensor died."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from agent.points import Point
from collector.evaluate import Rules, evaluate, evaluate_criteria, format_time, parse_time
from collector.evidence import CriterionResult
from collector.inquiry import Site
from collector.intervals import Intervals
from collector.query import HOUR_MS
from collector.ruleset import load_rules, memory_store
from collector.server import revise
from collector.stores import AppliedBatch, OffersInstant, Store

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
COMPLETENESS = "telemetry-completeness"
SITE = Site("a-site", ZoneInfo("Asia/Shanghai"))
EVERY_MS = 10 * 60_000


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="module")
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


_serial = iter(range(10**9))


def a_site() -> Site:
    """A site of its own in the shared store."""
    return Site(f"site-{next(_serial)}", SITE.zone)


def write(store: Store, site: Site, hours: Sequence[int], success: float = 1.0, asset: str = "srv-1") -> None:
    """Rounds every ten minutes in these hours before AS_OF (1 is the last), one batch for each hour."""
    for hour in hours:
        start = AS_OF - hour * HOUR_MS
        tags = {"asset": asset, "source": "host_cpu", "target": "local"}
        fields = {"is_success": success, "interval_seconds": EVERY_MS / 1000}
        points = [Point("source_round", tags, fields, time) for time in range(start, start + HOUR_MS, EVERY_MS)]
        store.write([AppliedBatch(site.id, asset, "", -1, f"{asset}-{hour}-{success}", start, start, points, 0, ())])


def completeness(store: Store, rules: Rules, site: Site, as_of: int = AS_OF) -> CriterionResult:
    return evaluate_criteria(store, rules, site, as_of, [COMPLETENESS])[COMPLETENESS]


def test_full_window_since_enrolment_is_scored_with_full_marks(store: Store, rules: Rules) -> None:
    site = a_site()
    write(store, site, range(1, 25))
    found = completeness(store, rules, site)
    assert (found.status, found.low, found.high, found.value) == ("scored", 100, 100, 1.0)
    assert (found.expected, found.found, found.samples, found.coverage) == (24, 24, 144, 1.0)


def test_dead_hours_count_as_worst_in_low_and_best_in_high(store: Store, rules: Rules) -> None:
    site = a_site()
    write(store, site, [hour for hour in range(1, 25) if hour not in (3, 4, 5)])
    found = completeness(store, rules, site)
    assert (found.expected, found.found, found.value) == (24, 21, 0.875)
    assert (found.low, found.high) == (30, 100)


def test_less_than_is_needed_is_no_data_with_a_provisional_value_that_earns_nothing(store: Store, rules: Rules) -> None:
    site = a_site()
    start = AS_OF - HOUR_MS // 2
    tags = {"asset": "srv-1", "source": "host_cpu", "target": "local"}
    points = [Point("source_round", tags, {"is_success": 1.0, "interval_seconds": 15.0}, start)]
    store.write([AppliedBatch(site.id, "srv-1", "", -1, "one", start, start, points, 0, ())])
    found = completeness(store, rules, site)
    assert (found.status, found.low, found.high, found.coverage) == ("no_data", 0, 100, 0)
    assert found.provisional is not None and found.provisional.points == 100
    assert found.reason is not None and "1 h" in found.reason.en
    assert found.provisional.rests_on is not None
    assert "still open or on ones with too few" in found.provisional.rests_on.en


def test_value_from_the_open_bucket_alone_says_so(store: Store, rules: Rules) -> None:
    site, minute = a_site(), 60_000
    start = AS_OF + 10 * minute
    tags = {"asset": "srv-1", "source": "host_cpu", "target": "local"}
    points = [Point("source_round", tags, {"is_success": 1.0, "interval_seconds": 15.0}, start)]
    store.write([AppliedBatch(site.id, "srv-1", "", -1, "one", start, start, points, 0, ())])
    found = completeness(store, rules, site, AS_OF + 20 * minute)
    assert found.found == 0 and found.provisional is not None and found.provisional.rests_on is not None
    assert found.provisional.rests_on.en == "this rests on the bucket that is still open alone, and earns nothing yet"
    assert found.provisional.rests_on.zh == "此值只取自尚未结束的时间桶，还不计分"


def test_value_from_closed_buckets_that_do_not_span_enough_needs_no_such_words(store: Store, rules: Rules) -> None:
    site = a_site()
    points = [
        Point("asset_info", {"asset": "srv-1"}, {"is_up": 1.0, "is_virtual": 1.0}, AS_OF - hour * HOUR_MS)
        for hour in range(1, 48)
    ]
    store.write([AppliedBatch(site.id, "srv-1", "", -1, "up", AS_OF, AS_OF, points, 0, ())])
    found = evaluate_criteria(store, rules, site, AS_OF, ["dr-site-readiness"])["dr-site-readiness"]
    assert found.found > 0 and found.provisional is not None and found.provisional.rests_on is None


def test_what_came_after_as_of_changes_nothing(store: Store, rules: Rules) -> None:
    site = a_site()
    write(store, site, range(10, 25))
    just_before = AS_OF - 9 * HOUR_MS - 1  # a point at as-of itself belongs to it
    before = evaluate(store, rules, site, just_before)
    write(store, site, range(1, 10))
    write(store, site, range(1, 10), asset="srv-2")
    assert evaluate(store, rules, site, just_before) == before


class Plain:
    """A store that offers no instant: every call is the other's."""

    def __init__(self, store: Store) -> None:
        self.buckets, self.compiled, self.subjects = store.buckets, store.compiled, store.subjects


def test_scorecard_is_the_same_from_a_store_that_offers_no_instant(store: Store, rules: Rules) -> None:
    site = a_site()
    write(store, site, range(2, 25))
    plain = cast(Store, Plain(store))
    assert isinstance(store, OffersInstant) and not isinstance(plain, OffersInstant)
    card = evaluate(store, rules, site, AS_OF)
    assert evaluate(plain, rules, site, AS_OF) == card
    assert evaluate(store, rules, site, AS_OF - 4 * HOUR_MS) != card


def test_host_that_is_silent_stays_a_subject(store: Store, rules: Rules) -> None:
    site = a_site()
    write(store, site, range(1, 25))
    write(store, site, range(20, 25), asset="srv-2")
    found = completeness(store, rules, site)
    assert found.subjects == 2
    assert found.value == pytest.approx((1 + 5 / 24) / 2)
    assert found.worst[0].subject["asset"] == "srv-2"


def test_sites_do_not_see_each_other(store: Store, rules: Rules) -> None:
    one, other = a_site(), a_site()
    write(store, one, range(1, 5))
    assert completeness(store, rules, other).reason is not None
    assert completeness(store, rules, other).subjects == 0


def test_criterion_on_attributes_is_provisional_at_most_without_a_register(store: Store, rules: Rules) -> None:
    site = a_site()
    tags = {"asset": "srv-1", "group": "md0", "kind": "raid"}
    points = [Point("redundant_group", tags, {"is_healthy": 1.0}, AS_OF - hour * HOUR_MS) for hour in range(1, 48)]
    store.write([AppliedBatch(site.id, "srv-1", "", -1, "raid", AS_OF, AS_OF, points, 0, ())])
    found = evaluate_criteria(store, rules, site, AS_OF, ["redundant-component-health"])["redundant-component-health"]
    assert found.status == "no_data" and found.low == 0
    assert found.provisional is not None and found.provisional.points == 100
    assert found.reason is not None
    assert found.reason.zh == "取全部已见资产：没有资产登记，无法只看 criticality = critical；最多给出暂估"
    assert found.reason.en == (
        "all seen assets, since there is no register to tell which have criticality = critical; provisional at most"
    )


def test_stored_revision_is_found_again_and_new_content_gets_the_next(store: Store, rules: Rules) -> None:
    site = a_site()
    write(store, site, range(3, 25))
    first = evaluate(store, rules, site, AS_OF)
    assert revise(store, first, AS_OF).revision == 1
    assert store.save_scorecard(site.id, AS_OF, first.identity(), b"{}", AS_OF) == 1
    assert revise(store, first, AS_OF).revision == 1
    write(store, site, [1, 2])
    late = evaluate(store, rules, site, AS_OF)
    assert revise(store, late, AS_OF).revision == 2
    assert store.save_scorecard(site.id, AS_OF, late.identity(), b"{}", AS_OF) == 2


def test_times_come_in_with_an_offset_and_go_out_in_utc() -> None:
    assert format_time(parse_time("2026-03-31T08:00:00+08:00")) == "2026-03-31T00:00:00Z"
    with pytest.raises(ValueError):
        parse_time("2026-03-31T08:00:00")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.lists(st.booleans(), min_size=12, max_size=12), good=st.lists(st.booleans(), min_size=12, max_size=12))
def test_removing_any_hours_never_raises_low_nor_lowers_high(
    store: Store, rules: Rules, kept: list[bool], good: list[bool]
) -> None:
    whole, holed = a_site(), a_site()
    for place in range(12):
        hour = 13 - place  # hour 13 is the enrolment of both: a subject's first sight is never pruned
        for site in (whole, holed):
            if site is whole or kept[place] or place == 0:
                write(store, site, [hour], success=float(good[place]))
    full, less = completeness(store, rules, whole), completeness(store, rules, holed)
    assert less.low <= full.low and less.high >= full.high
    assert less.low <= less.high and full.low <= full.high


def test_device_that_a_gateway_polls_is_held_to_the_gateways_interval(store: Store, rules: Rules) -> None:
    """Its interfaces are declared for 15 s, as on a server; polled once a minute they are whole, polled half as often not."""
    minute = 60_000
    for told_seconds, is_found in ((60.0, True), (20.0, False)):
        site = a_site()
        start = AS_OF - 3 * 24 * HOUR_MS
        tags = {"asset": "sw-1", "interface": "uplink"}
        points = [
            Point("net_interface", tags, {"speed_bits_per_second": 1e10}, at) for at in range(start, AS_OF, minute)
        ]
        told = {"asset": "gateway", "source": "snmp_device", "target": "sw-1"}
        points += [
            Point("source_round", told, {"is_success": 1.0, "interval_seconds": told_seconds}, at)
            for at in range(start, AS_OF, HOUR_MS)
        ]
        store.write([AppliedBatch(site.id, "gateway", "", -1, site.id, AS_OF, AS_OF, points, 0, ())])
        found = evaluate_criteria(store, rules, site, AS_OF, ["backbone-bandwidth-class"])["backbone-bandwidth-class"]
        assert (found.found > 0) is is_found, (told_seconds, found)


ISOLATION, PATH_LOSS = "zone-isolation-proven", "telemed-loss"
DAYS, FIRST_MINUTE, LAST_MINUTE = 8, 70, 300


def probed(
    is_told: bool,
    missing_days: Sequence[int] = (),
    last_minute: int = LAST_MINUTE,
    missing: range = range(FIRST_MINUTE, LAST_MINUTE),
) -> list[Point]:
    """A prober that is on from 01:10 to 05:00 of every day, once a minute; the days before AS_OF on which it is silent meanwhile.

    missing: the minutes of such a day, where it is not silent all the time.
    """
    cell = {"asset": "office-probe", "from_zone": "office", "to_zone": "medical"}
    points = []
    for minute in range(DAYS * 1440):
        at, of_day = AS_OF - DAYS * 24 * HOUR_MS + minute * 60_000, minute % 1440
        is_on = FIRST_MINUTE <= of_day < last_minute
        if is_on and of_day in missing and DAYS - minute // 1440 in missing_days:
            continue
        for source in ("isolation_probe", "path_probe"):
            about = {"asset": "office-probe", "source": source, "target": "local"}
            said = {"interval_seconds": 60.0} | ({"is_off": 0.0 if is_on else 1.0} if is_told else {})
            points.append(Point("source_round", about, said | ({"is_success": 1.0} if is_on else {}), at))
        if is_on:
            points.append(
                Point("isolation_cell", {**cell, "protocol": "tcp", "port": "22"}, {"is_as_expected": 1.0}, at)
            )
            points.append(Point("isolation_control", cell, {"is_seen": 1.0}, at))
            points.append(
                Point("path_probe", {"asset": "office-probe", "target": "city", "probe": "p"}, {"loss_ratio": 0.0}, at)
            )
    return points


@pytest.mark.parametrize(
    ("is_told", "missing_days", "is_whole"),
    [(True, (), True), (False, (), False), (True, (3,), False)],
    ids=["told hours", "hours that nobody told", "silent within its hours on one day"],
)
def test_probe_outside_of_its_hours_leaves_no_gap_and_a_dead_one_does(
    store: Store, rules: Rules, is_told: bool, missing_days: Sequence[int], is_whole: bool
) -> None:
    site = a_site()
    points = probed(is_told, missing_days)
    store.write([AppliedBatch(site.id, "office-probe", "", -1, site.id, AS_OF, AS_OF, points, 0, ())])
    found = evaluate_criteria(store, rules, site, AS_OF, [ISOLATION, PATH_LOSS])
    cells, loss = found[ISOLATION], found[PATH_LOSS]
    assert (cells.expected == cells.found) is is_whole
    assert cells.low == (100 if is_whole else 0)
    assert loss.provisional is not None  # the register alone can say what a line is: seen, not earned
    assert (loss.expected == loss.found) is is_whole, loss


@pytest.mark.parametrize(
    ("last_minute", "missing", "gap"),
    [
        (LAST_MINUTE, range(70, 120), 10),
        (LAST_MINUTE, range(90, 120), 6),
        (290, range(240, 290), 10),
        (290, range(240, 260), 4),
        (110, range(70, 110), 8),
        (110, range(80, 100), 4),
    ],
    ids=["opening", "late in it", "closing", "early in it", "shorter than an hour", "in the midst of it"],
)
def test_probe_that_is_dead_in_the_hour_at_the_edge_leaves_a_gap(
    store: Store, rules: Rules, last_minute: int, missing: range, gap: int
) -> None:
    """Of that hour a bucket of five minutes says for itself whether it lies within the probe's hours."""
    lacking = []
    for missing_days in ((), (3,)):
        site = a_site()
        points = probed(True, missing_days, last_minute, missing)
        store.write([AppliedBatch(site.id, "office-probe", "", -1, site.id, AS_OF, AS_OF, points, 0, ())])
        found = evaluate_criteria(store, rules, site, AS_OF, [PATH_LOSS])[PATH_LOSS]
        lacking.append(found.expected - found.found)
    assert lacking == [0, gap]


def test_probe_that_is_dead_within_hours_shorter_than_one_is_a_gap_too(store: Store) -> None:
    """On from 01:10 to 01:50, and dead meanwhile: all that it says of the hour and of the day is that it was off."""
    expected = []
    for missing_days in ((), (3,)):
        site = a_site()
        points = probed(True, missing_days, last_minute=110)
        store.write([AppliedBatch(site.id, "office-probe", "", -1, site.id, AS_OF, AS_OF, points, 0, ())])
        found = Intervals.read(store, site.id, AS_OF - DAYS * 24 * HOUR_MS, AS_OF)
        for each_ms, offset_ms in ((HOUR_MS, HOUR_MS), (24 * HOUR_MS, 0)):
            least = found.least("office-probe", ("path_probe",), 60.0, each_ms, AS_OF - DAYS * 24 * HOUR_MS)
            at = AS_OF - 3 * 24 * HOUR_MS + offset_ms
            expected.append([samples for start, samples in least if start <= at][-1])
    alive, dead = expected[:2], expected[2:]
    assert alive == dead == [35, 35]


def told_by(assets: Mapping[str, Mapping[tuple[str, str], float]]) -> list[Point]:
    """What agents say of their sources and targets, every hour of a day: agent -> (source, target) -> seconds."""
    return [
        Point("source_round", {"asset": agent, "source": source, "target": target}, {"interval_seconds": seconds}, at)
        for agent, rounds in assets.items()
        for (source, target), seconds in rounds.items()
        for at in range(AS_OF - 24 * HOUR_MS, AS_OF, HOUR_MS)
    ]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"gw": {("snmp_device", "sw-1"): 60.0}}, 60.0),
        ({"gw": {("snmp_device", "sw-1"): 600.0}}, 600.0),
        ({"gw": {("snmp_device", "sw-1"): 5.0}}, 15.0),
        ({"gw": {("snmp_device", "sw-1"): 5.0}, "sw-1": {("host_network", "local"): 5.0}}, 5.0),
        ({"sw-1": {("host_network", "local"): 5.0}}, 5.0),
        ({"sw-1": {("host_network", "local"): 5.0}, "gw": {("snmp_device", "sw-1"): 60.0}}, 60.0),
        ({"gw-1": {("snmp_device", "sw-1"): 20.0}, "gw-2": {("snmp_device", "sw-1"): 60.0}}, 60.0),
        ({"gw": {("snmp_device", "other"): 60.0}}, 15.0),
    ],
    ids=[
        "as the gateway polls",
        "seldom",
        "no oftener than is declared while another source is silent",
        "unless all have said so",
        "its own agent alone",
        "the less frequent of two sources",
        "the less frequent of two gateways",
        "another device",
    ],
)
def test_subject_is_held_to_the_least_frequent_of_those_that_gather_it(
    store: Store, told: Mapping[str, Mapping[tuple[str, str], float]], seconds: float
) -> None:
    site = a_site()
    store.write([AppliedBatch(site.id, "gw", "", -1, site.id, AS_OF, AS_OF, told_by(told), 0, ())])
    found = Intervals.read(store, site.id, AS_OF - 24 * HOUR_MS, AS_OF)
    assert found.of("sw-1", ("host_network", "snmp_device"), 15.0)[-1][1] == seconds
