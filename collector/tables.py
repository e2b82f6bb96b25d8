"""The tables of a terminal: the scorecard, the criteria, the rules, the facts; they only show what is there."""

from collections.abc import Iterator, Sequence

import msgspec

from agent.catalogue import Catalogue, Text
from agent.catalogue import unit as unit_of
from agent.language import say
from collector import simulated
from collector.evidence import CriterionResult
from collector.grid import NO_BREAK, Column, Grid, Line, draw, draw_short
from collector.history import HistoryRow
from collector.ledger import Ledger, Sums
from collector.plan import SCALE_UNITS
from collector.report import BAR_CELLS, INDICATORS, bar, plain, show_value
from collector.rulebook import Rulebook
from collector.score import NodeResult, Scorecard
from collector.stores import Latest

ROOMY_CELLS = 100
"""From this width on the bars have their full length; below it the words need the room."""


def scorecard_grid(card: Scorecard, width: int | None) -> Grid:
    """The two indicators and the eleven with their criteria's state."""
    cells = BAR_CELLS if width is None or width >= ROOMY_CELLS else BAR_CELLS // 2
    nodes = [node for node in card.nodes if node.id in INDICATORS or node.parent in INDICATORS]
    return Grid(
        title=say("基础设施就绪度", "Infrastructure readiness"),
        columns=(
            Column(say("指标", "indicator")),
            Column(say("得分区间", "low - high"), is_whole=True, is_right=True),
            Column("", is_whole=True),
            Column(say("覆盖", "coverage"), is_whole=True, is_right=True),
            Column(say("准则", "criteria")),
        ),
        rows=[_node_row(node, cells) for node in nodes],
        rest=on_the_page(),
        strong=frozenset(place for place, node in enumerate(nodes) if node.id in INDICATORS),
    )


def on_the_page() -> str:
    """Where the rows are that a screen has no room for."""
    return say("，全部见网页", "; the page shows them all")


def legend() -> str:
    """What the bars mean, and what a provisional value is worth."""
    return say("█ 已证实  ░ 未证实  暂估值不计分", "█ proven  ░ not proven; provisional values earn nothing")


def draw_scorecard(card: Scorecard, width: int | None) -> list[Line]:
    """`score` for people: the indicators, the index total, small, and every criterion of which anything is known."""
    indicators = scorecard_grid(card, width)
    total = card.total
    foot = say(
        f"城市指数总分 {total.low:.2f} - {total.high:.2f}(其中 86 % 的权重不由遥测评分)",
        f"city index {total.low:.2f} - {total.high:.2f}, 86 % of its weight outside telemetry",
    )
    return [
        *([Line(simulated.notice(), "bold")] if simulated.is_simulated(card.site) else []),
        *draw(indicators._replace(title=f"{indicators.title} · {card.site} · {card.as_of}"), width),
        Line(foot, "dim"),
        Line(legend(), "dim"),
        Line(""),
        *draw(criteria_grid(card), width),
    ]


def _node_row(node: NodeResult, cells: int) -> tuple[str, str, str, str, str]:
    name = str(node.title) if node.id in INDICATORS else f"  {node.title}"
    return (
        name,
        f"{node.low:.1f} - {node.high:.1f}",
        bar(node.low, node.high, cells),
        f"{node.coverage * 100:.0f} %",
        _criteria_words(node),
    )


def _criteria_words(node: NodeResult) -> str:
    counted = [criterion for criterion in node.criteria if criterion.weight > 0]  # the rest are supporting documents
    if not counted:
        return ""
    scored = sum(criterion.status == "scored" for criterion in counted)
    provisional = sum(criterion.provisional is not None for criterion in counted)
    words = f"{scored}/{len(counted)}"
    return words + say(f" 暂估 {provisional}", f" +{provisional} provisional") if provisional else words


def criteria_grid(card: Scorecard) -> Grid:
    """Every criterion of which anything is known, with its value and its reason; provisional points say so."""
    return Grid(
        title=say("有数据的准则", "criteria with data"),
        columns=(
            Column(say("准则", "criterion"), is_whole=True),
            Column(say("值", "value"), is_whole=True, is_right=True),
            Column(say("得分", "points"), is_whole=True),
            Column(say("说明", "note")),
        ),
        rows=[(criterion.id, *_criterion_words(criterion)) for criterion in known_criteria(card)],
        rest=on_the_page(),
    )


def known_criteria(card: Scorecard) -> Iterator[CriterionResult]:
    """The criteria that are scored or have something provisional."""
    for node in card.nodes:
        for criterion in node.criteria:
            if criterion.status == "scored" or criterion.provisional is not None:
                yield criterion


def _criterion_words(criterion: CriterionResult) -> tuple[str, str, str]:
    note = str(criterion.reason) if criterion.reason else ""
    if criterion.provisional is not None:
        value = show_value(criterion.provisional.value, criterion.unit)
        return (
            value,
            say(f"暂估 {criterion.provisional.points:g}", f"provisional {criterion.provisional.points:g}"),
            note,
        )
    return show_value(criterion.value, criterion.unit), f"{criterion.low:g} - {criterion.high:g}", note


class RuleRow(msgspec.Struct, frozen=True):
    """One criterion as `rules list` gives it; basis: the confidences of its own basis and of its scale's rungs."""

    id: str
    kind: str
    indicator: str
    weight: float | None
    title: Text
    signals: tuple[str, ...]
    confidence: tuple[str, ...]


def list_rules(book: Rulebook) -> list[RuleRow]:
    """All criteria, in the order of the index; those that no index names come last without a weight."""
    weights = {counted.id: counted.weight for place in book.places() for counted in place.node.criteria}
    order = [*weights, *sorted(set(book.criteria) - set(weights))]
    return [_rule_row(book, name, weights.get(name)) for name in order]


def _rule_row(book: Rulebook, name: str, weight: float | None) -> RuleRow:
    criterion = book.criteria[name]
    rungs = book.scales[criterion.scale].rungs
    bases = [*criterion.basis, *(basis for rung in rungs for basis in rung.basis)]
    confidence = tuple(sorted({basis.confidence for basis in bases}))
    signals = criterion.signals()
    return RuleRow(name, criterion.kind, book.indicators[name], weight, criterion.title, signals, confidence)


def draw_rules(rows: Sequence[RuleRow], width: int | None) -> list[Line]:
    """`rules list` for people; ids are never cut, since a reader copies them.

    On a terminal of `width` cells the indicators are headings, which leaves a line room for a title; None: for a pipe,
    one line per criterion with everything on it.
    """
    if width is None:
        return draw(_rules_grid(rows, is_flat=True), None)[1:]
    grid = _rules_grid(rows, is_flat=False)
    header, *drawn = draw_short(grid, width, 1 + len(rows))
    lines = [header]
    for place, line in enumerate(drawn):
        if place == 0 or rows[place - 1].indicator != rows[place].indicator:
            lines.append(Line(rows[place].indicator, "bold"))
        lines.append(line)
    return lines


def _rules_grid(rows: Sequence[RuleRow], *, is_flat: bool) -> Grid:
    columns = (
        Column(say("准则", "criterion"), is_whole=True),
        Column(say("权重", "weight"), is_whole=True, is_right=True),
        Column("", is_whole=True),
        Column(say("满分时成立的事", "true at 100 points")),
    )
    cells = [
        (
            row.id if is_flat else f"  {row.id}",
            "–" if row.weight is None else f"{row.weight:g}",
            say("由人证明", "attested") if row.kind == "attested" else "",
            str(row.title),
        )
        for row in rows
    ]
    if not is_flat:
        return Grid(say(f"{len(rows)} 条准则", f"{len(rows)} criteria"), columns, cells)
    whole = [(row.indicator, *words) for row, words in zip(rows, cells, strict=True)]
    return Grid("", (Column(say("指标", "indicator"), is_whole=True), *columns), whole)


def history_grid(rows: Sequence[HistoryRow]) -> Grid:
    """`history` for people: a stored revision per line, the two indicators and the whole index, and why it exists."""
    return Grid(
        title=say("已存的评分", "stored scorecards"),
        columns=(
            Column(say("时刻", "as of"), is_whole=True),
            Column(say("修订", "revision"), is_whole=True, is_right=True),
            Column(say("数据可用性", "data availability"), is_whole=True, is_right=True),
            Column(say("网络安全", "network security"), is_whole=True, is_right=True),
            Column(say("指数总分", "whole index"), is_whole=True, is_right=True),
            Column(say("修订原因", "why revised")),
        ),
        rows=[_history_row(row) for row in rows],
    )


def _history_row(row: HistoryRow) -> tuple[str, ...]:
    summary = row.summary
    shown = summary.nodes if summary else {}
    two = [_ends(*shown.get(name, (0.0, 100.0))) for name in INDICATORS]
    return row.as_of, str(row.revision), *two, _ends(summary.low, summary.high) if summary else "", row.why


def _ends(low: float, high: float) -> str:
    return f"{low:.2f} - {high:.2f}"


FACT_VALUES = 4


def facts_grid(catalogue: Catalogue, facts: Sequence[tuple[str, Latest]]) -> Grid:
    """What was gathered last, a line per thing; events are not what is now and are left out."""
    return Grid(
        title=say("刚采集到的事实", "facts just gathered"),
        columns=(Column(say("信号", "signal")), Column(say("对象", "of")), Column(say("值", "value"))),
        rows=[_fact_row(catalogue, name, row) for name, row in facts],
        # the page does not list them
        rest=say(
            "；查看某个采集源的全部：infravitals-agent try 采集源", "; all of a source: infravitals-agent try SOURCE"
        ),
    )


def _fact_row(catalogue: Catalogue, name: str, row: Latest) -> tuple[str, str, str]:
    declared = catalogue.measurements[name]
    tags = " ".join(value for tag, value in sorted(row.tags.items()) if tag in declared.tags)
    values = [
        f"{key} {_show_fact(key, value)}".replace(" ", NO_BREAK)  # a name without its number says nothing
        for key, value in row.fields.items()
        if declared.fields[key].kind != "event"
    ]
    return say(declared.zh, declared.en), tags or row.tags["asset"], ", ".join(values[:FACT_VALUES])


def _show_fact(field: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    unit = unit_of(field)
    if unit in SCALE_UNITS:
        return show_value(value, SCALE_UNITS[unit])
    if unit in ("B", "B/s"):
        size = next((size for size in (1e12, 1e9, 1e6, 1e3) if value >= size), 1.0)
        return f"{plain(value / size)} {({1e12: 'T', 1e9: 'G', 1e6: 'M', 1e3: 'k', 1.0: ''})[size]}{unit}"
    return f"{plain(value)} {unit}".strip()


def ledger_words(state: str) -> str:
    """How an account stands."""
    words = {
        "balanced": say("平", "balanced"),
        "unbalanced": say("对不上", "does not balance"),
        "unknown": say("无从得知", "cannot be known"),
    }
    return words[state]


def ledger_titles() -> tuple[str, ...]:
    """What a line of the ledger is made of, in the order of the sum."""
    return (
        say("生成", "made"),
        say("入库", "applied"),
        say("搁置", "set aside"),
        say("丢弃", "dropped"),
        say("等待", "waiting"),
        say("差额", "difference"),
    )


def ledger_grid(found: Ledger) -> Grid:
    """Two lines for each agent: batches and points."""
    numbers = [Column(title, is_whole=True, is_right=True) for title in ledger_titles()]
    rows = [
        (agent.agent if is_first else "", unit, *_sums_cells(sums), ledger_words(agent.state) if is_first else "")
        for agent in found.agents
        for is_first, unit, sums in (
            (True, say("批次", "batches"), agent.batches),
            (False, say("数据点", "points"), agent.points),
        )
    ]
    agent, unit, state = say("采集代理", "agent"), say("单位", "in"), say("状态", "state")
    return Grid(
        say("对账", "ledger"),
        (Column(agent, is_whole=True), Column(unit, is_whole=True), *numbers, Column(state, is_whole=True)),
        rows,
    )


def _sums_cells(sums: Sums | None) -> tuple[str, ...]:
    if sums is None:
        return ("–",) * 6
    return tuple(
        str(number) for number in (sums.made, sums.applied, sums.set_aside, sums.dropped, sums.waiting, sums.difference)
    )
