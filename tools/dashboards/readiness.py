"""The hospital's readiness: the two indicators and the eleven below them, now, since yesterday and over a year."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import current, say
from dashboards.influx import SITE, one_of, over_time
from dashboards.names import SCORE_STEPS, Node, book, criterion_words, dimensions, indicators, node_words, status_words
from dashboards.page import Band, Cell, build_page, uid_of
from dashboards.panels import (
    AMBER,
    GREEN,
    RED,
    Column,
    Line,
    Look,
    Step,
    band,
    bars,
    course,
    figures,
    leads_to,
    note,
    rows,
)

NEWEST = "3h"
"""A scorecard older than this is not shown as the present one: it is written every hour."""
SINCE_YESTERDAY = "1530m"
"""A day, the hour until the next scorecard, and half an hour for it to come: the first within is of this hour of yesterday, or the one before."""
MONTH_SECONDS = 30 * 86_400


def no_scores() -> str:
    """What to do when there is no score."""
    return say(
        "没有评分：采集中心每个整点后写一次；请看它是否在运行(infravitals doctor)、所选院区是否有数据",
        "No scores: the collector writes them after every full hour. See that it runs (infravitals doctor) and that the site has data",
    )


def of_node(node: str) -> str:
    """The condition of one node's scores."""
    return f"{SITE} AND \"kind\" = 'node' AND \"node\" = '{node}'"


def score_course(field: str, node: str, name: str) -> Line:
    """One number of a node over time."""
    return Line(over_time("mean", field, "score", where=of_node(node)), name)


def score_lines(node: str) -> list[Line]:
    """The newest low, high and coverage of one node."""
    where = f"WHERE {of_node(node)} AND $timeFilter"
    return [
        Line(f'SELECT last("low") FROM "score" {where}', say("计分", "counts")),
        Line(f'SELECT last("high") FROM "score" {where}', say("最好", "at best")),
        Line(f'SELECT last("coverage") FROM "score" {where}', coverage_title()),
    ]


def coverage_title() -> str:
    """The share of a node's weight that there are data for."""
    return say("有数据的占比", "has data")


def score_panel(title: str, node: str) -> Panel:
    """Low, high and coverage of one node in large figures."""
    description = say(
        "“计分”是已证明的分数，没有数据的按最不利计；“最好”是缺失的数据若都最有利时的分数",
        "What counts is what is proven: missing data earn nothing. At best: as if all that is missing were as good as can be",
    )
    look = Look(no_scores(), decimals=1, least=0, most=100, steps=SCORE_STEPS, span=NEWEST, description=description)
    return figures(title, score_lines(node), look, {coverage_title(): "percentunit"})


def score_columns(first: Column) -> list[Column]:
    """Of a table of scores: what it is, then its numbers."""
    change = (Step(None, RED), Step(0, GREEN))
    return [
        first,
        Column("status", say("状态", "Status"), words=status_words(), width=110),
        Column("low", say("计分", "Counts"), "none", width=80, steps=SCORE_STEPS, decimals=1),
        Column("high", say("最好", "At best"), "none", width=80, decimals=1),
        Column("coverage", coverage_title(), "percentunit", width=110, decimals=0),
        Column("change", say("比昨天", "Since yesterday"), "none", width=130, steps=change, decimals=1),
    ]


def score_query(kind: str, names: tuple[str, ...]) -> str:
    """Newest numbers and the change within the panel's own stretch of time, a row for each name."""
    return (
        'SELECT last("low") AS "low", last("high") AS "high", last("coverage") AS "coverage", last("status") AS "status",'
        f' last("low") - first("low") AS "change" FROM "score" WHERE {SITE} AND "kind" = \'{kind}\''
        f' AND {one_of("node", names)} AND $timeFilter GROUP BY "node"'
    )


def explained(what: str) -> tuple[str, str]:
    """A link from an id to the page that explains it."""
    address = f"${{page}}/{what}/${{__value.raw}}?lang={current()}"
    return (say("这个分数怎么来的", "How this score came about"), address)


def _eleven() -> list[Node]:
    return [one for indicator in indicators() for one in dimensions(indicator.id)]


def _indicator(node: Node) -> Panel:
    return leads_to(score_panel(node.title, node.id), say("到准则", "To the criteria"), uid_of(short_name(node)))


def short_name(node: Node) -> str:
    """The last part of a node's id, which names its file."""
    return node.id.rpartition(".")[2]


def _bars() -> Panel:
    lines = [
        Line(f'SELECT last("low") FROM "score" WHERE {of_node(node.id)} AND $timeFilter', node.title)
        for node in _eleven()
    ]
    look = Look(no_scores(), decimals=1, least=0, most=100, steps=SCORE_STEPS, span=NEWEST)
    return bars(say("十一个方面(计分)", "The eleven (what counts)"), lines, look)


def _table() -> Panel:
    first = Column("node", say("方面", "Dimension"), words=node_words(), link=explained("node"))
    look = Look(no_scores(), span=SINCE_YESTERDAY)
    title = say("十一个方面：最低与最好、比昨天", "The eleven: what counts, at best, since yesterday")
    return rows(title, score_query("node", tuple(node.id for node in _eleven())), score_columns(first), look)


def _changes() -> Panel:
    first = Column(
        "node",
        say("准则", "Criterion"),
        words=criterion_words(tuple(sorted(book().criteria))),
        link=explained("criterion"),
    )
    query = (
        'SELECT "change", "low", "high", "coverage", "status" FROM (SELECT last("low") - first("low") AS "change", last("low") AS "low",'
        ' last("high") AS "high", last("coverage") AS "coverage", last("status") AS "status"'
        f' FROM "score" WHERE {SITE} AND "kind" = \'criterion\' AND $timeFilter GROUP BY "node") WHERE "change" <> 0 GROUP BY "node"'
    )
    nothing = say(
        "与昨天相比没有准则变化；若上面也没有分数，请看采集中心",
        "No criterion changed since yesterday; if there are no scores above either, see the collector",
    )
    title = say("比昨天变了的准则", "Criteria that changed since yesterday")
    sort = (say("比昨天", "Since yesterday"), False)
    return rows(title, query, score_columns(first), Look(nothing, span=SINCE_YESTERDAY), sort)


def _attestations() -> Panel:
    query = (
        'SELECT last("left_seconds") AS "left", last("expires") AS "expires", last("status") AS "status" FROM "score"'
        f' WHERE {SITE} AND "kind" = \'criterion\' AND "expires" > 0 AND $timeFilter GROUP BY "node"'
    )
    steps = (Step(None, RED), Step(0, AMBER), Step(MONTH_SECONDS, GREEN))
    left = say("还剩", "Left")
    columns = [
        Column(
            "node",
            say("准则", "Criterion"),
            words=criterion_words(tuple(sorted(book().criteria))),
            link=explained("criterion"),
        ),
        Column("status", say("状态", "Status"), words=status_words(), width=110),
        Column("left", left, "dtdurations", width=200, steps=steps),
        Column("expires", say("到期", "Ends"), "dateTimeAsIso", width=180),
    ]
    nothing = say(
        "没有证明：用 infravitals attest add 登记由人证明的事项", "No attestations: infravitals attest add records them"
    )
    title = say("证明何时到期", "When attestations end")
    return rows(title, query, columns, Look(nothing, span=NEWEST), (left, False))


def _course(title: str, nodes: list[Node]) -> Panel:
    lines = []
    for node in nodes:
        lines += [
            score_course("low", node.id, f"{node.title} {say('计分', 'counts')}"),
            score_course("high", node.id, f"{node.title} {say('最好', 'at best')}"),
        ]
    panel = course(title, lines, Look(no_scores(), decimals=1, least=0, most=100, interval="1h"))
    for low, high in zip(lines[::2], lines[1::2], strict=True):
        band(panel, low.name, high.name)
    return panel


def _eleven_course() -> Panel:
    lines = [score_course("low", node.id, node.title) for node in _eleven()]
    look = Look(no_scores(), decimals=1, least=0, most=100, interval="1h")
    return course(say("十一个方面的走势(计分)", "Course of the eleven (what counts)"), lines, look)


def _words() -> Panel:
    return note(
        say("怎么读", "How to read this"),
        say(
            "每个分数是一个区间：**计分**是已证明的，缺失的数据按最不利计；**最好**按最有利计。两者相差多少，就是还没证明多少。"
            "点名称可打开 Infravitals 网页上的证据。",
            "Every score is an interval: **what counts** is proven, missing data as bad as can be; **at best** takes them as good as can be. "
            "How far they lie apart is what nobody has proven yet. A name leads to the evidence on the Infravitals page.",
        ),
    )


def build() -> Dashboard:
    """The dashboard in the language in force."""
    two = indicators()
    total = Node("total", say("整个指数", "The whole index"), ())
    bands = [
        Band(
            "",
            [
                Cell(score_panel(total.title, total.id), 6, 5),
                *(Cell(_indicator(node), 7, 5) for node in two),
                Cell(_words(), 4, 5),
            ],
        ),
        Band("", [Cell(_bars(), 9, 12), Cell(_table(), 15, 12)]),
        Band(
            say("一年", "A year"),
            [Cell(_course(say("走势", "Course"), [total, *two]), 12, 10), Cell(_eleven_course(), 12, 10)],
        ),
        Band(
            say("昨天以来，以及将要到期的", "Since yesterday, and what ends"),
            [Cell(_changes(), 14, 10), Cell(_attestations(), 10, 10)],
        ),
    ]
    return build_page("readiness", say("医院就绪度", "Readiness of the hospital"), bands, start="now-1y")
