"""Truth in scores, as properties of every shipped criterion over generated registers and data, in the real embedded store.

A site is made for each example: registered subjects, every signal that the criterion asks, slots of time as long as its longest
bucket. The first slot is the enrolment and stays; of the others any may lose all samples, as when a sensor dies.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.catalogue import Catalogue
from agent.points import Point
from collector import rules_folder
from collector.evaluate import Rules, evaluate, evaluate_caps, evaluate_criteria, parse_time
from collector.evidence import CriterionResult
from collector.inquiry import Site
from collector.plan import Plan, QuestionPlan, window
from collector.query import HOUR_MS
from collector.ruleset import load_rules, memory_store
from collector.score import build_tree
from collector.site_folder import SECTION_OF_TAG, Calendar, Entry, Section, SiteFolder
from collector.stores import AppliedBatch, Store

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
ZONE = ZoneInfo("Asia/Shanghai")
SOURCE = "made-up"
SLOTS = 4
SUBJECTS = 2
SAMPLES_EACH = 4
MEASURED = sorted(name for name, one in rules_folder.load()[0].criteria.items() if one.kind == "measured")
EXAMPLES = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
BUSY_ALL_DAY = Calendar(dict.fromkeys(range(7), ((0, 1440),)))


@pytest.fixture(scope="module")
def rules() -> Rules:
    """The shipped rules; every signal has a source, so that its interval can be reported."""
    shipped = load_rules().rules
    measurements = {
        name: msgspec.structs.replace(
            one,
            emitted_by=(*one.emitted_by, SOURCE),
            fields={
                key: msgspec.structs.replace(field, emitted_by=field.emitted_by and (*field.emitted_by, SOURCE))
                for key, field in one.fields.items()
            },
        )
        for name, one in shipped.catalogue.measurements.items()
    }
    plans = {name: _needing_little(plan) for name, plan in shipped.plans.items()}
    return replace(shipped, catalogue=Catalogue(measurements, shipped.catalogue.families), plans=plans)


def _needing_little(plan: Plan) -> Plan:
    """The plan scored from its first bucket on: a few slots would be `no_data` throughout otherwise, and prove nothing."""
    questions = {key: replace(one, span_ms=1, samples=1) for key, one in plan.questions.items()}
    return replace(plan, questions=questions)


@pytest.fixture
def store(rules: Rules) -> Iterator[Store]:
    with memory_store(rules.catalogue) as opened:
        yield opened


@dataclass(frozen=True)
class Series:
    """One field of one subject that the criterion asks or is watched by."""

    measurement: str
    field: str
    tags: tuple[tuple[str, str], ...]
    is_event: bool


Value = tuple[int, int, float]
"""Series, slot, what its samples hold in this slot."""


@dataclass(frozen=True)
class World:
    """A criterion's questions turned into series and slots."""

    name: str
    series: tuple[Series, ...]
    choices: Mapping[int, Sequence[float]]
    starts: tuple[int, ...]
    folder: SiteFolder
    step_ms: int


def make_world(rules: Rules, name: str) -> World:
    """Everything about a criterion but the values."""
    plan = rules.plans[name]
    each_ms = max(question.each_ms for question in plan.questions.values())
    starts = tuple(_starts(each_ms)[-SLOTS:])
    series: dict[Series, Sequence[float]] = {}
    entries: dict[Section, dict[str, Entry]] = {}
    for question, number in itertools.product(plan.questions.values(), range(SUBJECTS)):
        tags = _tags(rules, question, number)
        entity = tags[question.of]
        section = entries.setdefault(SECTION_OF_TAG[question.of], {})
        attributes = dict(section[entity].attributes) if entity in section else {}
        for key, values in question.attributes:
            attributes[key] = (*attributes.get(key, ()), values[0])
        section[entity] = Entry(entity, SECTION_OF_TAG[question.of], attributes, since=starts[0])
        for one, values in _series_of(rules, name, question, tags):
            series.setdefault(one, values)
    chosen = tuple(series)
    folder = SiteFolder(
        zone=ZONE,
        has_register=True,
        entries=entries,
        calendars={"busy": BUSY_ALL_DAY, "service-hours": BUSY_ALL_DAY},
    )
    shortest = min(question.each_ms for question in plan.questions.values())
    return World(
        name, chosen, {n: series[one] for n, one in enumerate(chosen)}, starts, folder, shortest // SAMPLES_EACH
    )


def _starts(each_ms: int) -> Sequence[int]:
    start, end, edges = window(AS_OF, SLOTS * each_ms, each_ms, ZONE)
    return edges or range(start, end, each_ms)


def _tags(rules: Rules, question: QuestionPlan, number: int) -> dict[str, str]:
    declared = rules.catalogue.measurements[question.measurement].tags
    tags = {"asset": "probe-1"} | {tag: (one.values or (f"{tag}-1",))[0] for tag, one in declared.items()}
    tags |= {tag: values[0] for tag, values in question.tags if tag != "site"}
    return tags | {question.of: f"{question.of}-{number}"}


def _series_of(
    rules: Rules, name: str, question: QuestionPlan, tags: Mapping[str, str]
) -> Iterator[tuple[Series, Sequence[float]]]:
    scale = rules.book.scales[rules.book.criteria[name].scale]
    marks = [rung.at for rung in scale.rungs]
    fields = [question.field, *([question.whole[0]] if question.whole else [])]
    wanted = [(question.measurement, field) for field in fields]
    wanted += [(watch.measurement, watch.field) for watch in question.watches]
    for measurement, field in wanted:
        declared = rules.catalogue.measurements[measurement]
        own = {tag: tags.get(tag, f"{tag}-1") for tag in ("asset", *declared.tags)}
        kind = declared.fields[field]
        thresholds = [take.threshold for take in (question.bucket, question.subject) if take.threshold is not None]
        low, high = max(kind.least, -1e6), min(kind.greatest, 1e6)
        values = {min(max(value, low), high) for value in (low, high, 0.0, 1.0, 2.0, *marks, *thresholds)}
        values = {value for value in values if kind.kind == "gauge" or kind.greatest > 1 or value in (0.0, 1.0)}
        yield Series(measurement, field, tuple(sorted(own.items())), kind.kind == "event"), sorted(values)


def draw_values(world: World) -> st.SearchStrategy[list[Value]]:
    """For every series and slot a value; an event may also not happen (then there is none)."""
    strategies = []
    for number, one in enumerate(world.series):
        for slot in range(SLOTS):
            held = st.sampled_from(world.choices[number]).map(lambda value, n=number, s=slot: (n, s, value))
            strategies.append(st.one_of(held, st.just(None)) if one.is_event and slot else held)
    return st.tuples(*strategies).map(lambda values: [value for value in values if value is not None])


def with_their_proof(world: World, lost: set[int]) -> set[int]:
    """Events go with what proves that somebody watched: a subject that fell silent did not go on looking."""
    events = [dict(world.series[number].tags) for number in lost if world.series[number].is_event]
    return lost | {
        number
        for number, one in enumerate(world.series)
        for tags in events
        if not one.is_event and all(tags.get(tag, value) == value for tag, value in one.tags)
    }


_serial = itertools.count()


def write_site(store: Store, world: World, values: Sequence[Value], order: Sequence[int] = ()) -> Site:
    """A site of its own that has these values, delivered in this order (again and again where a place stands twice)."""
    site = Site(f"site-{next(_serial)}", ZONE, world.folder)
    batches = [_batch(world, site, value) for value in values]
    if not order:
        store.write(batches)
    for place in order:
        store.write([batches[place]._replace(identity=f"{batches[place].identity}-{next(_serial)}")])
    return site


def _batch(world: World, site: Site, value: Value) -> AppliedBatch:
    number, slot, held = value
    one = world.series[number]
    start = world.starts[slot]
    end = world.starts[slot + 1] if slot + 1 < SLOTS else AS_OF
    tags, fields = dict(one.tags), {one.field: held}
    times = [start + (end - start) // 2] if one.is_event else range(start, end, world.step_ms)
    points = [Point(one.measurement, tags, fields, time) for time in times]
    round_tags = {"asset": tags["asset"], "source": SOURCE, "target": "local"}
    for tags_ in (round_tags, {**round_tags, "source": tags.get("source", SOURCE)}):
        reported = {"interval_seconds": world.step_ms / 1000}
        points += [Point("source_round", tags_, reported, time) for time in range(start, end, HOUR_MS)]
    return AppliedBatch(site.id, "agent-1", "", -1, f"{site.id}-{number}-{slot}", start, start, points, 0, ())


def result_of(store: Store, rules: Rules, site: Site, name: str) -> CriterionResult:
    return evaluate_criteria(store, rules, site, AS_OF, [name])[name]


@pytest.mark.parametrize("name", MEASURED)
def test_no_criterion_gains_by_what_is_not_known(store: Store, rules: Rules, name: str) -> None:
    world = make_world(rules, name)
    statuses = set()

    @EXAMPLES
    @given(
        values=draw_values(world),
        lost_slots=st.sets(st.integers(1, SLOTS - 1)),
        lost_series=st.sets(st.integers(0, len(world.series) - 1)),
    )
    def check(values: list[Value], lost_slots: set[int], lost_series: set[int]) -> None:
        lost_series = with_their_proof(world, lost_series)
        kept = [
            value for value in values if not value[1] or (value[1] not in lost_slots and value[0] not in lost_series)
        ]
        full = result_of(store, rules, write_site(store, world, values), name)
        less = result_of(store, rules, write_site(store, world, kept), name)
        statuses.add(full.status)
        assert "error" not in (full.status, less.status)
        assert 0 <= full.low <= full.high <= 100
        assert less.low <= less.high
        assert less.low <= full.low
        assert less.high >= full.high

    check()
    assert "scored" in statuses, "nothing was scored, so nothing was shown"


@pytest.mark.parametrize("name", MEASURED[::6])
def test_order_and_doubles_of_delivery_change_no_byte(store: Store, rules: Rules, name: str) -> None:
    world = make_world(rules, name)

    @settings(EXAMPLES, max_examples=3)
    @given(values=draw_values(world), chance=st.randoms(use_true_random=False))
    def check(values: list[Value], chance: random.Random) -> None:
        order = [*range(len(values)), *chance.sample(range(len(values)), len(values) // 2)]
        chance.shuffle(order)
        plain = write_site(store, world, values)
        shuffled = write_site(store, world, values, order)
        one, other = (result_of(store, rules, site, name) for site in (plain, shuffled))
        text = msgspec.json.encode(one).replace(plain.id.encode(), shuffled.id.encode())
        assert text == msgspec.json.encode(other)

    check()


@settings(EXAMPLES, max_examples=5)
@given(data=st.data())
def test_every_scorecard_can_be_recomputed_and_no_interval_is_upside_down(rules: Rules, data: st.DataObject) -> None:
    world = make_world(rules, data.draw(st.sampled_from(MEASURED)))
    values = data.draw(draw_values(world))
    with memory_store(rules.catalogue) as own:
        site = write_site(own, world, values)
        card, again = (evaluate(own, rules, site, AS_OF) for _ in range(2))
    assert msgspec.json.encode(card) == msgspec.json.encode(again)
    for node in card.nodes:
        assert 0 <= node.low <= node.high <= 100
        parts = [one for one in card.nodes if one.parent == node.id] or list(node.criteria)
        if parts and node.status != "not_applicable":
            weights = [part.effective_weight for part in parts]
            assert sum(weights) == pytest.approx(1, abs=1e-9)
            ends = (
                (node.low, node.cap, [part.low for part in parts]),
                (node.high, node.cap_high, [part.high for part in parts]),
            )
            for found, cap, points in ends:
                total = sum(weight * point for weight, point in zip(weights, points, strict=True))
                assert found == pytest.approx(min(100 if cap is None else cap, total), abs=1e-6)


def test_no_cap_raises_a_node(rules: Rules, store: Store) -> None:
    nobody = Site("nobody", ZONE)
    empty = evaluate_criteria(store, rules, nobody, AS_OF, sorted(rules.book.criteria))
    caps = evaluate_caps(store, rules, nobody, AS_OF, empty)

    @settings(EXAMPLES, max_examples=30)
    @given(
        ends=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=len(empty), max_size=len(empty)),
        states=st.lists(st.sampled_from(["met", "unknown", "not_met"]), min_size=len(caps), max_size=len(caps)),
    )
    def check(ends: list[tuple[int, int]], states: list[str]) -> None:
        results = {
            name: msgspec.structs.replace(one, low=float(min(pair)), high=float(max(pair)), status="scored")
            for (name, one), pair in zip(empty.items(), ends, strict=True)
        }
        held = {
            name: msgspec.structs.replace(cap, state=state)
            for (name, cap), state in zip(caps.items(), states, strict=True)
        }
        free = {name: msgspec.structs.replace(cap, state="not_met") for name, cap in caps.items()}
        for capped, loose in zip(
            build_tree(rules.book, results, held)[1], build_tree(rules.book, results, free)[1], strict=True
        ):
            assert capped.low <= loose.low and capped.high <= loose.high
            assert capped.low <= capped.high

    check()
