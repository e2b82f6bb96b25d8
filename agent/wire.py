"""The wire: topics, batches and receipts as bytes. No I/O.

A batch's identity is (boot, seq); both also travel as MQTT 5 user properties, with the point count, so that
a batch whose content cannot be decoded can still be receipted.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agent.catalogue import is_id
from agent.points import Point, Value

VERSION = "v1"
PREFIX = f"infravitals/{VERSION}"

Dropped = tuple[str, int, int, int]
"""What the spool's bound cost: boot, first seq, last seq, points."""

Ranges = list[tuple[int, int]]
"""Sequence numbers as closed ranges, ascending."""


class Batch(msgspec.Struct, omit_defaults=True):
    """What one publish carries. Times are milliseconds since the epoch, UTC.

    boot: random id of the agent's process start; seq counts from 0 in it. made_at is unique and rising per agent.
    boot, seq and made_at are given when the batch enters the spool and never change; sent_at is the moment of sending
    on the clock that stamped the points: it tells how wrong they are, though the clock was set meanwhile.
    A foreign sender (Telegraf) may leave out everything but metrics.
    """

    metrics: list[Point]
    boot: str = ""
    seq: int = -1
    made_at: int = 0
    sent_at: int = 0
    points: int = 0
    dropped: list[Dropped] = []


class Receipt(msgspec.Struct, omit_defaults=True):
    """What this collector itself wrote or set aside of one boot, as ranges; never cumulative.

    reasons: what in all these batches was set aside, applied ones too: code of `agent.reasons` -> how many things.
    Absent when nothing was; older agents pass over it, older collectors do not send it.
    """

    boot: str
    applied: Ranges
    set_aside: Ranges
    reasons: dict[str, int] = {}


class Address(NamedTuple):
    """Who sent: read from the topic, never from the payload."""

    site: str
    agent: str


class Undecodable(Exception):
    """Bytes that are no batch or no receipt; `str()` says why."""


class Decoded(NamedTuple):
    """A batch as it arrived, and what of it was no point: (reason, the raw bytes) for each."""

    batch: Batch
    set_aside: list[tuple[str, bytes]]


def points_topic(site: str, agent: str) -> str:
    """Where an agent's batches go."""
    return f"{PREFIX}/{site}/{agent}/points"


def receipt_topic(site: str, agent: str) -> str:
    """Where its receipts come from."""
    return f"{PREFIX}/{site}/{agent}/receipt"


def state_topic(site: str, agent: str) -> str:
    """Where its last known state is retained; a hint for the page, no more."""
    return f"{PREFIX}/{site}/{agent}/state"


def read_topic(topic: str) -> Address | None:
    """Site and agent that a topic names; None when it is none of ours."""
    parts = topic.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != PREFIX or not is_id(parts[2]) or not is_id(parts[3]):
        return None
    return Address(parts[2], parts[3])


MOST_TEXTS = 100_000
MOST_TEXT_BYTES = 4096
"""What a `BatchReader` remembers of tags; a flood makes it forget all and begin again."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
"""What bytes from outside may raise: besides bad JSON also nesting without end and numbers that no float holds."""

_encoder = msgspec.json.Encoder()
_batch = msgspec.json.Decoder(Batch)
_receipt = msgspec.json.Decoder(Receipt)


class _LooseBatch(msgspec.Struct):
    metrics: list[msgspec.Raw]
    boot: str = ""
    seq: int = -1
    made_at: int = 0
    sent_at: int = 0
    points: int = 0
    dropped: list[Dropped] = []


class _AnyPoint(msgspec.Struct):
    name: str
    timestamp: int
    tags: dict[str, str] = {}
    fields: dict[str, object] = {}


class _PackedPoint(msgspec.Struct, frozen=True, gc=False):
    name: str
    tags: msgspec.Raw
    fields: dict[str, Value]
    timestamp: int


class _PackedBatch(msgspec.Struct):
    metrics: list[_PackedPoint]
    boot: str = ""
    seq: int = -1
    made_at: int = 0
    sent_at: int = 0
    points: int = 0
    dropped: list[Dropped] = []


_packed = msgspec.json.Decoder(_PackedBatch)
_tags = msgspec.json.Decoder(dict[str, str])
_NO_TEXT = msgspec.Raw(b"")
_loose = msgspec.json.Decoder(_LooseBatch)
_any_point = msgspec.json.Decoder(_AnyPoint)


def encode_batch(batch: Batch) -> bytes:
    """The JSON of a batch."""
    return _encoder.encode(batch)


def encode_receipt(receipt: Receipt) -> bytes:
    """The JSON of a receipt."""
    return _encoder.encode(receipt)


def decode_receipt(payload: bytes) -> Receipt:
    """The receipt in `payload`. Raises Undecodable."""
    try:
        return _receipt.decode(payload)
    except _UNREADABLE as error:
        raise Undecodable(str(error)) from error


def decode_batch(payload: bytes) -> Decoded:
    """The batch in `payload`; what in it is no point is set aside singly. Raises Undecodable when nothing can be read.

    The typed decoder reads 1.5 M points/s; only a batch that it refuses is read point by point.
    """
    try:
        return Decoded(_batch.decode(payload), [])
    except _UNREADABLE:
        return _decode_loosely(payload)


class _Tags:
    """Tags as text and read, and those that came after them the last time."""

    __slots__ = ("follower", "tags", "text")

    def __init__(self, text: msgspec.Raw, tags: Mapping[str, str]) -> None:
        self.text, self.tags = text, tags
        self.follower: _Tags | None = None


class BatchReader:
    """Decodes as `decode_batch` does, for who reads batches without end: tags whose text came before are not read again.

    Points with the same text of tags share one mapping, which nobody changes. Rounds are all in one order, so the text that
    followed the last time is tried first. For one thread.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, _Tags] = {}

    def decode(self, payload: bytes) -> Decoded:
        """The batch in `payload`; raises Undecodable when nothing can be read."""
        try:
            packed = _packed.decode(payload)
            points = self._points(packed.metrics)
        except _UNREADABLE:
            return _decode_loosely(payload)
        header = packed.boot, packed.seq, packed.made_at, packed.sent_at, packed.points, packed.dropped
        return Decoded(Batch(points, *header), [])

    def _points(self, packed: Sequence[_PackedPoint]) -> list[Point]:
        points: list[Point] = []
        add = points.append
        before = _Tags(_NO_TEXT, {})
        for point in packed:
            found = before.follower
            if found is None or found.text != point.tags:
                found = before.follower = self._find(point.tags)
            before = found
            add(Point(point.name, found.tags, point.fields, point.timestamp))
        return points

    def _find(self, text: msgspec.Raw) -> _Tags:
        """What this text says. Raises DecodeError when it says no tags."""
        name = bytes(text)
        found = self._known.get(name)
        if found is None:
            found = _Tags(text.copy(), _tags.decode(text))
            if len(self._known) >= MOST_TEXTS:
                self._known = {}
            if len(name) <= MOST_TEXT_BYTES:
                self._known[name] = found
        return found


def _decode_loosely(payload: bytes) -> Decoded:
    try:
        loose = _loose.decode(payload)
    except _UNREADABLE as error:
        raise Undecodable(str(error)) from error
    points: list[Point] = []
    aside: list[tuple[str, bytes]] = []
    for raw in loose.metrics:
        try:
            point = _any_point.decode(raw)
            # null is an absent field; anything that is no value is kept for the catalogue's check to refuse by name
            fields = {key: _loose_value(value) for key, value in point.fields.items() if value is not None}
        except _UNREADABLE as error:
            aside.append((f"malformed point: {error}", bytes(raw)))
            continue
        points.append(Point(point.name, point.tags, fields, point.timestamp))
    batch = Batch(points, loose.boot, loose.seq, loose.made_at, loose.sent_at, loose.points, loose.dropped)
    return Decoded(batch, aside)


def _loose_value(value: object) -> Value:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return float(value)
    return repr(value)


def to_ranges(numbers: list[int]) -> Ranges:
    """Ascending closed ranges that hold exactly `numbers`."""
    ranges: Ranges = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
