"""The signal catalogue: what may be measured, in which unit, how fine, how long it stays true.

The YAML files in this folder are the list, one file per family of measurements.
"""

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from agent.documents import Document, FileMistakes, Mistake, build, read_document
from agent.language import say
from agent.points import Value

Kind = Literal["gauge", "state", "event", "label"]
Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*$")]

ID_PATTERN = "[a-z0-9][a-z0-9-]{0,62}"
"""What a site, an agent, an asset and every other enrolled thing may be called."""

RESERVED_TAGS = ("site", "agent", "asset")
"""Tags of every row; never declared again."""

UNITS: Mapping[str, str] = {
    "_bits_per_second": "bit/s",
    "_bytes_per_second": "B/s",
    "_seconds": "s",
    "_bytes": "B",
    "_ratio": "1",
    "_celsius": "°C",
    "_count": "",
    "_level": "",
}
"""A name's ending and the unit it states; a name without one of them states a fact."""


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One meaning in both languages."""

    zh: str
    en: str

    def __str__(self) -> str:
        return say(self.zh, self.en)


class Tag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tag of a measurement; `values` is the closed list of what it may hold, empty for free names."""

    zh: str
    en: str
    values: tuple[str, ...] = ()


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One field of a measurement.

    range: least and greatest possible value (None: open on that side). resolution: the power of two that
    the agent rounds to, written `2^-20`. states: what the numbers of an enumeration mean (a plain `state` is 0/1).
    emitted_by: only where it differs from the measurement's.
    """

    kind: Kind
    zh: str
    en: str
    range: tuple[float | None, float | None] | None = None
    resolution: (
        Annotated[
            str,
            msgspec.Meta(
                pattern=r"^2\^-?[0-9]{1,2}$",
                description="2 的整数次幂，如 2^-20 / a power of two such as 2^-20",
            ),
        ]
        | None
    ) = None
    states: Mapping[str, Text] = {}
    emitted_by: tuple[str, ...] | None = None

    @property
    def is_number(self) -> bool:
        """Whether every store holds it as float64; a label is text and never asked by a rule."""
        return self.kind != "label"

    @property
    def step(self) -> float:
        """The resolution as a number."""
        return _step(self.resolution)

    @property
    def least(self) -> float:
        """The lower end of the range, minus infinity when open."""
        return -math.inf if self.range is None or self.range[0] is None else self.range[0]

    @property
    def greatest(self) -> float:
        """The upper end of the range, infinity when open."""
        return math.inf if self.range is None or self.range[1] is None else self.range[1]


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of thing that is observed; a row of it has the tags site, agent, asset and those listed here.

    interval_seconds: how often it is usually gathered. staleness_seconds: how old a value may be and still count.
    retention_days: how long raw points stay. emitted_by: the sources that give it; empty until one exists.
    """

    zh: str
    en: str
    interval_seconds: float
    staleness_seconds: float
    retention_days: int
    fields: Mapping[Name, Field]
    tags: Mapping[Name, Tag] = {}
    emitted_by: tuple[str, ...] = ()

    def emitters(self, field: str) -> tuple[str, ...]:
        """The sources that give `field`."""
        own = self.fields[field].emitted_by
        return self.emitted_by if own is None else own


class Catalogue(msgspec.Struct, frozen=True):
    """All measurements by name, and the family (file) that each stands in."""

    measurements: Mapping[str, Measurement]
    families: Mapping[str, tuple[str, ...]]

    def field(self, signal: str) -> Field | None:
        """The field that `measurement.field` names, None when there is none."""
        measurement, _, field = signal.partition(".")
        known = self.measurements.get(measurement)
        return known.fields.get(field) if known else None

    def settle(self, name: str, fields: Mapping[str, Value]) -> dict[str, Value]:
        """The fields as the wire carries them: facts as 0/1, numbers rounded to their resolution."""
        declared = self.measurements[name].fields
        return {key: _settle(declared[key], value) for key, value in fields.items()}


def unit(field: str) -> str:
    """The unit that a field's name states; '' for a count or a fact."""
    for ending, symbol in UNITS.items():
        if f"_{field}".endswith(ending):  # `bytes` alone is a unit too
            return symbol
    return ""


@functools.cache
def _step(resolution: str | None) -> float:
    return 2.0 ** int(resolution[2:]) if resolution else 1.0


def _settle(field: Field, value: Value) -> Value:
    if isinstance(value, str):
        return value
    number = float(value)
    if not math.isfinite(number):
        return number
    return round(number / field.step) * field.step


@functools.cache
def load(folder: Path = Path(__file__).parent) -> Catalogue:
    """The catalogue of `folder`. Raises FileMistakes with everything that is wrong in its files."""
    measurements: dict[str, Measurement] = {}
    families: dict[str, tuple[str, ...]] = {}
    mistakes: list[Mistake] = []
    for file in sorted(folder.glob("*.yaml")):
        try:
            document = read_document(file)
            family = build(document, dict[Name, Measurement])
        except FileMistakes as error:
            mistakes += error.mistakes
            continue
        mistakes += _check(document, family, measurements)
        measurements.update(family)
        families[file.stem] = tuple(family)
    if mistakes:
        raise FileMistakes(mistakes)
    return Catalogue(measurements, families)


def _check(document: Document, family: dict[str, Measurement], before: Mapping[str, Measurement]) -> list[Mistake]:
    """What the types cannot say: a name declared twice, a number without range or resolution, a reserved tag."""
    mistakes = []
    for name, measurement in family.items():
        if name in before:
            mistakes.append(
                document.mistake(
                    (name,), say(f"'{name}' 已在另一文件中声明", f"'{name}' is declared in another file too")
                )
            )
        for tag in measurement.tags:
            if tag in RESERVED_TAGS or tag in measurement.fields:
                mistakes.append(
                    document.mistake(
                        (name, "tags", tag),
                        say(f"标签 '{tag}' 与保留名或字段重名", f"tag '{tag}' is reserved or a field's name"),
                    )
                )
        for key, field in measurement.fields.items():
            if field.is_number and (field.range is None or field.resolution is None):
                text = say(f"数值字段 '{key}' 缺少 range 或 resolution", f"number '{key}' lacks range or resolution")
                mistakes.append(document.mistake((name, "fields", key), text))
    return mistakes


_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    """Whether `text` may name an enrolled thing."""
    return _ID.fullmatch(text) is not None


def is_host_name(text: str) -> bool:
    """Whether the system can be asked for a host of this name, or it is an address; who asks for another gets no answer but an error."""
    if any(character.isspace() or character in "/@\0" for character in text):
        return False
    if text.isascii():
        return bool(text) and all(1 <= len(part) <= 63 for part in text.removesuffix(".").split("."))
    try:  # only such a name is worth the codec, which has to be found on the disk
        return bool(text.encode("idna"))
    except UnicodeError:
        return False


def explain_host_name(key: str, text: str) -> str:
    """Why no host can have this name."""
    return say(
        f"'{key}'：'{text}' 不是主机名或地址：点与点之间要有 1 到 63 个字符，不含空格与斜线",
        f"'{key}': '{text}' is no host name or address: 1 to 63 characters between its dots, no space and no slash",
    )


def explain_id(key: str, name: str) -> str:
    """Why `name` cannot be the name of a site, an agent or an asset; key: where it stands, empty where that is said already."""
    return say(f"'{key}'：", f"'{key}': ") * bool(key) + say(
        f"'{name}' 不能作名称：只用小写字母、数字和连字符，以字母或数字开头，最长 63 个字符",
        f"'{name}' cannot be a name: small letters, digits and hyphens, at most 63, a letter or digit first",
    )
