"""`sample` and `sources`: a commented agent.yaml made from the structs that read it, and what each source measures."""

from collections.abc import Iterator, Mapping

import msgspec

from agent.catalogue import Measurement, Text, load
from agent.config import AgentFile, UnusableSource, default_sources, load_kind
from agent.language import say
from agent.sources import names

EXAMPLES: Mapping[str, object] = {
    "site": "my-hospital",
    "agent": "server-1",
    "asset": "server-1",
    "state_directory": "/var/lib/infravitals-agent",
    "broker.host": "127.0.0.1",
    "broker.port": 8883,
    "broker.tls": {"ca": "/etc/infravitals-agent/ca.pem"},
    "broker.username": "my-hospital/server-1",
    "broker.password": {"file": "/etc/infravitals-agent/broker.password"},
    "spool.path": "/var/lib/infravitals-agent/spool.sqlite",
    "host_clock.program": "chrony",
    "snmp_device.credentials": {"ward": {"version": "2c", "community": {"file": "/etc/infravitals-agent/community"}}},
    "snmp_device.targets": [{"asset": "core-switch-1", "host": "192.0.2.1", "credential": "ward"}],
    "snmp_device.discover": {"ranges": ["192.0.2.0/24"], "requests_per_second": 20},
    "snmp_device.peers": ["core-switch-2"],
    "snmp_trap.credentials": [{"version": "2c", "community": {"file": "/etc/infravitals-agent/community"}}],
    "snmp_trap.targets": [{"asset": "core-switch-1", "host": "192.0.2.1"}],
    "systemd_units.units": ["postgresql@*.service"],
}
"""What stands in the sample where there is no default, or one that shows nothing."""

TEXTS: Mapping[str, Text] = {
    "site": Text("站点(医院)的名称：小写字母、数字、连字符", "name of the site: small letters, digits, hyphens"),
    "agent": Text("本代理的名称，在站点内唯一", "name of this agent, unique in the site"),
    "asset": Text("所测资产的名称；缺省与 agent 相同", "name of the asset it measures; by default the agent's"),
    "broker": Text("消息服务器(MQTT)", "the message broker (MQTT)"),
    "broker.host": Text("主机名或地址", "its host name or address"),
    "broker.port": Text("端口；缺省为 8883(TLS)或 1883", "its port; by default 8883 with TLS, else 1883"),
    "broker.tls": Text(
        "TLS:ca 为签发者证书(缺省用系统的),certificate 与 key 为客户端证书",
        "TLS: ca who signed its certificate (by default the system's list), certificate and key for the client",
    ),
    "broker.username": Text("用户名，通常为 站点/代理", "the user, usually site/agent"),
    "broker.password": Text(
        "密码存放处，file、env、credential 三选一；不写密码本身",
        "where the password stands: one of file, env, credential; never the password itself",
    ),
    "broker.keepalive_seconds": Text(
        "多少秒无往来即探测连接", "how long silence lasts before the connection is probed"
    ),
    "broker.connect_timeout_seconds": Text("连接的时限(秒)", "how long connecting may take, in seconds"),
    "sources": Text(
        "采集哪些采集源；也可分写在 conf.d/*.yaml 中", "what to gather; may also be spread over conf.d/*.yaml"
    ),
    "state_directory": Text("跨重启记忆的目录，须可写", "where it remembers across restarts; must be writable"),
    "spool": Text("送达之前的本地缓存", "what waits here until the collector has it"),
    "spool.path": Text("缓存文件；缺省在 state_directory 下", "its file; by default in state_directory"),
    "spool.max_bytes": Text("磁盘上限(字节),超出则丢弃最旧的", "its bound on disk; beyond it the oldest is dropped"),
    "spool.max_age_seconds": Text("最长保留时间(秒)", "its bound in age"),
    "log": Text("日志，写到标准错误", "the log, on stderr"),
    "log.level": Text("debug、info、warning 或 error", "debug, info, warning or error"),
    "log.format": Text("line(给人看)或 json", "line (for people) or json"),
    "interval_seconds": Text("采集间隔(秒)", "how often, in seconds"),
    "deadline_seconds": Text("一轮的时限(秒)", "how long one round may take, in seconds"),
    "host_clock.program": Text(
        "只问这一个：chrony、ntpq 或 timedatectl", "ask this one only: chrony, ntpq or timedatectl"
    ),
    "host_disk.include_mounts": Text("采集哪些挂载点(通配符)", "which mounts, by shell patterns"),
    "host_disk.exclude_mounts": Text("不采集哪些挂载点", "which mounts not"),
    "host_disk.exclude_types": Text("不采集哪些文件系统类型", "which types of file system not"),
    "host_disk.exclude_devices": Text("不采集哪些磁盘", "which disks not"),
    "host_disk.network_filesystems": Text("是否采集网络文件系统", "whether to ask network file systems"),
    "host_disk.tmpfs": Text("是否采集内存文件系统", "whether to ask file systems in memory"),
    "host_network.include": Text("采集哪些网卡(通配符)", "which interfaces, by shell patterns"),
    "host_network.exclude": Text("不采集哪些网卡", "which interfaces not"),
    "snmp_device.timeout_seconds": Text(
        "首次等待应答的时间(秒)，每次重试加倍",
        "how long the first attempt waits for an answer, doubled with each retry",
    ),
    "snmp_device.retries": Text("无应答时重试几次", "how often a question without an answer is repeated"),
    "snmp_device.credentials": Text(
        "凭据：版本 1、2c 的 community，或版本 3 的用户；详见 docs/snmp.md",
        "credentials by name: the community of 1 and 2c, or a user of 3; see docs/snmp.md",
    ),
    "snmp_device.targets": Text("只轮询这里列出的设备", "the devices to poll; no others are ever asked"),
    "snmp_device.peers": Text(
        "由别的网关轮询的设备名(sysName)，作为邻居时算作已纳管",
        "system names of devices that other gateways poll: managed when they are seen as neighbours",
    ),
    "snmp_device.discover": Text(
        "snmp discover 只许在这些地址段内查找", "the ranges in which `snmp discover` may look, and no others"
    ),
    "snmp_trap.listen": Text("监听的地址", "the address to listen on"),
    "snmp_trap.port": Text(
        "监听的 UDP 端口；1024 以下需要特权", "the UDP port to listen on; below 1024 it takes a privilege"
    ),
    "snmp_trap.credentials": Text(
        "接受的团体字与 v3 用户；不写则接受已登记设备的任何团体字",
        "the communities and v3 users to accept; without any, every community of an enrolled sender",
    ),
    "snmp_trap.targets": Text("只听这里列出的设备", "the devices to listen to; others are counted and refused"),
    "snmp_trap.per_second": Text(
        "每秒最多接受多少条通知，超出的计数后丢弃", "notifications taken a second; more are counted and shed"
    ),
    "snmp_trap.per_sender": Text("每台设备每秒最多多少条", "of one device"),
    "snmp_trap.v3_per_second": Text("其中版本 3 每秒最多多少条", "of version 3, which cost far more"),
    "systemd_units.units": Text(
        "监视哪些单元(可用通配符);缺省为已启用的服务", "which units, patterns too; by default the enabled services"
    ),
}
"""What a key means: `section.key`, else the bare key. A test compares it with the structs."""


def write_sample(source: str | None = None) -> str:
    """A whole agent.yaml that `check` accepts, with `source` only or with all that serve this system.

    Raises UnusableSource.
    """
    kinds = {source: load_kind(source).Config} if source else {s.name: type(s.config) for s in default_sources()}
    lines = [
        say("# infravitals-agent 的配置", "# configuration of infravitals-agent"),
        say(
            "# 紧跟在 # 后面的键可省略，写出的是缺省值或例子；要改时去掉 #",
            "# a key right behind a # is optional and shows a default or an example; take the # away to set it",
        ),
        "",
        *_write_struct(AgentFile, "", ""),
        f"# {TEXTS['sources']}",
        "sources:",
    ]
    for name, kind in kinds.items():
        lines += ["", f"  # {describe_source(name)}", f"  {name}:", *_write_struct(kind, name, "    ")]
    return "\n".join(lines) + "\n"


def describe_sources() -> list[tuple[str, str, str]]:
    """Name, what it measures, and the systems that it serves, of every source."""
    return [(name, describe_source(name), _systems(name)) for name in names()]


def describe_source(name: str) -> str:
    """What a source measures, as the catalogue calls it."""
    measured = [m for m in load().measurements.values() if _is_emitted(m, name)]
    # a definition may follow the name there; here the name is enough
    return say(
        "、".join(m.zh.partition("：")[0] for m in measured), "; ".join(m.en.partition(":")[0] for m in measured)
    )


def explain_key(section: str, key: str) -> Text | None:
    """What a key of a section means; None when nobody has written it down."""
    return TEXTS.get(f"{section}.{key}") or TEXTS.get(key)


def _is_emitted(measurement: Measurement, source: str) -> bool:
    return any(source in measurement.emitters(field) for field in measurement.fields)


def _systems(name: str) -> str:
    try:
        return ", ".join(load_kind(name).Source.systems)
    except UnusableSource as error:
        return str(error)


def _write_struct(kind: type[msgspec.Struct], section: str, margin: str, mark: str = "") -> Iterator[str]:
    """The lines of one struct: a comment over each key; what is optional, and all in it, is a key right behind a #."""
    for field in msgspec.structs.fields(kind):
        if field.name == "sources":
            continue
        yield f"{margin}# {explain_key(section, field.name)}"
        inner = field.type
        begin = margin + (mark if field.required else "#")
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield f"{begin}{field.name}:"
            yield from _write_struct(inner, field.name, margin + "  ", "" if field.required else "#")
        else:
            yield f"{begin}{field.name}: {_write_value(section, field)}"
        if not section:
            yield ""


def _write_value(section: str, field: msgspec.structs.FieldInfo) -> str:
    """The example or the default as YAML; JSON is YAML too."""
    value = EXAMPLES.get(f"{section}.{field.name}" if section else field.name, field.default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode()
