"""The store's own records in InfluxDB: what they are called and where in time those stand whose time means nothing. No I/O."""

import hashlib
from collections.abc import Mapping

from collector.stores._influx_text import line

SUBJECT = "subject"
"""One for each series and first sight of it, never changed: the earliest is true. Tags site, of; key, first_seen."""
SUBJECT_SEEN = "subject_seen"
"""One for each series, overwritten when it is seen in a new hour. Tags site, of; key, last_seen."""
SUBJECT_HOUR = "subject_hour"
"""One for each measurement and hour that has points. Tags site, of; time is the hour."""
SUBJECT_CHANGE = "subject_change"
"""One for each measurement: a word that is another whenever `subject` has grown. Tags site, of."""
OWNER = "owner"
"""Claims of agents to an asset, at the server's own time: the first is true for good. Tags site, asset."""
LATE_HOUR = "late_hour"
"""One for each asset and hour that got late points, overwritten by the next. Tags site, of; time is in the hour."""
READING = "reading"
"""Until when hours may have been read for keeping, and batches counted; written before they are read. Tag what."""
KEPT = "bucket"
"""Kept chunks, packed, in pieces. Tag part: the digest's first two digits; time is in the second of the chunk's start."""
ROLL = "bucket_subject"
"""Whose buckets kept chunks are, packed, in pieces; named by what it holds. Tag part; time is in the 30 days of the chunks."""
PRUNED = "pruned"
"""One for each measurement whose points were pruned, and before when."""
BATCH = "batch"
"""One for each batch that is in the store. Tags site, agent; time is in the millisecond of made_at."""
BATCH_LATE = "batch_late"
"""One for each agent and hour of made_at whose batches came after that time had been counted. Tag site."""
BATCH_SUM = "batch_sum"
"""One for each agent: what its rows come to until some time, pruned ones too, so that they need not be read again."""
SCORECARD = "scorecard"
"""One for each revision without its body. Tag site; time is in the millisecond of as_of."""
SCORECARD_BODY = "scorecard_body"
"""The bodies, packed, in pieces. Tag site."""
SCORE = "score"
"""Scores for whoever draws them. Tags site, node, kind; time is as_of."""
ASSET = "asset"
"""The assets of a site for whoever draws, one a day. Tags site, asset and the attributes that the register gives it."""
COPIED = "copied"
"""How far a copy into this store came. Tag site."""
PROBE = "probe"
"""What a doctor writes, reads and deletes, each at a moment of its own."""

OWN = (
    SUBJECT,
    SUBJECT_SEEN,
    SUBJECT_HOUR,
    SUBJECT_CHANGE,
    OWNER,
    LATE_HOUR,
    READING,
    KEPT,
    ROLL,
    PRUNED,
    BATCH,
    BATCH_LATE,
    BATCH_SUM,
    SCORECARD,
    SCORECARD_BODY,
    SCORE,
    ASSET,
    COPIED,
    PROBE,
)
"""All of them; no measurement of the catalogue may be called so."""

MS = 1_000_000
"""Nanoseconds."""
BASE_NS = 4 * 86_400 * 10**9
"""Monday, 5 January 1970: records whose time means nothing stand in the four days from then, in one shard of a week."""
LAST_MS = 9_000_000_000_000
"""The year 2255: beyond it InfluxDB has no times."""

Fields = Mapping[str, float | int | str]


def mix(*words: object, bits: int = 48) -> int:
    """A number that these words make, the same everywhere."""
    text = "\0".join(map(str, words)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> (64 - bits)


def timeless(measurement: str, tags: Mapping[str, str], fields: Fields, *identity: object) -> str:
    """A record whose identity alone says where it stands; written again it is the same record."""
    return line(measurement, tags, fields, BASE_NS + (mix(*identity) if identity else 0))
