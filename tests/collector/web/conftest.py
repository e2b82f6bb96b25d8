"""A small hospital in a real store: one server, one gateway, one server that went silent, and what goes wrong there."""

import asyncio
import contextlib
import dataclasses
import http.client
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from playwright.sync_api import expect
from servers import READY_SECONDS

from agent.catalogue import Text
from agent.points import Point
from collector.evaluate import Rules, parse_time, prepare
from collector.history import Summary
from collector.inquiry import Site
from collector.reasons import Reason
from collector.rulebook import Asking, Basis, Cap, Counted, Criterion, Needs, Node, Rung, Scale, Step, TakeBoth
from collector.ruleset import load_rules
from collector.server import Evaluator, StoreThreads
from collector.site_folder import Attestation, Document, Entry, Exemption, Maintenance, SiteFolder
from collector.snapshot import Commands, Snapshot
from collector.stores import AppliedBatch, Store, load_store
from collector.web.serving import Entrance, PageServer

NOW = parse_time("2026-03-31T09:40:20+08:00")
DAY = 86_400_000
STEP = 900_000
SPAN = 8 * DAY
HOSTILE = "eth<script>alert(1)</script>"
"""What a driver or an administrator may call an interface; ids are checked, such names are not."""

COMMANDS = Commands(
    "/opt/infravitals/bin/infravitals", "--data-dir '/srv/a hospital'", Path("/srv/a hospital/site/register.yaml")
)

SILENT_SINCE = NOW - 5 * 3_600_000

expect.set_options(timeout=READY_SECONDS * 1000)


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


def look(
    store: Store,
    rules: Rules,
    set_aside: Mapping[Reason, int],
    folder: SiteFolder = SiteFolder(),  # noqa: B008 - frozen
) -> Snapshot:
    """The collector's own snapshot, taken in a thread of its own: the browser's library keeps a loop in this one."""
    threads = StoreThreads(store)
    site = Site("renmin", ZoneInfo("Asia/Shanghai"), folder)
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


# -- the same hospital with a register, attestations, caps and a past

OWN = (Basis(source="own", confidence="own-judgement"),)
PAPER = "documents/2025-report.pdf"
FAILOVER, ISOLATION = "hospital.data-availability.failover", "hospital.network-security.network-isolation"
SMART_WARD = "hospital.in-hospital-applications.smart-ward"


def text(zh: str, en: str) -> Text:
    return Text(zh, en)


def attested(zh: str, en: str, scale: str, exception: Text | None = None) -> Criterion:
    """A criterion that a person vouches for."""
    return Criterion(
        title=text(zh, en),
        kind="attested",
        why=text("评审要看。", "The assessor asks for it."),
        fix=text("补齐文件。", "Write the paper."),
        basis=OWN,
        scale=scale,
        valid="365d",
        not_applicable=exception,
    )


VOUCHED_CRITERIA = {
    "paper-location": attested("数据副本在另一座城市", "A copy of the data stands in another city", "paper-level"),
    "paper-expired": attested("等保测评报告有效", "The protection assessment is valid", "paper-level"),
    "paper-missing": attested("拓扑图与现状一致", "The topology diagram is current", "paper-level"),
    "paper-later": attested("应急预案已演练", "The emergency plan was drilled", "paper-level"),
    "paper-none": attested("区域图已批准", "The zone map is approved", "paper-level"),
    "city-ward": attested("病区终端联网", "Wards are connected", "paper-level"),
}
PAPER_LEVEL = Scale(
    title=text("四级", "four levels"),
    unit="level",
    better="higher",
    rungs=(Rung(at=4, points=100, basis=OWN), Rung(at=2, points=60, basis=OWN), Rung(at=1, points=20, basis=OWN)),
)
LOST_MEMBERS = Asking(
    measures="platform_member.is_reporting",
    per=("asset", "member"),
    over="1d",
    each="1h",
    take=TakeBoth(bucket="share <= 0", subject="max"),
    across=(Step(take="worst"),),
    needs=Needs(span="1h"),
)
CAPS = (
    Cap(
        id="no-other-city",
        node=FAILOVER,
        ceiling=60,
        title=text("副本不在另一座城市", "No copy in another city"),
        basis=OWN,
        criterion="paper-location",
        points_below=100,
    ),
    Cap(
        id="no-zone-map",
        node=ISOLATION,
        ceiling=40,
        title=text("没有区域图", "There is no zone map"),
        basis=OWN,
        criterion="paper-none",
        points_below=60,
    ),
    Cap(
        id="lost-member",
        node="hospital.network-security.network-management",
        ceiling=10,
        title=text("有平台成员失联", "A member of the platform is lost"),
        basis=OWN,
        question=LOST_MEMBERS,
        at_least=1,
    ),
    Cap(
        id="log-lost",
        node="hospital.network-security.network-management",
        ceiling=5,
        title=text("日志全部丢失", "All logs are lost"),
        basis=OWN,
        criterion="paper-later",
        points_below=20,
    ),
)
PAPERS = {FAILOVER: ("paper-location", "paper-later"), ISOLATION: ("paper-expired", "paper-missing", "paper-none")}


def with_papers(node: Node, path: str, measured: frozenset[str]) -> Node:
    """A node with the telemetry criteria that ship and our own attested ones, whatever other attested ones ship."""
    criteria = tuple(one for one in node.criteria if one.id in measured)
    return msgspec.structs.replace(
        node,
        children=tuple(with_papers(child, f"{path}.{child.id}", measured) for child in node.children),
        criteria=(Counted(id="city-ward", weight=1.0),) if path == SMART_WARD else criteria,
        documents=PAPERS.get(path, ()),
    )


@pytest.fixture(scope="session")
def vouched_rules(rules: Rules) -> Rules:
    """The shipped telemetry criteria with attested ones and caps of our own, so that no count of the shipped rules matters."""
    book = rules.book
    shipped = {name: one for name, one in book.criteria.items() if one.kind == "measured"}
    exception = text("没有外网时", "when nothing leads outside")
    shipped["exposed-service-count"] = msgspec.structs.replace(
        shipped["exposed-service-count"], not_applicable=exception
    )
    measured = frozenset(shipped)
    tree = tuple(with_papers(node, node.id, measured) for node in book.index.tree)
    return prepare(
        dataclasses.replace(
            book,
            criteria={**shipped, **VOUCHED_CRITERIA},
            indicators={**book.indicators, **dict.fromkeys(VOUCHED_CRITERIA, "papers")},
            scales={**book.scales, "paper-level": PAPER_LEVEL},
            index=msgspec.structs.replace(book.index, tree=tree, caps=CAPS),
        ),
        rules.catalogue,
    )


def vouch(criterion: str, value: float | None, since: str, expires: str, document: Document | None) -> Attestation:
    """An attestation by the head of IT; without a value: that the criterion does not apply."""
    return Attestation(
        criterion=criterion,
        value=value,
        is_not_applicable=value is None,
        author="李明",
        role="信息科主任",
        reason="现场核对" if value is not None else "本院没有对外服务",
        document=document,
        since=parse_time(f"{since}T00:00:00+08:00"),
        expires=parse_time(f"{expires}T00:00:00+08:00"),
        place="attestations.yaml:7",
    )


def asset(name: str, reporters: tuple[str, ...], role: str, retired: str = "", until: str = "") -> Entry:
    """An asset of the register."""
    attributes = {"class": ("server",), "criticality": ("critical",), "role": (role,)}
    since = parse_time("2025-01-01T00:00:00+08:00")
    ended = {"until": parse_time(f"{until}T00:00:00+08:00")} if until else {}
    return Entry(name, "assets", attributes, reporters, since, retired=retired, **ended)


def site_folder() -> SiteFolder:
    """Attestations in every state, a retired asset, one that nobody looks at, an exemption, announced maintenance."""
    there, gone = Document(PAPER, "ab" * 32), Document("documents/topology.pdf", "cd" * 32, is_there=False)
    entries = [
        asset("his-db-01", ("his-db-01",), "database"),
        asset("pacs-02", ("pacs-02",), "archive"),
        asset("pacs-01", ("pacs-01",), "archive", "由 pacs-02 替换", "2026-03-28"),
        asset("lis-db-01", ("lis-db-01",), "database"),
    ]
    return SiteFolder(
        zone=ZoneInfo("Asia/Shanghai"),
        has_register=True,
        entries={"assets": {entry.id: entry for entry in entries}},
        attestations=(
            vouch("paper-location", 2, "2026-01-01", "2026-04-11", there),
            vouch("paper-expired", 4, "2025-01-01", "2026-03-21", there),
            vouch("paper-missing", 4, "2026-01-01", "2026-12-31", gone),
            vouch("paper-later", 1, "2026-01-01", "2026-12-01", None),
            vouch("exposed-service-count", None, "2026-01-01", "2026-10-01", None),
        ),
        exemptions=(
            Exemption(
                "telemetry-completeness",
                "asset",
                "sw-core-2",
                "备件，未上线",
                "李明",
                parse_time("2026-01-01T00:00:00+08:00"),
                parse_time("2026-06-01T00:00:00+08:00"),
            ),
        ),
        maintenance=(
            Maintenance(
                ("his-db-01",),
                parse_time("2026-04-04T22:00:00+08:00"),
                parse_time("2026-04-05T02:00:00+08:00"),
                "升级数据库",
                "李明",
                NOW - DAY,
            ),
        ),
        digest="ef" * 32,
    )


PAST = 60
"""Hours of which a scorecard is stored; three in the middle were never evaluated."""


def store_past(store: Store) -> None:
    """Scorecards that rose slowly, a hole, and one hour that was revised twice."""
    hour = NOW // 3_600_000 * 3_600_000
    for back in range(PAST, 0, -1):
        if back in (30, 31, 32):
            continue
        low = 10.0 + (PAST - back) / 4
        nodes = {
            "hospital.data-availability": (low, 90.0),
            "hospital.network-security": (low + 20, 80.0),
            "hospital.network-security.network-management": (low, 85.0),
        }
        save_card(store, hour - back * 3_600_000, Summary(low / 5, 95.0, 0.2, nodes), "", 0)
        if back == 5:
            save_card(store, hour - back * 3_600_000, Summary(low / 5, 94.0, 0.2, nodes), LATE, 1)
            save_card(store, hour - back * 3_600_000, Summary(low / 5, 93.0, 0.2, nodes), CHANGED, 2)


LATE, CHANGED = "后来又到了数据 / more data came in", "规则改了 / the rules were changed"


def save_card(store: Store, as_of: int, summary: Summary, why: str, number: int) -> None:
    shown = msgspec.json.encode(summary).decode()
    store.save_scorecard("renmin", as_of, f"{as_of}-{number}", b"{}", as_of + (1 + number) * 120_000, why, shown)


@pytest.fixture(scope="session")
def vouched(vouched_rules: Rules) -> Snapshot:
    """What the faces show of that hospital when it says something of itself and has a past."""
    module = load_store("duckdb")
    with module.Store(module.Config(path=":memory:"), vouched_rules.catalogue) as store:
        fill(store)
        boundaries = [
            *steady("boundary", "fw-1", 300_000, strength_level=3.0, is_in_service=1.0)(boundary="internet"),
            *steady("boundary", "fw-2", 300_000, strength_level=1.0, is_in_service=0.0)(boundary="insurance"),
        ]
        store.write([batch("gw-core", 1, boundaries, NOW - 10_000)])
        store_past(store)
        return look(store, vouched_rules, {}, site_folder())


class Serving:
    """A page server in a thread of its own, as a browser meets it; `shown` is what it shows, and may change."""

    def __init__(self, shown: Snapshot | None, entrance: Entrance = Entrance()) -> None:  # noqa: B008
        self.shown, self._entrance = shown, entrance
        self.url = ""
        self._ready = threading.Event()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = PageServer(lambda: self.shown, 0, clock=lambda: NOW / 1000 + 20, entrance=self._entrance)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.run())
            await self._server.started.wait()
            self.url = self._server.url
            self._ready.set()

    @contextmanager
    def running(self) -> Iterator["Serving"]:
        thread = threading.Thread(target=self._run, name="page")
        thread.start()
        assert self._ready.wait(READY_SECONDS), "the page server did not start"
        try:
            yield self
        finally:
            self.stop()
            thread.join(READY_SECONDS)
            assert not thread.is_alive()

    @property
    def port(self) -> int:
        """The free port that it took."""
        return self._server.port

    @property
    def connections(self) -> Collection[object]:
        """Those that it has taken."""
        return self._server._server.server_state.connections

    def stop(self) -> None:
        """End the server; twice is no harm."""
        with contextlib.suppress(RuntimeError):  # its loop is closed already
            self._loop.call_soon_threadsafe(self._server.close)


@pytest.fixture(scope="session")
def serving() -> Callable[..., Serving]:
    return Serving


@pytest.fixture(scope="session")
def fetched() -> Callable[[Snapshot, str], str]:
    """The body of a page of a snapshot, from a real server; path: with its query."""

    def fetch(snapshot: Snapshot, path: str) -> str:
        with Serving(snapshot).running() as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            connection.close()
        assert answer.status == 200
        return body

    return fetch


@pytest.fixture(scope="session", name="look")
def give_look() -> Callable[..., Snapshot]:
    """How a test takes a snapshot of a store of its own."""
    return look
