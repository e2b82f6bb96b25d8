"""What a copy carries from one store to another, in the words of neither; every store gives and takes it. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from agent.points import Point
from collector.query import DAY_MS, HOUR_MS, Question
from collector.stores import AppliedBatch
from collector.stores._kept import KeptChunk, Source, Subject, by_hours, digest_of, unpacked

BATCHES = "batch"
"""The batch rows, where a measurement of the catalogue is named else."""

KEPT_WINDOW_MS = 30 * DAY_MS
LONGEST_CHUNK_MS = 40 * DAY_MS


class SeriesRow(NamedTuple):
    """A series of the site, whatever became of its points. tags: with asset, without site and agent. Times as in `KnownSubject`."""

    measurement: str
    agent: str
    tags: Mapping[str, str]
    first_seen: int
    last_seen: int


class BatchRow(NamedTuple):
    """A `batch` row: as in `AppliedBatch`, its points only counted."""

    site: str
    agent: str
    boot: str
    seq: int
    identity: str
    made_at: int
    received_at: int
    points: int
    set_aside: int
    dropped: Sequence[tuple[str, int, int, int]]


class Gone(NamedTuple):
    """Numbers of a boot that need no row: announced as dropped with so many points; None: rows up to `last` were pruned."""

    agent: str
    boot: str
    first: int
    last: int
    points: int | None


class KeptPart(NamedTuple):
    """Kept chunks of one question, not packed, and whose the numbers in them are."""

    question: Question
    subjects: Mapping[int, Subject]
    chunks: Sequence[KeptChunk]

    def buckets(self) -> int:
        """How many buckets a chunk holds."""
        return HOUR_MS // self.question.each_ms if by_hours(self.question) else 1


class Part(NamedTuple):
    """What is taken at once. points: by agent, each identity once. pruned: measurement -> before when its points are gone."""

    series: Sequence[SeriesRow] = ()
    owners: Mapping[str, str] = {}
    pruned: Mapping[str, int] = {}
    gone: Sequence[Gone] = ()
    points: Mapping[str, Sequence[Point]] = {}
    batches: Sequence[BatchRow] = ()
    kept: Sequence[KeptPart] = ()


class Copying(Protocol):
    """One site of a store while it is copied; in the writing thread, and nobody else writes meanwhile."""

    def state(self) -> str:
        """What the last `take` wrote down; empty before the first."""

    def is_empty(self) -> bool:
        """Whether the store holds nothing of the site."""

    def frame(self) -> Part:
        """Everything but points, batch rows and kept buckets: few rows each."""

    def hours(self, name: str, since: int) -> Sequence[tuple[int, int]]:
        """The hours at or after `since` (an hour's start) that have points of a measurement, or BATCHES: start, about how many."""

    def slice(self, name: str, start: int, end: int) -> Part:
        """The points of a measurement, or BATCHES, from `start` to before `end`, each series' in the order of time."""

    def source(self, question: Question) -> Source:
        """What is kept for a question."""

    def kept_questions(self) -> set[str]:
        """The digests of the questions of which buckets are kept whose points are pruned."""

    def take(self, part: Part, state: str) -> None:
        """Writes a part and `state`; taken again after a crash, everything is there once."""


def row_of(batch: AppliedBatch) -> BatchRow:
    """The batch's row."""
    return BatchRow(
        batch.site,
        batch.agent,
        batch.boot,
        batch.seq,
        batch.identity,
        batch.made_at,
        batch.received_at,
        len(batch.points),
        batch.set_aside,
        batch.dropped,
    )


def as_batches(site: str, points: Mapping[str, Sequence[Point]]) -> list[AppliedBatch]:
    """Points as a store's writer takes them; received at 0, so that none of them counts as late."""
    return [AppliedBatch(site, agent, "", 0, "", 0, 0, of_agent, 0, ()) for agent, of_agent in points.items()]


def kept_parts(source: Source, question: Question) -> Iterator[KeptPart]:
    """What is kept of a question and cannot be had from points any more, a month at a time."""
    subjects, raw_from = source.subjects(question), source.raw_from(question.measurement)
    if subjects is None:
        return
    first = subjects.first_seen - LONGEST_CHUNK_MS  # a bucket may begin before whom it is of was seen
    for start in range(first, raw_from, KEPT_WINDOW_MS):
        end = min(start + KEPT_WINDOW_MS, raw_from)
        found = source.kept(digest_of(question), start, end + LONGEST_CHUNK_MS)
        chunks = [unpacked(chunk) for chunk in found if start <= chunk.start < end]
        if chunks:
            yield KeptPart(question, subjects.tags, chunks)
