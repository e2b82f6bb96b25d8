"""Leased and telemedicine lines: whether they are there, and delay, loss and variation against the scales' limits."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import say
from dashboards.influx import SITE, over_time
from dashboards.names import AVAILABLE_STEPS, GRAFANA_UNITS, book, unit_of, yes_no
from dashboards.page import Band, Cell, build_page
from dashboards.panels import AMBER, GREEN, RED, Column, Line, Look, Step, course, figures, rows, states

LIMITS = {
    "one_way_delay_seconds": "telemed-delay-p95",
    "jitter_seconds": "telemed-jitter",
    "loss_ratio": "telemed-loss",
}
"""Field of path_probe -> the scale whose limits it is held against."""


def limit(field: str) -> float:
    """What a line must not pass: the second rung of its scale, as good as most standards ask."""
    return book().scales[LIMITS[field]].rungs[1].at


def _best(field: str) -> float:
    return book().scales[LIMITS[field]].rungs[0].at


def _no_line() -> str:
    return say(
        "没有专线的采集：在采集源 path_probe 里写 lines(docs/paths.md)",
        "No line is watched: write lines into the source path_probe (docs/paths.md)",
    )


def _no_path() -> str:
    return say(
        "没有路径探测：启用采集源 path_probe；单向时延与抖动要有对端 path_reflector(docs/paths.md)",
        "No path is probed: switch on the source path_probe; delay and variation one way need a path_reflector (docs/paths.md)",
    )


def _available() -> Panel:
    query = f'SELECT mean("is_up") FROM "line" WHERE {SITE} AND $timeFilter GROUP BY "line"'
    look = Look(_no_line(), "percentunit", decimals=3, most=1, steps=AVAILABLE_STEPS)
    return figures(say("所选时间内的可用率", "Availability in this time"), [Line(query, "[[tag_line]]")], look)


def _lines() -> Panel:
    query = (
        'SELECT last("is_up") AS "is_up", "live_routes_count", "has_tested_fallback", "committed_bits_per_second"'
        f' FROM "line" WHERE {SITE} AND $timeFilter GROUP BY "line", "asset"'
    )
    columns = [
        Column("line", say("线路", "Line")),
        Column("is_up", say("通", "Up"), words=yes_no(), width=80),
        Column("live_routes_count", say("可用的运营商", "Live providers"), width=130),
        Column("has_tested_fallback", say("备用通道可用", "Tested fallback"), words=yes_no(), width=140),
        Column(
            "committed_bits_per_second", say("保障带宽", "Committed"), unit_of("committed_bits_per_second"), width=120
        ),
        Column("asset", say("由谁探测", "Probed by")),
        Column("Time", say("最近一次", "Last seen"), "dateTimeFromNow", width=140),
    ]
    return rows(say("线路", "Lines"), query, columns, Look(_no_line()))


def _up() -> Panel:
    query = over_time("min", "is_up", "line", "line")
    look = Look(_no_line(), words=yes_no(), steps=(Step(None, RED), Step(1, GREEN)), interval="1m")
    return states(say("线路是否通", "Whether lines are up"), [Line(query, "[[tag_line]]")], look)


def _path(field: str, title: str) -> Panel:
    query = over_time("max", field, "path_probe", "target", "probe")
    look = Look(_no_path(), unit_of(field), least=0, interval="1m")
    limits = (Step(None, "transparent"), Step(_best(field), AMBER), Step(limit(field), RED))
    return course(title, [Line(query, "[[tag_target]] · [[tag_probe]]")], look, limits)


def _reachable() -> Panel:
    query = (
        f'SELECT mean("is_reachable") AS "reachable", mean("rtt_seconds") AS "rtt", max("loss_ratio") AS "loss",'
        f' max("jitter_seconds") AS "jitter", max("one_way_delay_seconds") AS "delay"'
        f' FROM "path_probe" WHERE {SITE} AND $timeFilter GROUP BY "target", "probe"'
    )
    columns = [
        Column("target", say("对象", "Target")),
        Column("probe", say("探测点", "Probe")),
        Column("reachable", say("可达率", "Reachable"), "percentunit", width=100, steps=AVAILABLE_STEPS, decimals=3),
        Column("rtt", say("平均往返", "Mean round trip"), GRAFANA_UNITS["s"], width=140),
        Column("delay", say("最大单向时延", "Worst delay one way"), GRAFANA_UNITS["s"], width=170),
        Column("jitter", say("最大抖动", "Worst variation"), GRAFANA_UNITS["s"], width=140),
        Column("loss", say("最大丢包率", "Worst loss"), "percentunit", width=110),
    ]
    return rows(say("每条路径", "Every path"), query, columns, Look(_no_path()))


def build() -> Dashboard:
    """The dashboard in the language in force."""
    bands = [
        Band("", [Cell(_available(), 8, 7), Cell(_lines(), 16, 7), Cell(_up(), 24, 6)]),
        Band(
            say("质量(虚线：标尺的满分线与次级线)", "Quality (dashed: the scale's best and second rung)"),
            [
                Cell(
                    _path("one_way_delay_seconds", say("单向时延(每段最大)", "Delay one way (worst of each span)")),
                    8,
                    9,
                ),
                Cell(_path("jitter_seconds", say("抖动(每段最大)", "Variation (worst of each span)")), 8, 9),
                Cell(_path("loss_ratio", say("丢包率(每段最大)", "Loss (worst of each span)")), 8, 9),
                Cell(_reachable(), 24, 9),
            ],
        ),
    ]
    return build_page("lines", say("专线与路径", "Lines and paths"), bands)
