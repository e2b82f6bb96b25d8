"""YAML files read so that every complaint has its line, and all complaints come at once.

The one place that imports the YAML library. YAML 1.2: `on` is a text, `1:30` too; double keys are refused.
"""

import difflib
import io
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from agent.errors import InfravitalsError
from agent.foreign_words import explain_bounds, explain_system, explain_yaml
from agent.language import say

T = TypeVar("T")
Path_ = tuple[str | int, ...]
"""Where in a document: keys and list positions from the top."""

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 40
MOST_NAMES = 8
"""So many names are shown of what there is; a list of a hundred helps nobody."""


class Mistake(NamedTuple):
    """One thing that is wrong in a file; prints as `file:line: what`. Line 0: no line of it, such as a directory."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class FileMistakes(InfravitalsError):
    """Everything that is wrong in the files a person wrote, in the order of the files."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


class Document(NamedTuple):
    """A parsed file: plain values, and the line on which each of them stands."""

    file: str
    value: Any
    lines: Mapping[Path_, int]

    def line(self, path: Path_) -> int:
        """The line of `path`, or of the nearest thing above it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def mistake(self, path: Path_, text: str) -> Mistake:
        """A mistake at `path`."""
        return Mistake(self.file, self.line(path), text)


def read_document(path: Path) -> Document:
    """The document in the file `path`. Raises FileMistakes when it cannot be read or is not YAML."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FileMistakes(
                [
                    Mistake(
                        str(path),
                        1,
                        say(
                            f"文件有 {size} 字节，超过上限 {MAX_BYTES}",
                            f"the file has {size} bytes, more than {MAX_BYTES}",
                        ),
                    )
                ]
            )
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise FileMistakes(
            [Mistake(str(path), 1, say("不是 UTF-8 文本，请另存为 UTF-8", "not UTF-8 text; save it as UTF-8"))]
        ) from error
    except OSError as error:
        raise FileMistakes(
            [
                Mistake(
                    str(path),
                    0,
                    say(f"无法读取文件：{explain_system(error)}", f"cannot read the file: {explain_system(error)}"),
                )
            ]
        ) from error
    return parse_document(text, str(path))


def parse_document(text: str, file: str) -> Document:
    """The document in `text`; `file` is the name that mistakes carry."""
    yaml = YAML(typ="safe")
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise FileMistakes([Mistake(file, line, _no_yaml(error.problem))]) from error
    except YAMLError as error:
        raise FileMistakes([Mistake(file, 1, _no_yaml(str(error)))]) from error
    reader = _Reader(file)
    value = reader.value(root, ()) if root is not None else None
    if reader.mistakes:
        raise FileMistakes(reader.mistakes)
    return Document(file, value, reader.lines)


def _no_yaml(problem: str | None) -> str:
    why = explain_yaml(problem)
    return say(f"不是合法的 YAML：{why}", f"not valid YAML: {why}")


def write_document(value: Any) -> str:
    """Plain values as YAML, in their own order."""
    return _dump(YAML(typ="rt"), value)


def edit_document(text: str, edit: Callable[[Any], Any]) -> str:
    """`text` after `edit`, which changes its value in place or gives the one for an empty text; comments and order stay.

    A list stands below its key without indentation afterwards; the text must be YAML.
    """
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    value = yaml.load(text)
    edited = edit(value)
    kept = text if value is None else ""  # of a file of comments alone the library keeps nothing
    return (kept + "\n" if kept and not kept.endswith("\n") else kept) + _dump(yaml, edited)


def _dump(yaml: YAML, value: Any) -> str:
    yaml.width = 4096  # a sentence stays on its line
    written = io.StringIO()
    yaml.dump(value, written)
    return written.getvalue()


_INTEGER = re.compile(r"[-+]?[0-9]+")


class _Reader:
    """Turns composed nodes into plain values and remembers their lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Path_, int] = {}
        self.mistakes: list[Mistake] = []

    def value(self, node: Node, path: Path_) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > MAX_DEPTH:
            self._complain(node, say(f"嵌套超过 {MAX_DEPTH} 层", f"nested deeper than {MAX_DEPTH}"))
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(str(node.value), node)

    def _mapping(self, node: MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._complain(key_node, say("键必须是文本", "a key must be a text"))
                continue
            key = str(key_node.value)
            if key in result:
                first = self.lines[(*path, key)]
                self._complain(
                    key_node,
                    say(f"键 '{key}' 重复，第 {first} 行已有", f"key '{key}' stands twice, first on line {first}"),
                )
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.value(value_node, (*path, key))
        return result

    def _scalar(self, text: str, node: Node) -> Any:
        kind = str(node.tag).rsplit(":", 1)[-1]
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int" and _INTEGER.fullmatch(text):
            return int(text)
        if kind == "float":
            try:
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            except ValueError:
                return text
        if kind not in ("str", "int", "timestamp"):
            self._complain(node, say(f"不支持 YAML 标签 '{node.tag}'", f"YAML tag '{node.tag}' is not supported"))
        return text

    def _complain(self, node: Node, text: str) -> None:
        self.mistakes.append(Mistake(self.file, node.start_mark.line + 1, text))


def build(document: Document, kind: type[T], at: Path_ = ()) -> T:
    """The value at `at` in `document` as `kind` (a msgspec struct). Raises FileMistakes with all mistakes."""
    value = document.value
    for step in at:
        value = value[step]
    mistakes = list(find_mistakes(document, value, kind, at))
    if mistakes:
        raise FileMistakes(mistakes)
    return msgspec.convert(value, kind)


def find_mistakes(document: Document, value: Any, kind: Any, path: Path_ = ()) -> Iterator[Mistake]:
    """All mistakes of `value` against the type `kind`, each with its line."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        yield from _check_union(document, value, kind, path)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _check_struct(document, value, kind, path)
    elif origin in (list, tuple, set, frozenset) and isinstance(value, list):
        arguments = typing.get_args(kind)
        if origin is tuple and Ellipsis not in arguments:
            yield from _check_leaf(document, value, kind, path)
            return
        for index, item in enumerate(value):
            yield from find_mistakes(document, item, arguments[0], (*path, index))
    elif origin in (dict, Mapping) and isinstance(value, dict):
        key_kind, item_kind = typing.get_args(kind)
        for key, item in value.items():
            yield from _check_leaf(document, key, key_kind, (*path, key))
            yield from find_mistakes(document, item, item_kind, (*path, key))
    else:
        yield from _check_leaf(document, value, kind, path)


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, or what there is: the nearest of it when that is much."""
    words = sorted(known)
    if close := _closest(word, words):
        return say(f"，是否想写 '{close[0]}'?", f"; did you mean '{close[0]}'?")
    if not words:
        return ""
    shown = words if len(words) <= MOST_NAMES else difflib.get_close_matches(word, words, n=MOST_NAMES, cutoff=0)
    more = len(words) - len(shown)
    zh = f"，可用的有：{'、'.join(shown)}" + (f" 等，另有 {more} 个" if more else "")
    return say(zh, f"; known are: {', '.join(shown)}" + (f" and {more} more" if more else ""))


def _closest(word: str, known: typing.Iterable[str]) -> list[str]:
    """The known word that `word` is meant to be, if any."""
    return difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)


def _check_union(document: Document, value: Any, kind: Any, path: Path_) -> Iterator[Mistake]:
    options = list(typing.get_args(kind))
    if value is None and type(None) in options:
        return
    if isinstance(value, dict):
        structs = [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]
        mappings = [option for option in options if typing.get_origin(option) in (dict, Mapping)]
        if len(structs) + len(mappings) == 1:
            yield from find_mistakes(document, value, (structs + mappings)[0], path)
            return
    if isinstance(value, list):
        sequences = [option for option in options if typing.get_origin(option) in (list, tuple)]
        if len(sequences) == 1:
            yield from find_mistakes(document, value, sequences[0], path)
            return
    yield from _check_leaf(document, value, kind, path)


def _check_struct(document: Document, value: Any, kind: type[msgspec.Struct], path: Path_) -> Iterator[Mistake]:
    if not isinstance(value, dict):
        if _is_secret(path):
            yield document.mistake(path, _explain_secret())
            return
        found = say("空", "nothing") if value is None else _show(value)
        yield document.mistake(
            path, say(f"此处应为键值对，实际是 {found}", f"expected keys and values here, found {found}")
        )
        return
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    absent = fields.keys() - value.keys()
    unknown = [key for key in value if key not in fields]
    for key in unknown:
        yield document.mistake((*path, key), say(f"未知的键 '{key}'", f"unknown key '{key}'") + nearest(key, absent))
    meant = {close for key in unknown for close in _closest(key, absent)}
    clean = not unknown
    for name, field in fields.items():
        if name in value:
            for mistake in find_mistakes(document, value[name], hints[field.name], (*path, name)):
                clean = False
                yield mistake
        elif field.required and name not in meant:  # who misspelt it has been told
            clean = False
            yield document.mistake(path, say(f"缺少键 '{name}'", f"key '{name}' is missing"))
    if clean:  # what the struct itself checks in __post_init__ speaks only when its parts are right
        yield from _check_leaf(document, value, kind, path)


def _check_leaf(document: Document, value: Any, kind: Any, path: Path_) -> Iterator[Mistake]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield document.mistake(path, _explain(error, path, value, kind))


_EXPECTED = re.compile(r"Expected `([^`]+)`(.*?)(?:, got `[^`]+`)?(?: - at .*)?$", re.DOTALL)
_SECRET = re.compile("password|secret|token|community")
_WORDS = {
    "object": ("键值对", "keys and values"),
    "array": ("列表", "a list"),
    "str": ("文本", "text"),
    "int": ("整数", "a whole number"),
    "float": ("数", "a number"),
    "bool": ("true 或 false", "true or false"),
    "null": ("空", "nothing"),
}
"""What the library calls the kinds of values, and what a person calls them."""


def _explain(error: msgspec.ValidationError, path: Path_, value: Any, kind: Any) -> str:
    """The library's complaint in the reader's language, with the key and what stands there, never a secret."""
    if _is_secret(path) and not isinstance(value, dict):
        return _explain_secret()
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    where = say(f"'{key}'：", f"'{key}': ") if key else ""
    text = str(error).split(" - at `", 1)[0]
    match = _EXPECTED.match(text)
    wanted = _describe(kind)
    is_other = not isinstance(value, dict) or text.endswith("got `object`")  # else it is told of what is inside
    if wanted is None and match and is_other:
        kinds = [say(*_WORDS.get(word.strip(), (word, word))) for word in match[1].split("|")]
        wanted = say(" 或 ", " or ").join(kinds) + explain_bounds(match[2])
    found = say("键值对", "keys and values") if isinstance(value, dict) else _show(value)
    return where + (say(f"应为 {wanted}，实际是 {found}", f"expected {wanted}, found {found}") if wanted else text)


def _show(value: Any) -> str:
    """A value as it is written, without the password that a URL may carry."""
    return re.sub(r"//[^/@\s]*@", "//***@", repr(value))


def _describe(kind: Any) -> str | None:
    """What a type says of itself: the choices of a Literal, or the description beside its pattern, `中文 / English`."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):  # described by what of it says something
        options = [_describe(option) for option in typing.get_args(kind) if option is not type(None)]
        described = [text for text in options if text]
        return described[0] if len(described) == 1 else None
    if typing.get_origin(kind) is typing.Literal:
        return say("、", ", ").join(map(str, typing.get_args(kind))) + say(" 之一", " (one of these)")
    for note in getattr(kind, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.description:
            return say(*note.description.split(" / ", 1))
    return None


def _is_secret(path: Path_) -> bool:
    return any(isinstance(step, str) and _SECRET.search(step) for step in path)


def _explain_secret() -> str:
    return say(
        "不要把密码本身写在这里；请写 {file: 路径}、{env: 变量名} 或 {credential: 名称}",
        "do not write the secret itself here; write {file: PATH}, {env: VARIABLE} or {credential: NAME}",
    )
