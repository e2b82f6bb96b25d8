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
    "keepalived.watched": {"HIS": "10.1.2.100"},
    "backup_folder.systems": {
        "his": {"dr-room": {"folder": "/backup/his", "full": "full-*", "incremental": "wal-*", "offsite": True}},
    },
    "mysql_replication.pairs": {
        "emr-db": {
            "addresses": ["emr-db-1.hospital.local:3306", "emr-db-2.hospital.local:3306"],
            "database": "emr",
            "user": "infravitals",
            "password": {"file": "/etc/infravitals-agent/emr-db.password"},
        },
    },
    "oracle_dataguard.pairs": {
        "his-db": {
            "addresses": ["his-ora-1.hospital.local:1521", "his-ora-2.hospital.local:1521"],
            "database": "his",
            "user": "infravitals",
            "password": {"file": "/etc/infravitals-agent/his-ora.password"},
        },
    },
    "postgresql_replication.pairs": {
        "his-db": {
            "addresses": ["his-db-1.hospital.local:5432", "his-db-2.hospital.local:5432"],
            "database": "postgres",
            "user": "infravitals",
            "password": {"file": "/etc/infravitals-agent/his-db.password"},
        },
    },
    "sqlserver_alwayson.pairs": {
        "lis-db": {
            "addresses": ["lis-db-1.hospital.local:1433", "lis-db-2.hospital.local:1433"],
            "database": "lis",
            "user": "infravitals",
            "password": {"file": "/etc/infravitals-agent/lis-db.password"},
            "ca": "/etc/infravitals-agent/ca.pem",
        },
    },
    "snmp_device.credentials": {"ward": {"version": "2c", "community": {"file": "/etc/infravitals-agent/community"}}},
    "snmp_device.targets": [{"asset": "core-switch-1", "host": "192.0.2.1", "credential": "ward"}],
    "snmp_device.discover": {"ranges": ["192.0.2.0/24"], "requests_per_second": 20},
    "snmp_device.peers": ["core-switch-2"],
    "snmp_trap.credentials": [{"version": "2c", "community": {"file": "/etc/infravitals-agent/community"}}],
    "snmp_trap.targets": [{"asset": "core-switch-1", "host": "192.0.2.1"}],
    "systemd_units.units": ["postgresql@*.service"],
    "isolation_probe.zone": "office",
    "isolation_probe.key": {"file": "/etc/infravitals-agent/probe.key"},
    "isolation_probe.targets": [
        {"zone": "medical", "address": "192.0.2.10", "allowed": ["tcp/443"], "blocked": ["tcp/3389", "udp/161", "icmp"]}
    ],
    "isolation_probe.call_port": 7178,
    "isolation_responder.key": {"file": "/etc/infravitals-agent/probe.key"},
    "isolation_responder.listen": ["tcp/443", "tcp/3389", "udp/161", "icmp"],
    "isolation_responder.call": ["192.0.2.20:7178"],
    "path_probe.targets": [
        {"name": "core-sw-1", "address": "192.0.2.1"},
        {"name": "his", "kind": "http", "url": "https://his.example/health"},
        {"name": "city-a", "address": "198.51.100.1"},
        {"name": "city-b", "address": "203.0.113.1"},
    ],
    "path_probe.lines": {
        "city-line": {
            "routes": [
                {"provider": "telecom-a", "targets": ["city-a"]},
                {"provider": "unicom-b", "targets": ["city-b"]},
            ],
            "interface": "eth1",
        }
    },
    "path_probe.segments": {"ward-3": {"paths": ["core-sw-1"], "gateways": ["core-sw-1"]}},
    "path_probe.key": {"file": "/etc/infravitals-agent/probe.key"},
    "path_reflector.key": {"file": "/etc/infravitals-agent/probe.key"},
    "isolation_responder.keys": {"office-1": {"file": "/etc/infravitals-agent/office-1.key"}},
    "path_reflector.keys": {"consult-1": {"file": "/etc/infravitals-agent/consult-1.key"}},
    "path_reflector.senders": {"consult-1": {"address": "192.0.2.66"}},
    "hours": ["01:00-05:00"],
    "zone_flows.zone": "office",
    "zone_flows.zones": {"office": ["10.3.0.0/16"], "medical": ["10.1.0.0/16"], "outside": ["0.0.0.0/0"]},
    "zone_flows.boundaries": ["10.3.0.1"],
    "firewall_rules.boundary": "internet",
    "firewall_rules.strength_level": 3,
    "exposure_scan.addresses": ["198.51.100.10", "198.51.100.11"],
    "exposure_scan.control": "198.51.100.10:443",
    "management_access.devices": [{"asset": "core-sw-1", "address": "192.0.2.1"}],
    "management_access.communities": [{"file": "/etc/infravitals-agent/community"}],
    "config_backup.folder": "/var/backups/network",
    "config_backup.approved": "/etc/infravitals-agent/approved",
    "config_backup.assets": ["core-sw-1", "fw-1"],
    "log_archive.origins": {"network": {"folder": "/var/log/archive/network"}},
    "continuity_probe.probes": {
        "his-web": {"service": "his", "kind": "http", "addresses": ["his.hospital.local:80"], "path": "/login"},
        "his-db": {
            "service": "his",
            "kind": "postgresql",
            "addresses": ["his-db.hospital.local:5432"],
            "database": "his",
            "user": "infravitals",
            "password": {"file": "/etc/infravitals-agent/his-db.password"},
        },
    },
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
    "spool.max_bytes": Text("磁盘上限(字节)，超出则丢弃最旧的", "its bound on disk; beyond it the oldest is dropped"),
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
    "hours": Text(
        "只在这些时段探测，按本机时区；缺省一直探测",
        "probe at these hours only, by the machine's time zone; always by default",
    ),
    "keys": Text(
        "每个探测端各用一个密钥(代理名: 存放处)，比共用的 key 强",
        "a key for each prober (agent name: where it stands), stronger than the shared key",
    ),
    "path_reflector.senders": Text(
        "谁可以向这里测吞吐(代理名: 地址与上限)；缺省谁都不行",
        "who may measure throughput to here (agent name: address and caps); nobody by default",
    ),
    "exposure_scan.udp": Text("是否也问没有连接的 UDP 服务", "whether UDP services are asked too"),
    "zone_flows.zone": Text("本机所在的区域", "the zone that this machine stands in"),
    "zone_flows.zones": Text("各区域的网段，最长前缀优先", "the networks of each zone; the longest prefix wins"),
    "zone_flows.boundaries": Text(
        "登记的边界设备在本机路由中的地址", "the registered boundary devices, as this machine's routes name them"
    ),
    "isolation_probe.zone": Text("本代理所在的区域", "the zone that this agent stands in"),
    "isolation_probe.key": Text(
        "与应答端共用的密钥存放处，file、env、credential 三选一",
        "where the key shared with the responders stands: one of file, env, credential",
    ),
    "isolation_probe.targets": Text(
        "探测哪些应答端(zone、address)、应放行(allowed)与应阻断(blocked)的端口；calls: true 表示由对端连过来",
        "which responders (zone, address), what is allowed and what blocked; calls: true when they connect to us",
    ),
    "isolation_probe.call_port": Text("供应答端连入的端口", "the port for responders that connect to us"),
    "isolation_probe.source_address": Text("从哪个地址发出；缺省按路由", "from which address; by default as routed"),
    "isolation_probe.timeout_seconds": Text("一次探测等多久(秒)", "how long one try waits, in seconds"),
    "isolation_probe.control_retries": Text(
        "阳性对照不可见时，本轮内再试几次",
        "how often a target is tried again in the round while its control is not seen",
    ),
    "isolation_probe.control_pause_seconds": Text("再试之前等多久(秒)", "seconds before it is tried again"),
    "isolation_probe.probes_per_second": Text("每秒最多探测几次", "how many probes a second at most"),
    "isolation_responder.key": Text(
        "与探测端共用的密钥存放处，file、env、credential 三选一",
        "where the key shared with the probers stands: one of file, env, credential",
    ),
    "isolation_responder.listen": Text(
        "监听哪些端口(tcp/22、udp/161、icmp)，应覆盖各探测端要试的",
        "which ways to hear (tcp/22, udp/161, icmp): all that the probers try",
    ),
    "isolation_responder.addresses": Text("在哪些地址上监听", "at which addresses to listen"),
    "isolation_responder.control_port": Text("探测端核对结果的端口", "the port where probers ask what came"),
    "isolation_responder.call": Text(
        "探测端连不进来时，主动连接它们(地址:端口)", "probers that cannot come in and are called, as address:port"
    ),
    "path_probe.targets": Text(
        "探测对象：icmp(默认)、tcp、http、dns、stream(两端测量，对端须有 path_reflector)",
        "what is probed: icmp (the default), tcp, http, dns, stream (two-ended; a path_reflector at the far end)",
    ),
    "path_probe.lines": Text(
        "专线：各运营商的路由(routes)、备用通道(fallback)、承载接口(interface)",
        "lines: routes by provider, fallback targets, the interface that carries the line",
    ),
    "path_probe.segments": Text(
        "网段：每条上联后面的对象(paths)、各网关自身的地址(gateways)",
        "segments: a target behind each path, each gateway's own address",
    ),
    "path_probe.key": Text("与反射端共用的密钥存放处", "where the key shared with the reflectors stands"),
    "path_probe.packets": Text("每个 icmp 对象每轮几个包", "echoes a round and target"),
    "path_probe.spacing_seconds": Text("同一对象两个包之间隔多久(秒)", "seconds between two echoes to one target"),
    "path_probe.per_second": Text("每秒最多几个 icmp 包", "echoes a second at most"),
    "path_probe.timeout_seconds": Text("等回音多久(秒)", "how long to wait for an answer, in seconds"),
    "path_probe.stream_packets": Text("每条流每轮几个包", "packets a round and stream"),
    "path_probe.stream_spacing_seconds": Text("流中两个包之间隔多久(秒)", "seconds between two packets of a stream"),
    "path_probe.stream_packet_bytes": Text("流中每个包多大(字节)", "bytes of a stream's packet"),
    "path_probe.one_way": Text(
        "两端时钟都校准得远比时延准确时写 true，测真正的单向时延",
        "true where both clocks are far closer than the delay: real one-way delays",
    ),
    "path_reflector.key": Text("与探测端共用的密钥存放处", "where the key shared with the probers stands"),
    "path_reflector.port": Text("监听的 UDP 端口", "the UDP port to listen at"),
    "path_reflector.addresses": Text("在哪些地址上监听", "at which addresses to listen"),
    "firewall_rules.boundary": Text("本网关所守边界的名称", "what the boundary that this gateway guards is called"),
    "firewall_rules.strength_level": Text(
        "隔离强度，由人指定：0 无、1 ACL、2 状态检测、3 下一代防火墙、4 网闸；缺省按规则判断",
        "its strength as people know it: 0 none, 1 ACL, 2 stateful, 3 NGFW, 4 gap; by default as the rules show",
    ),
    "exposure_scan.addresses": Text("本院全部公网地址", "all public addresses of the hospital"),
    "exposure_scan.control": Text(
        "从外面必定能访问的 地址:端口，证明扫描点在网上",
        "address:port that must be reachable: the scanner is on the net",
    ),
    "exposure_scan.more_ports": Text("另外要扫的端口", "further ports"),
    "exposure_scan.timeout_seconds": Text("一次连接等多久(秒)", "how long one connection may take, in seconds"),
    "exposure_scan.ports_per_second": Text("每秒最多扫几个端口", "ports a second at most"),
    "management_access.devices": Text("哪些设备(asset、address)", "which devices (asset, address)"),
    "management_access.communities": Text(
        "除 public 外还要试的团体字的存放处", "where communities to be tried besides 'public' stand"
    ),
    "management_access.timeout_seconds": Text("等应答多久(秒)", "how long to wait for an answer, in seconds"),
    "management_access.devices_per_second": Text("每秒最多问几台", "devices a second at most"),
    "config_backup.folder": Text(
        "取回的配置所在的目录，一台一个文件", "where fetched configurations lie, one file a device"
    ),
    "config_backup.approved": Text("经批准的配置所在的目录", "where the approved ones lie"),
    "config_backup.suffix": Text("文件名 = 资产名 + 后缀", "a file is called asset and suffix"),
    "config_backup.assets": Text("哪些设备", "which devices"),
    "config_backup.ignore": Text("比较时不看的行(正则)", "lines that do not count (regular expressions)"),
    "log_archive.origins": Text(
        "日志来源：目录(folder)与文件(pattern)；规则要 network、server、emr-database",
        "origins: folder and pattern; the rules ask for network, server and emr-database",
    ),
    "log_archive.most_files": Text("一个来源最多看几个文件", "files of one origin at most"),
    "continuity_probe.probes": Text(
        "探测哪些业务路径，名称：service、kind(tcp、http、postgresql、mysql)、addresses 等，见 docs/failover.md",
        "which paths, by name: service, kind (tcp, http, postgresql, mysql), addresses and more, see docs/failover.md",
    ),
    "continuity_probe.period_seconds": Text("多少秒发一个令牌", "a token every so many seconds"),
    "continuity_probe.timeout_seconds": Text(
        "一个令牌的时限(秒)，须小于 1：不让 TCP 重传掩盖中断",
        "how long a token may take; below 1 s, so that TCP's retransmission hides no outage",
    ),
    "continuity_probe.failures": Text("失败几个令牌算中断", "so many failed tokens make an outage"),
    "continuity_probe.sustained": Text("连续几个成功算恢复", "so many good ones in a row end it"),
    "continuity_probe.automatic_within_seconds": Text(
        "短于此的中断视为自动恢复：没有人来得及动手",
        "an outage shorter than this ended without a person: nobody acts that fast",
    ),
    "keepalived.file": Text("keepalived 的配置文件，只读", "keepalived's configuration; only read"),
    "keepalived.watched": Text(
        "本机不是成员、但要看着的虚拟地址：组名: 地址", "virtual addresses to watch from outside, group: address"
    ),
    "keepalived.arp": Text(
        "是否用 ARP 探询有几台主机应答(需 CAP_NET_RAW)", "whether to ask by ARP how many answer (CAP_NET_RAW)"
    ),
    "pairs": Text(
        "持有同一份数据的服务器，按名称；填 token_table 则以令牌验证双活，见 docs/failover.md",
        "servers that hold the same data, by name; with token_table tokens prove dual-active, see docs/failover.md",
    ),
    "oracle_dataguard.pairs": Text(
        "主库与备库，按名称；database 写服务名，ca 见 docs/failover.md",
        "primaries and their standbys, by name; database is the service's name; for ca see docs/failover.md",
    ),
    "sqlserver_alwayson.pairs": Text(
        "可用性组的各实例，按名称；database 写组中的数据库，ca 见 docs/failover.md",
        "the instances of an availability group, by name; database is one that it holds; for ca see docs/failover.md",
    ),
    "answer_seconds": Text("一台服务器的应答时限(秒)", "how long one server may take to answer, in seconds"),
    "backup_folder.systems": Text(
        "备份按系统、按副本存放处：目录，全量与增量的名称样式，是否在灾备机房或异地",
        "backups by system and copy: the folder, what full and incremental ones are called, whether it lies in the DR room or off site",
    ),
    "backup_folder.settle_seconds": Text(
        "这段时间内(秒)还有改动的不算完成", "what changed within so many seconds is not finished"
    ),
    "ceph.cluster": Text("集群在数据中的名称", "what the cluster is called in the data"),
    "ceph.file": Text("Ceph 的配置文件", "Ceph's own file"),
    "ceph.user": Text("以哪个 Ceph 用户读取", "the user of Ceph that reads"),
    "ceph.keyring": Text("该用户的密钥文件", "the file with that user's key"),
    "pacemaker.cluster": Text("集群在数据中的名称", "what the cluster is called in the data"),
    "libvirt.uri": Text("虚拟化平台，写法同 virsh -c", "the hypervisor, as virsh -c takes it"),
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
        "监视哪些单元(可用通配符)；缺省为已启用的服务", "which units, patterns too; by default the enabled services"
    ),
}
"""What a key means: `section.key`, else the bare key. A test compares it with the structs."""


NEEDED = ("isolation_probe.key", "isolation_responder.key", "path_reflector.key")
"""May be left out where something else stands for it; a sample that is right as it is has to show it in force."""


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
        lines += ["", f"  # {describe_source(name)}", *_write_grants(name)]
        lines += [f"  {name}:", *_write_struct(kind, name, "    ")]
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


def _write_grants(name: str) -> Iterator[str]:
    """The least rights that a source needs in what it asks, as the SQL that gives them."""
    grants: str = getattr(load_kind(name), "GRANTS", "")
    if grants:
        yield f"  # {say('所需的最小权限：', 'the least rights that it needs:')}"
        yield from (f"  #   {line}" for line in grants.splitlines())


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
        begin = margin + (mark if field.required or f"{section}.{field.name}" in NEEDED else "#")
        is_section = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
        if is_section and f"{section}.{field.name}" not in EXAMPLES:
            yield f"{begin}{field.name}:"
            yield from _write_struct(inner, field.name, margin + "  ", "" if field.required else "#")
        else:
            yield f"{begin}{field.name}: {_write_value(section, field)}"
        if not section:
            yield ""


def _write_value(section: str, field: msgspec.structs.FieldInfo) -> str:
    """The example or the default as YAML; JSON is YAML too."""
    bare = EXAMPLES.get(field.name, field.default)
    value = EXAMPLES.get(f"{section}.{field.name}", bare)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode()
