"""A decoded batch held against the catalogue and the register: what is stored, what is set aside and why. No I/O.

A series (measurement and tags) is examined once and remembered; after that a point costs a few dictionary look-ups.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.catalogue import Catalogue, Field, Measurement, is_id
from agent.points import Point, Value
from agent.wire import Address, Batch, Decoded, Dropped
from collector.reasons import (
    CONTROL,
    MEANINGS,
    MOST_LABEL_CHARACTERS,
    MOST_TAG_CHARACTERS,
    Reason,
    SetAside,
    show_bytes,
    show_text,
)
from collector.register import Register

EARLIEST_MS = 1_577_836_800_000
"""2020-01-01: an earlier time is usually one in seconds."""
LATEST_MS = 4_102_444_800_000
"""2100-01-01: a later time is no clock that runs ahead but nonsense."""
SKEW_MS = 300_000
"""How far an agent's clock may be off before its points are stored at the time received."""
MOST_POINTS = 50_000
MOST_DROPPED = 10_000
MOST_KEPT = 64
"""What of one batch is shown in the quarantine; all of it is counted."""
MOST_SERIES = 100_000
"""Series that are remembered; a flood of new ones makes it forget all and begin again."""
_GREATEST_COUNT = 2**40
_LARGEST = 1.7976931348623157e308
"""The largest finite number: where a range is open, infinity is still none."""
_SHOWN_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one batch.

    points: to be stored, times corrected. counts: set aside, all of it. kept: the first MOST_KEPT of them, with their
    text. newcomers: assets of `points` that nobody reports yet. skew_ms: by how much the agent's clock was behind (minus:
    ahead), and the points were moved; 0 within SKEW_MS. conflicts: points that said another value for an identity
    that the point before it in its series had.
    """

    points: Sequence[Point]
    counts: Mapping[Reason, int]
    kept: Sequence[SetAside]
    dropped: Sequence[Dropped]
    newcomers: frozenset[str]
    skew_ms: int
    conflicts: int

    @property
    def points_set_aside(self) -> int:
        """Whole points; fields that were set aside alone are not among them."""
        return sum(count for reason, count in self.counts.items() if MEANINGS[reason].scope == "point")


_Limits = tuple[float, float, Field | None]
"""Least, greatest, the field. A label has least above greatest, so that no number passes by them alone.
(A plain tuple: taking a named one apart is three times as slow, and that is paid for every value.)"""

_UNDECLARED: _Limits = (math.inf, -math.inf, None)


class _Series:
    """A measurement with tags that passed, the last point of it, and the series that came after it the last time.

    An agent's rounds are all in one order, so the follower is usually right, and comparing is cheaper than looking up.
    """

    __slots__ = ("asset", "find_limits", "follower", "last_fields", "last_timestamp", "limits", "name", "tags")

    def __init__(self, point: Point, limits: Mapping[str, _Limits]) -> None:
        self.name, self.tags = point.name, point.tags
        self.asset = sys.intern(point.tags["asset"])  # the same text is the same object in all series of an asset
        self.follower: _Series | None = None
        self.limits, self.find_limits = limits, limits.get
        self.last_timestamp = -1
        self.last_fields: Mapping[str, Value] = {}


_BOOT = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def is_identity(boot: str, seq: int) -> bool:
    """Whether boot and seq may name a batch."""
    return _BOOT.fullmatch(boot) is not None and 0 <= seq < _GREATEST_COUNT


def find_header_trouble(batch: Batch, boot: str, seq: int) -> str | None:
    """What is wrong with a batch's own boot, seq and made_at; None when nothing is.

    boot, seq: as the link's properties said ('' and -1 when they said nothing); the payload must not contradict them.
    """
    is_foreign = (batch.boot, batch.seq, boot) == ("", -1, "")
    if not is_foreign and not is_identity(batch.boot, batch.seq):
        return f"boot is {_show(batch.boot)}, seq is {_show(batch.seq)}"
    if boot and (boot, seq) != (batch.boot, batch.seq):
        return f"the payload says {batch.boot}/{batch.seq}, the properties say {_show(boot)}/{_show(seq)}"
    if not 0 <= batch.made_at < LATEST_MS:
        return f"made_at is {_show(batch.made_at)}"
    return None


def measure_skew(sent_at: int, received_at: int, waiting_since: int) -> int:
    """How many milliseconds the sender's clock is behind; 0 within SKEW_MS or when it cannot be told.

    waiting_since: the earliest moment from which a batch received now may have waited in the link. Being late is
    no skew; only what not even that wait explains is one.
    """
    if not EARLIEST_MS <= sent_at < LATEST_MS:
        return 0
    if waiting_since - SKEW_MS <= sent_at <= received_at + SKEW_MS:
        return 0
    return received_at - sent_at


class Checker:
    """Checks batches one after the other. It remembers series, so it belongs to one thread."""

    def __init__(self, catalogue: Catalogue, register: Register) -> None:
        self._catalogue = catalogue
        self._register = register
        self._limits = {
            name: {key: _limit(field) for key, field in measurement.fields.items()}
            for name, measurement in catalogue.measurements.items()
        }
        self._series: dict[Address, dict[tuple[str, ...], _Series]] = {}
        self._remembered = 0

    def check(self, address: Address, decoded: Decoded, received_at: int, waiting_since: int | None = None) -> Checked:
        """Hold a batch, its header found right, against catalogue and register. Times in milliseconds.

        When the agent's clock is off by more than SKEW_MS all points of the batch are moved by that difference: they
        keep their spacing, and what was observed when the batch was sent lands at the time received.
        """
        batch = decoded.batch
        skew = measure_skew(batch.sent_at, received_at, received_at if waiting_since is None else waiting_since)
        sieve = _Sieve(self, self._register, address, skew, received_at)
        for text, raw in decoded.set_aside:
            sieve.refuse(Reason.MALFORMED_POINT, f"{text}: {show_bytes(raw[:_SHOWN_CHARACTERS])}")
        sieve.take(batch.metrics, self._series.setdefault(address, {}))
        return Checked(
            points=sieve.points,
            counts=sieve.counts,
            kept=sieve.kept,
            dropped=sieve.take_dropped(batch.dropped),
            newcomers=frozenset(sieve.newcomers),
            skew_ms=skew,
            conflicts=sieve.conflicts,
        )

    def meet(self, address: Address, key: tuple[str, ...], point: Point) -> "_Series | SetAside":
        """Examine a series that is not remembered; one that passes is remembered under `key`."""
        measurement = self._catalogue.measurements.get(point.name)
        if measurement is None:
            return SetAside(Reason.UNKNOWN_MEASUREMENT, "")
        if trouble := _find_tag_trouble(measurement, point.tags):
            return trouble
        if self._remembered >= MOST_SERIES:
            for known in self._series.values():
                known.clear()
            self._remembered = 0
        series = _Series(point, self._limits[point.name])
        self._series.setdefault(address, {})[key] = series
        self._remembered += 1
        return series


class _Sieve:
    """One batch while it is checked."""

    def __init__(self, checker: Checker, register: Register, address: Address, skew_ms: int, received_at: int) -> None:
        self.points: list[Point] = []
        self.counts: Counter[Reason] = Counter()
        self.kept: list[SetAside] = []
        self.newcomers: set[str] = set()
        self.conflicts = 0
        self._checker = checker
        self._register = register
        self._address = address
        self._skew_ms = skew_ms
        self._latest = min(received_at + SKEW_MS - skew_ms, LATEST_MS - 1)  # as the agent's own clock shows it
        self._may_report: dict[str, bool] = {}
        self._room = register.room(address)

    def refuse(self, reason: Reason, what: str) -> None:
        """Count one thing that is set aside; the first ones are kept."""
        self.counts[reason] += 1
        if len(self.kept) < MOST_KEPT:
            self.kept.append(SetAside(reason, show_text(what[:_SHOWN_CHARACTERS])))

    def take(self, points: Iterable[Point], known: dict[tuple[str, ...], _Series]) -> None:
        """Check all points. Every line of this loop is paid 150,000 times a second."""
        find, keep = known.get, self.points.append
        earliest, latest, skew, undeclared = EARLIEST_MS, self._latest, self._skew_ms, _UNDECLARED
        before: _Series | None = None
        yours: str | None = None  # the asset that was allowed last; of most batches it is the only one
        for point in points:
            tags, given, at = point.tags, point.fields, point.timestamp
            fields = given
            series = before.follower if before else None
            if series is None or (series.tags is not tags and series.tags != tags) or series.name != point.name:
                key = (point.name, *tags, *tags.values())
                series = find(key) or self._meet(key, point)
                if series is None:
                    continue
                if before:
                    before.follower = series
            before = series
            if not earliest <= at <= latest:
                self._refuse_point(Reason.TOO_EARLY if at < earliest else Reason.TOO_LATE, point, f"timestamp {at}")
                continue
            limits_of = series.find_limits
            for name, value in fields.items():
                least, greatest, _ = limits_of(name, undeclared)
                if type(value) is not float or not least <= value <= greatest:
                    fields = self._sift(point, series)
                    break
            if not fields:
                self._refuse_point(Reason.NO_FIELD, point, "")
                continue
            if series.asset is not yours:
                if not self._is_yours(series.asset):
                    self._refuse_point(self._why_not(series.asset), point, "")
                    continue
                yours = series.asset
            if at == series.last_timestamp:
                self.conflicts += _contradicts(series.last_fields, fields)
            series.last_timestamp, series.last_fields = at, fields
            if skew or fields is not given:
                point = Point(point.name, tags, fields, at + skew)
            keep(point)

    def take_dropped(self, dropped: Sequence[Dropped]) -> list[Dropped]:
        """The announcements that can be true."""
        possible = []
        for entry in dropped[:MOST_DROPPED]:
            boot, first, last, points = entry
            if is_identity(boot, first) and is_identity(boot, last) and first <= last and 0 <= points < _GREATEST_COUNT:
                possible.append(entry)
            else:
                self.refuse(Reason.BAD_DROPPED, _show(entry))
        if len(dropped) > MOST_DROPPED:
            self.refuse(Reason.BAD_DROPPED, f"{len(dropped)} announcements, at most {MOST_DROPPED}")
        return possible

    def _meet(self, key: tuple[str, ...], point: Point) -> _Series | None:
        met = self._checker.meet(self._address, key, point)
        if isinstance(met, _Series):
            return met
        self._refuse_point(met.reason, point, met.what)
        return None

    def _is_yours(self, asset: str) -> bool:
        known = self._may_report.get(asset)
        if known is None:
            reporters = self._register.reporters(self._address.site, asset)
            is_new = not reporters and len(self.newcomers) < self._room
            known = is_new or self._address.agent in reporters
            self._may_report[asset] = known
            if is_new:
                self.newcomers.add(asset)
        return known

    def _why_not(self, asset: str) -> Reason:
        is_taken = self._register.reporters(self._address.site, asset)
        return Reason.NOT_YOURS if is_taken else Reason.TOO_MANY_ASSETS

    def _sift(self, point: Point, series: _Series) -> Mapping[str, Value]:
        """The fields that may stay; the others are set aside one by one."""
        good: dict[str, Value] = {}
        for name, value in point.fields.items():
            settled = _settle(series.limits.get(name, _UNDECLARED), value)
            if isinstance(settled, Reason):
                self.refuse(settled, f"{point.name}.{_show(name)} = {_show(value)} {_show(dict(point.tags))}")
            else:
                good[name] = settled
        return good

    def _refuse_point(self, reason: Reason, point: Point, what: str) -> None:
        if len(self.kept) < MOST_KEPT:  # making the text costs more than all the checking
            what = f"{what} {_show(point.name)} {_show(dict(point.tags))} {_show(dict(point.fields))}".strip()
        self.refuse(reason, what)


def _limit(field: Field) -> _Limits:
    if field.is_number:
        return (max(field.least, -_LARGEST), min(field.greatest, _LARGEST), field)
    return (math.inf, -math.inf, field)


def _settle(limits: _Limits, value: Value) -> Value | Reason:
    """The value as it is stored, or why it is not."""
    least, greatest, field = limits
    if field is None:
        return Reason.UNKNOWN_FIELD
    if field.kind == "label":
        if not isinstance(value, str):
            return Reason.WRONG_TYPE
        is_bad = len(value) > MOST_LABEL_CHARACTERS or CONTROL.search(value)
        return Reason.BAD_LABEL if is_bad else value
    if isinstance(value, bool) and field.kind == "state":
        value = float(value)
    if type(value) is not float:
        return Reason.WRONG_TYPE
    if not math.isfinite(value):
        return Reason.NOT_FINITE
    return value if least <= value <= greatest else Reason.OUT_OF_RANGE


def _find_tag_trouble(measurement: Measurement, tags: Mapping[str, str]) -> SetAside | None:
    """What is wrong with a point's tags. A declared one may be absent: an older agent does not know a newer tag."""
    if not is_id(tags.get("asset", "")):
        return SetAside(Reason.BAD_ASSET, f"asset {_show(tags.get('asset'))}")
    for key, value in tags.items():
        if key == "asset":
            continue
        declared = measurement.tags.get(key)
        if declared is None:
            return SetAside(Reason.UNKNOWN_TAG, _show(key))
        if declared.values and value not in declared.values:
            return SetAside(Reason.TAG_NOT_LISTED, f"{key} {_show(value)}")
        if not value or len(value) > MOST_TAG_CHARACTERS or CONTROL.search(value):
            return SetAside(Reason.BAD_TAG, f"{key} {_show(value)}")
    return None


def _contradicts(before: Mapping[str, Value], now: Mapping[str, Value]) -> bool:
    return any(name in before and before[name] != value for name, value in now.items())


def _show(thing: object) -> str:
    return repr(thing)[:_SHOWN_CHARACTERS]
