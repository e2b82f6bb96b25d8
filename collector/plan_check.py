"""Mistakes and warnings of rules that need the catalogue: a signal that is none, a window that does not fit. No I/O."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from agent.catalogue import RESERVED_TAGS, Catalogue, Field, Measurement
from agent.documents import Document, Mistake, Path_, nearest
from agent.language import say
from collector.combine import ANY_INPUTS, COMBINATIONS, Combination
from collector.plan import settle, settle_steps
from collector.query import DAY_MS, NAME
from collector.rulebook import Asking, Better, Cap, Combining, Criterion, Rulebook, Step, duration_ms, parse_watch
from collector.site_folder import ATTRIBUTES

KEPT_DAYS = 1100
"""How long closed buckets are kept: a window may be longer than raw points live, not longer than this."""


class _Spot(NamedTuple):
    """Where a question stands in which file."""

    document: Document
    path: Path_

    def mistake(self, text: str, *where: str | int) -> Mistake:
        return self.document.mistake((*self.path, *where), text)


def check(
    book: Rulebook, documents: Mapping[str, Document], catalogue: Catalogue
) -> tuple[list[Mistake], list[Mistake]]:
    """Mistakes and warnings of all criteria and caps, in the order of their names."""
    mistakes: list[Mistake] = []
    warnings: list[Mistake] = []
    for name, criterion in sorted(book.criteria.items()):
        document = documents[f"{book.indicators[name]}/{name}.yaml"]
        _check_asks(_Spot(document, ()), criterion, book.scales[criterion.scale].better, catalogue, mistakes, warnings)
    index = documents[f"indexes/{book.index_name}.yaml"]
    for number, cap in enumerate(book.index.caps):
        _check_asks(_Spot(index, ("caps", number)), cap, "lower", catalogue, mistakes, warnings)
    return mistakes, warnings


def _check_asks(
    spot: _Spot,
    asks: Criterion | Cap,
    better: Better,
    catalogue: Catalogue,
    mistakes: list[Mistake],
    warnings: list[Mistake],
) -> None:
    """All questions of a criterion or of a cap's condition, whose number is better in this direction."""
    is_input = asks.combine is not None
    for name, asking in asks.questions().items():
        path: Path_ = ("combine", "of", name) if is_input else ("question",)
        _check_one(_Spot(spot.document, (*spot.path, *path)), asking, catalogue, is_input, mistakes, warnings)
    if asks.combine is not None:
        mistakes += _check_combining(_Spot(spot.document, (*spot.path, "combine")), asks.combine, better)


def _check_one(
    spot: _Spot,
    asking: Asking,
    catalogue: Catalogue,
    is_input: bool,
    mistakes: list[Mistake],
    warnings: list[Mistake],
) -> None:
    wrong = list(_check_signals(spot, asking, catalogue))
    if not wrong:
        wrong = list(_check_question(spot, asking, catalogue, is_input))
        warnings += _warn_silent(spot, asking, catalogue)
    mistakes += wrong


def signals_of(asking: Asking) -> Iterator[tuple[Path_, str]]:
    """Every signal that a question names, and where."""
    yield ("measures",), asking.measures
    if asking.out_of is not None:
        yield ("out_of", "measures"), asking.out_of.measures
    for number, text in enumerate(asking.watched_by):
        yield ("watched_by", number), parse_watch(text)[0]


def _check_signals(spot: _Spot, asking: Asking, catalogue: Catalogue) -> Iterator[Mistake]:
    known = [f"{name}.{field}" for name, measurement in catalogue.measurements.items() for field in measurement.fields]
    for path, signal in signals_of(asking):
        field = catalogue.field(signal)
        if field is None:
            text = say(f"目录中没有信号 '{signal}'", f"the catalogue has no signal '{signal}'")
            yield spot.mistake(text + nearest(signal, known), *path)
        elif not field.is_number:
            yield spot.mistake(say(f"'{signal}' 是文本，不能评分", f"'{signal}' is a text and cannot be asked"), *path)


def _warn_silent(spot: _Spot, asking: Asking, catalogue: Catalogue) -> Iterator[Mistake]:
    for path, signal in signals_of(asking):
        measurement, _, field = signal.partition(".")
        if not catalogue.measurements[measurement].emitters(field):
            text = say(
                f"尚无任何采集源提供 {signal}，将显示为无数据", f"no source emits {signal} yet; it will show no_data"
            )
            yield spot.mistake(text, *path)


def _check_question(spot: _Spot, asking: Asking, catalogue: Catalogue, is_input: bool) -> Iterator[Mistake]:
    name, _, field_name = asking.measures.partition(".")
    measurement = catalogue.measurements[name]
    field = measurement.fields[field_name]
    yield from _check_labels(spot, asking, name, {*RESERVED_TAGS, *measurement.tags})
    yield from _check_window(spot, asking, measurement, field)
    yield from _check_takes(spot, asking, field)
    yield from _check_watches(spot, asking, field, catalogue)
    yield from _check_across(spot, asking, is_input)
    if asking.out_of is not None and asking.out_of.measures.partition(".")[0] != name:
        text = say(f"out_of 必须与 measures 同属 {name}", f"out_of must be a field of {name} too")
        yield spot.mistake(text, "out_of", "measures")


def _check_labels(spot: _Spot, asking: Asking, name: str, tags: set[str]) -> Iterator[Mistake]:
    for number, tag in enumerate(asking.per):
        if tag not in tags or not NAME.fullmatch(tag):
            text = say(f"{name} 没有标签 '{tag}'", f"{name} has no tag '{tag}'") + nearest(tag, tags)
            yield spot.mistake(text, "per", number)
    needed = asking.of or "asset"
    if needed not in asking.per:
        yield spot.mistake(say(f"per 必须包含 {needed}", f"per must contain {needed}"), "per")
    for key in asking.where:
        if key not in tags and key not in ATTRIBUTES:
            text = say(f"'{key}' 既非标签也非登记属性", f"'{key}' is neither a tag nor an attribute of the register")
            yield spot.mistake(text + nearest(key, {*tags, *ATTRIBUTES}), "where", key)


def _check_window(spot: _Spot, asking: Asking, measurement: Measurement, field: Field) -> Iterator[Mistake]:
    over, each = duration_ms(asking.over), duration_ms(asking.each)
    if over % each:
        text = say(
            f"over {asking.over} 不是 each {asking.each} 的整数倍",
            f"over {asking.over} is no multiple of each {asking.each}",
        )
        yield spot.mistake(text, "over")
    if (each < DAY_MS and DAY_MS % each) or (each >= DAY_MS and each % DAY_MS):
        text = say(f"each {asking.each} 必须整除一天或是整天", f"each {asking.each} must divide a day or be whole days")
        yield spot.mistake(text, "each")
    if field.kind != "event" and each < 3 * measurement.interval_seconds * 1000:
        text = say(
            f"each {asking.each} 不足 3 个采集间隔({measurement.interval_seconds:g} 秒)",
            f"each {asking.each} is less than 3 intervals of {measurement.interval_seconds:g} s",
        )
        yield spot.mistake(text, "each")
    longest = max(measurement.retention_days, KEPT_DAYS)
    if over > longest * DAY_MS:
        text = say(
            f"窗口 {asking.over} 超过数据保留期 {longest} 天",
            f"the window {asking.over} is longer than data is kept ({longest} d)",
        )
        yield spot.mistake(text, "over")
    if asking.during is not None and each >= DAY_MS:
        text = say("有 during 时 each 必须短于一天", "with `during`, each must be shorter than a day")
        yield spot.mistake(text, "each")


def _check_takes(spot: _Spot, asking: Asking, field: Field) -> Iterator[Mistake]:
    bucket, subject = (settle(word, "higher") for word in (asking.take.bucket, asking.take.subject))
    is_watched = bool(asking.watched_by)
    if bucket.by == "age":
        yield spot.mistake(say("age 只能用于 subject", "age is for subject only"), "take", "bucket")
    if bucket.by == "percentile" and field.kind == "event":
        text = say("事件的桶不能取百分位", "a bucket of events has no percentile")
        yield spot.mistake(text, "take", "bucket")
    if bucket.by in ("count", "sum") and not is_watched and asking.out_of is None:
        text = say(f"{bucket.by} 需要 watched_by", f"{bucket.by} needs watched_by")
        yield spot.mistake(text, "take", "bucket")
    if subject.by == "count":
        yield spot.mistake(say("subject 不能用 count", "count cannot stand in subject"), "take", "subject")
    is_open = bucket.by not in ("share", "count", "sum") and asking.out_of is None and not _is_bounded(field)
    for key, take in (("bucket", bucket), ("subject", subject)):
        if take.by in ("mean", "sum") and is_open and field.kind != "event":
            text = say(
                f"字段没有完整的 range，不能取 {take.by}：缺失时无从取界 ({asking.measures})",
                f"{asking.measures} has no full range, so a missing {take.by} has no bound",
            )
            yield spot.mistake(text, "take", key)
        if take.operator == "==" and (
            field.kind not in ("state", "event") or field.states or take.threshold not in (0, 1)
        ):
            text = say("'==' 只能用于 0/1 状态，请改用 >= 或 <=", "'==' is for 0/1 states only; write >= or <=")
            yield spot.mistake(text, "take", key)
    if asking.together is not None and settle(asking.together, "higher").by not in ("min", "max", "mean", "sum"):
        text = say(
            "together 只能是 worst、best、min、max、mean 或 sum", "together is worst, best, min, max, mean or sum"
        )
        yield spot.mistake(text, "together")


def _is_bounded(field: Field) -> bool:
    return field.range is not None and None not in field.range


def _check_watches(spot: _Spot, asking: Asking, field: Field, catalogue: Catalogue) -> Iterator[Mistake]:
    if field.kind == "event" and not asking.watched_by and settle(asking.take.subject, "higher").by != "age":
        text = say(
            "事件没有应有样本数，需要 watched_by 证明有人在看",
            "an event has no expected samples and needs watched_by, the proof that somebody looked",
        )
        yield spot.mistake(text, "measures")
    if field.kind != "event" and asking.silence is not None:
        yield spot.mistake(say("silence 只用于事件", "silence is for events only"), "silence")
    for number, text_ in enumerate(asking.watched_by):
        measurement = parse_watch(text_)[0].partition(".")[0]
        common = {"asset", *catalogue.measurements[measurement].tags} & set(asking.per)
        if not common:
            text = say(f"{measurement} 与 per 没有共同的标签", f"{measurement} shares no tag with per")
            yield spot.mistake(text, "watched_by", number)


def _check_across(spot: _Spot, asking: Asking, is_input: bool) -> Iterator[Mistake]:
    if not asking.across and not is_input and asking.together is None:
        yield spot.mistake(say("across 至少要有一步", "across needs at least one step"), "across")
        return
    known = set() if asking.together is not None else {*asking.per, *ATTRIBUTES}
    yield from check_steps(spot.document, (*spot.path, "across"), asking.across, known, may_leave=is_input)


def check_steps(
    document: Document, path: Path_, across: tuple[Step, ...], known: set[str], may_leave: bool
) -> Iterator[Mistake]:
    """The steps from subjects to a number; known: the labels that enter. may_leave: labels may stay after the last."""
    for number, step in enumerate(across):
        take = settle(step.take, "higher")
        if take.by in ("count", "last", "age") or take.operator == "==":
            text = say(f"across 中不能用 '{step.take}'", f"'{step.take}' cannot stand in across")
            yield document.mistake((*path, number, "take"), text)
        for place, name in enumerate(step.per):
            if name not in known:
                text = say(f"'{name}' 在上一步之后已不存在", f"'{name}' is gone after the step before")
                yield document.mistake((*path, number, "per", place), text + nearest(name, known))
        known = set(step.per)
    if across and across[-1].per and not may_leave:
        text = say("最后一步不能有 per", "the last step leaves one number: no per")
        yield document.mistake((*path, len(across) - 1), text)


def _check_combining(spot: _Spot, combining: Combining, better: Better) -> Iterator[Mistake]:
    combination = COMBINATIONS.get(combining.by)
    if combination is None:
        text = say(f"没有函数 '{combining.by}'", f"there is no function '{combining.by}'")
        yield spot.mistake(text + nearest(combining.by, COMBINATIONS), "by")
        return
    direction = settle_steps(combining.across, better)[1]
    if combination.better not in (None, direction):
        text = say(
            f"{combining.by} 的结果与标尺方向相反",
            f"what {combining.by} gives is better {combination.better}, the scale's number is better {direction}",
        )
        yield spot.mistake(text, "by")
    if combining.by not in ANY_INPUTS:
        yield from _check_inputs(spot, combining, combination)
    left = {name: left_labels(asking) for name, asking in combining.of.items()}
    if len(set(left.values())) > 1:
        found = "; ".join(f"{name}: {', '.join(labels) or '-'}" for name, labels in left.items())
        text = say(f"各输入剩下的标签必须相同：{found}", f"all inputs must leave the same labels: {found}")
        yield spot.mistake(text, "of")
        return
    labels = set(next(iter(left.values()), ()))
    if combination.each is not None and labels and not combining.across:
        yield spot.mistake(say("across 至少要有一步", "across needs at least one step"), "across")
    if combination.whole is not None and combining.across:
        text = say(f"{combining.by} 已给出一个数，不能再有 across", f"{combining.by} gives one number: no across")
        yield spot.mistake(text, "across")
    yield from check_steps(spot.document, (*spot.path, "across"), combining.across, labels, may_leave=False)


def _check_inputs(spot: _Spot, combining: Combining, combination: Combination) -> Iterator[Mistake]:
    for name in sorted(combining.of.keys() - combination.inputs.keys()):
        text = say(f"{combining.by} 没有输入 '{name}'", f"{combining.by} has no input '{name}'")
        yield spot.mistake(text + nearest(name, combination.inputs), "of", name)
    for name in sorted(combination.inputs.keys() - combining.of.keys()):
        yield spot.mistake(say(f"{combining.by} 还缺输入 '{name}'", f"{combining.by} lacks its input '{name}'"), "of")


def left_labels(asking: Asking) -> tuple[str, ...]:
    """The labels that an input leaves to its function."""
    if asking.across:
        return asking.across[-1].per
    return () if asking.together is not None else asking.per
