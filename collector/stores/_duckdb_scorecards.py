"""Scorecards in a DuckDB store: written beside, never over; their bodies compressed."""

import zlib
from collections.abc import Sequence

from collector.stores import ScorecardRow, StoredScorecard
from collector.stores._duckdb_connection import Connection


def save(site: str, card: StoredScorecard, connection: Connection) -> int:
    """The card's revision: the known one of its digest, else the next, which is written; its own `revision` is not used."""
    rows = connection.rows("SELECT digest, revision FROM scorecard WHERE site = ? AND as_of = ?", [site, card.as_of])
    known = {str(digest): int(revision) for digest, revision in rows}
    if card.digest in known:
        return known[card.digest]
    revision = max(known.values(), default=0) + 1
    body = zlib.compress(card.body)
    connection.run(_SAVE, [site, card.as_of, revision, card.digest, card.written_at, body, card.why, card.summary])
    return revision


def cards_since(site: str, since: int, connection: Connection) -> list[StoredScorecard]:
    """All cards with as_of at or after `since`, oldest first."""
    return _cards(f"{_CARDS} AND as_of >= ? ORDER BY as_of, revision", [site, since], connection)


def card_at(site: str, as_of: int, revision: int | None, connection: Connection) -> StoredScorecard | None:
    """The newest revision at exactly `as_of`, or the one asked for."""
    sql = f"{_CARDS} AND as_of = ? AND revision = coalesce(?, revision) ORDER BY revision DESC LIMIT 1"
    return next(iter(_cards(sql, [site, as_of, revision], connection)), None)


def rows_between(site: str, since: int, until: int, connection: Connection) -> list[ScorecardRow]:
    """Every revision with `since` <= as_of < `until`, oldest first; the bodies are not even read from the file."""
    return [ScorecardRow(*row) for row in connection.rows(_ROWS, [site, since, until])]


def last_rows(site: str, edges: Sequence[int], connection: Connection) -> list[ScorecardRow]:
    """Of each span from one edge to before the next the newest revision of its last card; only those rows are read whole."""
    return [ScorecardRow(*row) for row in connection.rows(_LAST_ROWS, [list(edges), site, site])]


def _cards(sql: str, parameters: Sequence[object], connection: Connection) -> list[StoredScorecard]:
    return [
        StoredScorecard(as_of, revision, digest, at, zlib.decompress(body) if is_packed else bytes(body), why, summary)
        for as_of, revision, digest, at, body, is_packed, why, summary in connection.rows(sql, parameters)
    ]


_SAVE = "INSERT INTO scorecard VALUES (?, ?, ?, ?, ?, ?, ?, ?, true)"
_CARDS = "SELECT as_of, revision, digest, written_at, body, is_packed, why, summary FROM scorecard WHERE site = ?"
_ROWS = """
SELECT as_of, revision, digest, written_at, why, summary FROM scorecard WHERE site = ? AND as_of >= ? AND as_of < ?
ORDER BY as_of, revision
"""
_LAST_ROWS = """
WITH edge AS (SELECT unnest(?::BIGINT[]) AS since),
span AS (SELECT since, lead(since) OVER (ORDER BY since) AS until FROM edge),
last AS (SELECT max(as_of) AS as_of FROM scorecard JOIN span ON as_of >= since AND as_of < until WHERE site = ? GROUP BY since)
SELECT as_of, revision, digest, written_at, why, summary FROM scorecard
WHERE site = ? AND as_of IN (SELECT as_of FROM last)
QUALIFY row_number() OVER (PARTITION BY as_of ORDER BY revision DESC) = 1
ORDER BY as_of
"""
