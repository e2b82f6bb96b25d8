"""The page of services, outages, drills and pairs: over every store, in both languages, and no markup from the data."""

import asyncio
import dataclasses
import html
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hospital.test_scored import AS_OF as DRILL_AS_OF
from hospital.test_scored import gather, write_drill
from influxstore import config_of
from playwright.sync_api import expect, sync_playwright
from servers import program

from agent.catalogue import load
from agent.language import speaking
from agent.points import Point
from agent.readings import Settler
from agent.table import NEVER_SECONDS, show_seconds
from collector.continuity import read_continuity
from collector.evaluate import Rules
from collector.site_folder import Maintenance, SiteFolder
from collector.snapshot import Snapshot
from collector.stores import AppliedBatch, Store, load_store

AT = 1_774_900_000_000
DAY = 86_400_000
MARKUP = "<b>db-b</b>"
DIGEST = "ab" * 32
FOLDER = SiteFolder(
    zone=ZoneInfo("Asia/Shanghai"),
    maintenance=(Maintenance(("lis",), AT - 3 * DAY, AT - 3 * DAY + 3_600_000, "升级", "李明", AT - 4 * DAY),),
)


def probe(service: str, is_up: float, at: int = AT - 5_000) -> Point:
    tags = {"asset": "his-probe", "service": service, "probe": f"{service}-path"}
    return Point("service_probe", tags, {"is_up": is_up, "latency_seconds": 0.002}, at)


def outage(service: str, ended_at: int, seconds: float, **fields: float) -> Point:
    return Point(
        "outage", {"asset": "his-probe", "service": service}, {"duration_seconds": seconds, **fields}, ended_at
    )


def drill(service: str, name: str, at: int, **fields: float | str) -> Point:
    return Point("drill", {"asset": "his-probe", "service": service, "drill": name}, fields, at)


def pair(name: str, at: int, **fields: float) -> Point:
    usual = {"is_running": 1.0, "is_in_sync": 1.0, "both_master_seconds": 0.0, "no_master_seconds": 0.0}
    return Point("replication", {"asset": "gateway", "pair": name}, {**usual, **fields}, at)


DRILLED = AT - 10 * DAY
POINTS = [
    probe("his", 1.0),
    probe("lis", 0.0),
    probe("pacs", 1.0, AT - 2 * DAY),
    outage("his", DRILLED - 50_000, 0.8125, is_automatic=1.0),
    outage("his", AT - DAY, 3.5, is_automatic=1.0, lost_tokens_count=2.0),
    outage("his", AT - 100 * DAY, 600.0),
    outage("his", AT - 400 * DAY, 1000.0),
    outage("lis", AT - 3 * DAY + 120_000, 60.0),
    drill(
        "his",
        "his-2026-q1",
        DRILLED,
        is_planned=1.0,
        is_passed=1.0,
        is_automatic=1.0,
        rto_seconds=0.8125,
        rpo_seconds=0.0,
        lost_tokens_count=0.0,
        duration_seconds=60.0,
        sent_count=600.0,
        acknowledged_count=592.0,
        token_log_digest=DIGEST,
        plan_digest="cd" * 32,
    ),
    drill("his", "seen-1", AT - DAY, is_planned=0.0, rto_seconds=3.5, rpo_seconds=0.25, lost_tokens_count=2.0),
    drill("his", "seen-1", AT - DAY + 9_000, is_passed=1.0),
    drill("lis", "lis-2025", AT - 300 * DAY, is_planned=1.0, is_passed=0.0, rto_seconds=NEVER_SECONDS),
    Point("role_change", {"asset": MARKUP, "group": "HIS", "kind": "vrrp"}, {"became_master": 1.0}, AT - DAY + 1_000),
    Point("role_change", {"asset": "db-a", "group": "HIS", "kind": "vrrp"}, {"became_master": 0.0}, AT - DAY),
    Point("vm_event", {"asset": "hv-b", "vm": "his-db", "kind": "migration"}, {"is_success": 1.0}, AT - DAY - 1_000),
    pair("active", AT - 9_000, serving_sides_count=2.0, secondary_share_ratio=0.4375, both_master_seconds=1.5),
    pair("active", AT - 60_000, serving_sides_count=2.0, both_master_seconds=2.0, no_master_seconds=0.5),
    pair("active", AT - 8 * DAY, both_master_seconds=100.0),
    pair("idle", AT - 9_000, serving_sides_count=1.0, secondary_share_ratio=0.0, lag_seconds=0.25),
    pair("paper", AT - 9_000, is_running=0.0, is_in_sync=0.0),
    pair("silent", AT - DAY),
    Point("role_group", {"asset": "a", "group": "HIS", "kind": "vrrp"}, {"is_master": 1.0, "masters_count": 2.0}, AT),
]


@pytest.fixture(params=["duckdb", "influxdb"])
def store(request: pytest.FixtureRequest, rules: Rules) -> Iterator[Store]:
    module = load_store(request.param)
    if request.param == "influxdb":
        config = config_of(request.getfixturevalue("influx"), request.getfixturevalue("database"))
    else:
        config = module.Config(path=":memory:")
    with module.Store(config, rules.catalogue) as opened:
        opened.write([AppliedBatch("renmin", "a", "", -1, "a", AT, AT, POINTS, 0, ())])
        opened.write([AppliedBatch("elsewhere", "b", "", -1, "b", AT, AT, POINTS, 0, ())])
        yield opened


Shown = Callable[..., str]
"""The page at a path (by default this one) of a snapshot, over what a store holds, in a language."""


@pytest.fixture
def page_of(fetched: Callable[[Snapshot, str], str]) -> Shown:
    def show(snapshot: Snapshot, store: Store | None, language: str, path: str = "/failover") -> str:
        if store is not None:
            facts = read_continuity(store, FOLDER, "renmin", AT)
            snapshot = dataclasses.replace(snapshot, continuity=facts, taken_at=AT)
        return fetched(snapshot, f"{path}?lang={language}")

    return show


def words(body: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def test_services_that_are_out_come_first_and_a_silent_one_is_no_up(store: Store) -> None:
    facts = read_continuity(store, FOLDER, "renmin", AT)
    assert [(one.service, one.is_up, one.is_silent) for one in facts.services] == [
        ("lis", False, False),
        ("pacs", True, True),
        ("his", True, False),
    ]


def test_outages_of_a_year_say_what_they_belong_to(store: Store) -> None:
    facts = read_continuity(store, FOLDER, "renmin", AT)
    seen = [(one.service, one.seconds, one.drill, one.move, one.is_announced) for one in facts.outages]
    assert seen == [
        ("his", 3.5, "", "seen-1", False),
        ("lis", 60.0, "", "", True),
        ("his", 0.8125, "his-2026-q1", "", False),
        ("his", 600.0, "", "", False),
    ]
    newest = facts.outages[0]
    assert newest.began_at == newest.ended_at - 3_500 and newest.lost == 2 and newest.is_automatic is True
    assert [(one.what, one.who, one.of) for one in newest.traces] == [("vm", "hv-b", "his-db"), ("role", MARKUP, "HIS")]
    assert facts.outages[3].is_automatic is None and facts.outages[3].traces == []


def test_outage_is_no_part_of_another_service_s_drill_nor_of_what_was_over_before_it(rules: Rules) -> None:
    module = load_store("duckdb")
    master = Point("role_change", {"asset": "a", "group": "X", "kind": "vrrp"}, {"became_master": 1.0}, AT - 40_000)
    late = AT - 3 * DAY + 3_700_000  # lis, 100 s after its maintenance
    points = [
        outage("pacs", DRILLED - 50_000, 1.0),
        drill("his", "his-2026-q1", DRILLED, is_planned=1.0, rto_seconds=0.5, duration_seconds=60.0),
        outage("lis", late, 10.0),
        outage("lis", AT, 20.0),
        master,
    ]
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as opened:
        opened.write([AppliedBatch("renmin", "a", "", -1, "a", AT, AT, points, 0, ())])
        facts = read_continuity(opened, FOLDER, "renmin", AT)
    assert [(one.service, one.drill, one.is_announced) for one in facts.outages] == [
        ("lis", "", False),
        ("lis", "", False),
        ("pacs", "", False),
    ]
    assert facts.outages[0].traces == [], "20 s before it began"


def test_switchover_is_one_with_what_came_later(store: Store) -> None:
    facts = read_continuity(store, FOLDER, "renmin", AT)
    assert [(one.drill, one.is_planned, one.is_passed) for one in facts.switches] == [
        ("seen-1", False, True),
        ("his-2026-q1", True, True),
        ("lis-2025", True, False),
    ]
    assert (facts.switches[0].ended_at, facts.switches[0].rto_seconds) == (AT - DAY, 3.5)
    assert facts.switches[1].began_at == DRILLED - 60_000


def test_pairs_have_the_seconds_of_a_week_with_two_masters_and_with_none(store: Store) -> None:
    facts = read_continuity(store, FOLDER, "renmin", AT)
    found = {one.pair: (one.both_seconds, one.none_seconds) for one in facts.pairs}
    assert found["active"] == (3.5, 0.5)
    assert found["paper"] == (0.0, 0.0)
    assert [one.pair for one in facts.pairs][:2] == ["paper", "silent"]


def test_nothing_is_read_of_another_site(store: Store) -> None:
    assert read_continuity(store, FOLDER, "nowhere", AT).is_empty


def test_page_shows_it_all(snapshot: Snapshot, store: Store, page_of: Shown) -> None:
    body = page_of(snapshot, store, "en")
    shown = words(body)
    assert "lis out lis-path his-probe 2.0 ms 5 s ago" in shown
    assert "pacs no data pacs-path" in shown
    assert "his 2 4.312 3 2 604.312 600" in shown, "30 days, a year, of it unplanned, seconds, the longest"
    assert "3.5 not planned by itself, without a person; switchover seen-1" in shown
    assert "meanwhile: <b>db-b</b> became master (HIS)" in shown and MARKUP not in body
    assert "60 announced maintenance nobody knows by whom" in shown
    assert "0.812 drill his-2026-q1 by itself" in shown
    assert "Full marks: RTO ≤ 1 min without a person; RPO ≤ 0" in shown
    assert "achieved-rto 100 points , achieved-rpo 100 points , failover-drill-recency without a person" in shown
    assert f"tokens acknowledged/sent 592/600 · lost 0 token log SHA-256 {DIGEST}" in shown
    assert "lis-2025 ◀ lis · drill did not recover" in shown and "not recovered" in shown
    assert "paper gateway on paper only" in shown
    assert "active gateway active-active 2 56 % / 44 % in step - 3.5 0.5" in shown
    assert "idle gateway active-idle 1 100 % / 0 % in step 0.25" in shown
    assert "silent gateway no data" in shown
    assert "HIS vrrp · a more than one master 2" in shown
    assert set(re.findall("[\u4e00-\u9fff]+", body)) == {"中文"}


def test_page_is_chinese_first(snapshot: Snapshot, store: Store, page_of: Shown) -> None:
    shown = words(page_of(snapshot, store, "zh"))
    assert "双活的真相" in shown and "只在纸面上" in shown and "计划外" in shown and "已公布的维护" in shown
    assert "满分目标：RTO ≤ 1 分钟，无人介入" in shown


def test_first_page_says_how_it_stands_and_leads_there(snapshot: Snapshot, store: Store, page_of: Shown) -> None:
    body = page_of(snapshot, store, "en", "/")
    assert 'href="/failover"' in body
    assert "services probed: 3; out now: lis; outages in 30 days: 3, 64.312 s together" in words(body)
    assert "the newest switchover seen-1, RTO 3.5 s" in words(body)


@pytest.mark.parametrize("criterion", ["achieved-rto", "fault-recovery-time-p95", "critical-service-availability"])
def test_criteria_that_take_these_figures_lead_to_the_page(criterion: str, snapshot: Snapshot, page_of: Shown) -> None:
    assert "outages, switchovers, dual-active in truth" in page_of(snapshot, None, "en", f"/criterion/{criterion}")
    assert "dual-active in truth" not in page_of(snapshot, None, "en", "/criterion/telemetry-completeness")


def test_page_of_a_hospital_without_these_sources_says_what_to_configure(snapshot: Snapshot, page_of: Shown) -> None:
    shown = words(page_of(snapshot, None, "en"))
    for name in ("continuity_probe", "postgresql_replication", "infravitals drill plan", "docs/failover.md"):
        assert name in shown
    assert "业务连续性" not in words(page_of(snapshot, None, "zh", "/")).replace("连续性 网络", "")


@pytest.mark.parametrize(("failed", "lost"), [(8, 0), (13, 3), (1234, 7)])
def test_page_and_command_line_give_the_same_figures_of_a_drill(
    failed: int, lost: int, snapshot: Snapshot, rules: Rules, page_of: Shown, tmp_path: Path
) -> None:
    write_drill(tmp_path / "drills", failed, lost)
    [reading] = asyncio.run(gather(tmp_path))
    settled = Settler(load(), "his-probe").settle((reading,), DRILL_AS_OF, "continuity_probe")
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        points = list(settled.points)
        store.write([AppliedBatch("renmin", "his-probe", "", -1, "one", DRILL_AS_OF, DRILL_AS_OF, points, 0, ())])
        facts = read_continuity(store, FOLDER, "renmin", DRILL_AS_OF)
    shown = words(page_of(dataclasses.replace(snapshot, continuity=facts), None, "en"))
    row = shown[shown.index("his-q1 ◀") :]

    listed, told = (drill_command(*asked, "--folder", tmp_path / "drills") for asked in (["list"], ["show", "his-q1"]))
    rto, rpo = re.findall(r"RTO ([0-9.]+) s", told)[0], re.findall(r"RPO ([0-9.]+) s, ([0-9]+) ", told)[0]
    assert [rto, rpo[0], rpo[1]] == listed.splitlines()[1].split()[3:6]
    assert re.search(rf"his-q1 ◀ his · drill moved and came back \S+ \S+ {rto} ≤ 1 min {rpo[0]} ≤ 0 s", row), row
    [(sent, good)] = re.findall(r"([0-9]+) tokens, ([0-9]+) acknowledged", told)
    [digest] = re.findall(r"token log SHA-256 ([0-9a-f]{64})", told)
    assert f"acknowledged/sent {good}/{sent} · lost {rpo[1]} token log SHA-256 {digest}" in row
    assert "it agrees" in told and f"out for {rto} s" in told


def test_full_page_fits_a_phone_in_both_languages_and_leads_to_the_criteria(
    serving: Callable[..., Any], snapshot: Snapshot, rules: Rules
) -> None:
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        store.write([AppliedBatch("renmin", "a", "", -1, "a", AT, AT, POINTS, 0, ())])
        full = dataclasses.replace(snapshot, continuity=read_continuity(store, FOLDER, "renmin", AT), taken_at=AT)
    chromium, flags = program("chromium", "chromium"), ["--no-sandbox", "--disable-gpu"]
    with serving(full).running() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 844}, base_url=server.url)
            for language in ("zh", "en"):
                page.goto(f"/failover?lang={language}")
                assert page.evaluate("document.documentElement.scrollWidth") == width
            page.get_by_role("link", name="achieved-rpo 100 points").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("A switchover loses no confirmed data")
            page.get_by_role("link", name="services now, outages").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Continuity: outages and switchovers")
            page.close()
        browser.close()


def drill_command(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "collector.cli", "--lang", "en", "drill", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_seconds_are_shown_in_the_steps_that_the_store_keeps_without_idle_zeros() -> None:
    shown = [show_seconds(value) for value in (64.0, 0.2109375, 1312.0, 10.0, 0.5, 100.25, 0.0, 0.0001)]
    assert shown == ["64", "0.211", "1312", "10", "0.5", "100.25", "0", "0"]
    assert show_seconds(0.1239) == show_seconds(round(0.1239 * 1024) / 1024) == "0.124"
    with speaking("zh"):
        assert (show_seconds(None), show_seconds(NEVER_SECONDS)) == ("-", "未恢复")
