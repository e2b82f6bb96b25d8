"""What Grafana does between a dashboard and InfluxQL, after its public documentation: variables, macros, a panel's own time.

No Grafana ran: this stands in for it. Variables: a choice of one is set in as it is, within a pattern its signs are escaped; a
variable with "all" sets its custom value in unescaped. Macros: $timeFilter, $__interval, $__interval_ms.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from servers import Influx

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "grafana"
DAY_MS = 86_400_000
WIDTH = 1000
"""Points that a panel asks for unless it says how many: as many as it is wide."""

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS, "y": 365 * DAY_MS}
_NICE_MS = [
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    900_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, DAY_MS, 7 * DAY_MS, 30 * DAY_MS,
]  # fmt: skip
"""The intervals that Grafana rounds to."""


_SIGNS = re.compile(r"[\^$\\.*+?()\[\]{}|]")
"""What Grafana escapes in a value that stands in a pattern."""


class Span(NamedTuple):
    """A stretch of time, milliseconds."""

    start: int
    end: int


class Asked(NamedTuple):
    """One query of one panel. alias: what its series are called. columns: of a table, those that the panel shows."""

    panel: str
    query: str
    is_table: bool
    alias: str
    columns: Sequence[str]


def duration_ms(text: str) -> int:
    """Of `25h`, `365d`."""
    return int(text[:-1]) * _UNITS_MS[text[-1]]


def dashboards(language: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and document of every committed dashboard."""
    for path in sorted((FOLDER / "dashboards" / language).glob("*.json")):
        yield path.stem, json.loads(path.read_text("utf-8"))


def span_of(page: Mapping[str, Any], panel: Mapping[str, Any], now: int) -> Span:
    """The panel's own stretch of time, else the page's."""
    text = panel.get("timeFrom") or page["time"]["from"].removeprefix("now-")
    return Span(now - duration_ms(text), now)


def interval_ms(span: Span, panel: Mapping[str, Any]) -> int:
    """$__interval: the span over the points that are asked for, rounded, and no less than the panel's least."""
    exact = (span.end - span.start) / panel.get("maxDataPoints", WIDTH)
    rounded = min(_NICE_MS, key=lambda nice: abs(nice - exact))
    return max(rounded, duration_ms(panel.get("interval", "15s")))


def interval_text(milliseconds: int) -> str:
    """As Grafana writes it: in the greatest unit that divides it."""
    unit = next(name for name in ("d", "h", "m", "s") if milliseconds % _UNITS_MS[name] == 0)
    return f"{milliseconds // _UNITS_MS[unit]}{unit}"


def fill_macros(query: str, span: Span, interval: int) -> str:
    """The query with Grafana's macros set in, longest name first."""
    query = query.replace("$timeFilter", f"time >= {span.start}ms and time <= {span.end}ms")
    return query.replace("$__interval_ms", str(interval)).replace("$__interval", interval_text(interval))


class Chosen(NamedTuple):
    """What a reader chose in a variable. is_all: of a variable with a custom value for all."""

    value: str
    is_all: bool = False


def fill_variables(query: str, chosen: Mapping[str, Chosen]) -> str:
    """The query with `$name` and `${name}` set in; a name that is no variable stays."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in chosen:
            return found[0]
        is_in_pattern = re.search(rf"/[^/\s]*\${{?{name}\b", query) is not None
        one = chosen[name]
        return _SIGNS.sub(r"\\\g<0>", one.value) if is_in_pattern and not one.is_all else one.value

    return re.sub(r"\$(\w+)|\$\{(\w+)\}", value, query)


def choices(page: Mapping[str, Any], influx: Influx, database: str, wanted: Mapping[str, str]) -> dict[str, Chosen]:
    """What stands in the page's variables: of each the wanted value, which its query must offer, or all of it."""
    chosen: dict[str, Chosen] = {}
    for variable in page["templating"]["list"]:
        name = variable["name"]
        if variable["type"] == "textbox":
            chosen[name] = Chosen(variable["query"])
        elif variable.get("includeAll") and name not in wanted:
            chosen[name] = Chosen(variable["allValue"], is_all=True)
            assert offered(variable, chosen, influx, database)
        else:
            found = offered(variable, chosen, influx, database)
            assert wanted[name] in found, f"{name}: {found}"
            chosen[name] = Chosen(wanted[name])
    return chosen


def offered(variable: Mapping[str, Any], chosen: Mapping[str, Chosen], influx: Influx, database: str) -> list[str]:
    """What a variable of type query offers."""
    assert variable["datasource"] == {"type": "influxdb", "uid": "infravitals"}
    series = answer(influx, database, fill_variables(variable["query"], chosen))
    return [values[1] for one in series for values in one["values"]]


def asked(page: Mapping[str, Any], chosen: Mapping[str, Chosen], now: int) -> Iterator[Asked]:
    """Every query of the page as it reaches InfluxDB."""
    for panel in page["panels"]:
        span = span_of(page, panel, now)
        for target in panel.get("targets", ()):
            query = fill_macros(fill_variables(target["query"], chosen), span, interval_ms(span, panel))
            columns = (
                [one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]] if is_plain(panel) else []
            )
            yield Asked(panel["title"], query, target["resultFormat"] == "table", target.get("alias", ""), columns)


def is_plain(panel: Mapping[str, Any]) -> bool:
    """Whether it is a table whose columns are those of the answer."""
    return panel["type"] == "table" and panel["transformations"][0]["id"] == "organize"


def answer(influx: Influx, database: str, query: str) -> Sequence[dict[str, Any]]:
    """The series of one statement; fails when the server complains."""
    assert "$" not in query.replace("$/", ""), f"not all is set in: {query}"
    [result] = json.loads(influx.ask(query, database))["results"]
    series: list[dict[str, Any]] = result.get("series", [])
    return series


Labels = Mapping[str, str]

_COMPARED: Mapping[str, Callable[[float, Sequence[float]], bool]] = {
    "gt": lambda value, limits: value > limits[0],
    "lt": lambda value, limits: value < limits[0],
    "within_range": lambda value, limits: limits[0] < value < limits[1],
}


class Verdict(NamedTuple):
    """What an alert rule came to: of each series its labels and whether it fires; state: NoData's stand-in when there is none."""

    series: Sequence[tuple[Labels, bool]]
    state: str

    def sites(self, is_firing: bool) -> set[str]:
        """Whose series fire, or do not."""
        return {labels["site"] for labels, fires in self.series if fires == is_firing}


def judge(rule: Mapping[str, Any], influx: Influx, database: str, now: int) -> Verdict:
    """The rule's query at `now` (ms), then its expressions: the newest value of each series, compared. A series without a value has no say."""
    asked, reduced, compared = (step["model"] for step in rule["data"])
    assert (reduced["type"], reduced["reducer"], reduced["expression"]) == ("reduce", "last", asked["refId"])
    assert (compared["type"], compared["expression"], rule["condition"]) == (
        "threshold",
        reduced["refId"],
        compared["refId"],
    )
    [condition] = compared["conditions"]
    fires = _COMPARED[condition["evaluator"]["type"]]
    found = []
    for series in answer(influx, database, asked["query"].replace("now()", f"{now}ms")):
        values = [value for _, value in series["values"] if value is not None]
        if values:
            found.append((series["tags"], fires(values[-1], condition["evaluator"]["params"])))
    return Verdict(found, "" if found else rule["noDataState"])
