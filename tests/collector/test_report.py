"""What a terminal shows, letter by letter."""

import functools
import re

import pytest

from agent import catalogue
from agent.catalogue import Text
from agent.language import Language, speaking
from collector import rules_folder
from collector.evaluate import Rules, prepare
from collector.report import bar, explain_rule, plain, show_value, spell_basis
from collector.rulebook import Basis


@functools.cache
def shipped() -> Rules:
    return prepare(rules_folder.load()[0], catalogue.load())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 b/s"),
        (750, "750 b/s"),
        (64e3, "64 kb/s"),
        (999_999, "1 Mb/s"),
        (2.048e6, "2.048 Mb/s"),
        (20e6, "20 Mb/s"),
        (100e6, "100 Mb/s"),
        (1e9, "1 Gb/s"),
        (10e9, "10 Gb/s"),
        (400e9, "400 Gb/s"),
        (1.6e12, "1.6 Tb/s"),
    ],
)
def test_rates_stand_in_the_unit_that_keeps_them_short(value: float, shown: str) -> None:
    assert show_value(value, "bits_per_second") == shown


@pytest.mark.parametrize(
    ("value", "zh", "en"),
    [
        (0, "0 秒", "0 s"),
        (0.00005, "0.05 毫秒", "0.05 ms"),
        (0.0125, "12.5 毫秒", "12.5 ms"),
        (0.9999, "999.9 毫秒", "999.9 ms"),
        (1, "1 秒", "1 s"),
        (59.99999, "1 分钟", "1 min"),
        (90, "1.5 分钟", "1.5 min"),
        (900, "15 分钟", "15 min"),
        (3600, "1 小时", "1 h"),
        (5400, "1.5 小时", "1.5 h"),
        (86_400, "24 小时", "24 h"),
        (129_600, "36 小时", "36 h"),
        (172_800, "2 天", "2 d"),
        (365 * 86_400, "365 天", "365 d"),
        (3650 * 86_400, "3650 天", "3650 d"),
    ],
)
def test_spans_stand_in_the_largest_unit_that_they_fill(value: float, zh: str, en: str) -> None:
    with speaking("zh"):
        assert show_value(value, "seconds") == zh
    with speaking("en"):
        assert show_value(value, "seconds") == en


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 %"),
        (0.0000001, "0.00001 %"),
        (0.001, "0.1 %"),
        (0.943612, "94.36 %"),
        (0.9899, "98.99 %"),
        (0.99741, "99.741 %"),
        (0.99982, "99.982 %"),
        (0.9999999, "99.999 %"),
        (1, "100 %"),
        (250, "25000 %"),
    ],
)
def test_ratios_are_percentages_and_less_than_all_never_reads_as_all(value: float, shown: str) -> None:
    assert show_value(value, "ratio") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (3, "3"), (1_234_567, "1234567"), (2.5, "2.5"), (0.000012, "0.000012"), (float("inf"), "∞")],
)
def test_counts_levels_and_bounds_have_no_exponent(value: float, shown: str) -> None:
    assert show_value(value, "count") == plain(value) == shown


def test_no_value_is_a_dash() -> None:
    assert show_value(None, "ratio") == "–"


@pytest.mark.parametrize(
    ("low", "high", "drawn"),
    [
        (0, 0, "··········"),
        (0, 100, "░░░░░░░░░░"),
        (20, 60, "██░░░░····"),
        (15.8, 85.8, "██░░░░░░░·"),
        (100, 100, "██████████"),
    ],
)
def test_a_bar_draws_proven_unproven_and_lost(low: float, high: float, drawn: str) -> None:
    assert bar(low, high, cells=10) == drawn


def test_a_basis_gives_document_clause_note_and_how_sure_that_is() -> None:
    note = Text("第三级：热冗余", "level 3: hot redundancy")
    basis = Basis(source="gbt-22239-2019", clause="8.1.4.9 c", confidence="confirmed", note=note)
    with speaking("zh"):
        assert spell_basis(shipped(), basis) == (
            "信息安全技术 网络安全等级保护基本要求（GB/T 22239-2019） 8.1.4.9 c · 第三级：热冗余 [已核对]"
        )
    with speaking("en"):
        assert spell_basis(shipped(), basis) == (
            "Baseline for classified protection of cybersecurity (GB/T 22239-2019) 8.1.4.9 c"
            " · level 3: hot redundancy [confirmed]"
        )


def test_our_own_judgement_is_said_once() -> None:
    with speaking("zh"):
        assert spell_basis(shipped(), Basis(source="own", confidence="own-judgement")) == "本项目的判断"


EXPLAINED_ZH = """\
backbone-bandwidth-class · 平台服务器与影像路径上的链路均不低于万兆

依据：医院信息互联互通标准化成熟度测评方案（2020年版） 4.2.1.1, 4.2.1.2 · 三级、四级乙等 [已核对]
问题：
  net_interface.speed_bits_per_second (bit/s): 协商速率
  窗口 7d，每 1d 一桶
  样本到桶：最小
  缺失的桶：最坏计 0，最好计 10000000000000
  至少需要：1d，1 个样本
标尺 backbone-bandwidth-class(骨干链路的最低运行速率)：
  ≥    10 Gb/s ->   100   医院信息互联互通标准化成熟度测评方案（2020年版） 4.2.1.1, 4.2.1.2 · 三级、四级乙等；万兆为最高选项 [已核对]
"""
EXPLAINED_EN = """\
backbone-bandwidth-class · No link on the way to platform servers and imaging runs below 10 Gb/s
basis: Standardised maturity assessment of hospital information interconnection (2020 edition) 4.2.1.1, 4.2.1.2 · grades 3 and 4B [confirmed]
question:
  over 7d in buckets of 1d
  samples to a bucket: min
  needs at least: 1d, 1 samples
scale backbone-bandwidth-class (Lowest operating speed on the backbone):
"""


@pytest.mark.parametrize(("language", "lines"), [("zh", EXPLAINED_ZH), ("en", EXPLAINED_EN)])
def test_an_explanation_gives_question_basis_and_scale(language: Language, lines: str) -> None:
    with speaking(language):
        found = explain_rule(shipped(), "backbone-bandwidth-class", None).split("\n")
    assert [line for line in lines.split("\n") if line not in found] == []


def test_no_explanation_mixes_the_notes_of_two_languages() -> None:
    rules = shipped()
    for name, asked in rules.book.criteria.items():
        bases = [*asked.basis, *(basis for rung in rules.book.scales[asked.scale].rungs for basis in rung.basis)]
        notes = [basis.note for basis in bases if basis.note and basis.note.zh != basis.note.en]
        with speaking("zh"):
            chinese = explain_rule(rules, name, None)
        with speaking("en"):
            english = explain_rule(rules, name, None)
        assert [note.en for note in notes if f"· {note.en}" in chinese] == [], name
        assert [note.zh for note in notes if f"· {note.zh}" in english] == [], name
        assert not re.search("[\u4e00-\u9fff]", english), name


def test_the_query_stands_in_the_explanation_when_there_is_one() -> None:
    assert "SELECT 1" in explain_rule(shipped(), "telemetry-completeness", "SELECT 1").split("\n")
