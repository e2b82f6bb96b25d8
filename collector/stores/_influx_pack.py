"""Kept chunks as text for InfluxDB: who the subjects are stands once in a roll, the chunk names their places in it."""

import base64
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from collector.buckets import Integers
from collector.query import DAY_MS, HOUR_MS, Question
from collector.stores._influx_http import Door
from collector.stores._influx_records import KEPT, MS, ROLL, Fields, mix
from collector.stores._influx_text import line, value_text
from collector.stores._kept import KeptChunk, by_hours

PIECE_CHARACTERS = 60_000
"""Of one text: InfluxDB takes 64 KB at most."""
MOST_PIECES = 1000
SECOND_NS = 10**9
ROLL_MS = 30 * DAY_MS
"""A roll is written anew for the chunks of each such stretch, so that it can be pruned with them."""


class Roll(NamedTuple):
    """The subjects that a numbering knew at some moment: their marks, ascending, and each number's place among them."""

    name: str
    marks: Integers
    places: Integers


class Numbering:
    """Numbers the subjects of one measurement by some of their tags: never changed while this process lives.

    In the store a subject stands under its mark, which every collector computes alike.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, ...], int] = {}
        self._marks: list[int] = []
        self._roll: Roll | None = None
        self._rolls: dict[str, Integers] = {}
        self._known: dict[str, tuple[int, Integers]] = {}

    def number(self, subject: tuple[str, ...]) -> int:
        """The number of a subject, a new one when it had none."""
        number = self._numbers.get(subject)
        if number is None:
            with self._lock:
                number = self._numbers.setdefault(subject, len(self._numbers))
                if number == len(self._marks):
                    self._marks.append(mix(msgspec.json.encode(subject).decode(), bits=63))
        return number

    def roll(self) -> Roll:
        """All subjects that are known now."""
        with self._lock:
            if self._roll is None or len(self._roll.marks) != len(self._marks):
                marks = np.array(self._marks, np.int64)
                ordered = np.sort(marks)
                name = f"{mix(ordered.tobytes().hex(), bits=64):016x}"
                self._roll = Roll(name, ordered, np.searchsorted(ordered, marks))
                self._rolls[name] = ordered
            return self._roll

    def lacks(self, name: str) -> bool:
        """Whether this roll has not been read yet."""
        return name not in self._rolls

    def learn(self, name: str, marks: Integers) -> None:
        """A roll that another collector, or an earlier process, has written."""
        self._rolls[name] = marks

    def numbers_of(self, name: str) -> Integers | None:
        """The numbers of a roll's subjects, -1 for whom nobody has asked here; None for a roll that is not there."""
        marks = self._rolls.get(name)
        if marks is None:
            return None
        roll = self.roll()
        subjects, numbers = self._known.get(name, (-1, marks))
        if subjects != len(roll.marks):
            number_at = np.full(len(roll.marks) + 1, -1, np.int64)
            number_at[roll.places] = np.arange(len(roll.marks))
            at = np.searchsorted(roll.marks, marks)
            is_known = np.append(roll.marks, -1)[at] == marks  # no mark is negative
            numbers = np.where(is_known, number_at[at], -1)
            self._known[name] = len(roll.marks), numbers
        return numbers


class Asked(NamedTuple):
    """What a chunk's numbers mean: whose they are, and how many buckets a chunk of the question has."""

    numbering: Numbering
    buckets: int


def asked(question: Question, numbering: Numbering) -> Asked:
    """As `_kept` cuts the question's chunks."""
    return Asked(numbering, HOUR_MS // question.each_ms if by_hours(question) else 1)


class Packer:
    """Puts chunks into line protocol; remembers which rolls it has written. For the thread that writes."""

    def __init__(self) -> None:
        self._written: set[tuple[str, int]] = set()

    def lines(self, chunk: KeptChunk, meaning: Asked) -> Iterator[str]:
        """A chunk, its roll before it when that is new; written again it takes the place of the older one."""
        roll = meaning.numbering.roll()
        stretch = chunk.start // ROLL_MS * ROLL_MS
        if (roll.name, stretch) not in self._written:
            self._written.add((roll.name, stretch))
            yield from _roll_lines(roll, stretch)
        yield from _chunk_lines(chunk, meaning.buckets, roll)


def _roll_lines(roll: Roll, stretch: int) -> Iterator[str]:
    text = base64.b64encode(roll.marks.tobytes()).decode()
    first_ns = stretch * MS + int(roll.name[:10], 16) * MOST_PIECES
    for place, piece in enumerate(_pieces(text)):
        yield line(ROLL, {"part": roll.name[:2]}, {"roll": roll.name, "piece": place, "blob": piece}, first_ns + place)


def _chunk_lines(chunk: KeptChunk, buckets: int, roll: Roll) -> Iterator[str]:
    places = np.frombuffer(chunk.places, np.int64)
    cells = roll.places[places // buckets] * buckets + places % buckets
    order = np.argsort(cells)  # ascending they pack better
    samples = np.frombuffer(chunk.samples, np.int64)[order]
    values = np.frombuffer(chunk.values, np.float64)[order]
    columns = (np.diff(cells[order], prepend=0).astype("<u4"), samples.astype("<u4"), values.astype("<f8"))
    raw = b"".join(column.tobytes() for column in columns)
    text = base64.b64encode(zlib.compress(raw, 3)).decode()
    pieces = _pieces(text)
    common: Fields = {
        "question": chunk.question,
        "measurement": chunk.measurement,
        "start": chunk.start,
        "finish": chunk.end,
        "made_at": chunk.made_at,
        "roll": roll.name,
        "pieces": len(pieces),
        "sum": zlib.crc32(text.encode()),
    }
    first_ns = chunk.start * MS + mix(chunk.question, chunk.end) % (SECOND_NS // MOST_PIECES) * MOST_PIECES
    for place, piece in enumerate(pieces):
        yield line(KEPT, {"part": chunk.question[:2]}, {**common, "piece": place, "blob": piece}, first_ns + place)


def _pieces(text: str) -> list[str]:
    return [text[at : at + PIECE_CHARACTERS] for at in range(0, max(1, len(text)), PIECE_CHARACTERS)][:MOST_PIECES]


COLUMNS = '"question", "measurement", "start", "finish", "made_at", "roll", "pieces", "sum", "piece", "blob"'


class _Piece(NamedTuple):
    """A row of COLUMNS."""

    question: str
    measurement: str
    start: int
    finish: int
    made_at: int
    roll: str
    pieces: int
    sum: int
    piece: int
    blob: str


def unpack(rows: Iterable[Sequence[Any]], meaning: Asked, present: Collection[int], door: Door) -> Iterator[KeptChunk]:
    """The chunks of these rows of COLUMNS. One that is torn, or speaks of subjects not `present`, is as good as none."""
    found: dict[tuple[int, int], list[_Piece]] = {}
    for row in rows:
        piece = _Piece(*row)
        found.setdefault((piece.start, piece.finish), []).append(piece)
    if not found:
        return
    _learn_rolls(
        {one.roll: one.start // ROLL_MS * ROLL_MS for pieces in found.values() for one in pieces}, meaning, door
    )
    is_present = np.zeros(max(present, default=-1) + 2, np.bool_)  # the last for the number -1: never
    is_present[list(present)] = True
    for pieces in found.values():
        chunk = _unpack(pieces, meaning, is_present)
        if chunk is not None:
            yield chunk


def _unpack(
    pieces: Sequence[_Piece], meaning: Asked, is_present: np.ndarray[Any, np.dtype[np.bool_]]
) -> KeptChunk | None:
    by_place = {one.piece: one for one in pieces}
    first = by_place.get(0)
    if first is None:
        return None
    text = "".join(by_place[place].blob for place in range(first.pieces) if place in by_place)
    numbers = meaning.numbering.numbers_of(first.roll)
    if numbers is None or zlib.crc32(text.encode()) != first.sum:
        return None
    raw = zlib.decompress(base64.b64decode(text))
    count = len(raw) // 16
    cells = np.cumsum(np.frombuffer(raw, "<u4", count), dtype=np.int64)
    whose = numbers[cells // meaning.buckets]
    if not is_present[np.minimum(whose, len(is_present) - 1)].all():
        return None
    places = whose * meaning.buckets + cells % meaning.buckets
    samples = np.frombuffer(raw, "<u4", count, 4 * count).astype(np.int64)
    contents = (places.tobytes(), samples.tobytes(), raw[8 * count :])
    return KeptChunk(first.question, first.measurement, first.start, first.finish, first.made_at, *contents)


def _learn_rolls(wanted: Mapping[str, int], meaning: Asked, door: Door) -> None:
    """Reads those that are not known yet; each with where it stands."""
    missing = {name: stretch for name, stretch in wanted.items() if meaning.numbering.lacks(name)}
    statements = [
        f'SELECT "piece", "blob" FROM "{ROLL}" WHERE "part" = {value_text(name[:2])} AND "roll" = {value_text(name)}'  # noqa: S608
        f" AND time >= {stretch}ms AND time < {stretch + ROLL_MS}ms"
        for name, stretch in missing.items()
    ]
    pieces: list[dict[int, str]] = [{} for _ in statements]
    for rows in door.ask(statements):
        pieces[rows.statement].update((place, blob) for _, place, blob in rows.values)
    for name, parts in zip(missing, pieces, strict=True):
        raw = base64.b64decode("".join(parts[place] for place in sorted(parts)))
        marks = np.frombuffer(raw, np.int64)
        if f"{mix(marks.tobytes().hex(), bits=64):016x}" == name:
            meaning.numbering.learn(name, marks)
