"""What the pages of criteria, nodes and subjects say of a hospital with a register, attestations and caps."""

from typing import Any

import pytest

from agent.language import Language, speaking
from collector.snapshot import Snapshot
from collector.web.attestations_view import attestations_view
from collector.web.evidence_view import criterion_view
from collector.web.node_view import node_view
from collector.web.questions import subject_path
from collector.web.subject_view import subject_view
from collector.web.views import missing_view

FAILOVER, ISOLATION = "hospital.data-availability.failover", "hospital.network-security.network-isolation"
MANAGEMENT = "hospital.network-security.network-management"
PAPER = "documents/2025-report.pdf"


def values(language: Language, view: Any, *arguments: Any) -> dict[str, Any]:
    """What a page lays out, in one language."""
    with speaking(language):
        found: dict[str, Any] = view(*arguments).values
    return found


def criterion(language: Language, snapshot: Snapshot, name: str) -> dict[str, Any]:
    return values(language, criterion_view, snapshot, name)


# -- a criterion that a person vouches for


@pytest.mark.parametrize(
    ("name", "state", "zh", "en"),
    [
        ("paper-location", "good", "有效", "valid"),
        ("paper-expired", "bad", "已过期", "expired"),
        ("paper-missing", "bad", "文件缺失或已改动", "document gone or changed"),
        ("paper-none", "none", "尚无证明", "none yet"),
        ("exposed-service-count", "not_applicable", "不适用", "does not apply"),
    ],
)
def test_an_attestation_says_how_it_counts_now(vouched: Snapshot, name: str, state: str, zh: str, en: str) -> None:
    said = [criterion(language, vouched, name)["vouched"] for language in ("zh", "en")]
    assert [(one.state, one.word) for one in said] == [(state, zh), (state, en)]


def test_an_attestation_without_a_document_says_so_in_the_list_and_on_its_page(vouched: Snapshot) -> None:
    for name in ("paper-later", "exposed-service-count"):
        assert ("Document", "no document attached") in criterion("en", vouched, name)["vouched"].facts
    rows = {row.name: row.document for row in values("zh", attestations_view, vouched)["near"]}
    assert (rows["paper-later"], rows["paper-location"], rows["paper-none"]) == ("未附文件", PAPER, "")


def test_an_attestation_shows_who_until_when_and_on_which_paper(vouched: Snapshot) -> None:
    said = criterion("zh", vouched, "paper-location")["vouched"]
    assert said.facts == [
        ("证明人", "李明"),
        ("职务", "信息科主任"),
        ("生效", "2026-01-01 Asia/Shanghai"),
        ("到期", "2026-04-11 Asia/Shanghai · 还有 10 天"),
        ("证明的数值", "2"),
        ("理由", "现场核对"),
        ("文件", "documents/2025-report.pdf"),
        ("登记的文件摘要 SHA-256", "ab" * 32),
        ("写在", "attestations.yaml:7"),
    ]
    assert said.advice == "还有 10 天到期，请及时续期，每次最长 365d："


def test_what_nobody_vouched_for_says_how_to_add_it(vouched: Snapshot) -> None:
    said = criterion("en", vouched, "paper-none")["vouched"]
    assert said.facts == []
    assert said.advice == "Nobody has vouched for this yet. Add it, for 365d at most:"
    assert said.command == (
        "/opt/infravitals/bin/infravitals attest add --data-dir '/srv/a hospital' paper-none "
        "--value VALUE --reason REASON --author NAME --role ROLE --document FILE --expires DATE"
    )


def test_a_measured_criterion_that_nobody_excepts_has_no_attestation(vouched: Snapshot) -> None:
    assert criterion("zh", vouched, "telemetry-completeness")["vouched"] is None


# -- a measured criterion


def test_every_question_of_a_combined_criterion_is_shown_with_what_it_found(vouched: Snapshot) -> None:
    shown = criterion("en", vouched, "isolation-strength-live")
    assert [(block.name, block.anchor) for block in shown["questions"]] == [
        ("level", "query-level"),
        ("in_service", "query-in_service"),
    ]
    level = shown["questions"][0]
    assert level.lines[:2] == [
        "boundary.strength_level: Strength of the means of isolation",
        "over 30d in buckets of 1d",
    ]
    assert level.facts[:5] == [
        ("Window", "2026-03-01 00:00:00 – 2026-03-31 00:00:00 Asia/Shanghai"),
        ("Subjects", "2"),
        ("Buckets: found / expected", "14 / 14 (24 h)"),
        ("Missing buckets", "0"),
        ("Samples", "4032"),
    ]
    weakest = level.worst[0]
    assert [(tag.name, tag.value, tag.path) for tag in weakest.tags] == [
        ("asset", "fw-2", "/subject/fw-2"),
        ("boundary", "insurance", ""),
    ]
    assert (weakest.low, weakest.high, weakest.buckets) == ("1", "1", "7 / 7")
    assert "boundary" in level.query
    assert shown["combination"] == [
        "combined: the level while in service (a share of 1), else 0 (level-in-service)",
        "across subjects: min",
    ]
    assert shown["combined"] == "0"


def test_missing_and_exempt_subjects_and_what_missing_data_costs_are_said(vouched: Snapshot) -> None:
    shown = criterion("zh", vouched, "telemetry-completeness")
    block = shown["questions"][0]
    facts = dict(block.facts)
    assert facts["缺失的时间桶"] == "5062 (76.81 %)"
    assert facts["结果"] == "最坏 29.55 %，最好 98.94 %"
    assert shown["both"] == "最坏 29.55 % 得 0 分，最好 98.94 % 得 85 分；两端之差来自缺失的数据。"
    assert [(row.tags[0].value, row.missing) for row in block.missing[:2]] == [("lis-db-01", "720"), ("pacs-01", "639")]
    assert [[tag.value for tag in tags] for tags in block.exempt] == [["sw-core-2", "snmp", "sw-core-2"]]


def test_a_criterion_says_its_weight_and_why_it_is_not_the_published_one(vouched: Snapshot) -> None:
    row = criterion("en", vouched, "isolation-strength-live")["row"]
    assert (row.weight, row.published) == ("17.6471 %", "15 %")
    assert criterion("en", vouched, "telemetry-completeness")["row"].published == ""


def test_a_criterion_names_the_commands_and_digests_that_check_it(vouched: Snapshot) -> None:
    shown = criterion("en", vouched, "telemetry-completeness")
    place = "--data-dir '/srv/a hospital'"
    assert shown["commands"][0] == (
        f"/opt/infravitals/bin/infravitals explain {place} telemetry-completeness --as-of 2026-03-31T01:40:20Z"
    )
    made_from = dict(shown["made_from"])
    rule = vouched.rules.rule_digest("telemetry-completeness")
    assert made_from["Digest of this rule (criterion and scale)"] == rule
    assert made_from["Digest of the site folder"] == "ef" * 32


def test_a_signal_is_seen_here_or_not_or_has_no_source(vouched: Snapshot) -> None:
    rows = criterion("en", vouched, "telemetry-completeness")["signals"]
    assert [(row.name, row.word) for row in rows] == [("source_round.is_success", "seen here")]
    rows = criterion("zh", vouched, "illegal-connection-events")["signals"]
    assert {row.word for row in rows} == {"本版本尚无采集源"}


# -- a node


def test_the_arithmetic_of_a_capped_node_is_visible(vouched: Snapshot) -> None:
    ends = values("en", node_view, vouched, MANAGEMENT)["ends"]
    assert [(end.name, end.total, end.cap, end.result) for end in ends] == [
        ("left end (the score)", "6.75", "10", "6.75"),
        ("right end", "89.5", "10", "10"),
    ]


def test_a_cap_says_its_state_and_which_ends_it_limits(vouched: Snapshot) -> None:
    def caps(language: Language, node: str) -> list[tuple[str, str, str, str]]:
        return [(cap.id, cap.state, cap.word, cap.limits) for cap in values(language, node_view, vouched, node)["caps"]]

    assert caps("zh", MANAGEMENT) == [
        ("lost-member", "bad", "成立", "区间两端都不高于 10"),
        ("log-lost", "good", "不成立", "不限制得分"),
    ]
    assert caps("en", ISOLATION) == [
        ("no-zone-map", "provisional", "unknown", "limits the left end only, to 40 until it is known")
    ]


def test_a_cap_says_when_it_holds_and_shows_its_evidence(vouched: Snapshot) -> None:
    lost, logs = values("en", node_view, vouched, MANAGEMENT)["caps"]
    assert lost.condition == "holds while what is measured is 100 % or more"
    assert lost.found == "now 100 % at worst, 100 % at best"
    assert [tag.value for tag in lost.questions[0].worst[0].tags] == ["vcenter", "pacs-vm-07"]
    assert (logs.condition, logs.criterion.path, logs.found) == (
        "holds while this criterion earns less than 20: ",
        "/criterion/paper-later",
        "now 20 – 20",
    )


def test_documents_stand_apart_and_do_not_count(vouched: Snapshot) -> None:
    shown = values("en", node_view, vouched, ISOLATION)
    assert [row.id for row in shown["documents"]] == ["paper-expired", "paper-missing", "paper-none"]
    assert not {row.id for row in shown["criteria"]} & {row.id for row in shown["documents"]}
    assert shown["node"].criteria == "1/7 scored"


def test_a_node_names_what_does_not_apply_and_took_its_weight_away(vouched: Snapshot) -> None:
    assert values("zh", node_view, vouched, ISOLATION)["gone"] == ["从互联网扫描不到任何数据库或管理端口"]


def test_what_would_raise_a_score_is_never_more_than_its_cap_allows(vouched: Snapshot) -> None:
    free = values("en", node_view, vouched, FAILOVER)["raising"][0]
    assert (free.target.path, free.gain) == ("/criterion/achieved-rto", "+25")
    assert {row.gain for row in values("en", node_view, vouched, MANAGEMENT)["raising"]} == {"+3.25"}


def test_a_trend_is_drawn_where_there_is_history_and_breaks_where_nothing_is_stored(vouched: Snapshot) -> None:
    shown = values("en", node_view, vouched, MANAGEMENT)
    assert len(shown["trend"].plot.lines) == 2
    assert shown["trend"].plot.times == ["03-28 21:00", "03-30 02:30", "03-31 08:00"]
    other = values("en", node_view, vouched, FAILOVER)
    assert (other["has_history"], other["trend"].plot) == (False, None)


# -- a subject


def test_a_subject_shows_its_register_entry_and_its_announced_maintenance(vouched: Snapshot) -> None:
    shown = values("zh", subject_view, vouched, "his-db-01")
    assert shown["entries"] == [
        (
            "assets",
            [
                ("类别", "server"),
                ("重要性", "critical"),
                ("角色", "database"),
                ("可由谁上报", "his-db-01"),
                ("登记起", "2025-01-01 Asia/Shanghai"),
                ("登记止", "无期限"),
            ],
        )
    ]
    assert shown["excused"] == [("已公布的维护", "2026-04-04 22:00 – 2026-04-05 02:00 · 升级数据库 · 李明")]
    assert {row.name for row in shown["sources"]} == {
        "host_cpu",
        "host_disk",
        "host_network",
        "host_raid",
        "systemd_units",
    }


def test_a_subject_lists_every_question_that_names_it_once_for_each_of_its_parts(vouched: Snapshot) -> None:
    mentions = values("en", subject_view, vouched, "his-db-01")["mentions"]
    rounds = [one for one in mentions if one.target.path == "/criterion/telemetry-completeness"]
    failing = next(one for one in rounds if one.subject.tags[1].value == "systemd_units")
    assert (failing.subject.low, failing.subject.high) == ("0 %", "73.47 %")
    assert (failing.subject.buckets, failing.word) == ("191 / 720", "529 buckets missing")
    parts = [tuple(tag.value for tag in one.subject.tags) for one in rounds]
    assert len(parts) == len(set(parts))


def test_an_exempt_subject_says_who_exempted_it(vouched: Snapshot) -> None:
    shown = values("en", subject_view, vouched, "sw-core-2")
    assert [one.word for one in shown["mentions"]] == ["exempt"]
    assert shown["excused"] == [("Exempt from telemetry-completeness", "备件，未上线 · 李明 · until 2026-06-01")]
    assert shown["unregistered"].startswith("The register has no entry for it")


def test_a_retired_asset_says_why_and_nothing_watched_it(vouched: Snapshot) -> None:
    shown = values("en", subject_view, vouched, "pacs-01")
    assert shown["retired"] == ["由 pacs-02 替换"]
    assert shown["sources"] == []
    assert {one.subject.low for one in shown["mentions"]} == {"–"}


def test_without_a_register_a_subject_says_who_owns_it(snapshot: Snapshot) -> None:
    shown = values("en", subject_view, snapshot, "vcenter")
    assert shown["unregistered"] == "There is no register yet; the agent that reported it first, gw-core, owns it."
    assert "register draft" in shown["draft"]


def test_an_unknown_subject_is_a_missing_page_with_the_nearest_known(vouched: Snapshot) -> None:
    assert subject_view(vouched, "his-db-1") is None
    assert subject_view(vouched, "local") is None
    nearest = [
        missing_view(vouched, path).values["nearest"]
        for path in ("/subject/his-db-1", "/criterion/telemetry-completness", "/nowhere")
    ]
    assert nearest[0][0] == ("/subject/his-db-01", "his-db-01")
    assert nearest[1][0].path == "/criterion/telemetry-completeness"
    assert nearest[2] == []


def test_only_what_a_register_knows_of_has_a_page() -> None:
    assert subject_path("asset", "a/b c") == "/subject/a%2Fb%20c"
    assert [subject_path(tag, "x") for tag in ("line", "from_zone", "interface")] == ["/subject/x", "/subject/x", ""]
    assert subject_path("asset", "") == ""
