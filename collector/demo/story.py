"""What happened in the made-up year: failovers, drills, a bad week, a sensor that died. No I/O.

Everything is told in days before the end, so that the demo is the same hospital whenever it is made.
"""

from collections.abc import Iterator
from typing import NamedTuple

from collector.demo.curves import DAY_MS, HOUR_MS, ZONE_MS
from collector.demo.hospital import SERVICES

MINUTE_MS = 60_000


class Outage(NamedTuple):
    """A service that was away. Times in milliseconds."""

    service: str
    start: int
    end: int
    is_automatic: bool
    lost_tokens: int


class Drill(NamedTuple):
    """A planned switch of one service. rto, rpo: seconds."""

    service: str
    id: str
    at: int
    rto: float
    rpo: float
    is_passed: bool
    is_automatic: bool


_OUTAGES = (
    ("his", 301.35, 41, True, 0),
    ("lis", 284.62, 58, True, 0),
    ("pacs", 262.11, 760, False, 12),
    ("emr", 241.43, 36, True, 0),
    ("pharmacy", 219.57, 88, True, 0),
    ("integration", 176.48, 52, True, 0),
    ("lis", 152.66, 47, True, 0),
    ("his", 131.40, 39, True, 0),
    ("pacs", 109.52, 96, True, 3),
    # the bad week
    ("his", 73.42, 214, True, 2),
    ("emr", 73.42, 231, True, 0),
    ("pacs", 72.58, 2_640, False, 41),
    ("integration", 70.47, 1_260, False, 0),
    ("his", 69.60, 75, True, 0),
    # since then
    ("lis", 51.44, 49, True, 0),
    ("emr", 33.61, 34, True, 0),
    ("pharmacy", 12.39, 61, True, 0),
)
"""Service, days before the end, seconds, whether it came back by itself, lost tokens."""

_DRILLS = (
    (340, {"his": (63, 0, False), "emr": (58, 0, False), "pacs": (2_950, 20, False)}),
    (250, {"his": (48, 0, True), "lis": (44, 0, True), "integration": (71, 0, True), "pharmacy": (95, 0, True)}),
    (160, {"his": (41, 0, True), "emr": (39, 0, True), "pacs": (610, 4, False)}),
    (62, {"his": (38, 0, True), "emr": (36, 0, True), "lis": (42, 0, True), "pacs": (118, 0, True)}),
    (27, {"his": (35, 0, True), "integration": (55, 0, True), "pharmacy": (64, 0, True)}),
)
"""Days before the end: service -> RTO, RPO, whether it switched by itself. More than 600 s is not passed."""


class Story:
    """The year that ends at `end` (milliseconds)."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.midnight = end - (end + ZONE_MS) % DAY_MS
        self.bad_week = self.span(75, 68)
        self.weak_fibre = self.span(73.5, 70.2)
        """The fibre between the campuses lost packets."""
        self.lost_power = self.span(73.45, 73.2)
        self.broken_supply = self.span(73.45, 71.4)
        """A power supply of the east core switch."""
        self.late_backup = self.span(74.1, 71.0)
        self.open_database = self.span(72.0, 69.0)
        """A database port could be reached from outside."""
        self.hole = self.span(71.6, 68.9)
        """A way from the office zone into the devices that the policy forbids."""
        self.dead_agent = self.span(9.4, 8.1)
        """The gateway of the west campus did not run."""
        self.line_cut = self.span(41.55, 41.41)
        """An excavator and the alliance's line."""
        self.dead_sensor = self.span(20.5, 18.0)

    def at(self, days: float) -> int:
        """So many days before the last midnight, to the minute."""
        return self.midnight - round(days * DAY_MS / MINUTE_MS) * MINUTE_MS

    def span(self, earlier: float, later: float) -> tuple[int, int]:
        """From one moment to the other."""
        return self.at(earlier), self.at(later)

    def outages(self) -> Iterator[Outage]:
        """In order of time."""
        for service, days, seconds, is_automatic, lost in _OUTAGES:
            start = self.at(days)
            yield Outage(service, start, start + seconds * 1000, is_automatic, lost)

    def drills(self) -> Iterator[Drill]:
        """In order of time; one service after the other in the night of a drill."""
        for days, services in _DRILLS:
            for number, (service, (rto, rpo, is_automatic)) in enumerate(services.items()):
                at = self.at(days) + 22 * HOUR_MS - ZONE_MS % HOUR_MS + number * 20 * MINUTE_MS
                name = f"drill-{days:03}-{service}"
                yield Drill(service, name, at, rto, rpo, rto <= 600 and rpo == 0, is_automatic)

    def away(self, service: str) -> tuple[tuple[int, int], ...]:
        """When this service could not be reached."""
        drilled = ((one.at, one.at + round(one.rto * 1000)) for one in self.drills() if one.service == service)
        return (*((one.start, one.end) for one in self.outages() if one.service == service), *drilled)

    def restore_tests(self) -> Iterator[tuple[str, int, float]]:
        """System, when, seconds: each system once a quarter; pharmacy's last one is long ago."""
        for number, system in enumerate(SERVICES):
            for days in (330, 240, 150, 60) if system != "pharmacy" else (330,):
                yield system, self.at(days - number), 1_800.0 + 300 * number
