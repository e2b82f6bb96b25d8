"""Evaluation: asks the store every criterion's questions at one time and has the answers scored.

A pure function of (rules, site folder, store content at or before as-of, as-of): the same input gives the same bytes.
"""

import datetime
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import msgspec

from agent.catalogue import Catalogue, Text
from agent.errors import InfravitalsError
from collector.combine import Row
from collector.evidence import (
    EXEMPT_SHOWN,
    AttestationEvidence,
    CapResult,
    CapState,
    CriterionResult,
    Provisional,
    QuestionEvidence,
    Status,
    canonical_digest,
    joint_digest,
    missing_subjects,
    name_subject,
    worst_subjects,
)
from collector.inquiry import Inquiry, Moment, Reading, Site
from collector.intervals import Intervals
from collector.plan import Plan, Span, plan_all, plan_caps
from collector.query import HOUR_MS
from collector.rulebook import Cap, Criterion, Rulebook, longest_term_ms
from collector.score import Digests, Scorecard, build_tree, cross, points
from collector.site_folder import Attestation
from collector.stores import Instant, Store, instant_of
from collector.subjects import Sightings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """Everything that stays the same from one evaluation to the next."""

    book: Rulebook
    catalogue: Catalogue
    plans: Mapping[str, Plan]
    caps: Mapping[str, Plan]
    digest: str
    catalogue_digest: str

    def rule_digest(self, name: str) -> str:
        """One digest of a criterion's file and its scale's."""
        book = self.book
        files = (f"{book.indicators.get(name)}/{name}.yaml", f"scales/{book.criteria[name].scale}.yaml")
        return joint_digest(book.digests.get(file, "") for file in files)


def prepare(book: Rulebook, catalogue: Catalogue) -> Rules:
    """The rules ready to be evaluated; `plan_check.check` has found no mistake in them."""
    catalogue_digest = hashlib.sha256(msgspec.json.encode(catalogue, order="sorted")).hexdigest()
    plans, caps = plan_all(book, catalogue), plan_caps(book, catalogue)
    return Rules(book, catalogue, plans, caps, book.digest(), catalogue_digest)


def parse_time(text: str) -> int:
    """Milliseconds of an RFC 3339 time with an offset. Raises ValueError for one without."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return int(moment.timestamp() * 1000)


def format_time(milliseconds: int) -> str:
    """RFC 3339 in UTC, with milliseconds only when there are any."""
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds").replace("+00:00", "Z")


def evaluate(store: Instant, rules: Rules, site: Site, as_of: int, now: int | None = None) -> Scorecard:
    """The scorecard at `as_of` (ms), revision 0. Raises StoreError when the store is in trouble.

    now: the time of reading, when the store shall remember closed buckets to keep; it changes no byte.
    """
    both = [*rules.plans.values()], [*rules.caps.values()]
    with instant_of(store) as instant:
        moment = _moment(instant, rules, site, as_of, [*both[0], *both[1]], now)
        of_criteria, of_caps = (replace(moment, intervals=moment.intervals.since(_begin(as_of, one))) for one in both)
        results = {name: _criterion(of_criteria, rules, name) for name in sorted(rules.book.criteria)}
        caps = _caps(of_caps, rules, results)
    total, nodes = build_tree(rules.book, results, caps)
    lines = [*(f"{name}={result.digest}" for name, result in results.items())]
    lines += [f"cap {cap.id}={one.name}:{one.digest}" for cap in caps.values() for one in cap.questions]
    data = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    digests = Digests(data, rules.digest, site.folder.digest, rules.catalogue_digest)
    return Scorecard(site=site.id, as_of=format_time(as_of), revision=0, digests=digests, total=total, nodes=nodes)


def evaluate_criteria(
    store: Store, rules: Rules, site: Site, as_of: int, names: Sequence[str], now: int | None = None
) -> dict[str, CriterionResult]:
    """These criteria at `as_of`, not yet weighted."""
    plans = [rules.plans[name] for name in names if name in rules.plans]
    with instant_of(store) as instant:
        moment = _moment(instant, rules, site, as_of, plans, now)
        return {name: _criterion(moment, rules, name) for name in names}


def evaluate_caps(
    store: Store,
    rules: Rules,
    site: Site,
    as_of: int,
    results: Mapping[str, CriterionResult],
    now: int | None = None,
) -> dict[str, CapResult]:
    """Every cap of the index; results: the criteria that conditions speak of."""
    with instant_of(store) as instant:
        return _caps(_moment(instant, rules, site, as_of, [*rules.caps.values()], now), rules, results)


def _caps(moment: Moment, rules: Rules, results: Mapping[str, CriterionResult]) -> dict[str, CapResult]:
    return {cap.id: _cap(moment, rules, cap, results) for cap in rules.book.index.caps}


def _moment(store: Instant, rules: Rules, site: Site, as_of: int, plans: Sequence[Plan], now: int | None) -> Moment:
    intervals = Intervals.read(store, site.id, _begin(as_of, plans), as_of, now) if plans else Intervals({}, ())
    return Moment(store, rules.catalogue, site, intervals, Sightings(store, as_of), as_of, now)


def _begin(as_of: int, plans: Iterable[Plan]) -> int:
    """From when on the plans want to know how often something was gathered."""
    return as_of - max((plan.over_ms for plan in plans), default=0) - HOUR_MS


def _criterion(moment: Moment, rules: Rules, name: str) -> CriterionResult:
    try:
        criterion = rules.book.criteria[name]
        vouched = moment.site.folder.attestation_of(name, moment.as_of)
        if criterion.not_applicable is not None and vouched and _is_excepted(criterion, vouched, moment.as_of):
            return _vouched(moment, rules, name, vouched, "not_applicable", 0.0, 0.0)
        if criterion.kind == "attested":
            return _attested(moment, rules, name, vouched)
        return _Asked(moment, rules, name).result()
    except InfravitalsError:
        raise  # the store is in trouble: no scorecard rather than a wrong one
    except Exception:  # our own bug in one criterion must not blind the others; it shows as `error`
        log.exception("criterion %s could not be evaluated", name)
        return _unscored(rules, name, Text("评分程序出错，详见日志", "the evaluation failed, see the log"), "error")


def _unscored(rules: Rules, name: str, reason: Text | None, status: Status = "no_data") -> CriterionResult:
    criterion = rules.book.criteria[name]
    return CriterionResult(
        id=name,
        title=criterion.title,
        kind=criterion.kind,
        status=status,
        weight=0.0,
        effective_weight=0.0,
        low=0.0,
        high=100.0,
        coverage=0.0,
        value=None,
        best_value=None,
        provisional=None,
        unit=rules.book.scales[criterion.scale].unit,
        query=None,
        window=None,
        expected=0,
        found=0,
        samples=0,
        subjects=0,
        worst=(),
        reason=reason,
        digest=canonical_digest([]),
        rule_digest=rules.rule_digest(name),
    )


# -- what a person vouches for


VouchedState = Literal["valid", "expired", "document_missing"]


def _is_excepted(criterion: Criterion, vouched: Attestation | None, as_of: int) -> bool:
    return vouched is not None and vouched.is_not_applicable and _state(criterion, vouched, as_of) == "valid"


def _end_of(criterion: Criterion, vouched: Attestation) -> int:
    """When it ends: as written, and no later than the rule lets one attestation hold."""
    return min(vouched.expires, vouched.since + longest_term_ms(criterion))


def _state(criterion: Criterion, vouched: Attestation, as_of: int) -> VouchedState:
    if as_of >= _end_of(criterion, vouched):
        return "expired"
    is_there = vouched.document is None or vouched.document.is_there
    return "valid" if is_there else "document_missing"


def _attested(moment: Moment, rules: Rules, name: str, vouched: Attestation | None) -> CriterionResult:
    if vouched is None or vouched.value is None:
        return _unscored(rules, name, Text("尚无人证明", "nobody has attested this yet"))
    criterion = rules.book.criteria[name]
    state = _state(criterion, vouched, moment.as_of)
    if state != "valid":
        result = _vouched(moment, rules, name, vouched, "no_data", 0.0, 100.0)
        reason = {
            "expired": Text("证明已过期，请续期", "the attestation has expired; renew it"),
            "document_missing": Text("证明文件不在或已改动", "the document is gone or was changed"),
        }[state]
        return msgspec.structs.replace(result, reason=reason)
    earned = points(rules.book.scales[criterion.scale], vouched.value)
    result = _vouched(moment, rules, name, vouched, "scored", earned, earned)
    return msgspec.structs.replace(result, coverage=1.0, value=vouched.value, best_value=vouched.value)


def _vouched(
    moment: Moment, rules: Rules, name: str, vouched: Attestation, status: Status, low: float, high: float
) -> CriterionResult:
    document, criterion = vouched.document, rules.book.criteria[name]
    evidence = AttestationEvidence(
        author=vouched.author,
        role=vouched.role,
        since=format_time(vouched.since),
        expires=format_time(_end_of(criterion, vouched)),
        reason=vouched.reason,
        document=document.path if document else "",
        sha256=document.sha256 if document else "",
        state=_state(criterion, vouched, moment.as_of),
    )
    reason = Text(vouched.reason, vouched.reason) if status == "not_applicable" else None
    return msgspec.structs.replace(_unscored(rules, name, reason, status), low=low, high=high, attestation=evidence)


# -- what is measured


class _Number(NamedTuple):
    """What a criterion came to; span None: no number at all."""

    span: Span | None
    reason: Text | None


class _Asked:
    """One measured criterion at one time: what its questions came to and what follows from it."""

    def __init__(self, moment: Moment, rules: Rules, name: str) -> None:
        self.moment, self.rules, self.name = moment, rules, name
        self.criterion = rules.book.criteria[name]
        self.scale = rules.book.scales[self.criterion.scale]
        self.plan = rules.plans[name]
        self.inquiries = {key: Inquiry(moment, plan, name) for key, plan in self.plan.questions.items()}
        self.main = next(iter(self.inquiries.values()))

    def result(self) -> CriterionResult:
        number = self._number()
        evidence = [make_evidence(key, inquiry) for key, inquiry in self.inquiries.items()]
        span, first = number.span, evidence[0]
        made = msgspec.structs.replace(
            _unscored(self.rules, self.name, number.reason),
            query="\n\n".join(one.query for one in evidence),
            window=first.window,
            expected=first.expected,
            found=first.found,
            samples=first.samples,
            subjects=first.subjects,
            worst=first.worst,
            digest=joint_digest(one.digest for one in evidence),
            questions=tuple(evidence),
        )
        if span is None:
            return msgspec.structs.replace(made, provisional=self._provisional())
        shares = [one.found / one.expected if one.expected else 0.0 for one in evidence]
        return msgspec.structs.replace(
            made,
            status="scored",
            low=points(self.scale, span.worst),
            high=points(self.scale, span.best),
            coverage=round(sum(shares) / len(shares), 9),
            value=span.worst,
            best_value=span.best,
        )

    def _number(self) -> _Number:
        trouble = self.main.trouble()
        if trouble is not None:
            return _Number(None, trouble)
        span = combine(self.plan, {key: inquiry.reading for key, inquiry in self.inquiries.items()})
        if span is None:
            if self.main.plan.is_event:
                return _Number(None, Text("期间没有发生任何事件", "nothing happened in the window"))
            return _Number(None, Text("没有可用的对象", "no subject gives a number"))
        return _Number(span, None)

    def _provisional(self) -> Provisional | None:
        """What the known data alone says; an input of which nothing is known counts as its worst."""
        if not self.main.subjects:
            return None
        known = {key: inquiry.known() for key, inquiry in self.inquiries.items()}
        if not next(iter(known.values())).numbers:
            return None
        span = combine(self.plan, known)
        if span is None:
            return None
        return Provisional(span.worst, points(self.scale, span.worst), self.main.rests_on())


def combine(plan: Plan, readings: Mapping[str, Reading]) -> Span | None:
    """The criterion's number from those of its questions; None when there is none."""
    if plan.combination is None:
        reading = next(iter(readings.values()))
        return reading.numbers.get(())
    if not any(reading.numbers for reading in readings.values()):
        return None
    labels = plan.main.left
    sides = [_rows(plan, labels, readings, is_best) for is_best in (False, True)]
    if plan.combination.whole is not None:
        return _joined(plan, *(plan.combination.whole(rows) for rows in sides))
    function = plan.combination.each
    if function is None:
        raise ValueError("a combination takes each subject or the whole")
    numbers = {}
    for worst, best in zip(*sides, strict=True):
        span = _joined(plan, function(worst), function(best))
        if span is not None:
            numbers[tuple(worst.labels[name] for name in labels)] = span
    return cross(labels, numbers, plan.steps).get(()) if labels else numbers.get(())


def _rows(plan: Plan, labels: Sequence[str], readings: Mapping[str, Reading], is_best: bool) -> list[Row]:
    """Every subject of any input; an input that lacks it counts as its worst or best."""
    keys = sorted({key for reading in readings.values() for key in reading.numbers})
    rows = []
    for key in keys:
        values: dict[str, float | None] = {}
        for name, reading in readings.items():
            span = reading.numbers.get(key, plan.questions[name].outer)
            values[name] = None if span is None else span.best if is_best else span.worst
            if plan.combination and plan.combination.inputs.get(name, "") is None and span and span.worst != span.best:
                values[name] = None  # an input without a direction is a number only when it is known exactly
        rows.append(Row(dict(zip(labels, key, strict=True)), values, is_best))
    return rows


def _joined(plan: Plan, worst: float | None, best: float | None) -> Span | None:
    """Both readings; where only one of them gives a number the other is unknown."""
    if worst is None and best is None:
        return None
    better = plan.combination.better if plan.combination else None
    if worst is None:
        worst = 0.0 if better == "higher" else float("inf")
    if best is None:
        best = float("inf") if better == "higher" else 0.0
    return Span(worst, best)


def make_evidence(name: str, inquiry: Inquiry) -> QuestionEvidence:
    """What stands beside one question's answer."""
    plan, rows = inquiry.plan, inquiry.answers
    numbers = inquiry.reading.numbers
    span = numbers.get(()) if len(numbers) == 1 else None
    return QuestionEvidence(
        name=name,
        measures=f"{plan.measurement}.{plan.field}",
        query=inquiry.moment.store.compiled(inquiry.question),
        window=(inquiry.question.start, inquiry.question.end),
        expected=sum(row.expected for row in rows),
        found=sum(row.found for row in rows),
        samples=sum(row.samples for row in rows),
        subjects=len(inquiry.subjects),
        unit=plan.unit,
        low=span.worst if span else None,
        high=span.best if span else None,
        number_unit=plan.number_unit,
        worst=worst_subjects(plan.per, inquiry.each, plan.bounds.share_is_good),
        missing=missing_subjects(plan.per, inquiry.each),
        exempt=tuple(name_subject(plan.per, key) for key in inquiry.exempt[:EXEMPT_SHOWN]),
        digest=canonical_digest(rows),
        since=min((subject.since for subject in inquiry.subjects), default=None),
        longest=max((row.found for row in rows), default=0),
    )


# -- caps


def _cap(moment: Moment, rules: Rules, cap: Cap, results: Mapping[str, CriterionResult]) -> CapResult:
    if cap.criterion is not None and cap.points_below is not None:
        result = results[cap.criterion]
        by_points = _holds(result.high < cap.points_below, result.low < cap.points_below)
        return CapResult(id=cap.id, title=cap.title, ceiling=cap.ceiling, state=by_points)
    plan = rules.caps[cap.id]
    inquiries = {key: Inquiry(moment, question, cap.id) for key, question in plan.questions.items()}
    span = combine(plan, {key: inquiry.reading for key, inquiry in inquiries.items()})
    at_least = cap.at_least or 0.0
    state: CapState = "unknown"
    if span is not None and next(iter(inquiries.values())).trouble() is None:
        state = _holds(span.best >= at_least, span.worst >= at_least)
    evidence = tuple(make_evidence(key, inquiry) for key, inquiry in inquiries.items())
    return CapResult(id=cap.id, title=cap.title, ceiling=cap.ceiling, state=state, questions=evidence)


def _holds(surely: bool, possibly: bool) -> CapState:
    """Whether a condition holds that is met even at best, or only at worst."""
    return "met" if surely else "unknown" if possibly else "not_met"
