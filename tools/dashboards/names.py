"""What things are called and measured in: titles from the rule files, units and meanings from the catalogue."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

from agent import catalogue
from agent.catalogue import unit
from agent.language import say
from collector.report import INDICATORS
from collector.rulebook import Place, Rulebook
from collector.rules_folder import load
from dashboards.panels import AMBER, GREEN, GREY, RED, Step, Words

GRAFANA_UNITS = {"s": "s", "B": "bytes", "1": "percentunit", "bit/s": "bps", "B/s": "Bps", "°C": "celsius", "": "none"}
"""A unit of the catalogue -> Grafana's name of it."""

SCORE_STEPS = (Step(None, RED), Step(60, AMBER), Step(85, GREEN))
"""Colours of points 0 to 100."""
AVAILABLE_STEPS = (Step(None, RED), Step(0.999, AMBER), Step(0.9999, GREEN))
"""Colours of an availability; what counts are the scales of the rules."""
LOST_STEPS = (Step(None, GREEN), Step(1, RED))
"""Colours of a count of which one is too many."""


class Node(NamedTuple):
    """A node of the index: its dotted id, its title, the criteria that count in it and its documents."""

    id: str
    title: str
    criteria: tuple[str, ...]


@functools.cache
def book() -> Rulebook:
    """The shipped rules."""
    return load()[0]


def indicators() -> list[Node]:
    """The two indicators that telemetry scores."""
    return [_node(place) for place in book().places() if place.path in INDICATORS]


def dimensions(indicator: str) -> list[Node]:
    """What is below an indicator, in the index's own order."""
    return [_node(place) for place in book().places() if place.parent == indicator]


def _node(place: Place) -> Node:
    node = place.node
    return Node(place.path, say(node.zh, node.en), (*(one.id for one in node.criteria), *node.documents))


def node_words() -> Words:
    """Every node's title for its id."""
    named = {place.path: (say(place.node.zh, place.node.en), "") for place in book().places()}
    return {"total": (say("整个指数", "The whole index"), ""), **named}


def criterion_words(names: tuple[str, ...]) -> Words:
    """These criteria's titles for their ids."""
    return {name: (str(book().criteria[name].title), "") for name in names}


def status_words() -> Words:
    """A score's status as a person reads it."""
    return {
        "scored": (say("已评分", "scored"), GREEN),
        "no_data": (say("无数据", "no data"), AMBER),
        "not_applicable": (say("不适用", "not applicable"), GREY),
        "error": (say("出错", "error"), RED),
    }


def yes_no(good: int = 1) -> Words:
    """A state of 0 or 1, in red unless it is `good`."""
    no, yes = say("否", "no"), say("是", "yes")
    return {"0": (no, GREEN if good == 0 else RED), "1": (yes, GREEN if good == 1 else RED)}


def plain_yes_no() -> Words:
    """A state of 0 or 1 of which neither is better."""
    return {"0": (say("否", "no"), ""), "1": (say("是", "yes"), "")}


def state_words(measurement: str, field: str, colors: Mapping[str, str], otherwise: str) -> Words:
    """What the catalogue says of each of a state's numbers; colors: of those that have not the colour `otherwise`."""
    states = catalogue.load().measurements[measurement].fields[field].states
    return {number: (str(words), colors.get(number, otherwise)) for number, words in states.items()}


def unit_of(field: str) -> str:
    """Grafana's unit of a catalogue field."""
    return GRAFANA_UNITS[unit(field)]


def measurement_title(name: str) -> str:
    """What a measurement is, without the period at its end."""
    found = catalogue.load().measurements[name]
    return say(found.zh, found.en).rstrip("。.")


def field_title(measurement: str, field: str) -> str:
    """What a field means."""
    found = catalogue.load().measurements[measurement].fields[field]
    return say(found.zh, found.en)
