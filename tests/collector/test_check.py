"""One batch against catalogue and register: what stays, what is set aside and why."""

from collections.abc import Mapping

import pytest
from deliveries import ADDRESS, NOW, cpu

from agent.catalogue import load
from agent.points import Point, Value
from agent.wire import Address, Batch, Decoded, decode_batch
from collector.check import MOST_SERIES, Checked, Checker, find_header_trouble, measure_skew
from collector.reasons import MEANINGS, Reason
from collector.register import Owners

HOUR_MS = 3_600_000


def check(
    *points: Point, sent_at: int = NOW, register: Owners | None = None, checker: Checker | None = None
) -> Checked:
    checker = checker or Checker(load(), register or Owners())
    return checker.check(ADDRESS, Decoded(Batch(list(points), sent_at=sent_at), []), NOW)


def point(name: str, tags: Mapping[str, str], fields: Mapping[str, Value]) -> Point:
    return Point(name, {"asset": "srv-1", **tags}, fields, NOW)


def test_good_points_pass_as_they_are() -> None:
    good = [cpu(busy_ratio=0.25, iowait_ratio=0.0), point("filesystem", {"mount": "/数据 1"}, {"is_read_only": 0.0})]
    checked = check(*good)
    assert list(checked.points) == good
    assert checked.counts == {}
    assert checked.newcomers == {"srv-1"}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (point("no_such_thing", {}, {"busy_ratio": 0.5}), Reason.UNKNOWN_MEASUREMENT),
        (point("host_cpu", {"site": "other"}, {"busy_ratio": 0.5}), Reason.UNKNOWN_TAG),
        (point("filesystem", {"mount": ""}, {"used_ratio": 0.5}), Reason.BAD_TAG),
        (point("filesystem", {"mount": "x" * 201}, {"used_ratio": 0.5}), Reason.BAD_TAG),
        (point("filesystem", {"mount": "/a\nb"}, {"used_ratio": 0.5}), Reason.BAD_TAG),
        (point("redundant_group", {"group": "g", "kind": "horse"}, {"members_count": 2.0}), Reason.TAG_NOT_LISTED),
        (Point("host_cpu", {}, {"busy_ratio": 0.5}, NOW), Reason.BAD_ASSET),
        (cpu(asset="Not An Id"), Reason.BAD_ASSET),
        (point("host_cpu", {}, {}), Reason.NO_FIELD),
        (cpu(at=NOW // 1000), Reason.TOO_EARLY),
        (cpu(at=-5), Reason.TOO_EARLY),
        (cpu(at=NOW + 300_001), Reason.TOO_LATE),
        (cpu(at=32_503_680_000_000), Reason.TOO_LATE),
        (cpu(at=10**30), Reason.TOO_LATE),
    ],
)
def test_a_wrong_point_is_set_aside_and_its_neighbour_stays(wrong: Point, reason: Reason) -> None:
    checked = check(wrong, cpu())
    assert list(checked.points) == [cpu()]
    assert checked.counts == {reason: 1}
    assert checked.points_set_aside == 1


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("no_such_field", 0.5, Reason.UNKNOWN_FIELD),
        ("iowait_ratio", "much", Reason.WRONG_TYPE),
        ("iowait_ratio", True, Reason.WRONG_TYPE),
        ("iowait_ratio", float("nan"), Reason.NOT_FINITE),
        ("iowait_ratio", float("inf"), Reason.NOT_FINITE),
        ("iowait_ratio", 1.5, Reason.OUT_OF_RANGE),
        ("iowait_ratio", -0.1, Reason.OUT_OF_RANGE),
    ],
)
def test_a_wrong_field_is_set_aside_alone(field: str, value: Value, reason: Reason) -> None:
    checked = check(cpu(busy_ratio=0.5, **{field: value}))
    assert list(checked.points) == [cpu(busy_ratio=0.5)]
    assert checked.counts == {reason: 1}
    assert checked.points_set_aside == 0


def test_a_point_whose_only_field_is_wrong_goes_too() -> None:
    checked = check(cpu(busy_ratio=7.0))
    assert list(checked.points) == []
    assert checked.counts == {Reason.OUT_OF_RANGE: 1, Reason.NO_FIELD: 1}
    assert checked.points_set_aside == 1


def test_a_boolean_is_a_number_for_a_state_and_wrong_for_an_event() -> None:
    checked = check(
        point("filesystem", {"mount": "/"}, {"is_read_only": True, "is_responding": False}),
        point("role_change", {"group": "g", "kind": "vrrp"}, {"became_master": True}),
    )
    assert [dict(each.fields) for each in checked.points] == [{"is_read_only": 1.0, "is_responding": 0.0}]
    assert checked.counts == {Reason.WRONG_TYPE: 1, Reason.NO_FIELD: 1}


def test_a_label_is_text_of_bounded_length() -> None:
    checked = check(
        point("asset_info", {}, {"vendor": "华为", "model": 7.0, "os_name": "x" * 257, "os_version": "a\x1b[2J"})
    )
    assert [dict(each.fields) for each in checked.points] == [{"vendor": "华为"}]
    assert checked.counts == {Reason.WRONG_TYPE: 1, Reason.BAD_LABEL: 2}


def test_an_older_agent_may_lack_a_tag_that_the_catalogue_has() -> None:
    assert len(check(point("filesystem", {}, {"used_ratio": 0.5})).points) == 1


def test_null_is_an_absent_field_and_an_object_a_wrong_type() -> None:
    payload = b'{"metrics":[{"name":"host_cpu","tags":{"asset":"srv-1"},"fields":{"busy_ratio":1,"iowait_ratio":null,'
    payload += b'"steal_ratio":{"a":[1]}},"timestamp":%d}]}' % NOW
    checked = Checker(load(), Owners()).check(ADDRESS, decode_batch(payload), NOW)
    assert list(checked.points) == [cpu(busy_ratio=1.0)]
    assert checked.counts == {Reason.WRONG_TYPE: 1}


def test_seconds_are_asked_about_by_name() -> None:
    assert "seconds?" in MEANINGS[Reason.TOO_EARLY].text.en
    assert "秒" in MEANINGS[Reason.TOO_EARLY].text.zh
    assert set(MEANINGS) == set(Reason)


def test_an_asset_of_another_agent_is_not_yours() -> None:
    owners = Owners()
    owners.learn("hospital", {"srv-1": "srv-9"})
    checked = check(cpu(), cpu(asset="srv-2"), register=owners)
    assert list(checked.points) == [cpu(asset="srv-2")]
    assert checked.counts == {Reason.NOT_YOURS: 1}
    assert checked.newcomers == {"srv-2"}


def test_a_clock_that_is_an_hour_off_has_its_points_moved_with_their_spacing() -> None:
    ahead = check(cpu(at=NOW + HOUR_MS - 15_000), cpu(at=NOW + HOUR_MS), sent_at=NOW + HOUR_MS)
    behind = check(cpu(at=NOW - HOUR_MS - 15_000), cpu(at=NOW - HOUR_MS), sent_at=NOW - HOUR_MS)
    for checked, skew in ((ahead, -HOUR_MS), (behind, HOUR_MS)):
        assert [each.timestamp for each in checked.points] == [NOW - 15_000, NOW]
        assert checked.skew_ms == skew


def test_old_points_of_a_right_clock_keep_their_time() -> None:
    checked = check(cpu(at=NOW - 24 * HOUR_MS), sent_at=NOW - 60_000)
    assert [each.timestamp for each in checked.points] == [NOW - 24 * HOUR_MS]
    assert checked.skew_ms == 0


def test_waiting_for_us_is_no_skew() -> None:
    assert measure_skew(NOW - HOUR_MS, NOW, waiting_since=NOW - HOUR_MS) == 0
    assert measure_skew(NOW - 2 * HOUR_MS, NOW, waiting_since=NOW - HOUR_MS) == 2 * HOUR_MS
    assert measure_skew(NOW + HOUR_MS, NOW, waiting_since=NOW - HOUR_MS) == -HOUR_MS
    assert measure_skew(0, NOW, waiting_since=NOW) == 0


def test_two_values_for_one_identity_are_counted_and_repeating_is_not() -> None:
    checker = Checker(load(), Owners())
    assert check(cpu(busy_ratio=0.5), cpu(busy_ratio=0.75), checker=checker).conflicts == 1
    assert check(cpu(busy_ratio=0.75), cpu(iowait_ratio=0.5), checker=checker).conflicts == 0


def test_the_same_series_of_two_sites_is_no_conflict() -> None:
    checker = Checker(load(), Owners())
    for site, ratio in (("east", 0.25), ("west", 0.5)):
        batch = Decoded(Batch([cpu(busy_ratio=ratio)], sent_at=NOW), [])
        assert checker.check(Address(site, "srv-1"), batch, NOW).conflicts == 0


def test_another_order_of_the_same_series_is_held_against_the_right_ones() -> None:
    owners = Owners()
    owners.learn("hospital", {"srv-1": "srv-1", "srv-9": "srv-9"})
    checker = Checker(load(), owners)
    first, second = cpu(), point("filesystem", {"mount": "/"}, {"size_bytes": 1e9})
    assert list(check(first, second, checker=checker).points) == [first, second]
    other_name = point("filesystem", {"mount": "/var"}, {"size_bytes": 2e9})
    wrong_range, wrong_agent = cpu(busy_ratio=1e9), cpu(asset="srv-9")
    checked = check(first, other_name, first, wrong_agent, second, wrong_range, first, second, checker=checker)
    assert list(checked.points) == [first, other_name, first, second, first, second]
    assert checked.counts == {Reason.NOT_YOURS: 1, Reason.OUT_OF_RANGE: 1, Reason.NO_FIELD: 1}


def test_a_flood_of_series_is_still_checked_right() -> None:
    checker = Checker(load(), Owners())
    flood = [point("filesystem", {"mount": f"/{number}"}, {"used_ratio": 0.5}) for number in range(MOST_SERIES + 10)]
    assert len(check(*flood, checker=checker).points) == len(flood)
    assert check(cpu(busy_ratio=2.0), cpu(), checker=checker).counts == {Reason.OUT_OF_RANGE: 1, Reason.NO_FIELD: 1}


def test_what_is_kept_is_bounded_harmless_text_and_the_count_is_whole() -> None:
    wrong = [point("filesystem", {"mount": "\x1b[2J" + "x" * 5000}, {"used_ratio": 0.5}) for _ in range(1000)]
    checked = check(*wrong)
    assert checked.counts == {Reason.BAD_TAG: 1000}
    assert len(checked.kept) == 64
    assert all(len(item.what) <= 2000 and "\x1b" not in item.what for item in checked.kept)


def test_impossible_announcements_are_set_aside_and_the_batch_stays() -> None:
    dropped = [("boot", 0, 3, 40), ("boot", 5, 2, 1), ("b" * 100, 0, 1, 1), ("boot", 0, 2**62, 1), ("boot", 7, 7, -1)]
    checked = Checker(load(), Owners()).check(ADDRESS, Decoded(Batch([cpu()], dropped=dropped), []), NOW)
    assert list(checked.dropped) == [("boot", 0, 3, 40)]
    assert checked.counts == {Reason.BAD_DROPPED: 4}
    assert len(checked.points) == 1


@pytest.mark.parametrize(
    ("batch", "boot", "seq"),
    [
        (Batch([], "boot", -1, NOW), "", -1),
        (Batch([], "", 5, NOW), "", -1),
        (Batch([], "boot", 2**70, NOW), "", -1),
        (Batch([], "bo/ot", 1, NOW), "", -1),
        (Batch([], "boot", 1, NOW), "boot", 2),
        (Batch([], "boot", 1, NOW), "other", 1),
        (Batch([], "", -1, NOW), "boot", 1),
        (Batch([], "boot", 1, 10**20), "boot", 1),
        (Batch([], "boot", 1, -1), "boot", 1),
    ],
)
def test_a_header_that_cannot_be_is_found(batch: Batch, boot: str, seq: int) -> None:
    assert find_header_trouble(batch, boot, seq)


def test_our_own_header_and_a_foreign_one_are_right() -> None:
    assert find_header_trouble(Batch([], "boot", 0, NOW), "boot", 0) is None
    assert find_header_trouble(Batch([], "boot", 0, NOW), "", -1) is None
    assert find_header_trouble(Batch([]), "", -1) is None
