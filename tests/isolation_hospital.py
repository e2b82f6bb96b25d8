"""Five zones behind a firewall with a known policy, a prober and a responder in each: what the isolation tests share."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from namespaces import Network, zones

from agent.broker import Secret
from agent.points import Value
from agent.sources import Reading, Surroundings
from agent.sources.isolation_probe import Config as ProbeConfig
from agent.sources.isolation_probe import Source as Probe
from agent.sources.isolation_probe import Target
from agent.sources.isolation_responder import Config as ResponderConfig
from agent.sources.isolation_responder import Source as Responder

ZONES = ("medical", "device", "office", "dmz", "outside")
WAYS = ("tcp/22", "tcp/443", "tcp/5432", "udp/53", "udp/161", "icmp")
ALLOWED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("medical", "device"): ("tcp/443", "icmp"),
    ("medical", "dmz"): ("tcp/443",),
    ("device", "medical"): ("tcp/443",),
    ("office", "medical"): ("tcp/443",),
    ("office", "dmz"): ("tcp/443", "udp/53", "icmp"),
    ("office", "outside"): ("tcp/443", "udp/53"),
    ("outside", "dmz"): ("tcp/443",),
}
"""What the policy opens; everything else between two zones is blocked."""

INWARD = frozenset({("outside", "medical"), ("outside", "device"), ("outside", "office")})
"""Between these not even the control may pass inward: the responder calls out."""

CONTROL_PORT, CALL_PORT = 7177, 7178
Cell = tuple[str, str, str, str]
"""from_zone, to_zone, protocol, port"""


@dataclass
class IsolationHospital:
    """The zones, their addresses, and what answers in each. extra: further rules of the firewall, before its end."""

    network: Network
    folder: Path
    addresses: dict[str, str] = field(default_factory=dict)
    responders: dict[str, Responder] = field(default_factory=dict)

    def build(self, names: Iterable[str] = ZONES) -> "IsolationHospital":
        names = tuple(names)
        self.network.add("fw", *names)
        self.addresses = dict(zip(names, zones(self.network, "fw", names), strict=True))
        self.key.write_text("a key of this test and of no other\n")
        self.put_in_force()
        return self

    @property
    def key(self) -> Path:
        return self.folder / "probe.key"

    def ipv6(self, zone: str) -> str:
        return f"fd00:77:{list(self.addresses).index(zone) + 1}::10"

    def put_in_force(self, extra: str = "", firewall: str = "fw", policy: str = "drop") -> None:
        """Put the whole policy in force, with further rules in front."""
        rules = ["flush ruleset", "table inet hospital {", "chain zones {"]
        rules += [f"type filter hook forward priority 0; policy {policy};"]
        rules += ["ct state established,related counter accept"]
        rules += extra.splitlines()
        for (a, b), ways in ALLOWED.items():
            rules += [f'iifname "{a}" oifname "{b}" {match(way)} counter accept' for way in ways]
        for a in self.addresses:
            for b in self.addresses:
                if (a, b) not in INWARD and a != b:
                    rules.append(f'iifname "{a}" oifname "{b}" tcp dport {CONTROL_PORT} counter accept')
        rules += [f'iifname "{b}" oifname "{a}" tcp dport {CALL_PORT} counter accept' for a, b in INWARD]
        self.network[firewall].nft("\n".join([*rules, "}", "}"]))

    def answer(self, *names: str, listen: tuple[str, ...] = WAYS) -> None:
        """Start the responders of these zones, of all by default."""
        for zone in names or self.addresses:
            callers = [a for a, b in INWARD if b == zone and a in self.addresses]
            calls = [f"{address}:{CALL_PORT}" for a in callers for address in (self.addresses[a], f"[{self.ipv6(a)}]")]
            config = ResponderConfig(key=Secret(file=str(self.key)), listen=listen, call=tuple(calls))
            responder = self.responders[zone] = Responder(config, Surroundings(asset=f"{zone}-probe"))
            self.network[zone].do(responder.open())

    def close(self) -> None:
        for zone, responder in self.responders.items():
            self.network[zone].do(responder.close())
        self.responders.clear()

    def targets(self, zone: str, to: Iterable[str] | None = None, ipv6: bool = False) -> list[Target]:
        """The policy of one zone towards others."""
        return [
            Target(
                zone=other,
                address=self.ipv6(other) if ipv6 else self.addresses[other],
                allowed=ALLOWED.get((zone, other), ()),
                blocked=tuple(way for way in WAYS if way not in ALLOWED.get((zone, other), ())),
                control_port=CONTROL_PORT,
                calls=(zone, other) in INWARD,
            )
            for other in (to or self.addresses)
            if other != zone
        ]

    def prober(
        self,
        zone: str,
        targets: list[Target],
        kind: type[Probe] = Probe,
        retries: int = 0,
        pause_seconds: float = 0.5,
        deadline_seconds: float = 50.0,
    ) -> Probe:
        """A prober of a zone, not yet open."""
        config = ProbeConfig(
            zone=zone,
            key=Secret(file=str(self.key)),
            targets=tuple(targets),
            call_port=CALL_PORT,
            timeout_seconds=1.2,
            probes_per_second=400,
            control_retries=retries,
            control_pause_seconds=pause_seconds,
            deadline_seconds=deadline_seconds,
        )
        return kind(config, Surroundings(asset=f"{zone}-probe"))

    @contextlib.contextmanager
    def probing(self, zone: str, targets: list[Target], kind: type[Probe] = Probe) -> Iterator[Probe]:
        """An open prober inside its zone."""
        probe = self.prober(zone, targets, kind)
        self.network[zone].do(probe.open())
        try:
            yield probe
        finally:
            self.network[zone].do(probe.close())


def match(way: str) -> str:
    """A way as nft matches it, over both families."""
    base, _, port = way.partition("/")
    return f"{base} dport {port}" if port else "meta l4proto { icmp, icmpv6 }"


def cells(readings: Iterable[Reading]) -> dict[Cell, Mapping[str, object]]:
    """The cells of some rounds, by what they are about."""
    return {
        (one.tags["from_zone"], one.tags["to_zone"], one.tags["protocol"], one.tags["port"]): one.fields
        for one in readings
        if one.name == "isolation_cell"
    }


def controls(readings: Iterable[Reading]) -> dict[tuple[str, str], object]:
    """Whether the control of each pair was seen."""
    return {
        (one.tags["from_zone"], one.tags["to_zone"]): one.fields["is_seen"]
        for one in readings
        if one.name == "isolation_control"
    }


def breached(readings: Iterable[Reading]) -> set[Cell]:
    """The cells that are open and must not be."""
    return {cell for cell, fields in cells(readings).items() if fields["is_breached"]}


def unexpected(readings: Iterable[Reading]) -> set[Cell]:
    """The cells that were not proven to be as the policy says."""
    return {cell for cell, fields in cells(readings).items() if not fields["is_as_expected"]}


async def say_fine(probe: Probe) -> list[Reading]:
    """The mutant's round: whatever came back, every cell is as the policy says, proven, and every control was seen."""
    readings = await REAL_ROUND(probe)
    return [Reading(one.name, {**one.fields, **_fine(one)}, one.tags) for one in readings]


REAL_ROUND = Probe.collect


def _fine(reading: Reading) -> dict[str, Value]:
    if reading.name != "isolation_cell":
        return {"is_seen": True} if "is_seen" in reading.fields else {}
    is_allowed = bool(reading.fields.get("is_allowed"))
    verdict: dict[str, Value] = {"is_as_expected": True, "is_proven": True, "is_breached": False}
    return {**verdict, "is_reached": is_allowed, "outcome": 1 if is_allowed else 2}
