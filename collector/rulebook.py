"""The rules as they stand in YAML: criteria, scales and the index, read and checked, never evaluated here.

rules/<indicator>/<id>.yaml   a criterion: one question and the scale its answer is laid on
rules/scales/<name>.yaml      from a number in base units to points, with the basis of every rung
rules/indexes/<name>.yaml     the tree, the weights, and which criterion counts where
rules/sources.yaml            the published documents that a basis may name
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec

from agent.catalogue import Text
from agent.documents import Document, FileMistakes, Mistake, build, nearest, read_document
from agent.language import say
from collector.query import Operator, Take

Weight = Annotated[float, msgspec.Meta(gt=0, le=1)]
Points = Annotated[float, msgspec.Meta(ge=0, le=100)]
Id = Annotated[str, msgspec.Meta(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
DurationText = Annotated[
    str,
    msgspec.Meta(
        pattern="^[1-9][0-9]{0,5}[smhd]$", description="时长，如 90s、5m、24h、30d / a span such as 90s, 5m, 24h, 30d"
    ),
]
TakeText = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(mean|min|max|last|sum|count|worst|p[0-9]{1,2}|share (<|<=|>|>=|==) -?[0-9.]+(e-?[0-9]+)?)$",
        description=(
            "mean、min、max、last、worst、p95 或 share >= 0.8 这样的归并 / "
            "a reduction such as mean, min, max, last, worst, p95 or share >= 0.8"
        ),
    ),
]
Confidence = Literal["confirmed", "secondary", "general-knowledge", "own-judgement"]
Better = Literal["higher", "lower"]

ATTRIBUTES = ("class", "criticality", "zone", "role")
"""What the register says of an asset; joined when scoring, never a tag."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every struct here refuses keys that it does not know."""


class Basis(_Strict, frozen=True):
    """Where a threshold comes from and how sure that is; source: an id of rules/sources.yaml.

    clause: item or clause numbers alone, the same in every language. note: what stands there, or what of it is our own.
    """

    source: Id
    confidence: Confidence
    clause: str = ""
    note: Text | None = None


class Rung(_Strict, frozen=True):
    """A step: the number at which these points are earned."""

    at: float
    points: Points
    basis: tuple[Basis, ...]


class Scale(_Strict, frozen=True):
    """From a number, in the signal's base unit, to points.

    rungs: the best rung met wins, below the last is 0. line: points between which to draw straight lines; outside, the ends hold.
    """

    title: Text
    unit: Literal["ratio", "seconds", "bits_per_second", "count", "level"]
    better: Better
    rungs: tuple[Rung, ...] = ()
    line: tuple[tuple[float, Points], ...] = ()
    basis: tuple[Basis, ...] = ()


class TakeBoth(_Strict, frozen=True):
    """The two reductions that a store makes: samples to a bucket, buckets to one number per subject."""

    bucket: TakeText
    subject: TakeText


class Step(_Strict, frozen=True):
    """One step from subjects to one number; per: the tags or attributes that stay (none in the last step)."""

    take: TakeText
    per: tuple[str, ...] = ()


class Needs(_Strict, frozen=True):
    """The least that must be known for a score: how long the best-known subject was seen, how many samples in all."""

    span: DurationText
    samples: Annotated[int, msgspec.Meta(ge=1)] = 1


class Asking(_Strict, frozen=True):
    """One question: one field, one window, two reductions, and the steps across subjects.

    where: tags of the measurement, or attributes of the register, and the values they may have.
    """

    measures: str
    per: tuple[str, ...]
    over: DurationText
    each: DurationText
    take: TakeBoth
    across: tuple[Step, ...]
    needs: Needs
    where: Mapping[str, str | tuple[str, ...]] = {}


class Criterion(_Strict, frozen=True):
    """What is true at 100 points, and how it is found out.

    question: how to measure it; or awaits: why it cannot be asked yet, with the signals that it will ask.
    """

    title: Text
    kind: Literal["measured", "attested"]
    why: Text
    fix: Text
    basis: tuple[Basis, ...]
    scale: Id
    question: Asking | None = None
    awaits: Text | None = None
    signals: tuple[str, ...] = ()


class Counted(_Strict, frozen=True):
    """A criterion that counts in an indicator, and for how much of it."""

    id: Id
    weight: Weight


class Node(_Strict, frozen=True):
    """A node of the index; a leaf holds criteria, the others children."""

    id: Id
    zh: str
    en: str
    weight: Weight
    children: "tuple[Node, ...]" = ()
    criteria: tuple[Counted, ...] = ()


class Index(_Strict, frozen=True):
    """A published index: its tree and weights, and what of it is scored from telemetry."""

    title: Text
    source: Id
    tree: tuple[Node, ...]


class Publication(_Strict, frozen=True):
    """A document that thresholds come from."""

    zh: str
    en: str
    status: Text


class Place(NamedTuple):
    """Where an indicator's node stands: its dotted id, its level, its parent's dotted id ('' for the first level)."""

    path: str
    level: int
    parent: str
    node: Node


@dataclass(frozen=True)
class Rulebook:
    """All rules of one folder. digests: canonical content of every file, by `folder/name`."""

    criteria: Mapping[str, Criterion]
    indicators: Mapping[str, str]
    """criterion id -> the folder (indicator) that it stands in."""
    scales: Mapping[str, Scale]
    index: Index
    index_name: str
    sources: Mapping[str, Publication]
    digests: Mapping[str, str]

    def digest(self) -> str:
        """One digest of everything, whatever the order of files, comments or layout."""
        return hashlib.sha256(msgspec.json.encode(dict(self.digests), order="sorted")).hexdigest()

    def places(self) -> Iterator[Place]:
        """All nodes of the index, parents first, in its own order."""
        yield from _walk(self.index.tree, "", 1)


def _walk(nodes: tuple[Node, ...], parent: str, level: int) -> Iterator[Place]:
    for node in nodes:
        path = f"{parent}.{node.id}" if parent else node.id
        yield Place(path, level, parent, node)
        yield from _walk(node.children, path, level + 1)


_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str) -> int:
    """Milliseconds of `30d`, `5m`, `90s`, `24h`."""
    return int(text[:-1]) * _UNIT_MS[text[-1]]


_SHARE = re.compile(r"share (<=|>=|==|<|>) (.+)")


def parse_take(text: str) -> Take:
    """The reduction that a rule's word means; `worst` is settled by the scale's direction before this."""
    if text.startswith("p") and text[1:].isdigit():
        return Take("percentile", p=float(text[1:]))
    if match := _SHARE.fullmatch(text):
        return Take("share", operator=msgspec.convert(match[1], Operator), threshold=float(match[2]))
    return msgspec.convert({"by": text}, Take)


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
        raise FileMistakes([Mistake(str(folder), 1, say("规则目录不存在", "there is no such rules directory"))])
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
        if (criterion.question is None) == (criterion.awaits is None):
            yield document.mistake(
                (), say("question 与 awaits 必须且只能有一个", "exactly one of question and awaits must be there")
            )
        yield from _check_bases(book, document, criterion.basis, ("basis",))
    for name, scale in book.scales.items():
        yield from _check_scale(book, documents[f"scales/{name}.yaml"], scale)
    yield from _check_index(book, documents[f"indexes/{book.index_name}.yaml"])


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

    def check(nodes: tuple[Node, ...], path: tuple[str | int, ...]) -> Iterator[Mistake]:
        for number, node in enumerate(nodes):
            here = (*path, number)
            if node.children and node.criteria:
                yield document.mistake(
                    here, say("节点不能同时有 children 与 criteria", "a node has children or criteria, not both")
                )
            if node.children:
                yield from _check_weights(document, (*here, "children"), [child.weight for child in node.children])
                yield from check(node.children, (*here, "children"))
            if node.criteria:
                yield from _check_weights(document, (*here, "criteria"), [counted.weight for counted in node.criteria])
            for place, item in enumerate(node.criteria):
                spot = (*here, "criteria", place, "id")
                if item.id not in book.criteria:
                    yield document.mistake(
                        spot,
                        say(f"没有准则 '{item.id}'", f"there is no criterion '{item.id}'")
                        + nearest(item.id, book.criteria),
                    )
                if item.id in counted:
                    yield document.mistake(
                        spot, say(f"准则 '{item.id}' 计了两次", f"criterion '{item.id}' counts twice")
                    )
                counted.add(item.id)

    yield from check(book.index.tree, ("tree",))


def _check_weights(document: Document, path: tuple[str | int, ...], weights: list[float]) -> Iterator[Mistake]:
    total = sum(weights)
    if abs(total - 1) > 1e-9:
        yield document.mistake(
            path, say(f"权重之和是 {total:.6g}，应为 1", f"the weights add up to {total:.6g}, not to 1")
        )
