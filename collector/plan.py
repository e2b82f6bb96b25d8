"""What a criterion's words come to: directions settled, bounds found, windows cut. No I/O.

The direction starts at the scale and goes back through every step to the samples; that is how a missing bucket knows
what would be worst.
"""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from agent.catalogue import RESERVED_TAGS, Catalogue, Field, Measurement
from agent.documents import Document, Mistake, nearest
from agent.language import say
from collector.query import DAY_MS, NAME, Bounds, Question, Take
from collector.rulebook import ATTRIBUTES, Asking, Better, Criterion, Rulebook, duration_ms, parse_take

Where = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Step:
    """One step across subjects; `worst` is already min or max."""

    take: Take
    per: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A criterion ready to be asked at any time.

    tags, attributes: the two halves of `where`. bounds: what a missing bucket counts as.
    span_ms, samples: the least that must be known.
    """

    criterion: str
    measurement: str
    field: str
    per: tuple[str, ...]
    tags: Where
    attributes: Where
    over_ms: int
    each_ms: int
    bucket: Take
    subject: Take
    steps: tuple[Step, ...]
    bounds: Bounds
    span_ms: int
    samples: int

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
    """A plan for every criterion that has a question; the rules are known to be free of mistakes."""
    return {
        name: _plan(name, criterion.question, book.scales[criterion.scale].better, catalogue)
        for name, criterion in book.criteria.items()
        if criterion.question is not None
    }


def _plan(name: str, asking: Asking, better: Better, catalogue: Catalogue) -> Plan:
    measurement, _, field_name = asking.measures.partition(".")
    declared = catalogue.measurements[measurement]
    steps, direction = _settle_steps(asking, better)
    subject = _settle(asking.take.subject, direction)
    bucket_direction = _before(subject, direction)
    bucket = _settle(asking.take.bucket, bucket_direction)
    where = {key: (value,) if isinstance(value, str) else tuple(value) for key, value in asking.where.items()}
    return Plan(
        criterion=name,
        measurement=measurement,
        field=field_name,
        per=asking.per,
        tags=tuple(sorted((key, tuple(sorted(values))) for key, values in where.items() if key not in ATTRIBUTES)),
        attributes=tuple(sorted((key, tuple(sorted(values))) for key, values in where.items() if key in ATTRIBUTES)),
        over_ms=duration_ms(asking.over),
        each_ms=duration_ms(asking.each),
        bucket=bucket,
        subject=subject,
        steps=steps,
        bounds=_bounds(declared.fields[field_name], bucket, bucket_direction, direction),
        span_ms=duration_ms(asking.needs.span),
        samples=asking.needs.samples,
    )


def _settle_steps(asking: Asking, better: Better) -> tuple[tuple[Step, ...], Better]:
    """The steps with `worst` settled, and the direction of the numbers that enter the first of them."""
    direction = better
    steps: list[Step] = []
    for step in reversed(asking.across):
        take = _settle(step.take, direction)
        steps.append(Step(take, step.per))
        direction = _before(take, direction)
    return tuple(reversed(steps)), direction


def _settle(word: str, direction: Better) -> Take:
    if word == "worst":
        return Take("min" if direction == "higher" else "max")
    return parse_take(word)


def _before(take: Take, direction: Better) -> Better:
    """The direction of the values that `take` reduces to a number of this direction."""
    falls = take.by == "share" and (take.operator in ("<", "<=") or (take.operator == "==" and take.threshold == 0))
    if not falls:
        return direction
    return "lower" if direction == "higher" else "higher"


def _bounds(field: Field, bucket: Take, bucket_direction: Better, subject_direction: Better) -> Bounds:
    least, greatest = (0.0, 1.0) if bucket.by == "share" else (field.least, field.greatest)
    share_is_good = subject_direction == "higher"
    if bucket_direction == "higher":
        return Bounds(least, greatest, share_is_good)
    return Bounds(greatest, least, share_is_good)


def check(
    book: Rulebook, documents: Mapping[str, Document], catalogue: Catalogue
) -> tuple[list[Mistake], list[Mistake]]:
    """Mistakes and warnings that need the catalogue: a signal that is none, a window that does not fit, nobody who emits it."""
    mistakes: list[Mistake] = []
    warnings: list[Mistake] = []
    for name, criterion in sorted(book.criteria.items()):
        document = documents[f"{book.indicators[name]}/{name}.yaml"]
        before = len(mistakes)
        mistakes += _check_signals(document, criterion, catalogue)
        if criterion.question is not None and len(mistakes) == before:
            mistakes += _check_question(document, criterion.question, catalogue)
            measurement, _, field = criterion.question.measures.partition(".")
            if not catalogue.measurements[measurement].emitters(field):
                text = say(
                    f"尚无任何采集源提供 {criterion.question.measures}，将显示为无数据",
                    f"no source emits {criterion.question.measures} yet; it will show no_data",
                )
                warnings.append(document.mistake(("question", "measures"), text))
    return mistakes, warnings


def _check_signals(document: Document, criterion: Criterion, catalogue: Catalogue) -> Iterator[Mistake]:
    signals = [(("signals", number), signal) for number, signal in enumerate(criterion.signals)]
    places: list[tuple[tuple[str | int, ...], str]] = list(signals)
    if criterion.question is not None:
        places.append((("question", "measures"), criterion.question.measures))
    known = [f"{name}.{field}" for name, measurement in catalogue.measurements.items() for field in measurement.fields]
    for path, signal in places:
        field = catalogue.field(signal)
        if field is None:
            yield document.mistake(
                path,
                say(f"目录中没有信号 '{signal}'", f"the catalogue has no signal '{signal}'") + nearest(signal, known),
            )
        elif not field.is_number:
            yield document.mistake(
                path, say(f"'{signal}' 是文本，不能评分", f"'{signal}' is a text and cannot be asked")
            )


def _check_question(document: Document, asking: Asking, catalogue: Catalogue) -> Iterator[Mistake]:
    measurement_name, _, field_name = asking.measures.partition(".")
    measurement = catalogue.measurements[measurement_name]
    tags = {*RESERVED_TAGS, *measurement.tags}
    for number, tag in enumerate(asking.per):
        if tag not in tags or not NAME.fullmatch(tag):
            yield document.mistake(
                ("question", "per", number),
                say(f"{measurement_name} 没有标签 '{tag}'", f"{measurement_name} has no tag '{tag}'")
                + nearest(tag, tags),
            )
    if measurement.fields[field_name].kind == "event":
        text = say(
            "事件没有应有样本数，需要 watched_by，本版本尚不支持",
            "an event has no expected samples and needs watched_by, which this version does not have",
        )
        yield document.mistake(("question", "measures"), text)
    if "asset" not in asking.per:
        yield document.mistake(("question", "per"), say("per 必须包含 asset", "per must contain asset"))
    for key in asking.where:
        if key not in tags and key not in ATTRIBUTES:
            yield document.mistake(
                ("question", "where", key),
                say(f"'{key}' 既非标签也非登记属性", f"'{key}' is neither a tag nor an attribute of the register")
                + nearest(key, {*tags, *ATTRIBUTES}),
            )
    yield from _check_window(document, asking, measurement)
    yield from _check_takes(document, asking, measurement.fields[field_name])
    yield from _check_across(document, asking)


def _check_window(document: Document, asking: Asking, measurement: Measurement) -> Iterator[Mistake]:
    over, each = duration_ms(asking.over), duration_ms(asking.each)
    if over % each:
        yield document.mistake(
            ("question", "over"),
            say(
                f"over {asking.over} 不是 each {asking.each} 的整数倍",
                f"over {asking.over} is no multiple of each {asking.each}",
            ),
        )
    if (each < DAY_MS and DAY_MS % each) or (each >= DAY_MS and each % DAY_MS):
        yield document.mistake(
            ("question", "each"),
            say(f"each {asking.each} 必须整除一天或是整天", f"each {asking.each} must divide a day or be whole days"),
        )
    if each < 3 * measurement.interval_seconds * 1000:
        text = say(
            f"each {asking.each} 不足 3 个采集间隔({measurement.interval_seconds:g} 秒)",
            f"each {asking.each} is less than 3 intervals of {measurement.interval_seconds:g} s",
        )
        yield document.mistake(("question", "each"), text)
    if over > measurement.retention_days * DAY_MS:
        text = say(
            f"窗口 {asking.over} 超过原始数据保留期 {measurement.retention_days} 天",
            f"the window {asking.over} is longer than raw points are kept ({measurement.retention_days} d)",
        )
        yield document.mistake(("question", "over"), text)


def _check_takes(document: Document, asking: Asking, field: Field) -> Iterator[Mistake]:
    for key, word in (("bucket", asking.take.bucket), ("subject", asking.take.subject)):
        path = ("question", "take", key)
        take = parse_take(word) if word != "worst" else Take("min")
        if take.by in ("count", "sum"):
            yield document.mistake(
                path,
                say(
                    f"{take.by} 需要 watched_by，本版本尚不支持",
                    f"{take.by} needs watched_by, which this version does not have",
                ),
            )
        if take.by == "mean" and (field.range is None or None in field.range):
            yield document.mistake(
                path,
                say(
                    f"字段没有完整的 range，不能取平均：缺失时无从取界 ({asking.measures})",
                    f"{asking.measures} has no full range, so a missing mean has no bound",
                ),
            )
        if take.operator == "==" and (field.kind != "state" or field.states or take.threshold not in (0, 1)):
            yield document.mistake(
                path, say("'==' 只能用于 0/1 状态，请改用 >= 或 <=", "'==' is for 0/1 states only; write >= or <=")
            )


def _check_across(document: Document, asking: Asking) -> Iterator[Mistake]:
    if not asking.across:
        yield document.mistake(("question", "across"), say("across 至少要有一步", "across needs at least one step"))
        return
    known = set(asking.per)
    for number, step in enumerate(asking.across):
        path = ("question", "across", number)
        take = parse_take(step.take) if step.take != "worst" else Take("min")
        if take.by in ("count", "last") or take.operator == "==":
            yield document.mistake(
                (*path, "take"), say(f"across 中不能用 '{step.take}'", f"'{step.take}' cannot stand in across")
            )
        for place, name in enumerate(step.per):
            if name not in known:
                yield document.mistake(
                    (*path, "per", place),
                    say(f"'{name}' 在上一步之后已不存在", f"'{name}' is gone after the step before")
                    + nearest(name, known),
                )
        known = set(step.per)
    if known:
        yield document.mistake(
            ("question", "across", len(asking.across) - 1),
            say("最后一步不能有 per", "the last step leaves one number: no per"),
        )
