"""Batches, points and holes per agent in an InfluxDB store: rows are read once, their sums are remembered and stored.

Whoever counts announces first until when; who then writes a batch that was made before marks its hour. So the next count
needs the rows since that time and the marked hours alone.
"""

# ruff: noqa: S608  # InfluxQL of this file's own names and of quoted values

import base64
import threading
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from collector.query import HOUR_MS
from collector.stores import BatchTotals
from collector.stores._copy import Gone
from collector.stores._influx_http import Door
from collector.stores._influx_kept import announce, note_pruned, pruned
from collector.stores._influx_ledger import NEAR_MS, Ranges
from collector.stores._influx_pack import PIECE_CHARACTERS
from collector.stores._influx_records import BATCH, BATCH_LATE, BATCH_SUM, MS, Fields, mix, timeless
from collector.stores._influx_text import decode_tag, tag_value_text

Agent = tuple[str, str]
"""Site and agent."""

MOST_UNSUMMED = 20_000
"""Rows that are counted before the sums are stored anew."""
FOREIGN_MS = 6 * HOUR_MS
"""How long a foreign sender's rows are told apart."""

_COLUMNS = '"boot", "seq", "identity", "points", "set_aside", "made_at", "received_at", "dropped"'


class Known(NamedTuple):
    """What was ever read of an agent's numbered batches. numbered: how many there are; has_foreign: whether others are among them.

    times: boot -> made_at of its first and its last. announced: boot -> what was announced as dropped, without ranges that lie
    within others. came: which numbers of these boots came. pruned: boot -> the greatest number of which the row was pruned.
    """

    numbered: int
    has_foreign: bool
    times: Mapping[str, tuple[int, int]]
    announced: Mapping[str, Sequence[tuple[int, int]]]
    came: Mapping[str, Ranges]
    pruned: Mapping[str, int]

    def announced_numbers(self, boot: str) -> Ranges:
        """What was announced of a boot, as one set."""
        numbers = Ranges()
        for first, last in self.announced.get(boot, ()):
            numbers.add(first, last)
        return numbers


class _Sum(msgspec.Struct):
    """One agent's batches. came: boot -> firsts and lasts. foreign: mixed identity -> made_at, the newest only.

    unnumbered: of the batches, those of a foreign sender. times, pruned: as in `Known`.
    """

    batches: int = 0
    points: int = 0
    set_aside: int = 0
    made_at: int = 0
    received_at: int = 0
    came: dict[str, Ranges] = {}
    dropped: set[tuple[str, int, int, int]] = set()
    foreign: dict[int, int] = {}
    unnumbered: int = 0
    times: dict[str, tuple[int, int]] = {}
    pruned: dict[str, int] = {}

    def add(self, row: Sequence[Any]) -> bool:
        """Counts a batch's row; False when it was counted before."""
        boot, seq, identity, points, set_aside, made_at, received_at, dropped = row
        if not (self._take_foreign(identity, made_at) if not boot else self._take(boot, seq, made_at)):
            return False
        self.batches, self.points, self.set_aside = self.batches + 1, self.points + points, self.set_aside + set_aside
        self.made_at, self.received_at = max(self.made_at, made_at), max(self.received_at, received_at)
        if dropped:
            self.dropped.update(msgspec.json.decode(dropped, type=list[tuple[str, int, int, int]]))
        return True

    def _take(self, boot: str, seq: int, made_at: int) -> bool:
        came = self.came.setdefault(boot, Ranges())
        if seq in came:
            return False
        came.add(seq, seq)
        first, last = self.times.get(boot, (made_at, made_at))
        self.times[boot] = min(first, made_at), max(last, made_at)
        return True

    def _take_foreign(self, identity: str, made_at: int) -> bool:
        mixed = mix(identity)
        if mixed in self.foreign:
            return False
        self.foreign[mixed] = made_at
        self.unnumbered += 1
        return True

    def prune(self, row: Sequence[Any]) -> None:
        """A row that was counted goes; of a numbered one is kept up to where its boot had come."""
        boot, seq, _, points, set_aside, *_ = row
        self.batches, self.points, self.set_aside = self.batches - 1, self.points - points, self.set_aside - set_aside
        if boot:
            self.pruned[boot] = max(seq, self.pruned.get(boot, seq))
        else:
            self.unnumbered -= 1

    def forget_foreign(self) -> None:
        """Those of long ago do not come again."""
        self.foreign = {mixed: at for mixed, at in self.foreign.items() if at > self.made_at - FOREIGN_MS}

    def holes(self) -> list[tuple[str, int, int]]:
        """What neither came nor was announced as dropped, beyond the last number that was pruned."""
        boots: dict[str, Ranges] = {}
        for boot, last in self.pruned.items():
            boots.setdefault(boot, Ranges()).add(0, last)
        for boot, came in self.came.items():
            everything = boots.setdefault(boot, Ranges())
            for first, last in zip(came.firsts, came.lasts, strict=True):
                everything.add(first, last)
        for boot, first, last, _ in self.dropped:
            boots.setdefault(boot, Ranges()).add(first, last)
        return [(boot, *hole) for boot in sorted(boots) for hole in boots[boot].holes()]

    def known(self) -> Known:
        """As it stands now; it does not follow what comes."""
        ranges: dict[str, set[tuple[int, int]]] = {}
        for boot, first, last, _ in self.dropped:
            ranges.setdefault(boot, set()).add((first, last))
        announced = {boot: _widest(found) for boot, found in ranges.items()}
        came = {boot: Ranges(list(one.firsts), list(one.lasts)) for boot, one in self.came.items() if boot in announced}
        numbered, has_foreign = self.batches - self.unnumbered, self.unnumbered > 0
        return Known(numbered, has_foreign, dict(self.times), announced, came, dict(self.pruned))

    def dropped_points(self) -> int:
        """An announcement is repeated until it is receipted and may have grown by then: one within another is not counted."""
        return sum(one[3] for one in self.dropped if not any(_is_within(one, wider) for wider in self.dropped))


def _widest(ranges: Iterable[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Those that do not lie within another one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges, key=lambda one: (one[0], -one[1])):
        if not found or last > found[-1][1]:
            found.append((first, last))
    return found


def _is_within(one: tuple[str, int, int, int], wider: tuple[str, int, int, int]) -> bool:
    return (
        one != wider
        and one[0] == wider[0]
        and wider[1] <= one[1]
        and wider[2] >= one[2]
        and (wider[1] < one[1] or wider[2] > one[2] or wider[3] > one[3])
    )


class _Stored(msgspec.Struct):
    """What stands in the store of one agent. announced: as in `Totals`. before: rows made earlier are pruned."""

    sum: _Sum
    announced: int
    before: int


def _pack(stored: _Stored) -> Fields:
    """As fields `sum_0`, `sum_1`…, none of them too long; of older ones with a higher number nothing is read."""
    text = base64.b64encode(zlib.compress(msgspec.json.encode(stored))).decode()
    parts = [text[at : at + PIECE_CHARACTERS] for at in range(0, len(text), PIECE_CHARACTERS)]
    return {"pieces": len(parts)} | {f"sum_{place}": part for place, part in enumerate(parts)}


def _unpack(fields: Mapping[str, Any]) -> _Stored:
    text = "".join(fields[f"sum_{place}"] for place in range(fields["pieces"]))
    return msgspec.json.decode(zlib.decompress(base64.b64decode(text)), type=_Stored)


class Totals:
    """What was counted so far; for any thread.

    announced: what was announced before the last count: what came after it and was made before is marked; None before the first.
    before: batches made earlier were pruned and are no longer counted, only known to have come.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._sums: dict[Agent, _Sum] = {}
        self._announced: int | None = None
        self._before = 0
        self._unsummed = 0

    def read(self, door: Door) -> list[BatchTotals]:
        """Of every agent, sorted by site and agent."""
        with self._lock:
            self._count(door)
            if self._unsummed > MOST_UNSUMMED:
                self._store(door)
            return [
                BatchTotals(
                    *agent,
                    one.batches,
                    one.points,
                    one.set_aside,
                    one.dropped_points(),
                    one.made_at,
                    one.received_at,
                    tuple(one.holes()),
                )
                for agent, one in sorted(self._sums.items())
                if one.batches
            ]

    def known(self, site: str, door: Door) -> Mapping[str, Known]:
        """agent -> what is known of its numbered batches, of every agent of the site that has or announced any."""
        with self._lock:
            self._count(door)
            of_site = {agent: one for (where, agent), one in self._sums.items() if where == site}
            return {agent: one.known() for agent, one in of_site.items() if one.came or one.dropped}

    def _count(self, door: Door) -> None:
        before = pruned(door).get(BATCH, 0)
        if self._announced is None or before != self._before:
            self._load(before, door)
        newest = max((one.received_at for one in self._sums.values()), default=0) or _newest(door)
        if newest:
            door.write([announce("batches", newest)])
        self._add(_tail(self._announced), door)
        if self._announced is not None:
            self._add(_marked(self._announced, door), door)
        self._announced = newest or None

    def _add(self, statements: Sequence[str], door: Door) -> None:
        for rows in door.ask(statements):
            agent = decode_tag(rows.tags["site"]), decode_tag(rows.tags["agent"])
            one = self._sums.setdefault(agent, _Sum())
            for _, *row in rows.values:
                if row[5] >= self._before:
                    self._unsummed += one.add(row)

    def _load(self, before: int, door: Door) -> None:
        """Begin with what is stored."""
        self._forget()
        self._before = before
        announced: list[int] = []
        for rows in door.ask([f'SELECT * FROM "{BATCH_SUM}" GROUP BY "site", "agent"']):
            stored = _unpack(dict(zip(rows.columns, rows.values[-1], strict=True)))
            is_whole = stored.sum.times.keys() == stored.sum.came.keys()  # older versions did not note when
            if stored.before == before and is_whole:
                self._sums[decode_tag(rows.tags["site"]), decode_tag(rows.tags["agent"])] = stored.sum
                announced.append(stored.announced)
        self._announced = min(announced, default=None)

    def _store(self, door: Door, *more: str) -> None:
        lines = []
        for (site, agent), one in self._sums.items():
            one.forget_foreign()
            fields = _pack(_Stored(one, self._announced or 0, self._before))
            lines.append(timeless(BATCH_SUM, {"site": site, "agent": agent}, fields))
        door.write([*lines, *more])
        self._unsummed = 0

    def prune(self, before: int, door: Door) -> int:
        """Deletes batch rows made before `before`; up to which number of a boot they were is kept. Gives how many went."""
        with self._lock:
            self._count(door)
            gone = 0
            for rows in door.ask(
                [f'SELECT {_COLUMNS} FROM "{BATCH}" WHERE time < {before}ms GROUP BY "site", "agent"']
            ):
                one = self._sums[decode_tag(rows.tags["site"]), decode_tag(rows.tags["agent"])]
                for _, *row in rows.values:
                    gone += 1
                    if row[5] >= self._before:
                        one.prune(row)
            if gone:
                self._before = before
                self._store(door, note_pruned(BATCH, before))
                door.delete(BATCH, 0, before * MS, {})
                door.delete(BATCH_LATE, 0, before * MS, {})
            return gone


def gone_of(site: str, door: Door) -> list[Gone]:
    """What the stored sums of a site's agents know beyond the rows: announcements, and up to which number a boot was pruned."""
    found: list[Gone] = []
    for rows in door.ask([f'SELECT * FROM "{BATCH_SUM}" WHERE "site" = {tag_value_text(site)} GROUP BY "agent"']):
        agent = decode_tag(rows.tags["agent"])
        one = _unpack(dict(zip(rows.columns, rows.values[-1], strict=True))).sum
        found += [Gone(agent, *announced) for announced in one.dropped]
        found += [Gone(agent, boot, 0, last, None) for boot, last in one.pruned.items()]
    return found


def gone_lines(site: str, gone: Iterable[Gone], door: Door) -> list[str]:
    """Sums that know this and no row yet: whoever counts begins with them and reads all rows."""
    sums: dict[str, _Sum] = {}
    for one in gone:
        of_agent = sums.setdefault(one.agent, _Sum())
        if one.points is not None:
            of_agent.dropped.add((one.boot, one.first, one.last, one.points))
        else:
            of_agent.pruned[one.boot] = max(one.last, of_agent.pruned.get(one.boot, one.last))
    before = pruned(door).get(BATCH, 0)
    lines = [
        timeless(BATCH_SUM, {"site": site, "agent": agent}, _pack(_Stored(one, 0, before)))
        for agent, one in sums.items()
    ]
    return [*lines, note_pruned(BATCH, before)] if any(one.pruned for one in sums.values()) else lines


def _newest(door: Door) -> int:
    """About when the newest batch was received."""
    return max((int(rows.values[0][1]) for rows in door.ask([f'SELECT last("received_at") FROM "{BATCH}"'])), default=0)


def _select(condition: str) -> str:
    return f'SELECT {_COLUMNS} FROM "{BATCH}" WHERE {condition} GROUP BY "site", "agent"'


def _tail(announced: int | None) -> list[str]:
    """The rows that can be new though nobody marked them."""
    return [_select("time >= 0" if announced is None else f"time >= {announced - NEAR_MS}ms")]


def _marked(announced: int, door: Door) -> list[str]:
    """The rows of hours that were marked since."""
    statement = f'SELECT "agent", "hour" FROM "{BATCH_LATE}" WHERE time >= {announced}ms GROUP BY "site"'
    marked = {(rows.tags["site"], agent, hour) for rows in door.ask([statement]) for _, agent, hour in rows.values}
    return [
        _select(
            f'"site" = {tag_value_text(decode_tag(site))} AND "agent" = {tag_value_text(agent)}'
            f" AND time >= {hour}ms AND time < {hour + HOUR_MS}ms"
        )
        for site, agent, hour in sorted(marked)
    ]
