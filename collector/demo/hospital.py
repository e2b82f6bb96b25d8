"""The made-up hospital: two campuses, what stands in them, who reports it. No I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Campus = Literal["east", "west"]
CAMPUSES: tuple[Campus, ...] = ("east", "west")
CAMPUS_TITLES: Mapping[str, tuple[str, str]] = {"east": ("东院区", "East campus"), "west": ("西院区", "West campus")}

TITLE = ("模拟医院（演示数据）", "A simulated hospital (demo data)")
GATEWAYS: Mapping[Campus, str] = {"east": "east-gateway", "west": "west-gateway"}
"""The agents that poll what cannot run one."""
SCANNER = "outside-scanner"
"""The agent that looks at the hospital from outside."""


@dataclass(frozen=True)
class Thing:
    """One entry of the register. reporters: the agents whose points of it are taken, empty where nobody asks."""

    id: str
    section: Literal["assets", "services", "links", "zones", "segments"]
    title: tuple[str, str]
    said: Mapping[str, object] = field(default_factory=dict)

    @property
    def reporter(self) -> str:
        """The agent that reports this asset."""
        reporters = self.said.get("reporters")
        return str(reporters[0]) if isinstance(reporters, list) else self.id


SERVICES: Mapping[str, tuple[str, str]] = {
    "his": ("医院信息系统", "Hospital information system"),
    "emr": ("电子病历", "Electronic medical record"),
    "lis": ("检验系统", "Laboratory system"),
    "pacs": ("影像系统", "Imaging archive"),
    "integration": ("集成平台", "Integration platform"),
    "pharmacy": ("药房系统", "Pharmacy"),
}
"""The critical services; each runs on a pair of servers, one a campus."""
DATABASES = ("his", "pacs")
"""Of which the database is replicated between the campuses."""
LESSER = ("portal", "queue", "finance", "mail", "archive", "terminal", "report")
ZONES: Mapping[str, tuple[str, str]] = {
    "medical": ("医疗业务区", "Medical"),
    "office": ("办公区", "Office"),
    "device": ("医疗设备区", "Devices"),
    "dmz": ("外联区", "DMZ"),
    "outside": ("院外", "Outside"),
}
LINES: Mapping[str, tuple[str, str, str, float]] = {
    "city-telemedicine": ("市级远程医疗专线", "Telemedicine line to the city hospital", "telecom-a", 200e6),
    "alliance-telemedicine": ("医联体远程会诊专线", "Line of the alliance's consultations", "unicom-b", 100e6),
}
CRITICAL_SEGMENTS = ("east-medical-lan", "west-medical-lan", "east-icu-lan")


def things() -> Iterator[Thing]:
    """Every entry of the register, sections in one block each."""
    yield from _servers()
    yield from _network()
    yield from _machines()
    yield from _others()


def _asset(name: str, zh: str, en: str, kind: str, zone: str, **said: Any) -> Thing:
    return Thing(name, "assets", (zh, en), {"class": kind, "zone": zone, **said})


def _servers() -> Iterator[Thing]:
    """40 servers: pairs of the critical services, the lesser ones, what runs the probes and keeps backups and logs."""
    for campus in CAMPUSES:
        zh, en = CAMPUS_TITLES[campus]
        for name, (service_zh, service_en) in SERVICES.items():
            role = ["database"] if name in DATABASES else ["integration" if name == "integration" else "application"]
            said: dict[str, Any] = {"criticality": "critical", "role": role if campus == "east" else ["dr"]}
            yield _asset(
                f"{campus}-{name}-1", f"{zh}{service_zh}服务器", f"{service_en}, {en}", "server", "medical", **said
            )
        for name in LESSER:
            yield _asset(
                f"{campus}-{name}-1", f"{zh}{name} 服务器", f"{name}, {en}", "server", "office", role=["application"]
            )
        probes = ["access-probe", *(["path-probe", "inter-site-probe"] if campus == "east" else [])]
        yield _asset(GATEWAYS[campus], f"{zh}网关采集代理", f"Gateway agent, {en}", "server", "medical", role=probes)
        lines = ["telemedicine-probe"] if campus == "east" else ["application"]
        yield _asset(
            f"{campus}-telemedicine-1", f"{zh}远程医疗网关", f"Telemedicine gateway, {en}", "server", "dmz", role=lines
        )
        yield _asset(f"{campus}-backup-1", f"{zh}备份服务器", f"Backup, {en}", "server", "medical", role=["backup"])
        yield _asset(f"{campus}-log-1", f"{zh}日志服务器", f"Logs, {en}", "server", "medical", role=["log"])
        cluster = {"criticality": "critical", "role": ["cluster"]} if campus == "east" else {"role": ["application"]}
        yield _asset(f"{campus}-cluster-1", f"{zh}集群节点", f"Cluster node, {en}", "server", "medical", **cluster)
        yield _asset(
            f"{campus}-security-1", f"{zh}安全管理服务器", f"Security, {en}", "server", "office", role=["security"]
        )
    # 6 + 7 + 6 a campus make 38
    yield _asset("east-vcenter-1", "虚拟化管理", "Virtualization manager", "server", "medical", role=["platform"])
    yield _asset(SCANNER, "院外扫描代理", "Agent outside", "server", "outside", role=["scanner"])


def _network() -> Iterator[Thing]:
    """30 switches, 2 firewalls."""
    for campus in CAMPUSES:
        zh, en = CAMPUS_TITLES[campus]
        common: dict[str, Any] = {"reporters": [GATEWAYS[campus]]}
        for number in (1, 2):
            yield _asset(
                f"{campus}-core-{number}", f"{zh}核心交换机 {number}", f"Core switch {number}, {en}", "network", "medical",
                criticality="critical", role=["core", *(["inter-site"] if number == 1 else [])], **common,
            )  # fmt: skip
        for number in (1, 2):
            title = f"{zh}汇聚交换机 {number}", f"Aggregation switch {number}, {en}"
            yield _asset(f"{campus}-aggregation-{number}", *title, "network", "medical", role=["aggregation"], **common)
        for number in range(1, 12):
            title = f"{zh}接入交换机 {number}", f"Access switch {number}, {en}"
            yield _asset(f"{campus}-access-{number:02}", *title, "network", "office", role=["access"], **common)
        yield _asset(
            f"{campus}-firewall-1",
            f"{zh}边界防火墙",
            f"Firewall, {en}",
            "firewall",
            "dmz",
            criticality="critical",
            **common,
        )


def _machines() -> Iterator[Thing]:
    """2 arrays, 12 hypervisor hosts, 2 UPS."""
    for campus, hosts in zip(CAMPUSES, (8, 4), strict=True):
        zh, en = CAMPUS_TITLES[campus]
        common: dict[str, Any] = {"reporters": [GATEWAYS[campus]]}
        yield _asset(
            f"{campus}-array-1", f"{zh}存储阵列", f"Array, {en}", "storage", "medical", criticality="critical", **common
        )
        yield _asset(f"{campus}-ups-1", f"{zh}不间断电源", f"UPS, {en}", "ups", "medical", **common)
        for number in range(1, hosts + 1):
            title = f"{zh}虚拟化主机 {number}", f"Hypervisor host {number}, {en}"
            yield _asset(
                f"{campus}-host-{number:02}",
                *title,
                "hypervisor",
                "medical",
                criticality="critical",
                role=["hypervisor"],
                **common,
            )


def _others() -> Iterator[Thing]:
    for name, title in SERVICES.items():
        assets = [f"{campus}-{name}-1" for campus in CAMPUSES]
        yield Thing(name, "services", title, {"criticality": "critical", "assets": assets})
    for name, (zh, en, provider, rate) in LINES.items():
        said = {
            "role": "telemedicine",
            "provider": provider,
            "partner": "city-hospital",
            "committed_bits_per_second": rate,
        }
        yield Thing(name, "links", (zh, en), {**said, "calendar": "service-hours"})
    for name, title in ZONES.items():
        yield Thing(name, "zones", title)
    for name in CRITICAL_SEGMENTS:
        yield Thing(name, "segments", (name, name), {"zone": "medical", "criticality": "critical"})
