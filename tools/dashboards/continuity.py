"""Services: whether they work, how they failed, how long it took, and what drills came to."""

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import say
from dashboards.influx import SITE, over_time
from dashboards.names import AVAILABLE_STEPS, GRAFANA_UNITS, LOST_STEPS, plain_yes_no, yes_no
from dashboards.page import Band, Cell, build_page
from dashboards.panels import BLUE, GREEN, RED, Column, Line, Look, Step, course, figures, rows, states

YEAR = "365d"


def _no_drill() -> str:
    return say(
        "一年内没有切换或演练的记录：infravitals drill 可按计划做一次(docs/failover.md)",
        "No switchover and no drill within a year: infravitals drill conducts one by a plan (docs/failover.md)",
    )


def _no_probe() -> str:
    return say(
        "没有业务拨测：启用采集源 continuity_probe，或给 path_probe 的目标写上 service(docs/failover.md)",
        "No service is probed: switch on the source continuity_probe, or name a service of a target of path_probe (docs/failover.md)",
    )


def _worst(field: str, title: str) -> Panel:
    query = f'SELECT max("{field}") FROM "drill" WHERE {SITE} AND $timeFilter GROUP BY "service"'
    look = Look(_no_drill(), GRAFANA_UNITS["s"], steps=(Step(None, BLUE),), span=YEAR)
    return figures(title, [Line(query, "[[tag_service]]")], look)


def _available() -> Panel:
    query = f'SELECT mean("is_up") FROM "service_probe" WHERE {SITE} AND $timeFilter GROUP BY "service"'
    look = Look(_no_probe(), "percentunit", decimals=3, most=1, steps=AVAILABLE_STEPS)
    return figures(say("所选时间内的可用率", "Availability in this time"), [Line(query, "[[tag_service]]")], look)


def _outages() -> Panel:
    query = (
        'SELECT "duration_seconds", "is_automatic", "lost_tokens_count", "service", "asset" FROM "outage"'
        f" WHERE {SITE} AND $timeFilter ORDER BY time DESC LIMIT 500"
    )
    columns = [
        Column("Time", say("恢复于", "Ended"), "dateTimeAsIso", width=180),
        Column("service", say("业务", "Service")),
        Column("duration_seconds", say("中断时间", "Lasted"), GRAFANA_UNITS["s"], width=120),
        Column("is_automatic", say("自动恢复", "By itself"), words=yes_no(), width=110),
        Column("lost_tokens_count", say("丢失的已确认写入", "Acknowledged writes lost"), width=190, steps=LOST_STEPS),
        Column("asset", say("由谁拨测", "Probed by")),
    ]
    nothing = say(
        "一年内没有业务中断的记录(须有业务拨测才算数)",
        "No outage within a year (which means something only if services are probed)",
    )
    return rows(say("业务中断(一年)", "Outages (a year)"), query, columns, Look(nothing, span=YEAR))


def _drills() -> Panel:
    fields = '"rto_seconds", "rpo_seconds", "lost_tokens_count", "is_passed", "is_planned", "is_automatic"'
    query = (
        f'SELECT {fields}, "service", "drill" FROM "drill" WHERE {SITE} AND $timeFilter ORDER BY time DESC LIMIT 500'
    )
    columns = [
        Column("Time", say("时刻", "When"), "dateTimeAsIso", width=180),
        Column("service", say("业务", "Service")),
        Column("drill", say("演练或事件", "Drill or event")),
        Column("is_planned", say("计划内", "Planned"), words=plain_yes_no(), width=90),
        Column("is_passed", say("切走并切回", "Moved and came back"), words=yes_no(), width=150),
        Column("is_automatic", say("无人干预", "No person needed"), words=yes_no(), width=130),
        Column("rto_seconds", say("恢复时间 RTO", "RTO"), GRAFANA_UNITS["s"], width=120),
        Column("rpo_seconds", say("数据丢失 RPO", "RPO"), GRAFANA_UNITS["s"], width=120),
        Column("lost_tokens_count", say("丢失的已确认写入", "Acknowledged writes lost"), width=190, steps=LOST_STEPS),
    ]
    return rows(
        say("切换与演练(一年)", "Switchovers and drills (a year)"), query, columns, Look(_no_drill(), span=YEAR)
    )


def _up() -> Panel:
    query = over_time("min", "is_up", "service_probe", "service", "probe")
    look = Look(_no_probe(), words=yes_no(), steps=(Step(None, RED), Step(1, GREEN)), interval="1m")
    return states(say("业务是否可用", "Whether services work"), [Line(query, "[[tag_service]] · [[tag_probe]]")], look)


def _latency() -> Panel:
    query = over_time("max", "latency_seconds", "service_probe", "service")
    look = Look(_no_probe(), GRAFANA_UNITS["s"], least=0, interval="1m")
    return course(say("最慢的应答", "The slowest answer"), [Line(query, "[[tag_service]]")], look)


def _replication() -> Panel:
    query = over_time("max", "lag_seconds", "replication", "pair")
    nothing = say(
        "没有数据复制的采集：启用 postgresql_replication、mysql_replication、oracle_dataguard、sqlserver_alwayson 或 drbd",
        "No replication is gathered: switch on postgresql_replication, mysql_replication, oracle_dataguard, sqlserver_alwayson or drbd",
    )
    look = Look(nothing, GRAFANA_UNITS["s"], least=0, interval="1m")
    return course(
        say("复制落后多少(此刻出事会丢多少)", "How far replication is behind"), [Line(query, "[[tag_pair]]")], look
    )


def build() -> Dashboard:
    """The dashboard in the language in force."""
    bands = [
        Band(
            "",
            [
                Cell(_worst("rto_seconds", say("一年内最长的恢复时间 RTO", "Longest recovery in a year (RTO)")), 8, 5),
                Cell(_worst("rpo_seconds", say("一年内最多的数据丢失 RPO", "Most data lost in a year (RPO)")), 8, 5),
                Cell(_available(), 8, 5),
            ],
        ),
        Band("", [Cell(_drills(), 24, 9), Cell(_outages(), 24, 9)]),
        Band(say("随时间", "Over time"), [Cell(_up(), 24, 8), Cell(_latency(), 12, 8), Cell(_replication(), 12, 8)]),
    ]
    return build_page("continuity", say("业务中断与演练", "Outages and drills"), bands, start="now-7d")
