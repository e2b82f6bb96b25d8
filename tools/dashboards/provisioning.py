"""The files that Grafana reads at its start: data source, dashboards, alert rules; and examples of who is told of alerts."""

import io
import json
from collections.abc import Mapping

from grafana_foundation_sdk.builders import alerting
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from ruamel.yaml import YAML

from dashboards.alerts import FOLDER_TITLE, GROUP, alerts, rule
from dashboards.influx import DATASOURCE_UID

DASHBOARDS = "/var/lib/grafana/infravitals/dashboards"
"""Where the dashboards are put on the machine of Grafana."""
PASSWORD_FILE = "/etc/grafana/infravitals-influx.password"
TOKEN_FILE = "/etc/grafana/infravitals-influx.token"

_MADE = "由 make pages 生成，请勿手改。Made by make pages; do not edit."


def files() -> Mapping[str, str]:
    """Path below deploy/grafana -> its content."""
    return {
        "provisioning/datasources/infravitals.yaml": _datasource(_ON_1, {"password": f"$__file{{{PASSWORD_FILE}}}"}),
        "provisioning/dashboards/infravitals.yaml": _dashboards(),
        "provisioning/alerting/infravitals.yaml": _rules(),
        "examples/datasource-influxdb-2.yaml": _datasource(
            _ON_2, {"httpHeaderValue1": f"Token $__file{{{TOKEN_FILE}}}"}, httpHeaderName1="Authorization"
        ),
        "examples/contact-points.yaml": _contact_points(),
        "examples/notification-policies.yaml": _policies(),
    }


_ON_1 = """\
InfluxDB 1.x。环境变量由 Grafana 的服务提供；密码单独一个文件，只有 grafana 用户可读，其中不能有 $。
InfluxDB 1.x. The variables come from Grafana's service; the password is a file that only the user grafana may read, without any $ in it."""
_ON_2 = """\
InfluxDB 2.x 的数据源(仍用 InfluxQL)：代替 provisioning/datasources 里的那一个。令牌文件只有 grafana 用户可读。
The data source for InfluxDB 2.x (InfluxQL too), instead of the one in provisioning/datasources. Only the user grafana may read the token's file."""


def _datasource(about: str, secrets: Mapping[str, str], **more: str) -> str:
    source: dict[str, object] = {
        "name": "Infravitals",
        "uid": DATASOURCE_UID,
        "orgId": 1,
        "type": "influxdb",
        "access": "proxy",
        "url": "$INFRAVITALS_INFLUX_URL",
        "editable": False,
    }
    if not more:
        source["user"] = "$INFRAVITALS_INFLUX_USER"
    source["jsonData"] = {
        "version": "InfluxQL",
        "dbName": "$INFRAVITALS_INFLUX_DATABASE",
        "httpMode": "POST",
        "timeInterval": "15s",
        "maxSeries": 10_000,
        **more,
    }
    source["secureJsonData"] = dict(secrets)
    return _yaml(about, {"apiVersion": 1, "datasources": [source]})


def _dashboards() -> str:
    folders = {"zh": "医院基础设施", "en": "Hospital infrastructure"}
    providers = [
        {
            "name": f"infravitals-{language}",
            "orgId": 1,
            "folder": title,
            "folderUid": f"infravitals-{language}",
            "type": "file",
            "disableDeletion": True,
            "allowUiUpdates": False,
            "updateIntervalSeconds": 60,
            "options": {"path": f"{DASHBOARDS}/{language}"},
        }
        for language, title in folders.items()
    ]
    about = "把 dashboards/ 拷到下面的 path；不要的语言删去一段。Copy dashboards/ to the paths below; take out a language that nobody reads."
    return _yaml(about, {"apiVersion": 1, "providers": providers})


_KEYS = ("uid", "title", "condition", "data", "noDataState", "execErrState", "for", "annotations", "labels", "isPaused")
"""Of a rule what a file may say; where it stands is said by its group."""


def _rules() -> str:
    known = [json.loads(json.dumps(rule(alert), cls=JSONEncoder)) for alert in alerts()]
    group = {
        "orgId": 1,
        "name": GROUP,
        "folder": FOLDER_TITLE,
        "interval": "1m",
        "rules": [{key: one[key] for key in _KEYS} for one in known],
    }
    about = "告警规则，含义见 docs/grafana.md。Alert rules; what they mean: docs/grafana.md."
    return _yaml(about, {"apiVersion": 1, "groups": [group]})


_NOT_YET = """\
示例，地址是假的(.invalid 永远解析不了)：改成本院的，再拷到 Grafana 的 provisioning/alerting。
An example whose addresses are false (.invalid never resolves): write your own, then copy it into Grafana's provisioning/alerting."""


def _contact_points() -> str:
    webhook = {"url": "https://replace-me.invalid/infravitals", "httpMethod": "POST"}
    mail = {"addresses": "replace-me@hospital.invalid", "singleEmail": False}
    receivers = [
        {"uid": "infravitals-webhook", "type": "webhook", "settings": webhook, "disableResolveMessage": False},
        {"uid": "infravitals-email", "type": "email", "settings": mail, "disableResolveMessage": False},
    ]
    point = {"orgId": 1, "name": GROUP, "receivers": receivers}
    return _yaml(_NOT_YET, {"apiVersion": 1, "contactPoints": [point]})


_WHOLE_TREE = """\
示例：Grafana 每个组织只有一棵通知策略树，这个文件会整个取代它。已有策略的，请只把 routes 里的这一段并入自己的。
An example. Grafana has one tree of policies for an organisation, and this file replaces all of it: where there is one already, take over only the route."""


def _policies() -> str:
    grouped = ["grafana_folder", "alertname", "site"]
    urgent = alerting.NotificationPolicy().receiver(GROUP).object_matchers([["severity", "=", "critical"]])
    urgent = urgent.group_by(grouped).group_wait("30s").group_interval("5m").repeat_interval("1h")
    route = alerting.NotificationPolicy().receiver(GROUP).object_matchers([["product", "=", "infravitals"]])
    route = route.group_by(grouped).group_wait("1m").group_interval("10m").repeat_interval("12h").routes([urgent])
    root = alerting.NotificationPolicy().receiver(GROUP).group_by(["grafana_folder", "alertname"]).routes([route])
    tree = json.loads(json.dumps(root.build(), cls=JSONEncoder))
    return _yaml(_WHOLE_TREE, {"apiVersion": 1, "policies": [{"orgId": 1, **tree}]})


def _yaml(about: str, document: Mapping[str, object]) -> str:
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    yaml.dump(dict(document), text)
    return "".join(f"# {line}\n" for line in [_MADE, *about.splitlines()]) + text.getvalue()
