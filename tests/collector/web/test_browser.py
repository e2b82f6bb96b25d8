"""The page in Debian's chromium, as its readers meet it. One browser for the module; nothing leaves 127.0.0.1."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from servers import READY_SECONDS, program

from collector.snapshot import Snapshot

PROGRAM, PLACE = "/opt/infravitals/bin/infravitals", "--data-dir '/srv/a hospital'"

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    font = Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc")
    assert font.exists(), "no Chinese font: apt-get install -y --no-install-recommends fonts-wqy-microhei"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shown(serving: Callable[..., Any], snapshot: Snapshot) -> Iterator[Any]:
    with serving(snapshot).running() as server:
        yield server


@pytest.fixture(scope="module")
def context(browser: Browser, shown: Any) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=DESKTOP, base_url=shown.url)
    context.set_default_timeout(READY_SECONDS * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page of a reader who chose no language yet."""
    page = context.new_page()
    yield page
    page.close()
    context.clear_cookies()


def all_paths(snapshot: Snapshot) -> list[str]:
    nodes = snapshot.scorecard.nodes
    criteria = [f"/criterion/{criterion.id}" for node in nodes for criterion in node.criteria]
    return [
        "/",
        "/tree",
        "/failover",
        "/network",
        "/attestations",
        "/history",
        "/start",
        "/agents",
        *(f"/node/{node.id}" for node in nodes),
        *criteria,
    ]


def test_the_first_page_leads_with_the_two_indicators_and_the_eleven(page: Page, snapshot: Snapshot) -> None:
    page.goto("/")
    assert page.locator(".indicator h2").all_inner_texts() == ["院内数据高可用建设", "院内网络及安全基础设施"]
    assert page.locator(".indicator strong").all_inner_texts() == ["3.2", "3.1"]
    assert page.locator(".indicator .headline small").all_inner_texts() == ["数据覆盖率 5 %", "数据覆盖率 6 %"]
    rows = page.locator(".rows tr:has(svg)")
    assert rows.count() == 11
    cells = [text.strip() for text in rows.nth(7).locator("td").all_inner_texts()]
    assert cells == ["医疗网络管理能力", "20 %", "15.8 – 85.8", "", "30 %", "2/6 已评分"]


def test_proven_not_proven_and_lost_add_up_in_front_of_the_reader(page: Page) -> None:
    page.goto("/node/hospital.network-security.network-management?lang=en")
    assert page.locator(".parts li").all_inner_texts() == ["proven 15.8", "not proven 70.0", "lost 14.2"]
    counts = page.locator("td[data-label=counts]").all_inner_texts()
    assert counts == ["0", "9", "0", "0", "6.75", "0"]
    assert page.locator(".sums li").all_inner_texts() == [
        "left end (the score): together 15.75 = 15.75",
        "right end: together 85.75 = 85.75",
    ]


def test_the_bars_are_as_long_as_the_numbers(page: Page, snapshot: Snapshot) -> None:
    page.goto("/tree")
    by_id = {node.id: node for node in snapshot.scorecard.nodes}
    drawn = page.evaluate("""() => [...document.querySelectorAll("tr:has(svg)")].map((row) => {
        const width = (part) => row.querySelector(part).getBoundingClientRect().width;
        return [row.querySelector("a").getAttribute("href").slice(6), width(".track"), width(".proven"), width(".open")];
    })""")
    assert len(drawn) == 14
    for name, track, proven, unproven in drawn:
        node = by_id[name]
        assert proven / track * 100 == pytest.approx(node.low, abs=0.1)
        assert unproven / track * 100 == pytest.approx(node.high - node.low, abs=0.1)


def test_a_number_leads_to_its_evidence_in_two_clicks(page: Page) -> None:
    page.goto("/?lang=en")
    page.get_by_text("15.8 – 85.8").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Medical network management")
    page.get_by_text("94.36 %").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("99 % or more of the rounds due succeeded")
    page.wait_for_load_state()  # the heading is there before the rest
    facts = dict(
        zip(page.locator("dt").all_inner_texts(), page.locator("dt + dd").all_inner_texts(), strict=True),
    )
    assert facts["Window"] == "2026-03-01 09:00:00 – 2026-03-31 09:00:00 Asia/Shanghai"
    assert facts["Buckets: found / expected"] == "1719 / 1729 (1 h)"
    assert facts["Samples"] == "6876"
    worst = page.locator("#evidence tbody tr").first
    assert worst.inner_text().split("\t") == [
        "asset his-db-01 source systemd_units target local",
        "0 %",
        "0 %",
        "191 / 191",
    ]
    assert page.locator(".marked").inner_text().split("\t")[:3] == ["≥ 90 %", "60", "◀ now"]


def test_the_evidence_of_a_number_is_that_of_the_scorecard(page: Page, snapshot: Snapshot) -> None:
    page.goto("/criterion/telemetry-completeness?lang=en")
    results = [result for node in snapshot.scorecard.nodes for result in node.criteria]
    result = next(result for result in results if result.id == "telemetry-completeness")
    page.get_by_text("The query, to run again").click()
    assert page.locator("#query pre").inner_text().strip() == str(result.query).strip()
    assert page.get_by_text(result.digest, exact=True).is_visible()
    assert page.get_by_text(snapshot.scorecard.digests.rules, exact=True).is_visible()
    command = f"{PROGRAM} score {PLACE} --as-of 2026-03-31T01:40:20Z --format json"
    assert page.get_by_text(command).is_visible()
    assert page.get_by_text(f"{PROGRAM} rules explain telemetry-completeness").is_visible()


def test_the_command_that_shows_what_was_set_aside_names_its_data(page: Page) -> None:
    page.goto("/agents?lang=en")
    assert page.get_by_text(f"{PROGRAM} quarantine {PLACE}").is_visible()


def test_a_value_from_the_open_bucket_is_not_called_measured(
    browser: Browser, serving: Callable[..., Any], just_begun: Snapshot
) -> None:
    with serving(just_begun).running() as server:
        page = browser.new_page()
        page.goto(f"{server.url}criterion/telemetry-completeness?lang=en")
        assert page.locator(".value").inner_text() == "Provisional value 100 % · 100 points, not counted"
        expected = "Note: this rests on the bucket that is still open alone, and earns nothing yet."
        assert page.locator(".rests").inner_text() == expected
        page.goto(f"{server.url}criterion/telemetry-completeness?lang=zh")
        assert page.locator(".value").inner_text() == "暂估值 100 % · 100 分，不计分"
        assert page.locator(".rests").inner_text() == "注意：此值只取自尚未结束的时间桶，还不计分。"
        page.close()


def test_without_a_register_a_value_says_that_it_is_of_all_assets(page: Page) -> None:
    page.goto("/?lang=en")
    row = page.locator("tr", has_text="DR servers").last
    assert "all seen assets, since there is no register to tell which have role = dr" in row.inner_text()
    page.goto("/criterion/dr-site-readiness?lang=en")
    assert "all seen assets, since there is no register" in page.locator(".reason").inner_text()


def test_the_first_page_names_what_needs_attention(page: Page) -> None:
    page.goto("/?lang=en")
    expected = "silent agents: pacs-02; failing: his-db-01 systemd_units; missing batches: 5; set aside: 3"
    assert expected in page.locator(".notice.bad:visible").inner_text()


def test_agents_are_shown_with_their_trouble_first(page: Page) -> None:
    page.goto("/agents?lang=en")
    assert page.locator(".agent h2").all_inner_texts() == ["his-db-01 alive", "pacs-02 silent", "gw-core alive"]
    states = page.locator(".agent").first.locator("td .status").all_inner_texts()
    assert states == ["good", "good", "good", "nothing to measure", "failing"]
    assert page.get_by_text("infravitals-agent try systemd_units").is_visible()
    assert page.get_by_text("missing batches 5 (#0–1, 3–5)").is_visible()
    assert page.get_by_text("a time before 2020: seconds? it must be milliseconds").is_visible()


def test_a_state_is_told_by_a_word_and_a_sign_and_not_by_colour_alone(page: Page) -> None:
    signs = {}
    for path in ("/agents", "/node/hospital.network-security.network-capacity", "/criterion/telemetry-completeness"):
        page.goto(path)
        signs |= page.evaluate("""() => Object.fromEntries([...document.querySelectorAll(".status")].map((part) =>
            [part.innerText, getComputedStyle(part, "::before").content]))""")
    assert signs == {
        "在线": '"● "',
        "正常": '"● "',
        "静默": '"✕ "',
        "失败": '"✕ "',
        "无可测对象": '"○ "',
        "暂估": '"◐ "',
        "无数据": '"○ "',
        "已评分": '"● "',
        "已采集": '"● "',
    }


def test_the_language_that_a_reader_chose_stays_on_the_next_page(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="English").click()
    page.get_by_role("link", name="Index tree").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Index tree")
    page.get_by_role("link", name="Medical network management").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("link", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("医疗网络管理能力")


KINDS = (
    "/",
    "/tree",
    "/agents",
    "/node/hospital",
    "/node/hospital.network-security.network-management",
    "/node/industry.training",
    "/criterion/telemetry-completeness",
    "/criterion/backbone-bandwidth-class",
    "/criterion/achieved-rto",
)
"""One page of every kind and state."""


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_page_asks_another_machine_nor_complains_nor_is_wider_than_a_phone(page: Page, language: str) -> None:
    asked, complaints, widths = set(), [], {}
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_viewport_size(PHONE)
    page.goto(f"/?lang={language}")
    for path in KINDS:
        page.goto(path)
        widths[path] = page.evaluate("document.documentElement.scrollWidth")
    assert widths == dict.fromkeys(KINDS, 390)
    assert asked == {"127.0.0.1"}
    assert complaints == []


MEASURE = """async (paths) => {
  const main = document.getElementById("main"), wide = [];
  for (const path of paths) {
    const page = new DOMParser().parseFromString(await (await fetch(path)).text(), "text/html");
    main.replaceChildren(...page.getElementById("main").childNodes);
    main.querySelectorAll("details").forEach((part) => { part.open = true; });
    if (document.documentElement.scrollWidth > innerWidth) wide.push(path);
  }
  return [wide, main.innerText.length];
}"""


@pytest.mark.parametrize("language", ["zh", "en"])
def test_all_indicators_and_criteria_fit_a_phone_with_everything_unfolded(
    page: Page, snapshot: Snapshot, language: str
) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"/?lang={language}")
    too_wide, length_of_last = page.evaluate(MEASURE, all_paths(snapshot))
    assert too_wide == []
    assert length_of_last > 200


NEW_PAGES = (
    "/",
    "/start",
    "/attestations",
    "/history",
    "/subject/his-db-01",
    "/subject/pacs-01",
    "/subject/sw-core-2",
    "/subject/his-db-1",
    "/agents",
    "/node/hospital.data-availability.failover",
    "/node/hospital.network-security",
    "/node/hospital.network-security.network-management",
    "/node/hospital.network-security.network-isolation",
    "/criterion/telemetry-completeness",
    "/criterion/isolation-strength-live",
    "/criterion/exposed-service-count",
    "/criterion/paper-location",
    "/criterion/paper-missing",
    "/criterion/paper-none",
)
"""Pages of a hospital that says something of itself, in every state."""

UNFOLD = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"


@pytest.fixture(scope="module")
def told(serving: Callable[..., Any], vouched: Snapshot) -> Iterator[Any]:
    """A server of the hospital with a register, attestations, caps and a past."""
    with serving(vouched).running() as server:
        yield server


@pytest.mark.parametrize("language", ["zh", "en"])
def test_pages_of_a_told_hospital_fit_a_phone_unfolded_and_ask_nobody_else(
    browser: Browser, told: Any, language: str
) -> None:
    page = browser.new_page(viewport=PHONE, base_url=told.url)
    asked, complaints, widths = set(), [], {}
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"/?lang={language}")
    for path in NEW_PAGES:
        page.goto(path)
        page.evaluate(UNFOLD)
        widths[path] = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert widths == dict.fromkeys(NEW_PAGES, 390)
    assert asked == {"127.0.0.1"}
    assert [text for text in complaints if "404" not in text] == []  # the page that is not there


def test_a_subject_in_the_evidence_leads_to_its_page_and_back(browser: Browser, told: Any) -> None:
    page = browser.new_page(viewport=DESKTOP, base_url=told.url)
    page.goto("/criterion/telemetry-completeness?lang=en")
    page.locator("#evidence").get_by_role("link", name="his-db-01").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("his-db-01")
    page.get_by_role("link", name="99 % or more of the rounds due succeeded").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("99 % or more of the rounds due succeeded")
    page.goto("/subject/his-db-1")
    page.locator("main").get_by_role("link", name="his-db-01").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("his-db-01")
    page.close()


def test_the_pages_are_whole_without_a_script(browser: Browser, told: Any) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=told.url)
    page = context.new_page()
    page.goto("/history?lang=en")
    assert page.locator(".plot svg").count() == 2
    assert page.locator("#revisions td.note").first.inner_text().startswith("the rules were changed")
    page.get_by_role("link", name="Attestations").click()
    expect(page.locator("#near tbody tr")).to_have_count(6)
    page.wait_for_load_state()
    assert not page.locator("#city table").is_visible()
    page.get_by_text("The rest of the index").click()
    assert page.locator("#city table").is_visible()
    context.close()


def test_the_labels_of_a_plot_are_as_large_on_a_phone_as_on_a_desk(browser: Browser, told: Any) -> None:
    page = browser.new_page(viewport=PHONE, base_url=told.url)
    page.goto("/history")
    label = page.locator(".plot .times span").first
    assert label.evaluate("part => parseFloat(getComputedStyle(part).fontSize)") >= 12
    assert page.locator(".plot .times").first.locator("span").count() == 3
    lines = page.locator(".plot .line").first.evaluate("part => getComputedStyle(part).vectorEffect")
    assert lines == "non-scaling-stroke"
    page.close()


def test_what_has_the_focus_can_be_seen_on_every_new_page(browser: Browser, told: Any) -> None:
    page = browser.new_page(viewport=DESKTOP, base_url=told.url)
    for path in ("/start", "/attestations", "/history", "/subject/his-db-01"):
        page.goto(path)
        for _ in range(12):
            page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert (path, outline) == (path, "solid")
    page.close()


def test_a_hostile_interface_name_is_text_and_nothing_else(page: Page) -> None:
    raised = []
    page.on("dialog", lambda dialog: raised.append(dialog.message) or dialog.dismiss())
    page.goto("/criterion/backbone-bandwidth-class")
    assert (
        page.locator("#evidence .tags").first.inner_text() == "asset his-db-01 interface eth<script>alert(1)</script>"
    )
    assert page.locator("main script").count() == 0
    assert raised == []


def test_an_unknown_indicator_is_a_page_that_says_so(page: Page) -> None:
    answer = page.goto("/node/no-such-node?lang=en")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")


def test_the_json_behind_the_page_is_reached_from_it(page: Page, shown: Any) -> None:
    page.goto("/?lang=en")
    target = page.get_by_role("link", name="all figures and evidence (JSON)").get_attribute("href")
    with urllib.request.urlopen(shown.url.rstrip("/") + str(target)) as answer:
        card = json.load(answer)
    lows = {node["id"]: f"{node['low']:.1f}" for node in card["nodes"]}
    assert page.locator(".indicator strong").all_inner_texts() == [
        lows["hospital.data-availability"],
        lows["hospital.network-security"],
    ]


def test_a_waiting_page_turns_into_the_first_figures_by_itself(
    browser: Browser, serving: Callable[..., Any], snapshot: Snapshot
) -> None:
    with serving(None).running() as server:
        page = browser.new_page(viewport=DESKTOP)
        loads = []
        page.on("load", lambda _: loads.append(page.url))
        page.goto(server.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("正在采集")
        server.shown = snapshot
        expect(page.get_by_role("heading", level=1)).to_have_text("基础设施就绪度")
        assert page.title() == "就绪度 · Infravitals"
        assert len(loads) == 1
        page.close()


def test_a_page_whose_collector_is_gone_says_that_its_figures_are_not_renewed(
    browser: Browser, serving: Callable[..., Any]
) -> None:
    with serving(None).running() as server:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(server.url)
        expect(page.get_by_role("status").first).to_be_visible()
        server.stop()
        expect(page.locator("#lost")).to_have_text("✕ 与采集中心的连接已中断，页面上的数字不再更新。")
        page.close()


def test_new_figures_leave_open_what_is_open_and_the_focus_where_it_is(
    browser: Browser, serving: Callable[..., Any], snapshot: Snapshot, empty_snapshot: Snapshot
) -> None:
    with serving(snapshot).running() as server:
        page = browser.new_page(viewport=DESKTOP)
        page.clock.install()
        page.goto(server.url + "criterion/telemetry-completeness?lang=en")
        page.get_by_text("The query, to run again").click()
        page.get_by_role("link", name="Hospital digitalisation").focus()
        server.shown = empty_snapshot
        page.clock.fast_forward(10_000)
        expect(page.locator(".status").first).to_have_text("no data")
        assert page.locator("#query").get_attribute("open") == ""
        assert page.evaluate("document.activeElement.innerText") == "Hospital digitalisation"
        page.close()


def test_the_keyboard_reaches_the_content_first(page: Page) -> None:
    page.goto("/?lang=en")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "revision 1"


def test_a_screen_reader_finds_headings_landmarks_and_the_words_of_a_bar(page: Page) -> None:
    page.goto("/?lang=en")
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("navigation", name="Main").count() == 1
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("img", name="score 15.8 to 85.8, coverage 30 %").count() == 1
    assert page.get_by_role("columnheader").all_inner_texts()[:3] == ["Indicator", "Weight", "Low – high"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, shown: Any, scheme: Any) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(shown.url)
    names = ("ink", "soft", "bad", "warn", "link", "proven", "paper", "ground", "tint")
    colour = page.evaluate(
        "names => names.map(name => getComputedStyle(document.documentElement).getPropertyValue('--' + name))", names
    )
    light = {name: luminance(text) for name, text in zip(names, colour, strict=True)}
    weak = [(text, ground) for text in names[:6] for ground in names[6:] if contrast(light[text], light[ground]) < 4.5]
    assert weak == []
    page.close()


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` or `#rgb` (WCAG 2)."""
    digits = colour.strip().lstrip("#")
    digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    """How far two luminances stand apart (WCAG 2)."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_a_print_holds_the_query_and_leaves_out_the_navigation(page: Page) -> None:
    page.goto("/criterion/telemetry-completeness")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#query pre").is_visible()
    assert not page.get_by_role("navigation", name="主导航").is_visible()
