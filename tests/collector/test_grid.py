"""Tables of text: they fit, they cut no word and no id, and what has no room is counted."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from agent.language import speaking
from agent.table import display_width
from collector.grid import NO_BREAK, Column, Grid, draw, draw_short, fit, fold, shorten


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("a server keeps memory free", 12, ["a server", "keeps memory", "free"]),
        ("没有资产登记，取全部资产", 13, ["没有资产登", "记，取全部资", "产"]),
        ("  Medical network management", 18, ["  Medical network", "  management"]),
        ("/var/lib/infravitals/store", 12, ["/var/lib/", "infravitals/", "store"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("", 4, [""]),
        ("exactly", 7, ["exactly"]),
        ("用 snmpwalk 检查", 10, ["用", "snmpwalk", "检查"]),
    ],
)
def test_lines_break_between_words(text: str, width: int, lines: list[str]) -> None:
    assert fold(text, width) == lines


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("No link on the way", 18, "No link on the way"),
        ("No link on the way", 17, "No link on the…"),
        ("seen for 0 s, at least 1 h", 15, "seen for 0 s…"),
        ("没有资产登记，仅暂估", 15, "没有资产登记…"),
        (f"used{NO_BREAK}2{NO_BREAK}%, free{NO_BREAK}98{NO_BREAK}%", 15, f"used{NO_BREAK}2{NO_BREAK}%…"),
        ("word", 1, "…"),
    ],
)
def test_what_is_too_long_ends_after_a_word(text: str, width: int, shown: str) -> None:
    assert shorten(text, width) == shown


@given(st.text("ab 数据，。/-", max_size=40), st.integers(1, 30))
def test_nothing_is_wider_than_its_column_and_nothing_is_lost(text: str, width: int) -> None:
    lines = fold(text, max(width, 8))
    assert max(map(display_width, lines)) <= max(width, 8)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert display_width(shorten(text, width)) <= width


IDS = ("telemetry-completeness", "redundant-component-health")
GRID = Grid(
    "things",
    (Column("id", is_whole=True), Column("points", is_whole=True, is_right=True), Column("title")),
    [(name, "100", "every server keeps a third of its memory free") for name in IDS],
    "; the page shows them all",
)


@pytest.mark.parametrize("width", [None, 100, 60, 45, 30, 10])
def test_a_folded_table_keeps_its_ids_whole_and_loses_no_word(width: int | None) -> None:
    lines = [line.text for line in draw(GRID, width)]
    assert [name for name in IDS if not any(line.startswith(name) for line in lines)] == []
    words = " ".join(lines).split()
    assert all(words.count(word) == 2 for word in ("server", "keeps", "memory", "free"))
    assert width is not None or len(lines) == 2 + len(IDS)


def test_numbers_stand_on_the_right_and_titles_give_way_first() -> None:
    assert [line.text for line in draw_short(GRID, 60, 9)] == [
        "things                      points  title",
        "telemetry-completeness         100  every server keeps a…",
        "redundant-component-health     100  every server keeps a…",
    ]


def test_a_column_without_room_is_left_out_rather_than_cut() -> None:
    assert [line.text for line in draw_short(GRID, 40, 9)][1:] == [
        "telemetry-completeness         100",
        "redundant-component-health     100",
    ]


def test_rows_without_room_are_counted() -> None:
    many = GRID._replace(rows=GRID.rows * 5)
    with speaking("en"):
        lines = [line.text for line in draw_short(many, 60, 6)]
    assert len(lines) == 6 and lines[-1] == "6 more not shown; the page shows them all"
    with speaking("zh"):
        assert draw_short(many._replace(rest="，全部见网页"), 60, 6)[-1].text == "另有 6 行未显示，全部见网页"
    with speaking("en"):
        assert len(draw_short(many, 60, 11)) == 11
        assert draw_short(many, 60, 0) == []


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(10, 120), st.integers(1, 50))
def test_a_screen_is_never_overrun_and_keeps_its_head(counts: list[int], width: int, height: int) -> None:
    grids = [GRID._replace(rows=[*GRID.rows] * count) for count in counts]
    lines = fit(["page: URL"], grids, "legend", width, height)
    assert lines[0].text == "page: URL"
    assert len(lines) <= height
    assert max(display_width(line.text) for line in lines) <= width


def test_a_small_table_gives_its_room_to_the_others() -> None:
    small, large = GRID._replace(rows=GRID.rows[:1]), GRID._replace(rows=[*GRID.rows] * 20)
    lines = fit(["head"], [large, small], "foot", 80, 20)
    assert len(lines) == 20
    assert [line.text for line in lines[-3:-1]] == [line.text for line in draw_short(small, 80, 9)]
