"""Readings become points: asset, time and rounding are added, what the catalogue does not declare is left out."""

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

from agent.catalogue import Catalogue, Field, Measurement, is_id
from agent.points import Point, Value
from agent.sources import Reading

MOST_TOLD = 1000
"""A bug that makes up names without end must not fill memory too."""

MOST_ASSETS = 100_000
"""So many names that are ids are kept in mind."""

FACTS = ("state", "event")
"""The kinds that a fact may be told of."""

_NOT_PLAIN = (0.0, False)
_log = logging.getLogger(__name__)


class Settled(NamedTuple):
    """The points of one round, and whether nothing of it had to be left out."""

    points: list[Point]
    is_complete: bool


class Settler:
    """Settles readings by the catalogue. What is undeclared is a bug of its source: named once per signal, left out."""

    def __init__(self, catalogue: Catalogue, asset: str) -> None:
        self._catalogue = catalogue
        self._asset = asset
        self._told: set[tuple[str, str]] = set()
        self._assets: set[str] = set()
        self._plain: dict[str, Mapping[str, tuple[float, bool]]] = {}

    def settle(self, readings: tuple[Reading, ...], at_milliseconds: int, source: str) -> Settled:
        """The points of `readings`; `at_milliseconds` is the time of those that bring none."""
        points: list[Point] = []
        is_complete = True
        for reading in readings:
            measurement = self._catalogue.measurements.get(reading.name)
            asset = reading.asset or self._asset
            if measurement is None:
                self._tell(source, reading.name, "is no measurement of the catalogue")
            elif asset not in self._assets and not self._is_asset(asset):
                self._tell(source, reading.name, f"has the asset {asset!r}, which is no id")
            elif trouble := find_tag_trouble(measurement, reading.tags):
                self._tell(source, reading.name, trouble)
            else:
                fields = self._fields(source, reading, measurement)
                is_complete &= len(fields) == len(reading.fields)
                if fields:
                    tags = {"asset": asset, **reading.tags}
                    when = at_milliseconds if reading.timestamp is None else reading.timestamp
                    points.append(Point(reading.name, tags, fields, when))
                continue
            is_complete = False
        return Settled(points, is_complete)

    def _is_asset(self, asset: str) -> bool:
        """Whether it is an id; one that is need not be looked at again."""
        if not is_id(asset):
            return False
        if len(self._assets) < MOST_ASSETS:
            self._assets.add(asset)
        return True

    def _fields(self, source: str, reading: Reading, measurement: Measurement) -> dict[str, Value]:
        """The fields as the wire carries them. A gateway settles hundreds of thousands a minute: the plain cases come first."""
        fields: dict[str, Value] = {}
        plain = self._plain.get(reading.name) or self._plan(reading.name, measurement)
        for key, value in reading.fields.items():
            step, takes_fact = plain.get(key, _NOT_PLAIN)
            if step and type(value) is float and value - value == 0:  # finite
                fields[key] = round(value / step) * step
            elif takes_fact and type(value) is bool:
                fields[key] = 1.0 if value else 0.0
            elif trouble := _find_trouble(measurement.fields.get(key), value):
                self._tell(source, f"{reading.name}.{key}", trouble)
            else:
                fields |= self._catalogue.settle(reading.name, {key: value})
        return fields

    def _plan(self, name: str, measurement: Measurement) -> Mapping[str, tuple[float, bool]]:
        """By field: the step of a number, 0 for a label, and whether a fact may be told of it."""
        plain = {
            key: (field.step if field.is_number else 0.0, field.kind in FACTS)
            for key, field in measurement.fields.items()
        }
        return self._plain.setdefault(name, plain)

    def _tell(self, source: str, signal: str, trouble: str) -> None:
        if (source, signal) not in self._told and len(self._told) < MOST_TOLD:
            self._told.add((source, signal))
            _log.error("a bug in source %s: %s %s; left out, and not said again", source, signal, trouble)


def find_tag_trouble(measurement: Measurement, tags: Mapping[str, str]) -> str | None:
    """What is wrong with a reading's tags; None when they are those that the catalogue declares."""
    if tags.keys() != measurement.tags.keys():
        return f"has the tags {sorted(tags)}, declared are {sorted(measurement.tags)}"
    for key, value in tags.items():
        known = measurement.tags[key].values
        if not isinstance(value, str) or not value or (known and value not in known):
            return f"has the tag {key}={value!r}, which is not allowed"
    return None


def _find_trouble(field: Field | None, value: object) -> str | None:
    return "is no field of the catalogue" if field is None else find_value_trouble(field, value)


def find_value_trouble(field: Field, value: object) -> str | None:
    """What is wrong with a field's value; None when it fits the field's kind. The range is the collector's to check."""
    if not field.is_number:
        return None if isinstance(value, str) else f"is a label and holds {value!r}"
    if isinstance(value, bool):
        return None if field.kind in FACTS else f"is a number and holds {value!r}"
    if not isinstance(value, int | float) or not math.isfinite(value):
        return f"is a number and holds {value!r}"
    return None
