"""`try`: one source, gathered once and shown; neither broker nor spool."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from agent.catalogue import Catalogue, load, unit
from agent.config import SourceSection, default_section, read_config
from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Point, Value
from agent.readings import Settler
from agent.run import gather_once
from agent.sources import Surroundings
from agent.table import render_table

ASSET = "this-machine"
"""The asset of points that nobody keeps, where no configuration names one."""


class Trial(NamedTuple):
    """What a source gave; remark: why it gave nothing or what is bad in it, else empty."""

    points: list[Point]
    remark: str


def try_source(name: str, path: Path | None) -> Trial:
    """Gather `name` once, as `path` configures it.

    Raises FileMistakes for the file, UnusableSource for the name, SourceError when the source cannot gather.
    """
    section, asset = _find_section(name, path)
    watches = section.watches(Surroundings(asset=asset))
    if not watches:
        text = say(
            f"{name} 没有配置目标；infravitals-agent sample {name} 打印样例，写好后以 -c agent.yaml 试采",
            f"{name} has no targets configured; infravitals-agent sample {name} prints how, then try it with -c agent.yaml",
        )
        return Trial([], text)
    gathered = asyncio.run(gather_once(watches))
    points: list[Point] = []
    remarks = []
    failed = 0
    for watch, outcome in gathered:
        if isinstance(outcome.error, NoData):
            remarks.append(
                say(
                    f"{watch.label} 没有可采集的内容：{outcome.error}",
                    f"{watch.label} has nothing to measure: {outcome.error}",
                )
            )
        elif isinstance(outcome.error, SourceError):
            remarks.append(say(f"{watch.label} 采集失败：{outcome.error}", f"{watch.label} fails: {outcome.error}"))
            failed += 1
        elif outcome.error:
            raise outcome.error
        remarks += [reading.remark for reading in outcome.readings if reading.remark]
        at = round(outcome.observed_at_seconds * 1000)
        points += Settler(load(), asset).settle(outcome.readings, at, name).points
    if failed == len(gathered):
        raise SourceError("\n".join(remarks))
    return Trial(points, "\n".join(remarks))


def render_points(points: list[Point]) -> str:
    """A table with one line per field: signal, tags, value, unit and what it means."""
    catalogue = load()
    headers = (
        say("信号", "SIGNAL"),
        say("标签", "TAGS"),
        say("值", "VALUE"),
        say("单位", "UNIT"),
        say("含义", "MEANING"),
    )
    return render_table(headers, [row for point in points for row in _rows(point, catalogue)])


def _rows(point: Point, catalogue: Catalogue) -> list[tuple[str, ...]]:
    tags = " ".join(f"{key}={value}" for key, value in point.tags.items() if key != "asset")
    rows: list[tuple[str, ...]] = []
    for key, value in point.fields.items():
        field = catalogue.measurements[point.name].fields[key]
        shown = _show(value)
        if state := field.states.get(shown):
            shown += f" ({state})"
        rows.append((f"{point.name}.{key}", tags, shown, unit(key), say(field.zh, field.en)))
    return rows


def _show(value: Value) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"


def _find_section(name: str, path: Path | None) -> tuple[SourceSection, str]:
    """The source as configured, else with its defaults; and the asset that its points name."""
    asset = ASSET
    if path:
        config = read_config(path)
        asset = config.asset
        for section in config.sources:
            if section.name == name:
                return section, asset
    return default_section(name), asset
