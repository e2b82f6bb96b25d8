"""/metrics of a running collector: real batches in, real figures out, read by Prometheus' own tool."""

import asyncio
import dataclasses
import re
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from deliveries import Sender, cpu
from prometheus_client.parser import text_string_to_metric_families
from servers import READY_SECONDS, program, until_async

from agent.certificates import Certificate
from agent.errors import StoreError
from agent.link import Delivery
from agent.points import Point
from agent.wire import Address, Batch, encode_batch
from collector.beside import Place, embedded_place
from collector.evaluate import Rules
from collector.intake import Intake
from collector.measured import measured
from collector.metrics import MOST_AGENTS, Meters, Sights
from collector.query import HOUR_MS
from collector.ruleset import load_rules
from collector.service import Service
from collector.tally import AgentCounts, IngestCounts

DOCS = Path(__file__).parent.parent.parent / "docs"

Figures = dict[str, float]
"""`name{label=value,...}` -> figure."""


def read_figures(page: str) -> Figures:
    found = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def check_with_promtool(page: str) -> None:
    command = [program("promtool", "prometheus"), "check", "metrics"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, check=False, timeout=READY_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules().rules


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return embedded_place(tmp_path, "hospital")


class Fed:
    """Deliveries that a test hands over one by one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delivery | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while (delivery := await self.queue.get()) is not None:
            yield delivery


async def scrape(service: Service) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"{service.page.url}metrics", timeout=READY_SECONDS) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return str(answer.read().decode())

    return await asyncio.to_thread(get)


def word_now(now: int) -> Point:
    """The account of an agent that made 3 batches, lost one to a full disk, and has one under way."""
    counts = {"made": (3, 6), "applied": (1, 3), "set_aside": (0, 0), "dropped": (1, 1), "waiting": (1, 2)}
    fields: dict[str, float] = {"spool_batches_count": 1.0, "spool_oldest_age_seconds": 2.5}
    for outcome, (batches, points) in counts.items():
        fields |= {f"ledger_{outcome}_batches_count": float(batches), f"ledger_{outcome}_points_count": float(points)}
    fields |= {"ledger_closings_count": 0.0, "ledger_began_seconds": (now - 1000) / 1000}
    return Point("agent_health", {"asset": "srv-1"}, {**fields, "ledger_newest_seconds": (now - 998) / 1000}, now)


def made(seq: int, now: int, *points: Point) -> Delivery:
    """A batch of these points, made a second ago."""
    payload = encode_batch(Batch(list(points), "boot", seq, now - 1000 + seq, now, len(points)))
    return Sender().deliver(payload, "boot", seq, len(points))


async def test_batches_become_figures(place: Place, rules: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.server.FIRST_LOOK_SECONDS", 3600.0)  # it looks when this test says so
    now, fed = int(time.time() * 1000), Fed()
    with Intake(place, rules) as intake:
        intake.meters.certificates = (Certificate("broker", 2e9),)
        service = Service(intake, place, 0)
        serving = asyncio.create_task(service.run(aiter(fed)))
        await service.page.started.wait()
        early = read_figures(await scrape(service))
        assert early["infravitals_quarantined_total{reason=out_of_range}"] == 0
        assert early["infravitals_store_stalled"] == 0
        assert not [name for name in early if name.startswith("infravitals_node_score")], (
            "no score before the first look"
        )
        for _ in range(2):
            await fed.queue.put(made(0, now, cpu(now), cpu(now - 1), cpu(now - 2, busy_ratio=7.0)))
        await fed.queue.put(made(3, now, word_now(now)))
        await until_async(lambda: intake.ingest.counts().batches == 2)
        await service.evaluator.look()
        await until_async(lambda: service.evaluator.kept_hour is not None)
        page = await scrape(service)
        site = service.evaluator.site
        folder = dataclasses.replace(site.folder, revoked={"srv-1": now})
        service.evaluator.site = dataclasses.replace(site, folder=folder)
        await service.evaluator.look()
        revoked = read_figures(await scrape(service))
        serving.cancel()
        await asyncio.wait({serving})
    check_with_promtool(page)
    given = {name for name in re.findall(r"^# TYPE (\S+)", page, re.MULTILINE) if name.startswith("infravitals_")}
    for document in (DOCS / "monitoring.md", DOCS.parent / "deploy" / "prometheus" / "infravitals.rules.yaml"):
        named = set(re.findall(r"infravitals_[a-z_]*[a-z]", document.read_text()))
        assert not named - given, f"{document.name} names what is not given"
    assert not given - set(re.findall(r"infravitals_[a-z_]*[a-z]", (DOCS / "monitoring.md").read_text()))
    figures = read_figures(page)
    expected = {
        "infravitals_batches_total{agent=srv-1}": 2,
        "infravitals_points_total{agent=srv-1}": 3,
        "infravitals_duplicate_batches_total{agent=srv-1}": 1,
        "infravitals_quarantined_total{reason=out_of_range}": 1,
        "infravitals_quarantined_total{reason=no_field}": 1,
        "infravitals_agent_clock_skew_seconds{agent=srv-1}": 0,
        "infravitals_agent_spool_batches{agent=srv-1}": 1,
        "infravitals_agent_spool_oldest_age_seconds{agent=srv-1}": 2.5,
        "infravitals_ledger_batches{agent=srv-1,outcome=made}": 3,
        "infravitals_ledger_batches{agent=srv-1,outcome=applied}": 1,
        "infravitals_ledger_batches{agent=srv-1,outcome=dropped}": 1,
        "infravitals_ledger_batches{agent=srv-1,outcome=waiting}": 1,
        "infravitals_ledger_batches{agent=srv-1,outcome=difference}": 0,
        "infravitals_ledger_points{agent=srv-1,outcome=set_aside}": 1,
        "infravitals_ledger_unbalanced{agent=srv-1}": 0,
        "infravitals_evaluation_seconds_count{kind=live}": 1,
        "infravitals_store_errors_total{call=write}": 0,
        "infravitals_node_score{bound=low,node=hospital.network-security}": 0,
    }
    assert {name: figures[name] for name in expected} == expected
    assert figures["infravitals_store_call_seconds_count{call=write}"] >= 1
    assert figures["infravitals_store_call_seconds_sum{call=totals}"] > 0
    assert abs(figures["infravitals_agent_last_received_timestamp_seconds{agent=srv-1}"] - time.time()) < 600
    seen = "infravitals_agent_last_received_timestamp_seconds{agent=srv-1}"
    assert (seen in figures, seen in revoked) == (True, False), "nobody is alarmed by the silence of who was revoked"
    scores = service.evaluator.snapshot
    assert scores is not None
    assert len([name for name in figures if name.startswith("infravitals_node_score")]) == 2 * len(
        scores.scorecard.nodes
    )
    assert [name for name in figures if name.startswith("infravitals_build_info")]
    assert figures["process_resident_memory_bytes"] > 2**20


def figures_of(meters: Meters, **changes: object) -> Figures:
    sights: dict[str, object] = {
        "ingest": lambda: IngestCounts({}),
        "set_aside": dict,
        "is_stalled": lambda: False,
        "snapshot": lambda: None,
        "kept_hour": lambda: None,
    }
    meters.watch(Sights(**(sights | changes)))  # type: ignore[arg-type]
    return read_figures(meters.render().decode())


def test_agents_beyond_the_bound_share_one_label() -> None:
    one = AgentCounts(1, 10, 0, {}, 0, 0, 0, 0)
    agents = {Address("hospital", f"srv-{number}"): one for number in range(MOST_AGENTS + 30)}
    figures = figures_of(Meters(), ingest=lambda: IngestCounts(agents))
    names = [name for name in figures if name.startswith("infravitals_batches_total")]
    assert len(names) == MOST_AGENTS + 1
    assert figures["infravitals_batches_total{agent=_other}"] == 30
    assert sum(figures[name] for name in names) == MOST_AGENTS + 30


def test_scorecard_is_late_from_the_moment_at_which_it_is_due() -> None:
    hour = 500_000 * HOUR_MS
    due = (hour + HOUR_MS) / 1000 + 120
    for now, lateness in ((due - 1, 0.0), (due, 0.0), (due + 900, 900.0), (due + 7300, 7300.0)):
        figures = figures_of(Meters(), kept_hour=lambda: hour, clock=lambda: now)  # noqa: B023
        assert figures["infravitals_scorecard_lateness_seconds"] == lateness
        assert figures["infravitals_scorecard_timestamp_seconds"] == hour / 1000


def test_scorecard_that_was_never_stored_is_late_from_the_start() -> None:
    times = iter([1000.0, 1000.0 + 60.0])
    figures = figures_of(Meters(), clock=lambda: next(times))
    assert figures["infravitals_scorecard_lateness_seconds"] == 60.0
    assert "infravitals_scorecard_timestamp_seconds" not in figures


def test_certificates_and_a_stalled_store_are_told() -> None:
    meters = Meters()
    meters.certificates = (Certificate("broker", 2e9), Certificate("ca", 3e9))
    figures = figures_of(meters, is_stalled=lambda: True)
    assert figures["infravitals_certificate_expiry_timestamp_seconds{role=broker}"] == 2e9
    assert figures["infravitals_store_stalled"] == 1


def test_call_that_the_store_refuses_is_counted_as_an_error(place: Place) -> None:
    meters = Meters()
    place.data_directory.joinpath("store.duckdb").write_bytes(b"this is no database" * 1000)
    store = measured(place.store(), meters)
    with pytest.raises(StoreError):
        store.totals()
    figures = figures_of(meters)
    assert figures["infravitals_store_errors_total{call=totals}"] == 1
    assert figures["infravitals_store_call_seconds_count{call=totals}"] == 1


def test_two_collectors_in_one_process_do_not_share_figures() -> None:
    first, second = Meters(), Meters()
    first.note_evaluation("live", 1.0)
    assert figures_of(first)["infravitals_evaluation_seconds_count{kind=live}"] == 1
    assert figures_of(second)["infravitals_evaluation_seconds_count{kind=live}"] == 0
