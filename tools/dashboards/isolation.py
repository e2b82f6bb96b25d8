"""Isolation of the zones: what the policy says, what the wire did, and when it was proven last."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import say
from dashboards.influx import SITE, over_time
from dashboards.names import field_title, plain_yes_no, state_words, yes_no
from dashboards.page import Band, Cell, Variables, build_page
from dashboards.panels import AMBER, BLUE, GREEN, GREY, RED, Column, Line, Look, Step, Words, matrix, rows, states

ZONES = '("from_zone" =~ /^$zone$/ OR "to_zone" =~ /^$zone$/)'
CELL = '"asset", "from_zone", "to_zone", "protocol", "port"'
LATEST = "1d"
"""A proof older than a day proves nothing of today."""
PASSES, BLOCKED = "1", "0"


def _nothing() -> str:
    return say(
        "没有隔离实测：启用采集源 isolation_probe 与各区的 isolation_responder(docs/isolation.md)",
        "Nothing was tried: switch on the source isolation_probe and each zone's isolation_responder (docs/isolation.md)",
    )


def _newest(field: str, reduction: str) -> str:
    """The newest value of each cell, reduced to one for each pair of zones."""
    return (
        f'SELECT {reduction}("v") AS "v" FROM (SELECT last("{field}") AS "v" FROM "isolation_cell"'
        f' WHERE {SITE} AND {ZONES} AND $timeFilter GROUP BY {CELL}) GROUP BY "from_zone", "to_zone"'
    )


def _matrix(title: str, query: str, words: Words, description: str) -> Panel:
    look = Look(_nothing(), words=words, span=LATEST, description=description)
    return matrix(title, query, "from_zone", "to_zone", "v", say("从 \\ 到", "from \\ to"), look)


def _matrices() -> list[Panel]:
    opened = {PASSES: (say("放行", "passes"), BLUE), BLOCKED: (say("阻断", "blocked"), GREY)}
    reached = {PASSES: (say("到达", "reached"), BLUE), BLOCKED: (say("未到达", "not reached"), GREY)}
    agreed = {PASSES: (say("相符", "agrees"), GREEN), BLOCKED: (say("不符或未证实", "differs or unproven"), RED)}
    any_way = say("任一协议与端口", "any protocol and port of the pair")
    return [
        _matrix(say("策略", "The policy"), _newest("is_allowed", "max"), opened, any_way),
        _matrix(say("实测", "On the wire"), _newest("is_reached", "max"), reached, any_way),
        _matrix(
            say("相符与否", "Do they agree"),
            _newest("is_as_expected", "min"),
            agreed,
            say("每一个协议与端口都须相符", "every protocol and port of the pair must"),
        ),
    ]


def _outcomes() -> Words:
    colors = {"1": BLUE, "2": GREY, "3": GREY, "4": GREY}
    return state_words("isolation_cell", "outcome", colors, otherwise=AMBER)


def _cells() -> Panel:
    fields = ("is_as_expected", "is_breached", "is_allowed", "is_reached", "outcome")
    selected = ", ".join(f'last("{field}") AS "{field}"' for field in fields)
    query = f'SELECT {selected} FROM "isolation_cell" WHERE {SITE} AND {ZONES} AND $timeFilter GROUP BY {CELL}'
    agrees = say("相符", "Agrees")
    columns = [
        Column("from_zone", say("从", "From")),
        Column("to_zone", say("到", "To")),
        Column("protocol", say("协议", "Protocol"), width=90),
        Column("port", say("端口", "Port"), width=90),
        Column("is_as_expected", agrees, words=yes_no(), width=100),
        Column("is_breached", say("被突破", "Breached"), words=yes_no(good=0), width=100),
        Column("is_allowed", say("策略放行", "Policy lets pass"), words=plain_yes_no(), width=130),
        Column("is_reached", say("实测到达", "Reached"), words=plain_yes_no(), width=110),
        Column("outcome", say("探测结果", "Outcome"), words=_outcomes()),
        Column("asset", say("由谁探测", "Tried by")),
    ]
    return rows(say("每一格", "Every cell"), query, columns, Look(_nothing(), span=LATEST), (agrees, False))


def _proofs() -> Panel:
    query = (
        f'SELECT last("is_proven") AS "is_proven" FROM "isolation_cell" WHERE {SITE} AND {ZONES} AND "is_proven" = 1'
        f' AND $timeFilter GROUP BY "from_zone", "to_zone", "protocol", "port"'
    )
    columns = [
        Column("from_zone", say("从", "From")),
        Column("to_zone", say("到", "To")),
        Column("protocol", say("协议", "Protocol"), width=90),
        Column("port", say("端口", "Port"), width=90),
        Column("Time", say("最近一次证实", "Last proven"), "dateTimeFromNow"),
        Column("is_proven", field_title("isolation_cell", "is_proven"), words=yes_no(), width=120),
    ]
    return rows(say("最近一次证实", "The last proof"), query, columns, Look(_nothing(), span="30d"))


def _course() -> Panel:
    query = over_time("min", "is_as_expected", "isolation_cell", "from_zone", "to_zone", where=f"{SITE} AND {ZONES}")
    look = Look(_nothing(), words=yes_no(), steps=(Step(None, RED), Step(1, GREEN)), interval="10m")
    title = say("每对区域是否始终相符", "Whether each pair agreed all the time")
    return states(title, [Line(query, "[[tag_from_zone]] → [[tag_to_zone]]")], look)


def _controls() -> Panel:
    query = over_time("min", "is_seen", "isolation_control", "from_zone", "to_zone", where=f"{SITE} AND {ZONES}")
    look = Look(_nothing(), words=yes_no(), steps=(Step(None, RED), Step(1, GREEN)), interval="10m")
    title = say(
        "阳性对照是否可见(否则“未到达”不算证明)",
        "Whether the positive control was seen (else not reached proves nothing)",
    )
    return states(title, [Line(query, "[[tag_from_zone]] → [[tag_to_zone]]")], look)


def build() -> Dashboard:
    """The dashboard in the language in force."""
    bands = [
        Band("", [Cell(panel, 8, 8) for panel in _matrices()]),
        Band(say("逐格", "Cell by cell"), [Cell(_cells(), 15, 12), Cell(_proofs(), 9, 12)]),
        Band(say("随时间", "Over time"), [Cell(_course(), 12, 9), Cell(_controls(), 12, 9)]),
    ]
    return build_page(
        "isolation", say("分区隔离", "Isolation of the zones"), bands, Variables(zone="isolation"), "now-7d"
    )
