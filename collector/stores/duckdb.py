"""The embedded store: one DuckDB file, one process, one thread that writes.

Threads: `write`, `applied`, `keep`, `save_scorecard`, `probe` and `prune` belong to one thread. The calls that only read (`instant`,
`buckets`, `late_hours`, `subjects`, `latest`, `happened`, `totals`, `accounts`, `owners`, `scorecards` and its like) open a cursor of their own and may come from any thread,
also while that one writes: each sees the moment at which it began. Opening and closing wait for nobody: close when
the readers are done.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, NamedTuple, Self, TypeVar

import msgspec

from agent.catalogue import Catalogue
from agent.errors import StoreError
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
from collector.stores._duckdb_accounts import accounts
from collector.stores._duckdb_connection import MEMORY, Connection
from collector.stores._duckdb_copy import Copying
from collector.stores._duckdb_instant import Instant
from collector.stores._duckdb_kept import LateMarks, late_hours, note_pruned, prune_kept
from collector.stores._duckdb_ledger import Ledger, prune_batches, totals
from collector.stores._duckdb_questions import Statement, newest_rows, rows_since
from collector.stores._duckdb_schema import prepare
from collector.stores._duckdb_scorecards import card_at, cards_since, last_rows, rows_between, save
from collector.stores._duckdb_series import SeriesMemory
from collector.stores._duckdb_write import PointWriter
from collector.stores._kept import Fresh

BATCH_RETENTION_DAYS = 370
T = TypeVar("T")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `duckdb` section of a collector's configuration.

    path: the file; its directory must exist. `:memory:` keeps nothing. memory_bytes: what DuckDB may use.
    """

    path: str = "infravitals.duckdb"
    memory_bytes: Annotated[int, msgspec.Meta(ge=64 * 2**20)] = 2 * 2**30


class _Session(NamedTuple):
    """An open file and what the writer remembers of it; thrown away as a whole when a write fails."""

    connection: Connection
    series: SeriesMemory
    late: LateMarks
    points: PointWriter
    ledger: Ledger


class Store:
    """See `collector.stores.Store`. A context manager; raises StoreError when the file cannot be opened."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        self._config = config
        self._catalogue = catalogue
        self._session: _Session | None = None
        self._opening = threading.Lock()
        self._fresh = Fresh()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._opening:
            if self._session is not None:
                self._session.connection.close()
                self._session = None

    def _open(self) -> _Session:
        """The session; opened anew after a failed write, so that nothing is remembered that the file does not hold."""
        with self._opening:
            if self._session is None:
                connection = Connection.open(self._config.path, self._config.memory_bytes)
                try:
                    self._session = self._begin(connection)
                except BaseException:
                    connection.close()
                    raise
            return self._session

    def _begin(self, connection: Connection) -> _Session:
        prepare(connection, self._catalogue)
        series = SeriesMemory(connection, self._catalogue)
        late = LateMarks(connection, series, self._fresh)
        return _Session(connection, series, late, PointWriter(self._catalogue, series, late), Ledger(connection))

    @contextmanager
    def _writing(self) -> Iterator[_Session]:
        session = self._open()
        try:
            yield session
        except BaseException:
            self._forget(session)
            raise

    def _forget(self, session: _Session) -> None:
        with self._opening:
            self._session = None
            if self._config.path == MEMORY:  # closing would lose everything: only the memory of it starts anew
                self._session = self._begin(session.connection)
            else:
                session.connection.close()

    def _read(self, question: Callable[[Connection], T]) -> T:
        with self._open().connection.snapshot() as connection:
            return question(connection)

    def write(self, batches: Sequence[AppliedBatch]) -> None:
        """Points and `batch` rows in one transaction; batches that have their row already are passed over."""
        with self._writing() as session:
            new = session.ledger.new_of(batches, session.connection)
            if not new:
                return
            with session.connection.transaction():
                session.points.write(new, session.connection)
                session.ledger.write(new, session.connection)
            self._fresh.wrote()

    def applied(self, wanted: Mapping[BatchName, tuple[int, int] | None]) -> set[BatchName]:
        """Which of these batches have their `batch` row already."""
        session = self._open()
        return session.ledger.known(wanted, session.connection)

    @contextmanager
    def instant(self) -> Iterator[Instant]:
        """One moment of the store for many questions, which share what they have in common."""
        session, seen = self._open(), self._fresh.seen()  # before the snapshot, which then shows at least that
        with session.connection.snapshot() as connection:
            yield Instant(connection, session.series.seen, self._fresh, seen)

    def buckets(self, question: Question, now: int | None = None) -> Mapping[tuple[str, ...], Buckets]:
        """The found buckets of every subject that has any; closed ones from what is kept, the others from raw points."""
        with self.instant() as instant:
            return instant.buckets(question, now)

    def compiled(self, question: Question) -> str:
        """The question as DuckDB's SQL, values in place, for a person to read or run again; its rows are the buckets."""
        with self.instant() as instant:
            return instant.compiled(question)

    def keep(self) -> int:
        """Keep what `buckets` remembered; gives how many chunks were written."""
        with self._writing() as session:
            chunks = self._fresh.take_packed()
            if chunks:
                session.late.keep(chunks, session.connection)
            return len(chunks)

    def late_hours(self, site: str, since: int) -> list[LateHour]:
        """The hours of `site` that got late points at or after `since`, sorted."""
        return self._read(lambda connection: late_hours(site, since, connection))

    def subjects(
        self, measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int
    ) -> list[KnownSubject]:
        """All subjects first seen at or before `until`, sorted by subject."""
        with self.instant() as instant:
            return instant.subjects(measurement, per, where, until)

    def latest(self, measurement: str, since: int) -> list[Latest]:
        """The newest row of every series that has one at or after `since`."""
        fields = tuple(self._catalogue.measurements[measurement].fields)
        return self._read_points(fields, newest_rows(measurement, fields, since))

    def happened(self, site: str, measurement: str, since: int, most: int) -> list[Latest]:
        """The newest rows of `site` at or after `since`, newest first."""
        fields = tuple(self._catalogue.measurements[measurement].fields)
        return self._read_points(fields, rows_since(measurement, fields, site, since, most))

    def _read_points(self, fields: Sequence[str], statement: Statement) -> list[Latest]:
        """Rows (site, agent, asset, tags, time, fields...) as they are handed out."""
        rows = self._read(lambda connection: connection.rows(*statement))
        return [
            Latest(
                {"site": site, "agent": agent, "asset": asset, **tags},
                {field: value for field, value in zip(fields, values, strict=True) if value is not None},
                time,
            )
            for site, agent, asset, tags, time, *values in rows
        ]

    def totals(self) -> list[BatchTotals]:
        """Batches, points and holes per agent."""
        return self._read(totals)

    def accounts(self, site: str, periods: Mapping[str, Period]) -> Mapping[str, Account]:
        """agent -> what there is of its numbered batches, for the agents and periods asked."""
        return self._read(lambda connection: accounts(site, periods, connection)) if periods else {}

    def owners(self, site: str) -> Mapping[str, str]:
        """asset -> the agent that first reported it."""
        return dict(self._read(lambda connection: connection.rows(_OWNERS, [site])))

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
        card = StoredScorecard(as_of, 0, digest, now, body, why, summary)
        with self._writing() as session, session.connection.transaction():
            return save(site, card, session.connection)

    def scorecards(self, site: str, since: int) -> list[StoredScorecard]:
        """Stored scorecards with as_of at or after `since`, oldest first."""
        return self._read(lambda connection: cards_since(site, since, connection))

    def scorecard_at(self, site: str, as_of: int, revision: int | None = None) -> StoredScorecard | None:
        """The newest revision at exactly `as_of`, or the one asked for."""
        return self._read(lambda connection: card_at(site, as_of, revision, connection))

    def scorecard_list(self, site: str, since: int, until: int) -> list[ScorecardRow]:
        """Every revision with `since` <= as_of < `until`, oldest first, without the bodies."""
        return self._read(lambda connection: rows_between(site, since, until, connection))

    def last_scorecards(self, site: str, edges: Sequence[int]) -> list[ScorecardRow]:
        """Of each span from one edge to before the next the newest revision of its last scorecard, without the bodies."""
        return self._read(lambda connection: last_rows(site, edges, connection))

    def probe(self) -> None:
        """Write a table of its own, read it back and take it away."""
        mark = secrets.randbelow(2**62)
        with self._writing() as session:
            with session.connection.transaction():
                session.connection.run("CREATE OR REPLACE TABLE probe AS SELECT ?::BIGINT AS mark", [mark])
            found = self._read(lambda connection: connection.rows("SELECT mark FROM probe"))
            session.connection.run("DROP TABLE probe")
        if found != [(mark,)]:
            text = say("写入的内容读不回来", "what was written is not read back")
            raise StoreError(f"{self._config.path}: {text}")

    def save_copy(self, path: str) -> bool:
        """A file of its own with everything as of now."""
        self._open().connection.copy_to(path)
        return True

    @contextmanager
    def copying(self, site: str) -> Iterator[Copying]:
        """One site while it is copied; what the writer remembers is read anew afterwards."""
        session = self._open()
        try:
            yield Copying(site, self._catalogue, session.connection, session.series, session.points, session.ledger)
        finally:
            self._forget(session)

    def prune(self, now: int) -> int:
        """Delete what is beyond its retention: raw points, batch rows, kept buckets, marks; gives how many rows went."""
        with self._writing() as session:
            with session.connection.transaction():
                gone = prune_batches(now - BATCH_RETENTION_DAYS * DAY_MS, session.connection)
                gone += prune_kept(now, session.connection)
                for name, measurement in self._catalogue.measurements.items():
                    gone += _prune_points(name, now - measurement.retention_days * DAY_MS, session.connection)
            session.series.settle_marks(session.connection)
            return gone


def _prune_points(measurement: str, before: int, connection: Connection) -> int:
    gone = int(connection.rows(f"DELETE FROM points.{measurement} WHERE time < ?", [before])[0][0])  # noqa: S608
    if gone:
        note_pruned(measurement, before, connection)
    return gone


_OWNERS = "SELECT asset, agent FROM owner WHERE site = ? ORDER BY asset"
