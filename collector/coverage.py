"""`infravitals rules coverage`: which signal feeds which criterion, what this site lacks, what to enrol next."""

import time
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Literal, NamedTuple

import msgspec

from agent.catalogue import Text
from collector.evaluate import Rules
from collector.evidence import CriterionResult
from collector.inquiry import Site
from collector.plan_check import signals_of
from collector.query import HOUR_MS
from collector.score import Scorecard
from collector.stores import Store

State = Literal["seen", "not_seen", "no_source"]


class SignalRow(msgspec.Struct, frozen=True):
    """One signal that a criterion asks. sources: which sources give it. state: seen here, gatherable but not seen, or no source yet."""

    signal: str
    sources: tuple[str, ...]
    state: State


class CriterionRow(msgspec.Struct, frozen=True):
    """One criterion; weight: of the whole of its indicator. gain: what full marks would add to the indicator's low."""

    id: str
    title: Text
    kind: str
    indicator: str
    weight: float
    status: str
    gain: float
    signals: tuple[SignalRow, ...]
    todo: Text | None
    is_possible: bool
    """Whether it can be done today: it is scored, or every signal that it lacks has a source. Every face goes by this."""


class Coverage(msgspec.Struct, frozen=True):
    """All criteria in the order of the index, and the ids of those to do next, best first."""

    criteria: tuple[CriterionRow, ...]
    following: tuple[str, ...]


NEXT_SHOWN = 10

SEEN_MS = 7 * 24 * HOUR_MS
"""A signal is seen while its newest point is no older."""


class _Here(NamedTuple):
    """What there is at this site: the signals seen, the sources that run, a register."""

    seen: Mapping[str, bool]
    running: Set[str]
    has_register: bool


def measure_coverage(
    rules: Rules, card: Scorecard, seen: Mapping[str, bool], running: Set[str], has_register: bool
) -> Coverage:
    """seen: for every signal asked, whether the store has it. running: the sources that reported of late, whatever they saw."""
    here = _Here(seen, running, has_register)
    rows = [
        _row(rules, node.id, result, here)
        for node in card.nodes
        for result in node.criteria
        if result.weight > 0 and (result.kind == "measured" or not _is_far(node.id))
    ]
    weights = _weights(card)
    ordered = sorted(rows, key=lambda row: (-row.gain * weights[row.indicator], row.id))
    following = [row.id for row in ordered if row.gain > 0 and row.todo is not None and row.is_possible]
    return Coverage(tuple(rows), tuple(following[:NEXT_SHOWN]))


def _is_far(node: str) -> bool:
    """Whether an indicator lies outside what this product is about: the city's part of the index."""
    return not node.startswith(("hospital.data-availability.", "hospital.network-security."))


def _weights(card: Scorecard) -> Mapping[str, float]:
    """Every node's share of the whole index."""
    shares: dict[str, float] = {}
    for node in card.nodes:  # parents come first
        shares[node.id] = node.effective_weight * (shares[node.parent] if node.parent else 1.0)
    return shares


def asked_signals(rules: Rules) -> Sequence[str]:
    """Every signal that any criterion asks, sorted."""
    return sorted({signal for criterion in rules.book.criteria.values() for signal in criterion.signals()})


def _row(rules: Rules, indicator: str, result: CriterionResult, here: _Here) -> CriterionRow:
    criterion = rules.book.criteria[result.id]
    names: dict[str, None] = {}
    for asking in criterion.questions().values():
        names.update((signal, None) for _, signal in signals_of(asking))
    answered = {one.measures for one in result.questions if one.samples > 0}  # a window may be longer than a week
    signals = tuple(_signal(rules, name, name in answered or here.seen.get(name, False)) for name in names)
    is_possible = result.status == "scored" or all(row.state != "no_source" for row in signals)
    return CriterionRow(
        id=result.id,
        title=result.title,
        kind=result.kind,
        indicator=indicator,
        weight=result.weight,
        status=result.status,
        gain=round(result.effective_weight * (100 - result.low), 6),
        signals=signals,
        todo=_todo(rules, result, signals, here),
        is_possible=is_possible,
    )


def _signal(rules: Rules, name: str, is_seen: bool) -> SignalRow:
    measurement, _, field = name.partition(".")
    sources = rules.catalogue.measurements[measurement].emitters(field)
    return SignalRow(name, sources, "seen" if is_seen else "not_seen" if sources else "no_source")


def _todo(rules: Rules, result: CriterionResult, signals: Sequence[SignalRow], here: _Here) -> Text | None:
    """What would bring this criterion forward; None where nothing is to be done."""
    if result.status == "not_applicable":
        return None
    if result.kind == "attested":
        return None if result.status == "scored" else Text("请人证明：infravitals attest add", "have it attested")
    if result.status == "scored" and result.low == result.high:  # nothing is unknown: no source would change it
        return None if result.low >= 100 else Text("改进所示对象", "mend the subjects shown")
    without = [row.signal for row in signals if row.state == "no_source"]
    if without:
        names = _join(without)
        return Text(f"本版本尚无采集源：{names.zh}", f"no source yet: {names.en}")
    lacking = [row for row in signals if row.state == "not_seen"]
    idle = [row for row in lacking if not here.running & set(row.sources)]
    if idle:
        names = _join(source for row in idle for source in row.sources)
        return Text(f"启用采集源 {names.zh}", f"switch on {names.en}")
    if not here.has_register and _asks_register(rules, result.id):
        return Text(
            "先写资产登记表（infravitals register draft）", "write a register first (infravitals register draft)"
        )
    if lacking:
        return _todo_unseen(lacking, here.running)
    if result.status != "scored":
        return result.reason
    return Text("改进所示对象", "mend the subjects shown")


def _todo_unseen(lacking: Sequence[SignalRow], running: Set[str]) -> Text:
    """For signals that a running source could give and none has: the things are not there, or nobody enrolled them."""
    names = _join(source for row in lacking for source in row.sources if source in running)
    others = _join(source for row in lacking for source in row.sources if source not in running)
    advice = Text(
        f"采集源 {names.zh} 在运行，但没有见到这类对象；请接入这些设备，或登记它们（infravitals register draft）",
        f"running, but has seen no such object: {names.en}; enrol the devices, or register them (infravitals register draft)",
    )
    if not others.en:
        return advice
    return Text(f"{advice.zh}，或启用采集源 {others.zh}", f"{advice.en}, or switch on {others.en}")


def _join(names: Iterable[str]) -> Text:
    once = list(dict.fromkeys(names))
    return Text("、".join(once), ", ".join(once))


def _asks_register(rules: Rules, name: str) -> bool:
    """Whether a criterion picks its subjects by what only a register says."""
    plan = rules.plans.get(name)
    asked = plan.questions.values() if plan else ()
    return any(one.attributes or one.of != "asset" for one in asked)


def running_sources(store: Store, site: Site, now: int | None = None) -> frozenset[str]:
    """The sources that went round in the week before `now` (ms; None: the present), whatever they saw."""
    since = (int(time.time() * 1000) if now is None else now) - SEEN_MS
    return frozenset(row.tags["source"] for row in store.latest("source_round", since) if row.tags["site"] == site.id)


def seen_signals(store: Store, rules: Rules, site: Site, now: int | None = None) -> dict[str, bool]:
    """For every signal that is asked, whether a point of the week before `now` (ms; None: the present) has it."""
    since = (int(time.time() * 1000) if now is None else now) - SEEN_MS
    signals = asked_signals(rules)
    fields: dict[str, set[str]] = {}
    for name in sorted({signal.partition(".")[0] for signal in signals}):
        rows = (row for row in store.latest(name, since) if row.tags["site"] == site.id)
        fields[name] = {field for row in rows for field in row.fields}
    return {signal: signal.partition(".")[2] in fields[signal.partition(".")[0]] for signal in signals}
