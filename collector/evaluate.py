"""Evaluation: asks the store every criterion's question at one time and has the answers scored.

A pure function of (rules, site folder, store content at or before as-of, as-of): the same input gives the same bytes.
"""

import bisect
import datetime
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import msgspec

from agent.catalogue import Catalogue, Text
from agent.errors import InfravitalsError
from collector.evidence import CriterionResult, Provisional, Status, canonical_digest, worst_subjects
from collector.plan import Plan, Where, plan_all
from collector.query import HOUR_MS, Bounds, Expectation, Question, SubjectAnswer, Take, least_samples
from collector.rulebook import Criterion, Rulebook
from collector.score import Digests, Scorecard, Span, build_tree, cross, known_spans, points, spans
from collector.stores import KnownSubject, Store

log = logging.getLogger(__name__)

NO_SITE_FOLDER = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Site:
    """The hospital that is scored: its id, its time zone, the digest of its site folder."""

    id: str
    zone: ZoneInfo
    digest: str = NO_SITE_FOLDER


@dataclass(frozen=True)
class Rules:
    """Everything that stays the same from one evaluation to the next."""

    book: Rulebook
    catalogue: Catalogue
    plans: Mapping[str, Plan]
    digest: str
    catalogue_digest: str


def prepare(book: Rulebook, catalogue: Catalogue) -> Rules:
    """The rules ready to be evaluated; `plan.check` has found no mistake in them."""
    catalogue_digest = hashlib.sha256(msgspec.json.encode(catalogue, order="sorted")).hexdigest()
    return Rules(book, catalogue, plan_all(book, catalogue), book.digest(), catalogue_digest)


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


Runs = tuple[tuple[int, float], ...]
"""From which millisecond on a source was gathered how often (seconds), ascending."""


class Intervals:
    """How often each asset's sources were gathered, as the runner reported it hour by hour."""

    def __init__(self, runs: Mapping[tuple[str, str], Runs]) -> None:
        self._runs = runs

    @classmethod
    def read(cls, store: Store, site: str, start: int, as_of: int) -> "Intervals":
        """The intervals in force between `start` and `as_of`; within an hour the longest counts."""
        take = Take("max")
        start -= start % HOUR_MS
        question = Question(
            "source_round",
            "interval_seconds",
            (("site", (site,)),),
            ("asset", "source"),
            start,
            as_of + 1,
            HOUR_MS,
            take,
            take,
        )
        runs: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for change in store.changes(question):
            runs.setdefault((change.subject[0], change.subject[1]), []).append((change.start, change.value))
        return cls({key: tuple(found) for key, found in runs.items()})

    def of(self, asset: str, sources: Sequence[str], otherwise: float) -> Runs:
        """The runs of the least frequent of `sources` on this asset; the catalogue's interval where nothing was reported.

        Two sources may feed one measurement (bonds every 15 s, RAID every 60 s); a row does not say which it came from.
        Without a report the expectation stays at the catalogue's: a lost report must not make a gap look full.
        """
        found = [self._runs[asset, source] for source in sources if (asset, source) in self._runs]
        return max(found, key=lambda runs: runs[-1][1]) if found else ((0, otherwise),)


def evaluate(store: Store, rules: Rules, site: Site, as_of: int) -> Scorecard:
    """The scorecard at `as_of` (ms), revision 0. Raises StoreError when the store is in trouble."""
    results = evaluate_criteria(store, rules, site, as_of, sorted(rules.book.criteria))
    total, nodes = build_tree(rules.book, results)
    data = hashlib.sha256("".join(f"{name}={result.digest}\n" for name, result in results.items()).encode()).hexdigest()
    digests = Digests(data, rules.digest, site.digest, rules.catalogue_digest)
    return Scorecard(site=site.id, as_of=format_time(as_of), revision=0, digests=digests, total=total, nodes=nodes)


def evaluate_criteria(
    store: Store, rules: Rules, site: Site, as_of: int, names: Sequence[str]
) -> dict[str, CriterionResult]:
    """These criteria at `as_of`, not yet weighted."""
    longest = max((rules.plans[name].over_ms for name in names if name in rules.plans), default=0)
    intervals = Intervals.read(store, site.id, as_of - longest, as_of)
    return {name: _criterion(store, rules, site, intervals, name, as_of) for name in names}


def _criterion(store: Store, rules: Rules, site: Site, intervals: Intervals, name: str, as_of: int) -> CriterionResult:
    criterion = rules.book.criteria[name]
    plan = rules.plans.get(name)
    if plan is None:
        return _unscored(rules, name, criterion.awaits or Text("尚无问题", "no question yet"))
    try:
        return _Asked(store, rules, site, intervals, criterion, plan, as_of).result()
    except InfravitalsError:
        raise  # the store is in trouble: no scorecard rather than a wrong one
    except Exception:  # our own bug in one criterion must not blind the other 64; it shows as `error`
        log.exception("criterion %s could not be evaluated", name)
        return _unscored(rules, name, Text("评分程序出错，详见日志", "the evaluation failed, see the log"), "error")


def _unscored(rules: Rules, name: str, reason: Text, status: Status = "no_data") -> CriterionResult:
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
    )


class _Asked:
    """One criterion at one time: what the store answered and what follows from it."""

    def __init__(
        self, store: Store, rules: Rules, site: Site, intervals: Intervals, criterion: Criterion, plan: Plan, as_of: int
    ) -> None:
        self.store, self.rules, self.site, self.intervals = store, rules, site, intervals
        self.criterion, self.plan, self.as_of = criterion, plan, as_of
        self.scale = rules.book.scales[criterion.scale]
        self.question = plan.question(as_of, site.zone, site.id)
        self.subjects = store.subjects(plan.measurement, plan.per, dict(self.question.where), as_of)
        expectations = [self._expect(subject) for subject in self.subjects]
        self.answers = store.answer(self.question, expectations, plan.bounds) if expectations else []

    def _expect(self, known: KnownSubject) -> Expectation:
        plan = self.plan
        asset = known.subject[plan.per.index("asset")]
        measurement = self.rules.catalogue.measurements[plan.measurement]
        sources: Sequence[str] = measurement.emitters(plan.field)
        if "source" in plan.per:  # the runner's own rows: each speaks of the source that it names
            sources = (known.subject[plan.per.index("source")],)
        runs = self.intervals.of(asset, sources, measurement.interval_seconds)
        least = tuple((start, least_samples(plan.each_ms, seconds)) for start, seconds in runs)
        return Expectation(known.subject, known.first_seen, ((0, least[0][1]), *least[1:]))

    def result(self) -> CriterionResult:
        reason = self._reason()
        span = cross(self.plan.per, spans(self.answers), self.plan.steps) if reason is None else None
        if span is None:
            return self._made("no_data", Span(0, 0), reason or Text("没有可用的对象", "no subject gives a number"))
        return self._made("scored", span, None)

    def _reason(self) -> Text | None:
        """Why there is no score, None when there is enough."""
        measurement = self.rules.catalogue.measurements[self.plan.measurement]
        if not self.subjects:
            if not measurement.emitters(self.plan.field):
                return Text("尚无采集源提供该信号", "no source gives this signal yet")
            return Text("尚未见到任何对象，请接入采集", "no subject was seen yet; enrol one")
        if self.plan.attributes:
            return _all_assets(self.plan.attributes)
        best = max(answer.found for answer in self.answers) * self.plan.each_ms
        if best < self.plan.span_ms:
            return Text(
                f"已观测 {_spell(best, 'zh')}，至少需要 {_spell(self.plan.span_ms, 'zh')}",
                f"seen for {_spell(best, 'en')}, at least {_spell(self.plan.span_ms, 'en')} are needed",
            )
        samples = sum(answer.samples for answer in self.answers)
        if samples < self.plan.samples:
            return Text(
                f"样本 {samples} 个，至少需要 {self.plan.samples} 个",
                f"{samples} samples, at least {self.plan.samples} are needed",
            )
        return None

    def _made(self, status: Status, span: Span, reason: Text | None) -> CriterionResult:
        expected = sum(answer.expected for answer in self.answers)
        found = sum(answer.found for answer in self.answers)
        scored = status == "scored"
        return CriterionResult(
            id=self.plan.criterion,
            title=self.criterion.title,
            kind=self.criterion.kind,
            status=status,
            weight=0.0,
            effective_weight=0.0,
            low=points(self.scale, span.worst) if scored else 0.0,
            high=points(self.scale, span.best) if scored else 100.0,
            coverage=round(found / expected, 9) if scored and expected else 0.0,
            value=span.worst if scored else None,
            provisional=None if scored else self._provisional(),
            unit=self.scale.unit,
            query=self.store.compiled(self.question),
            window=(self.question.start, self.question.end),
            expected=expected,
            found=found,
            samples=sum(answer.samples for answer in self.answers),
            subjects=len(self.subjects),
            worst=worst_subjects(self.plan.per, self.answers, self.plan.bounds.share_is_good),
            reason=reason,
            digest=canonical_digest(self.answers),
        )

    def _provisional(self) -> Provisional | None:
        """What the known data says, the open bucket included; whatever was found counts, however little."""
        expectations = [Expectation(subject.subject, 0, ((0, 1),)) for subject in self.subjects]
        if not expectations:
            return None
        question = self.plan.open_question(self.as_of, self.site.zone, self.site.id)
        answers: Sequence[SubjectAnswer] = self.store.answer(question, expectations, Bounds(0.0, 0.0))
        span = cross(self.plan.per, known_spans(answers), self.plan.steps)
        return None if span is None else Provisional(span.worst, points(self.scale, span.worst), self._rests_on())

    def _rests_on(self) -> Text | None:
        """What a provisional value rests on while no closed bucket is full, or it would pass for a measurement."""
        if any(answer.found for answer in self.answers):
            return None
        if all(subject.first_seen >= self.question.end for subject in self.subjects):
            return Text(
                "此值只取自尚未结束的时间桶，还不计分",
                "this rests on the bucket that is still open alone, and earns nothing yet",
            )
        return Text(
            "还没有样本足够的已结束时间桶，此值取自尚未结束或样本不足的时间桶，还不计分",
            "no closed bucket holds enough samples: this rests on the bucket that is still open or on ones with too few, and earns nothing yet",
        )


def _all_assets(attributes: Where) -> Text:
    """Without a register an attribute picks nobody out: the value speaks of all, and must say so beside itself."""
    picked = [f"{key} = {' | '.join(values)}" for key, values in attributes]
    return Text(
        f"取全部已见资产：没有资产登记，无法只看 {'，'.join(picked)}；最多给出暂估",
        f"all seen assets, since there is no register to tell which have {', '.join(picked)}; provisional at most",
    )


def _spell(milliseconds: int, language: str) -> str:
    """A span as a person says it."""
    sizes = ((86_400_000, "天", "d"), (HOUR_MS, "小时", "h"), (60_000, "分钟", "min"), (1000, "秒", "s"))
    index = bisect.bisect_left([-size for size, _, _ in sizes], -max(milliseconds, 1000))
    size, zh, en = sizes[min(index, len(sizes) - 1)]
    return f"{milliseconds / size:.3g} {zh if language == 'zh' else en}"
