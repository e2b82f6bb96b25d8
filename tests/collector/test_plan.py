"""What a criterion's words come to."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent import catalogue
from agent.documents import build, parse_document
from collector.evaluate import format_time, parse_time
from collector.plan import plan_all, window
from collector.plan_check import check
from collector.query import DAY_MS, Bounds, Take
from collector.rulebook import Criterion, Index, Node, Rulebook, Scale

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")

CRITERION = """
title: {zh: 磁盘不忙, en: disks are not busy}
kind: measured
why: {zh: 因为, en: because}
fix: {zh: 扩容, en: grow}
basis: [{source: own, confidence: own-judgement}]
scale: a-scale
question:
  measures: MEASURES
  per: [asset, device]
  over: OVER
  each: EACH
  take: {bucket: BUCKET, subject: SUBJECT}
  across: ACROSS
  needs: {span: 1h}
"""


def make_book(better: str = "lower", **words: str) -> tuple[Rulebook, dict[str, object]]:
    """A rulebook of one criterion with these words in its question."""
    text = CRITERION
    usual = {
        "MEASURES": "disk_device.busy_ratio",
        "OVER": "1d",
        "EACH": "5m",
        "BUCKET": "mean",
        "SUBJECT": "p95",
        "ACROSS": "[{take: worst}]",
    }
    for key, value in {**usual, **words}.items():
        text = text.replace(key, value)
    document = parse_document(text, "busy.yaml")
    scale = Scale(title={"zh": "", "en": ""}, unit="ratio", better=better, line=((0, 100), (1, 0)))  # type: ignore[arg-type]
    criterion = build(document, Criterion)
    index = Index(title=criterion.title, source="own", tree=(Node(id="a", zh="", en="", weight=1),))
    book = Rulebook({"busy": criterion}, {"busy": "here"}, {"a-scale": scale}, index, "x", {}, {})
    return book, {"here/busy.yaml": document, "indexes/x.yaml": document}


def plan_of(better: str = "lower", **words: str):  # type: ignore[no-untyped-def]
    return plan_all(make_book(better, **words)[0], catalogue.load())["busy"].main


def mistakes_of(**words: str) -> list[str]:
    book, documents = make_book(**words)
    return [str(mistake) for mistake in check(book, documents, catalogue.load())[0]]  # type: ignore[arg-type]


def test_a_missing_bucket_counts_as_the_end_of_the_range_that_the_scale_dislikes() -> None:
    assert plan_of("lower").bounds == Bounds(worst=1.0, best=0.0, share_is_good=False)
    assert plan_of("higher").bounds == Bounds(worst=0.0, best=1.0, share_is_good=True)


def test_the_direction_turns_at_a_share_of_what_is_below_a_limit() -> None:
    plan = plan_of("higher", SUBJECT="share <= 0.8")
    assert plan.subject == Take("share", operator="<=", threshold=0.8)
    assert plan.bounds == Bounds(worst=1.0, best=0.0, share_is_good=True)


def test_worst_becomes_min_or_max_by_the_direction_at_its_step() -> None:
    assert plan_of("higher").steps[0].take.by == "min"
    assert plan_of("lower").steps[0].take.by == "max"
    turned = plan_of("higher", ACROSS='[{take: worst, per: [asset]}, {take: "share <= 0.8"}]')
    assert [step.take.by for step in turned.steps] == ["max", "share"]


def test_a_short_bucket_ends_at_the_last_edge_in_utc() -> None:
    as_of = parse_time("2026-03-31T12:07:31+08:00")
    start, end, edges = window(as_of, 3_600_000, 300_000, SHANGHAI)
    assert (format_time(start), format_time(end), edges) == ("2026-03-31T03:05:00Z", "2026-03-31T04:05:00Z", ())


def test_an_edge_itself_closes_the_bucket_before_it() -> None:
    as_of = parse_time("2026-03-31T12:05:00+08:00")
    assert window(as_of, 3_600_000, 300_000, SHANGHAI)[1] == as_of


def test_days_start_at_the_site_s_midnight() -> None:
    start, end, edges = window(parse_time("2026-03-31T12:00:00+08:00"), 2 * DAY_MS, DAY_MS, SHANGHAI)
    assert [format_time(edge) for edge in (start, *edges, end)] == [
        "2026-03-28T16:00:00Z",
        "2026-03-28T16:00:00Z",
        "2026-03-29T16:00:00Z",
        "2026-03-30T16:00:00Z",
    ]


def test_a_day_that_loses_an_hour_is_still_one_day() -> None:
    start, end, edges = window(parse_time("2026-03-30T12:00:00+02:00"), 2 * DAY_MS, DAY_MS, BERLIN)
    assert [format_time(edge) for edge in (*edges, end)] == [
        "2026-03-27T23:00:00Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T22:00:00Z",
    ]
    assert start == edges[0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            {"MEASURES": "disk_device.busy_ration"},
            "busy.yaml:9: the catalogue has no signal 'disk_device.busy_ration'; did you mean 'disk_device.busy_ratio'?",
        ),
        ({"MEASURES": "asset_info.os_name"}, "busy.yaml:9: 'asset_info.os_name' is a text and cannot be asked"),
        ({"EACH": "30s"}, "busy.yaml:12: each 30s is less than 3 intervals of 15 s"),
        ({"OVER": "7m"}, "busy.yaml:11: over 7m is no multiple of each 5m"),
        ({"EACH": "7m", "OVER": "70m"}, "busy.yaml:12: each 7m must divide a day or be whole days"),
        ({"BUCKET": "sum"}, "busy.yaml:13: sum needs watched_by"),
        ({"BUCKET": "age >= 1"}, "busy.yaml:13: age is for subject only"),
        ({"SUBJECT": "count"}, "busy.yaml:13: count cannot stand in subject"),
        ({"SUBJECT": "share == 0.5"}, "busy.yaml:13: '==' is for 0/1 states only; write >= or <="),
        ({"ACROSS": "[{take: mean, per: [asset]}]"}, "busy.yaml:14: the last step leaves one number: no per"),
        (
            {"ACROSS": "[{take: mean, per: [aset]}, {take: mean}]"},
            "busy.yaml:14: 'aset' is gone after the step before; did you mean 'asset'?",
        ),
        ({"OVER": "1101d", "EACH": "1d"}, "busy.yaml:11: the window 1101d is longer than data is kept (1100 d)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_question_that_cannot_be_asked_is_refused_with_its_line(
    words: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFRAVITALS_LANG", "en")
    assert any(mistake.startswith(line) for mistake in mistakes_of(**words)), mistakes_of(**words)


def test_the_shipped_rules_load_without_a_mistake() -> None:
    from collector.ruleset import check_rules

    folder = Path(__file__).parents[2] / "rules"
    found = check_rules(folder)
    files = [path for path in folder.glob("*/*.yaml") if path.parent.name not in ("scales", "indexes")]
    assert (found.mistakes, found.warnings, found.criteria) == ([], [], len(files))
