"""Tables as aligned text."""

from agent.table import display_width, render_table


def test_chinese_takes_two_columns() -> None:
    assert [display_width(text) for text in ("cpu", "处理器", "a、b", "")] == [3, 6, 4, 0]


def test_columns_are_aligned_for_a_terminal() -> None:
    assert render_table(("名称", "值"), [("处理器", "1"), ("disk", "22")]) == "名称    值\n处理器  1\ndisk    22"
