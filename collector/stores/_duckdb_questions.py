"""A question as DuckDB's SQL: samples become buckets there; names are checked, values are bound."""

# ruff: noqa: S608  # a name enters the text only when it is checked, a value never

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from agent.catalogue import RESERVED_TAGS
from collector.query import DAY_MS, HOUR_MS, NAME, Question, Take

Where = Sequence[tuple[str, Sequence[str]]]
"""Tag -> allowed values."""

Span = tuple[int, int]
"""Milliseconds, start inclusive and end exclusive."""

MOST_SPANS = 16
SLICE_SUBJECTS_MS = 5000 * 3 * DAY_MS
"""The time of a slice, of all subjects together: three days of many, and of few their whole window in one query."""
SLICE_GROUPS = 150_000
"""Buckets of all subjects."""


class Statement(NamedTuple):
    """SQL and the values for its question marks."""

    sql: str
    parameters: Sequence[object]


def spell(statement: Statement) -> str:
    """The statement with its values in place, for a person to run again; programs bind them."""
    head, *rest = statement.sql.split("?")
    return head + "".join(quote(value) + part for value, part in zip(statement.parameters, rest, strict=True))


def quote(value: object) -> str:
    """A whole number, a text or a list of texts as DuckDB writes it."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):  # a literal cannot hold the character 0
        return " || chr(0) || ".join(f"""'{part.replace("'", "''")}'""" for part in value.split("\0"))
    if isinstance(value, list):
        return f"[{', '.join(quote(item) for item in value)}]"
    raise TypeError(f"a question binds no {type(value).__name__}")


def subjects_of(measurement: str, where: Where, per: Sequence[str]) -> Statement:
    """Rows (number of the first series, how many there are, first and last seen, first seen of the newest series, agent that
    was first, `per` tags...), one per subject, in their order.

    The place of a subject is the number that `buckets_of` gives it; the first series stays the same for good.
    """
    conditions, parameters = _conditions(measurement, where)
    tags = [_tag(tag) for tag in per]
    names = "".join(f", {tag} AS tag_{number}" for number, tag in enumerate(tags))
    order = ", ".join(f"tag_{number}" for number, _ in enumerate(tags)) or "()"
    sql = f"""
SELECT min(id), count(*), min(first_seen), max(last_seen), max(first_seen), arg_min(agent, (first_seen, id)){names}
FROM series WHERE {conditions} GROUP BY {order} HAVING count(*) > 0 {f"ORDER BY {order}" if tags else ""}"""
    return Statement(sql, parameters)


def late_of(question: Question) -> Statement:
    """Rows (asset, hour, received) of the marks that concern the question: the newest of each asset and hour."""
    conditions = ["measurement = ?", "hour > ?", "hour < ?"]
    parameters: list[object] = [question.measurement, question.start - HOUR_MS, question.end]
    for tag, values in question.where:
        if tag in ("site", "asset"):
            conditions.append(f"{tag} IN (SELECT unnest(?::VARCHAR[]))")
            parameters.append(list(values))
    sql = f"SELECT asset, hour, max(received) FROM late WHERE {' AND '.join(conditions)} GROUP BY asset, hour"
    return Statement(sql, parameters)


def buckets_of(question: Question, window: Span, doubles: Sequence[Span], is_shared: bool) -> Statement:
    """Rows (bucket: subject's number x buckets + bucket's position, value, samples), unordered, not yet rounded.

    window: the question's own, or a slice of it that begins and ends at bucket edges.
    doubles: where in the window an identity may stand twice; samples are made unique there, which costs.
    is_shared: whether a subject has several series; then two samples of it may bear one time, and `last` takes the
    greater value, which costs too.
    """
    wanted = _wanted(question.measurement, question.where, question.per)
    samples, sample_parameters = _samples(question, window, doubles)
    sql = f"""
WITH wanted AS ({wanted.sql}), samples AS ({samples})
SELECT subject * {question.bucket_count()} + {_position(question)} AS bucket,
    {_reducer(question.bucket, is_shared)} AS value, count(*) AS samples
FROM samples JOIN wanted ON wanted.id = samples.series
GROUP BY bucket"""
    return Statement(sql, [*wanted.parameters, *sample_parameters])


def slices_of(question: Question, spans: Sequence[Span], subjects: int) -> list[Span]:
    """The spans, cut at bucket edges into slices of some days at most where there are many subjects.

    The groups of one slice fit the processor's cache: of 43 M samples of 5,000 subjects the hourly means take five eighths
    of the time so, percentiles two thirds.
    """
    starts = question.starts()
    step = max(1, min(SLICE_SUBJECTS_MS // question.each_ms, SLICE_GROUPS) // subjects)
    slices: list[Span] = []
    for start, end in spans:
        cuts = [*starts[bisect_left(starts, start) : bisect_left(starts, end) : step], end]
        slices.extend(pairwise(cuts))
    return slices


def spans_of(hours: Iterable[int], question: Question) -> list[Span]:
    """The parts of the question's window in which an identity may stand twice: of these marked hours (since 1970), ascending.

    Of many the nearest are joined; making a few clean hours unique costs less than a longer query.
    """
    first, last = question.start // HOUR_MS, (question.end - 1) // HOUR_MS
    inside = [hour for hour in hours if first <= hour <= last]
    gaps = sorted((after - before for before, after in pairwise(inside)), reverse=True)
    widest = gaps[MOST_SPANS - 1] if len(gaps) >= MOST_SPANS else 1
    spans: list[Span] = []
    for hour in inside:
        start, end = max(question.start, hour * HOUR_MS), min(question.end, (hour + 1) * HOUR_MS)
        if spans and start - spans[-1][1] <= (widest - 1) * HOUR_MS:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def seen_subjects(measurement: str, where: Where, per: Sequence[str], until: int) -> Statement:
    """Rows (`per` tags..., first_seen, last_seen, agent that was first) of subjects seen at or before `until`."""
    conditions, parameters = _conditions(measurement, where)
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


def rows_since(measurement: str, fields: Sequence[str], site: str, since: int, most: int) -> Statement:
    """Rows as of `newest_rows`, of a site's points at or after `since`: the newest first, `most` of them."""
    newest = ", ".join(f'arg_max("{field}", written)' for field in fields)
    sql = f"""
WITH own AS (SELECT id, site, agent, asset, tags FROM series WHERE measurement = ? AND site = ?),
merged AS (SELECT series, time, {newest} FROM points.{measurement} SEMI JOIN own ON own.id = series
           WHERE time >= ? GROUP BY series, time ORDER BY time DESC, series LIMIT ?)
SELECT site, agent, asset, tags, merged.* EXCLUDE (series) FROM merged JOIN own ON own.id = merged.series
ORDER BY time DESC, site, agent, asset, merged.series"""
    return Statement(sql, [measurement, site, since, most])


def _wanted(measurement: str, where: Where, per: Sequence[str]) -> Statement:
    """The series that a question wants, each with the number of its subject and the tags that make it."""
    conditions, parameters = _conditions(measurement, where)
    tags = "".join(f", {_tag(tag)} AS tag_{tag}" for tag in per)
    order = ", ".join(f"tag_{tag}" for tag in per) or "0"
    sql = f"SELECT *, dense_rank() OVER (ORDER BY {order}) - 1 AS subject FROM (SELECT id{tags} FROM series WHERE {conditions})"
    return Statement(sql, parameters)


def _conditions(measurement: str, where: Where) -> tuple[str, list[object]]:
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


def _samples(question: Question, window: Span, doubles: Sequence[Span]) -> Statement:
    """Rows (series, time, value), each identity once; a stretch of time for itself reads only its own row groups."""
    table, field = f"points.{question.measurement}", f'"{question.field}"'
    within = f"FROM {table} WHERE time >= ? AND time < ? AND {field} IS NOT NULL"
    plain = f"SELECT series, time, {field} AS value {within}"
    unique = f"SELECT series, time, arg_max({field}, written) AS value {within} GROUP BY series, time"
    parts: list[str] = []
    parameters: list[object] = []
    reached, last = window
    clipped = [(max(start, reached), min(end, last)) for start, end in doubles if start < last and end > reached]
    for start, end in [*clipped, (last, last)]:
        for part, first, after in ((plain, reached, start), (unique, start, end)):
            if first < after:
                parts.append(part)
                parameters += [first, after]
        reached = end
    return Statement(" UNION ALL ".join(parts), parameters)


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


def _reducer(take: Take, is_shared: bool) -> str:
    match take.by:
        case "mean":
            return "sum(value) / count(*)"
        case "last":
            return "arg_max(value, (time, value))" if is_shared else "arg_max(value, time)"
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
