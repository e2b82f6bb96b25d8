"""A small hospital in a real store: one server, one gateway, one server that went silent, and what goes wrong there."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import pytest

from agent.points import Point
from collector.evaluate import Rules, parse_time
from collector.health import Commands, Snapshot
from collector.inquiry import Site
from collector.reasons import Reason
from collector.ruleset import load_rules
from collector.server import Evaluator, StoreThreads
from collector.stores import AppliedBatch, Store, load_store
from collector.web.serving import PageServer

NOW = parse_time("2026-03-31T09:40:20+08:00")
DAY = 86_400_000
STEP = 900_000
SPAN = 8 * DAY
HOSTILE = "eth<script>alert(1)</script>"
"""What a driver or an administrator may call an interface; ids are checked, such names are not."""

COMMANDS = Commands("/opt/infravitals/bin/infravitals", "--data-dir '/srv/a hospital'")

SILENT_SINCE = NOW - 5 * 3_600_000


def every(step: int, until: int = NOW) -> range:
    """Times of a drift-free schedule over the whole span."""
    return range(until - SPAN + 7_000, until, step)


def rounds(asset: str, source: str, until: int, target: str = "local", **fields: float) -> list[Point]:
    """The runner's own points of one source."""
    usual = {"duration_seconds": 0.0125, "is_success": 1.0, "interval_seconds": STEP / 1000, "points_count": 6.0}
    tags = {"asset": asset, "source": source, "target": target}
    return [Point("source_round", tags, {**usual, **fields}, at) for at in every(STEP, until)]


def steady(name: str, asset: str, step: int = STEP, until: int = NOW, /, **fields: float) -> Callable[..., list[Point]]:
    """Points of one series that never changes; its tags are given to what this gives."""

    def series(**tags: str) -> list[Point]:
        return [Point(name, {"asset": asset, **tags}, fields, at) for at in every(step, until)]

    return series


def server_points() -> list[Point]:
    """his-db-01: all well but for one source that fails and one that has nothing to measure."""
    name = "his-db-01"
    points = [*rounds(name, "host_cpu", NOW), *rounds(name, "host_network", NOW), *rounds(name, "host_disk", NOW)]
    points += rounds(name, "host_raid", NOW, points_count=0.0)
    points += rounds(name, "systemd_units", NOW, is_success=0.0, points_count=0.0, duration_seconds=10.0)
    points += steady("net_interface", name, speed_bits_per_second=1e10, busy_ratio=0.25, is_up=1.0)(interface="bond0")
    points += steady("net_interface", name, speed_bits_per_second=1e9, busy_ratio=0.5, is_up=1.0)(interface=HOSTILE)
    points += steady("redundant_group", name, is_healthy=1.0, healthy_count=2.0)(group="bond0", kind="nic")
    points += steady("agent_health", name, spool_batches_count=0.0, spool_bytes=0.0, resident_bytes=33.5 * 2**20)()
    points += [Point("asset_info", {"asset": name}, {"is_virtual": 0.0, "is_up": 1.0}, at) for at in every(3_600_000)]
    return points


def gateway_points() -> list[Point]:
    """gw-core: what cannot run code; one of three log origins is kept too short, one platform member is lost."""
    points = [*rounds("sw-core-1", "snmp", NOW, "sw-core-1"), *rounds("sw-core-2", "snmp", NOW, "sw-core-2")]
    for origin, days in (("network", 200.0), ("server", 210.0), ("emr-database", 100.0)):
        points += steady("log_archive", "log-platform", oldest_age_seconds=days * 86_400)(origin=origin)
    for member, is_reporting in (("esxi-01", 1.0), ("esxi-02", 1.0), ("pacs-vm-07", 0.0)):
        points += steady("platform_member", "vcenter", 300_000, is_reporting=is_reporting)(member=member)
    for record in ("inpatient", "outpatient"):
        points += steady("retention_policy", "emr-archive", is_conformant=1.0)(**{"class": record})
    return points


def silent_points() -> list[Point]:
    """pacs-02: nothing for five hours."""
    return [
        *rounds("pacs-02", "host_cpu", SILENT_SINCE),
        *rounds("pacs-02", "host_disk", SILENT_SINCE),
        *steady("agent_health", "pacs-02", STEP, SILENT_SINCE, spool_batches_count=412.0, resident_bytes=2.0**25)(),
    ]


def batch(agent: str, seq: int, points: Sequence[Point], at: int, set_aside: int = 0) -> AppliedBatch:
    """One applied batch of the hospital."""
    return AppliedBatch("renmin", agent, f"boot-{agent}", seq, f"boot-{agent}/{seq}", at, at, points, set_aside, ())


def fill(store: Store) -> None:
    """Everything that the agents sent; numbers 3 to 5 of the silent one never came."""
    silent = silent_points()
    store.write(
        [
            batch("his-db-01", 0, server_points(), NOW - 20_000),
            batch("gw-core", 0, gateway_points(), NOW - 20_000, set_aside=3),
            batch("pacs-02", 2, silent[:100], SILENT_SINCE - 60_000),
            batch("pacs-02", 6, silent[100:], SILENT_SINCE),
        ]
    )


def look(store: Store, rules: Rules, set_aside: Mapping[Reason, int]) -> Snapshot:
    """The collector's own snapshot, taken in a thread of its own: the browser's library keeps a loop in this one."""
    threads = StoreThreads(store)
    site = Site("renmin", ZoneInfo("Asia/Shanghai"))
    evaluator = Evaluator(threads, rules, site, lambda: set_aside, lambda: NOW / 1000, COMMANDS)
    with ThreadPoolExecutor(1) as alone:
        shown = alone.submit(lambda: asyncio.run(evaluator.look())).result()
    threads.close()
    return shown


@pytest.fixture(scope="session")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="session")
def snapshot(rules: Rules) -> Snapshot:
    """What the faces show of that hospital."""
    module = load_store("duckdb")
    set_aside = {Reason.TOO_EARLY: 2, Reason.OUT_OF_RANGE: 1}
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        fill(store)
        return look(store, rules, set_aside)


@pytest.fixture(scope="session")
def empty_snapshot(rules: Rules) -> Snapshot:
    """What the faces show before any agent has sent anything."""
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        return look(store, rules, {})


@pytest.fixture(scope="session")
def just_begun(rules: Rules) -> Snapshot:
    """What the faces show when the first agent has sent its first points: no bucket is closed yet."""
    module = load_store("duckdb")
    at = NOW - 15_000
    tags = {"asset": "his-db-01", "source": "host_cpu", "target": "local"}
    points = [Point("source_round", tags, {"is_success": 1.0, "interval_seconds": 15.0}, at)]
    with module.Store(module.Config(path=":memory:"), rules.catalogue) as store:
        store.write([batch("his-db-01", 0, points, at)])
        return look(store, rules, {})


class Serving:
    """A page server in a thread of its own, as a browser meets it; `shown` is what it shows, and may change."""

    def __init__(self, shown: Snapshot | None) -> None:
        self.shown = shown
        self.url = ""
        self._ready = threading.Event()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = PageServer(lambda: self.shown, 0, clock=lambda: NOW / 1000 + 20)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.run())
            await self._server.started.wait()
            self.url = self._server.url
            self._ready.set()

    @contextmanager
    def running(self) -> Iterator["Serving"]:
        thread = threading.Thread(target=self._run, name="page")
        thread.start()
        assert self._ready.wait(10), "the page server did not start"
        try:
            yield self
        finally:
            self.stop()
            thread.join(10)
            assert not thread.is_alive()

    @property
    def port(self) -> int:
        """The free port that it took."""
        return self._server.port

    def stop(self) -> None:
        """End the server; twice is no harm."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._server.close)


@pytest.fixture(scope="session")
def serving() -> Callable[[Snapshot | None], Serving]:
    return Serving
