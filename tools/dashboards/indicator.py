"""One indicator down to its criteria: a heading for each dimension, and from every criterion a link to its evidence."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import say
from dashboards.names import SCORE_STEPS, Node, criterion_words, dimensions
from dashboards.page import Band, Cell, build_page
from dashboards.panels import Column, Look, course, rows
from dashboards.readiness import (
    SINCE_YESTERDAY,
    explained,
    no_scores,
    score_columns,
    score_course,
    score_panel,
    score_query,
    short_name,
)


def _criteria(node: Node) -> Panel:
    first = Column("node", say("准则", "Criterion"), words=criterion_words(node.criteria), link=explained("criterion"))
    title = say("准则：满分时为真的事", "Criteria: what is true at full points")
    look = Look(no_scores(), span=SINCE_YESTERDAY)
    return rows(title, score_query("criterion", node.criteria), score_columns(first), look)


def _course(nodes: list[Node]) -> Panel:
    lines = [score_course("low", node.id, node.title) for node in nodes]
    look = Look(no_scores(), decimals=1, least=0, most=100, steps=(), interval="1h")
    return course(say("走势(计分)", "Course (what counts)"), lines, look, SCORE_STEPS)


def build(indicator: Node) -> Dashboard:
    """The dashboard in the language in force."""
    below = dimensions(indicator.id)
    bands = [Band("", [Cell(score_panel(indicator.title, indicator.id), 8, 8), Cell(_course(below), 16, 8)])]
    for node in below:
        height = len(node.criteria) + 3
        bands.append(
            Band(node.title, [Cell(score_panel(node.title, node.id), 5, height), Cell(_criteria(node), 19, height)])
        )
    return build_page(short_name(indicator), indicator.title, bands, start="now-90d")
