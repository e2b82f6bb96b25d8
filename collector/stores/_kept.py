"""Closed buckets are kept, so that a question reads one hour of raw points: what every store does alike. No I/O.

What is kept is identified by what was asked (not the window, not the subject's take) and by its start and end. It is kept once
the UTC hour it ends in is over for LATENESS_MS. A point that comes later marks its hour; what was kept before that is read
again, of the asset that was late alone. Whatever raw points no longer can tell stays as it was kept.
"""

import hashlib
import logging
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from collector.buckets import NO_ROWS, Buckets, Found, Integers, Rows, by_position, join
from collector.query import HOUR_MS, Question
from collector.stores import LATENESS_MS, LateHour

log = logging.getLogger(__name__)

KEPT_DAYS = 1100
LATE_DAYS = 35
"""How long a mark stays; what still is older than its mark by then is forgotten and computed anew when it is asked for."""

VERSION = 1
"""Rises when the same question would give other buckets."""

MINUTE_MS = 60_000
MOST_GAP_MS = 6 * HOUR_MS
"""Stretches of raw points nearer than this are read as one."""

MOST_LATE_ASSETS = 1000
MOST_RUNS = 40
FRESH_BYTES = 256 * 2**20
MOST_TOUCHED = 20_000

Subject = tuple[str, ...]
Span = tuple[int, int]
"""Milliseconds, start inclusive and end exclusive."""


class Chunk(NamedTuple):
    """What is kept as one: the buckets of one UTC hour, or one longer bucket.

    first: the position of its first bucket. is_whole: the window does not cut it off, so it may be kept.
    """

    start: int
    end: int
    first: int
    buckets: int
    is_whole: bool

    def is_closed(self, now: int) -> bool:
        """Whether what is on its way to it should have arrived."""
        return -(-self.end // HOUR_MS) * HOUR_MS + LATENESS_MS <= now


class KeptChunk(NamedTuple):
    """A chunk's buckets as they were read at `made_at`; empty ones are kept too, so that nobody looks again.

    question: its digest. places: subject's number x buckets of a chunk + bucket's place in it. All three little-endian, 8 bytes
    each. A chunk that is `packed` has its places and samples in 1, 2 or 4 bytes each where that is enough, as their length
    beside that of `values` says; a source may give either.
    """

    question: str
    measurement: str
    start: int
    end: int
    made_at: int
    places: bytes
    samples: bytes
    values: bytes

    @property
    def size(self) -> int:
        """Of its contents, in bytes."""
        return len(self.places) + len(self.samples) + len(self.values)


class Subjects(NamedTuple):
    """Who can have buckets: subject by its number, which never changes, and from when until when anything was seen."""

    tags: Mapping[int, Subject]
    first_seen: int
    until: int


class Run(NamedTuple):
    """A stretch of kept chunks, milliseconds. made_at: of the oldest of them."""

    start: int
    end: int
    made_at: int


class Source(Protocol):
    """What a store reads for a question, all at one moment."""

    def subjects(self, question: Question) -> Subjects | None:
        """The subjects of all series that the question wants; None when there are none."""

    def kept(self, question: str, start: int, end: int) -> Iterable[KeptChunk]:
        """The chunks between `start` and `end` kept for the question of this digest."""

    def late(self, question: Question, kept: Collection[KeptChunk]) -> Iterable[LateHour]:
        """The marks that concern the question in what was kept and came since, at least, the newest of each asset and hour."""

    def raw_from(self, measurement: str) -> int:
        """Before this time raw points may be pruned."""

    def raw(self, question: Question, spans: Sequence[Span]) -> Rows:
        """The buckets in these spans, from raw points."""


def digest_of(question: Question) -> str:
    """What a question's buckets depend on, but for the window."""
    where = sorted((tag, sorted(values)) for tag, values in question.where)
    asked = (VERSION, question.measurement, question.field, where, question.per, question.each_ms, question.bucket)
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def read_buckets(
    question: Question, now: int | None, source: Source
) -> tuple[Mapping[Subject, Buckets], list[KeptChunk]]:
    """Every subject's found buckets, and what may be kept of what had to be computed."""
    wide = _widened(question)
    subjects = source.subjects(wide)
    if subjects is None:
        return {}, []
    kept = {(one.start, one.end): one for one in source.kept(digest_of(wide), wide.start, wide.end)}
    if kept or now is not None:
        parts, made = _read_both(wide, now, _plan(wide, subjects, kept, source), subjects, source)
    else:  # nothing to choose from: no need to look at every hour
        parts, made = [_raw_alone(wide, subjects, source)], []
    back = (question.start - wide.start) // question.each_ms
    moved = [_moved(part, back) for part in parts if len(part.subjects)]
    return Found(subjects.tags, moved, question.bucket_count()), made


def _raw_alone(question: Question, subjects: Subjects, source: Source) -> Rows:
    """The buckets of the window in which anything can be, from raw points."""
    starts = question.starts()
    first = max(0, bisect_right(starts, subjects.first_seen) - 1)
    after = bisect_left(starts, subjects.until)
    if first >= after:
        return NO_ROWS
    return source.raw(question, [(starts[first], starts[after] if after < len(starts) else question.end)])


def _read_both(
    wide: Question, now: int | None, plan: "_Plan", subjects: Subjects, source: Source
) -> tuple[list[Rows], list[KeptChunk]]:
    """The buckets from what is kept and from raw points, and what may be kept of the latter."""
    fresh = _raw(wide, plan.missing, source)
    untouched, again = _renewed(wide, plan, subjects, source)
    usable = _decode(plan.usable)
    raw, from_kept = fresh.samples.sum() + again.samples.sum(), len(usable.values) + len(untouched.values)
    log.debug("%s.%s: %d raw samples, %d kept buckets", wide.measurement, wide.field, raw, from_kept)
    made: list[KeptChunk] = []
    if now is not None:
        keepable = [one for one in plan.missing if one.is_whole and one.is_closed(now) and one.start >= plan.raw_from]
        renewable = [chunk for chunk, _ in plan.stale if chunk.is_closed(now)]
        made = _encode(wide, fresh, keepable, now) + _encode(wide, join([untouched, again]), renewable, now)
    return [usable, untouched, again, fresh], made


def _widened(question: Question) -> Question:
    """The question from the hour's start, so that the first hour too is one that can be kept."""
    return (
        msgspec.structs.replace(question, start=question.start - question.start % HOUR_MS)
        if by_hours(question)
        else question
    )


def by_hours(question: Question) -> bool:
    """Whether its buckets fill UTC hours and are kept an hour at a time."""
    return not question.edges and HOUR_MS % question.each_ms == 0 and question.start % question.each_ms == 0


def _moved(rows: Rows, back: int) -> Rows:
    """The rows at positions `back` lower; those that leave the window go."""
    if not back:
        return rows
    return rows._replace(positions=rows.positions - back).where(rows.positions >= back)


def _chunks(question: Question, subjects: Subjects) -> Iterator[Chunk]:
    """The chunks of the window in which anything can be, ascending."""
    each = question.each_ms
    if by_hours(question):
        hours_before = max(0, (subjects.first_seen - question.start) // HOUR_MS)
        for start in range(question.start + hours_before * HOUR_MS, min(question.end, subjects.until), HOUR_MS):
            end = min(start + HOUR_MS, question.end)
            yield Chunk(start, end, (start - question.start) // each, -(-(end - start) // each), end - start == HOUR_MS)
        return
    cuts = [*question.starts(), question.end]
    for position, (start, end) in enumerate(pairwise(cuts)):
        if end > subjects.first_seen and start < subjects.until:
            # a bucket that as-of cuts off ends at an odd moment, a day at whole minutes in every time zone
            is_whole = (bool(question.edges) or end - start == each) and end % MINUTE_MS == 0
            yield Chunk(start, end, position, 1, is_whole)


Pair = tuple[Chunk, KeptChunk]


class _Plan(NamedTuple):
    """Which chunks come from where. stale: of these the subjects of `assets` are read again."""

    usable: list[Pair]
    stale: list[Pair]
    missing: list[Chunk]
    assets: frozenset[str]
    raw_from: int


def _plan(question: Question, subjects: Subjects, kept: Mapping[Span, KeptChunk], source: Source) -> _Plan:
    usable: list[Pair] = []
    stale: list[Pair] = []
    missing: list[Chunk] = []
    assets: set[str] = set()
    raw_from = source.raw_from(question.measurement)
    marks = _marks(source.late(question, kept.values())) if kept else {}
    for chunk in _chunks(question, subjects):
        found = kept.get((chunk.start, chunk.end))
        if found is None:
            missing.append(chunk)
            continue
        late = _late_assets(found, marks) if chunk.start >= raw_from else ()
        (stale if late else usable).append((chunk, found))
        assets.update(late)
    if "asset" not in question.per or len(assets) > MOST_LATE_ASSETS:
        missing, stale = sorted([*missing, *(chunk for chunk, _ in stale)]), []
    return _Plan(usable, stale, missing, frozenset(assets), raw_from)


def runs_of(kept: Iterable[KeptChunk]) -> list[Run]:
    """What was kept, at most MOST_RUNS stretches of it: marks beside them or before them change nothing.

    After a long absence such marks are many, and each costs more to read than to leave.
    """
    runs: list[Run] = []
    for chunk in sorted(kept, key=lambda one: one.start):
        if runs and runs[-1].made_at == chunk.made_at:
            runs[-1] = runs[-1]._replace(end=max(runs[-1].end, chunk.end))  # days of two time zones lie in each other
        else:
            runs.append(Run(chunk.start, chunk.end, chunk.made_at))
    each = -(-len(runs) // MOST_RUNS) or 1
    return [_joined(runs[at : at + each]) for at in range(0, len(runs), each)]


def _joined(runs: Sequence[Run]) -> Run:
    """One from the start of the first, which begins earliest."""
    return Run(runs[0].start, max(run.end for run in runs), min(run.made_at for run in runs))


def _marks(late: Iterable[LateHour]) -> dict[int, list[LateHour]]:
    marks: dict[int, list[LateHour]] = {}
    for mark in late:
        marks.setdefault(mark.hour, []).append(mark)
    return marks


def _late_assets(kept: KeptChunk, marks: Mapping[int, list[LateHour]]) -> set[str]:
    """The assets of which points may have come since the chunk was made."""
    hours = range(kept.start - kept.start % HOUR_MS, kept.end, HOUR_MS) if marks else ()
    return {mark.asset for hour in hours for mark in marks.get(hour, ()) if mark.received >= kept.made_at}


def _raw(question: Question, chunks: Sequence[Chunk], source: Source) -> Rows:
    """The buckets of these chunks from raw points; what is read between them goes."""
    if not chunks:
        return NO_ROWS
    spans: list[Span] = []
    is_wanted = np.zeros(question.bucket_count(), np.bool_)
    for chunk in chunks:
        is_wanted[chunk.first : chunk.first + chunk.buckets] = True
        if spans and chunk.start - spans[-1][1] < MOST_GAP_MS:
            spans[-1] = (spans[-1][0], chunk.end)
        else:
            spans.append((chunk.start, chunk.end))
    rows = source.raw(question, spans)
    return rows.where(is_wanted[rows.positions])


def _renewed(question: Question, plan: _Plan, subjects: Subjects, source: Source) -> tuple[Rows, Rows]:
    """The buckets of the stale chunks: those of the others as they were kept, and the late assets' from raw points."""
    if not plan.stale:
        return NO_ROWS, NO_ROWS
    place = question.per.index("asset")
    late = np.array([number for number, tags in subjects.tags.items() if tags[place] in plan.assets], np.int64)
    kept = _decode(plan.stale)
    narrowed = msgspec.structs.replace(question, where=(*question.where, ("asset", tuple(sorted(plan.assets)))))
    again = _raw(narrowed, [chunk for chunk, _ in plan.stale], source)
    return kept.where(~np.isin(kept.subjects, late)), again


_NO_CONTENTS = (b"", b"", b"")


def _encode(question: Question, rows: Rows, chunks: Sequence[Chunk], now: int) -> list[KeptChunk]:
    """What is to be kept of `rows`, chunk by chunk, packed."""
    if not chunks:
        return []
    digest, rows = digest_of(question), by_position(rows)
    firsts = np.searchsorted(rows.positions, [chunk.first for chunk in chunks]).tolist()
    afters = np.searchsorted(rows.positions, [chunk.first + chunk.buckets for chunk in chunks]).tolist()
    made = []
    for chunk, first, after in zip(chunks, firsts, afters, strict=True):
        contents = _NO_CONTENTS
        if first < after:
            places = rows.subjects[first:after] * chunk.buckets + rows.positions[first:after] - chunk.first
            contents = _pack(places), _pack(rows.samples[first:after]), rows.values[first:after].tobytes()
        made.append(KeptChunk(digest, question.measurement, chunk.start, chunk.end, now, *contents))
    return made


def _pack(numbers: Integers) -> bytes:
    """Numbers from 0 up in as few bytes each as the greatest of them needs."""
    greatest = int(numbers.max(initial=0))
    width = 1 if greatest < 2**8 else 2 if greatest < 2**16 else 4 if greatest < 2**32 else 8
    return numbers.astype(f"<u{width}").tobytes()


def unpacked(chunk: KeptChunk) -> KeptChunk:
    """The chunk with 8 bytes for each of its numbers."""
    count = len(chunk.values) // 8
    places, samples = (_unpack([part], [count]).tobytes() for part in (chunk.places, chunk.samples))
    return chunk._replace(places=places, samples=samples, values=bytes(chunk.values))


def _unpack(parts: Sequence[bytes], counts: Sequence[int]) -> Integers:
    """The numbers of all parts; counts: how many each holds."""
    widths = [len(part) // count if count else 0 for part, count in zip(parts, counts, strict=True)]
    runs = groupby(zip(widths, parts, strict=True), key=itemgetter(0))
    unpacked = [np.frombuffer(b"".join(part for _, part in run), f"<u{width}") for width, run in runs if width]
    return np.concatenate(unpacked).astype(np.int64) if unpacked else np.empty(0, np.int64)


def _decode(pairs: Sequence[Pair]) -> Rows:
    if not pairs:
        return NO_ROWS
    count = pairs[0][0].buckets  # all whole chunks of a question hold as many buckets
    counts = [len(kept.values) // 8 for _, kept in pairs]
    places = _unpack([kept.places for _, kept in pairs], counts)
    samples = _unpack([kept.samples for _, kept in pairs], counts)
    values = np.frombuffer(b"".join(kept.values for _, kept in pairs), np.float64)
    first = np.repeat([chunk.first for chunk, _ in pairs], counts)
    if count == 1:
        return Rows(places, first, values, samples)
    subjects = places // count
    return Rows(subjects, first + (places - subjects * count), values, samples)


class Fresh:
    """What was read and waits to be kept, and which hours were written since it was read.

    A reading begins with `seen`, before it looks at the store; a write says what it touches before it commits, and `wrote`
    after. So nothing is kept that a write beside the reading has made wrong.
    """

    def __init__(self, most_bytes: int = FRESH_BYTES) -> None:
        self._lock = threading.Lock()
        self._most_bytes = most_bytes
        self._chunks: dict[tuple[str, int, int], tuple[int, KeptChunk]] = {}
        self._bytes = 0
        self._writes = 0
        self._touched: dict[tuple[str, int], int] = {}
        self._trusted_from = 0

    def seen(self) -> int:
        """How many writes a reading that begins now sees at least."""
        return self._writes

    def remember(self, seen: int, made: Iterable[KeptChunk]) -> None:
        """Takes what a reading made, as far as there is room."""
        with self._lock:
            for chunk in made:
                if self._bytes > self._most_bytes:
                    return
                key = (chunk.question, chunk.start, chunk.end)
                self._bytes += chunk.size if key not in self._chunks else 0
                self._chunks[key] = (seen, chunk)

    def touch(self, measurement: str, hours: Iterable[int]) -> None:
        """A write is about to add points of `measurement` in these hours (their starts)."""
        with self._lock:
            if len(self._touched) > MOST_TOUCHED:  # then whatever was read before now is not trusted
                self._touched, self._trusted_from = {}, self._writes + 1
            self._touched.update(((measurement, hour), self._writes + 1) for hour in hours)

    def wrote(self) -> None:
        """The write has committed."""
        with self._lock:
            self._writes += 1

    def take(self) -> list[KeptChunk]:
        """What can be kept, not packed; forgotten here. For the thread that writes: no write goes on meanwhile."""
        return [unpacked(chunk) for chunk in self.take_packed()]

    def take_packed(self) -> list[KeptChunk]:
        """The same packed, as it waits."""
        with self._lock:
            waiting, self._chunks, self._bytes = self._chunks, {}, 0
            return [chunk for seen, chunk in waiting.values() if self._is_true(seen, chunk)]

    def _is_true(self, seen: int, chunk: KeptChunk) -> bool:
        hours = range(chunk.start - chunk.start % HOUR_MS, chunk.end, HOUR_MS)
        written = max(self._touched.get((chunk.measurement, hour), 0) for hour in hours)
        return seen >= max(written, self._trusted_from)
