"""A question as InfluxQL: samples become buckets in the server; names are checked, values quoted. No I/O."""

# ruff: noqa: S608  # a name enters the text only when it is checked, a value quoted

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from collector.buckets import Floats, Integers, Rows, join, round9_all
from collector.query import Question, Take
from collector.stores._influx_http import Door
from collector.stores._influx_pack import Numbering
from collector.stores._influx_text import decode_tag, name_text, number_text, one_of_text

Span = tuple[int, int]
"""Milliseconds, start inclusive and end exclusive."""


def compile_buckets(question: Question, spans: Sequence[Span]) -> list[str]:
    """The statements whose rows (time, value, samples) are the buckets in these spans, which begin and end at bucket edges.

    A share takes two for each stretch of even buckets: how many meet the condition, and how many there are.
    """
    statements: list[str] = []
    for span in spans:
        for start, length, end in _runs(question, span):
            statements += [
                _statement(question, wanted, condition, (start, end), length)
                for wanted, condition in _wanted(question.bucket, name_text(question.field))
            ]
    return statements


def _wanted(take: Take, field: str) -> Iterator[tuple[str, str]]:
    """(what is selected, the condition on samples)."""
    count = f'count({field}) AS "samples"'
    match take.by:
        case "share":
            yield count, f" AND {field} {_OPERATORS[take.operator or '==']} {number_text(take.threshold or 0.0)}"
            yield count, ""
        case "count":
            yield count, ""
        case "percentile":
            yield f'percentile({field}, {number_text(take.p or 0.0)}) AS "value", {count}', ""
        case plain:
            yield f'{plain}({field}) AS "value", {count}', ""


def _statement(question: Question, wanted: str, condition: str, span: Span, length: int) -> str:
    start, end = span
    tags = "".join(f", {name_text(tag)}" for tag in question.per)
    return (
        f"SELECT {wanted} FROM {name_text(question.measurement)} WHERE time >= {start}ms AND time < {end}ms"
        f"{_conditions(question)}{condition} GROUP BY time({length}ms, {start % length}ms){tags} fill(none)"
    )


def _conditions(question: Question) -> str:
    return "".join(f" AND {one_of_text(tag, values)}" for tag, values in question.where)


def _runs(question: Question, span: Span) -> list[tuple[int, int, int]]:
    """(start, length of a bucket, end) of neighbouring buckets of one length within the span."""
    start, end = span
    if not question.edges:
        return [(start, question.each_ms, end)]
    edges = question.edges
    cuts = [*edges[bisect_left(edges, start) : bisect_left(edges, end)], end]
    runs: list[tuple[int, int, int]] = []
    for first, after in pairwise(cuts):
        if runs and runs[-1][1] == after - first:
            runs[-1] = (runs[-1][0], runs[-1][1], after)
        else:
            runs.append((first, after - first, after))
    return runs


_OPERATORS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "="}
"""Only these reach a query's text."""


def read_rows(question: Question, spans: Sequence[Span], numbering: Numbering, door: Door) -> Rows:
    """The buckets in these spans, rounded, subjects numbered by `numbering`."""
    statements = compile_buckets(question, spans)
    starts = np.array(question.starts(), np.int64)
    is_share = question.bucket.by == "share"
    parts: list[Rows] = []
    met: list[Rows] = []
    for found in door.ask(statements):
        subject = tuple(decode_tag(found.tags.get(tag, "")) for tag in question.per)
        rows = _part(found.values, numbering.number(subject), starts)
        (met if is_share and found.statement % 2 == 0 else parts).append(rows)
    rows = join(parts)
    if is_share:
        rows = rows._replace(values=_shares(rows, join(met), len(starts)))
    rows = rows.where(~np.isnan(rows.values))
    return rows._replace(values=round9_all(rows.values))


def _part(values: list[list[float | None]], number: int, starts: Integers) -> Rows:
    """Rows (time, value, samples), or (time, samples) which then are the value too, of one subject."""
    table = np.array(values, np.float64)  # None becomes NaN; times and counts are whole numbers below 2^53
    positions = np.searchsorted(starts, table[:, 0].astype(np.int64), "right") - 1
    return Rows(np.full(len(table), number, np.int64), positions, table[:, 1], table[:, -1].astype(np.int64))


def _shares(rows: Rows, met: Rows, count: int) -> Floats:
    """What share of each row's samples met the condition."""
    if not len(met.values):
        return np.zeros(len(rows.values))
    keys = met.subjects * count + met.positions
    order = np.argsort(keys)
    wanted = rows.subjects * count + rows.positions
    at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    is_there = keys[order][at] == wanted
    shares: Floats = np.where(is_there, met.values[order][at], 0.0) / rows.samples
    return shares
