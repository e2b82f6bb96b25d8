"""What happened once in the made-up year: outages, drills, restore tests, and what a day brings. No I/O."""

from collections.abc import Iterator, Mapping

from agent.points import Point, Value
from collector.demo import curves
from collector.demo.curves import HOUR_MS
from collector.demo.hospital import GATEWAYS
from collector.demo.story import Story

BACKUP, SECURITY, GATEWAY = "east-backup-1", "east-security-1", GATEWAYS["east"]
Event = tuple[str, Point]
"""The agent that says it, and what."""


def events(story: Story) -> Iterator[Event]:
    """Everything that happened once."""
    yield from _outages(story)
    yield from _drills(story)
    for system, at, seconds in story.restore_tests():
        yield _event(BACKUP, "restore_test", at, {"is_passed": 1.0, "duration_seconds": seconds}, system=system)
    for day in range(364, 0, -1):
        yield from _daily(story, day)


def _event(asset: str, measurement: str, at: int, fields: Mapping[str, Value], **tags: str) -> Event:
    return asset, Point(measurement, {"asset": asset, **tags}, fields, at)


def _outages(story: Story) -> Iterator[Event]:
    for outage in story.outages():
        fields = {
            "duration_seconds": (outage.end - outage.start) / 1000,
            "is_automatic": float(outage.is_automatic),
            "lost_tokens_count": float(outage.lost_tokens),
        }
        yield _event(GATEWAY, "outage", outage.end, fields, service=outage.service)


def _drills(story: Story) -> Iterator[Event]:
    for drill in story.drills():
        fields = {
            "rto_seconds": drill.rto,
            "rpo_seconds": drill.rpo,
            "lost_tokens_count": drill.rpo * 10,
            "is_passed": float(drill.is_passed),
            "is_planned": 1.0,
            "is_automatic": float(drill.is_automatic),
            "sent_count": 6_000.0,
            "acknowledged_count": max(0.0, 6_000.0 - 10 * drill.rto),
        }
        yield _event(GATEWAY, "drill", drill.at, fields, service=drill.service, drill=drill.id)


def _daily(story: Story, day: int) -> Iterator[Event]:
    seed = curves.seed_of("day", str(day))
    at = story.at(day) + seed % 20 * HOUR_MS + seed % 3_600_000
    if seed % 9 == 0:
        yield _event(GATEWAY, "alarm", at, {"acknowledged_after_seconds": 120.0 + seed % 700}, severity="critical")
    if seed % 23 == 0:
        contained = {"is_contained": 1.0, "contained_after_seconds": 40.0 + seed % 90, "is_automatic": 1.0}
        yield _event(SECURITY, "rogue_wireless", at, contained, kind="rogue-ap")
    if seed % 40 == 0:
        yield _event(SECURITY, "illegal_connection", at, {"is_blocked": 1.0}, kind="dual-homed")
    moved = {"is_success": float(seed % 60 > 0), "is_automatic": 1.0, "duration_seconds": 900.0 + seed % 600}
    yield _event(BACKUP, "lifecycle_job", story.at(day) + 4 * HOUR_MS, moved, job="to-archive")
