"""What this host is: its system, its maker, and whether it is a machine or a guest.

Measures: asset_info: is_up (1: it says so itself), is_virtual, cores_count (processors that the kernel uses),
memory_bytes, os_name, os_version, vendor, model, hypervisor. No serial number, no UUID, no address.
Needs: nothing on Linux but world-readable files (/etc/os-release, /proc, /sys/class/dmi/id); psutil and platform elsewhere.
Reference: os-release(5), proc(5), kernel Documentation/ABI/testing/sysfs-firmware-dmi-tables, systemd-detect-virt(1).

The interval is 300 s although these facts hardly change: `is_up` rides along, and an hour-old proof of life proves
nothing, while a row in five minutes costs one.
"""

import os
import platform
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psutil

from agent.language import say
from agent.points import Value
from agent.sources import Reading, Seconds, SourceConfig, SourceError, Surroundings

VENDORS_OF_GUESTS: Mapping[str, str] = {
    "QEMU": "kvm",
    "Red Hat": "kvm",
    "OpenStack Foundation": "kvm",
    "Alibaba Cloud": "kvm",
    "Tencent Cloud": "kvm",
    "VMware, Inc.": "vmware",
    "Xen": "xen",
    "innotek GmbH": "virtualbox",
    "Parallels Software International Inc.": "parallels",
    "BHYVE": "bhyve",
}
"""DMI's system vendor where it is a hypervisor's or a cloud's."""

MODELS_OF_GUESTS: Mapping[str, str] = {
    "KVM": "kvm",
    "Virtual Machine": "hyper-v",
    "VirtualBox": "virtualbox",
    "VMware Virtual Platform": "vmware",
    "OpenStack Nova": "kvm",
    "Google Compute Engine": "kvm",
    "HVM domU": "xen",
}
"""DMI's product name where the vendor makes real machines too (Microsoft, Oracle, Huawei, H3C)."""

DEVICE_TREE_HYPERVISORS: Mapping[str, str] = {"linux,kvm": "kvm", "xen": "xen", "vmware": "vmware"}
PLACEHOLDERS = (
    "to be filled by o.e.m.",
    "default string",
    "system manufacturer",
    "system product name",
    "not specified",
)


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own to say."""

    interval_seconds: Seconds = 300.0


class Source:
    """The host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._root = surroundings.root
        self._system = surroundings.system

    async def open(self) -> None:
        """Nothing to open."""

    def collect(self) -> list[Reading]:
        """One reading; what cannot be known is left out. Raises SourceError when /proc is not there."""
        known = self._read_linux() if self._system == "linux" else _read_elsewhere(self._system)
        fields: dict[str, Value] = {"is_up": True}
        fields.update((name, value) for name, value in known.items() if value is not None and value != "")
        return [Reading("asset_info", fields)]

    async def close(self) -> None:
        """Nothing to close."""

    def _read_linux(self) -> dict[str, Value | None]:
        cpuinfo = _read(self._root / "proc/cpuinfo")
        memory = re.search(r"^MemTotal:\s+(\d+) kB$", _read(self._root / "proc/meminfo"), re.MULTILINE)
        if not cpuinfo or memory is None:
            where = self._root / "proc"
            raise SourceError(say(f"无法读取 {where}/cpuinfo 或 meminfo", f"cannot read cpuinfo or meminfo in {where}"))
        release = _read_release(self._root)
        vendor, model = (_read_dmi(self._root, name) for name in ("sys_vendor", "product_name"))
        hypervisor = self._find_hypervisor(vendor, model)
        has_flag = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None
        is_virtual: bool | None = None
        if self._is_xen_host():
            is_virtual = False
        elif hypervisor or has_flag:
            is_virtual = True
        elif vendor or re.search(r"^flags\s*:", cpuinfo, re.MULTILINE):
            is_virtual = False
        return {
            "is_virtual": is_virtual,
            "hypervisor": hypervisor if is_virtual else None,
            "cores_count": float(len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE))) or None,
            "memory_bytes": float(memory[1]) * 1024,
            "os_name": release.get("NAME"),
            "os_version": release.get("VERSION") or release.get("VERSION_ID"),
            "vendor": vendor,
            "model": model or _read(self._root / "proc/device-tree/model"),
        }

    def _find_hypervisor(self, vendor: str, model: str) -> str | None:
        """Its name where a file tells it; a guest may well hide it (then only the processor's flag is left)."""
        compatible = _read(self._root / "proc/device-tree/hypervisor/compatible")
        return (
            _read(self._root / "sys/hypervisor/type")
            or DEVICE_TREE_HYPERVISORS.get(compatible)
            or VENDORS_OF_GUESTS.get(vendor)
            or next((name for text, name in MODELS_OF_GUESTS.items() if model.startswith(text)), None)
        )

    def _is_xen_host(self) -> bool:
        """Xen's first domain sees the hypervisor too, and is the machine."""
        return "control_d" in _read(self._root / "proc/xen/capabilities")


def _read_elsewhere(system: str) -> dict[str, Value | None]:
    name, version = {
        "darwin": ("macOS", platform.mac_ver()[0]),
        "win32": ("Windows", platform.win32_ver()[1]),
    }[system]
    return {
        "cores_count": float(os.cpu_count() or 0) or None,
        "memory_bytes": float(psutil.virtual_memory().total),
        "os_name": name,
        "os_version": version,
    }


def _read_release(root: Path) -> dict[str, str]:
    """os-release(5): the one in /etc, else the one in /usr/lib; a line that is no assignment is passed over."""
    text = _read(root / "etc/os-release") or _read(root / "usr/lib/os-release")
    release = {}
    for line in text.splitlines():
        key, sign, value = line.strip().partition("=")
        if not sign or key.startswith("#"):
            continue
        try:
            release[key] = "".join(shlex.split(value))
        except ValueError:  # a quote that is never closed
            continue
    return release


def _read_dmi(root: Path, name: str) -> str:
    text = _read(root / "sys/class/dmi/id" / name)
    return "" if text.lower() in PLACEHOLDERS else text


def _read(path: Path) -> str:
    """The content without the zero bytes that a device tree ends its texts with; empty when there is no such file."""
    try:
        return path.read_text("utf-8", "replace").strip("\0 \n\t")
    except OSError:
        return ""
