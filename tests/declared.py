"""Whether what a source gives stands in the catalogue."""

from collections.abc import Iterable

from agent.catalogue import load
from agent.sources import Reading


def undeclared(source: str, readings: Iterable[Reading]) -> list[str]:
    """One line for every name, tag or field of `readings` that the catalogue does not know as this source's."""
    missing = []
    for reading in readings:
        measurement = load().measurements.get(reading.name)
        if measurement is None:
            missing.append(reading.name)
            continue
        missing += [f"{reading.name} tag {tag}" for tag in reading.tags.keys() ^ measurement.tags.keys()]
        for tag, value in reading.tags.items():
            allowed = measurement.tags[tag].values if tag in measurement.tags else ()
            if allowed and value not in allowed:
                missing.append(f"{reading.name} {tag}={value}")
        for name in reading.fields:
            if name not in measurement.fields or source not in measurement.emitters(name):
                missing.append(f"{reading.name}.{name}")
    return missing
