"""A made-up hospital of some hundred assets with a year behind it: its scorecard, explained line by line.

Every signal that the 65 criteria ask is there, most of them good; one subject of each is bad, and one fell silent for the last
tenth of the window.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from zoneinfo import ZoneInfo

import msgspec
import pytest

from agent.catalogue import Catalogue
from agent.language import speaking
from agent.points import Point
from collector.combine import COMBINATIONS
from collector.evaluate import Rules, evaluate, parse_time
from collector.explain import explain, find_explained
from collector.inquiry import Site
from collector.plan import QuestionPlan, window
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules, memory_store
from collector.score import Scorecard
from collector.site_folder import SECTION_OF_TAG, Attestation, Calendar, Entry, Section, SiteFolder
from collector.snapshot import Commands
from collector.stores import AppliedBatch, Store

AS_OF = parse_time("2026-03-31T00:00:00+08:00")
ZONE = ZoneInfo("Asia/Shanghai")
SOURCE = "made-up"
WORKING_DAYS = Calendar(dict.fromkeys(range(5), ((480, 720), (840, 1080))))
BAD, SILENT = 1, 2
"""Which subject of each question is bad, and which fell silent."""


def subjects_of(plan: QuestionPlan) -> int:
    """Many where days are asked, few where minutes are: a year stays some hundred thousand points."""
    buckets = plan.over_ms // plan.each_ms
    return 24 if buckets <= 90 else 6 if buckets <= 800 else 3


@pytest.fixture(scope="module")
def rules() -> Rules:
    shipped = load_rules().rules
    measurements = {
        name: msgspec.structs.replace(
            one,
            emitted_by=(SOURCE,),
            fields={key: msgspec.structs.replace(field, emitted_by=None) for key, field in one.fields.items()},
        )
        for name, one in shipped.catalogue.measurements.items()
    }
    return replace(shipped, catalogue=Catalogue(measurements, shipped.catalogue.families))


class Hospital:
    """Series by series the points of a year, and the register that knows every asset."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.entries: dict[Section, dict[str, Entry]] = {}
        self.points: dict[tuple[str, str, tuple[str, ...], int], Point] = {}
        for name, plan in rules.plans.items():
            better = rules.book.scales[rules.book.criteria[name].scale].better
            for key, question in plan.questions.items():
                inputs = plan.combination.inputs if plan.combination else {}
                self._add(name, question, inputs.get(key, better) or "higher")

    def _add(self, name: str, question: QuestionPlan, better: str) -> None:
        for number in range(subjects_of(question)):
            tags = self._tags(name, question, number)
            self._register(question, tags[question.of])
            good = self._value(question, better == "higher")
            bad = self._value(question, better != "higher")
            self._write(question, tags, question.measurement, question.field, bad if number == BAD else good, number)
            if question.whole is not None:
                self._write(question, tags, question.measurement, question.whole[0], 100.0, number)
            for watch in question.watches:
                self._write(question, tags, watch.measurement, watch.field, 1.0, number)

    def _tags(self, name: str, question: QuestionPlan, number: int) -> dict[str, str]:
        declared = self.rules.catalogue.measurements[question.measurement].tags
        short = "-".join(values[0] for _, values in question.attributes) or name  # who is alike is asked by several
        tags = {"asset": f"{short}-{number}"} | {tag: (one.values or ("part-1",))[0] for tag, one in declared.items()}
        tags |= {tag: values[0] for tag, values in question.tags}
        return tags | {question.of: f"{short}-{number}"}

    def _register(self, question: QuestionPlan, identity: str) -> None:
        section = SECTION_OF_TAG[question.of]
        known = self.entries.setdefault(section, {})
        before = known[identity].attributes if identity in known else {}
        attributes: Mapping[str, tuple[str, ...]] = {
            **before,
            **{key: values[:1] for key, values in question.attributes},
        }
        known[identity] = Entry(identity, section, attributes)

    def _value(self, question: QuestionPlan, is_high: bool) -> float:
        if question.whole is not None:
            return 100.0 if is_high else 10.0
        field = self.rules.catalogue.measurements[question.measurement].fields[question.field]
        falls = question.bucket.by == "share" and question.bucket.operator in ("<", "<=")
        high, low = min(field.greatest, 1e9), max(field.least, 0.0)
        return high if is_high != falls else low

    def _write(
        self, question: QuestionPlan, tags: Mapping[str, str], measurement: str, field: str, value: float, number: int
    ) -> None:
        declared = self.rules.catalogue.measurements[measurement]
        own = {tag: tags.get(tag, "part-1") for tag in ("asset", *declared.tags)}
        start, end, _ = window(AS_OF, question.over_ms, question.each_ms, ZONE)
        is_event = declared.fields[field].kind == "event"
        step = question.over_ms // 8 if is_event else question.each_ms // 3
        until = end - (question.over_ms // 10 if number == SILENT else 0)
        identity = (measurement, field, tuple(own.values()), step)
        for time in range(start, until, step):
            self.points[*identity, time] = Point(measurement, own, {field: value}, time)  # type: ignore[index]
        for time in range(start, end, 30 * DAY_MS):
            tags_ = {"asset": own["asset"], "source": own.get("source", SOURCE), "target": "local"}
            self.points["round", *identity, time] = Point(  # type: ignore[index]
                "source_round", tags_, {"interval_seconds": step / 1000}, time - time % HOUR_MS
            )

    def folder(self) -> SiteFolder:
        place = Attestation(
            criterion="ev-dr-location",
            value=4.0,
            is_not_applicable=False,
            author="wang",
            role="head of IT",
            reason="",
            document=None,
            since=0,
            expires=AS_OF + DAY_MS,
            place="attestations.yaml:1",
        )
        calendars = {"busy": WORKING_DAYS, "service-hours": WORKING_DAYS}
        return SiteFolder(ZONE, True, self.entries, (place,), calendars=calendars, digest="made-up")

    def write(self, store: Store) -> int:
        points = list(self.points.values())
        for start in range(0, len(points), 50_000):
            part = points[start : start + 50_000]
            store.write([AppliedBatch("hospital", "agent-1", "", -1, f"part-{start}", AS_OF, AS_OF, part, 0, ())])
        return len(points)


@pytest.fixture(scope="module")
def hospital(rules: Rules) -> Hospital:
    return Hospital(rules)


@pytest.fixture(scope="module")
def card(rules: Rules, hospital: Hospital) -> Iterator[Scorecard]:
    with memory_store(rules.catalogue) as store:
        assert hospital.write(store) > 500_000
        yield evaluate(store, rules, Site("hospital", ZONE, hospital.folder()), AS_OF)


def test_a_year_of_some_hundred_assets_scores_every_criterion(hospital: Hospital, card: Scorecard) -> None:
    assert sum(len(section) for section in hospital.entries.values()) > 300
    measured = [one for node in card.nodes for one in node.criteria if one.kind == "measured"]
    unscored = {one.id: str(one.reason) for one in measured if one.status != "scored"}
    assert (len(measured), unscored) == (65, {})
    assert all(0 <= one.low <= one.high <= 100 for one in measured)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_line_of_its_scorecard_can_be_explained(rules: Rules, card: Scorecard, language: str) -> None:
    with speaking(language):  # type: ignore[arg-type]
        for node in card.nodes:
            for criterion in node.criteria:
                found = find_explained(card, criterion.id)
                assert found is criterion
                text = explain(rules, card, criterion, Commands())
                if criterion.kind == "measured":
                    assert f"{criterion.questions[0].found}" in text
                    assert all(one.query.strip() in text for one in criterion.questions)
                    silent = any(one.missing for one in criterion.questions)
                    word = "missing " if language == "en" else "缺失 "
                    assert silent == any(line.strip().startswith(word) for line in text.splitlines())
            assert f"{node.low:.4g} - {node.high:.4g}" in explain(rules, card, node, Commands())


def test_every_combination_is_used_by_a_shipped_criterion(rules: Rules) -> None:
    combines = [one.combine for one in (*rules.book.criteria.values(), *rules.book.index.caps) if one.combine]
    assert {one.by for one in combines} == set(COMBINATIONS)
