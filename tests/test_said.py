"""What is said to people, in every `say(中文, English)` of the program: the marks of each language, and the system's words translated."""

import ast
import errno
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from agent import foreign_words
from agent.documents import FileMistakes, build, parse_document
from agent.language import speaking

ROOT = Path(__file__).parent.parent
PLACE = "\0"
"""Stands for what an f-string puts in, followed by its source and a PLACE again."""
_CODE = re.compile(
    r"\{[^{}]*\}|'[^']*'|`[^`]*`|https?://\S+|\S*:\d+:|\b(?:tls|behind_proxy|sources): ?|\S+:(?:\d+|端口)\b", re.DOTALL
)
"""What a person types or reads as it stands: keys and values, quoted words, addresses."""
_PORT = re.compile(rf"{PLACE}[^{PLACE}]*port[^{PLACE}]*{PLACE}|端口|\d")


def said(*names: str) -> Iterator[tuple[str, str, str]]:
    """Where, and both texts, of every call of `say` or of these."""
    for path in sorted([*ROOT.glob("agent/**/*.py"), *ROOT.glob("collector/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (names or ("say",)) and len(node.args) == 2:
                zh, en = map(text_of, node.args)
                yield f"{path.relative_to(ROOT)}:{node.lineno}", zh, en


def text_of(node: ast.expr) -> str:
    """A text's own words; '' for what is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"{PLACE}{ast.unparse(node.value)}{PLACE}"
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def half_width(zh: str) -> list[str]:
    """The colons of a Chinese text that should be full-width ones, each with what stands around it."""
    plain = _CODE.sub("", zh)
    found = []
    for match in re.finditer(":", plain):
        after = plain[match.end() :]
        if not _PORT.match(after) and re.match(rf"\s|$|{PLACE}|[一-鿿]", after):
            found.append(plain[max(0, match.start() - 12) : match.end() + 12].replace(PLACE, "…"))
    return found


def half_pauses(zh: str) -> list[str]:
    """The commas and semicolons of a Chinese text that should be full-width ones; also behind a bracket or a word that is code."""
    found = re.finditer("[,;](?=[一-鿿])|(?<=[一-鿿])[,;]", zh)
    return [zh[max(0, one.start() - 12) : one.end() + 12].replace(PLACE, "…") for one in found]


def full_width(en: str) -> list[str]:
    """The Chinese marks of an English text."""
    return re.findall("[：，。；（）、？！]", _CODE.sub("", re.sub(f"{PLACE}[^{PLACE}]*{PLACE}", "", en)))


def test_marks_are_full_width_in_chinese_and_half_width_in_english() -> None:
    every = list(said())
    assert len(every) > 800, "the texts are not found any more"
    wrong = [f"{where}: {one}" for where, zh, _ in every for one in half_width(zh)]
    wrong += [f"{where}: {one}" for where, zh, _ in said("say", "Text") for one in half_pauses(zh)]
    wrong += [f"{where}: {en}" for where, _, en in every if full_width(en)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_test_of_marks_sees_them() -> None:
    assert half_width(f"无法读取 {PLACE}path{PLACE}:{PLACE}error{PLACE}") == ["无法读取 …path…:…error…"]
    assert half_pauses("(没有权限),请检查") == ["(没有权限),请检查"] and half_pauses("SNMP;请安装")
    assert not half_pauses("先用 `a,b` 试，再看 1,000 与 eth0, eth1")
    assert half_width("问题: 没有") and half_width("标尺(一):") and half_width("不是 YAML: x")
    assert not half_width(f"{PLACE}host{PLACE}:{PLACE}self.port{PLACE} 没有应答：写 {{file: 路径}}，见 http://x: 12")
    assert full_width("cannot read：it is away") and not full_width("cannot read: it is away")


def test_the_system_s_own_words_come_through_one_door() -> None:
    """Elsewhere `strerror`, also by way of a variable or of getattr, would put English words into a Chinese sentence."""
    wrong = []
    for path in sorted([*ROOT.glob("agent/**/*.py"), *ROOT.glob("collector/**/*.py")]):
        if path == Path(foreign_words.__file__):
            continue
        wrong += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if (isinstance(node, ast.Attribute) and node.attr == "strerror" and ast.unparse(node.value) != "os")
            or (isinstance(node, ast.Constant) and node.value == "strerror")
            if path.name != "_mount_probe.py"  # a program of its own, whose words nobody reads
        ]
    assert not wrong, "use explain_system of agent/foreign_words.py in " + ", ".join(wrong)


def test_trouble_of_the_system_is_never_said_as_errno_and_path() -> None:
    """`[Errno 2] No such file or directory: ...` is what an OSError says when it is put into a sentence as it is."""
    wrong = []
    for path in sorted([*ROOT.glob("agent/**/*.py"), *ROOT.glob("collector/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type and "OSError" in ast.unparse(node.type):
                wrong += [f"{path.relative_to(ROOT)}:{one.lineno}" for one in ast.walk(node) if is_bare(one, node.name)]
    assert not wrong, "use explain of agent/foreign_words.py in " + ", ".join(wrong)


def is_bare(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FormattedValue) and ast.unparse(node.value) == name


SYSTEM = [
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "文件或目录不存在"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), "没有权限"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "连接被拒绝"),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "超时，没有应答"),
    (OSError(errno.EHOSTUNREACH, "No route to host"), "到不了该主机"),
    (OSError(errno.ENOSPC, "No space left on device"), "磁盘已满"),
    (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "主机名无法解析"),
]


@pytest.mark.parametrize(("error", "zh"), SYSTEM)
def test_common_troubles_of_the_system_are_said_in_chinese(error: OSError, zh: str) -> None:
    with speaking("zh"):
        assert foreign_words.explain(error) == zh
    with speaking("en"):
        assert "Errno" not in foreign_words.explain(error) and foreign_words.explain(error).isascii()


class Bounded(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=2)] = "ab"
    number: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    word: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] = "a"


@pytest.mark.parametrize(
    ("text", "zh"),
    [
        ("name: a", "'name'：应为 文本（长度至少 2），实际是 'a'"),
        ("number: 0", "'number'：应为 整数（不小于 1），实际是 0"),
        ("number: 10", "'number'：应为 整数（不大于 9），实际是 10"),
        ("word: A1", "'word'：应为 文本（须符合 ^[a-z]+$），实际是 'A1'"),
        ("name: [", "不是合法的 YAML：此处应有内容"),
        ("a: b: c", "不是合法的 YAML：此处不能再有“键：值”，是否少了换行或引号"),
        ("name: 'a", "不是合法的 YAML：文件在引号或括号中结束"),
    ],
)
def test_words_of_the_libraries_are_said_in_chinese(text: str, zh: str) -> None:
    with speaking("zh"), pytest.raises(FileMistakes) as wrong:
        build(parse_document(text, "x.yaml"), Bounded)
    assert wrong.value.mistakes[0].text == zh
