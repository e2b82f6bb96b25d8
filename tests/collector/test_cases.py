"""Cases: points are written as they say, a wrong expectation is named with its line, and the hospital is the case's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.language import choose
from collector.cases import Outcome, run_cases
from collector.evaluate import Rules
from collector.ruleset import load_rules, memory_store
from collector.stores import Store

HEAD = 'as_of: "2026-03-31T00:00:00+08:00"\n'
UP = "{tags: {asset: dr-1}, fields: {is_up: 1}, every: 1h, from: 8d}"
ROUNDS = "{tags: {asset: a-1, source: s, target: local}, fields: {is_success: 1}, every: 10m, from: 2d}"
FULL = "{status: scored, low: 100, high: 100}"


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="module")
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


def run(folder: Path, rules: Rules, text: str, name: str = "failover/dr-site-readiness") -> list[Outcome]:
    """The outcomes of one file, in a store of its own."""
    path = folder / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    with memory_store(rules.catalogue) as opened:
        return list(run_cases(folder, rules, opened, [path.stem]))


def complaints(outcomes: list[Outcome]) -> list[str]:
    return [mistake.text for outcome in outcomes for mistake in outcome.mistakes]


def test_a_case_passes_and_each_is_a_site_of_its_own(tmp_path: Path, rules: Rules) -> None:
    text = f"""\
{HEAD}site:
  assets: {{dr-1: {{role: dr}}}}
cases:
  - {{name: one, given: [{UP}], expect: {FULL}}}
  - {{name: other, given: [], expect: {{status: no_data, low: 0, high: 100}}}}
"""
    assert run(tmp_path, rules, text) == [
        Outcome("dr-site-readiness", "one", ()),
        Outcome("dr-site-readiness", "other", ()),
    ]


def test_what_differs_is_named_with_its_line(tmp_path: Path, rules: Rules) -> None:
    text = f"""\
{HEAD}cases:
  - name: wrong
    given: [{UP}]
    expect: {FULL}
"""
    [outcome] = run(tmp_path, rules, text)
    assert [(mistake.line, mistake.text) for mistake in outcome.mistakes] == [
        (5, "case 'wrong': status should be scored, is no_data"),
        (5, "case 'wrong': low should be 100.0, is 0.0"),
    ]


def test_a_case_s_own_site_replaces_the_file_s(tmp_path: Path, rules: Rules) -> None:
    text = f"""\
{HEAD}site:
  assets: {{dr-1: {{role: dr}}}}
cases:
  - name: without_register
    site: {{}}
    given: [{UP}]
    expect: {{status: no_data, provisional_value: 1, provisional_points: 100}}
  - name: another_register
    site:
      assets: {{dr-1: {{role: dr}}, dr-2: {{role: dr}}}}
    given: [{UP}]
    expect: {{status: scored, low: 40, high: 100, value: 0.5, coverage: 0.210526316}}
  - name: exempt
    site:
      assets: {{dr-1: {{role: dr}}, dr-2: {{role: dr}}}}
      exempt: {{asset: dr-2}}
    given: [{UP}]
    expect: {FULL}
"""
    outcomes = run(tmp_path, rules, text)
    assert complaints(outcomes) == [], "dr-2 owes all 30 days: 8 of 38"


def test_a_series_says_by_itself_how_often_it_comes(tmp_path: Path, rules: Rules) -> None:
    """The catalogue's hour would make a bucket of one sample a day a missing one."""
    text = f"""\
{HEAD}site:
  assets: {{dr-1: {{role: dr}}}}
cases:
  - name: coarse
    given: ["daily"]
    expect: {FULL}
""".replace('["daily"]', "[{tags: {asset: dr-1}, fields: {is_up: 1}, every: 1d, from: 8d}]")
    assert complaints(run(tmp_path, rules, text)) == []


def test_events_prove_not_that_somebody_looked(tmp_path: Path, rules: Rules) -> None:
    event = "{tags: {asset: nms, severity: critical}, fields: {acknowledged_after_seconds: 60}, every: 1d, from: 8d}"
    looked = "{measurement: source_round, tags: {asset: nms, source: s, target: t}, fields: {is_success: 1}, every: 1h, from: 8d}"
    text = f"""\
{HEAD}cases:
  - {{name: unwatched, given: [{event}], expect: {{status: no_data, provisional_points: 100}}}}
  - {{name: watched, given: [{event}, {looked}], expect: {FULL}}}
"""
    assert complaints(run(tmp_path, rules, text, "network-management/alarm-handling-time")) == []


def test_a_time_without_offset_is_refused(tmp_path: Path, rules: Rules) -> None:
    text = f'as_of: "2026-03-31T00:00:00"\ncases:\n  - {{name: one, given: [{ROUNDS}], expect: {FULL}}}\n'
    outcomes = run(tmp_path, rules, text, "network-management/telemetry-completeness")
    assert complaints(outcomes) == ["as_of is no time with an offset"]


def test_a_criterion_without_cases_fails(tmp_path: Path, rules: Rules, store: Store) -> None:
    [missing] = run_cases(tmp_path, rules, store, ["achieved-rto"])
    [empty] = run(tmp_path, rules, f"{HEAD}cases: []\n")
    assert len(missing.mistakes) == 1
    assert complaints([empty]) == ["there is not one case"]
