"""The texts of a site's configuration files; what is secret in them is named by its file, never written."""

import json
from collections.abc import Iterator
from pathlib import Path

from collector.setup.site import (
    BROKER_PID,
    DATABASE,
    GRAFANA_ADMIN,
    GRAFANA_READER,
    GRAFANA_USER,
    INFLUX_USER,
    SiteMade,
    data_folder,
)

ORGANISATION = "hospital"
SHIPPED_SITE = "my-hospital"
GRAFANA_HOME = "/var/lib/grafana/infravitals/"
"""Where the shipped files say that dashboards lie."""


def shipped_folder() -> Path:
    """`deploy/`, which lies in the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent.parent / "deploy"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "deploy"


def shipped(name: str) -> str:
    """A file of `deploy/`."""
    return (shipped_folder() / name).read_text("utf-8")


def broker_configuration(folder: Path, made: SiteMade) -> str:
    """mosquitto.conf as it is shipped, with this site's paths, port and user."""
    home = folder.absolute()
    text = shipped("mosquitto/mosquitto.conf").replace("/etc/mosquitto/", f"{home}/mosquitto/")
    text = text.replace("\nlistener 8883\n", f"\nlistener {made.broker_port} {made.broker_address}\n")
    return f"""{text}
# ---- 本站点 this site ----

# 重新加载时用 / whom a reload tells
pid_file {home}/{BROKER_PID}

# 由 root 启动时改用这个用户 / started by root it becomes this user
user {made.owner}
"""


def broker_rights(made: SiteMade) -> str:
    """infravitals.acl as it is shipped, for this site."""
    lines = shipped("mosquitto/infravitals.acl").splitlines(keepends=True)
    return "".join(line if line.startswith("#") else line.replace(SHIPPED_SITE, made.site) for line in lines)


def influx_configuration(folder: Path, made: SiteMade) -> str:
    """influxdb.conf of 1.x: on loopback, with passwords, telling nobody."""
    data = data_folder(folder, made) / "influxdb"
    return f"""# InfluxDB 1.x(Debian 的 influxdb)/ of Debian: influxd -config {folder.absolute()}/influxdb/influxdb.conf
reporting-disabled = true
bind-address = "127.0.0.1:{made.influx_port + 2}"

[meta]
  dir = "{data}/meta"

[data]
  dir = "{data}/data"
  wal-dir = "{data}/wal"
  index-version = "tsi1"
  query-log-enabled = false
  max-series-per-database = 0

[http]
  bind-address = "127.0.0.1:{made.influx_port}"
  auth-enabled = true
  log-enabled = false

[monitor]
  store-enabled = false
"""


def influx_environment() -> str:
    """The environment of InfluxDB 2 in its container; the files are secrets of the compose file."""
    return f"""# InfluxDB 2 的容器 / the container of InfluxDB 2
DOCKER_INFLUXDB_INIT_MODE=setup
DOCKER_INFLUXDB_INIT_USERNAME=admin
DOCKER_INFLUXDB_INIT_ORG={ORGANISATION}
DOCKER_INFLUXDB_INIT_BUCKET={DATABASE}
DOCKER_INFLUXDB_INIT_RETENTION=0
DOCKER_INFLUXDB_INIT_PASSWORD_FILE=/run/secrets/influx-admin-password
DOCKER_INFLUXDB_INIT_ADMIN_TOKEN_FILE=/run/secrets/influx-admin-token
INFLUXD_REPORTING_DISABLED=true
"""


def compose_environment(folder: Path, made: SiteMade, agent: str, owner: str) -> str:
    """compose.env: what deploy/compose/compose.yaml has to be told. owner: uid:gid of whose the site is."""
    return f"""# docker compose --env-file {folder.absolute()}/compose.env -f deploy/compose/compose.yaml up -d
COMPOSE_PROJECT_NAME=infravitals
SITE={folder.absolute()}
SITE_HOST={made.hosts[0]}
OWNER={owner}
AGENT={agent}
BROKER_PORT={made.broker_port}
INFLUX_PORT={made.influx_port}
GRAFANA_PORT={made.grafana_port}
PAGE_PORT={made.page_port}
"""


def grafana_configuration(folder: Path, made: SiteMade) -> str:
    """grafana.ini: a random administrator, nobody else, nothing told to anybody."""
    home = folder.absolute()
    return f"""; grafana server --config {home}/grafana/grafana.ini --homepath /usr/share/grafana
[paths]
data = {data_folder(folder, made)}/grafana
logs = {data_folder(folder, made)}/grafana/log
provisioning = {home}/grafana/provisioning

[server]
http_addr = 127.0.0.1
http_port = {made.grafana_port}

[security]
admin_user = admin
admin_password = $__file{{{home}/{GRAFANA_ADMIN}}}
cookie_samesite = strict
disable_gravatar = true

[users]
allow_sign_up = false
default_language = zh-Hans

[auth.anonymous]
enabled = false

[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false

[snapshots]
external_enabled = false
"""


def grafana_source(folder: Path, made: SiteMade) -> str:
    """The data source: InfluxQL, with an identity that may only read."""
    return f"""# InfluxDB，只读身份 / with an identity that may only read
apiVersion: 1
datasources:
  - name: Infravitals
    uid: infravitals
    orgId: 1
    type: influxdb
    access: proxy
    isDefault: true
    editable: false
    url: http://{"influxdb" if made.influx == "2" else "127.0.0.1"}:{made.influx_port}
    user: {GRAFANA_USER}
    jsonData:
      version: InfluxQL
      dbName: {DATABASE}
      httpMode: POST
      timeInterval: 15s
      maxSeries: 10000
    secureJsonData:
      password: $__file{{{folder.absolute()}/{GRAFANA_READER}}}
"""


def grafana_pages(shipped_grafana: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Dashboards and alert rules as they are shipped, as (name, text); what says where they lie says it for this site."""
    for below in ("provisioning/dashboards", "provisioning/alerting", "dashboards"):
        for path in sorted((shipped_grafana / below).rglob("*.*")):
            text = path.read_text("utf-8").replace(GRAFANA_HOME, f"{folder.absolute()}/grafana/")
            yield f"grafana/{path.relative_to(shipped_grafana)}", text


def collector_configuration(made: SiteMade, share_group: str, password_scrypt: str) -> str:
    """collector.yaml; every path in it is taken from where it stands."""
    return f"""# 采集中心，由 infravitals site init 写出；各键含义见 infravitals sample
# The collector, written by infravitals site init; infravitals sample explains every key
site: {made.site}

broker:
  host: {json.dumps(made.hosts[0])}
  port: {made.broker_port}
  tls: {{ca: ../ca/ca.pem}}
  username: collector
  password: {{credential: broker-password}}

# 别人猜不到的组名，像密码一样对待 / a name that nobody guesses; treat it like a password
share_group: {share_group}

data_directory: ../{made.data}/collector
site_folder: ../site

store:
{_store(made)}
# 127.0.0.1 之外须有密码与证书(或 behind_proxy: true)；密码在 page.password
# beyond 127.0.0.1 only with a password and a certificate (or behind_proxy: true); the password is in page.password
page:
  host: {json.dumps(made.page_address)}
  port: {made.page_port}
  names: {json.dumps(list(made.hosts), ensure_ascii=False)}
  password_scrypt: {json.dumps(password_scrypt)}
  metrics_token: {{credential: metrics-token}}
  tls: {{certificate: page.pem, key: page.key}}
"""


def _store(made: SiteMade) -> str:
    if made.influx == "2":
        return f"""  kind: influxdb
  url: http://influxdb:{made.influx_port}
  org: {ORGANISATION}
  bucket: {DATABASE}
  token: {{credential: influx-token}}
"""
    return f"""  kind: influxdb
  url: http://127.0.0.1:{made.influx_port}
  database: {DATABASE}
  user: {INFLUX_USER}
  password: {{credential: influx-password}}
"""


SOURCES = {
    "server": [
        "host_clock",
        "host_cpu",
        "host_disk",
        "host_inventory",
        "host_memory",
        "host_network",
        "host_raid",
        "host_uptime",
    ],
    "gateway": ["host_clock", "host_cpu", "host_disk", "host_memory", "host_network", "host_uptime"],
}
"""Role of an agent -> what it gathers without being told more."""

_GATEWAY = """
  # 设备写在 conf.d/*.yaml，样例：infravitals-agent sample snmp_device
  # devices go to conf.d/*.yaml; for a sample: infravitals-agent sample snmp_device
"""


def agent_configuration(made: SiteMade, name: str, role: str, state_directory: str | None) -> str:
    """agent.yaml with the sources that need nothing said; every path in it is taken from where it stands."""
    state = f"\nstate_directory: {json.dumps(state_directory, ensure_ascii=False)}\n" if state_directory else ""
    sources = "".join(f"  {source}: {{}}\n" for source in SOURCES[role])
    return f"""# 采集代理，由 infravitals site add-agent 写出；更多采集源见 infravitals-agent sources
# An agent, written by infravitals site add-agent; infravitals-agent sources lists more to gather
site: {made.site}
agent: {name}
{state}
broker:
  host: {json.dumps(made.hosts[0])}
  port: {made.broker_port}
  tls: {{ca: ca.pem}}
  username: {made.site}/{name}
  password: {{credential: broker-password}}

sources:
{sources}{_GATEWAY if role == "gateway" else ""}"""


def site_file(made: SiteMade) -> str:
    """site.yaml of the site folder."""
    return f"""# site.yaml
title: {json.dumps(made.title or made.site, ensure_ascii=False)}
time_zone: Asia/Shanghai
"""
