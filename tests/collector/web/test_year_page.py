"""The course over a month, a quarter and a year: what is drawn, what is left open, what changed, and how it looks."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from servers import program
from stored_cards import SITE, store_card

from agent.language import Language, speaking
from collector.evaluate import Rules, parse_time
from collector.past import Past
from collector.snapshot import Snapshot
from collector.stores import load_store
from collector.web.changes import MonthRow, Move
from collector.web.evidence_view import criterion_view
from collector.web.history_view import history_view
from collector.web.node_view import node_view
from collector.web.plot import WIDTH, Plot
from collector.web.spans import SPANS, choices, find_span
from collector.web.ticks import ticks
from collector.web.trend import Trend

DAY, HOUR = 86_400_000, 3_600_000
SHANGHAI = ZoneInfo("Asia/Shanghai")
HOUR_NOW = parse_time("2026-03-31T09:00:00+08:00")
"""The newest stored hour of the hospital of conftest."""
MONTH, QUARTER, YEAR = SPANS
SECURITY, MANAGEMENT = "hospital.network-security", "hospital.network-security.network-management"
ROUNDS, LOGS = "telemetry-completeness", "log-retention-days"

LONE = (364, 350, 336, 322, 308)
"""Days back that have a scorecard and no neighbour."""
DAILY = [*range(120, 63, -1), *range(60, -1, -1)]
"""Days back that have one each, but for three in between."""
RISE, FALL = 40, 20
"""Days back on which the rounds succeeded from then on, and on which logs were lost."""


def lows_at(back: int) -> dict[str, float]:
    return {ROUNDS: 100.0 if back <= RISE else 40.0, LOGS: 50.0 if back <= FALL else 90.0}


@pytest.fixture(scope="module")
def year(rules: Rules, look: Callable[..., Snapshot]) -> Snapshot:
    """A hospital of a year: five lone scorecards, a long gap, 120 days with a short gap. All were read."""
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        for back in (*LONE, *DAILY):
            store_card(store, rules, HOUR_NOW - back * DAY, lows_at(back))
        taken = look(store, rules, {})
        assert sum(card.is_read for card in taken.past) == 60, "the first look reads no more"
        whole = Past(bodies_at_once=1000).read(store, SITE, SHANGHAI, taken.taken_at)
        return dataclasses.replace(taken, past=whole)


@pytest.fixture(scope="module")
def two_days(rules: Rules, look: Callable[..., Snapshot]) -> Snapshot:
    """A hospital that began the day before."""
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        for back in range(30, -1, -1):
            store_card(store, rules, HOUR_NOW - back * HOUR, {ROUNDS: 100.0 - back})
        return look(store, rules, {})


def values(language: Language, view: Any, *arguments: Any) -> dict[str, Any]:
    with speaking(language):
        found: dict[str, Any] = view(*arguments).values
    return found


def trend_of(snapshot: Snapshot, span: Any, language: Language = "en") -> Trend:
    found: Trend = values(language, node_view, snapshot, SECURITY, span)["trend"]
    return found


def plot_of(snapshot: Snapshot, span: Any) -> Plot:
    plot = trend_of(snapshot, span).plot
    assert plot is not None
    return plot


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


# -- the choice


def test_the_span_is_named_in_the_url_and_anything_else_is_a_month() -> None:
    assert [find_span(wish) for wish in ("30d", "90d", "365d", None, "", "9999d", "<b>")] == [*SPANS, *[MONTH] * 4]
    assert [one.query for one in SPANS] == ["", "?span=90d", "?span=365d"]
    with speaking("zh"):
        assert [(one.path, one.title, one.is_here) for one in choices(QUARTER, "#trend")] == [
            ("?span=30d#trend", "30 天", False),
            ("?span=90d#trend", "90 天", True),
            ("?span=365d#trend", "一年", False),
        ]


# -- what is drawn


def test_a_year_is_drawn_by_days_and_no_line_crosses_a_gap(year: Snapshot) -> None:
    plot = plot_of(year, YEAR)
    day = WIDTH / 365
    for line in (*plot.lines, *plot.coverages):
        steps = [after[0] - before[0] for before, after in pairwise(points(line))]
        assert max(steps) < 1.5 * day
    runs = [points(line) for line in plot.lines]
    assert [len(run) for run in runs] == [2] * 5 + [57, 61], "five lone ones as dots, and two stretches"
    assert len(plot.lone) == 5 and len(plot.bands) == 7 and len(plot.coverages) == 2
    assert runs[-1][0][0] - runs[-2][-1][0] == pytest.approx(4 * day, abs=0.3)
    assert plot.times == ()


def test_what_is_drawn_is_what_was_stored(year: Snapshot) -> None:
    plot = plot_of(year, YEAR)
    by_day = {(HOUR_NOW - card.as_of) // DAY: card.nodes[SECURITY] for card in year.past}
    ends = [points(line)[-1][1] for line in plot.lines]
    assert ends == [pytest.approx(100 - by_day[back].low, abs=0.01) for back in (*LONE, 64, 0)]
    covered = [points(line)[-1][1] for line in plot.coverages]
    assert covered == [pytest.approx(100 - 100 * (by_day[back].coverage or 0), abs=0.01) for back in (64, 0)]
    stem = points(plot.lone[0].stem)
    assert stem[0][1] == pytest.approx(100 - by_day[LONE[0]].high, abs=0.01) and stem[1][1] == ends[0]
    lows = [by_day[back].low for back in (60, RISE, FALL)]
    assert lows[0] < lows[2] < lows[1], "the story: a rise, and a smaller fall"


def test_a_quarter_holds_its_days_alone_and_a_month_its_hours(year: Snapshot) -> None:
    assert [len(points(line)) for line in plot_of(year, QUARTER).lines] == [27, 61]
    month = plot_of(year, MONTH)
    assert len(month.times) == 3 and not month.ticks
    assert len(month.lone) == 30, "one scorecard a day is a gap of hours, and shown as one"


@pytest.mark.parametrize(("language", "words"), [("zh", "每天取当天最后一份评分；365 天中有 123 天存有。"), ("en", "Each day by its last scorecard; 123 of 365 days have one.")])  # fmt: skip
def test_a_year_says_by_what_it_is_drawn_and_how_many_days_have_it(
    year: Snapshot, language: Language, words: str
) -> None:
    assert trend_of(year, YEAR, language).note == words


def test_a_site_of_two_days_says_so_and_shows_its_hours(two_days: Snapshot) -> None:
    for span, words in ((QUARTER, "90 days"), (YEAR, "a year")):
        trend = trend_of(two_days, span)
        expected = f"Scorecards are stored since 2026-03-30, not for {words} yet; the picture begins there."
        assert trend.note == expected
        assert trend.plot == plot_of(two_days, MONTH)
    assert trend_of(two_days, YEAR, "zh").note == "存下的评分从 2026-03-30 开始，还不满一年，图从那天画起。"
    assert trend_of(two_days, MONTH).note == ""


def test_a_site_without_a_scorecard_draws_nothing_and_says_so(empty_snapshot: Snapshot) -> None:
    trend = values("en", history_view, empty_snapshot, YEAR)["courses"][0].trend
    assert (trend.plot, trend.note) == (None, "No scorecard is stored yet.")
    assert values("zh", criterion_view, empty_snapshot, ROUNDS, YEAR)["has_history"] is False


def test_a_past_that_is_shorter_than_the_span_begins_where_it_begins(year: Snapshot) -> None:
    young = dataclasses.replace(year, past=[card for card in year.past if card.as_of >= HOUR_NOW - 60 * DAY])
    trend = trend_of(young, YEAR)
    assert trend.plot is not None and points(trend.plot.lines[0])[0][0] < 10
    assert trend.note.endswith("Scorecards are stored since 2026-01-30, not for a year yet; the picture begins there.")


def test_a_criterion_has_its_course_too_in_every_span(year: Snapshot) -> None:
    for span, runs in ((MONTH, [31]), (QUARTER, [27, 61]), (YEAR, [2] * 5 + [57, 61])):
        trend = values("en", criterion_view, year, LOGS, span)["trend"]
        assert [len(points(line)) for line in trend.plot.lines] == runs
        assert [y for _, y in points(trend.plot.lines[-1])][-FALL - 2 :] == [10.0] + [50.0] * (FALL + 1)
        assert len(trend.plot.ticks) >= 3


def test_days_whose_scorecards_were_not_read_whole_yet_are_counted_and_not_drawn_for_a_criterion(
    year: Snapshot,
) -> None:
    half = [card if number % 2 else dataclasses.replace(card, criteria={}, is_read=False) for number, card in enumerate(year.past)]  # fmt: skip
    shown = dataclasses.replace(year, past=half)
    note = values("en", criterion_view, shown, ROUNDS, YEAR)["trend"].note
    assert note.endswith("61 of 365 days have one. The scorecards of 62 days are still being read.")
    assert trend_of(shown, YEAR).note == trend_of(year, YEAR).note, "an indicator's stand in the summaries"


# -- the axis


def axis(since: str, until: str, language: Language) -> list[tuple[str, str, bool]]:
    with speaking(language):
        found = ticks(*(parse_time(f"{day}T12:00:00+08:00") for day in (since, until)), SHANGHAI)
    assert all(before.place < after.place for before, after in pairwise(found))
    return [(one.text, one.year, one.is_minor) for one in found]


def test_a_year_is_labelled_by_months_and_the_year_stands_where_it_begins() -> None:
    shown = axis("2025-11-27", "2026-11-27", "zh")
    assert [text for text, _, _ in shown] == ["12月", *(f"{month}月" for month in range(1, 12))]
    assert [(text, year) for text, year, _ in shown if year] == [("1月", "2026")]
    assert [text for text, _, is_minor in shown if not is_minor] == ["1月", "3月", "5月", "7月", "9月", "11月"]
    assert axis("2025-06-20", "2026-06-20", "en")[:2] == [("Jul", "2025", False), ("Aug", "", True)]


def test_a_quarter_is_labelled_by_halves_of_months_and_less_by_days() -> None:
    assert axis("2025-12-20", "2026-02-20", "en") == [
        ("1 Jan", "2026", False),
        ("16 Jan", "", True),
        ("1 Feb", "", False),
        ("16 Feb", "", True),
    ]
    assert [text for text, _, _ in axis("2026-03-01", "2026-03-31", "zh")] == [
        f"3月{day}日" for day in (6, 11, 16, 21, 26, 31)
    ]


def test_labels_stand_at_the_site_s_midnight_also_when_clocks_are_put_on() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    since, until = parse_time("2026-03-01T00:00:00+01:00"), parse_time("2026-05-01T00:00:00+02:00")
    [march, _, april, _, may] = ticks(since, until, berlin)
    assert (march.place, march.anchor, may.place, may.anchor) == (0.0, "start", 100.0, "end")
    assert april.place == round(100 * (parse_time("2026-04-01T00:00:00+02:00") - since) / (until - since), 2)


# -- what changed


def test_each_month_names_its_largest_rise_and_fall_with_what_caused_them(year: Snapshot) -> None:
    shown = values("en", history_view, year, YEAR)
    rows: list[MonthRow] = [*shown["months"], *shown["earlier_months"]]
    assert [(row.month, bool(row.rise), bool(row.fall)) for row in rows] == [
        ("2026-03", False, True),
        ("2026-02", True, False),
    ]
    march, february = rows
    by_day = {(HOUR_NOW - card.as_of) // DAY: card.nodes[SECURITY].low for card in year.past}
    ends = by_day[FALL + 1], by_day[FALL]
    assert march.indicator.path == f"/node/{SECURITY}?span=365d#trend"
    assert march.fall is not None and march.fall == Move(
        when="2026-03-11",
        points=f"{ends[1] - ends[0]:+.1f}",
        ends=f"{ends[0]:.1f} → {ends[1]:.1f}",
        cause=march.fall.cause,
        part=f"90 → 50, worth {ends[1] - ends[0]:+.1f}",
    )
    assert march.fall.cause.path == f"/criterion/{LOGS}?span=365d#trend"
    assert february.rise is not None and february.rise.when == "2026-02-19"
    assert february.rise.part.startswith("40 → 100, worth +")
    assert february.rise.cause.path == f"/criterion/{ROUNDS}?span=365d#trend"


def test_a_change_across_a_gap_names_both_days_and_none_is_blamed_before_the_cards_are_read(year: Snapshot) -> None:
    around = [card for card in year.past if card.as_of in (HOUR_NOW - 64 * DAY, HOUR_NOW - FALL * DAY)]
    row = values("zh", history_view, dataclasses.replace(year, past=around), QUARTER)["months"][0]
    assert row.rise.when == "2026-01-26 → 2026-03-11"
    unread = [dataclasses.replace(card, criteria={}, is_read=False) for card in around]
    row = values("zh", history_view, dataclasses.replace(year, past=unread), QUARTER)["months"][0]
    assert (row.rise.cause.path, row.rise.cause.text, row.rise.part) == ("", "评分卡正在读取", "")


def test_without_a_change_there_is_no_table(two_days: Snapshot, empty_snapshot: Snapshot) -> None:
    assert values("en", history_view, empty_snapshot, YEAR)["months"] == []
    assert [row.month for row in values("en", history_view, two_days, MONTH)["months"]] == ["2026-03"]


# -- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shown(serving: Callable[..., Any], year: Snapshot) -> Iterator[Any]:
    with serving(year).running() as server:
        yield server


PATHS = ("/history", f"/node/{MANAGEMENT}", f"/criterion/{ROUNDS}")

BOXES = """() => [...document.querySelectorAll(".ticks text")].map((part) => {
    const box = part.getBoundingClientRect();
    return [box.left, box.right, box.top, box.bottom];
}).filter(([left, right]) => right > left)"""


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_lies_on_another_or_leaves_the_page(browser: Browser, shown: Any, width: int, language: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, base_url=shown.url)
    for path in PATHS:
        for span in ("90d", "365d"):
            page.goto(f"{path}?span={span}&lang={language}")
            boxes = page.evaluate(BOXES)
            assert len(boxes) >= 3
            for one, other in combinations(boxes, 2):
                apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] + 4 or other[3] <= one[2] + 4
                assert apart, (path, span, one, other)
            assert min(box[0] for box in boxes) >= 0 and max(box[1] for box in boxes) <= width
            assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


def test_a_span_is_chosen_without_a_script_and_stays_in_the_url(browser: Browser, shown: Any) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=shown.url)
    page = context.new_page()
    page.goto("/history?lang=en")
    assert page.locator(".spans [aria-current]").inner_text() == "30 days"
    page.get_by_role("navigation", name="How far back").get_by_role("link", name="a year").click()
    expect(page).to_have_url(f"{shown.url}history?span=365d")
    page.wait_for_load_state()  # the address is there before the page
    assert page.locator(".spans [aria-current]").inner_text() == "a year"
    assert page.locator(".course .dot:not(.of-coverage)").count() == 10
    assert page.locator(".course").first.locator(".parts li").all_inner_texts()[2:4] == [
        "coverage (%), a small grey dot where alone",
        "a score with none beside it",
    ]
    page.get_by_role("link", name="中文").click()
    expect(page).to_have_url(f"{shown.url}history?span=365d&lang=zh")
    page.locator("#changes tbody tr").first.get_by_role("link").last.click()
    expect(page).to_have_url(f"{shown.url}criterion/{LOGS}?span=365d#trend")
    page.wait_for_load_state()
    assert page.locator("#trend .spans [aria-current]").inner_text() == "一年"
    page.get_by_role("link", name="历史与修订原因").click()
    expect(page).to_have_url(f"{shown.url}history?span=365d")
    context.close()


def test_a_page_that_renews_itself_keeps_the_chosen_span(
    browser: Browser, serving: Callable[..., Any], year: Snapshot, two_days: Snapshot
) -> None:
    with serving(year).running() as server:
        page = browser.new_page(base_url=server.url)
        page.clock.install()
        page.goto("/history?span=365d&lang=en")
        server.shown = two_days
        page.clock.fast_forward(10_000)
        expect(page.locator(".course .meta").first).to_contain_text("not for a year yet")
        page.close()
