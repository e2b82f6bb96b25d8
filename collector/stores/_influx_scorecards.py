"""Scorecards in an InfluxDB store: written beside, never over; their bodies packed, in pieces, apart from the rows of a list."""

# ruff: noqa: S608  # InfluxQL of this file's own names and of quoted values

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from agent.errors import StoreError
from agent.language import say
from collector.query import DAY_MS
from collector.stores import DrawnAsset, Score, ScorecardRow, StoredScorecard
from collector.stores._influx_http import Door
from collector.stores._influx_pack import PIECE_CHARACTERS
from collector.stores._influx_records import ASSET, LAST_MS, MS, SCORE, SCORECARD, SCORECARD_BODY, Fields, mix
from collector.stores._influx_text import line, tag_value_text, value_text

MOST_PIECES = 1000


def save(site: str, card: StoredScorecard, scores: Sequence[Score], assets: Sequence[DrawnAsset], door: Door) -> int:
    """The card's revision: the known one of its digest, else the next, which is written; its own `revision` is not used.

    Two that write different cards of one moment at once may both take the next number; every reader orders them alike.
    """
    known = {row.digest: row.revision for row in rows_between(site, card.as_of, card.as_of + 1, door)}
    if card.digest in known:
        return known[card.digest]
    first_ns = card.as_of * MS + mix(card.digest) % (MS // MOST_PIECES) * MOST_PIECES
    fields: Fields = {
        "as_of": card.as_of,
        "revision": max(known.values(), default=0) + 1,
        "digest": card.digest,
        "written_at": card.written_at,
        "why": card.why,
        "summary": card.summary,
    }
    # whoever finds the row finds the body
    drawn = [*_score_lines(site, card.as_of, scores), *_asset_lines(site, card.as_of, assets)]
    door.write([*_body_lines(site, card, first_ns), *drawn])
    door.write([line(SCORECARD, {"site": site}, fields, first_ns)])
    found = {row.digest: row.revision for row in rows_between(site, card.as_of, card.as_of + 1, door)}
    return found[card.digest]


def _body_lines(site: str, card: StoredScorecard, first_ns: int) -> list[str]:
    text = base64.b64encode(zlib.compress(card.body)).decode()
    pieces = [text[at : at + PIECE_CHARACTERS] for at in range(0, len(text), PIECE_CHARACTERS)]
    card_of: Fields = {"as_of": card.as_of, "digest": card.digest}
    return [
        line(SCORECARD_BODY, {"site": site}, {**card_of, "piece": place, "blob": piece}, first_ns + place)
        for place, piece in enumerate(pieces)
    ]


def _score_lines(site: str, as_of: int, scores: Sequence[Score]) -> list[str]:
    lines = []
    for score in scores:
        tags = {"site": site, "kind": score.kind, "node": score.node}
        fields: dict[str, float | int | str] = {
            "low": float(score.low),
            "high": float(score.high),
            "coverage": float(score.coverage),
        }
        if score.status:
            fields["status"] = score.status
        if score.expires is not None:  # both: what draws has no clock to subtract from
            fields["expires"] = float(score.expires)
            fields["left_seconds"] = (score.expires - as_of) / 1000
        lines.append(line(SCORE, tags, fields, as_of * MS))
    return lines


def _asset_lines(site: str, as_of: int, assets: Sequence[DrawnAsset]) -> list[str]:
    today = as_of - as_of % DAY_MS
    return [
        line(
            ASSET,
            {"site": site, "asset": one.asset, **one.attributes},
            {"is_registered": float(one.is_registered)},
            today * MS,
        )
        for one in assets
    ]


def cards_since(site: str, since: int, door: Door) -> list[StoredScorecard]:
    """All cards with as_of at or after `since`, oldest first."""
    return list(_with_bodies(site, rows_between(site, since, LAST_MS, door), _between(since, LAST_MS), door))


def card_at(site: str, as_of: int, revision: int | None, door: Door) -> StoredScorecard | None:
    """The newest revision at exactly `as_of`, or the one asked for."""
    rows = rows_between(site, as_of, as_of + 1, door)
    wanted = [row for row in rows if revision in (None, row.revision)][-1:]
    condition = _between(as_of, as_of + 1)
    if wanted:
        condition += f' AND "digest" = {value_text(wanted[0].digest)}'
    return next(_with_bodies(site, wanted, condition, door), None)


def rows_between(site: str, since: int, until: int, door: Door) -> list[ScorecardRow]:
    """Every revision with `since` <= as_of < `until`, oldest first."""
    return _rows(site, [(since, until)], door)


def last_rows(site: str, edges: Sequence[int], door: Door) -> list[ScorecardRow]:
    """Of each span from one edge to before the next the newest revision of its last card."""
    of_site = f'"site" = {tag_value_text(site)}'
    asked = [
        f'SELECT last("as_of") FROM "{SCORECARD}" WHERE {of_site} AND {_between(*span)}' for span in pairwise(edges)
    ]
    moments = [as_of for rows in door.ask(asked) for _, as_of in rows.values] if asked else []
    found = {row.as_of: row for row in _rows(site, [(one, one + 1) for one in moments], door)}
    return list(found.values())  # of one moment the newest revision comes last


def _rows(site: str, spans: Sequence[tuple[int, int]], door: Door) -> list[ScorecardRow]:
    """Every revision of the spans, oldest first. What was written at one moment at once is numbered here."""
    columns = '"as_of", "revision", "written_at", "digest", "why", "summary"'
    of_site = f'"site" = {tag_value_text(site)}'
    asked = [f'SELECT {columns} FROM "{SCORECARD}" WHERE {of_site} AND {_between(*span)}' for span in spans]
    found = sorted(tuple(values[1:]) for rows in (door.ask(asked) if asked else ()) for values in rows.values)
    ordered: list[ScorecardRow] = []
    for as_of, _, written_at, digest, why, summary in found:
        revision = ordered[-1].revision + 1 if ordered and ordered[-1].as_of == as_of else 1
        ordered.append(ScorecardRow(as_of, revision, digest, written_at, why, summary))
    return ordered


def _between(since: int, until: int) -> str:
    return f"time >= {min(since, LAST_MS)}ms AND time < {min(until, LAST_MS)}ms"


def _with_bodies(site: str, rows: Sequence[ScorecardRow], condition: str, door: Door) -> Iterator[StoredScorecard]:
    bodies = _bodies(site, condition, door) if rows else {}
    for row in rows:
        body = bodies.get((row.as_of, row.digest))
        if body is None:
            text = say("一份评分卡的正文缺失", "the body of a scorecard is missing")
            raise StoreError(f"{door.place.url}: {text}")
        yield StoredScorecard(row.as_of, row.revision, row.digest, row.written_at, body, row.why, row.summary)


def _bodies(site: str, condition: str, door: Door) -> Mapping[tuple[int, str], bytes]:
    columns = '"as_of", "digest", "piece", "blob"'
    statement = f'SELECT {columns} FROM "{SCORECARD_BODY}" WHERE "site" = {tag_value_text(site)} AND {condition}'
    pieces: dict[tuple[int, str], dict[int, str]] = {}
    for rows in door.ask([statement]):
        for _, as_of, digest, piece, blob in rows.values:
            pieces.setdefault((as_of, digest), {})[piece] = blob
    return {
        name: zlib.decompress(base64.b64decode("".join(parts[piece] for piece in sorted(parts))))
        for name, parts in pieces.items()
    }
