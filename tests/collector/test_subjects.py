"""Who is asked: the register's entries, what was seen, and parts that a complete inventory no longer lists."""

from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

import pytest

from agent.points import Point
from collector.evaluate import Rules, parse_time
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules, memory_store
from collector.site_folder import Entry, SiteFolder
from collector.stores import AppliedBatch, Store
from collector.subjects import Chosen, Sightings, choose_subjects

AS_OF = parse_time("2026-03-31T12:00:00+08:00")
ZONE = ZoneInfo("Asia/Shanghai")
REDUNDANT, PEAK = "redundant-component-health", "core-link-peak-util"
_serial = iter(range(10**9))


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


def write(store: Store, name: str, tags: dict[str, str], field: str, value: float, times: Sequence[int]) -> None:
    points = [Point(name, tags, {field: value}, time) for time in times]
    store.write([AppliedBatch("hospital", "gw", "", -1, f"{next(_serial)}", AS_OF, AS_OF, points, 0, ())])


def write_interface(store: Store, asset: str, interface: str, until: int = AS_OF) -> None:
    times = range(AS_OF - 3 * DAY_MS, until, HOUR_MS // 2)
    write(store, "net_interface", {"asset": asset, "interface": interface}, "busy_ratio", 0.1, times)


def write_rounds(store: Store, asset: str, is_complete: float) -> None:
    tags = {"asset": asset, "source": "snmp", "target": asset}
    write(store, "source_round", tags, "is_complete", is_complete, range(AS_OF - 3 * DAY_MS, AS_OF, HOUR_MS // 2))


def chosen(store: Store, rules: Rules, name: str, *entries: Entry, has_register: bool = True) -> Chosen:
    plan = rules.plans[name].main
    folder = SiteFolder(ZONE, has_register, {"assets": {entry.id: entry for entry in entries}})
    return choose_subjects(Sightings(store, AS_OF), plan, plan.question(AS_OF, ZONE, "hospital"), folder, name)


def core(name: str, **more: int) -> Entry:
    return Entry(name, "assets", {"role": ("core",)}, **more)


def test_part_that_a_later_complete_round_no_longer_lists_is_expected_until_it_was_last_seen(
    store: Store, rules: Rules
) -> None:
    gone_at = AS_OF - DAY_MS
    write_interface(store, "sw-1", "te1")
    write_interface(store, "sw-1", "te2", until=gone_at)
    write_rounds(store, "sw-1", 1.0)
    found = {one.key[1]: one.until for one in chosen(store, rules, PEAK, core("sw-1")).subjects}
    assert found["te1"] > AS_OF
    assert gone_at <= found["te2"] <= gone_at + HOUR_MS


def test_part_of_a_device_whose_rounds_are_not_complete_stays_expected(store: Store, rules: Rules) -> None:
    write_interface(store, "sw-1", "te1", until=AS_OF - DAY_MS)
    write_rounds(store, "sw-1", 0.0)
    write_interface(store, "sw-2", "te1", until=AS_OF - DAY_MS)
    found = chosen(store, rules, PEAK, core("sw-1"), core("sw-2")).subjects
    assert all(one.until > AS_OF for one in found) and len(found) == 2


def test_registered_entry_that_never_reported_is_a_subject_all_the_same(store: Store, rules: Rules) -> None:
    write_interface(store, "sw-1", "te1")
    keys = [one.key for one in chosen(store, rules, PEAK, core("sw-1"), core("sw-2")).subjects]
    assert keys == [("sw-1", "te1"), ("sw-2", "")]


def test_entry_with_other_attributes_and_what_is_not_registered_are_not_asked(store: Store, rules: Rules) -> None:
    for asset in ("sw-1", "sw-2", "sw-3"):
        write_interface(store, asset, "te1")
    edge = Entry("sw-2", "assets", {"role": ("edge",)})
    assert [one.key[0] for one in chosen(store, rules, PEAK, core("sw-1"), edge).subjects] == ["sw-1"]
    everybody = chosen(store, rules, PEAK, has_register=False).subjects
    assert [one.key[0] for one in everybody] == ["sw-1", "sw-2", "sw-3"]


def test_entry_counts_from_its_date_until_it_left(store: Store, rules: Rules) -> None:
    since, until = AS_OF - 10 * DAY_MS, AS_OF - DAY_MS
    write_interface(store, "sw-1", "te1")
    (one,) = chosen(store, rules, PEAK, core("sw-1", since=since, until=until)).subjects
    assert (one.since, one.until) == (since, until)
    assert chosen(store, rules, PEAK, core("sw-1", until=AS_OF - 90 * DAY_MS)).subjects == ()
    assert chosen(store, rules, PEAK, core("sw-1", since=AS_OF + 1)).subjects == ()


def test_part_that_came_later_owes_nothing_from_before_it_was_there(store: Store, rules: Rules) -> None:
    since = AS_OF - 20 * DAY_MS
    write_interface(store, "sw-1", "te1")
    tags = {"asset": "sw-1", "interface": "te2"}
    write(store, "net_interface", tags, "busy_ratio", 0.1, range(AS_OF - DAY_MS, AS_OF, HOUR_MS))
    found = {one.key[1]: one.since for one in chosen(store, rules, PEAK, core("sw-1", since=since)).subjects}
    assert found == {"te1": since, "te2": AS_OF - DAY_MS}
