"""The hospital's store: a database of InfluxDB 1.6 to 1.8 or a bucket of 2.4 and later, shared by all collectors.

Threads: `write`, `applied`, `keep`, `save_scorecard`, `probe` and `prune` belong to one thread of a process. The calls that only read may come
from any thread. What several collectors must agree on stands in the store, never in a collector's memory: `_influx_records`
lists it.
"""

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from agent.broker import Secret
from agent.catalogue import Catalogue, is_host_name
from agent.errors import LinkError, PointsRefused, StoreError
from agent.language import say
from collector.buckets import Buckets
from collector.query import DAY_MS, Question
from collector.stores import (
    Account,
    AppliedBatch,
    BatchName,
    BatchTotals,
    DrawnAsset,
    KnownSubject,
    LateHour,
    Latest,
    Period,
    Score,
    ScorecardRow,
    StoredScorecard,
)
from collector.stores._influx_accounts import read_accounts
from collector.stores._influx_copy import Copying
from collector.stores._influx_http import Door, Place
from collector.stores._influx_kept import (
    LateMarks,
    Reader,
    announce,
    announced,
    late_hours,
    prune_kept,
    prune_points,
)
from collector.stores._influx_ledger import Ledger, batch_line, late_lines
from collector.stores._influx_pack import Asked, Numbering, Packer, asked
from collector.stores._influx_probe import probe
from collector.stores._influx_questions import compile_buckets
from collector.stores._influx_records import LAST_MS
from collector.stores._influx_scorecards import card_at, cards_since, last_rows, rows_between, save
from collector.stores._influx_series import SeriesLists, SeriesMemory, owners_of, seen_subjects
from collector.stores._influx_setup import Admin, DatabaseReader
from collector.stores._influx_setup import set_up as _set_up
from collector.stores._influx_text import decode_tag, name_text, one_of_text
from collector.stores._influx_totals import Totals
from collector.stores._influx_write import Lines, PointWriter, write_all, write_points
from collector.stores._kept import Fresh, digest_of, read_buckets

BATCH_RETENTION_DAYS = 370
_URL = re.compile(r"https?://[^/@?#\s]+(/[^@?#\s]*)?")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEPT_LINES = 500
"""Of one request: each may hold 60 KB."""


def _is_url(text: str) -> bool:
    """Whether there can be a server at this URL."""
    try:
        parts = urlsplit(text)
        return _URL.fullmatch(text) is not None and is_host_name(parts.hostname or "") and parts.port != 0
    except ValueError:  # a bracket that does not close, a port beyond 65535
        return False


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `influxdb` section of a collector's configuration.

    database: on 1.6 to 1.8, with user and password. bucket: on 2.4 and later, with org and token. What is not written is
    taken from the environment variables INFLUXDB_V2_URL, INFLUXDB_V2_ORG and INFLUXDB_V2_TOKEN. ca: who signed the server's
    certificate, a PEM file; by default the system's list. gzip: whether what is written goes packed; by default unless the server
    is on this machine, where packing and unpacking cost time and save nothing.
    """

    url: str | None = None
    database: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    user: str | None = None
    password: Secret | None = None
    bucket: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    org: str | None = None
    token: Secret | None = None
    ca: str | None = None
    gzip: bool | None = None
    connect_timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0

    def __post_init__(self) -> None:
        if self.url is not None and not _is_url(self.url):  # what was found is not shown: it may hold a password
            raise ValueError(
                say(
                    "url 应形如 https://主机:8086，不含用户名密码",
                    "url has the form https://host:8086, without user and password",
                )
            )
        if (self.database is None) == (self.bucket is None):
            raise ValueError(
                say(
                    "database(1.x)与 bucket(2.x)必须且只能写一个", "give exactly one of database (1.x) and bucket (2.x)"
                )
            )
        if self.password is not None and self.user is None:
            raise ValueError(say("写了 password 却没有 user", "there is a password but no user"))
        if self.database is not None and self.org is not None:
            raise ValueError(say("org 只属于 bucket(2.x)", "org belongs to a bucket (2.x) only"))

    def place(self, environment: Mapping[str, str]) -> Place:
        """Where the store is, secrets read. Raises StoreError when something is not to be had."""
        url = self.url or environment.get("INFLUXDB_V2_URL")
        org = self.org or environment.get("INFLUXDB_V2_ORG") if self.bucket else None
        if not url:
            raise StoreError(_missing("url", "INFLUXDB_V2_URL"))
        if self.bucket and not org:
            raise StoreError(_missing("org", "INFLUXDB_V2_ORG"))
        return Place(
            url=url.rstrip("/"),
            database=self.database or self.bucket or "",
            org=org,
            token=_read_secret("token", self.token, environment)
            or (environment.get("INFLUXDB_V2_TOKEN") if self.bucket else None),
            user=self.user,
            password=_read_secret("password", self.password, environment),
            ca=self.ca,
            is_packed=urlsplit(url).hostname not in _LOOPBACK if self.gzip is None else self.gzip,
            connect_timeout_seconds=self.connect_timeout_seconds,
            timeout_seconds=self.timeout_seconds,
        )


def _missing(key: str, variable: str) -> str:
    return say(
        f"store.{key} 未写，环境变量 {variable} 也未设置",
        f"store.{key} is not given, nor is the environment variable {variable}",
    )


def _read_secret(key: str, secret: Secret | None, environment: Mapping[str, str]) -> str | None:
    if secret is None:
        return None
    try:
        return secret.read(environment, key=f"store.{key}")
    except LinkError as error:
        raise StoreError(f"store.{key}: {error}") from error


def set_up(
    config: Config,
    admin: Admin | None,
    environment: Mapping[str, str] = os.environ,
    *,
    first: bool = False,
    reader: DatabaseReader | None = None,
) -> Iterator[str]:
    """Makes the database or bucket and the rights of its user, and says what was done. Raises StoreError.

    first, reader: on 1.x, make the administrator of a server without users too, and one who may only read.
    """
    place = config.place(environment)
    with Door(place) as door:
        _check_version(door.version(), place)
    return _set_up(place, admin, first=first, reader=reader)


class _Writer(NamedTuple):
    """What the writer remembers of the store; thrown away as a whole when a write fails."""

    series: SeriesMemory
    late: LateMarks
    points: PointWriter


class Store:
    """See `collector.stores.Store`. A context manager; raises StoreError when the configuration cannot be right.

    A server that is away is no reason not to open: the calls say so until it is back.
    """

    def __init__(self, config: Config, catalogue: Catalogue, environment: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._catalogue = catalogue
        self._environment = environment
        self._door: Door | None = None
        self._version: str | None = None
        self._fresh = Fresh()
        self._writer: _Writer | None = None
        self._ledger = Ledger()
        self._totals = Totals()
        self._lists = SeriesLists()
        self._numberings: dict[tuple[str, tuple[str, ...]], Numbering] = {}
        self._asked: dict[str, Asked] = {}
        self._announced = 0
        self._packer: Packer | None = None
        self._pruned_on = -1

    def __enter__(self) -> Self:
        door = Door(self._config.place(self._environment))
        with suppress(StoreError):
            self._version = door.version()
        try:
            _check_version(self._version, door.place)
        except BaseException:
            door.close()
            raise
        self._door = door
        return self

    def __exit__(self, *exc: object) -> None:
        door, self._door, self._writer = self._door, None, None
        if door is not None:
            door.close()

    @property
    def _open(self) -> Door:
        if self._door is None:
            raise StoreError(say("存储未打开", "the store is not open"))
        if self._version is None:
            version = self._door.version()
            _check_version(version, self._door.place)
            self._version = version
        return self._door

    def write(self, batches: Sequence[AppliedBatch]) -> None:
        """Points, then the `batch` rows; batches that have their row already are passed over.

        A write that fails half-way is made whole when it is tried again: every record has its place and is written over
        itself. Raises PointsRefused, without the `batch` rows, when the server will never take some of the points.
        """
        door = self._open
        new = self._ledger.new_of(batches, door)
        if not new:
            return
        writer = self._writer or self._new_writer(new, door)
        self._writer = None
        self._write(new, writer, door)
        self._writer = writer
        self._fresh.wrote()
        self._ledger.remember(BatchName(batch.site, batch.agent, batch.identity) for batch in new)

    def _write(self, new: Sequence[AppliedBatch], writer: _Writer, door: Door) -> None:
        received_at = max(batch.received_at for batch in new)
        lines = writer.points.lines(new)
        writer.late.touch(lines.hours)
        records = writer.series.take_lines(uuid.uuid4().hex)
        records += writer.late.lines(lines.cells, lines.hours, received_at)
        write_all(records, door)
        try:
            write_points(lines, door)
        except PointsRefused:  # the others are stored
            self._mark_announced(lines, received_at, writer.late, door)
            raise
        self._mark_announced(lines, received_at, writer.late, door)
        door.write([*late_lines(new, writer.late.announced.batches), *map(batch_line, new)])

    def _mark_announced(self, lines: Lines, received_at: int, late: LateMarks, door: Door) -> None:
        """Marks the hours that were announced to be read before the points were there."""
        late.hear(announced(door))
        marks = late.lines(lines.cells, lines.hours, received_at)
        if marks:
            door.write(marks)

    def _new_writer(self, new: Sequence[AppliedBatch], door: Door) -> _Writer:
        """One that knows the series of these batches, asked for at once; of others it asks when they come."""
        series = SeriesMemory(door)
        series.load({(batch.site, point.name) for batch in new for point in batch.points})
        return _Writer(series, LateMarks(self._fresh, announced(door)), PointWriter(self._catalogue, series))

    def applied(self, wanted: Mapping[BatchName, tuple[int, int] | None]) -> set[BatchName]:
        """Which of these batches have their `batch` row already; quick when it is known when they were made."""
        return self._ledger.applied({name: span or (0, LAST_MS) for name, span in wanted.items()}, self._open)

    def buckets(self, question: Question, now: int | None = None) -> Mapping[tuple[str, ...], Buckets]:
        """The found buckets of every subject that has any; closed ones from what is kept, the others from raw points."""
        question.check()
        door = self._open
        seen = self._fresh.seen()
        meaning = asked(question, self._numbering(question))
        if now is not None:
            self._asked[digest_of(question)] = meaning
            self._announce(now, door)
        found, made = read_buckets(question, now, Reader(door, self._lists, meaning))
        self._fresh.remember(seen, made)
        return found

    def _announce(self, now: int, door: Door) -> None:
        """Says before anything is read that hours closed at `now` may be kept; what says more stays."""
        if now <= self._announced:
            return
        said = announced(door).hours
        if now > said:
            door.write([announce("hours", now)])
        self._announced = max(now, said)

    def _numbering(self, question: Question) -> Numbering:
        return self._numberings.setdefault((question.measurement, question.per), Numbering())

    def compiled(self, question: Question) -> str:
        """The question as InfluxQL, values in place, for a person to read or run again; its rows are the buckets."""
        question.check()
        return ";\n".join(compile_buckets(question, [(question.start, question.end)]))

    def keep(self) -> int:
        """Keep what `buckets` remembered; gives how many chunks were written."""
        chunks = self._fresh.take()
        packer = self._packer or Packer()
        self._packer = None
        lines = [text for chunk in chunks for text in packer.lines(chunk, self._asked[chunk.question])]
        for first in range(0, len(lines), KEPT_LINES):
            write_all(lines[first : first + KEPT_LINES], self._open)
        self._packer = packer
        return len(chunks)

    def late_hours(self, site: str, since: int) -> list[LateHour]:
        """The hours of `site` that got late points at or after `since`, sorted."""
        return late_hours(site, since, self._open)

    def subjects(
        self, measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int
    ) -> list[KnownSubject]:
        """All subjects first seen at or before `until`, sorted by subject."""
        return seen_subjects(measurement, per, tuple(where.items()), until, self._lists, self._open)

    def latest(self, measurement: str, since: int) -> list[Latest]:
        """The newest row of every series that has one at or after `since`."""
        return sorted(self._read_points(measurement, f"time >= {since}ms", 1), key=_place_of)

    def happened(self, site: str, measurement: str, since: int, most: int) -> list[Latest]:
        """The newest rows of `site` at or after `since`, newest first."""
        of_site = f"time >= {since}ms AND {one_of_text('site', [site])}"
        found = sorted(self._read_points(measurement, of_site, most), key=_place_of)
        return sorted(found, key=lambda row: -row.timestamp)[:most]

    def _read_points(self, measurement: str, condition: str, most: int) -> list[Latest]:
        """The newest `most` rows of every series."""
        fields, name = self._catalogue.measurements[measurement].fields, name_text(measurement)
        statement = f"SELECT * FROM {name} WHERE {condition} GROUP BY * ORDER BY time DESC LIMIT {most}"  # noqa: S608
        found = []
        for rows in self._open.ask([statement]):
            tags = {tag: decode_tag(value) for tag, value in rows.tags.items() if value}
            for time, *values in rows.values:
                named = zip(rows.columns[1:], values, strict=True)
                read = {field: _typed(value) for field, value in named if field in fields and value is not None}
                found.append(Latest(tags, read, time))
        return found

    def totals(self) -> list[BatchTotals]:
        """Batches, points and holes per agent."""
        return self._totals.read(self._open)

    def accounts(self, site: str, periods: Mapping[str, Period]) -> Mapping[str, Account]:
        """agent -> what there is of its numbered batches, for the agents and periods asked."""
        door = self._open
        return read_accounts(site, periods, self._totals.known(site, door), door) if periods else {}

    def owners(self, site: str) -> Mapping[str, str]:
        """asset -> the agent that first reported it; of claims made at once every collector sees the same one win."""
        return owners_of(site, self._open)

    def save_scorecard(
        self,
        site: str,
        as_of: int,
        digest: str,
        body: bytes,
        now: int,
        why: str = "",
        summary: str = "",
        scores: Sequence[Score] = (),
        assets: Sequence[DrawnAsset] = (),
    ) -> int:
        """The scorecard's revision: the known one when this digest is stored for `as_of`, else the next."""
        return save(site, StoredScorecard(as_of, 0, digest, now, body, why, summary), scores, assets, self._open)

    def scorecards(self, site: str, since: int) -> list[StoredScorecard]:
        """Stored scorecards with as_of at or after `since`, oldest first."""
        return cards_since(site, since, self._open)

    def scorecard_at(self, site: str, as_of: int, revision: int | None = None) -> StoredScorecard | None:
        """The newest revision at exactly `as_of`, or the one asked for."""
        return card_at(site, as_of, revision, self._open)

    def scorecard_list(self, site: str, since: int, until: int) -> list[ScorecardRow]:
        """Every revision with `since` <= as_of < `until`, oldest first, without the bodies."""
        return rows_between(site, since, until, self._open)

    def last_scorecards(self, site: str, edges: Sequence[int]) -> list[ScorecardRow]:
        """Of each span from one edge to before the next the newest revision of its last scorecard, without the bodies."""
        return last_rows(site, edges, self._open)

    def probe(self) -> None:
        """Write a record of its own, read it back and take it away."""
        probe(self._open)

    def save_copy(self, path: str) -> bool:
        """Nothing: what it holds is the server's, and so is its backup."""
        return False

    @contextmanager
    def copying(self, site: str) -> Iterator[Copying]:
        """One site while it is copied; what the writer remembers is read anew afterwards."""
        self._writer = None
        yield Copying(site, self._catalogue, self._open)
        self._writer, self._totals, self._ledger = None, Totals(), Ledger()

    def prune(self, now: int) -> int:
        """Delete what is beyond its retention: raw points, batch rows, kept buckets, marks; gives how many rows went.

        Once a day (UTC) and by whole days: every deletion costs the server, however little it takes away.
        """
        today = now - now % DAY_MS
        if today == self._pruned_on:
            return 0
        door = self._open
        gone = self._totals.prune(today - BATCH_RETENTION_DAYS * DAY_MS, door)
        gone += prune_kept(today, door)
        measurements = self._catalogue.measurements
        gone += prune_points({name: today - one.retention_days * DAY_MS for name, one in measurements.items()}, door)
        self._writer, self._pruned_on = None, today  # its memory of marks holds no more
        return gone


def _typed(value: Any) -> float | str:
    """JSON knows no difference between 1 and 1.0."""
    return value if isinstance(value, str) else float(value)


def _place_of(row: Latest) -> tuple[object, ...]:
    tags = row.tags
    return (tags.get("site", ""), tags.get("agent", ""), tags.get("asset", ""), sorted(tags.items()))


def _check_version(version: str | None, place: Place) -> None:
    """Refuses what cannot be right. What says nothing of its version (a proxy before it) is taken as it comes."""
    major = (version or "").split(".")[0]
    if major == "1" and place.is_bucket:
        zh, en = (
            f"这是 InfluxDB {version}，请写 database、user、password，不写 bucket、org、token",
            f"this is InfluxDB {version}: give database, user and password, not bucket, org and token",
        )
    elif major == "2" and not place.is_bucket:
        zh, en = (
            f"这是 InfluxDB {version}，请写 bucket、org、token，不写 database、user、password",
            f"this is InfluxDB {version}: give bucket, org and token, not database, user and password",
        )
    else:
        return
    raise StoreError(f"{place.url}: {say(zh, en)}")
