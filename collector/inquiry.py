"""One question asked at one time: subjects, what is expected of them, what the store held, the numbers that follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from agent.catalogue import Catalogue, Text
from collector.buckets import NOTHING, Buckets, Flags, Found, Integers, append, meets_all, quotient
from collector.intervals import Intervals, Least
from collector.numbers import Holder, answer_all, answer_together
from collector.plan import QuestionPlan, Span, Watch
from collector.query import Bounds, Expectation, Question, Spans, SubjectAnswer, Take
from collector.score import cross
from collector.simulated import SOURCE as SIMULATED_SOURCE
from collector.simulated import is_simulated
from collector.site_files import spans_of
from collector.site_folder import SiteFolder
from collector.stores import Instant
from collector.subjects import Chosen, Sightings, Subject, choose_subjects

NOBODY_LOOKED = 2**40
"""Samples that no bucket holds: it is missing whatever is in it."""


@dataclass(frozen=True)
class Site:
    """The hospital that is scored: its id, its time zone, what it says of itself."""

    id: str
    zone: ZoneInfo
    folder: SiteFolder = field(default_factory=SiteFolder)


@dataclass(frozen=True)
class Moment:
    """Where and when something is asked; as_of and now (see `evaluate`) in milliseconds."""

    store: Instant
    catalogue: Catalogue
    site: Site
    intervals: Intervals
    sightings: Sightings
    as_of: int
    now: int | None = None
    _calendars: dict[tuple[str, int, int], Spans | None] = field(default_factory=dict)

    def buckets(self, question: Question) -> Mapping[tuple[str, ...], Buckets]:
        """The store's buckets."""
        return self.store.buckets(question, self.now)

    def calendar(self, name: str, start: int, end: int) -> Spans | None:
        """The hours of a calendar of the site; None when it has none of that name."""
        key = (name, start, end)
        if key not in self._calendars:
            calendar = self.site.folder.calendars.get(name)
            self._calendars[key] = None if calendar is None else spans_of(calendar, self.site.zone, start, end)
        return self._calendars[key]

    def least(self, measurement: str, field_name: str, asset: str, source: str, question: Question) -> Least:
        """How many samples a bucket of a field on this asset should hold at least, from when on; question: which buckets."""
        declared = self.catalogue.measurements[measurement]
        sources = (source,) if source else declared.emitters(field_name)
        if is_simulated(self.site.id):  # one source there stands for all
            sources = (SIMULATED_SOURCE,)
        return self.intervals.least(asset, sources, declared.interval_seconds, question.each_ms, question.start)


class Reading(NamedTuple):
    """What a question came to after its steps: a span for every subject that is left. None: proven that nothing happened."""

    labels: tuple[str, ...]
    numbers: Mapping[tuple[str, ...], Span | None]


class Inquiry:
    """A question at a moment. `criterion` is whose exemptions count."""

    def __init__(self, moment: Moment, plan: QuestionPlan, criterion: str) -> None:
        self.moment, self.plan = moment, plan
        site = moment.site
        self.question = plan.question(moment.as_of, site.zone, site.id)
        chosen: Chosen = choose_subjects(moment.sightings, plan, self.question, site.folder, criterion)
        self.subjects, self.exempt = chosen

    @cached_property
    def labels(self) -> Mapping[tuple[str, ...], Mapping[str, str]]:
        """Every subject's tags and attributes."""
        return {one.key: one.labels(self.plan) for one in self.subjects}

    @cached_property
    def _expectations(self) -> Sequence[Expectation]:
        watched = self._watched() if self.subjects else None
        least = self._watched_least(watched) if watched is not None else self._usual_least
        return [
            Expectation(one.key, one.since, least(one), one.until, self._counted(one), self._excused(one))
            for one in self.subjects
        ]

    @cached_property
    def answers(self) -> Sequence[SubjectAnswer]:
        """What the closed buckets say of every subject (or of all together)."""
        if not self.subjects:
            return ()
        return self._answer(self.question, self._found, self._expectations, self.plan.bounds)

    @cached_property
    def each(self) -> Sequence[SubjectAnswer]:
        """The same of every subject by itself, also where the question takes them together: to name the worst."""
        if self.plan.together is None:
            return self.answers
        return answer_all(self.question, self._found, self._expectations, self.plan.bounds)

    def trouble(self) -> Text | None:
        """Why no score can come of it; None when enough is known."""
        plan = self.plan
        if plan.during and self._calendar(plan.during) is None:
            return Text(f"医院资料中没有日历 '{plan.during}'", f"the site folder has no calendar '{plan.during}'")
        if not self.subjects:
            if not self.moment.catalogue.measurements[plan.measurement].emitters(plan.field):
                return Text("尚无采集源提供该信号", "no source gives this signal yet")
            return Text("尚未见到任何对象，请接入采集", "no subject was seen yet; enrol one")
        if (plan.attributes or plan.of != "asset") and not self.moment.site.folder.has_register:
            return _all_seen(plan)
        return self._shortage()

    def _shortage(self) -> Text | None:
        plan = self.plan
        if plan.subject.by == "age":  # one such event is all that it takes
            if any(answer.found for answer in self.answers):
                return None
            return Text("窗口内没有见到这样的事件", "no such event was seen in the window")
        best = max(answer.found for answer in self.answers) * plan.each_ms
        if best < plan.span_ms:
            return Text(
                f"已观测 {spell(best, 'zh')}，至少需要 {spell(plan.span_ms, 'zh')}",
                f"seen for {spell(best, 'en')}, at least {spell(plan.span_ms, 'en')} are needed",
            )
        samples = sum(answer.samples for answer in self.answers)
        if samples < plan.samples:
            return Text(
                f"样本 {samples} 个，至少需要 {plan.samples} 个",
                f"{samples} samples, at least {plan.samples} are needed",
            )
        return None

    @cached_property
    def reading(self) -> Reading:
        """The numbers after the steps, every missing bucket at its worst and at its best."""
        numbers: dict[tuple[str, ...], Span | None] = {}
        for row in self.answers:
            if row.at_worst is not None and row.at_best is not None:
                numbers[row.subject] = Span(row.at_worst, row.at_best)
            elif row.expected and self.plan.silence == "unknown":
                numbers[row.subject] = Span(self.plan.bounds.worst, self.plan.bounds.best)
            elif row.expected and self.plan.is_event:
                numbers[row.subject] = None
        return self._cross(numbers)

    def known(self) -> Reading:
        """The same from what is known alone, the open bucket included; whatever was found counts, however little."""
        if not self.subjects:
            return self._cross({})
        later = self._later()
        numbers = {row.subject: row.known for row in self._settled(later)}
        rest = [one.key for one in self.subjects if one.key not in numbers]
        if rest:
            question = self.plan.open_question(self.moment.as_of, self.moment.site.zone, self.moment.site.id)
            expectations = [Expectation(key, 0, ((0, 1),)) for key in rest]
            rows = self._answer(question, self._grown(later), expectations, Bounds(0.0, 0.0))
            numbers.update((row.subject, row.known) for row in rows)
        return self._cross({key: Span(number, number) for key, number in numbers.items() if number is not None})

    def _settled(self, later: Mapping[tuple[str, ...], Buckets]) -> Sequence[SubjectAnswer]:
        """The answers that say all that is known: every bucket that was found is held in them, and none is open."""
        plan, found = self.plan, self._found
        if plan.is_event or plan.whole or plan.together or plan.subject.by == "age" or not isinstance(found, Found):
            return ()  # there is more to know than what was found, or the answers say it of all together
        return [row for row in self.answers if row.found == found.count(row.subject) and row.subject not in later]

    def rests_on(self) -> Text | None:
        """What a provisional value rests on while no closed bucket is full, or it would pass for a measurement."""
        if any(answer.found for answer in self.answers):
            return None
        if all(subject.since >= self.question.end for subject in self.subjects):
            return Text(
                "此值只取自尚未结束的时间桶，还不计分",
                "this rests on the bucket that is still open alone, and earns nothing yet",
            )
        return Text(
            "还没有样本足够的已结束时间桶，此值取自尚未结束或样本不足的时间桶，还不计分",
            "no closed bucket holds enough samples: this rests on the bucket that is still open or on ones with too few, and earns nothing yet",
        )

    def _cross(self, numbers: Mapping[tuple[str, ...], Span | None]) -> Reading:
        """All steps; subjects of which nothing happened go along only where no step follows."""
        plan = self.plan
        named = self._relabelled(numbers)
        if not plan.steps:
            return Reading(plan.labels, named)
        left = cross(plan.labels, {key: number for key, number in named.items() if number is not None}, plan.steps)
        if not left and named and not plan.steps[-1].per:
            return Reading((), {(): None})
        return Reading(plan.left, dict(left))

    def _relabelled(self, numbers: Mapping[tuple[str, ...], Span | None]) -> Mapping[tuple[str, ...], Span | None]:
        """By the subjects' keys with the attributes that a step keeps."""
        names = self.plan.labels
        if self.plan.together is not None or len(names) == len(self.plan.per):
            return numbers
        return {tuple(self.labels[key][name] for name in names): number for key, number in numbers.items()}

    def _answer(
        self,
        question: Question,
        found: Mapping[tuple[str, ...], Buckets],
        expectations: Sequence[Expectation],
        bounds: Bounds,
    ) -> list[SubjectAnswer]:
        if self.plan.whole is not None:  # a share of no events is no number, unlike a count of none
            question = msgspec.structs.replace(question, bucket=Take("mean"))
        if self.plan.together is not None:
            return answer_together(question, found, expectations, bounds, self.plan.together)
        return answer_all(question, found, expectations, bounds)

    @cached_property
    def _found(self) -> Mapping[tuple[str, ...], Buckets]:
        """The closed buckets."""
        return self._buckets(self.question)

    def _later(self) -> Mapping[tuple[str, ...], Buckets]:
        """The open bucket."""
        end = self.question.end
        return self._buckets(
            msgspec.structs.replace(
                self.question, start=end, end=self.moment.as_of + 1, edges=(end,) if self.question.edges else ()
            )
        )

    def _grown(self, later: Mapping[tuple[str, ...], Buckets]) -> Mapping[tuple[str, ...], Buckets]:
        """The closed buckets and the open one."""
        if not later:
            return self._found
        if isinstance(self._found, Found) and isinstance(later, Found):
            return self._found.followed_by(later)
        count = self.question.bucket_count()
        moved = {key: one._replace(positions=one.positions + count) for key, one in later.items()}
        return {**self._found, **{key: append(self._found.get(key, NOTHING), one) for key, one in moved.items()}}

    def _buckets(self, question: Question) -> Mapping[tuple[str, ...], Buckets]:
        part = self.moment.buckets(question)
        if self.plan.whole is None:
            return part
        name, take = self.plan.whole
        whole = self.moment.buckets(msgspec.structs.replace(question, field=name, bucket=take))
        return {key: quotient(part.get(key, NOTHING), one, self.plan.is_event) for key, one in whole.items()}

    def _usual_least(self, subject: Subject) -> Least:
        plan = self.plan
        if plan.is_event:
            return ((0, 0),) if plan.watches else ((0, 1),)
        asset, source = self._tag(subject, "asset"), self._tag(subject, "source")
        return self.moment.least(plan.measurement, plan.field, asset, source, self.question)

    def _tag(self, subject: Subject, tag: str) -> str:
        return subject.key[self.plan.per.index(tag)] if tag in self.plan.per else ""

    def _counted(self, subject: Subject) -> Spans | None:
        """The hours in which the subject is in service: its own calendar's, else the question's."""
        if not self.plan.during:
            return None
        own = self._calendar(subject.entry.calendar) if subject.entry and subject.entry.calendar else None
        return own if own is not None else self._calendar(self.plan.during)

    def _calendar(self, name: str) -> Spans | None:
        return self.moment.calendar(name, self.question.start, self.question.end)

    def _excused(self, subject: Subject) -> Spans:
        folder = self.moment.site.folder
        if not self.plan.is_excused or not folder.maintenance:
            return ()
        identities = {self._tag(subject, "asset"), subject.entry.id if subject.entry else ""} - {""}
        return tuple(sorted(span for identity in identities for span in folder.excuses_of(identity)))

    # -- who looked

    @cached_property
    def _common_tags(self) -> tuple[str, ...]:
        """The tags that a subject and all its watches have in common."""
        return tuple(tag for tag in self.plan.per if all(tag in watch.tags for watch in self.plan.watches))

    def _common(self, tags: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(tags[tag] for tag in self._common_tags)

    def _watched(self) -> Mapping[tuple[str, ...], Flags] | None:
        """For every subject, by its common tags, the buckets in which each watch proved itself; None without watches."""
        if not self.plan.watches:
            return None
        proofs = [self._proofs(watch) for watch in self.plan.watches]
        keys = set(proofs[0]).intersection(*proofs[1:])
        return {key: np.logical_and.reduce([proof[key] for proof in proofs]) for key in keys}

    def _proofs(self, watch: Watch) -> Mapping[tuple[str, ...], Flags]:
        """The buckets in which at least one series of the watch was there throughout and met its condition."""
        condition = watch.condition
        take = Take("max" if condition is not None and condition.operator in ("<", "<=") else "min")
        where = tuple(pair for pair in self.question.where if pair[0] == "site" or pair[0] in watch.tags)
        question = msgspec.structs.replace(
            self.question,
            measurement=watch.measurement,
            field=watch.field,
            where=where,
            per=watch.tags,
            bucket=take,
        )
        found = self.moment.buckets(question)
        if not found:
            return {}
        named = [dict(zip(watch.tags, key, strict=True)) for key in found]
        expectations = [
            Expectation(key, 0, self._watch_least(watch, tags)) for key, tags in zip(found, named, strict=True)
        ]
        held = Holder(question).hold(found, expectations)
        proven = held.held & meets_all(condition, held.values)
        proofs: dict[tuple[str, ...], Flags] = {}
        for tags, flags in zip(named, proven, strict=True):
            common = self._common(tags)
            proofs[common] = proofs[common] | flags if common in proofs else flags
        return proofs

    def _watch_least(self, watch: Watch, tags: Mapping[str, str]) -> Least:
        return self.moment.least(watch.measurement, watch.field, tags["asset"], tags.get("source", ""), self.question)

    def _watched_least(self, watched: Mapping[tuple[str, ...], Flags]) -> Callable[[Subject], Least]:
        """The usual least samples where somebody looked, and more than any bucket holds elsewhere."""
        starts = np.array(self.question.starts(), np.int64)
        known: dict[tuple[tuple[str, ...], Least], Least] = {}

        def of(subject: Subject) -> Least:
            common, least = tuple(self._tag(subject, tag) for tag in self._common_tags), self._usual_least(subject)
            if (common, least) not in known:
                known[common, least] = _where_proven(starts, least, watched.get(common))
            return known[common, least]

        return of


def _where_proven(starts: Integers, least: Least, proven: Flags | None) -> Least:
    """`least` in the buckets that are proven to be watched, NOBODY_LOOKED in the others; run-length."""
    if proven is None:
        return ((0, NOBODY_LOOKED),)
    at = np.searchsorted([start for start, _ in least], starts, "right") - 1
    base = np.array([count for _, count in least], np.int64)[np.maximum(at, 0)]
    wanted = np.where(proven, base, NOBODY_LOOKED)
    turns = np.flatnonzero(np.diff(wanted, prepend=-1))
    return tuple(zip(starts[turns].tolist(), wanted[turns].tolist(), strict=True))


def _all_seen(plan: QuestionPlan) -> Text:
    """Without a register nobody is picked out and nobody is missed: the value speaks of all, and must say so beside itself."""
    if not plan.attributes:
        return Text(
            "取全部已见对象：没有登记，不知道还应有谁；最多给出暂估",
            "all that was seen, since there is no register to tell who else should be there; provisional at most",
        )
    picked = [f"{key} = {' | '.join(values)}" for key, values in plan.attributes]
    return Text(
        f"取全部已见资产：没有资产登记，无法只看 {'，'.join(picked)}；最多给出暂估",
        f"all seen assets, since there is no register to tell which have {', '.join(picked)}; provisional at most",
    )


def spell(milliseconds: int, language: str) -> str:
    """A span as a person says it."""
    sizes = ((86_400_000, "天", "d"), (3_600_000, "小时", "h"), (60_000, "分钟", "min"), (1000, "秒", "s"))
    size, zh, en = next((row for row in sizes if milliseconds >= row[0]), sizes[-1])
    return f"{milliseconds / size:.3g} {zh if language == 'zh' else en}"
