"""Recorded walks: one variable a line, `oid|type|value`. The type is the ASN.1 tag; with an `x` the value is hexadecimal octets."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.documents import FileMistakes, Mistake
from agent.foreign_words import explain_system
from agent.language import say
from agent.snmp import ber
from agent.snmp.ber import Binding

_TEXTS = (ber.OID, ber.IP_ADDRESS)


def read_walk(path: Path) -> list[Binding]:
    """All variables of a recorded walk, in the order of their object ids. Raises FileMistakes with all lines that are wrong."""
    mistakes: list[Mistake] = []
    found: dict[tuple[int, ...], Binding] = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        text = say("不是录制的文件(不是文本)；请用 snmp walk 录制", "no recording (no text); make one by snmp walk")
        raise FileMistakes([Mistake(str(path), 0, text)]) from error
    except OSError as error:
        text = say(f"无法读取：{explain_system(error)}", f"cannot read: {explain_system(error)}")
        raise FileMistakes([Mistake(str(path), 0, text)]) from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            binding = _read_line(line)
            found[order(binding.oid)] = binding
        except (ValueError, OverflowError):
            text = say("此行应为 oid|类型|值", "expected oid|type|value here")
            mistakes.append(Mistake(str(path), number, text))
    if not found and not mistakes:
        text = say("没有录制到任何变量；请用 snmp walk 重录", "it holds no variable; record it again by snmp walk")
        mistakes.append(Mistake(str(path), 0, text))
    if mistakes:
        raise FileMistakes(mistakes)
    return [found[key] for key in sorted(found)]


def order(oid: str) -> tuple[int, ...]:
    """An object id as it sorts."""
    return tuple(map(int, oid.split(".")))


def _read_line(line: str) -> Binding:
    oid, kind, text = line.split("|", 2)
    is_hex = kind.endswith("x")
    tag = int(kind.removesuffix("x"))
    if is_hex:
        raw = bytes.fromhex(text)
        return Binding(oid, tag, ".".join(map(str, raw)) if tag == ber.IP_ADDRESS else raw)
    if tag in ber.NUMBERS:
        return Binding(oid, tag, int(text))
    if tag in _TEXTS:
        return Binding(oid, tag, text.removeprefix("."))
    return Binding(oid, tag, text.encode())


def write_walk(bindings: Iterable[Binding], remarks: Iterable[str] = ()) -> str:
    """The text of a walk's file; remarks come first, each behind a `#`."""
    return "".join(f"{line}\n" for line in (*(f"# {remark}" for remark in remarks), *_lines(bindings)))


def _lines(bindings: Iterable[Binding]) -> Iterator[str]:
    for oid, tag, value in bindings:
        if isinstance(value, bytes):
            if value.isascii() and value.decode("ascii").isprintable():
                yield f"{oid}|{tag}|{value.decode('ascii')}"
            else:
                yield f"{oid}|{tag}x|{value.hex()}"
        elif value is not None:
            yield f"{oid}|{tag}|{value}"
