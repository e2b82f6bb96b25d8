"""One asset: every signal of it that there is, in the catalogue's words and units."""

from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from agent.language import say
from dashboards.influx import SITE
from dashboards.names import field_title, measurement_title, plain_yes_no, unit_of, yes_no
from dashboards.page import Band, Cell, Variables, build_page
from dashboards.panels import GREEN, NO_WORDS, RED, Column, Line, Look, Step, Words, course, rows, states

OF_ASSET = f"{SITE} AND \"asset\" = '$asset' AND $timeFilter"


class Signals(NamedTuple):
    """Fields of one measurement that are drawn together; tags: what tells the series of one asset apart."""

    measurement: str
    fields: Sequence[str]
    tags: Sequence[str] = ()


COURSES = (
    Signals("host_cpu", ("busy_ratio", "iowait_ratio", "steal_ratio")),
    Signals("host_memory", ("used_ratio", "swap_used_ratio")),
    Signals("filesystem", ("used_ratio",), ("mount",)),
    Signals("disk_device", ("busy_ratio",), ("device",)),
    Signals("net_interface", ("in_bits_per_second", "out_bits_per_second"), ("interface",)),
    Signals("net_interface", ("busy_ratio", "error_ratio", "discard_ratio"), ("interface",)),
    Signals("device_load", ("cpu_busy_ratio", "memory_used_ratio"), ("component",)),
    Signals("sensor", ("value_celsius",), ("sensor",)),
    Signals("host_clock", ("offset_seconds",)),
    Signals("host_uptime", ("uptime_seconds",)),
    Signals("power_supply", ("runtime_seconds",), ("ups",)),
    Signals("power_supply", ("charge_ratio",), ("ups",)),
    Signals("storage_pool", ("used_ratio",), ("pool",)),
    Signals("replication", ("lag_seconds",), ("pair",)),
    Signals("backup_copy", ("age_seconds",), ("system", "copy")),
    Signals("poll", ("rtt_seconds",), ("target",)),
)

GOOD_STATES = (
    Signals("net_interface", ("is_up",), ("interface",)),
    Signals("redundant_group", ("is_redundant",), ("kind", "group")),
    Signals("filesystem", ("is_responding",), ("mount",)),
    Signals("disk_device", ("is_healthy",), ("device",)),
    Signals("sensor", ("is_healthy",), ("sensor",)),
    Signals("service_unit", ("is_active",), ("unit",)),
    Signals("replication", ("is_in_sync",), ("pair",)),
    Signals("poll", ("is_answering",), ("target",)),
)
"""States of which 1 is right."""
PLAIN_STATES = (Signals("role_group", ("is_master",), ("kind", "group")),)
"""States of which neither is better."""


def _nothing(measurement: str) -> str:
    name = measurement_title(measurement)
    return say(
        f"这个资产没有上报：{name}。若应当有，请在采集代理的配置里启用相应的采集源(infravitals-agent try)",
        f"This asset does not report: {name}. If it should, switch its source on in the agent's configuration (infravitals-agent try)",
    )


def _lines(signals: Signals, take: str, fill: str) -> list[Line]:
    """One query for each field, grouped by the tags."""
    groups = "".join(f', "{tag}"' for tag in signals.tags)
    names = " ".join(f"[[tag_{tag}]]" for tag in signals.tags)
    return [
        Line(
            f'SELECT {take}("{field}") FROM "{signals.measurement}" WHERE {OF_ASSET}'
            f" GROUP BY time($__interval){groups} fill({fill})",
            f"{names} {field_title(signals.measurement, field)}".strip()
            if len(signals.fields) > 1
            else names or field_title(signals.measurement, field),
        )
        for field in signals.fields
    ]


def _title(signals: Signals) -> str:
    title = measurement_title(signals.measurement)
    return (
        f"{title}{say('：', ': ')}{field_title(signals.measurement, signals.fields[0])}"
        if len(signals.fields) == 1
        else title
    )


def _course(signals: Signals) -> Panel:
    unit = unit_of(signals.fields[0])
    most = 1.0 if unit == "percentunit" else None
    look = Look(_nothing(signals.measurement), unit, least=0 if unit != "s" else None, most=most, interval="15s")
    return course(_title(signals), _lines(signals, "mean", "none"), look)


def _states(signals: Signals, words: Words) -> Panel:
    steps = (Step(None, RED), Step(1, GREEN)) if words is not NO_WORDS else ()
    look = Look(_nothing(signals.measurement), words=words, steps=steps, interval="1m")
    return states(_title(signals), _lines(signals, "last", "none"), look)


def _sources() -> Panel:
    query = (
        'SELECT last("is_success") AS "is_success", "duration_seconds", "interval_seconds", "points_count"'
        f' FROM "source_round" WHERE {OF_ASSET} GROUP BY "agent", "source", "target"'
    )
    columns = [
        Column("source", say("采集源", "Source")),
        Column("agent", say("采集代理", "Agent")),
        Column("target", say("对象", "Target")),
        Column("is_success", say("最近一轮成功", "Last round succeeded"), words=yes_no(), width=160),
        Column("Time", say("最近一轮", "Last round"), "dateTimeFromNow", width=140),
        Column("duration_seconds", say("耗时", "Took"), "s", width=90),
        Column("interval_seconds", say("间隔", "Interval"), "s", width=90),
        Column("points_count", say("点数", "Points"), width=80),
    ]
    nothing = say(
        "这个资产在所选时间里没有任何采集：请看它的采集代理(infravitals-agent doctor)、网页上的“采集代理”",
        "Nothing was gathered of this asset in this time: see its agent (infravitals-agent doctor) and the page's list of agents",
    )
    return rows(say("谁在采集它", "Who gathers it"), query, columns, Look(nothing))


def _facts() -> Panel:
    facts = ("system_name", "vendor", "model", "os_name", "os_version", "hypervisor", "cores_count", "memory_bytes")
    selected = ", ".join(f'last("{fact}") AS "{fact}"' for fact in facts)
    columns = [Column(fact, field_title("asset_info", fact), unit_of(fact)) for fact in facts]
    query = f'SELECT {selected} FROM "asset_info" WHERE {SITE} AND "asset" = \'$asset\' AND $timeFilter'
    return rows(measurement_title("asset_info"), query, columns, Look(_nothing("asset_info"), span="8d"))


def _events() -> Panel:
    query = f'SELECT "has_begun", "kind", "notification", "part" FROM "device_event" WHERE {OF_ASSET} ORDER BY time DESC LIMIT 200'
    columns = [
        Column("Time", say("时刻", "When"), "dateTimeAsIso", width=180),
        Column("kind", say("种类", "Kind"), width=120),
        Column("notification", say("通知", "Notification")),
        Column("part", say("部件", "Part")),
        Column("has_begun", say("发生", "Has begun"), words=plain_yes_no(), width=90),
    ]
    nothing = say(
        "所选时间里没有事件；设备的通知由采集源 snmp_trap 接收",
        "No events in this time; the source snmp_trap takes in what devices tell",
    )
    return rows(measurement_title("device_event"), query, columns, Look(nothing))


def build() -> Dashboard:
    """The dashboard in the language in force."""
    bands = [
        Band("", [Cell(_facts(), 24, 4), Cell(_sources(), 24, 8)]),
        Band(say("数值", "Numbers"), [Cell(_course(one), 8, 8) for one in COURSES]),
        Band(
            say("状态", "States"),
            [
                *(Cell(_states(one, yes_no()), 8, 6) for one in GOOD_STATES),
                *(Cell(_states(one, plain_yes_no()), 8, 6) for one in PLAIN_STATES),
            ],
        ),
        Band(say("事件", "Events"), [Cell(_events(), 24, 8)]),
    ]
    return build_page("asset", say("资产", "An asset"), bands, Variables(zone="register", asset=True))
