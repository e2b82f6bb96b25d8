"""What a criterion's words come to: directions settled, bounds found, windows cut. No I/O.

The direction starts at the scale and goes back through every step to the samples; that is how a missing bucket knows
what would be worst.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from agent.catalogue import Catalogue, Field
from agent.catalogue import unit as unit_of
from collector.combine import COMBINATIONS, NEVER_SECONDS, Combination
from collector.query import DAY_MS, Bounds, Question, Take
from collector.rulebook import Asking, Better, Cap, Criterion, Rulebook, Step, duration_ms, parse_take, parse_watch
from collector.site_folder import ATTRIBUTES

Where = tuple[tuple[str, tuple[str, ...]], ...]

MOST_EVENTS = 1e9
"""What a bucket that nobody watched may have held, at worst."""


class Span(NamedTuple):
    """A number at worst and at best."""

    worst: float
    best: float


@dataclass(frozen=True)
class SettledStep:
    """One step across subjects; `worst` and `best` are already min or max."""

    take: Take
    per: tuple[str, ...]


@dataclass(frozen=True)
class Watch:
    """What proves that somebody looked: a signal of which a whole bucket must be there, and meet the condition if any."""

    measurement: str
    field: str
    condition: Take | None
    tags: tuple[str, ...]
    """All tags of its measurement, `asset` first: each series proves for itself."""


@dataclass(frozen=True)
class QuestionPlan:
    """One question ready to be asked at any time.

    tags, attributes: the two halves of `where`. of: the tag whose register entries are the subjects; is_enrolling: whether
    entries are subjects without having been seen. bounds: what a missing bucket counts as. outer: what an answer that is
    missing as a whole counts as. span_ms, samples: the least that must be known.
    """

    measurement: str
    field: str
    per: tuple[str, ...]
    of: str
    is_enrolling: bool
    tags: Where
    attributes: Where
    over_ms: int
    each_ms: int
    bucket: Take
    subject: Take
    together: Take | None
    steps: tuple[SettledStep, ...]
    bounds: Bounds
    outer: Span
    span_ms: int
    samples: int
    is_event: bool
    whole: tuple[str, Take] | None
    """Field and bucket reduction that the values are a share of."""
    during: str
    watches: tuple[Watch, ...]
    silence: Literal["number", "nothing", "unknown"]
    is_excused: bool
    unit: str
    """Of the subjects' numbers, in the scales' words."""
    number_unit: str
    """Of the number after the steps."""

    def question(self, as_of: int, zone: ZoneInfo, site: str) -> Question:
        """The question over the closed buckets at `as_of` (ms)."""
        start, end, edges = window(as_of, self.over_ms, self.each_ms, zone)
        return self._question(site, start, end, edges)

    def open_question(self, as_of: int, zone: ZoneInfo, site: str) -> Question:
        """The same with the open bucket, up to and with `as_of`: for what is only provisional."""
        start, end, edges = window(as_of, self.over_ms, self.each_ms, zone)
        return self._question(site, start, as_of + 1, (*edges, end) if edges else ())

    def _question(self, site: str, start: int, end: int, edges: tuple[int, ...]) -> Question:
        return Question(
            measurement=self.measurement,
            field=self.field,
            where=(("site", (site,)), *self.tags),
            per=self.per,
            start=start,
            end=end,
            each_ms=self.each_ms,
            bucket=self.bucket,
            subject=self.subject,
            edges=edges,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells the subjects that enter the steps apart: tags, then the attributes that a step keeps."""
        base = () if self.together is not None else self.per
        kept = {name for step in self.steps for name in step.per}
        return (*base, *(name for name in ATTRIBUTES if name in kept and name not in base))

    @property
    def left(self) -> tuple[str, ...]:
        """The labels that stay after the last step."""
        return self.steps[-1].per if self.steps else self.labels


@dataclass(frozen=True)
class Plan:
    """A criterion, or a cap's condition: its questions by name (the first is the main one) and how they become one number."""

    questions: Mapping[str, QuestionPlan]
    combination: Combination | None
    steps: tuple[SettledStep, ...]

    @property
    def main(self) -> QuestionPlan:
        """The question whose answer decides whether enough is known."""
        return next(iter(self.questions.values()))

    @property
    def over_ms(self) -> int:
        """The longest window."""
        return max(question.over_ms for question in self.questions.values())


def window(as_of: int, over_ms: int, each_ms: int, zone: ZoneInfo) -> tuple[int, int, tuple[int, ...]]:
    """Start, end and (for days) bucket starts of the window that ends at the last bucket edge at or before `as_of`.

    Buckets shorter than a day stand at UTC; days start at the site's midnight, so one may last 23 or 25 hours.
    """
    if each_ms < DAY_MS:
        end = as_of - as_of % each_ms
        return end - over_ms, end, ()
    midnight = datetime.datetime.fromtimestamp(as_of / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    step = each_ms // DAY_MS
    count = over_ms // each_ms
    starts = [_local_midnight(midnight, -step * back) for back in range(count, 0, -1)]
    return starts[0], _local_midnight(midnight, 0), tuple(starts)


def _local_midnight(midnight: datetime.datetime, days: int) -> int:
    return int((midnight + datetime.timedelta(days=days)).timestamp() * 1000)


def plan_all(book: Rulebook, catalogue: Catalogue) -> dict[str, Plan]:
    """A plan for every criterion that asks; the rules are known to be free of mistakes."""
    return {
        name: _plan(criterion, book.scales[criterion.scale].better, catalogue)
        for name, criterion in book.criteria.items()
        if criterion.kind == "measured"
    }


def plan_caps(book: Rulebook, catalogue: Catalogue) -> dict[str, Plan]:
    """A plan for every cap that asks something itself; more is worse there."""
    return {cap.id: _plan(cap, "lower", catalogue) for cap in book.index.caps if cap.criterion is None}


def _plan(asks: Criterion | Cap, better: Better, catalogue: Catalogue) -> Plan:
    combining = asks.combine
    if combining is None:
        directions = dict.fromkeys(asks.questions(), better)
        return Plan(_plan_questions(asks.questions(), directions, catalogue), None, ())
    combination = COMBINATIONS[combining.by]
    steps, direction = settle_steps(combining.across, better)
    directions = {name: combination.inputs.get(name, direction) or "higher" for name in combining.of}
    return Plan(_plan_questions(combining.of, directions, catalogue), combination, steps)


def _plan_questions(
    askings: Mapping[str, Asking], directions: Mapping[str, Better], catalogue: Catalogue
) -> dict[str, QuestionPlan]:
    return {name: plan_question(asking, directions[name], catalogue) for name, asking in askings.items()}


def plan_question(asking: Asking, better: Better, catalogue: Catalogue) -> QuestionPlan:
    """A question whose number is better in this direction."""
    measurement, _, field_name = asking.measures.partition(".")
    declared = catalogue.measurements[measurement]
    field = declared.fields[field_name]
    steps, direction = settle_steps(asking.across, better)
    subject = settle(asking.take.subject, direction)
    merged = before(subject, direction)
    together = settle(asking.together, merged) if asking.together is not None else None
    bucket_direction = before(together, merged) if together is not None else merged
    bucket = settle(asking.take.bucket, bucket_direction)
    where = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in asking.where.items()}
    attributes = {key: values for key, values in where.items() if key in ATTRIBUTES and key not in declared.tags}
    reach = _bucket_reach(field, bucket, asking)
    return QuestionPlan(
        measurement=measurement,
        field=field_name,
        per=asking.per,
        of=asking.of or "asset",
        is_enrolling=asking.of is not None or bool(attributes),
        tags=tuple(sorted((key, tuple(sorted(values))) for key, values in where.items() if key not in attributes)),
        attributes=tuple(sorted((key, tuple(sorted(values))) for key, values in attributes.items())),
        over_ms=duration_ms(asking.over),
        each_ms=duration_ms(asking.each),
        bucket=bucket,
        subject=subject,
        together=together,
        steps=steps,
        bounds=_bounds(reach, subject, merged, direction),
        outer=_outer(reach, subject, steps, better),
        span_ms=duration_ms(asking.needs.span),
        samples=asking.needs.samples,
        is_event=field.kind == "event",
        whole=_whole(asking),
        during=asking.during or "",
        watches=tuple(_watch(text, catalogue) for text in asking.watched_by),
        silence=_silence(asking, bucket, field),
        is_excused=asking.excused_by is not None,
        unit=unit_after(field_name, field, (bucket, subject), asking),
        number_unit=unit_after(field_name, field, (bucket, subject, *(step.take for step in steps)), asking),
    )


SCALE_UNITS = {"1": "ratio", "s": "seconds", "bit/s": "bits_per_second"}
"""The catalogue's unit -> the scales' word for it; whatever else there is is counted."""


def unit_after(name: str, field: Field, takes: tuple[Take, ...], asking: Asking) -> str:
    """The unit of a field after these reductions; a fact that is 0 or 1 is the share of the time that it holds."""
    is_fact = field.kind in ("state", "event") and (field.least, field.greatest) == (0.0, 1.0) and not field.states
    unit = "ratio" if is_fact or asking.out_of is not None else SCALE_UNITS.get(unit_of(name), "count")
    for take in takes:
        unit = {"share": "ratio", "age": "seconds", "count": "count"}.get(take.by, unit)
    return unit


def _whole(asking: Asking) -> tuple[str, Take] | None:
    if asking.out_of is None:
        return None
    return asking.out_of.measures.partition(".")[2], parse_take(asking.out_of.bucket)


def _watch(text: str, catalogue: Catalogue) -> Watch:
    signal, condition = parse_watch(text)
    measurement, _, field = signal.partition(".")
    return Watch(measurement, field, condition, ("asset", *catalogue.measurements[measurement].tags))


def _silence(asking: Asking, bucket: Take, field: Field) -> Literal["number", "nothing", "unknown"]:
    """A count of nothing is 0; whatever else is asked of events is unknown without one unless the rule says otherwise."""
    if field.kind != "event" or (bucket.by in ("count", "sum") and asking.out_of is None):
        return "number"
    return asking.silence or "unknown"


def settle_steps(across: tuple[Step, ...], better: Better) -> tuple[tuple[SettledStep, ...], Better]:
    """The steps with `worst` and `best` settled, and the direction of the numbers that enter the first of them."""
    direction = better
    steps: list[SettledStep] = []
    for step in reversed(across):
        take = settle(step.take, direction)
        steps.append(SettledStep(take, step.per))
        direction = before(take, direction)
    return tuple(reversed(steps)), direction


def settle(word: str, direction: Better) -> Take:
    """A reduction's word as what it means where numbers are better in this direction."""
    if word in ("worst", "best"):
        return Take("min" if (direction == "higher") == (word == "worst") else "max")
    return parse_take(word)


def before(take: Take, direction: Better) -> Better:
    """The direction of the values that `take` reduces to a number of this direction."""
    if take.by not in ("share", "age"):
        return direction
    falls = take.operator in ("<", "<=") or (take.operator == "==" and take.threshold == 0)
    turns = falls != (take.by == "age")  # an age is the better the smaller, and the more values meet the condition
    if not turns:
        return direction
    return "lower" if direction == "higher" else "higher"


def _bucket_reach(field: Field, bucket: Take, asking: Asking) -> tuple[float, float]:
    """The least and the greatest value that a bucket may have."""
    if asking.out_of is not None or bucket.by == "share":
        return 0.0, 1.0
    if bucket.by == "count":
        return 0.0, MOST_EVENTS
    if bucket.by == "sum":
        return min(0.0, field.least) * MOST_EVENTS, max(0.0, field.greatest) * MOST_EVENTS
    return field.least, field.greatest


def _bounds(reach: tuple[float, float], subject: Take, merged: Better, direction: Better) -> Bounds:
    if subject.by == "age":
        return Bounds(NEVER_SECONDS, 0.0)
    least, greatest = reach
    worst, best = (least, greatest) if merged == "higher" else (greatest, least)
    return Bounds(worst, best, direction == "higher")


def _outer(reach: tuple[float, float], subject: Take, steps: tuple[SettledStep, ...], better: Better) -> Span:
    """What an answer that is missing as a whole counts as."""
    least, greatest = reach
    for take in (subject, *(step.take for step in steps)):
        if take.by == "share":
            least, greatest = 0.0, 1.0
        elif take.by == "age":
            least, greatest = 0.0, NEVER_SECONDS
        elif take.by in ("sum", "count"):
            least, greatest = min(0.0, least) * MOST_EVENTS, max(1.0, greatest) * MOST_EVENTS
    return Span(least, greatest) if better == "higher" else Span(greatest, least)
