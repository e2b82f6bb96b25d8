"""Which series there are in an InfluxDB store, since when, and who owns what: remembered by the writer, read by everybody.

Two collectors write these records side by side. What must agree is never overwritten: claims stand beside each other and
the same one is true for every reader.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from collector.query import HOUR_MS
from collector.stores import KnownSubject
from collector.stores._copy import SeriesRow
from collector.stores._influx_http import Door
from collector.stores._influx_records import (
    MS,
    OWNER,
    SUBJECT,
    SUBJECT_CHANGE,
    SUBJECT_HOUR,
    SUBJECT_SEEN,
    Fields,
    timeless,
)
from collector.stores._influx_text import decode_tag, line, name_text, tag_value_text

Where = Sequence[tuple[str, Sequence[str]]]
Pair = tuple[str, str]
"""Site and measurement."""


class Seen:
    """A series as the writer knows it; compared by identity. key: its tags but for the site, as JSON."""

    __slots__ = ("asset", "first", "hour_end", "key", "last", "measurement", "site")

    def __init__(self, pair: Pair, key: str, asset: str, first: int, last: int) -> None:
        self.site, self.measurement = pair
        self.key, self.asset = key, asset
        self.first, self.last = first, last
        self.hour_end = (last // HOUR_MS + 1) * HOUR_MS


class SeriesMemory:
    """What one writer knows; thrown away as a whole when a write fails. Only for the thread that writes."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._series: dict[Pair, dict[str, Seen]] = {}
        self._owners: dict[str, set[str]] = {}
        self._hours: set[tuple[str, str, int]] = set()
        self._new: dict[tuple[str, str], Seen] = {}
        self._again: dict[int, Seen] = {}
        self._lines: list[str] = []

    def load(self, pairs: Iterable[Pair]) -> None:
        """Reads what the store knows of these; each once. Many together are asked for faster than one by one."""
        missing = sorted(set(pairs) - self._series.keys())
        if not missing:
            return
        sites = sorted({site for site, _ in missing} - self._owners.keys())
        firsts = [_select('"key", "first_seen"', SUBJECT, pair) for pair in missing]
        lasts = [_select('"key", "last_seen"', SUBJECT_SEEN, pair) for pair in missing]
        first_of: list[dict[str, int]] = [{} for _ in missing]
        last_of: list[dict[str, int]] = [{} for _ in missing]
        for rows in self._door.ask([*firsts, *lasts]):
            place, is_last = rows.statement % len(missing), rows.statement >= len(missing)
            for _, key, at in rows.values:
                if is_last:
                    last_of[place][key] = at
                else:
                    first_of[place][key] = min(at, first_of[place].get(key, at))
        for pair, first, last in zip(missing, first_of, last_of, strict=True):
            self._series[pair] = {
                key: Seen(pair, key, _asset_of(key), at, last.get(key, at)) for key, at in first.items()
            }
        for site in sites:
            self._owners[site] = set(owners_of(site, self._door))

    def find(self, site: str, agent: str, measurement: str, tags: Mapping[str, str], at: int) -> Seen:
        """The series of these tags, which is new when nobody knew it."""
        key = _key({"agent": agent, **tags})
        self.load([(site, measurement)])
        series = self._series[site, measurement]
        seen = series.get(key)
        if seen is None:
            seen = series[key] = Seen((site, measurement), key, tags["asset"], at, at)
            self._claim(seen)
            self._again[id(seen)] = seen
            if seen.asset not in self._owners[site]:
                self._owners[site].add(seen.asset)
                self._lines.append(line(OWNER, {"site": site, "asset": seen.asset}, {"agent": agent}, None))
        return seen

    def learn(self, site: str, row: SeriesRow) -> None:
        """Takes a series as another store knows it, unless it is known here; its measurement is loaded."""
        key = _key({"agent": row.agent, **row.tags})
        pair = (site, row.measurement)
        if key not in self._series[pair]:
            seen = self._series[pair][key] = Seen(pair, key, row.tags["asset"], row.first_seen, row.last_seen)
            self._owners[site].add(seen.asset)  # whose it is the copy says itself
            self._claim(seen)
            self._again[id(seen)] = seen
            self.note_hours([(site, row.measurement, row.last_seen // HOUR_MS * HOUR_MS)])

    def watch(self, seen: Seen, at: int) -> None:
        """Takes note of a point outside the time that is known: a new hour, an earlier first sight."""
        if at >= seen.hour_end:
            seen.last, seen.hour_end = at, (at // HOUR_MS + 1) * HOUR_MS
            self._again[id(seen)] = seen
        if at < seen.first:
            seen.first = at
            self._claim(seen)

    def _claim(self, seen: Seen) -> None:
        self._new[f"{seen.site}\0{seen.measurement}", seen.key] = seen

    def note_hours(self, hours: Iterable[tuple[str, str, int]]) -> None:
        """Points of a site and measurement in an hour (its start) are about to be written."""
        new = set(hours) - self._hours
        self._hours |= new
        self._lines += [
            line(SUBJECT_HOUR, {"site": site, "of": measurement}, {"is": 1}, hour * MS)
            for site, measurement, hour in sorted(new)
        ]

    def take_lines(self, word: str) -> list[str]:
        """What is new since the last call, to be written before the points. word: never used before."""
        lines, self._lines = self._lines, []
        claims, self._new = list(self._new.values()), {}
        again, self._again = list(self._again.values()), {}
        for seen in claims:
            first: Fields = {"key": seen.key, "first_seen": seen.first}
            lines.append(timeless(SUBJECT, _tags(seen), first, *_tags(seen).values(), seen.key, seen.first))
        for seen in again:
            last: Fields = {"key": seen.key, "last_seen": seen.last}
            lines.append(timeless(SUBJECT_SEEN, _tags(seen), last, *_tags(seen).values(), seen.key))
        for site, measurement in sorted({(seen.site, seen.measurement) for seen in claims}):
            lines.append(timeless(SUBJECT_CHANGE, {"site": site, "of": measurement}, {"word": word}))
        return lines


def _tags(seen: Seen) -> Mapping[str, str]:
    return {"site": seen.site, "of": seen.measurement}


def _key(tags: Mapping[str, str]) -> str:
    return msgspec.json.encode({name: value for name, value in sorted(tags.items()) if value}).decode()


def _asset_of(key: str) -> str:
    return msgspec.json.decode(key, type=dict[str, str])["asset"]


def _select(columns: str, measurement: str, pair: Pair) -> str:
    site, of = map(tag_value_text, pair)
    return f'SELECT {columns} FROM "{measurement}" WHERE "site" = {site} AND "of" = {of}'  # noqa: S608  # quoted


def owners_of(site: str, door: Door) -> dict[str, str]:
    """asset -> the agent whose claim came first to the server."""
    statement = f'SELECT first("agent") FROM "{OWNER}" WHERE "site" = {tag_value_text(site)} GROUP BY "asset"'  # noqa: S608
    return {decode_tag(rows.tags["asset"]): rows.values[0][1] for rows in door.ask([statement])}


class Known(NamedTuple):
    """A series that the store has seen; all its tags."""

    tags: Mapping[str, str]
    first_seen: int


class Sighting(NamedTuple):
    """The series that a question wants. until: after the newest hour in which their measurement has points; 0 without any."""

    series: Sequence[Known]
    until: int


class SeriesLists:
    """Reads which series there are; a list is read again only when it has grown. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: dict[Pair, tuple[str, list[Known]]] = {}

    def read(self, measurement: str, where: Where, door: Door) -> Sighting:
        """The series that meet `where` now."""
        sites: Sequence[str] = next((values for tag, values in where if tag == "site"), ("",))
        of = f'"of" = {tag_value_text(measurement)}'
        words = [f'SELECT last("word") FROM "{SUBJECT_CHANGE}" WHERE {of}{_at(site)} GROUP BY "site"' for site in sites]  # noqa: S608
        hours = [f'SELECT last("is") FROM "{SUBJECT_HOUR}" WHERE {of}{_at(site)} GROUP BY "site"' for site in sites]  # noqa: S608
        word_of, until = [""] * len(sites), 0
        for rows in door.ask([*words, *hours]):
            if rows.statement < len(sites):
                word_of[rows.statement] += f"{rows.tags['site']} {rows.values[0][1]}\n"
            else:
                until = max(until, rows.values[0][0] + HOUR_MS)
        if not until:
            return Sighting((), 0)
        found: list[Known] = []
        for site, word in zip(sites, word_of, strict=True):
            found += self._list(measurement, site, word, door)
        wanted = [(tag, frozenset(values)) for tag, values in where]
        return Sighting([one for one in found if all(one.tags.get(tag, "") in some for tag, some in wanted)], until)

    def _list(self, measurement: str, site: str, word: str, door: Door) -> list[Known]:
        with self._lock:
            known_word, known = self._lists.get((site, measurement), ("", []))
        if known_word != word:
            known = list(_read_list(measurement, site, door))
            with self._lock:
                self._lists[site, measurement] = word, known
        return known


def series_of(measurement: str, site: str, door: Door) -> list[SeriesRow]:
    """All series of a site, in the order in which they were first seen."""
    last = _last_seen(measurement, door)
    found = []
    for one in _read_list(measurement, site, door):
        tags = {tag: value for tag, value in one.tags.items() if tag != "site"}
        last_seen = last.get((site, _key(tags)), one.first_seen)
        found.append(SeriesRow(measurement, tags.pop("agent"), tags, one.first_seen, last_seen))
    return sorted(found, key=lambda row: (row.first_seen, row.agent, _key(row.tags)))


def _at(site: str) -> str:
    return f' AND "site" = {tag_value_text(site)}' if site else ""


def _read_list(measurement: str, site: str, door: Door) -> Iterable[Known]:
    of = f'"of" = {tag_value_text(measurement)}{_at(site)}'
    statement = f'SELECT "key", "first_seen" FROM "{SUBJECT}" WHERE {of} GROUP BY "site"'  # noqa: S608  # quoted
    first: dict[Pair, int] = {}
    for rows in door.ask([statement]):
        of_site = decode_tag(rows.tags["site"])
        for _, key, at in rows.values:
            first[of_site, key] = min(at, first.get((of_site, key), at))
    for (of_site, key), at in first.items():
        yield Known({"site": of_site, **msgspec.json.decode(key, type=dict[str, str])}, at)


def seen_subjects(
    measurement: str, per: Sequence[str], where: Where, until: int, lists: SeriesLists, door: Door
) -> list[KnownSubject]:
    """All subjects first seen at or before `until`, sorted by subject."""
    for name in (measurement, *per, *(tag for tag, _ in where)):
        name_text(name)
    series = [one for one in lists.read(measurement, where, door).series if one.first_seen <= until]
    if not series:
        return []
    last = _last_seen(measurement, door)
    found: dict[tuple[str, ...], KnownSubject] = {}
    for one in sorted(series, key=lambda one: (one.first_seen, one.tags["agent"], _key(one.tags))):
        subject = tuple(one.tags.get(tag, "") for tag in per)
        key = _key({tag: value for tag, value in one.tags.items() if tag != "site"})
        last_seen = last.get((one.tags["site"], key), one.first_seen)
        before = found.get(subject)
        if before is None:
            found[subject] = KnownSubject(subject, one.first_seen, last_seen, one.tags["agent"])
        elif last_seen > before.last_seen:
            found[subject] = before._replace(last_seen=last_seen)
    return [found[subject] for subject in sorted(found)]


def _last_seen(measurement: str, door: Door) -> dict[Pair, int]:
    """(site, key) -> when the series was first seen in its newest hour."""
    of = f'"of" = {tag_value_text(measurement)}'
    statement = f'SELECT "key", "last_seen" FROM "{SUBJECT_SEEN}" WHERE {of} GROUP BY "site"'  # noqa: S608  # quoted
    return {
        (decode_tag(rows.tags["site"]), key): last for rows in door.ask([statement]) for _, key, last in rows.values
    }
