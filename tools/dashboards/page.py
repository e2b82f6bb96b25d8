"""A dashboard's frame: its variables, its links, and the grid on which panels stand row by row."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    RowPanel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from agent.language import current, say
from dashboards.influx import datasource

COLUMNS = 24
"""Of Grafana's grid."""

PAGE_ADDRESS = "http://127.0.0.1:8650"
"""Where the product's own page is until somebody writes another address into the variable."""


class Cell(NamedTuple):
    """A panel and how much of the grid it takes."""

    panel: Panel
    width: int
    height: int


class Band(NamedTuple):
    """Panels under one heading, from left to right and on to the next line; '' for no heading."""

    heading: str
    cells: Sequence[Cell]


class Variables(NamedTuple):
    """Which of the variables a dashboard has beside the site and the page's address. zone: where the zones are taken from."""

    zone: Literal["", "register", "isolation"] = ""
    asset: bool = False


SITE_ALONE = Variables()

ZONES_OF = {
    "register": 'SHOW TAG VALUES FROM "asset" WITH KEY = "zone"',
    "isolation": 'SHOW TAG VALUES FROM "isolation_cell" WITH KEY IN ("from_zone", "to_zone")',
}


def uid_of(name: str) -> str:
    """A dashboard's uid: for good, and another one in each language."""
    return f"infravitals-{name}-{current()}"


def build_page(
    name: str, title: str, bands: Sequence[Band], variables: Variables = SITE_ALONE, start: str = "now-24h"
) -> Dashboard:
    """The dashboard. start: the begin of the time that it shows at first."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid_of(name))
        .tags(["infravitals", current()])
        .readonly()
        .timezone("browser")
        .time(start, "now")
        .refresh("1m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink(say("其他页面", "Other pages"))
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["infravitals", current()])
            .as_dropdown(True)
            .include_vars(True)
        )
        .link(
            dashboard.DashboardLink(say("Infravitals 网页", "The Infravitals page"))
            .type(DashboardLinkType.LINK)
            .icon("external link")
            .url(f"${{page}}/?lang={current()}")
            .target_blank(True)
        )
        .variables(list(_variables(variables)))
        .annotations([])
    )
    page = builder.build()
    page.panels = list(_placed(bands))
    return page


def _placed(bands: Sequence[Band]) -> Iterator[Panel | RowPanel]:
    number, y = 0, 0
    for one in bands:
        if one.heading:
            number += 1
            yield RowPanel(title=one.heading, grid_pos=GridPos(h=1, w=COLUMNS, x=0, y=y), id_val=number)
            y += 1
        x = height = 0
        for cell in one.cells:
            if x + cell.width > COLUMNS:
                x, y, height = 0, y + height, 0
            number += 1
            cell.panel.id_val = number
            cell.panel.grid_pos = GridPos(h=cell.height, w=cell.width, x=x, y=y)
            x, height = x + cell.width, max(height, cell.height)
            yield cell.panel
        y += height


def _variables(wanted: Variables) -> Iterator[dashboard.QueryVariable | dashboard.TextBoxVariable]:
    yield _chosen("site", say("院区", "Site"), 'SHOW TAG VALUES FROM "batch" WITH KEY = "site"')
    of_site = "\"site\" = '$site'"
    if wanted.zone:
        query = f"{ZONES_OF[wanted.zone]} WHERE {of_site}"
        yield (
            _chosen("zone", say("区域", "Zone"), query)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(True, say("全部", "All"), "$__all"))
        )
    if wanted.asset:
        of_zone = ' AND "zone" =~ /^$zone$/' if wanted.zone else ""
        query = f'SHOW TAG VALUES FROM "asset" WITH KEY = "asset" WHERE {of_site}{of_zone}'
        yield _chosen("asset", say("资产", "Asset"), query)
    page = dashboard.TextBoxVariable("page").label(say("网页地址", "Page address")).default_value(PAGE_ADDRESS)
    yield page.current(VariableOption(True, PAGE_ADDRESS, PAGE_ADDRESS))


def _chosen(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(datasource())
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
