"""The ledger's page: every account in figures, what does not balance first and by name."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import READY_SECONDS, program

from agent.points import Point
from collector.evaluate import Rules
from collector.ledger_words import OUTCOMES
from collector.ruleset import load_rules
from collector.snapshot import Snapshot
from collector.stores import AppliedBatch, load_store

NOW = 1_774_921_220_000
"""As in conftest.py."""


def word(agent: str, counts: tuple[int, int, int, int, int], at: int) -> Point:
    """The agent's account; ten points in each batch."""
    numbers = dict(zip(OUTCOMES, counts, strict=True))
    fields = {f"ledger_{name}_batches_count": float(number) for name, number in numbers.items()}
    fields |= {f"ledger_{name}_points_count": 10.0 * number for name, number in numbers.items()}
    fields |= {"ledger_closings_count": 0.0, "ledger_began_seconds": (NOW - 100_000) / 1000}
    return Point("agent_health", {"asset": agent}, {**fields, "ledger_newest_seconds": at / 1000}, at)


def rows(agent: str, present: set[int], told: Point | None) -> list[AppliedBatch]:
    """Batches of ten points each, all set aside but the last, which carries the word and was made after it."""
    first = min(present)
    batches = [
        AppliedBatch("renmin", agent, "b", seq, f"b/{seq}", NOW - 100_000 + 1000 * (seq - first), NOW, (), 10, ())
        for seq in sorted(present)
    ]
    last = AppliedBatch("renmin", agent, "b", 50, "b/50", NOW - 20_000, NOW, (told,) if told else (), 0, ())
    return [*batches, last]


@pytest.fixture(scope="module")
def accounts(look: Callable[..., Snapshot]) -> Snapshot:
    rules: Rules = load_rules().rules
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        store.write(rows("lis-db-01", set(range(20)), word("lis-db-01", (25, 20, 0, 2, 3), NOW - 30_000)))
        store.write(rows("his-db-01", set(range(20)) - {4, 5}, word("his-db-01", (20, 20, 0, 0, 0), NOW - 30_000)))
        store.write(rows("pacs-02", {3, 4}, None))
        return look(store, rules, {})


@pytest.fixture(scope="module")
def page(accounts: Snapshot, serving: Callable[..., Any]) -> Iterator[Page]:
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with serving(accounts).running() as server, sync_playwright() as playwright:
        chromium = program("chromium", "chromium")
        browser: Browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        opened = browser.new_context(base_url=server.url).new_page()
        opened.set_default_timeout(READY_SECONDS * 1000)
        yield opened
        browser.close()


def test_what_does_not_balance_comes_first_and_says_why(page: Page) -> None:
    page.goto("/ledger?lang=en")
    heads = page.locator(".account h2").all_inner_texts()
    assert heads == ["his-db-01 does not balance", "pacs-02 cannot be known", "lis-db-01 balanced"]
    first = page.locator(".account").first
    reason = "the store lacks 2 batches (20 points) for which the agent has a receipt (#4–5); it was restored"
    expect(first.locator(".reason")).to_contain_text(reason)
    cells = [row.locator("td").all_inner_texts() for row in first.locator("tbody tr").all()]
    assert cells == [["batches", "20", "0", "18", "0", "0", "2"], ["points", "200", "0", "180", "0", "0", "20"]]
    assert page.locator("pre").inner_text().endswith(" ledger --data-dir '/srv/a hospital'")


def test_an_account_whose_numbers_stand_open_balances(page: Page) -> None:
    page.goto("/ledger?lang=zh")
    last = page.locator(".account").last
    expect(last.locator("h2")).to_have_text("lis-db-01 平")
    cells = [row.locator("td").all_inner_texts() for row in last.locator("tbody tr").all()]
    assert cells == [["批次", "25", "0", "20", "2", "3", "0"], ["数据点", "250", "0", "200", "20", "30", "0"]]


def test_the_first_page_names_accounts_that_do_not_balance(page: Page) -> None:
    page.goto("/?lang=en")
    shown = page.locator(".notice.bad:visible").inner_text()
    assert "missing batches: 48" in shown, "of the agent without a word"
    assert "accounts that do not balance: his-db-01" in shown
    page.get_by_role("link", name="Ledger").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ledger")


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("path", ["/", "/ledger", "/agents"])
def test_the_page_fits_a_phone(page: Page, language: str, path: str) -> None:
    page.set_viewport_size({"width": 400, "height": 850})
    page.goto(f"{path}?lang={language}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.set_viewport_size({"width": 1280, "height": 900})
