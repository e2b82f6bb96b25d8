"""What follows from the answers of a path probe's targets: services, witnesses, lines and the links between sites, segments."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.points import Value
from agent.sources import Reading
from agent.sources._path_targets import Line, Segment, Target

Fields = dict[str, Value]


def read_services(targets: Sequence[Target], probe: str, found: Mapping[str, Fields]) -> list[Reading]:
    """A probe of a service for each target that stands for one; of several the best counts: any way will do."""
    services: dict[str, Fields] = {}
    for target in targets:
        if target.service is None:
            continue
        fields: Fields = {"is_up": found[target.name]["is_reachable"]}
        if "rtt_seconds" in found[target.name]:
            fields["latency_seconds"] = found[target.name]["rtt_seconds"]
        if not services.get(target.service, {}).get("is_up"):
            services[target.service] = fields
    return [
        Reading("service_probe", fields, {"service": service, "probe": probe}) for service, fields in services.items()
    ]


def read_witnesses(targets: Sequence[Target], found: Mapping[str, Fields]) -> list[Reading]:
    """Of a witness with several addresses any will do."""
    reached: dict[str, bool] = {}
    for target in targets:
        if target.witness is not None:
            is_there = bool(found[target.name]["is_reachable"])
            reached[target.witness] = reached.get(target.witness, False) or is_there
    return [
        Reading("quorum", {"is_witness_reachable": is_there}, {"cluster": cluster})
        for cluster, is_there in reached.items()
    ]


def read_lines(lines: Mapping[str, Line], live: set[str], root: Path) -> list[Reading]:
    """live: the targets that are reachable. root: where this machine's /sys lies."""
    readings = []
    for name, line in lines.items():
        providers = {route.provider for route in line.routes if live & set(route.targets)}
        has_fallback = bool(live & set(line.fallback))
        fields: Fields = {
            "is_up": bool(providers) or has_fallback,
            "live_routes_count": len(providers),
            "has_tested_fallback": has_fallback,
        }
        if (committed := _committed(line, root)) is not None:
            fields["committed_bits_per_second"] = committed
        readings.append(Reading("line", fields, {"line": name}))
        if line.between_sites:
            readings.append(_read_links(name, line, live))
    return readings


def _committed(line: Line, root: Path) -> float | None:
    """What the line's interface runs at, at most what was promised; None when nobody can say."""
    promised = line.committed_bits_per_second
    if line.interface is None:
        return promised
    speed = _read_speed(root / "sys/class/net" / line.interface / "speed")
    return None if speed is None else min(speed, promised or speed)


def read_segments(segments: Mapping[str, Segment], live: set[str]) -> list[Reading]:
    """live: the targets that are reachable."""
    return [
        Reading(
            "network_segment",
            {
                "live_paths_count": len(live & set(segment.paths)),
                "has_redundant_gateway": len(live & set(segment.gateways)) > 1,
            },
            {"segment": name},
        )
        for name, segment in segments.items()
    ]


def _read_links(name: str, line: Line, live: set[str]) -> Reading:
    """The links between two sites, one for each route, whoever provides it."""
    up = sum(bool(live & set(route.targets)) for route in line.routes)
    fields: Fields = {
        "members_count": len(line.routes),
        "healthy_count": up,
        "is_healthy": up == len(line.routes),
        "is_redundant": up > 1,
    }
    return Reading("redundant_group", fields, {"group": name, "kind": "link"})


def _read_speed(path: Path) -> float | None:
    """Bits per second of an interface that is up and knows."""
    try:
        megabits = float(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return megabits * 1e6 if megabits > 0 else None
