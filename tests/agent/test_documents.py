"""How complaints about a person's file read: the nearest names, and places that are no line."""

from agent.documents import Mistake, nearest
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


def test_a_place_without_a_line_names_none() -> None:
    assert str(Mistake("/nope", 0, "not there")) == "/nope: not there"
    assert str(Mistake("a.yaml", 3, "wrong")) == "a.yaml:3: wrong"
