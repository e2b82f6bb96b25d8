"""The tables of a terminal: they fit it, and a pipe gets everything."""

import functools
import io
import re

import msgspec
import pytest
from rich.console import Console
from stored_cards import result

from agent import catalogue
from agent.catalogue import Text
from agent.language import Language, speaking
from agent.table import display_width
from collector import rules_folder
from collector.evaluate import Rules, prepare
from collector.evidence import CriterionResult, Provisional
from collector.score import Digests, NodeResult, Scorecard, Total
from collector.stores import Latest
from collector.tables import criteria_grid, draw_rules, draw_scorecard, facts_grid, list_rules, scorecard_grid
from collector.up import LiveView


@functools.cache
def shipped() -> Rules:
    return prepare(rules_folder.load()[0], catalogue.load())


def criterion(number: float, provisional: Provisional | None) -> CriterionResult:
    return msgspec.structs.replace(
        result("telemetry-completeness", None if provisional else number, weight=0.5),
        title=Text("采集", "Gathering"),
        coverage=0,
        value=None,
        best_value=None,
        provisional=provisional,
        unit="ratio",
    )


def node(name: str, title: Text, low: float, high: float, *criteria: CriterionResult) -> NodeResult:
    return NodeResult(
        id=name,
        title=title,
        level=name.count(".") + 1,
        weight=0.5,
        parent=name.rpartition(".")[0] or None,
        effective_weight=0.5,
        cap=None,
        cap_high=None,
        low=low,
        high=high,
        coverage=0.3,
        status="scored",
        criteria=criteria,
    )


CARD = Scorecard(
    site="hospital-a",
    as_of="2026-03-30T16:00:00Z",
    revision=1,
    digests=Digests("", "", "", ""),
    total=Total(2.22, 97.78, 0.1),
    nodes=(
        node("hospital", Text("医院建设", "Hospital"), 10, 90),
        node("hospital.network-security", Text("网络及安全", "Network and security"), 15.8, 85.8),
        node(
            "hospital.network-security.network-management",
            Text("医疗网络管理", "Network management"),
            30,
            80,
            criterion(60, None),
            criterion(0, Provisional(1, 100)),
            msgspec.structs.replace(criterion(100, None), id="ev-paper", weight=0),
        ),
    ),
)


def printed(language: Language, width: int | None = 100) -> str:
    with speaking(language):
        return "\n".join(line.text for line in draw_scorecard(CARD, width))


@pytest.mark.parametrize(
    ("language", "words", "strange"),
    [
        (
            "zh",
            (
                "基础设施就绪度 · hospital-a",
                "网络及安全",
                "15.8 - 85.8",
                "  医疗网络管理",
                "1/2 暂估 1",
                "2.22 - 97.78",
            ),
            ("Network", "provisional", "city index"),
        ),
        (
            "en",
            (
                "Infrastructure readiness · hospital-a",
                "Network and security",
                "30.0 - 80.0",
                "1/2 +1 provisional",
                "city index 2.22 - 97.78",
            ),
            ("网络", "暂估", "已证实"),
        ),
    ],
)
def test_the_scorecard_is_in_one_language(language: Language, words: tuple[str, ...], strange: tuple[str, ...]) -> None:
    text = printed(language)
    assert [word for word in words if word not in text] == []
    assert [word for word in strange if word in text] == []


def test_the_scorecard_shows_the_two_indicators_and_what_is_right_below_them() -> None:
    text = printed("zh")
    assert "医疗网络管理" in text
    assert "医院建设" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, None])
def test_the_scorecard_keeps_ids_and_english_words_whole_at_every_width(width: int | None) -> None:
    words = printed("en", width).split()
    assert words.count("telemetry-completeness") == 2
    for word in ("Infrastructure", "security", "management"):
        assert word in words, word


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("width", [50, 80, 120])
def test_the_list_of_rules_never_cuts_an_id_on_a_terminal(language: Language, width: int) -> None:
    rows = list_rules(shipped().book)
    with speaking(language):
        lines = [line.text for line in draw_rules(rows, width)]
    assert {line.split()[0] for line in lines} >= {word for row in rows for word in (row.id, row.indicator)}
    assert max(map(display_width, lines)) <= width


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_list_of_rules_in_a_pipe_is_one_whole_line_per_criterion(language: Language) -> None:
    rows = list_rules(shipped().book)
    with speaking(language):
        _, *lines = [line.text for line in draw_rules(rows, None)]
        assert len(lines) == len(rows)
        for row, line in zip(rows, lines, strict=True):
            assert line.split()[:2] == [row.indicator, row.id]
            assert line.endswith(str(row.title))
            is_marked = ("由人证明" if language == "zh" else "attested") in line.split()
            assert is_marked == (row.kind == "attested")


def many_facts(count: int) -> list[tuple[str, Latest]]:
    fields: dict[str, float | str] = {"used_ratio": 0.25, "inodes_used_ratio": 0.125, "size_bytes": 1e12}
    tags = {"site": "a", "agent": "srv", "asset": "srv"}
    return [("filesystem", Latest({**tags, "mount": f"/srv/volume-{place}"}, fields, 1)) for place in range(count)]


def live(width: int, height: int, facts: int) -> list[str]:
    """The lines of the live view on a terminal of this size, on a machine with so many disks."""
    url = "page: http://127.0.0.1:8650/   Ctrl-C ends"
    view = LiveView(
        (url, "data: /root/.local/share/infravitals and then some more"),
        lambda cells: [
            scorecard_grid(CARD, cells),
            criteria_grid(CARD),
            facts_grid(shipped().catalogue, many_facts(facts)),
        ],
    )
    console = Console(width=width, height=height, force_terminal=True, color_system=None, file=io.StringIO())
    with console.capture() as caught:
        console.print(view)
    return re.sub("\x1b\\[[0-9;]*m", "", caught.get()).splitlines()


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("size", [(40, 8), (60, 12), (80, 24), (120, 40), (200, 60)])
def test_the_live_view_fits_the_screen_with_the_address_always_on_it(size: tuple[int, int], language: Language) -> None:
    width, height = size
    with speaking(language):
        lines = live(width, height, 100)
    assert len(lines) < height  # the cursor's line is the last
    assert max(map(display_width, lines)) <= width
    assert lines[0].startswith("page: http://127.0.0.1:8650/")
    assert any(line.startswith("另有 " if language == "zh" else tuple("123456789")) for line in lines) or height < 12


def test_the_live_view_counts_what_it_does_not_show_and_breaks_no_word() -> None:
    with speaking("en"):
        whole, lines = live(300, 300, 40), live(80, 24, 40)
    assert [line for line in whole if "not shown" in line] == []
    shown = sum("/srv/volume-" in line for line in lines)
    assert f"{40 - shown} more not shown; all of a source: infravitals-agent try SOURCE" in lines
    known = {word.rstrip(",") for word in " ".join(whole).split()}
    for line in lines:
        if "not shown" not in line and "░" not in line:
            assert [word for word in line.split() if word.rstrip("…,") not in known] == []
