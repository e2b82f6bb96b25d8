"""A question as DuckDB's SQL: samples become buckets there; names are checked, values are bound."""

# ruff: noqa: S608  # a name enters the text only when it is checked, a value never

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.catalogue import RESERVED_TAGS
from collector.query import HOUR_MS, NAME, Question, Take
from collector.stores._duckdb_connection import Connection


class Statement(NamedTuple):
    """SQL and the values for its question marks."""

    sql: str
    parameters: Sequence[object]


def subjects_of(question: Question) -> Statement:
    """Rows (subject's number, its `per` tags...), one per subject, ascending."""
    inner = _wanted(question.measurement, question.where, question.per)
    columns = ", ".join(["subject", *(f"tag_{tag}" for tag in question.per)])
    return Statement(f"SELECT DISTINCT {columns} FROM ({inner.sql}) AS wanted ORDER BY ALL", inner.parameters)


def buckets_of(question: Question, has_doubles: bool) -> Statement:
    """Rows (bucket: subject's number x buckets + bucket's position, value, samples), unordered, not yet rounded.

    has_doubles: whether an hour of the window is marked; its samples are made unique then, which costs.
    """
    wanted = _wanted(question.measurement, question.where, question.per)
    samples, sample_parameters = _samples(question, has_doubles)
    sql = f"""
WITH wanted AS ({wanted.sql}), samples AS ({samples})
SELECT subject * {question.bucket_count()} + {_position(question)} AS bucket,
    {_reducer(question.bucket)} AS value, count(*) AS samples
FROM samples JOIN wanted ON wanted.id = samples.series
GROUP BY bucket"""
    return Statement(sql, [*wanted.parameters, *sample_parameters])


def has_doubles(question: Question, connection: Connection) -> bool:
    """Whether an hour of the question's window is marked as one in which an identity may stand twice."""
    rows = connection.rows(
        "SELECT 1 FROM double_hour WHERE measurement = ? AND hour >= ? AND hour <= ? LIMIT 1",
        [question.measurement, question.start // HOUR_MS, (question.end - 1) // HOUR_MS],
    )
    return bool(rows)


def seen_subjects(measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int) -> Statement:
    """Rows (`per` tags..., first_seen, last_seen, agent that was first) of subjects seen at or before `until`."""
    conditions, parameters = _conditions(measurement, tuple((tag, tuple(values)) for tag, values in where.items()))
    tags = ", ".join(f"{_tag(tag)} AS tag_{tag}" for tag in per)
    sql = f"""
SELECT {tags}{", " if tags else ""}min(first_seen), max(last_seen), arg_min(agent, (first_seen, id)) FROM series
WHERE {conditions} AND first_seen <= ? GROUP BY {", ".join(f"tag_{tag}" for tag in per) or "()"}
HAVING count(*) > 0 ORDER BY ALL"""
    return Statement(sql, [*parameters, until])


def newest_rows(measurement: str, fields: Sequence[str], since: int) -> Statement:
    """Rows (site, agent, asset, tags, time, fields...) of each series' newest point at or after `since`."""
    newest = ", ".join(f'arg_max("{field}", written)' for field in fields)
    sql = f"""
WITH newest AS (SELECT series, max(time) AS time FROM points.{measurement} WHERE time >= ? GROUP BY series),
merged AS (SELECT series, time, {newest} FROM points.{measurement} SEMI JOIN newest USING (series, time)
           WHERE time >= ? GROUP BY series, time)
SELECT site, agent, asset, tags, merged.* EXCLUDE (series) FROM merged JOIN series ON series.id = merged.series
ORDER BY site, agent, asset, merged.series"""
    return Statement(sql, [since, since])


def _wanted(measurement: str, where: Sequence[tuple[str, Sequence[str]]], per: Sequence[str]) -> Statement:
    """The series that a question wants, each with the number of its subject and the tags that make it."""
    conditions, parameters = _conditions(measurement, where)
    tags = "".join(f", {_tag(tag)} AS tag_{tag}" for tag in per)
    order = ", ".join(f"tag_{tag}" for tag in per) or "0"
    sql = f"SELECT *, dense_rank() OVER (ORDER BY {order}) - 1 AS subject FROM (SELECT id{tags} FROM series WHERE {conditions})"
    return Statement(sql, parameters)


def _conditions(measurement: str, where: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, list[object]]:
    conditions = ["measurement = ?"]
    parameters: list[object] = [measurement]
    for tag, values in where:
        conditions.append(f"{_tag(tag)} IN (SELECT unnest(?::VARCHAR[]))")
        parameters.append(list(values))
    return " AND ".join(conditions), parameters


def _tag(tag: str) -> str:
    if not NAME.fullmatch(tag):
        raise ValueError(f"{tag!r} is no name")
    return f'"{tag}"' if tag in RESERVED_TAGS else f"coalesce(tags['{tag}'], '')"


def _samples(question: Question, has_doubles: bool) -> Statement:
    table, field, window = f"points.{question.measurement}", f'"{question.field}"', [question.start, question.end]
    plain = f"SELECT series, time, {field} AS value FROM {table} WHERE time >= ? AND time < ? AND {field} IS NOT NULL"
    if not has_doubles:
        return Statement(plain, window)
    marked = f"time // {HOUR_MS} IN (SELECT hour FROM double_hour WHERE measurement = ?)"
    unique = f"""
SELECT series, time, arg_max({field}, written) AS value FROM {table}
WHERE time >= ? AND time < ? AND {field} IS NOT NULL AND {marked} GROUP BY series, time"""
    name = question.measurement
    return Statement(f"{plain} AND NOT {marked} UNION ALL {unique}", [*window, name, *window, name])


def _position(question: Question) -> str:
    """The position of a sample's bucket: one division for every run of buckets of equal length."""
    if not question.edges:
        return f"(time - {question.start}) // {question.each_ms}"
    cases, position = [], 0
    for start, length, count in _runs(question.edges, question.end):
        inside = f"{position} + (time - {start}) // {length}"
        cases.append(f"WHEN time < {start + length * count} THEN {inside}")
        position += count
    return f"CASE {' '.join(cases)} END"


def _runs(edges: Sequence[int], end: int) -> list[tuple[int, int, int]]:
    """(start, length of a bucket, buckets) of neighbouring buckets of one length."""
    runs: list[tuple[int, int, int]] = []
    for start, following in zip(edges, [*edges[1:], end], strict=True):
        length = following - start
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0], length, runs[-1][2] + 1)
        else:
            runs.append((start, length, 1))
    return runs


def _reducer(take: Take) -> str:
    match take.by:
        case "mean":
            return "sum(value) / count(*)"
        case "last":
            return "arg_max(value, (time, value))"
        case "count":
            return "count(*)::DOUBLE"
        case "percentile":
            rank = f"least(count(*), floor(count(*)::DOUBLE * {take.p or 0!r}::DOUBLE / 100 + 0.5)::BIGINT)"
            return f"list_sort(list(value))[nullif({rank}, 0)]"
        case "share":
            return f"count(*) FILTER (value {_OPERATORS[take.operator or '==']} {take.threshold or 0.0!r}::DOUBLE) / count(*)"
        case plain:
            return f"{plain}(value)"


_OPERATORS = {"<": "<", "<=": "<=", ">": ">", ">=": ">=", "==": "="}
"""Only these reach a query's text."""
