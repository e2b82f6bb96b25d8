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

    def settle(self, readings: tuple[Reading, ...], at_milliseconds: int, source: str) -> Settled:
        """The points of `readings`; `at_milliseconds` is the time of those that bring none."""
        points: list[Point] = []
        is_complete = True
        for reading in readings:
            measurement = self._catalogue.measurements.get(reading.name)
            asset = reading.asset or self._asset
            if measurement is None:
                self._tell(source, reading.name, "is no measurement of the catalogue")
            elif not is_id(asset):
                self._tell(source, reading.name, f"has the asset {asset!r}, which is no id")
            elif trouble := find_tag_trouble(measurement, reading.tags):
                self._tell(source, reading.name, trouble)
            else:
                fields = self._fields(source, reading, measurement)
                is_complete &= len(fields) == len(reading.fields)
                if fields:
                    tags = {"asset": asset, **reading.tags}
                    when = at_milliseconds if reading.timestamp is None else reading.timestamp
                    points.append(Point(reading.name, tags, self._catalogue.settle(reading.name, fields), when))
                continue
            is_complete = False
        return Settled(points, is_complete)

    def _fields(self, source: str, reading: Reading, measurement: Measurement) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        for key, value in reading.fields.items():
            field = measurement.fields.get(key)
            trouble = "is no field of the catalogue" if field is None else find_value_trouble(field, value)
            if trouble:
                self._tell(source, f"{reading.name}.{key}", trouble)
            else:
                fields[key] = value
        return fields

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


def find_value_trouble(field: Field, value: object) -> str | None:
    """What is wrong with a field's value; None when it fits the field's kind. The range is the collector's to check."""
    if not field.is_number:
        return None if isinstance(value, str) else f"is a label and holds {value!r}"
    if isinstance(value, bool):
        return None if field.kind in ("state", "event") else f"is a number and holds {value!r}"
    if not isinstance(value, int | float) or not math.isfinite(value):
        return f"is a number and holds {value!r}"
    return None
