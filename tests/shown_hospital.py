"""A made-up hospital for whoever shows one: two sites whose points go through the whole line into InfluxDB, and their scorecards.

Simulated: the values are made here, in the ranges of the catalogue; everything behind them is the product.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from influxstore import KeptInInfluxDB
from line import Agent, follow, make_ingest, running
from servers import Mosquitto, until_async

from agent.catalogue import Field, load, unit
from agent.mqtt import Broker, MqttLink
from agent.points import Point, Value
from agent.spool import Spool
from agent.wire import Address
from collector.evaluate import Rules, format_time
from collector.inquiry import Site
from collector.quarantine import Quarantine
from collector.query import DAY_MS, HOUR_MS
from collector.server import Evaluator, StoreThreads
from collector.site_files import read_site_folder
from collector.stores import LATENESS_MS

MINUTE_MS = 60_000
MAIN, TROUBLED, DEAD = "hospital", "campus", "clinic"
"""All is well in the first; the second reports trouble; in the third all is silent, its collector too."""

CATALOGUE = load()
USUAL: Mapping[str, float] = {"s": 0.02, "B": 2.0**30, "1": 0.25, "bit/s": 1e8, "B/s": 1e6, "°C": 31.0, "": 2.0}
"""A unit of the catalogue -> a value that most of its fields may have."""


class Series(NamedTuple):
    """What one asset reports of one thing: every so many minutes for so many hours, values that differ from the usual."""

    measurement: str
    tags: Mapping[str, str] = {}
    every_minutes: int = 30
    hours: float = 26.0
    values: Mapping[str, Value] = {}


OF_SERVER = (
    Series("host_cpu"),
    Series("host_memory"),
    Series("host_uptime"),
    Series("host_clock"),
    Series("filesystem", {"mount": "/"}),
    Series("disk_device", {"device": "sda"}),
    Series("net_interface", {"interface": "eth0"}),
    Series("redundant_group", {"group": "bond0", "kind": "nic"}),
    Series("role_group", {"group": "his", "kind": "database"}),
    Series("sensor", {"sensor": "board"}),
    Series("device_load", {"component": "board"}),
    Series("power_supply", {"ups": "ups-a"}),
    Series("storage_pool", {"pool": "pool-1"}),
    Series("replication", {"pair": "his"}),
    Series("backup_copy", {"system": "his", "copy": "nas"}),
    Series("poll", {"target": "his-1"}),
    Series("service_unit", {"unit": "his.service"}),
    Series("source_round", {"source": "host_cpu", "target": "local"}, 5),
    Series("source_round", {"source": "host_disk", "target": "local"}, 5, values={"is_success": 0.0}),
    Series("asset_info", every_minutes=60),
    Series("device_event", {"kind": "fan", "notification": "fanFailed", "part": "fan-1"}, 600),
    Series("agent_health", every_minutes=1, hours=2.0),
    Series("service_probe", {"service": "his", "probe": "ward"}, 5),
    Series("outage", {"service": "his"}, 60 * 24 * 20, 24 * 90, {"duration_seconds": 95.0}),
    Series(
        "drill", {"service": "his", "drill": "d-1"}, 60 * 24 * 70, 24 * 71, {"rto_seconds": 95.0, "rpo_seconds": 0.0}
    ),
    # the site is older than its oldest scorecard: before its first point there is none
    Series("restore_test", {"system": "his"}, 60 * 24 * 100 + 180, 24 * 201),
    Series("line", {"line": "city-line"}, 5),
    Series("path_probe", {"target": "partner", "probe": "consult-1"}, 5, values={"loss_ratio": 0.0}),
)
OF_PROBE = (
    Series("agent_health", every_minutes=1, hours=2.0),
    Series("isolation_cell", {"from_zone": "office", "to_zone": "core", "protocol": "tcp", "port": "1433"}, 10,
           values={"is_allowed": 0.0, "is_reached": 0.0, "is_breached": 0.0, "outcome": 2.0}),
    Series("isolation_cell", {"from_zone": "office", "to_zone": "core", "protocol": "tcp", "port": "443"}, 10,
           values={"is_breached": 0.0, "outcome": 1.0}),
    Series("isolation_cell", {"from_zone": "core", "to_zone": "office", "protocol": "tcp", "port": "22"}, 10,
           values={"is_allowed": 0.0, "is_reached": 0.0, "is_breached": 0.0, "outcome": 2.0}),
    Series("isolation_control", {"from_zone": "office", "to_zone": "core"}, 10),
)  # fmt: skip
OF_TROUBLED = (
    Series("agent_health", every_minutes=1, hours=2.0, values={"spool_oldest_age_seconds": 7200.0}),
    Series("isolation_cell", {"from_zone": "outside", "to_zone": "core", "protocol": "tcp", "port": "3389"}, 10,
           values={"is_allowed": 0.0, "is_as_expected": 0.0, "outcome": 1.0}),
    Series("line", {"line": "campus-line"}, 1, 1.0, {"is_up": 0.0, "live_routes_count": 0.0}),
    Series("path_probe", {"target": "partner", "probe": "campus"}, 1, 1.0,
           {"one_way_delay_seconds": 0.5, "jitter_seconds": 0.2, "loss_ratio": 0.25}),
    Series("no_such_measurement", every_minutes=60, hours=1.5),
)  # fmt: skip
OF_SILENT = (Series("agent_health", every_minutes=1, hours=2.0), Series("host_cpu"))


class Shown(NamedTuple):
    """One site: what its agents report until so many hours ago, the hours before now whose scorecards there are, its folder's files."""

    agents: Mapping[str, Sequence[Series]]
    scored_hours_back: Sequence[int]
    files: Callable[[int], Mapping[str, str]]
    silent_hours: int = 0


REGISTER = """
zones: {core: {}, office: {}}
services: {his: {criticality: critical, assets: [his-1]}}
links: {city-line: {role: telemedicine, provider: telecom-a}}
assets:
  his-1: {class: server, criticality: critical, zone: core, role: [database], reporters: [his-1]}
  office-probe: {class: server, zone: office, reporters: [office-probe]}
"""


def vouched(criterion: str, begin: int, end: int) -> str:
    """An entry of attestations.yaml from and until (ms)."""
    term = f'from: "{format_time(begin)}", expires: "{format_time(end)}"'
    return f"- {{criterion: {criterion}, value: 1, author: 王工, role: 信息科, reason: 已核对, {term}}}\n"


def quiet_folder(now: int) -> Mapping[str, str]:
    """A register, and what holds for long, some of it since three hours only: scores that rose since yesterday."""
    ends = now + 300 * DAY_MS
    return {
        "register.yaml": REGISTER,
        "attestations.yaml": vouched("ev-dr-plan", now - 30 * DAY_MS, ends)
        + vouched("ev-zone-map", now - 3 * HOUR_MS, ends)
        + vouched("mlps-assessment-assessed", now - 30 * DAY_MS, ends)
        + vouched("public-imaging-assessed", now - 3 * HOUR_MS, ends),
    }


def troubled_folder(now: int) -> Mapping[str, str]:
    """One that ends in ten days, and two that ended ten hours ago and take seven points of the whole index along."""
    begun, ended = now - 30 * DAY_MS, now - 10 * HOUR_MS
    ending = vouched("ev-dr-plan", begun, now + 10 * DAY_MS)
    over = [vouched(name, begun, ended) for name in ("mlps-assessment-assessed", "public-imaging-assessed")]
    return {"attestations.yaml": ending + "".join(over)}


SITES: Mapping[str, Shown] = {
    MAIN: Shown({"his-1": OF_SERVER, "office-probe": OF_PROBE}, (0, 1, 23, 24, 25, 30 * 24, 200 * 24), quiet_folder),
    TROUBLED: Shown({"campus-1": OF_TROUBLED}, (0, 24), troubled_folder),
    DEAD: Shown({"clinic-1": OF_SILENT}, (5,), lambda now: {}, silent_hours=4),
}


def value_of(name: str, field: Field, step: int) -> Value:
    """A value that the field may have; numbers go up and down a little."""
    if not field.is_number:
        return f"made-up {name}"
    if field.kind == "state":
        return 1.0
    usual = USUAL[unit(name)] * (1 + 0.2 * math.sin(step / 5))
    return min(max(usual, field.least), field.greatest)


def points_of(asset: str, series: Series, now: int) -> Iterator[Point]:
    """The points of a series until now."""
    known = CATALOGUE.measurements.get(series.measurement)
    first = now - int(series.hours * HOUR_MS)
    for step, at in enumerate(range(now - 5000, first, -series.every_minutes * MINUTE_MS)):
        tags = {"asset": asset, **series.tags}
        if known is None:
            yield Point(series.measurement, tags, {"value": 1.0}, at)
            continue
        values = {name: value_of(name, field, step) for name, field in known.fields.items()} | dict(series.values)
        yield Point(series.measurement, tags, CATALOGUE.settle(series.measurement, values), at)


class ShownHospital:
    """The sites on a server of their own. now: until when their points go. seen_at: when all of it was stored."""

    def __init__(self, folder: Path, rules: Rules) -> None:
        self.folder, self.rules = folder, rules
        self.kept = KeptInInfluxDB(folder)
        self.now = self.seen_at = int(time.time() * 1000)

    async def fill(self) -> None:
        """Points through the broker, then the scorecards of some hours."""
        settings = f"allow_anonymous true\npersistence_location {self.folder}/broker/"
        with Mosquitto(self.folder / "broker", settings) as mosquitto, self.kept.open() as store:
            threads = StoreThreads(store)
            with Quarantine(self.folder / "quarantine.sqlite") as quarantine:
                for name, site in SITES.items():
                    await self._send(name, site, threads, quarantine, Broker("127.0.0.1", port=mosquitto.port))
            for name, site in SITES.items():
                await self._score(name, site, threads)
            threads.close()
        self.seen_at = int(time.time() * 1000)

    async def _send(
        self, name: str, site: Shown, threads: StoreThreads, quarantine: Quarantine, broker: Broker
    ) -> None:
        is_subscribed = asyncio.Event()
        ingest = make_ingest(threads, quarantine)
        until = self.now - site.silent_hours * HOUR_MS
        async with running(ingest.run(follow(broker, f"collector-{name}", is_subscribed, name))):
            await until_async(is_subscribed.is_set)
            for agent_name, series in site.agents.items():
                address = Address(name, agent_name)
                await asyncio.to_thread(self._make, address, series, until)
                agent = Agent(self.folder, MqttLink(broker, address), address)
                async with running(agent.publisher.run()):
                    await agent.drain()
        refused = {reason: count for reason, count in ingest.counts().set_aside.items() if count}
        assert bool(refused) == (name == TROUBLED), f"{name}: {refused}"

    def _make(self, address: Address, several: Sequence[Series], until: int) -> None:
        """Everything into the spool, made at `until` by an agent that has gone since."""
        spool = Spool(
            self.folder / f"{address.agent}.sqlite",
            max_bytes=2**25,
            max_age_seconds=1e9,
            new_boot=lambda: f"made-{address.agent}",
            clock=lambda: until / 1000,
        )
        every = [point for one in several for point in points_of(address.agent, one, until)]
        for start in range(0, len(every), 500):
            spool.put(every[start : start + 500])
        spool.close()

    async def _score(self, name: str, site: Shown, threads: StoreThreads) -> None:
        folder = self.folder / f"site-{name}"
        folder.mkdir()
        for file, text in site.files(self.now).items():
            (folder / file).write_text(text, "utf-8")
        scored = Site(name, ZoneInfo("Asia/Shanghai"), read_site_folder(folder)[0])
        newest = (self.now - LATENESS_MS) // HOUR_MS * HOUR_MS
        evaluator = Evaluator(threads, self.rules, scored, dict, clock=lambda: self.now / 1000)
        for back in sorted(site.scored_hours_back, reverse=True):
            assert await evaluator.keep(newest - back * HOUR_MS) >= 1
