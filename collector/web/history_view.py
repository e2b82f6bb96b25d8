"""The stored scorecards: how the two indicators moved, and why a revision exists."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.language import say
from collector.evaluate import parse_time
from collector.history import HistoryRow
from collector.report import INDICATORS
from collector.snapshot import Snapshot
from collector.web.changes import month_rows
from collector.web.figures import Bar, Tree
from collector.web.spans import SPANS, Span, choices
from collector.web.times import local_time
from collector.web.trend import Trend, trend_of_node
from collector.web.view import View

REVISIONS_SHOWN = 50
CARDS_SHOWN = 48
MONTHS_SHOWN = 3
"""The others are there for whoever opens them."""


@dataclass(frozen=True)
class Course:
    """One indicator over time."""

    id: str
    title: str
    now: str
    trend: Trend


@dataclass(frozen=True)
class CardRow:
    """One stored revision. intervals: of the two indicators; written: when it was stored; why: in the reader's language."""

    as_of: str
    revision: int
    intervals: Sequence[str]
    total: str
    written: str
    why: str


def history_view(snapshot: Snapshot, span: Span = SPANS[0]) -> View:
    """Both indicators over the span, what changed by months, the revisions with their reasons, the newest scorecards."""
    newest = list(reversed(snapshot.history))
    revised = [row for row in newest if row.why]
    nodes = Tree.of(snapshot.scorecard).nodes
    months = month_rows(snapshot, span)
    newest_months = sorted({row.month for row in months})[-MONTHS_SHOWN:]
    titles = [str(nodes[name].title) for name in INDICATORS if name in nodes]
    return View(
        "history.html",
        {
            "courses": [_course(snapshot, name, span) for name in INDICATORS if name in nodes],
            "spans": choices(span),
            "query": span.query,
            "months": [row for row in months if row.month in newest_months],
            "earlier_months": [row for row in months if row.month not in newest_months],
            "titles": titles,
            "zone": snapshot.zone.key,
            "revisions": [_card_row(snapshot, row) for row in revised[:REVISIONS_SHOWN]],
            "more_revisions": max(0, len(revised) - REVISIONS_SHOWN),
            "cards": [_card_row(snapshot, row) for row in newest[:CARDS_SHOWN]],
            "more_cards": max(0, len(newest) - CARDS_SHOWN),
            "commands": _commands(snapshot),
        },
    )


def _course(snapshot: Snapshot, name: str, span: Span) -> Course:
    node = Tree.of(snapshot.scorecard).nodes[name]
    words = Bar(node.low, node.high, node.coverage).words
    return Course(name, str(node.title), words, trend_of_node(snapshot, name, span))


def _card_row(snapshot: Snapshot, row: HistoryRow) -> CardRow:
    summary = row.summary
    shown = [summary.nodes.get(name) if summary else None for name in INDICATORS]
    return CardRow(
        as_of=local_time(parse_time(row.as_of), snapshot.zone),
        revision=row.revision,
        intervals=[_interval(pair) for pair in shown],
        total=_interval((summary.low, summary.high) if summary else None),
        written=local_time(parse_time(row.written_at), snapshot.zone),
        why=reader_s_half(row.why),
    )


def _interval(pair: tuple[float, float] | None) -> str:
    return "–" if pair is None else f"{pair[0]:.1f} – {pair[1]:.1f}"


def reader_s_half(text: str) -> str:
    """The reader's language of a text that is stored as `中文 / English`; a text in one language is shown as it is."""
    chinese, _, english = text.partition(" / ")
    return say(chinese, english or chinese)


def _commands(snapshot: Snapshot) -> list[str]:
    commands = snapshot.commands
    if not snapshot.history:
        return [commands.spell("history")]
    first, last = snapshot.history[0].as_of, snapshot.history[-1].as_of
    compared = [commands.spell("diff", first, last)] if first != last else []
    return [commands.spell("history", "--since", first), *compared]
