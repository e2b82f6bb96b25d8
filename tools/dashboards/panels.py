"""The kinds of panel that these dashboards use, all of Grafana's own; each says what to do when there is nothing to show."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import text as text_panel
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardFieldConfigSourceOverrides,
    DashboardLink,
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColor,
    FieldColorModeId,
    FieldConfig,
    FieldConfigSource,
    MatcherConfig,
    Panel,
    Threshold,
    ThresholdsConfig,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.text import TextMode

from dashboards.influx import Format, InfluxQuery, datasource

RED, AMBER, GREEN, GREY, BLUE = "red", "orange", "green", "text", "blue"

Words = Mapping[str, tuple[str, str]]
"""A value, what is shown for it and in which colour ('' for none)."""
NO_WORDS: Words = MappingProxyType({})


class Step(NamedTuple):
    """From this value on a number has this colour; None for the lowest."""

    value: float | None
    color: str


class Look(NamedTuple):
    """How numbers are shown. nothing: what to do when there are none. span: the panel's own stretch of time, up to now.

    points: how many of each series are asked for at most, where there are many series; by default as many as the panel is wide.
    """

    nothing: str
    unit: str = "none"
    decimals: int | None = None
    least: float | None = None
    most: float | None = None
    steps: Sequence[Step] = ()
    words: Words = NO_WORDS
    description: str = ""
    span: str = ""
    interval: str = ""
    points: int | None = None


class Line(NamedTuple):
    """A query and what its series are called."""

    query: str
    name: str


class Column(NamedTuple):
    """A column of a table. link: (title, url), of the value itself by `${__value.raw}`. width: pixels."""

    name: str
    title: str
    unit: str = ""
    words: Words = NO_WORDS
    link: tuple[str, str] | None = None
    width: int | None = None
    steps: Sequence[Step] = ()
    decimals: int | None = None


def _mappings(words: Words) -> list[ValueMapping]:
    results = {
        value: ValueMappingResult(text=shown, color=color or None, index=index)
        for index, (value, (shown, color)) in enumerate(words.items())
    }
    return [ValueMap(results)] if results else []


def _thresholds(steps: Sequence[Step]) -> ThresholdsConfig:
    return ThresholdsConfig(ThresholdsMode.ABSOLUTE, [Threshold(step.value, step.color) for step in steps])


def _config(look: Look, custom: object) -> FieldConfigSource:
    mode = FieldColorModeId.THRESHOLDS if look.steps else FieldColorModeId.PALETTE_CLASSIC
    return FieldConfigSource(
        FieldConfig(
            unit=look.unit,
            decimals=look.decimals,
            min_val=look.least,
            max_val=look.most,
            mappings=_mappings(look.words) or None,
            thresholds=_thresholds(look.steps) if look.steps else None,
            color=FieldColor(mode=mode),
            no_value=look.nothing,
            custom=custom,
        ),
        [],
    )


def _finish(panel: Panel, title: str, lines: Sequence[Line], look: Look, shape: Format) -> Panel:
    panel.title = title
    panel.description = look.description or None
    panel.datasource = datasource()
    panel.targets = [
        InfluxQuery(line.query, chr(ord("A") + number), shape, line.name) for number, line in enumerate(lines)
    ]
    custom = panel.field_config.defaults.custom if panel.field_config else None
    panel.field_config = _config(look, custom)
    panel.time_from = look.span or None
    panel.hide_time_override = True if look.span else None
    panel.interval = look.interval or None
    panel.max_data_points = look.points
    return panel


def figures(title: str, lines: Sequence[Line], look: Look, units: Mapping[str, str] | None = None) -> Panel:
    """The newest value of each line, large. units: of lines that have another one than the panel's, by their name."""
    builder = (
        stat.Panel()
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(options.BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    panel = _finish(builder.build(), title, lines, look, "time_series")
    for name, unit in (units or {}).items():
        _override(panel, name, {"unit": unit, "max": None, "color": {"mode": "fixed", "fixedColor": BLUE}})
    return panel


def bars(title: str, lines: Sequence[Line], look: Look) -> Panel:
    """The newest value of each line as a bar."""
    builder = (
        bargauge.Panel()
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _finish(builder.build(), title, lines, look, "time_series")


def course(title: str, lines: Sequence[Line], look: Look, limits: Sequence[Step] = ()) -> Panel:
    """Lines over time. limits: drawn as dashed lines in their colours."""
    builder = (
        timeseries.Panel()
        .show_points(options.VisibilityMode.AUTO)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    if limits:
        style = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        builder = builder.thresholds_style(style)
    panel = _finish(builder.build(), title, lines, look, "time_series")
    if limits and panel.field_config:
        panel.field_config.defaults.thresholds = _thresholds(limits)
    return panel


def band(panel: Panel, low: str, high: str) -> Panel:
    """The same panel with the space between two of its lines filled: what is not proven."""
    _override(panel, high, {"custom.fillBelowTo": low, "custom.lineWidth": 0, "custom.fillOpacity": 20})
    return panel


def states(title: str, lines: Sequence[Line], look: Look) -> Panel:
    """One bar for each line over time, in the colour of its state."""
    builder = (
        statetimeline.Panel()
        .show_value(options.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    return _finish(builder.build(), title, lines, look, "time_series")


def rows(title: str, query: str, columns: Sequence[Column], look: Look, sort: tuple[str, bool] | None = None) -> Panel:
    """A table of one query; what is no column of it is hidden. sort: (column's title, descending)."""
    builder = table.Panel().cell_height(options.TableCellHeight.SM).align(options.FieldTextAlignment.AUTO)
    if sort:
        builder = builder.sort_by([common.TableSortByFieldState().display_name(sort[0]).desc(sort[1])])
    panel = _finish(builder.build(), title, [Line(query, "")], look, "table")
    order: dict[str, object] = {column.name: place for place, column in enumerate(columns)}
    hidden: dict[str, object] = {} if "Time" in order else {"Time": True, "time": True}
    panel.transformations = [
        DataTransformerConfig("organize", options={"excludeByName": hidden, "indexByName": order, "renameByName": {}})
    ]
    for column in columns:
        _override(panel, column.name, _properties(column))
    return panel


def matrix(title: str, query: str, row: str, column: str, value: str, corner: str, look: Look) -> Panel:
    """A table with the values of one tag down and of another across."""
    panel = _finish(
        table.Panel().cell_height(options.TableCellHeight.SM).align(options.FieldTextAlignment.AUTO).build(),
        title,
        [Line(query, "")],
        look,
        "table",
    )
    panel.transformations = [
        DataTransformerConfig("groupingToMatrix", options={"rowField": row, "columnField": column, "valueField": value})
    ]
    panel.field_config = _config(
        look, {"align": "center", "cellOptions": {"type": "color-background"}, "inspect": False}
    )
    plain = {"displayName": corner, "custom.cellOptions": {"type": "auto"}, "custom.align": "left"}
    _override(panel, f"{row}\\{column}", plain)
    return panel


def leads_to(panel: Panel, title: str, uid: str) -> Panel:
    """The same panel with a link to another dashboard, of the same site and time."""
    link = DashboardLink(
        title=title, type_val=DashboardLinkType.LINK, url=f"/d/{uid}?${{site:queryparam}}&${{__url_time_range}}"
    )
    panel.links = [link]
    return panel


def note(title: str, markdown: str) -> Panel:
    """Words, in Markdown."""
    panel = text_panel.Panel().mode(TextMode.MARKDOWN).content(markdown).build()
    panel.title = title
    panel.datasource = datasource()
    return panel


def _properties(column: Column) -> Mapping[str, object]:
    properties: dict[str, object] = {"displayName": column.title}
    if column.unit:
        properties["unit"] = column.unit
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.words:
        properties["mappings"] = _mappings(column.words)
    if column.width:
        properties["custom.width"] = column.width
    if column.steps:
        properties["thresholds"] = _thresholds(column.steps)
        properties["color"] = {"mode": "thresholds"}
    if column.steps or any(color for _, color in column.words.values()):
        properties["custom.cellOptions"] = {"type": "color-text"}
    if column.link:
        properties["links"] = [_link(*column.link)]
    return properties


def _link(title: str, url: str) -> DashboardLink:
    return DashboardLink(title=title, type_val=DashboardLinkType.LINK, url=url, target_blank=True)


def _override(panel: Panel, name: str, properties: Mapping[str, object]) -> None:
    assert panel.field_config is not None
    panel.field_config.overrides.append(
        DashboardFieldConfigSourceOverrides(
            MatcherConfig("byName", name),
            [DynamicConfigValue(key, value) for key, value in properties.items() if value is not None],
        )
    )
