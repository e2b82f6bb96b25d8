"""What stands in InfluxDB's two texts: line protocol and InfluxQL. Names are checked, values escaped and quoted. No I/O."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from agent.points import Value
from collector.query import NAME

_HARD = re.compile(r"[\\\x00-\x1f\x7f]|%(?=[0-9A-F]{2})")
_ENCODED = re.compile(r"%([0-9A-F]{2})")
_SEPARATORS = re.compile(r"([,= ])")
_PATTERN_SIGNS = re.compile(r"([.*+?^${}()|\[\]/\\-])")
MOST_ALTERNATIVES = 50
_LONE = re.compile("[\ud800-\udfff]")
_numbers = msgspec.json.Encoder()
_TO_LINE = bytes.maketrans(b":", b"=")
_NOT_OF_LINE = b'{"}'


def encode_tag(text: str) -> str:
    """A tag's value as it stands in the database.

    A backslash and a control character cannot be written in a tag whatever one escapes: they stand as `%5C` and the like,
    and a percent sign that would be taken for one of these as `%25`.
    """
    return _HARD.sub(lambda found: f"%{ord(found[0]):02X}", _LONE.sub("\ufffd", text))


def decode_tag(text: str) -> str:
    """What `encode_tag` was given."""
    return _ENCODED.sub(lambda found: chr(int(found[1], 16)), text)


def tags_text(tags: Mapping[str, str]) -> str:
    """Tags in line protocol, each with its comma before it; an empty one is absent."""
    return "".join(
        f",{name}={_SEPARATORS.sub(_escaped, encode_tag(value))}" for name, value in sorted(tags.items()) if value
    )


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def field_text(value: float | int | str) -> str:
    """A field's value in line protocol: a whole number of our own as an integer, every float as a float."""
    if isinstance(value, str):
        text = _LONE.sub("\ufffd", value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return f"{value}i" if isinstance(value, int) else repr(value)


def numbers_texts(points: Sequence[Mapping[str, Value]]) -> list[str]:
    """The fields of each point in line protocol: checked names, and finite floats alone.

    One encoder writes them all, five times as fast as `repr` one by one and just as exact: the shortest text that reads back as
    the same float. What is JSON about its lines are braces, quotes and colons, and neither names nor numbers hold any.
    """
    return _numbers.encode_lines(points).translate(_TO_LINE, _NOT_OF_LINE).decode("ascii").splitlines()


def line(
    measurement: str, tags: Mapping[str, str], fields: Mapping[str, float | int | str], time_ns: int | None
) -> str:
    """One record of our own in line protocol; without a time it stands at the server's."""
    values = ",".join(f"{name}={field_text(value)}" for name, value in fields.items())
    return f"{measurement}{tags_text(tags)} {values}" + ("" if time_ns is None else f" {time_ns}")


def name_text(name: str) -> str:
    """A checked name in InfluxQL. Raises ValueError for what is no name."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name")
    return f'"{name}"'


def value_text(value: str) -> str:
    """A text in InfluxQL."""
    text = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{text}'"


def tag_value_text(value: str) -> str:
    """A tag's value in InfluxQL."""
    return value_text(encode_tag(value))


def one_of_text(tag: str, values: Sequence[str]) -> str:
    """The condition that a tag has one of these values. Many are a pattern: InfluxQL takes 30 s for 5,000 alternatives, and 2 s so."""
    name = name_text(tag)
    several = [value for value in values if value] if len(values) > MOST_ALTERNATIVES else []
    words = [f"{name} = {tag_value_text(value)}" for value in values if not several or not value]
    if several:
        pattern = "|".join(_PATTERN_SIGNS.sub(_escaped, encode_tag(value)) for value in several)
        words.append(f"{name} =~ /^(?:{pattern})$/")
    return f"({' OR '.join(words)})" if words else f"({name} = '' AND {name} != '')"


def number_text(number: float) -> str:
    """A float in InfluxQL, which knows no exponents."""
    text = format(Decimal(repr(float(number))), "f")
    return text if "." in text else f"{text}.0"
