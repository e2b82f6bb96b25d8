"""Scorecards of the shipped index with chosen points, as the collector would store them: whatever is drawn of a past needs many."""

from collections.abc import Mapping

import msgspec

from agent.catalogue import Text
from collector.evaluate import Rules, format_time
from collector.evidence import CapResult, CapState, CriterionResult
from collector.history import scores_of, summarize
from collector.score import Digests, Scorecard, build_tree
from collector.stores import Store

SITE = "renmin"


def result(name: str, low: float | None, weight: float = 1.0) -> CriterionResult:
    """A criterion with so many points, or without data."""
    return CriterionResult(
        id=name,
        title=Text(name, name),
        kind="measured",
        status="no_data" if low is None else "scored",
        weight=weight,
        effective_weight=weight,
        low=low or 0.0,
        high=100.0 if low is None else low,
        coverage=0.0 if low is None else 1.0,
        value=low,
        best_value=low,
        provisional=None,
        unit="count",
        query=None,
        window=None,
        expected=0,
        found=0,
        samples=0,
        subjects=0,
        worst=(),
        reason=None,
        digest="",
    )


def made_card(rules: Rules, as_of: int, lows: Mapping[str, float], caps: Mapping[str, CapState]) -> Scorecard:
    """lows: criterion -> its points, the others have no data; caps: cap -> its state, the others do not hold."""
    book = rules.book
    results = {name: result(name, lows.get(name)) for name in book.criteria}
    states = {
        cap.id: CapResult(id=cap.id, title=cap.title, ceiling=cap.ceiling, state=caps.get(cap.id, "not_met"))
        for cap in book.index.caps
    }
    total, nodes = build_tree(book, results, states)
    return Scorecard(
        site=SITE,
        as_of=format_time(as_of),
        revision=0,
        digests=Digests("", "", "", ""),
        total=total,
        nodes=nodes,
    )


def store_card(
    store: Store, rules: Rules, as_of: int, lows: Mapping[str, float], caps: Mapping[str, CapState] = {}
) -> Scorecard:
    """Stores it as the collector does every full hour; gives it."""
    card = made_card(rules, as_of, lows, caps)
    told = ("", summarize(card), scores_of(card))
    store.save_scorecard(SITE, as_of, card.identity(), msgspec.json.encode(card), as_of + 120_000, *told)
    return card
