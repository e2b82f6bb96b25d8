"""What Prometheus scrapes of a collector: the one door to its client library. Nothing here is global.

Agents are labelled in the order in which they were first seen, up to MOST_AGENTS; the others share one label and are summed.
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.certificates import Certificate
from agent.wire import Address
from collector.evaluate import parse_time
from collector.ledger import AgentLedger, Sums
from collector.query import HOUR_MS
from collector.reasons import Reason
from collector.snapshot import Snapshot
from collector.stores import LATENESS_MS
from collector.tally import AgentCounts, IngestCounts

Values = dict[tuple[str, ...], float]
"""Label values -> figure."""

MOST_AGENTS = 500
OTHERS = "_other"
"""No agent can be called so."""

CALL_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
EVALUATION_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


@dataclass(frozen=True)
class Sights:
    """Where the figures of a scrape come from. kept_hour: as_of of the newest scheduled scorecard (ms), None before the first."""

    ingest: Callable[[], IngestCounts]
    set_aside: Callable[[], Mapping[Reason, int]]
    is_stalled: Callable[[], bool]
    snapshot: Callable[[], Snapshot | None]
    kept_hour: Callable[[], int | None]
    clock: Callable[[], float] = time.time


class Meters:
    """Counts what is told to it, and at a scrape reads the rest where `watch` said."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Histogram(
            "infravitals_store_call_seconds",
            "How long calls of the store took",
            ["call"],
            buckets=CALL_SECONDS,
            registry=self._registry,
        )
        self._errors = Counter(
            "infravitals_store_errors", "Calls of the store that failed", ["call"], registry=self._registry
        )
        self._evaluations = Histogram(
            "infravitals_evaluation_seconds",
            "How long scoring took, by what it was for",
            ["kind"],
            buckets=EVALUATION_SECONDS,
            registry=self._registry,
        )
        for kind in ("live", "scheduled"):
            self._evaluations.labels(kind)
        ProcessCollector(registry=self._registry)
        self.certificates: tuple[Certificate, ...] = ()

    def note_call(self, call: str, seconds: float, is_error: bool) -> None:
        """A call of the store ended."""
        self._calls.labels(call).observe(seconds)
        errors = self._errors.labels(call)  # made with the first call: from nothing to 1 is no increase for Prometheus
        if is_error:
            errors.inc()

    def note_evaluation(self, kind: str, seconds: float) -> None:
        """A scoring ended; kind: live or scheduled."""
        self._evaluations.labels(kind).observe(seconds)

    def watch(self, sights: Sights) -> None:
        """Read this at every scrape; once."""
        self._registry.register(_Reader(sights, self))

    def render(self) -> bytes:
        """The page that Prometheus reads, text format 0.0.4."""
        return generate_latest(_WithoutCreated(self._registry))


class _WithoutCreated(Collector):
    """Leaves out the times at which counters began, which only a setting of the whole process would switch off."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """What the registry gives, less those."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Reader(Collector):
    """Makes the figures of a scrape."""

    def __init__(self, sights: Sights, meters: Meters) -> None:
        self._sights, self._meters = sights, meters
        self._names: dict[str, str] = {}
        self._since = sights.clock()

    def describe(self) -> Iterable[Metric]:
        """Nothing: at the time of registering there are no figures."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        yield _gauge("infravitals_build_info", "Versions, always 1", {_versions(): 1.0}, ("version", "python"))
        yield from self._ingest(self._sights.ingest())
        reasons = self._sights.set_aside()
        quarantined: Values = {(reason.value,): float(reasons.get(reason, 0)) for reason in Reason}
        yield _counter("infravitals_quarantined", "Things set aside since the quarantine exists", quarantined, "reason")
        stalled = float(self._sights.is_stalled())
        yield _gauge("infravitals_store_stalled", "Whether the store refuses data now", {(): stalled})
        yield from self._schedule()
        expiries: Values = {(one.role,): one.expires_at for one in self._meters.certificates}
        text = "When a certificate of the link to the broker ends"
        yield _gauge("infravitals_certificate_expiry_timestamp_seconds", text, expiries, ("role",))
        snapshot = self._sights.snapshot()
        if snapshot is not None:
            yield from self._agents(snapshot)
            yield from self._ledger(snapshot.ledger.agents)
            yield from _scores(snapshot)

    def _label(self, agent: str) -> str:
        if agent not in self._names and len(self._names) >= MOST_AGENTS:
            return OTHERS
        return self._names.setdefault(agent, agent)

    def _ingest(self, counts: IngestCounts) -> Iterator[Metric]:
        agents = counts.agents.items()
        for name, text, read in _INGESTED:
            values = [(address.agent, read(one)) for address, one in agents]
            yield _counter(f"infravitals_{name}", text, self._sum(values), "agent")
        skews = self._most((address.agent, one.skew_ms / 1000) for address, one in agents if _is_known(address))
        text = "How far an agent's clock was behind in its last batch, when by more than 5 minutes (minus: ahead)"
        yield _gauge("infravitals_agent_clock_skew_seconds", text, skews, ("agent",))

    def _schedule(self) -> Iterator[Metric]:
        kept, now = self._sights.kept_hour(), self._sights.clock()
        due = self._since if kept is None else (kept + HOUR_MS + LATENESS_MS) / 1000
        text = "How long the hourly scorecard has been due and is not stored"
        yield _gauge("infravitals_scorecard_lateness_seconds", text, {(): max(0.0, now - due)})
        if kept is not None:
            text = "As-of time of the newest hourly scorecard"
            yield _gauge("infravitals_scorecard_timestamp_seconds", text, {(): kept / 1000})

    def _agents(self, snapshot: Snapshot) -> Iterator[Metric]:
        agents = [one for one in snapshot.agents if one.is_expected or one.sends_though_revoked]
        received = self._most((one.agent, one.last_received / 1000) for one in agents)
        text = "When the store last got a batch of the agent"
        yield _gauge("infravitals_agent_last_received_timestamp_seconds", text, received, ("agent",))
        alive = self._sum((one.agent, float(one.is_alive)) for one in agents)
        yield _gauge(
            "infravitals_agent_alive",
            "Whether the agent reports (agents beyond the bound: how many)",
            alive,
            ("agent",),
        )
        for name, text, values in (
            (
                "spool_batches",
                "Batches that wait at the agent, by its last word",
                [(one.agent, one.spool_batches) for one in agents],
            ),
            (
                "spool_oldest_age_seconds",
                "How long the oldest of them waited then",
                [(one.agent, one.spool_oldest_age_seconds) for one in agents],
            ),
            ("resident_bytes", "Physical memory of the agent", [(one.agent, one.resident_bytes) for one in agents]),
        ):
            known = self._most((agent, value) for agent, value in values if value is not None)
            yield _gauge(f"infravitals_agent_{name}", text, known, ("agent",))

    def _ledger(self, agents: Sequence[AgentLedger]) -> Iterator[Metric]:
        for kind, of in _UNITS:
            values: Values = {}
            for one in agents:
                for outcome, number in msgspec.structs.asdict(sums).items() if (sums := of(one)) else ():
                    name = (self._label(one.agent), outcome)
                    values[name] = values.get(name, 0.0) + number
            text = f"The ledger in {kind}: made = applied + set_aside + dropped + waiting + difference"
            yield _gauge(f"infravitals_ledger_{kind}", text, values, ("agent", "outcome"))
        for state in ("unbalanced", "unknown"):
            text = "Whether the account does not balance" if state == "unbalanced" else "Whether nobody can tell"
            states = self._sum((one.agent, float(one.state == state)) for one in agents)
            yield _gauge(f"infravitals_ledger_{state}", text, states, ("agent",))

    def _sum(self, values: Iterable[tuple[str, float]]) -> Values:
        total: Values = {}
        for agent, value in values:
            name = (self._label(agent) if agent else OTHERS,)
            total[name] = total.get(name, 0.0) + value
        return total

    def _most(self, values: Iterable[tuple[str, float]]) -> Values:
        most: Values = {}
        for agent, value in values:
            name = (self._label(agent),)
            most[name] = max(most.get(name, value), value)
        return most


_INGESTED: tuple[tuple[str, str, Callable[[AgentCounts], float]], ...] = (
    ("batches", "Batches written", lambda one: one.batches),
    ("points", "Points written", lambda one: one.points),
    ("duplicate_batches", "Batches that came again and were receipted again", lambda one: one.duplicates),
    (
        "skewed_batches",
        "Batches whose points were moved to the time received: the agent's clock was off",
        lambda one: one.skewed,
    ),
    ("conflicting_points", "Points that contradicted the point before them", lambda one: one.conflicts),
)


_UNITS: tuple[tuple[str, Callable[[AgentLedger], Sums | None]], ...] = (
    ("batches", lambda one: one.batches),
    ("points", lambda one: one.points),
)


def _is_known(address: Address) -> bool:
    return bool(address.agent)


def _scores(snapshot: Snapshot) -> Iterator[Metric]:
    card = snapshot.scorecard
    nodes = [(("node", node.id), node) for node in card.nodes]
    criteria = {result.id: result for node in card.nodes for result in node.criteria}
    for kind, text, rows in (
        ("node", "An indicator", [(name, one) for (_, name), one in nodes]),
        ("criterion", "A criterion", list(criteria.items())),
    ):
        bounds: Values = {(name, bound): getattr(one, bound) for name, one in rows for bound in ("low", "high")}
        yield _gauge(
            f"infravitals_{kind}_score", f"{text}, 0 to 100: what is proven, and what may be", bounds, (kind, "bound")
        )
        covered: Values = {(name,): one.coverage for name, one in rows}
        yield _gauge(
            f"infravitals_{kind}_coverage_ratio", f"{text}: how much of it there are data for", covered, (kind,)
        )
    total: Values = {("low",): card.total.low, ("high",): card.total.high}
    yield _gauge("infravitals_index_score", "The whole index, 0 to 100", total, ("bound",))
    text = "When these scores were taken"
    yield _gauge("infravitals_scores_timestamp_seconds", text, {(): parse_time(card.as_of) / 1000})


def _versions() -> tuple[str, str]:
    return version("infravitals"), platform.python_version()


def _gauge(name: str, text: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    metric = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values.items():
        metric.add_metric(label, value)
    return metric


def _counter(name: str, text: str, values: Values, label: str) -> Metric:
    metric = CounterMetricFamily(name, text, labels=(label,))
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric
