"""Reads a folder of rules and checks that its files fit together; all that is wrong is said at once.

rules/<indicator>/<id>.yaml   a criterion: one question and the scale its answer is laid on
rules/scales/<name>.yaml      from a number in base units to points, with the basis of every rung
rules/indexes/<name>.yaml     the tree, the weights, and which criterion counts where
rules/sources.yaml            the published documents that a basis may name
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.catalogue import is_id
from agent.documents import Document, FileMistakes, Mistake, build, nearest, read_document
from agent.language import say
from collector.rulebook import Basis, Cap, Criterion, Id, Index, Node, Publication, Rulebook, Scale


def default_folder() -> Path:
    """The shipped rules: inside the package when it was installed, beside it in a checkout."""
    inside = Path(__file__).parent / "rules"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "rules"


T = TypeVar("T")


class _Files:
    """Reads the files of one rules folder and gathers what is wrong in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mistakes: list[Mistake] = []
        self.digests: dict[str, str] = {}
        self.documents: dict[str, Document] = {}

    def read(self, path: Path, kind: type[T]) -> T | None:
        try:
            document = read_document(path)
            value = build(document, kind)
        except FileMistakes as error:
            self.mistakes += error.mistakes
            return None
        name = str(path.relative_to(self.folder))
        self.documents[name] = document
        self.digests[name] = hashlib.sha256(msgspec.json.encode(document.value, order="sorted")).hexdigest()
        return value


def load(folder: Path | None = None, index_name: str = "dei_2021") -> tuple[Rulebook, Mapping[str, Document]]:
    """The rules of `folder` and their documents (for the places of later complaints). Raises FileMistakes with all mistakes."""
    folder = folder or default_folder()
    files = _Files(folder)
    if not folder.is_dir():
        raise FileMistakes([Mistake(str(folder), 0, say("规则目录不存在", "there is no such rules directory"))])
    if unreadable := list(_find_unreadable(folder)):  # what else would be said came of files that were never seen
        raise FileMistakes(unreadable)
    files.mistakes += _check_file_names(folder)
    scales = {path.stem: files.read(path, Scale) for path in sorted(folder.glob("scales/*.yaml"))}
    criteria: dict[str, Criterion] = {}
    indicators: dict[str, str] = {}
    for path in sorted(folder.glob("*/*.yaml")):
        if path.parent.name in ("scales", "indexes"):
            continue
        criterion = files.read(path, Criterion)
        if path.stem in indicators:
            text = say(
                f"准则 '{path.stem}' 在目录 {indicators[path.stem]} 中已有",
                f"criterion '{path.stem}' stands in folder {indicators[path.stem]} too",
            )
            files.mistakes.append(Mistake(str(path), 1, text))
        if criterion is not None:
            criteria[path.stem] = criterion
        indicators[path.stem] = path.parent.name
    index = files.read(folder / "indexes" / f"{index_name}.yaml", Index)
    sources = files.read(folder / "sources.yaml", dict[Id, Publication])
    if index is None or sources is None or files.mistakes:
        raise FileMistakes(files.mistakes)
    known_scales = {name: scale for name, scale in scales.items() if scale is not None}
    book = Rulebook(criteria, indicators, known_scales, index, index_name, sources, files.digests)
    mistakes = list(_check_names(book, files.documents))
    if mistakes:
        raise FileMistakes(mistakes)
    return book, files.documents


def _find_unreadable(folder: Path) -> Iterator[Mistake]:
    """Folders that cannot be looked into: a search passes over them in silence."""
    wanted = os.R_OK | os.X_OK
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if os.access(folder, wanted) else []
    for path in (folder, *inside):
        if not os.access(path, wanted):
            text = say(
                "没有权限读取这个目录；请检查属主与权限",
                "no permission to read this folder; look at its owner and mode",
            )
            yield Mistake(str(path), 0, text)


def _check_file_names(folder: Path) -> Iterator[Mistake]:
    """A criterion or a scale is named by its file; the index has a name of its own kind."""
    for path in sorted(folder.glob("*/*.yaml")):
        if path.parent.name != "indexes" and not is_id(path.stem):
            text = say(
                f"文件名 '{path.stem}' 不能作名称：只用小写字母、数字和连字符，以字母或数字开头，最长 63 个字符",
                f"the file's name '{path.stem}' cannot be an id: small letters, digits and hyphens, at most 63, a letter or digit first",
            )
            yield Mistake(str(path), 0, text)


def find_uncounted(book: Rulebook, documents: Mapping[str, Document]) -> list[Mistake]:
    """Criteria that the index does not count, nor names as a document or in a cap: nobody would ever see them."""
    named = {cap.criterion for cap in book.index.caps}
    for place in book.places():
        named |= {counted.id for counted in place.node.criteria} | set(place.node.documents)
    findings = []
    for name in sorted(book.criteria.keys() - named):
        text = say(
            f"指标树 {book.index_name} 没有计入准则 '{name}'，它不影响任何分数",
            f"index {book.index_name} does not count criterion '{name}'; it moves no score",
        )
        findings.append(documents[f"{book.indicators[name]}/{name}.yaml"].mistake((), text))
    return findings


def _check_names(book: Rulebook, documents: Mapping[str, Document]) -> Iterator[Mistake]:
    """Names that one file gives and another must have; weights that must add up."""
    for name, criterion in book.criteria.items():
        document = documents[f"{book.indicators[name]}/{name}.yaml"]
        if criterion.scale not in book.scales:
            yield document.mistake(
                ("scale",),
                say(f"没有名为 '{criterion.scale}' 的标尺", f"there is no scale '{criterion.scale}'")
                + nearest(criterion.scale, book.scales),
            )
        yield from _check_kind(document, criterion)
        yield from _check_bases(book, document, criterion.basis, ("basis",))
    for name, scale in book.scales.items():
        yield from _check_scale(book, documents[f"scales/{name}.yaml"], scale)
    yield from _check_index(book, documents[f"indexes/{book.index_name}.yaml"])


def _check_kind(document: Document, criterion: Criterion) -> Iterator[Mistake]:
    """A measured criterion asks, an attested one is vouched for; never both."""
    asks = (criterion.question is not None) + (criterion.combine is not None)
    if criterion.kind == "measured" and asks != 1:
        text = say("question 与 combine 必须且只能有一个", "exactly one of question and combine must be there")
        yield document.mistake(("kind",), text)
    if criterion.kind == "attested" and asks:
        text = say("attested 准则不能有 question 或 combine", "an attested criterion has no question and no combine")
        yield document.mistake(("question" if criterion.question else "combine",), text)
    if (criterion.kind == "attested") != (criterion.valid is not None):
        text = say(
            "valid(有效期)属于且只属于 attested 准则", "valid, how long it may hold, belongs to attested criteria alone"
        )
        yield document.mistake(("valid",) if criterion.valid else ("kind",), text)
    if criterion.combine is not None and len(criterion.combine.of) < 2:
        yield document.mistake(
            ("combine", "of"), say("combine 至少要有两个问题", "combine needs at least two questions")
        )


def _check_bases(
    book: Rulebook, document: Document, bases: tuple[Basis, ...], path: tuple[str | int, ...]
) -> Iterator[Mistake]:
    for number, basis in enumerate(bases):
        if basis.source not in book.sources:
            yield document.mistake(
                (*path, number, "source"),
                say(f"sources.yaml 中没有 '{basis.source}'", f"sources.yaml has no '{basis.source}'")
                + nearest(basis.source, book.sources),
            )


def _check_scale(book: Rulebook, document: Document, scale: Scale) -> Iterator[Mistake]:
    if bool(scale.rungs) == bool(scale.line):
        yield document.mistake((), say("rungs 与 line 必须且只能有一个", "exactly one of rungs and line must be there"))
    sign = 1 if scale.better == "higher" else -1
    for number, rung in enumerate(scale.rungs):
        yield from _check_bases(book, document, rung.basis, ("rungs", number, "basis"))
        if not rung.basis:
            yield document.mistake(("rungs", number), say("这一级没有依据 basis", "this rung has no basis"))
        if number and not (
            sign * rung.at < sign * scale.rungs[number - 1].at and rung.points < scale.rungs[number - 1].points
        ):
            text = say("各级必须从最好到最差严格排列", "rungs must go strictly from the best to the worst")
            yield document.mistake(("rungs", number, "at"), text)
    for number, (at, points) in enumerate(scale.line[1:], start=1):
        before_at, before = scale.line[number - 1]
        if at <= before_at or sign * points < sign * before:
            yield document.mistake(
                ("line", number), say("折线必须随数值单调", "the line must rise or fall one way only")
            )
    yield from _check_bases(book, document, scale.basis, ("basis",))


def _check_index(book: Rulebook, document: Document) -> Iterator[Mistake]:
    yield from _check_weights(document, ("tree",), [node.weight for node in book.index.tree])
    counted: set[str] = set()
    yield from _check_nodes(book, document, book.index.tree, ("tree",), counted)
    paths = {place.path for place in book.places()}
    for number, cap in enumerate(book.index.caps):
        yield from _check_cap(book, document, cap, ("caps", number), paths)


def _check_nodes(
    book: Rulebook, document: Document, nodes: tuple[Node, ...], path: tuple[str | int, ...], counted: set[str]
) -> Iterator[Mistake]:
    for number, node in enumerate(nodes):
        here = (*path, number)
        if node.children and node.criteria:
            text = say("节点不能同时有 children 与 criteria", "a node has children or criteria, not both")
            yield document.mistake(here, text)
        if node.children:
            yield from _check_weights(document, (*here, "children"), [child.weight for child in node.children])
            yield from _check_nodes(book, document, node.children, (*here, "children"), counted)
        if node.criteria:
            yield from _check_weights(document, (*here, "criteria"), [counted.weight for counted in node.criteria])
        for place, item in enumerate(node.criteria):
            yield from _check_counted(book, document, item.id, (*here, "criteria", place, "id"), counted)
        for place, name in enumerate(node.documents):
            spot = (*here, "documents", place)
            yield from _check_counted(book, document, name, spot, counted)
            if name in book.criteria and book.criteria[name].kind != "attested":
                text = say(f"'{name}' 不是 attested 准则", f"'{name}' is no attested criterion")
                yield document.mistake(spot, text)


def _check_counted(
    book: Rulebook, document: Document, name: str, spot: tuple[str | int, ...], counted: set[str]
) -> Iterator[Mistake]:
    if name not in book.criteria:
        text = say(f"没有准则 '{name}'", f"there is no criterion '{name}'")
        yield document.mistake(spot, text + nearest(name, book.criteria))
    if name in counted:
        yield document.mistake(spot, say(f"准则 '{name}' 计了两次", f"criterion '{name}' counts twice"))
    counted.add(name)


def _check_cap(
    book: Rulebook, document: Document, cap: Cap, path: tuple[str | int, ...], nodes: set[str]
) -> Iterator[Mistake]:
    if cap.node not in nodes:
        text = say(f"指标树中没有节点 '{cap.node}'", f"the tree has no node '{cap.node}'")
        yield document.mistake((*path, "node"), text + nearest(cap.node, nodes))
    if cap.criterion is not None and cap.criterion not in book.criteria:
        text = say(f"没有准则 '{cap.criterion}'", f"there is no criterion '{cap.criterion}'")
        yield document.mistake((*path, "criterion"), text + nearest(cap.criterion, book.criteria))
    by_points = (cap.criterion is not None, cap.points_below is not None)
    by_question = ((cap.question is None) != (cap.combine is None), cap.at_least is not None)
    if not (all(by_points) and not any(by_question)) and not (all(by_question) and not any(by_points)):
        text = say(
            "条件应为 criterion 与 points_below，或 question（或 combine）与 at_least",
            "a condition is criterion with points_below, or question (or combine) with at_least",
        )
        yield document.mistake(path, text)
    yield from _check_bases(book, document, cap.basis, (*path, "basis"))


def _check_weights(document: Document, path: tuple[str | int, ...], weights: list[float]) -> Iterator[Mistake]:
    total = sum(weights)
    if abs(total - 1) > 1e-9:
        yield document.mistake(
            path, say(f"权重之和是 {total:.6g}，应为 1", f"the weights add up to {total:.6g}, not to 1")
        )
