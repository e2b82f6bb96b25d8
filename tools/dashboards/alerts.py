"""Alert rules over InfluxDB alone. Each says what it asks, when that is bad, and in both languages what to do.

A rule reckons by the server's own clock (`now()` in InfluxQL), so that a Grafana whose clock is off raises no false alarm. Whoever
was there within 30 days and says nothing now counts as 0 reports, not as no data.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import alerting, expr
from grafana_foundation_sdk.models.alerting import RelativeTimeRange, Rule
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from agent.catalogue import Text
from agent.language import Language, speaking
from collector.report import INDICATORS
from dashboards.influx import DATASOURCE_UID, InfluxQuery, InfluxQueryBuilder, one_of
from dashboards.lines import limit
from dashboards.names import book, node_words
from dashboards.readiness import MONTH_SECONDS, SINCE_YESTERDAY

GROUP = "infravitals"
FOLDER_TITLE = "Infravitals"
FOLDER_UID = "infravitals-alerts"

FALL_POINTS = 5
"""More than this since yesterday is a fall."""
SPOOL_SECONDS = 3600

Comparison = Literal["gt", "lt", "within_range"]


class Alert(NamedTuple):
    """One rule. compared: how B, the newest value of the query, is when it is bad. window: how far the query looks back, seconds.

    lasting: how long it must be so. when_empty: what an answer without rows means. summary may name labels and B.
    """

    name: str
    title: Text
    query: str
    compared: tuple[Comparison, Sequence[float]]
    severity: Literal["critical", "warning"]
    lasting: str
    summary: Text
    description: Text
    window: int = 86_400
    when_empty: Literal["OK", "Alerting"] = "OK"


def _reports(measurement: str, field: str, within: str, tags: str, where: str = "") -> str:
    """How many of a measurement's points came within that time, 0 for whoever had one within 30 days."""
    condition = f"{where} AND " if where else ""
    return (
        f'SELECT max("n") AS "n" FROM (SELECT count("{field}") AS "n" FROM "{measurement}"'
        f" WHERE {condition}time > now() - {within} GROUP BY {tags}),"
        f' (SELECT last("{field}") * 0 AS "n" FROM "{measurement}"'
        f" WHERE {condition}time > now() - 30d GROUP BY {tags}) GROUP BY {tags}"
    )


def _watched() -> tuple[str, ...]:
    """The whole index, the two indicators and the eleven."""
    return (
        "total",
        *(place.path for place in book().places() if place.path in INDICATORS or place.parent in INDICATORS),
    )


def _title(language: Language) -> str:
    """The title of the node in the label `node`, as Grafana's templates choose it."""
    with speaking(language):
        titles = {node: shown for node, (shown, _) in node_words().items() if node in _watched()}
    choices = "{{ else if eq $labels.node ".join(f'"{node}" }}}}{title}' for node, title in titles.items())
    return f"{{{{ if eq $labels.node {choices}{{{{ end }}}}"


def _collecting() -> list[Alert]:
    """What the line itself may lack."""
    return [
        Alert(
            "no-data",
            Text("没有数据入库", "No data are stored"),
            _reports("batch", "points", "15m", '"site"'),
            ("lt", [1]),
            "critical",
            "5m",
            Text(
                "院区 {{ $labels.site }} 15 分钟没有数据入库",
                "Nothing of site {{ $labels.site }} was stored within 15 minutes",
            ),
            Text(
                "采集中心、消息服务器或存储停了：infravitals doctor；数据留在各采集代理的缓存里",
                "The collector, the broker or the store is down: infravitals doctor. Data stay in the agents' spools",
            ),
            when_empty="Alerting",
        ),
        Alert(
            "agent-lost",
            Text("采集代理失联", "An agent is lost"),
            _reports("agent_health", "spool_batches_count", "15m", '"site", "agent"'),
            ("lt", [1]),
            "warning",
            "5m",
            Text(
                "采集代理 {{ $labels.agent }}({{ $labels.site }})15 分钟没有自报",
                "Agent {{ $labels.agent }} ({{ $labels.site }}) has said nothing for 15 minutes",
            ),
            Text(
                "停机、断网或磁盘已满：在该机上执行 infravitals-agent doctor -c agent.yaml。静默满 30 天视为退役",
                "Off, cut off, or its disk is full: run infravitals-agent doctor -c agent.yaml there. After 30 days it counts as retired",
            ),
        ),
        Alert(
            "collector-lost",
            Text("采集中心失联", "The collector is lost"),
            _reports("score", "low", "3h", '"site"', "\"node\" = 'total'"),
            ("lt", [1]),
            "critical",
            "10m",
            Text("院区 {{ $labels.site }} 3 小时没有评分", "Site {{ $labels.site }} has had no scorecard for 3 hours"),
            Text(
                "采集中心每小时写一次评分：systemctl status infravitals-collector；infravitals doctor。比这更快的是 Prometheus 的告警(docs/monitoring.md)",
                "A collector writes one every hour: systemctl status infravitals-collector; infravitals doctor. Prometheus' alerts are quicker (docs/monitoring.md)",
            ),
        ),
        Alert(
            "points-set-aside",
            Text("数据被搁置", "Points are set aside"),
            'SELECT sum("set_aside") FROM "batch" WHERE time > now() - 1h GROUP BY "site", "agent"',
            ("gt", [0]),
            "warning",
            "30m",
            Text(
                "采集代理 {{ $labels.agent }}({{ $labels.site }})近一小时被搁置 {{ $values.B }} 点",
                "{{ $values.B }} points of agent {{ $labels.agent }} ({{ $labels.site }}) were set aside within an hour",
            ),
            Text("infravitals quarantine 说明是什么、为何", "infravitals quarantine says which and why"),
        ),
        Alert(
            "spool-waiting",
            Text("数据送不出去", "Data do not get through"),
            'SELECT last("spool_oldest_age_seconds") FROM "agent_health" WHERE time > now() - 15m GROUP BY "site", "agent"',
            ("gt", [SPOOL_SECONDS]),
            "warning",
            "15m",
            Text(
                "采集代理 {{ $labels.agent }}({{ $labels.site }})最早的一批已等待 {{ humanizeDuration $values.B.Value }}",
                "The oldest batch of agent {{ $labels.agent }} ({{ $labels.site }}) has waited for {{ humanizeDuration $values.B.Value }}",
            ),
            Text("请看消息服务器与采集中心的负载", "See the load of broker and collector"),
        ),
    ]


def _scores() -> list[Alert]:
    """What the scores may say."""
    return [
        Alert(
            "score-fallen",
            Text("分数下降", "A score has fallen"),
            'SELECT first("low") - last("low") AS "fall" FROM "score" WHERE "kind" = \'node\''
            f' AND {one_of("node", _watched())} AND time > now() - {SINCE_YESTERDAY} GROUP BY "site", "node"',
            ("gt", [FALL_POINTS]),
            "warning",
            "0s",
            Text(
                f'{{{{ $labels.site }}}} 的“{_title("zh")}”比昨天低 {{{{ printf "%.1f" $values.B.Value }}}} 分',
                f'{_title("en")} of {{{{ $labels.site }}}} is {{{{ printf "%.1f" $values.B.Value }}}} points lower than yesterday',
            ),
            Text(
                "“医院就绪度”仪表板列出变了的准则；infravitals diff 说明原因",
                "The readiness dashboard lists the criteria that changed; infravitals diff says why",
            ),
            window=90_000,
        ),
        Alert(
            "attestation-ending",
            Text("证明将到期或已到期", "An attestation ends or has ended"),
            'SELECT last("left_seconds") FROM "score" WHERE "kind" = \'criterion\' AND time > now() - 25h GROUP BY "site", "node"',
            ("within_range", [-MONTH_SECONDS, MONTH_SECONDS]),
            "warning",
            "0s",
            Text(
                "{{ $labels.site }} 的证明 {{ $labels.node }} 30 天内到期，或到期未满 30 天",
                "The attestation {{ $labels.node }} of {{ $labels.site }} ends within 30 days, or did within the last 30",
            ),
            Text("核对之后续期：infravitals attest add", "Look at it and renew: infravitals attest add"),
            window=90_000,
        ),
    ]


def _network() -> list[Alert]:
    """What isolation and lines may lack."""
    cell = '"site", "from_zone", "to_zone", "protocol", "port"'
    return [
        Alert(
            "isolation-broken",
            Text("隔离被突破", "Isolation is broken"),
            f'SELECT last("is_breached") FROM "isolation_cell" WHERE time > now() - 1d GROUP BY {cell}, "asset"',
            ("gt", [0]),
            "critical",
            "0s",
            Text(
                "{{ $labels.site }}：{{ $labels.from_zone }} 到 {{ $labels.to_zone }} 的 {{ $labels.protocol }}/{{ $labels.port }} 应当阻断却到达了",
                "{{ $labels.site }}: {{ $labels.protocol }}/{{ $labels.port }} from {{ $labels.from_zone }} to {{ $labels.to_zone }} got through although it must not",
            ),
            Text(
                "请核对两区之间的防火墙规则(docs/isolation.md)",
                "See the firewall rules between the two (docs/isolation.md)",
            ),
        ),
        Alert(
            "line-down",
            Text("线路中断", "A line is down"),
            'SELECT max("is_up") FROM "line" WHERE time > now() - 5m GROUP BY "site", "line"',
            ("lt", [1]),
            "critical",
            "0s",
            Text(
                "{{ $labels.site }} 的线路 {{ $labels.line }} 5 分钟不通",
                "Line {{ $labels.line }} of {{ $labels.site }} has been down for 5 minutes",
            ),
            Text(
                "请联系运营商，并启用备用通道(docs/paths.md)", "Call the provider and use the fallback (docs/paths.md)"
            ),
        ),
        _path(
            "line-slow",
            "one_way_delay_seconds",
            Text("单向时延", "delay one way"),
            Text("路径时延超限", "A path is too slow"),
        ),
        _path(
            "line-unsteady",
            "jitter_seconds",
            Text("抖动", "variation of the delay"),
            Text("路径抖动超限", "A path is unsteady"),
        ),
        _path("line-lossy", "loss_ratio", Text("丢包率", "loss"), Text("路径丢包超限", "A path loses packets")),
    ]


def _path(name: str, field: str, what: Text, title: Text) -> Alert:
    most = limit(field)
    return Alert(
        name,
        title,
        f'SELECT mean("{field}") FROM "path_probe" WHERE time > now() - 15m GROUP BY "site", "target", "probe"',
        ("gt", [most]),
        "warning",
        "5m",
        Text(
            f'{{{{ $labels.site }}}}：{{{{ $labels.probe }}}} 到 {{{{ $labels.target }}}} 的{what.zh} 15 分钟平均 {{{{ printf "%.4f" $values.B.Value }}}}，上限 {most:g}',
            f'{{{{ $labels.site }}}}: {what.en} from {{{{ $labels.probe }}}} to {{{{ $labels.target }}}} is {{{{ printf "%.4f" $values.B.Value }}}} on average of 15 minutes, more than {most:g}',
        ),
        Text(
            "分段测试，找出拥塞或误码处(docs/paths.md)",
            "Test section by section for congestion or errors (docs/paths.md)",
        ),
    )


def alerts() -> list[Alert]:
    """All rules."""
    return [*_collecting(), *_scores(), *_network()]


def rule(alert: Alert) -> Rule:
    """The rule as Grafana knows it: A asks, B takes the newest value, C compares it."""
    comparison, numbers = alert.compared
    evaluator = (
        expr.ExprTypeThresholdConditionsEvaluator().type(comparison).params([float(number) for number in numbers])
    )
    server_side = DataSourceRef("__expr__", "__expr__")
    reduced = expr.TypeReduce().ref_id("B").expression("A").reducer("last").datasource(server_side)
    compared = (
        expr.TypeThreshold()
        .ref_id("C")
        .expression("B")
        .datasource(server_side)
        .conditions([expr.ExprTypeThresholdConditions().evaluator(evaluator)])
    )
    asked = InfluxQueryBuilder(InfluxQuery(alert.query, "A", "time_series"))
    window, none = RelativeTimeRange(alert.window, 0), RelativeTimeRange(0, 0)
    return (
        alerting.Rule(f"{alert.title.zh} · {alert.title.en}")
        .uid(f"infravitals-{alert.name}")
        .folder_uid(FOLDER_UID)
        .rule_group(GROUP)
        .condition("C")
        .with_query(alerting.Query("A").datasource_uid(DATASOURCE_UID).relative_time_range(window).model(asked))
        .with_query(alerting.Query("B").datasource_uid("__expr__").relative_time_range(none).model(reduced))
        .with_query(alerting.Query("C").datasource_uid("__expr__").relative_time_range(none).model(compared))
        .no_data_state(alert.when_empty)
        .exec_err_state("Error")
        .for_val(alert.lasting)
        .labels({"severity": alert.severity, "product": "infravitals"})
        .annotations(
            {
                "summary": alert.summary.zh,
                "summary_en": alert.summary.en,
                "description": alert.description.zh,
                "description_en": alert.description.en,
            }
        )
        .is_paused(False)
        .build()
    )
