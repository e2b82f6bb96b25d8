"""What every combination gives, literally; and that none of them gives less when something gets better."""

import math
from collections.abc import Mapping, Sequence

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from agent import catalogue
from agent.language import choose
from collector import plan_check, rulebook, rules_folder
from collector.combine import ANY_INPUTS, COMBINATIONS, DAY, NEVER_SECONDS, Combination, Row
from collector.rulebook import Rulebook

Values = Mapping[str, float | None]


def row(values: Values, is_best: bool = False, **labels: str) -> Row:
    return Row(labels, values, is_best)


def one(name: str, is_best: bool = False, **values: float | None) -> float | None:
    """What a function of single subjects gives."""
    function = COMBINATIONS[name].each
    assert function is not None
    return function(row(values, is_best))


def all_of(name: str, rows: Sequence[Row]) -> float | None:
    """What a function of all subjects gives."""
    function = COMBINATIONS[name].whole
    assert function is not None
    return function(rows)


@pytest.mark.parametrize(
    ("name", "values", "number"),
    [
        ("least-of", {"a": 2, "b": 1, "c": None}, 1),
        ("least-of", {"a": None, "b": None}, None),
        ("greatest-of", {"a": 2, "b": 1, "c": None}, 2),
        ("greatest-of", {"a": None}, None),
        ("sum-of", {"a": 2, "b": 1.5, "c": None}, 3.5),
        ("sum-of", {"a": None}, None),
        ("level-in-service", {"level": 4, "in_service": 1}, 4),
        ("level-in-service", {"level": 4, "in_service": 0.999}, 0),
        ("tier-when-healthy", {"tier": 3, "healthy": 0.99}, 3),
        ("tier-when-healthy", {"tier": 3, "healthy": 0.9899}, 0),
        ("dual-active-share", {"serving": 2, "running": 1}, 1),
        ("dual-active-share", {"serving": 1, "running": 1}, 0.7),
        ("dual-active-share", {"serving": 2, "running": 0}, 0),
        ("recovery-if-automatic", {"time": 45, "automatic": 1}, 45),
        ("recovery-if-automatic", {"time": 45, "automatic": 0}, 900),
        ("recovery-if-automatic", {"time": 1000, "automatic": 0}, 1000),
        ("recovery-if-automatic", {"time": None, "automatic": 1}, None),
        ("ride-through-level", {"runtime": 900, "feeds": 2, "generator": 1}, 4),
        ("ride-through-level", {"runtime": 900, "feeds": 2, "generator": 0}, 3),
        ("ride-through-level", {"runtime": 900, "feeds": 1, "generator": 1}, 2),
        ("ride-through-level", {"runtime": 420, "feeds": 2, "generator": 1}, 2),
        ("ride-through-level", {"runtime": 419, "feeds": 2, "generator": 1}, 1),
        ("ride-through-level", {"runtime": 0, "feeds": 2, "generator": 1}, 0),
        ("route-level", {"routes": 2, "fallback": 0}, 3),
        ("route-level", {"routes": 1, "fallback": 1}, 2),
        ("route-level", {"routes": 1, "fallback": 0}, 1),
        ("route-level", {"routes": 0, "fallback": 1}, 0),
        ("headroom-level", {"used": 0.7, "time_to_full": 180 * DAY}, 3),
        ("headroom-level", {"used": 0.7, "time_to_full": 179 * DAY}, 2),
        ("headroom-level", {"used": 0.8, "time_to_full": 90 * DAY}, 2),
        ("headroom-level", {"used": 0.8, "time_to_full": 89 * DAY}, 1),
        ("headroom-level", {"used": 0.9, "time_to_full": 0}, 1),
        ("headroom-level", {"used": 0.91, "time_to_full": 999 * DAY}, 0),
        ("isolated-age", {"verified_age": 60, "isolated": 1, "immutable": 0}, 60),
        ("isolated-age", {"verified_age": 60, "isolated": 0, "immutable": 1}, 60),
        ("isolated-age", {"verified_age": 60, "isolated": 0, "immutable": 0}, NEVER_SECONDS),
        ("age-of-findings", {"findings_age": 5, "scan_age": 9}, 9),
        ("age-of-findings", {"findings_age": 9, "scan_age": 5}, 9),
        ("containment-level", {"contained": None, "contained_after": None, "automatic": None}, None),
        ("containment-level", {"contained": 1, "contained_after": 300, "automatic": 1}, 3),
        ("containment-level", {"contained": 1, "contained_after": 301, "automatic": 1}, 2),
        ("containment-level", {"contained": 1, "contained_after": 300, "automatic": 0}, 2),
        ("containment-level", {"contained": 1, "contained_after": 3601, "automatic": 1}, 1),
        ("containment-level", {"contained": 1, "contained_after": None, "automatic": 1}, 1),
        ("containment-level", {"contained": 0, "contained_after": 60, "automatic": 1}, 1),
        ("loss-or-restore-point", {"measured": 5, "restore_point_age": 9000}, 5),
        ("loss-or-restore-point", {"measured": None, "restore_point_age": 9000}, 9000),
        ("loss-or-restore-point", {"measured": None, "restore_point_age": 5}, 1800),
    ],
)
def test_a_function_of_single_subjects_gives(name: str, values: dict[str, float | None], number: float | None) -> None:
    assert one(name, **values) == number


def test_how_rogue_wireless_was_contained_is_unknown_when_nobody_said_it() -> None:
    values = {"contained": 1.0, "contained_after": 60.0, "automatic": None}
    assert one("containment-level", False, **values) == 2
    assert one("containment-level", True, **values) == 3


def copies(*rows: tuple[str, str, float, float, float]) -> list[Row]:
    """Rows of (system, criticality, age of the full backup, automatic, off-site)."""
    return [
        row({"full_age": age, "automatic": automatic, "offsite": offsite}, system=system, criticality=criticality)
        for system, criticality, age, automatic, offsite in rows
    ]


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        ([], None),
        ([("his", "critical", DAY, 1, 1), ("oa", "normal", DAY, 1, 1)], 4),
        ([("his", "critical", DAY, 1, 1), ("oa", "normal", 7 * DAY, 1, 1)], 3),
        ([("his", "critical", DAY, 1, 0), ("oa", "normal", DAY, 0, 1)], 3),
        ([("his", "critical", DAY + 1, 1, 1), ("oa", "normal", DAY, 1, 1)], 2),
        ([("oa", "", DAY, 0, 0)], 2),
        ([("his", "critical", 60, 1, 1), ("oa", "normal", 7 * DAY + 1, 1, 1)], 1),
        ([("his", "critical", 60, 1, 1), ("oa", "normal", NEVER_SECONDS, 1, 1)], 0),
        ([("his", "critical", NEVER_SECONDS, 1, 1), ("his", "critical", 60, 1, 1)], 4),
        ([("his", "critical", 60, 1, 0), ("his", "critical", 2 * DAY, 1, 1)], 3),
    ],
)
def test_backup_level_takes_each_system_s_best_copy(
    rows: list[tuple[str, str, float, float, float]], level: float | None
) -> None:
    assert all_of("backup-level", copies(*rows)) == level


def pools(*rows: tuple[float | None, int, int, int, int], is_best: bool = False) -> list[Row]:
    """Rows of (size, virtualised, dual, distributed, synchronous)."""
    names = ("size", "virtualised", "dual", "distributed", "synchronous")
    return [row(dict(zip(names, values, strict=True)), is_best) for values in rows]


@pytest.mark.parametrize(
    ("rows", "worst", "best"),
    [
        ([], None, None),
        ([(75, 1, 1, 0, 0), (25, 0, 1, 0, 0)], 0.75, 0.75),
        ([(75, 0, 0, 1, 0), (25, 0, 1, 0, 0)], 0.75, 0.75),
        ([(75, 0, 1, 0, 1), (25, 0, 1, 0, 0)], 0.75, 0.75),
        ([(75, 1, 0, 0, 0), (25, 1, 1, 0, 0)], 0.89, 0.89),
        ([(75, 0, 1, 0, 0)], 0.001, 0.001),
        ([(75, 0, 0, 0, 0)], 0, 0),
        ([(1, 1, 1, 0, 0), (9999, 0, 1, 0, 0)], 0.002, 0.002),
        ([(None, 0, 1, 0, 0), (50, 1, 1, 0, 0)], 0.001, 1),
        ([(None, 1, 1, 0, 0), (50, 0, 1, 0, 0)], 0.001, 1),
        ([(None, 1, 1, 0, 0), (50, 1, 1, 0, 0)], 1, 1),
    ],
)
def test_pooled_share_of_known_and_unknown_sizes(
    rows: list[tuple[float | None, int, int, int, int]], worst: float | None, best: float | None
) -> None:
    assert all_of("pooled-share", pools(*rows)) == worst
    assert all_of("pooled-share", pools(*rows, is_best=True)) == best


def tiers(*levels: float | None, age: float = 0.0, is_best: bool = False) -> list[Row]:
    return [row({"tier": level, "last_access_age": age}, is_best) for level in levels]


@pytest.mark.parametrize(
    ("levels", "worst", "best"),
    [
        ([], None, None),
        ([1, 2, 3], 4, 4),
        ([1, 3], 3, 3),
        ([2, 3], 3, 3),
        ([1, 2], 2, 2),
        ([1, 1], 1, 1),
        ([3], 1, 1),
        ([1, None], 1, 3),
        ([1, 2, None], 2, 4),
        ([1, 3, None], 3, 4),
        ([None, None], 0, 3),
        ([None, None, None], 0, 4),
    ],
)
def test_tiers_level_of_known_and_unknown_tiers(
    levels: list[float | None], worst: float | None, best: float | None
) -> None:
    assert all_of("tiers-level", tiers(*levels)) == worst
    assert all_of("tiers-level", tiers(*levels, is_best=True)) == best


def test_a_tier_that_was_not_touched_for_30_days_is_not_in_use() -> None:
    assert all_of("tiers-level", [*tiers(1, age=30 * DAY), *tiers(3, age=30 * DAY + 1)]) == 1


@pytest.mark.parametrize(
    ("rows", "share"),
    [([], None), ([(0, 0)], None), ([(0, 100), (900, 900)], 0.9), ([(50, 10)], 1)],
)
def test_share_of_sums(rows: list[tuple[float, float]], share: float | None) -> None:
    assert all_of("share-of-sums", [row({"part": part, "whole": whole}) for part, whole in rows]) == share


@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([], None),
        ([(0, 0, 500)], 0),
        ([(3, 3, 500)], 0),
        ([(3, 2, 500)], 6),
        ([(3, 2, 500), (1, 1, 500)], 4),
        ([(3, 0, 0)], math.inf),
    ],
)
def test_events_per_thousand(rows: list[tuple[float, float, float]], rate: float | None) -> None:
    names = ("events", "blocked", "endpoints")
    assert all_of("events-per-thousand", [row(dict(zip(names, values, strict=True))) for values in rows]) == rate


# -- what holds of all of them

LADDER = (0.0, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0, 2.0, 3.0, 60.0, 300.0, 420.0, 900.0, 3600.0, DAY, 7 * DAY, 30 * DAY)
LADDER = (*LADDER, 90 * DAY, 180 * DAY, NEVER_SECONDS)
NUMBERS = st.sampled_from(LADDER)
SILENT = {("containment-level", "contained_after"), ("containment-level", "automatic")}
SILENT |= {("containment-level", "contained"), ("loss-or-restore-point", "measured")}
"""Inputs of events: None says that it is proven that nothing happened."""


def inputs_of(name: str) -> Mapping[str, rulebook.Better | None]:
    return {"a": "higher", "b": "higher", "c": "higher"} if name in ANY_INPUTS else COMBINATIONS[name].inputs


def value_of(name: str, key: str, is_best: bool) -> st.SearchStrategy[float | None]:
    if name == "tiers-level" and key == "tier":
        return st.sampled_from([1.0, 2.0, 3.0, None])
    if inputs_of(name)[key] is None or (name, key) in SILENT:
        return st.one_of(NUMBERS, st.none())
    return NUMBERS


@st.composite
def situations(draw: st.DrawFn, name: str) -> list[Row]:
    """One subject, or several for a function that takes all."""
    is_best = draw(st.booleans())
    rows = []
    for _ in range(1 if COMBINATIONS[name].each else draw(st.integers(1, 4))):
        labels = {"system": draw(st.sampled_from("ab")), "criticality": draw(st.sampled_from(["critical", ""]))}
        values = {key: draw(value_of(name, key, is_best)) for key in inputs_of(name)}
        rows.append(Row(labels, values, is_best))
    return rows


def result(combination: Combination, rows: Sequence[Row]) -> float | None:
    return combination.each(rows[0]) if combination.each else combination.whole(rows) if combination.whole else None


def replaced(rows: Sequence[Row], place: int, key: str, value: float | None) -> list[Row]:
    changed = rows[place]._replace(values={**rows[place].values, key: value})
    return [*rows[:place], changed, *rows[place + 1 :]]


@pytest.mark.parametrize("name", sorted(COMBINATIONS))
@given(data=st.data())
def test_nothing_that_gets_better_makes_the_result_worse(name: str, data: st.DataObject) -> None:
    combination, rows = COMBINATIONS[name], data.draw(situations(name))
    better = combination.better or "higher"
    place = data.draw(st.integers(0, len(rows) - 1))
    key = data.draw(st.sampled_from(sorted(inputs_of(name))))
    direction, value = inputs_of(name)[key], rows[place].values[key]
    before = result(combination, rows)
    if direction is None:
        after = result(combination, replaced(rows, place, key, None))
        rises = not rows[place].is_best  # unknown: never better at worst, never worse at best
        low, high = (after, before) if rises else (before, after)
    elif value is None:
        return
    else:
        ahead = [step for step in LADDER if (step >= value if direction == "higher" else step <= value)]
        low, high = before, result(combination, replaced(rows, place, key, data.draw(st.sampled_from(ahead))))
    if low is None or high is None:
        return
    assert low <= high + 1e-12 if better == "higher" else low >= high - 1e-12


# -- a rule whose scale looks the other way


def test_a_function_and_a_scale_of_opposite_directions_are_refused() -> None:
    choose("en")
    book, documents = rules_folder.load()
    scale = msgspec.structs.replace(book.scales["power-ride-through"], better="lower")
    turned = Rulebook(
        book.criteria,
        book.indicators,
        {**book.scales, "power-ride-through": scale},
        book.index,
        book.index_name,
        book.sources,
        book.digests,
    )
    mistakes, _ = plan_check.check(turned, documents, catalogue.load())
    choose(None)
    assert [mistake.text for mistake in mistakes] == [
        "what ride-through-level gives is better higher, the scale's number is better lower"
    ]
