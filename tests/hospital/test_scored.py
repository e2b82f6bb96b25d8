"""What the sources say scores: a drill's record goes through source, settler and store, and the criteria of failover have their value."""

import asyncio
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from agent.catalogue import load
from agent.continuity.outages import Rule
from agent.continuity.tokens import Token
from agent.drills.records import Record, TokenLog, replay
from agent.points import Point
from agent.readings import Settler
from agent.sources import Reading, Surroundings
from agent.sources.continuity_probe import Config, Source
from collector.evaluate import evaluate_criteria, parse_time
from collector.inquiry import Site
from collector.query import HOUR_MS
from collector.ruleset import load_rules, memory_store
from collector.site_folder import Entry, SiteFolder
from collector.stores import AppliedBatch

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
DAYS = 8
EVERY_MS = 300_000
DRILLED_MS = AS_OF - 2 * 24 * HOUR_MS
CRITERIA = ("achieved-rto", "achieved-rpo", "failover-drill-recency")


def write_drill(folder: Path, failed: int, lost: int) -> None:
    """A drill two days ago: `failed` tokens of 100 ms failed, the service went to b and came back, `lost` tokens were lost."""
    began = DRILLED_MS / 1000

    def token(number: int) -> Token:
        is_good = not 10 <= number < 10 + failed
        server = "b" if 10 + failed <= number < 100 + failed else "a"
        sent_at = began + number * 0.1
        return Token(number, sent_at, sent_at + 0.01, is_good, server if is_good else "")

    tokens = [token(number) for number in range(200 + failed)]
    log = TokenLog(folder, "his-q1", "his", began)
    for each in tokens:
        log.add(each)
    rule = Rule(1, 3)
    outages = replay(tokens, rule)
    assert [outage.is_moved for outage in outages] == [True, True]
    log.finish(
        Record(
            drill="his-q1",
            service="his",
            probe="his-db",
            began_at=began,
            ended_at=began + 60,
            people=("zhang-san", "li-si"),
            plan_digest="0" * 64,
            token_log_digest=log.close(),
            rule=rule,
            outages=outages,
            sent=len(tokens),
            acknowledged=len(tokens) - failed,
            rto_seconds=max(outage.duration_seconds for outage in outages),
            rpo_seconds=lost * 0.1,
            lost=tuple(range(10 - lost, 10)),
            is_passed=True,
            is_aborted=False,
            is_automatic=True,
        )
    )


async def gather(state: Path) -> list[Reading]:
    probe = {"service": "his", "kind": "tcp", "addresses": ["127.0.0.1:9"]}
    config = msgspec.convert({"probes": {"his-db": probe}}, Config)
    source = Source(config, Surroundings("his-probe", state_directory=state))
    await source.open()
    try:
        return [reading for reading in await source.collect() if reading.name == "drill"]
    finally:
        await source.close()


def watched() -> list[Point]:
    """Eight days in which the probe was there."""
    tags = {"asset": "his-probe", "service": "his", "probe": "his-db"}
    rounds = {"asset": "his-probe", "source": "continuity_probe", "target": "local"}
    times = range(AS_OF - DAYS * 24 * HOUR_MS, AS_OF, EVERY_MS)
    points = [Point("service_probe", tags, {"is_up": 1.0}, time) for time in times]
    # what achieved-rpo asks beside the drill: a restore point of ten minutes ago, as backup_folder tells
    copy = {"asset": "backup-1", "system": "his", "copy": "vault"}
    copies = range(AS_OF - 31 * 24 * HOUR_MS, AS_OF, 900_000)
    points += [Point("backup_copy", copy, {"verified_age_seconds": 600.0}, time) for time in copies]
    return points + [
        Point("source_round", rounds, {"is_success": 1.0, "interval_seconds": EVERY_MS / 1000}, time) for time in times
    ]


@pytest.mark.parametrize(
    ("failed", "lost", "expected"),
    [(8, 0, {"achieved-rto": 100, "achieved-rpo": 100}), (1200, 5, {"achieved-rto": 90, "achieved-rpo": 90})],
)
def test_drill_that_was_measured_scores(failed: int, lost: int, expected: dict[str, float], tmp_path: Path) -> None:
    write_drill(tmp_path / "drills", failed, lost)
    [reading] = asyncio.run(gather(tmp_path))
    settled = Settler(load(), "his-probe").settle((reading,), AS_OF, "continuity_probe")
    assert settled.is_complete
    rules = load_rules().rules
    start = AS_OF - DAYS * 24 * HOUR_MS
    his = Entry("his", "services", {"criticality": ("critical",)}, since=start)
    site = Site("a-site", ZoneInfo("Asia/Shanghai"), SiteFolder(has_register=True, entries={"services": {"his": his}}))
    with memory_store(rules.catalogue) as store:
        points = [*settled.points, *watched()]
        store.write([AppliedBatch("a-site", "his-probe", "", -1, "one", AS_OF, AS_OF, points, 0, ())])
        found = evaluate_criteria(store, rules, site, AS_OF, CRITERIA)
    assert {name: found[name].status for name in CRITERIA} == dict.fromkeys(CRITERIA, "scored")
    assert found["achieved-rto"].value == pytest.approx(failed * 0.1 + 0.01, abs=0.002)
    assert found["failover-drill-recency"].low == 100
    assert {name: found[name].low for name in expected} == expected
