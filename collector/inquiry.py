"""One question asked at one time: subjects, what is expected of them, what the store held, the numbers that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from agent.catalogue import Catalogue, Text
from collector.buckets import NOTHING, Buckets, Flags, Holder, answer_all, answer_together, append, meets_all, quotient
from collector.intervals import Intervals
from collector.plan import QuestionPlan, Span, Watch
from collector.query import Bounds, Expectation, Question, Spans, SubjectAnswer, Take, least_samples
from collector.score import cross
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

    def least(
        self, measurement: str, field_name: str, asset: str, source: str, each_ms: int
    ) -> tuple[tuple[int, int], ...]:
        """How many samples a bucket of a field on this asset should hold at least, from when on."""
        declared = self.catalogue.measurements[measurement]
        sources: Sequence[str] = (source,) if source else declared.emitters(field_name)
        runs = self.intervals.of(asset, sources, declared.interval_seconds)
        least = tuple((start, least_samples(each_ms, seconds)) for start, seconds in runs)
        return ((0, least[0][1]), *least[1:])


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
        self.labels = {one.key: one.labels(plan) for one in self.subjects}

    @cached_property
    def _expectations(self) -> Sequence[Expectation]:
        watched = self._watched() if self.subjects else None
        return [self._expect(subject, watched) for subject in self.subjects]

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
        question = self.plan.open_question(self.moment.as_of, self.moment.site.zone, self.moment.site.id)
        expectations = [Expectation(subject.key, 0, ((0, 1),)) for subject in self.subjects]
        rows = self._answer(question, self._found_and_open(question), expectations, Bounds(0.0, 0.0))
        return self._cross({row.subject: Span(row.known, row.known) for row in rows if row.known is not None})

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
        named = {self._relabel(key): number for key, number in numbers.items()}
        if not plan.steps:
            return Reading(plan.labels, named)
        left = cross(plan.labels, {key: number for key, number in named.items() if number is not None}, plan.steps)
        if not left and named and not plan.steps[-1].per:
            return Reading((), {(): None})
        return Reading(plan.left, dict(left))

    def _relabel(self, key: tuple[str, ...]) -> tuple[str, ...]:
        """A subject's key with the attributes that a step keeps."""
        if self.plan.together is not None or len(self.plan.labels) == len(key):
            return key
        return tuple(self.labels[key][name] for name in self.plan.labels)

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

    def _found_and_open(self, question: Question) -> Mapping[tuple[str, ...], Buckets]:
        """The closed buckets with the open one, which alone is read from the store."""
        if not self.subjects:
            return {}
        end = self.question.end
        latest = self._buckets(msgspec.structs.replace(question, start=end, edges=(end,) if question.edges else ()))
        count = self.question.bucket_count()
        later = {key: one._replace(positions=one.positions + count) for key, one in latest.items()}
        grown = {key: append(self._found.get(key, NOTHING), one) for key, one in later.items()}
        return {**self._found, **grown}

    def _buckets(self, question: Question) -> Mapping[tuple[str, ...], Buckets]:
        part = self.moment.buckets(question)
        if self.plan.whole is None:
            return part
        name, take = self.plan.whole
        whole = self.moment.buckets(msgspec.structs.replace(question, field=name, bucket=take))
        return {key: quotient(part.get(key, NOTHING), one, self.plan.is_event) for key, one in whole.items()}

    def _expect(self, subject: Subject, watched: Mapping[tuple[str, ...], Flags] | None) -> Expectation:
        plan = self.plan
        tags = dict(zip(plan.per, subject.key, strict=True))
        least: tuple[tuple[int, int], ...] = ((0, 0),)
        if not plan.is_event:
            source = tags.get("source", "")
            least = self.moment.least(plan.measurement, plan.field, tags.get("asset", ""), source, plan.each_ms)
        elif not plan.watches:
            least = ((0, 1),)
        if watched is not None:
            least = self._watched_least(least, watched.get(self._common(tags)))
        return Expectation(
            subject.key, subject.since, least, subject.until, self._counted(subject), self._excused(subject, tags)
        )

    def _counted(self, subject: Subject) -> Spans | None:
        """The hours in which the subject is in service: its own calendar's, else the question's."""
        if not self.plan.during:
            return None
        own = self._calendar(subject.entry.calendar) if subject.entry and subject.entry.calendar else None
        return own if own is not None else self._calendar(self.plan.during)

    def _calendar(self, name: str) -> Spans | None:
        return self.moment.calendar(name, self.question.start, self.question.end)

    def _excused(self, subject: Subject, tags: Mapping[str, str]) -> Spans:
        if not self.plan.is_excused:
            return ()
        folder = self.moment.site.folder
        identities = {tags.get("asset", ""), subject.entry.id if subject.entry else ""} - {""}
        return tuple(sorted(span for identity in identities for span in folder.excuses_of(identity)))

    # -- who looked

    def _common_tags(self) -> tuple[str, ...]:
        """The tags that a subject and all its watches have in common."""
        return tuple(tag for tag in self.plan.per if all(tag in watch.tags for watch in self.plan.watches))

    def _common(self, tags: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(tags[tag] for tag in self._common_tags())

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
            Expectation(key, 0, self._watch_least(watch, tags, question.each_ms))
            for key, tags in zip(found, named, strict=True)
        ]
        held = Holder(question).hold(found, expectations)
        proven = held.held & meets_all(condition, held.values)
        proofs: dict[tuple[str, ...], Flags] = {}
        for tags, flags in zip(named, proven, strict=True):
            common = self._common(tags)
            proofs[common] = proofs[common] | flags if common in proofs else flags
        return proofs

    def _watch_least(self, watch: Watch, tags: Mapping[str, str], each_ms: int) -> tuple[tuple[int, int], ...]:
        return self.moment.least(watch.measurement, watch.field, tags["asset"], tags.get("source", ""), each_ms)

    def _watched_least(self, least: tuple[tuple[int, int], ...], proven: Flags | None) -> tuple[tuple[int, int], ...]:
        """`least` where somebody looked, and more than any bucket holds elsewhere; run-length."""
        if proven is None:
            return ((0, NOBODY_LOOKED),)
        starts = np.array(self.question.starts(), np.int64)
        at = np.searchsorted([start for start, _ in least], starts, "right") - 1
        base = np.array([count for _, count in least], np.int64)[np.maximum(at, 0)]
        wanted = np.where(proven, base, NOBODY_LOOKED)
        turns = np.flatnonzero(np.diff(wanted, prepend=-1))
        return tuple((int(starts[turn]), int(wanted[turn])) for turn in turns)


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
