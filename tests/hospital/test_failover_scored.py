"""From real servers to the score: how much of dual-active-backup and failover the sources feed, and that each number is explained.

A synchronous PostgreSQL pair that fails over and returns, two sites joined by two links with a witness at a third place, a
backup of that database, an agent on the DR host. The rounds are real; that they went on like this for weeks is told
to the store by repeating them at their interval. What happened once (outages, switchovers) stands once.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hospital.postgres import Server, as_postgres, binary, postgres_pair, promote, return_home
from hospital.tokens import login, probing
from namespaces import Network
from servers import until_async

from agent.catalogue import load
from agent.continuity.tokens import Token
from agent.language import speaking
from agent.points import Point
from agent.readings import Settler
from agent.rounds import Watch
from agent.run import gather_once, points_of_round
from agent.sources import Reading, Surroundings, continuity_probe, load_source
from collector.evaluate import Rules, evaluate
from collector.evidence import CriterionResult
from collector.explain import explain
from collector.inquiry import Site
from collector.query import DAY_MS
from collector.ruleset import load_rules, memory_store
from collector.score import NodeResult, Scorecard
from collector.site_files import read_site_folder
from collector.snapshot import Commands
from collector.stores import AppliedBatch

ZONE = ZoneInfo("Asia/Shanghai")
EVERY_SECONDS = 300.0
DAYS, QUARTER_DAYS = 32, 95
"""The availability of a service asks for a quarter, the rest for a month."""

FED = {"dual-active-backup": 1.0, "failover": 0.85, "fault-self-healing": 0.70, "virtualization": 0.25}
"""Share of each indicator's weight that has data here, by the scorecard's own coverage."""

NOT_FED = {
    "restore-test-recency": "takes a real restore of a backup, which no source makes or sees",
    "redundant-component-health": "takes machines with redundant parts: SNMP, md, bonds",
    "power-ride-through": "takes a UPS: SNMP",
    "virtual-ha-coverage": "takes the platform's own word of HA and admission control",
    "virtual-failover-headroom": "takes the platform's own count of what fits after a host",
    "storage-pool-ratio": "takes storage: ceph or SNMP",
    "virtual-platform-managed-ratio": "takes the platform's list of members",
}

FEEDS = {
    "his-db": {"dual-active-system-coverage", "replication-in-sync-ratio", "replication-lag-p99"},
    "site-a": {"inter-site-latency", "inter-site-link-redundancy", "arbiter-health"},
    "backup-1": {"backup-currency", "achieved-rpo"},
    "dr-1": {"dr-site-readiness"},
    "his-probe": {"achieved-rto", "failover-drill-recency"},
}
"""The agent without which these criteria have no data."""

REGISTER = """
services: {{his: {{criticality: critical, from: {since}}}}}
assets:
  his-db: {{class: server, role: database, criticality: critical, from: {since}}}
  his-probe: {{class: server, from: {since}}}
  site-a: {{class: server, role: [cluster, inter-site, inter-site-probe], criticality: critical, from: {since}}}
  site-b: {{class: server, role: cluster, criticality: critical, from: {since}}}
  dr-1: {{class: server, role: dr, from: {since}}}
  backup-1: {{class: server, from: {since}}}
"""


def next_midnight() -> int:
    """When it is scored: after all that the test does, at the end of a whole day; the suite's other tests may come before."""
    today = (datetime.now(ZONE) + timedelta(hours=3)).replace(hour=0, minute=0, second=0, microsecond=0)
    return round((today + timedelta(days=1)).timestamp() * 1000)


AS_OF = next_midnight()


def round_of(asset: str, sources: Mapping[str, Mapping[str, object]], state: Path | None = None) -> list[Point]:
    return asyncio.run(gather_points(asset, sources, state))


async def gather_points(
    asset: str, sources: Mapping[str, Mapping[str, object]], state: Path | None = None
) -> list[Point]:
    """What the runner makes of one round of an agent's sources; an error in one fails the test."""
    watches = []
    for name, settings in sources.items():
        module = load_source(name)
        config = msgspec.convert({"interval_seconds": EVERY_SECONDS, **settings}, module.Config)
        source = module.Source(config, Surroundings(asset, state_directory=state))
        watches.append(Watch(name, config, lambda source=source: source))
    settler, gathered = Settler(load(), asset), await gather_once(watches)
    assert [one.outcome.error for one in gathered] == [None] * len(watches)
    return [point for watch, outcome in gathered for point in points_of_round(settler, watch, outcome)]


class Sites:
    """Two sites with two links between them, and a third place with the witness."""

    def __init__(self, stack: ExitStack) -> None:
        self._network = stack.enter_context(Network("sites"))
        self._network.add("a", "b", "w")
        for number in (1, 2):
            self._network.cable("a", f"link{number}", "b", f"link{number}")
            for end, name in ((1, "a"), (2, "b")):
                self._network[name].ip(f"addr add 10.81.{number}.{end}/30 dev link{number}")
        for number, name in ((3, "a"), (4, "b")):
            self._network.cable(name, "third", "w", f"to-{name}")
            self._network[name].ip(f"addr add 10.81.{number}.1/30 dev third")
            self._network["w"].ip(f"addr add 10.81.{number}.2/30 dev to-{name}")
        self._server = self._network["w"].do(asyncio.start_server(lambda _, writer: writer.close(), port=7100))
        stack.callback(lambda: self._network["w"].call(self._server.close))

    def round(self, asset: str, name: str, peer: int, third: int) -> list[Point]:
        witness = {"name": "witness", "kind": "tcp", "address": f"10.81.{third}.2", "port": 7100, "witness": "his-db"}
        links = [{"name": f"link-{number}", "address": f"10.81.{number}.{peer}"} for number in (1, 2)]
        routes = [{"provider": "own", "targets": [link["name"]]} for link in links]
        lines = {"sites": {"routes": routes, "between_sites": True}}
        settings = {"targets": [witness, *links], "lines": lines}
        return self._network[name].do(gather_points(asset, {"path_probe": settings}))


async def fail_over_and_return(folder: Path, primary: Server, standby: Server) -> list[Point]:
    """The primary dies, the standby is promoted, the old one is built anew and takes over again; three small outages more."""
    async with probing(folder, "postgresql", primary, standby, interval_seconds=EVERY_SECONDS) as (source, settled):
        found: list[Reading] = []

        async def is_served_by(server: Server) -> bool:
            found.extend(await source.collect())
            return len(settled) > 5 and all(one.is_good and one.served_by == server.address for one in settled[-5:])

        async def is_over(server: Server, outages: int) -> None:
            """So many were told and `server` serves: what comes next is an outage of its own."""
            await until_async(lambda: is_served_by(server))
            await until_async(lambda: told(source, found, outages))

        await until_async(lambda: is_served_by(primary))
        primary.kill()
        await are_missed(settled)
        await asyncio.to_thread(promote, standby)
        await is_over(standby, 1)
        await asyncio.to_thread(return_home, primary, standby)
        await is_over(primary, 2)
        for outages in (3, 4, 5):
            primary.freeze()
            await are_missed(settled)
            primary.thaw()
            await is_over(primary, outages)
    settler = Settler(load(), "his-probe")
    points = list(settler.settle(tuple(found), round(time.time() * 1000), "continuity_probe").points)
    about: dict[str, float | str] = {"is_success": 1.0, "interval_seconds": EVERY_SECONDS}
    return [
        *points,
        Point("source_round", {"asset": "his-probe", "source": "continuity_probe", "target": "local"}, about, AS_OF),
    ]


async def told(source: continuity_probe.Source, found: list[Reading], outages: int) -> bool:
    found.extend(await source.collect())
    return sum(reading.name == "outage" for reading in found) >= outages


async def are_missed(settled: Sequence[Token]) -> None:
    """Until three tokens in a row failed after now: enough for an outage."""
    seen = len(settled)
    await until_async(lambda: len(settled) >= seen + 3 and not any(one.is_good for one in settled[-3:]))


def back_up(primary: Server, folder: Path) -> None:
    """Three real base backups with their sums; their times are told to be those of three nights."""
    for night in range(3):
        place = folder / f"full-{night}"
        made = Path(primary.data.parent) / place.name
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "--checkpoint=fast", "--no-sync")
        as_postgres(binary("pg_basebackup"), *source, "-F", "tar", "-D", made, folder=primary.data.parent)
        shutil.move(made, place)
        files = sorted(one for one in place.iterdir() if one.is_file())
        sums = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files]
        (place / "SHA256SUMS").write_text("".join(sums))
        at = time.time() - 3600 - night * 86400
        for file in files:
            os.utime(file, (at, at))


async def look_at_backups(folder: Path) -> list[Point]:
    """The round after the sums were counted."""
    copies = {"his": {"dr-room": {"folder": str(folder), "full": "full-*", "offsite": True}}}
    module = load_source("backup_folder")
    config = msgspec.convert({"systems": copies, "interval_seconds": EVERY_SECONDS}, module.Config)
    source = module.Source(config, Surroundings("backup-1"))
    await source.collect()
    await source.wait_for_sums()
    [watch] = [Watch("backup_folder", config, lambda: source)]
    [outcome] = await gather_once([watch])
    assert outcome.outcome.error is None
    return list(points_of_round(Settler(load(), "backup-1"), watch, outcome.outcome))


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Point]]:
    """What each agent saw, in one round."""
    folder = tmp_path_factory.mktemp("scored")
    backups = folder / "backups"
    backups.mkdir()
    found = {}
    with ExitStack() as stack:
        sites = Sites(stack)
        found["site-a"] = sites.round("site-a", "a", 2, 3)
        found["site-b"] = sites.round("site-b", "b", 1, 4)
    with postgres_pair(is_synchronous=True) as (primary, standby):
        addresses = [primary.address, standby.address]
        pair = {"addresses": addresses, "token_table": "infravitals_token", **login(folder, "postgresql")}
        sources = {"postgresql_replication": {"pairs": {"his-db": pair}}, "host_inventory": {}}
        found["his-db"] = round_of("his-db", sources)
        back_up(primary, backups)
        found["his-probe"] = asyncio.run(fail_over_and_return(folder, primary, standby))
    found["backup-1"] = asyncio.run(look_at_backups(backups))
    found["dr-1"] = round_of("dr-1", {"host_inventory": {}})
    return found


def kept_up(points: Sequence[Point], days: int) -> Iterator[Point]:
    """States and gauges again and again at the interval of their source, up to as-of; what happened stands where it happened."""
    yield from (point for point in points if is_event(point))
    newest = {(point.name, *sorted(point.tags.items())): point for point in points if not is_event(point)}
    for point in newest.values():
        for at in range(AS_OF - days * DAY_MS, AS_OF, round(EVERY_SECONDS * 1000)):
            yield Point(point.name, point.tags, point.fields, at)


def is_event(point: Point) -> bool:
    fields = load().measurements[point.name].fields
    return all(fields[name].kind in ("event", "label") for name in point.fields)


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    since = datetime.fromtimestamp(AS_OF / 1000, ZONE).date() - timedelta(days=QUARTER_DAYS)
    (folder / "register.yaml").write_text(REGISTER.format(since=since.isoformat()))
    read, warnings = read_site_folder(folder)
    assert warnings == []
    return Site("hospital", read.zone, read)


def score(rules: Rules, site: Site, points: Mapping[str, Sequence[Point]]) -> Scorecard:
    with memory_store(rules.catalogue) as store:
        for asset, own in points.items():
            repeated = list(kept_up(own, QUARTER_DAYS if asset == "his-probe" else DAYS))
            store.write([AppliedBatch("hospital", asset, "", -1, asset, AS_OF, AS_OF, repeated, 0, ())])
        return evaluate(store, rules, site, AS_OF)


@pytest.fixture(scope="module")
def card(rules: Rules, site: Site, points: dict[str, list[Point]]) -> Scorecard:
    return score(rules, site, points)


def node(card: Scorecard, name: str) -> NodeResult:
    [found] = [one for one in card.nodes if one.id.endswith(f".{name}")]
    return found


def measured(card: Scorecard, name: str) -> list[CriterionResult]:
    return [one for one in node(card, name).criteria if one.kind == "measured"]


@pytest.mark.parametrize("name", FED)
def test_share_of_each_indicator_that_has_data(name: str, card: Scorecard) -> None:
    missing = {one.id for one in measured(card, name) if one.status != "scored"}
    print(f"\n{name}: {node(card, name).coverage:.0%} of the weight has data")
    for one in measured(card, name):
        print(f"  {one.id}: {NOT_FED[one.id] if one.id in missing else f'{one.low:g} points, {one.value}'}")
    assert missing <= NOT_FED.keys()
    assert node(card, name).coverage == pytest.approx(FED[name])


def test_dual_active_and_failover_reach_four_fifths(card: Scorecard) -> None:
    assert min(node(card, name).coverage for name in ("dual-active-backup", "failover")) >= 0.8


def test_numbers_are_those_of_the_servers(card: Scorecard, points: dict[str, list[Point]]) -> None:
    found = {one.id: one for name in FED for one in measured(card, name) if one.status == "scored"}
    drills = [point.fields for point in points["his-probe"] if point.name == "drill"]
    longest = max(float(fields["rto_seconds"]) for fields in drills if "rto_seconds" in fields)
    assert found["achieved-rto"].value == pytest.approx(longest, abs=0.01)
    assert {name: found[name].low for name in ("achieved-rto", "achieved-rpo", "failover-drill-recency")} == {
        "achieved-rto": 100,
        "achieved-rpo": 100,
        "failover-drill-recency": 100,
    }
    assert found["dual-active-system-coverage"].value == pytest.approx(0.7), "one side serves, the other stands by"
    assert found["replication-in-sync-ratio"].value == 1 and found["replication-lag-p99"].value == 0
    assert (found["inter-site-link-redundancy"].value, found["arbiter-health"].value) == (2, 1)
    assert found["backup-currency"].value == 4 and found["dr-site-readiness"].value == 1
    assert found["auto-recovery-rate"].value == 1 and found["fault-recovery-time-p95"].value > 0


def test_every_number_is_explained_by_what_was_asked_and_found(rules: Rules, card: Scorecard) -> None:
    for name in FED:
        for one in measured(card, name):
            with speaking("en"):
                told = explain(rules, card, one, Commands())
            if one.status != "scored":
                assert one.reason and one.reason.en in told, one.id
                continue
            assert one.questions and sum(question.samples for question in one.questions) > 0, one.id
            assert one.worst and all(question.query for question in one.questions), one.id
            assert len(told.splitlines()) > 10 and one.digest[:16] in told, one.id


@pytest.mark.parametrize("agent", FEEDS)
def test_without_its_agent_a_criterion_has_no_data(
    agent: str, rules: Rules, site: Site, card: Scorecard, points: dict[str, list[Point]]
) -> None:
    """So that the share above is one of facts, and silence is no health."""
    left = score(rules, site, {asset: own for asset, own in points.items() if asset != agent})
    gone = set()
    for name in ("dual-active-backup", "failover"):
        before = {one.id for one in measured(card, name) if one.status == "scored"}
        gone |= before - {one.id for one in measured(left, name) if one.status == "scored"}
    assert gone == FEEDS[agent]
    [loss] = [one for one in measured(left, "failover") if one.id == "achieved-rpo"]
    known = {"his-probe": (0, 100), "backup-1": (0, 100)}.get(agent, (100, 100))
    assert (loss.low, loss.high) == known, "half of what it asks is no number"
