"""Switches, firewalls and lines of the made-up hospital. No I/O."""

from collections.abc import Iterator
from dataclasses import replace

from collector.demo import curves
from collector.demo.curves import DAY_MS, HOUR_MS, noisy, state, steady
from collector.demo.hospital import CAMPUSES, CRITICAL_SEGMENTS, GATEWAYS, LINES, Thing
from collector.demo.sampled import FIVE_MINUTES_MS, Cast, Series

PROBE = "east-telemedicine-1"
PORTS = (("core", 4, 40e9), ("aggregation", 2, 10e9))
"""Of each switch with this role: how many, bits per second."""


def network(cast: Cast) -> Iterator[Series]:
    """Every device, then the backbone of each campus."""
    for thing in cast.assets("network", "firewall"):
        yield from _device(cast, thing)
    for campus in CAMPUSES:
        for number in (1, 2):
            for role, count, speed in PORTS:
                for port in range(1, count + 1):
                    yield _interface(cast, f"{campus}-{role}-{number}", f"port-{port}", speed)
        yield from cast.redundant(f"{campus}-core-1", "link", cast.story.weak_fibre)


def _device(cast: Cast, thing: Thing) -> Iterator[Series]:
    used = 0.55 if thing.said["class"] == "network" else 0.68
    fields = {"cpu_busy_ratio": curves.busy(0.08, 0.42), "memory_used_ratio": noisy(used, 0.05)}
    load = cast.series(thing.id, "device_load", HOUR_MS, fields, component="chassis")
    yield replace(load, is_working_hours=True)
    yield cast.series(thing.id, "asset_info", DAY_MS, {"is_up": state()})
    if thing.said.get("criticality") == "critical":
        broken = (cast.story.broken_supply,) if thing.id == "east-core-1" else ()
        yield from cast.redundant(thing.id, "psu", *broken)
        yield from cast.redundant(thing.id, "fan")


def _interface(cast: Cast, asset: str, interface: str, speed: float) -> Series:
    bad = cast.story.weak_fibre if interface == "port-1" and "core-1" in asset else (0, 0)
    fields = {
        "busy_ratio": curves.busy(0.04, 0.38),
        "error_ratio": curves.during(noisy(2e-8, 2e-8), noisy(2e-4, 1e-4), bad),
        "discard_ratio": noisy(4e-7, 4e-7),
        "speed_bits_per_second": steady(speed),
        "is_up": state(),
    }
    return cast.series(asset, "net_interface", HOUR_MS, fields, interface=interface)


def lines(cast: Cast) -> Iterator[Series]:
    """The lines to the outside, and the segments that have to have two ways."""
    for number, (line, (_, _, _, rate)) in enumerate(LINES.items()):
        cut = (cast.story.line_cut,) if number else ()
        yield _line(cast, line, rate, 2.0 - number, cut)
        yield _stream(cast, line, number, cut)
    for segment in CRITICAL_SEGMENTS:
        live = {"live_paths_count": steady(2.0), "has_redundant_gateway": steady(1.0)}
        gateway = GATEWAYS["west" if "west" in segment else "east"]
        yield cast.series(gateway, "network_segment", DAY_MS, live, segment=segment)


def _line(cast: Cast, line: str, rate: float, routes: float, cut: curves.Spans) -> Series:
    fields = {
        "is_up": state(*cut),
        "live_routes_count": steady(routes),
        "has_tested_fallback": steady(1.0),
        "committed_bits_per_second": steady(rate),
    }
    return replace(cast.series(PROBE, "line", HOUR_MS, fields, line=line), close=cut)


def _stream(cast: Cast, line: str, number: int, cut: curves.Spans) -> Series:
    fields = {
        "is_reachable": state(*cut),
        "rtt_seconds": noisy(0.021 + 0.01 * number, 0.006),
        "one_way_delay_seconds": noisy(0.011 + 0.006 * number, 0.004),
        "jitter_seconds": noisy(0.0016 + 0.001 * number, 0.002),
        "loss_ratio": curves.during(noisy(2e-4, 3e-4), steady(1.0), *cut),
    }
    path = cast.series(PROBE, "path_probe", FIVE_MINUTES_MS, fields, target=line, probe="stream")
    return replace(path, is_working_minutes=True)
