"""The network interfaces: bits, errors and discards per interval, link state; and which bonds still have two good members.

Needs: nothing; no privilege. On Linux /proc/net/dev, /sys/class/net and /proc/net/bonding.
Reference: Documentation/networking/{operstates,statistics,bonding}.rst and ABI/testing/sysfs-class-net of the kernel.
"""

from collections.abc import Iterable, Mapping, Set
from fnmatch import fnmatchcase
from typing import ClassVar, NamedTuple

import psutil

from agent.errors import NoData
from agent.language import say
from agent.points import Value
from agent.rates import Rates
from agent.sources import Reading, SourceConfig, Surroundings
from agent.sources._kernel_files import read_attribute, read_kernel_file, translated_refusals

VIRTUAL = (
    "lo",
    "lo0",
    "Loopback*",
    "veth*",
    "vnet*",
    "tap*",
    "docker*",
    "br-*",
    "virbr*",
    "cni*",
    "cali*",
    "flannel*",
    "cilium*",
    "lxc*",
    "kube-ipvs*",
    "dummy*",
    "ifb*",
)
"""What is no cable and no bundle of cables: loopback, containers' and guests' ends, bridges of container engines."""

IFF_UP = 0x1
UNKNOWN_SPEED = 2**32 - 1
"""How kernels before 4.x print -1; later ones print -1 or 0 when the driver does not know."""
BITS_PER_MEGABIT = 1_000_000.0


class Config(SourceConfig, frozen=True, kw_only=True):
    """Which interfaces: names that match one of `include` and none of `exclude` (shell patterns)."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = VIRTUAL


class Source:
    """A reading per interface and per bond; the first round has only states and speeds."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = True

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._root = surroundings.root
        self._system = surroundings.system
        self._monotonic = surroundings.monotonic
        self._rates = Rates()
        self._seen: Set[str] = frozenset()
        self._wanted: Set[str] = frozenset()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    def collect(self) -> Iterable[Reading]:
        every = self._read_counters()
        wanted = self._choose(every.keys())
        counters = {name: counts for name, counts in every.items() if name in wanted}
        at_seconds = self._monotonic()
        links = self._read_links(counters)
        readings = []
        for name, counts in counters.items():
            fields = links.get(name, {}) | self._traffic(name, counts, at_seconds)
            _add_busy(fields)
            if fields:
                readings.append(Reading("net_interface", fields, {"interface": name}))
        readings += self._read_bonds()
        if not counters and not readings:
            raise NoData(say("没有符合 include/exclude 的网络接口", "no network interface passes include and exclude"))
        return readings

    def _read_counters(self) -> Mapping[str, Mapping[str, int]]:
        """The counters of all interfaces as the system has them: a fall must be seen, so nothing is smoothed."""
        if self._system == "linux":
            return parse_counters(read_kernel_file(f"{self._root}/proc/net/dev"))
        with translated_refusals():
            found = psutil.net_io_counters(pernic=True, nowrap=False) or {}
        return {name: counts._asdict() for name, counts in found.items()}

    def _choose(self, names: Set[str]) -> Set[str]:
        """The interfaces to report; chosen anew only when one came or went, and what went is forgotten."""
        if names != self._seen:
            self._seen = frozenset(names)
            self._wanted = frozenset(name for name in names if self._is_wanted(name))
            self._rates.keep(lambda key: isinstance(key, tuple) and key[0] in names)
        return self._wanted

    def _is_wanted(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._config.include) and not any(
            fnmatchcase(name, pattern) for pattern in self._config.exclude
        )

    def _traffic(self, name: str, counts: Mapping[str, int], at_seconds: float) -> dict[str, Value]:
        """Rates and ratios since the last round; none when any counter fell, for then the interface started anew."""
        rates: dict[str, float] = {}
        for counter, count in counts.items():
            rate = self._rates.per_second((name, counter), count, at_seconds)
            if rate is not None:
                rates[counter] = rate
        if len(rates) < len(counts):
            return {}
        fields: dict[str, Value] = {
            "in_bits_per_second": rates["bytes_recv"] * 8,
            "out_bits_per_second": rates["bytes_sent"] * 8,
        }
        packets = rates["packets_recv"] + rates["packets_sent"]
        for field, lost in (
            ("error_ratio", rates["errin"] + rates["errout"]),
            ("discard_ratio", rates["dropin"] + rates["dropout"]),
        ):
            if packets + lost:
                fields[field] = lost / (packets + lost)
        return fields

    def _read_links(self, names: Iterable[str]) -> Mapping[str, dict[str, Value]]:
        """Speed, duplex and state of each interface, without what the driver does not know."""
        if self._system == "linux":
            return {name: read_link(f"{self._root}/sys/class/net/{name}") for name in names}
        return _read_links_elsewhere()

    def _read_bonds(self) -> list[Reading]:
        folder = self._root / "proc/net/bonding"
        if self._system != "linux" or not folder.is_dir():
            return []
        readings = []
        for file in sorted(folder.iterdir()):
            try:
                bond = parse_bond(read_kernel_file(file))
            except NoData:  # taken down since the folder was listed
                continue
            active = bond.active_aggregator or self._active_aggregator(file.name)
            tags = {"group": file.name, "kind": "nic"}
            readings.append(Reading("redundant_group", judge_bond(bond, active), tags))
        return readings

    def _active_aggregator(self, bond: str) -> str:
        """From /sys, because /proc tells it to CAP_NET_ADMIN only; '' where unknown, '0' when there is none."""
        return read_attribute(f"{self._root}/sys/class/net/{bond}/bonding/ad_aggregator") or ""


def parse_counters(text: str) -> dict[str, dict[str, int]]:
    """The interfaces of /proc/net/dev: a head of two lines, then a name and 16 counters on each, received first."""
    counters = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.rpartition(":")
        counts = [int(number) for number in numbers.split()]
        counters[name.strip()] = {
            "bytes_recv": counts[0],
            "packets_recv": counts[1],
            "errin": counts[2],
            "dropin": counts[3],
            "bytes_sent": counts[8],
            "packets_sent": counts[9],
            "errout": counts[10],
            "dropout": counts[11],
        }
    return counters


def read_link(folder: str) -> dict[str, Value]:
    """The states of the interface whose folder in /sys/class/net is `folder`."""
    fields: dict[str, Value] = {}
    speed = int(read_attribute(f"{folder}/speed") or "0")
    if 0 < speed < UNKNOWN_SPEED:
        fields["speed_bits_per_second"] = speed * BITS_PER_MEGABIT
    duplex = read_attribute(f"{folder}/duplex")
    if duplex in ("full", "half"):
        fields["is_full_duplex"] = duplex == "full"
    flags = read_attribute(f"{folder}/flags")
    if flags:
        fields["is_admin_up"] = bool(int(flags, 16) & IFF_UP)
    state = read_attribute(f"{folder}/operstate")
    if state == "unknown":  # drivers without operational state (tunnels) may still know their carrier
        state = {"1": "up", "0": "down"}.get(read_attribute(f"{folder}/carrier") or "")
    if state:
        fields["is_up"] = state == "up"
    return fields


class Member(NamedTuple):
    """One interface of a bond; aggregator is '' outside 802.3ad."""

    name: str
    is_up: bool
    aggregator: str


class Bond(NamedTuple):
    """What /proc/net/bonding/<bond> says; active_aggregator is '' where it does not say."""

    is_aggregating: bool
    active_aggregator: str
    members: tuple[Member, ...]


def parse_bond(text: str) -> Bond:
    """The bond in a file of /proc/net/bonding: a head, then one paragraph per member."""
    head, *paragraphs = text.split("Slave Interface: ")
    members = []
    for paragraph in paragraphs:
        name, _, rest = paragraph.partition("\n")
        keys = _keys(rest)
        members.append(Member(name.strip(), keys.get("MII Status") == "up", keys.get("Aggregator ID", "")))
    keys = _keys(head)
    active = "0" if "has no active aggregator" in head else keys.get("Aggregator ID", "")
    return Bond("802.3ad" in keys.get("Bonding Mode", ""), active, tuple(members))


def judge_bond(bond: Bond, active_aggregator: str) -> dict[str, Value]:
    """A member is healthy with its link up and, in 802.3ad, in the aggregator that carries the traffic.

    Where the active aggregator of an 802.3ad bond is unknown so is every health.
    """
    fields: dict[str, Value] = {"members_count": float(len(bond.members)), "required_count": 1.0}
    if bond.is_aggregating and not active_aggregator:
        return fields
    healthy = sum(
        member.is_up and (not bond.is_aggregating or member.aggregator == active_aggregator) for member in bond.members
    )
    fields["healthy_count"] = float(healthy)
    fields["is_redundant"] = healthy >= 2
    fields["is_healthy"] = 0 < healthy == len(bond.members)
    return fields


def _keys(text: str) -> dict[str, str]:
    """`key: value` lines; the first of two equal keys counts (the later ones belong to details of a partner)."""
    keys: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if colon:
            keys.setdefault(key.strip(), value.strip())
    return keys


def _add_busy(fields: dict[str, Value]) -> None:
    speed, received, sent = (
        fields.get(name) for name in ("speed_bits_per_second", "in_bits_per_second", "out_bits_per_second")
    )
    if isinstance(speed, float) and isinstance(received, float) and isinstance(sent, float):
        fields["busy_ratio"] = max(received, sent) / speed


def _read_links_elsewhere() -> dict[str, dict[str, Value]]:
    """What macOS and Windows tell of each interface; whether it is switched off on purpose they do not."""
    with translated_refusals():
        links = psutil.net_if_stats()
    found = {}
    for name, link in links.items():
        fields: dict[str, Value] = {"is_up": link.isup}
        if link.speed > 0:
            fields["speed_bits_per_second"] = link.speed * BITS_PER_MEGABIT
        if link.duplex != psutil.NIC_DUPLEX_UNKNOWN:
            fields["is_full_duplex"] = link.duplex == psutil.NIC_DUPLEX_FULL
        found[name] = fields
    return found
