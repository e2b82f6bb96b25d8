"""How complaints about a person's file read: the nearest names, and places that are no line."""

import pytest

from agent.documents import FileMistakes, Mistake, nearest, parse_document
from agent.language import speaking


def test_of_many_names_the_nearest_are_shown_and_the_rest_are_counted() -> None:
    many = [f"criterion-{number}" for number in range(137)]
    with speaking("en"):
        text = nearest("zzz", many)
    assert text.count("criterion-") == 8
    assert text.endswith(" and 129 more")
    with speaking("zh"):
        assert nearest("zzz", many).endswith(" 等，另有 129 个")


def test_of_few_names_all_are_shown() -> None:
    with speaking("zh"):
        assert nearest("zzz", ["b", "a"]) == "，可用的有：a、b"
        assert nearest("servce", ["service"]) == "，是否想写 'service'?"
        assert nearest("zzz", []) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a:\n\tb: 1\n", "缩进请用空格，不用制表符"),
        ("a: @b\n", "要加引号"),
        ("a: [1\n", "缺少逗号或 ']'"),
        ("- a\nb: 1\n", "缺少 '-'"),
        ("a: - b\n", "是否少了换行"),
        ("a: 1\n---\nb: 1\n", "请去掉中间的 ---"),
        ("a: \x01\n", "含有控制字符 #x0001，请删去"),
        ("! !! !\n", "以 ! 开头的值要加引号"),
        ("&\n", "要加引号"),
        ("%FOO\na: 1\n", "读不下去（found unknown directive name）"),
    ],
)
def test_what_is_no_yaml_is_told_in_chinese(text: str, why: str) -> None:
    with speaking("zh"), pytest.raises(FileMistakes) as caught:
        parse_document(text, "a.yaml")
    (mistake,) = caught.value.mistakes
    assert mistake.text.startswith("不是合法的 YAML：") and why in mistake.text


def test_a_place_without_a_line_names_none() -> None:
    assert str(Mistake("/nope", 0, "not there")) == "/nope: not there"
    assert str(Mistake("a.yaml", 3, "wrong")) == "a.yaml:3: wrong"
