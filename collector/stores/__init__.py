"""Stores: one file per database; this folder is the list. Every store passes test_stores.py, test_accounts.py, test_answers.py and test_kept.py of tests/collector/stores/."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

from agent.points import Point
from collector.buckets import Buckets
from collector.query import Question

if TYPE_CHECKING:  # it is made of what stands here
    from collector.stores._copy import Copying

LATENESS_MS = 120_000
"""How long after its end an hour is still open, so that what is on its way arrives in time."""


class AppliedBatch(NamedTuple):
    """One checked batch to be written: its points and its `batch` row.

    points: only those that the catalogue and the register accepted, tags complete but for site and agent.
    received_at, made_at: milliseconds. identity: `boot/seq`, or the payload's SHA-256 for a foreign sender.
    """

    site: str
    agent: str
    boot: str
    seq: int
    identity: str
    made_at: int
    received_at: int
    points: Sequence[Point]
    set_aside: int
    dropped: Sequence[tuple[str, int, int, int]]


class BatchName(NamedTuple):
    """What tells a batch from all others. identity: as in `AppliedBatch`."""

    site: str
    agent: str
    identity: str


class KnownSubject(NamedTuple):
    """A subject that the store has seen; the row outlives its samples. agent: who reported it first."""

    subject: tuple[str, ...]
    first_seen: int
    last_seen: int
    agent: str


class Latest(NamedTuple):
    """A row of a series, mostly its newest: its tags (site, agent, asset among them), its fields, its time."""

    tags: Mapping[str, str]
    fields: Mapping[str, float | str]
    timestamp: int

    def number(self, field: str) -> float | None:
        """A field's value; None where the row has no such field, or a text."""
        value = self.fields.get(field)
        return value if isinstance(value, float) else None


class BatchTotals(NamedTuple):
    """One agent's batches as the store has them; `holes` are sequence ranges that never came and were not announced dropped, beyond what was pruned of a boot."""

    site: str
    agent: str
    batches: int
    points: int
    set_aside: int
    dropped: int
    last_made_at: int
    last_received_at: int
    holes: Sequence[tuple[str, int, int]]


class Period(NamedTuple):
    """made_at from `since` to `until`, both among it, milliseconds."""

    since: int
    until: int


class Hole(NamedTuple):
    """Numbers of a boot that never came. before: made_at of the next one of the boot that did: they were made earlier."""

    boot: str
    first: int
    last: int
    before: int


class Account(NamedTuple):
    """What the store has of one agent's numbered batches made within a period; see docs/ledger.md.

    batches: rows. points, set_aside: points written and points set aside in them. empty_batches: of the rows, those from which
    nothing was written while something was set aside. dropped_batches, dropped_points: of the rows, what was announced as dropped
    all the same (it had come, its receipt had not). announced_batches: numbers announced as dropped, but those before a boot's first row in
    the period. earlier_batches, later_batches: rows made before and after the period. undated_batches, undated_points: of the later
    rows, those from which nothing was written: a batch that could not be read has the time at which it came. holes: those within the period.

    A batch counts while its row is there, also when the period reaches back beyond what was pruned. Of a pruned boot the store
    remembers up to which number its rows went: numbers up to it are no holes any more. An announcement outlives the rows that carried it,
    whoever's they were, also a foreign sender's: a boot of which no row ever came has all its announced numbers in every account; of a
    boot whose rows since the period's begin are none, for they were pruned or made earlier, nothing is announced.
    """

    batches: int = 0
    points: int = 0
    set_aside: int = 0
    empty_batches: int = 0
    dropped_batches: int = 0
    dropped_points: int = 0
    announced_batches: int = 0
    earlier_batches: int = 0
    later_batches: int = 0
    undated_batches: int = 0
    undated_points: int = 0
    holes: Sequence[Hole] = ()


class ScorecardRow(NamedTuple):
    """One revision of a scorecard without its body. why: why the revision exists. summary: whatever a list of many shows.

    Both are the writer's own short texts; a store does not look into them.
    """

    as_of: int
    revision: int
    digest: str
    written_at: int
    why: str
    summary: str


class StoredScorecard(NamedTuple):
    """One revision of a scorecard; `body` is its JSON as it was written, the rest as in `ScorecardRow`."""

    as_of: int
    revision: int
    digest: str
    written_at: int
    body: bytes
    why: str
    summary: str


class Score(NamedTuple):
    """One number of a scorecard for whoever draws courses: of an index, an indicator or another node, or of a criterion.

    status: scored, no_data, not_applicable or error. expires: when somebody's word for a criterion ends, milliseconds.
    """

    kind: Literal["node", "criterion"]
    node: str
    low: float
    high: float
    coverage: float
    status: str = ""
    expires: int | None = None


class DrawnAsset(NamedTuple):
    """An asset for whoever draws: the attributes that the register gives it, by their names; is_registered: it stands there."""

    asset: str
    attributes: Mapping[str, str]
    is_registered: bool


class LateHour(NamedTuple):
    """Points of an asset came that lie in a UTC hour that was over for LATENESS_MS by then, or that had been read for keeping.

    hour: its start. received: the end of the minute in which the newest of them came.
    """

    measurement: str
    asset: str
    hour: int
    received: int


class Instant(Protocol):
    """What an evaluation asks of a store; see `Store`."""

    def buckets(self, question: Question, now: int | None = None) -> Mapping[tuple[str, ...], Buckets]:
        """The found buckets of every subject that has any."""

    def compiled(self, question: Question) -> str:
        """The question as this store's query."""

    def subjects(
        self, measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int
    ) -> list[KnownSubject]:
        """All subjects first seen at or before `until`, sorted by subject."""


@runtime_checkable
class OffersInstant(Protocol):
    """A store may offer one moment of itself for many questions, so that what they have in common is read once."""

    def instant(self) -> AbstractContextManager[Instant]:
        """Answers as the store itself would answer at that moment; for one thread, and for one evaluation at a time."""


def instant_of(store: Instant) -> AbstractContextManager[Instant]:
    """One moment of the store if it offers that, else the store itself, each call at its own."""
    return store.instant() if isinstance(store, OffersInstant) else nullcontext(store)


class Store(Protocol):
    """A place for points that can answer questions. All calls block; the collector runs them in its one store thread.

    Every call raises StoreError with one clear sentence when the database is away, full or refuses.
    """

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...

    def write(self, batches: Sequence[AppliedBatch]) -> None:
        """Points and `batch` rows in one transaction, or the rows last; returns only when they are safe against kill -9.

        What has its row already is passed over, so a write of which nobody knows whether it arrived may be tried again.
        Raises PointsRefused when the others of the points are stored and these never will be: then no batch of this call
        has its row.
        """

    def applied(self, wanted: Mapping[BatchName, tuple[int, int] | None]) -> set[BatchName]:
        """Which of these batches have their `batch` row already; in the writing thread, before they are written.

        wanted: between which milliseconds (inclusive) each was made, so that a store that orders by time need not look through
        years; None when nobody knows. A batch of a single millisecond is written as made then.
        """

    def buckets(self, question: Question, now: int | None = None) -> Mapping[tuple[str, ...], Buckets]:
        """The found buckets of every subject that has any; what follows from them is arithmetic outside the store.

        Closed buckets come from those that are kept, the others from raw points: the same bytes either way. now: the time of
        this reading; what it computes of hours that are over for LATENESS_MS is remembered for `keep`. None: nothing is.
        """

    def keep(self) -> int:
        """Keep what `buckets` remembered, in the writing thread; gives how many buckets' worth of rows were written.

        A store that is never told to keep answers the same, only slower. What came since a bucket was read is not kept wrong:
        late points mark their hour, and a kept bucket over an hour marked since is read again.
        """

    def late_hours(self, site: str, since: int) -> list[LateHour]:
        """The hours of `site` that got late points at or after `since`; ask next time since the time of this asking."""

    def compiled(self, question: Question) -> str:
        """The question as this store's query, values in place, for a person to read or run again."""

    def subjects(
        self, measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int
    ) -> list[KnownSubject]:
        """All subjects first seen at or before `until`, sorted by subject."""

    def latest(self, measurement: str, since: int) -> list[Latest]:
        """The newest row of every series that has one at or after `since`."""

    def happened(self, site: str, measurement: str, since: int, most: int) -> list[Latest]:
        """The newest rows of `site` at or after `since`, newest first and `most` at most: for what happens seldom."""

    def totals(self) -> list[BatchTotals]:
        """Batches, points and holes per agent."""

    def accounts(self, site: str, periods: Mapping[str, Period]) -> Mapping[str, Account]:
        """agent -> what there is of its numbered batches, for the agents and periods asked."""

    def owners(self, site: str) -> Mapping[str, str]:
        """asset -> the agent that first reported it."""

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
        """The scorecard's revision: the known one when this digest is stored for `as_of`, else the next, written beside.

        scores, assets: its numbers and who was there, for a store that others draw from; a store that nobody else reads may leave them.
        """

    def scorecards(self, site: str, since: int) -> list[StoredScorecard]:
        """Stored scorecards with as_of at or after `since`, oldest first."""

    def scorecard_at(self, site: str, as_of: int, revision: int | None = None) -> StoredScorecard | None:
        """The newest revision at exactly `as_of`, or the one asked for; None when there is none."""

    def scorecard_list(self, site: str, since: int, until: int) -> list[ScorecardRow]:
        """Every revision with `since` <= as_of < `until`, oldest first, without the bodies: cheap over years."""

    def last_scorecards(self, site: str, edges: Sequence[int]) -> list[ScorecardRow]:
        """Of each span from one edge (ms, rising) to before the next one the newest revision of its last scorecard, oldest
        first, without the bodies: what lies between them stays in the database. A span without a scorecard gives nothing.
        """

    def probe(self) -> None:
        """Write something that no other call sees, read it back and take it away, in the writing thread."""

    def save_copy(self, path: str) -> bool:
        """Save everything as of now into a new file, also while another thread writes; False where a server has the data."""

    def copying(self, site: str) -> AbstractContextManager["Copying"]:
        """One site of this store while it is copied to or from another; nobody else writes meanwhile."""

    def prune(self, now: int) -> int:
        """Delete raw points beyond the catalogue's retention and kept buckets after three years; gives how many rows went."""


def names() -> list[str]:
    """All stores that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load_store(name: str) -> Any:
    """The module of store `name`: its `Config` and its `Store(config, catalogue)`."""
    if name not in names():
        raise KeyError(name)
    return importlib.import_module(f"{__name__}.{name}")
