"""One moment of a DuckDB store: what an evaluation asks of it, each thing that many questions share read once."""

from collections.abc import Mapping, Sequence, Set

from collector.buckets import Buckets
from collector.query import Question
from collector.stores import KnownSubject
from collector.stores._duckdb_connection import Connection
from collector.stores._duckdb_kept import Reader
from collector.stores._duckdb_questions import Where, buckets_of, seen_subjects, spell
from collector.stores._kept import Fresh, read_buckets


class Instant:
    """A `collector.stores.Instant`. known: every measurement that a site has a series of. seen: what `fresh` said before."""

    def __init__(self, connection: Connection, known: Set[tuple[str, str]], fresh: Fresh, seen: int) -> None:
        self._connection, self._known, self._fresh, self._seen = connection, known, fresh, seen
        self._reader = Reader(connection)

    def _has(self, measurement: str, where: Where) -> bool:
        """Whether there can be a series; saves the queries about what nobody has reported yet, which most signals are."""
        return all(any((measurement, site) in self._known for site in sites) for tag, sites in where if tag == "site")

    def buckets(self, question: Question, now: int | None = None) -> Mapping[tuple[str, ...], Buckets]:
        """The found buckets of every subject that has any; closed ones from what is kept, the others from raw points."""
        question.check()
        if not self._has(question.measurement, question.where):
            return {}
        found, made = read_buckets(question, now, self._reader)
        self._fresh.remember(self._seen, made)
        return found

    def compiled(self, question: Question) -> str:
        """The question as DuckDB's SQL, values in place, for a person to read or run again; its rows are the buckets.

        Always spelt with every care, which changes no row: a scorecard holds it, and what the store asks with less care
        today it may ask with more tomorrow, of the same points.
        """
        question.check()
        window = (question.start, question.end)
        return spell(buckets_of(question, window, (window,), True))

    def subjects(
        self, measurement: str, per: Sequence[str], where: Mapping[str, Sequence[str]], until: int
    ) -> list[KnownSubject]:
        """All subjects first seen at or before `until`, sorted by subject."""
        wanted = tuple((tag, tuple(values)) for tag, values in where.items())
        statement = seen_subjects(measurement, wanted, per, until)
        if not self._has(measurement, wanted):
            return []
        known = self._reader.known(measurement, wanted, tuple(per))
        if all(one.newest_first <= until for one in known):  # what a question about them reads too
            return [KnownSubject(one.tags, one.first_seen, one.last_seen, one.agent) for one in known]
        return [
            KnownSubject(tuple(tags), first, last, agent)
            for *tags, first, last, agent in self._connection.rows(*statement)
        ]
