"""Who is asked: the register's entries and what the store has seen, from when until when each is expected."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from collector.plan import QuestionPlan, Where
from collector.query import DAY_MS, HOUR_MS, Question, Take
from collector.site_folder import ATTRIBUTES, FOR_EVER, Entry, SiteFolder
from collector.stores import Instant, KnownSubject

LOOK_BACK_MS = 24 * HOUR_MS
"""How far back a complete inventory round is looked for that no longer lists a part."""


class Subject(NamedTuple):
    """One subject of a question: the values of `per`, its entry in the register if any, when it is expected."""

    key: tuple[str, ...]
    entry: Entry | None
    since: int
    until: int

    def labels(self, plan: QuestionPlan) -> Mapping[str, str]:
        """Its tags, and the attributes that the register gives its entry ('' for none; several are joined by a space)."""
        attributes = self.entry.attributes if self.entry else {}
        found = {name: " ".join(attributes.get(name, ())) for name in ATTRIBUTES}
        return {**found, **dict(zip(plan.per, self.key, strict=True))}


class Sightings:
    """What a store has seen at or before `as_of` (ms); the store is asked once for all questions about the same subjects."""

    def __init__(self, store: Instant, as_of: int) -> None:
        self.store, self.as_of = store, as_of
        self._found: dict[tuple[str, tuple[str, ...], Where], Mapping[tuple[str, ...], KnownSubject]] = {}

    def of(self, measurement: str, per: tuple[str, ...], where: Where) -> Mapping[tuple[str, ...], KnownSubject]:
        """Every subject of a measurement with when it was seen, by its key, in the order of keys."""
        key = (measurement, per, where)
        if key not in self._found:
            rows = self.store.subjects(measurement, per, dict(where), self.as_of)
            self._found[key] = {row.subject: row for row in rows}
        return self._found[key]


class Chosen(NamedTuple):
    """The subjects of one question in the order of their keys, and those that an exemption took out."""

    subjects: tuple[Subject, ...]
    exempt: tuple[tuple[str, ...], ...]


def choose_subjects(
    sightings: Sightings, plan: QuestionPlan, question: Question, folder: SiteFolder, criterion: str
) -> Chosen:
    """Everybody whom `criterion` asks at the time of the sightings.

    The register's entries are subjects whether seen or not when the question enrols; what was seen is one unless the
    question wants attributes that the register does not give it.
    """
    rows, as_of = _seen(sightings, plan, question), sightings.as_of
    entries = folder.section(plan.of)
    wanted = folder.matching(plan.of, plan.attributes if folder.has_register else ())
    place = plan.per.index(plan.of)
    found: dict[tuple[str, ...], Subject] = {}
    first_parts: dict[str, int] = {}
    for key, row in rows.items():
        first_parts[key[place]] = min(row.first_seen, first_parts.get(key[place], row.first_seen))
    for key, row in rows.items():
        if not plan.attributes or not folder.has_register or key[place] in wanted:
            found[key] = _subject(key, entries.get(key[place]), row.first_seen, first_parts[key[place]])
    if plan.is_enrolling and folder.has_register:
        present = {key[place] for key in found}
        for entry in wanted.values():
            if entry.id not in present:
                key = tuple(entry.id if tag == plan.of else "" for tag in plan.per)
                found[key] = _subject(key, entry, 0, 0)
    inside = [one for one in found.values() if one.since <= as_of and one.until > question.start]
    exempt = _exempt(inside, plan, folder, criterion, as_of)
    kept = [one for one in inside if one.key not in exempt] if exempt else inside
    return Chosen(_without_gone(sightings.store, plan, question, rows, kept, as_of), tuple(sorted(exempt)))


def _subject(key: tuple[str, ...], entry: Entry | None, first_seen: int, first_part: int) -> Subject:
    """Enrolled at the register's `from`, else at first sight; an entry with neither is expected all the time.

    A part that came more than a day after the first parts of its entry (first_part) owes nothing from before it was there.
    """
    is_later = first_seen > first_part + DAY_MS
    since = first_seen if entry is None or entry.since is None or is_later else entry.since
    return Subject(key, entry, since, entry.until if entry else FOR_EVER)


def _seen(sightings: Sightings, plan: QuestionPlan, question: Question) -> Mapping[tuple[str, ...], KnownSubject]:
    """What the store has seen of the measurement, and for what is watched, also what was only watched."""
    rows = dict(sightings.of(plan.measurement, plan.per, question.where))
    for watch in plan.watches:
        if watch.measurement == "source_round" or not set(plan.per) <= set(watch.tags):
            continue  # every asset has rounds: they prove that somebody looked, not that there is something to see
        known = tuple(pair for pair in question.where if pair[0] == "site" or pair[0] in watch.tags)
        for row in sightings.of(watch.measurement, plan.per, known).values():
            before = rows.get(row.subject)
            if before is None or row.first_seen < before.first_seen:
                last_seen = max(row.last_seen, before.last_seen) if before else row.last_seen
                rows[row.subject] = row._replace(last_seen=last_seen)
    return rows


def _exempt(
    subjects: Sequence[Subject], plan: QuestionPlan, folder: SiteFolder, criterion: str, as_of: int
) -> set[tuple[str, ...]]:
    """Those of the subjects that an exemption of the criterion takes out."""
    named = {
        (plan.per.index(one.tag), one.id)
        for one in folder.exemptions
        if one.criterion == criterion and one.tag in plan.per and one.since <= as_of < one.until
    }
    return {one.key for one in subjects if named and not named.isdisjoint(enumerate(one.key))}


def _without_gone(
    store: Instant,
    plan: QuestionPlan,
    question: Question,
    rows: Mapping[tuple[str, ...], KnownSubject],
    subjects: Sequence[Subject],
    as_of: int,
) -> tuple[Subject, ...]:
    """Parts that a later complete inventory round of their asset no longer lists are expected until they were last seen.

    A device that does not answer has no complete round, so its parts stay.
    """
    if "asset" not in plan.per or len(plan.per) == 1 or plan.is_event:
        return tuple(sorted(subjects))
    place = plan.per.index("asset")
    old = {one.key[place] for one in subjects if one.key in rows and rows[one.key].last_seen < as_of - 2 * HOUR_MS}
    rounds = _complete_rounds(store, question, sorted(old), as_of) if old else {}
    settled = []
    for one in subjects:
        row = rows.get(one.key)
        gone = row is not None and rounds.get(one.key[place], 0) > row.last_seen + HOUR_MS
        if row is not None and gone and plan.measurement != "source_round":
            one = one._replace(until=min(one.until, row.last_seen + HOUR_MS))
        settled.append(one)
    return tuple(sorted(one for one in settled if one.until > question.start))


def _complete_rounds(store: Instant, question: Question, assets: Sequence[str], as_of: int) -> Mapping[str, int]:
    """asset -> start of the newest hour in which every round of every source on it was complete."""
    start = (as_of - LOOK_BACK_MS) // HOUR_MS * HOUR_MS
    site = tuple(pair for pair in question.where if pair[0] == "site")
    where = (*site, ("asset", tuple(assets)))
    take = Take("min")
    asked = Question("source_round", "is_complete", where, ("asset",), start, as_of + 1, HOUR_MS, take, take)
    found = {}
    for (asset,), buckets in store.buckets(asked).items():
        whole = buckets.positions[buckets.values >= 1]
        if len(whole):
            found[asset] = start + int(whole[-1]) * HOUR_MS
    return found
