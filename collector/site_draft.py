"""A first register.yaml from what a store has seen: whatever is not seen but guessed says so, in both languages. No I/O."""

from collections.abc import Iterator
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent.catalogue import is_id
from collector.site_folder import SECTION_OF_TAG
from collector.site_seen import Seen, SeenAsset, SeenName
from collector.site_times import format_moment
from collector.site_written import SECTIONS

HEAD = """\
# 资产登记初稿，由 infravitals register draft 按已采到的数据写出；请逐条核对后存为站点目录中的 register.yaml
# 标有“猜测”的由信号推断，未必正确；没有写出的属性请补上，准则会按它们挑选对象
# A first register, written by infravitals register draft from what was seen; look at every line, then keep it as register.yaml of the site folder
# Whatever says "a guess" was inferred from signals; add the attributes that are missing: criteria choose by them
#
#   class        server network firewall storage ups endpoint
#   criticality  critical normal
#   role         core aggregation access uplink / database application integration platform imaging / telemedicine inter-site dr
"""

EXAMPLES = {
    "assets": "#  his-db-1: {class: server, criticality: critical, zone: core, role: [database], reporters: [his-db-1]}",
    "services": "#  his: {title: {zh: 医院信息系统, en: HIS}, criticality: critical, assets: [his-db-1]}",
    "links": "#  city-line: {role: telemedicine, provider: telecom-a, partner: city-hospital, committed_bits_per_second: 100000000}",
    "zones": "#  core: {title: {zh: 核心业务区, en: Core}}",
    "segments": "#  core-lan: {zone: core, role: core}",
}

TITLES = {
    "assets": "资产 / assets",
    "services": "业务系统 / services",
    "links": "线路 / lines",
    "zones": "安全区域 / security zones",
    "segments": "网段 / network segments",
}


class Guess(NamedTuple):
    """An attribute's value, and the signal that it was inferred from."""

    value: str
    signal: str


def draft(seen: Seen, zone: ZoneInfo) -> str:
    """The text of a register.yaml that passes its own check."""
    return "\n".join([HEAD, *_lines(seen, zone)]) + "\n"


def _lines(seen: Seen, zone: ZoneInfo) -> Iterator[str]:
    for section in SECTIONS:
        yield f"# {TITLES[section]}"
        yield f"{section}:"
        yield EXAMPLES[section]
        if section == "assets":
            for asset in seen.assets:
                yield from _asset(asset, zone)
        names: dict[str, SeenName] = {}
        for name in seen.names:
            if SECTION_OF_TAG[name.tag] == section:
                names.setdefault(name.id, name)
        for name in names.values():
            yield from _name(name, zone)
        yield ""


def _asset(asset: SeenAsset, zone: ZoneInfo) -> Iterator[str]:
    first = _to_the_minute(asset.first_seen, zone)
    count = len(asset.measurements)
    yield f"  {asset.id}:"
    yield f"    # {first} 首次见到，{count} 种测量项 / first seen {first}, {count} measurements"
    for zh, en in _remarks(asset):
        yield f"    # {zh} / {en}"
    if kind := guess_class(asset):
        yield f"    class: {kind.value}  # 猜测：{kind.signal} / a guess: {kind.signal}"
    if roles := guess_roles(asset):
        signals = ", ".join(role.signal for role in roles)
        yield f"    role: [{', '.join(role.value for role in roles)}]  # 猜测：{signals} / a guess: {signals}"
    if asset.owner:
        yield f"    reporters: [{asset.owner}]"


def _remarks(asset: SeenAsset) -> Iterator[tuple[str, str]]:
    if asset.is_virtual is not None:
        yield (
            ("虚拟机或容器", "a virtual machine or container") if asset.is_virtual else ("物理机", "a physical machine")
        )
    bonds = [name for name in asset.interfaces if name.startswith(("bond", "team"))]
    if bonds:
        shown = ", ".join(bonds)
        yield f"有冗余网口 {shown}", f"has redundant interfaces {shown}"


def _name(name: SeenName, zone: ZoneInfo) -> Iterator[str]:
    first = _to_the_minute(name.first_seen, zone)
    said = f"# 数据中的 {name.tag}，{first} 首次见到 / {name.tag} in the data, first seen {first}"
    if is_id(name.id):
        yield f"  {name.id}:  {said}"
    else:  # a name that the register cannot hold is shown, not registered
        shown = " ".join(name.id.split())
        yield f"  # {shown!r} 不能作名称，请在采集源处改名 / cannot be a name; rename it at its source  {said}"


def _to_the_minute(milliseconds: int, zone: ZoneInfo) -> str:
    return format_moment(milliseconds // 60_000 * 60_000, zone)


def guess_class(asset: SeenAsset) -> Guess | None:
    """What kind of thing an asset seems to be; None when nothing tells."""
    has = set(asset.measurements)
    if found := _first(has, "storage_pool", "storage_tier"):
        return Guess("storage", found)
    if "firewall" in asset.groups:
        return Guess("firewall", "role_group kind=firewall")
    if found := _first(has, "host_cpu", "host_memory", "host_uptime"):
        return Guess("server", found)
    if group := _first(set(asset.groups), "vrrp", "hsrp", "stack"):
        return Guess("network", f"role_group kind={group}")
    if "poll" in has:
        return Guess("network", "poll")
    return None


def guess_roles(asset: SeenAsset) -> list[Guess]:
    """What an asset seems to do."""
    has, roles = set(asset.measurements), []
    if "replication" in has:
        roles.append(Guess("database", "replication"))
    elif "database" in asset.groups:
        roles.append(Guess("database", "role_group kind=database"))
    if found := _first(has, "hypervisor_cluster", "platform_member"):
        roles.append(Guess("platform", found))
    return roles


def _first(there: set[str], *wanted: str) -> str | None:
    return next((name for name in wanted if name in there), None)
