"""What the pages of the first days, of attestations and of history say, and what the first page adds to the figures."""

import dataclasses
from typing import Any
from zoneinfo import ZoneInfo

from agent.language import Language, speaking
from collector.evaluate import parse_time
from collector.snapshot import Snapshot
from collector.web.attestations_view import attestations_view
from collector.web.history_view import history_view, reader_s_half
from collector.web.plot import Moment, draw
from collector.web.start_view import after, start_view
from collector.web.views import readiness_view

HOUR, DAY = 3_600_000, 86_400_000
SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")


def values(language: Language, view: Any, snapshot: Snapshot) -> dict[str, Any]:
    """What a page lays out, in one language."""
    with speaking(language):
        found: dict[str, Any] = view(snapshot).values
    return found


# -- the first days


def test_the_first_day_says_when_the_first_criterion_counts_and_when_its_window_is_full(just_begun: Snapshot) -> None:
    def row(language: Language) -> tuple[str, str, str, str]:
        rows = values(language, start_view, just_begun)["ripening"]
        found = next(one for one in rows if one.criterion.path == "/criterion/telemetry-completeness")
        return found.word, found.value, found.counts, found.full

    assert row("zh") == ("暂估", "100 %", "2026-03-31 10:00 (满 1 小时)", "2026-04-30 10:00 (30 天 窗口)")
    assert row("en") == ("provisional", "100 %", "2026-03-31 10:00 (1 h full)", "2026-04-30 10:00 (30 d window)")


def test_what_counts_already_says_so_and_what_its_window_lacks(vouched: Snapshot) -> None:
    rows = {row.criterion.path: row for row in values("zh", start_view, vouched)["ripening"]}
    rounds = rows["/criterion/telemetry-completeness"]
    assert (rounds.counts, rounds.full) == ("已计分", "已满，缺 5062 桶")


def test_a_bucket_edge_is_the_next_one_and_days_begin_at_the_site_s_midnight() -> None:
    noon = parse_time("2026-03-28T12:34:00+01:00")
    assert after(noon, HOUR, 1, BERLIN) == parse_time("2026-03-28T14:00:00+01:00")
    assert after(noon, DAY, 0, BERLIN) == parse_time("2026-03-29T00:00:00+01:00")
    assert after(noon, DAY, 1, BERLIN) == parse_time("2026-03-30T00:00:00+02:00")
    midnight = parse_time("2026-03-28T00:00:00+08:00")
    assert after(midnight, DAY, 0, SHANGHAI) == midnight


def test_what_to_enrol_next_is_worth_something_and_says_what_to_do(vouched: Snapshot) -> None:
    first = values("en", start_view, vouched)["following"][0]
    assert first.criterion.path == f"/criterion/{vouched.coverage.following[0]}"
    assert (first.gain[0], bool(first.todo)) == ("+", True)


def test_the_first_steps_say_whether_there_is_a_register(vouched: Snapshot, empty_snapshot: Snapshot) -> None:
    assert values("zh", start_view, vouched)["entries"] == [("资产", "4")]
    begun = values("en", start_view, empty_snapshot)
    assert (begun["has_register"], begun["entries"], begun["ripening"]) == (False, [], [])
    assert begun["draft"] == (
        "/opt/infravitals/bin/infravitals register draft --data-dir '/srv/a hospital' -o '/srv/a hospital/site/register.yaml'"
    )


# -- attestations


def test_what_needs_attention_stands_first_and_what_nobody_vouched_for_last(vouched: Snapshot) -> None:
    def rows(language: Language) -> list[tuple[str, str, str, str]]:
        near = values(language, attestations_view, vouched)["near"]
        return [(row.name, row.word, row.expires, row.left) for row in near]

    assert rows("zh") == [
        ("paper-expired", "已过期", "2026-03-21", "已过 11 天"),
        ("paper-location", "即将到期", "2026-04-11", "还有 10 天"),
        ("paper-missing", "文件缺失或已改动", "2026-12-31", "还有 274 天"),
        ("exposed-service-count", "不适用", "2026-10-01", "还有 183 天"),
        ("paper-later", "有效", "2026-12-01", "还有 244 天"),
        ("paper-none", "尚无证明", "", ""),
    ]
    assert [row[3] for row in rows("en")] == ["11 d over", "10 d left", "274 d left", "183 d left", "244 d left", ""]


def test_attestations_are_counted_by_state_and_the_rest_of_the_index_stands_apart(vouched: Snapshot) -> None:
    shown = values("en", attestations_view, vouched)
    assert shown["near_counts"] == [
        ("expired", 1),
        ("document gone", 1),
        ("due within 30 days", 1),
        ("valid", 3),
        ("none yet", 1),
    ]
    assert [(row.name, row.serves) for row in shown["city"]] == [("city-ward", "weight 100 %")]
    assert [row.serves for row in shown["near"]][:2] == ["supporting document", "decides the cap at 60"]


# -- history


def test_revisions_are_listed_newest_first_with_the_reader_s_half_of_the_reason(vouched: Snapshot) -> None:
    def rows(language: Language) -> list[tuple[str, int, str, str]]:
        revisions = values(language, history_view, vouched)["revisions"]
        return [(row.as_of, row.revision, row.total, row.why) for row in revisions]

    assert rows("zh") == [
        ("2026-03-31 04:00", 3, "4.8 – 93.0", "规则改了"),
        ("2026-03-31 04:00", 2, "4.8 – 94.0", "后来又到了数据"),
    ]
    assert [row[3] for row in rows("en")] == ["the rules were changed", "more data came in"]


def test_a_reason_in_one_language_is_shown_as_it_is() -> None:
    with speaking("en"):
        assert [reader_s_half(text) for text in ("规则改了 / rules", "规则改了", "")] == ["rules", "规则改了", ""]


def test_the_list_of_scorecards_is_bounded_and_says_how_many_it_leaves_out(vouched: Snapshot) -> None:
    shown = values("zh", history_view, vouched)
    assert (len(vouched.history), len(shown["cards"]), shown["more_cards"]) == (59, 48, 11)
    assert [course.id for course in shown["courses"]] == ["hospital.data-availability", "hospital.network-security"]
    assert shown["courses"][0].trend.plot.label == (
        "得分区间：2026-03-28 21:00 为 10.0 到 90.0，2026-03-31 08:00 为 24.8 到 90.0"
    )


def test_without_history_there_is_nothing_to_draw(empty_snapshot: Snapshot) -> None:
    shown = values("en", history_view, empty_snapshot)
    assert [course.trend.plot for course in shown["courses"]] == [None, None]
    assert (shown["revisions"], shown["cards"], len(shown["commands"])) == ([], [], 1)


def test_a_plot_keeps_a_gap_and_draws_a_lone_scorecard_as_a_dot() -> None:
    moments = [Moment(0, 10, 90), Moment(HOUR, 20, 90), Moment(10 * HOUR, 30, 80)]
    with speaking("en"):
        plot = draw(moments, SHANGHAI)
        assert plot is not None
        assert plot.lines == ["0.0,90.00 100.0,80.00", "1000.0,70.00 1000.0,70.00"]
        assert plot.bands[0] == "0.0,10.00 100.0,10.00 100.0,80.00 0.0,90.00"
        assert draw(moments[:1], SHANGHAI) is None


# -- the first page


def test_the_first_page_names_attestations_that_are_due_and_blind_spots(vouched: Snapshot) -> None:
    shown = values("zh", readiness_view, vouched)
    assert [row.name for row in shown["due"].rows] == ["paper-expired", "paper-location", "paper-missing"]
    assert shown["due"].more == 0
    unseen = shown["blind_spots"][0]
    assert unseen.text == "已登记而此刻没有任何采集源在看的资产 2 个："
    assert [link.path for link in unseen.links] == ["/subject/pacs-02", "/subject/lis-db-01"]
    assert shown["is_unproven"]
    assert shown["outside"] == "86 %"


def test_an_asset_that_was_retired_is_no_blind_spot(vouched: Snapshot) -> None:
    entries = vouched.folder.entries["assets"]
    folder = dataclasses.replace(vouched.folder, entries={"assets": {"pacs-01": entries["pacs-01"]}})
    shown = values("en", readiness_view, dataclasses.replace(vouched, folder=folder))
    assert not any("registered assets" in spot.text for spot in shown["blind_spots"])
