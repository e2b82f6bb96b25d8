"""The line itself, by what lies in the store: what comes in, how late, what is set aside, whose spool grows, who is silent."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import say
from dashboards.influx import SITE, over_time
from dashboards.names import GRAFANA_UNITS, LOST_STEPS, field_title
from dashboards.page import Band, Cell, build_page
from dashboards.panels import AMBER, BLUE, GREEN, RED, Column, Line, Look, Step, course, figures, rows

MONTH = "30d"
POINTS = 300
"""Of each agent's line: a hundred agents' lines of a minute each would be megabytes."""


def _no_batch() -> str:
    return say(
        "所选时间里没有任何批次入库：请看采集中心(infravitals doctor)、消息服务器和采集代理(infravitals-agent doctor)",
        "No batch was stored in this time: see the collector (infravitals doctor), the broker and the agents (infravitals-agent doctor)",
    )


def _no_word() -> str:
    return say(
        "采集代理没有自报：请看它们是否在运行(systemctl status infravitals-agent)",
        "No agent says anything of itself: see that they run (systemctl status infravitals-agent)",
    )


def _sums() -> Panel:
    of_site = f'FROM "batch" WHERE {SITE} AND $timeFilter'
    lines = [
        Line(f'SELECT sum("points") {of_site}', say("入库的点", "points stored")),
        Line(f'SELECT count("points") {of_site}', say("批次", "batches")),
        Line(f'SELECT sum("set_aside") {of_site}', say("被搁置的点", "points set aside")),
    ]
    return figures(say("所选时间内", "In this time"), lines, Look(_no_batch(), "short", steps=(Step(None, BLUE),)))


def _rate() -> Panel:
    query = (
        f'SELECT sum("points") * 1000 / $__interval_ms FROM "batch" WHERE {SITE} AND $timeFilter'
        ' GROUP BY time($__interval), "agent" fill(0)'
    )
    look = Look(_no_batch(), "cps", least=0, interval="1m", points=POINTS)
    return course(say("每秒入库的点", "Points stored a second"), [Line(query, "[[tag_agent]]")], look)


def _lag() -> Panel:
    query = (
        'SELECT max("lag") FROM (SELECT ("received_at" - "made_at") / 1000.0 AS "lag" FROM "batch"'
        f' WHERE {SITE} AND $timeFilter GROUP BY "agent") WHERE $timeFilter GROUP BY time($__interval), "agent" fill(none)'
    )
    look = Look(_no_batch(), GRAFANA_UNITS["s"], interval="1m", points=POINTS)
    title = say("从生成到收到(最慢的一批)", "From made to received (the slowest batch)")
    return course(title, [Line(query, "[[tag_agent]]")], look)


def _set_aside() -> Panel:
    query = over_time("sum", "set_aside", "batch", "agent")
    title = say("被搁置的点(原因：infravitals quarantine)", "Points set aside (why: infravitals quarantine)")
    return course(
        title, [Line(query, "[[tag_agent]]")], Look(_no_batch(), "short", least=0, interval="1m", points=POINTS)
    )


def _health(field: str, take: str = "max") -> Panel:
    query = over_time(take, field, "agent_health", "agent")
    unit = {"_seconds": "s", "_bytes": "bytes", "_ratio": "percentunit"}
    shown = next((name for ending, name in unit.items() if field.endswith(ending)), "short")
    title = field_title("agent_health", field)
    return course(title, [Line(query, "[[tag_agent]]")], Look(_no_word(), shown, least=0, interval="1m", points=POINTS))


def _agents() -> Panel:
    query = (
        'SELECT last("spool_batches_count") AS "spool_batches_count", "spool_oldest_age_seconds", "spool_bytes",'
        ' "resident_bytes", "cpu_ratio", "ledger_dropped_points_count"'
        f' FROM "agent_health" WHERE {SITE} AND $timeFilter GROUP BY "agent"'
    )
    columns = [
        Column("agent", say("采集代理", "Agent")),
        Column("Time", say("最近一次自报", "Last word"), "dateTimeFromNow", width=150),
        Column("spool_batches_count", say("等待的批次", "Batches waiting"), width=140),
        Column("spool_oldest_age_seconds", say("最早的已等", "Oldest waits"), GRAFANA_UNITS["s"], width=120),
        Column("spool_bytes", say("缓存占用", "Spool"), GRAFANA_UNITS["B"], width=110),
        Column("ledger_dropped_points_count", say("丢弃的点", "Points dropped"), width=130, steps=LOST_STEPS),
        Column("resident_bytes", say("内存", "Memory"), GRAFANA_UNITS["B"], width=100),
        Column("cpu_ratio", say("处理器", "Processor"), "percentunit", width=100, decimals=1),
    ]
    title = say("采集代理：谁沉默了(30 天内出现过的)", "Agents: who is silent (of those seen within 30 days)")
    return rows(title, query, columns, Look(_no_word(), span=MONTH))


def _silent() -> Panel:
    query = f'SELECT last("points") AS "points", "set_aside" FROM "batch" WHERE {SITE} AND $timeFilter GROUP BY "agent"'
    columns = [
        Column("agent", say("采集代理", "Agent")),
        Column("Time", say("最近一批生成于", "Last batch made"), "dateTimeFromNow", width=170),
        Column("points", say("点数", "Points"), width=80),
        Column("set_aside", say("搁置", "Set aside"), width=100, steps=LOST_STEPS),
    ]
    return rows(say("最近一批", "The last batch"), query, columns, Look(_no_batch(), span=MONTH))


def _rounds() -> Panel:
    query = (
        f'SELECT mean("is_success") AS "is_success", max("duration_seconds") AS "duration", max("lateness_seconds") AS "lateness"'
        f' FROM "source_round" WHERE {SITE} AND $timeFilter GROUP BY "agent", "source", "target"'
    )
    share = say("成功的轮次", "Rounds that succeeded")
    steps = (Step(None, RED), Step(0.9, AMBER), Step(0.99, GREEN))
    columns = [
        Column("agent", say("采集代理", "Agent")),
        Column("source", say("采集源", "Source")),
        Column("target", say("对象", "Target")),
        Column("is_success", share, "percentunit", width=170, steps=steps, decimals=1),
        Column("duration", say("最久的一轮", "Longest round"), GRAFANA_UNITS["s"], width=130),
        Column("lateness", say("最晚开始", "Latest begin"), GRAFANA_UNITS["s"], width=120),
    ]
    title = say("采集轮次：最差的在前", "Rounds of sources: the worst first")
    return rows(title, query, columns, Look(_no_word()), (share, False))


def _scored() -> Panel:
    query = f'SELECT count("low") FROM "score" WHERE {SITE} AND "node" = \'total\' AND $timeFilter GROUP BY time(1h) fill(0)'
    nothing = say(
        "没有评分：请看采集中心是否在运行(infravitals doctor)",
        "No scorecard: see that the collector runs (infravitals doctor)",
    )
    title = say("每小时的评分(0 为缺)", "Scorecards an hour (0: missing)")
    return course(title, [Line(query, say("评分", "scorecards"))], Look(nothing, "short", least=0, interval="1h"))


def build() -> Dashboard:
    """The dashboard in the language in force."""
    bands = [
        Band("", [Cell(_sums(), 8, 8), Cell(_silent(), 16, 8), Cell(_agents(), 24, 9)]),
        Band(say("流入", "What comes in"), [Cell(_rate(), 8, 8), Cell(_lag(), 8, 8), Cell(_set_aside(), 8, 8)]),
        Band(
            say("缓存与负担", "Spools and load"),
            [
                Cell(_health("spool_batches_count"), 8, 8),
                Cell(_health("spool_oldest_age_seconds"), 8, 8),
                Cell(_health("dropped_points_count", "sum"), 8, 8),
                Cell(_health("cpu_ratio", "mean"), 8, 8),
                Cell(_health("resident_bytes"), 8, 8),
                Cell(_scored(), 8, 8),
            ],
        ),
        Band(say("采集", "Gathering"), [Cell(_rounds(), 24, 10)]),
    ]
    return build_page("pipeline", say("采集链路自身", "The line itself"), bands)
