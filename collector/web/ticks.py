"""Where the labels of a time axis stand: months over a year, halves of months over a quarter, days over less."""

import datetime
from collections.abc import Iterator
from typing import NamedTuple
from zoneinfo import ZoneInfo

from agent.language import say
from collector.query import DAY_MS

MONTHS_FROM_DAYS, HALVES_FROM_DAYS = 150, 45
MOST_DAYS = 6
"""Labels where single days are named."""
NEAR_EDGE = 4.0
"""A label this near (per cent) to the edge of the picture leans inwards."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Tick(NamedTuple):
    """One label. place: per cent of the width. anchor: as in SVG. year: below it, where one begins or is named
    first. is_minor: a narrow picture does without it."""

    place: float
    text: str
    year: str
    anchor: str
    is_minor: bool


def ticks(since: int, until: int, zone: ZoneInfo) -> list[Tick]:
    """The labels between two times (ms), from left to right."""
    found: list[Tick] = []
    told = 0  # the year
    for one, text, is_minor in _days(since, until, zone):
        at = datetime.datetime(one.year, one.month, one.day, tzinfo=zone).timestamp() * 1000
        place = round(100 * (at - since) / (until - since), 2)
        if place < 0:
            continue
        anchor = "start" if place < NEAR_EDGE else "end" if place > 100 - NEAR_EDGE else "middle"
        is_told = is_minor or one.year == told
        found.append(Tick(place, text, "" if is_told else str(one.year), anchor, is_minor))
        told = told if is_minor else one.year
    return found


def _days(since: int, until: int, zone: ZoneInfo) -> Iterator[tuple[datetime.date, str, bool]]:
    """The days that get a label, the label, and whether a narrow picture does without it; a January never is minor."""
    first, last = (datetime.datetime.fromtimestamp(at / 1000, zone).date() for at in (since, until))
    length = (until - since) // DAY_MS
    all_days = [first + datetime.timedelta(days=back) for back in range((last - first).days + 1)]
    if length >= MONTHS_FROM_DAYS:
        yield from ((one, _month(one), one.month % 2 == 0) for one in all_days if one.day == 1)
    elif length >= HALVES_FROM_DAYS:
        yield from ((one, _day(one), one.day == 16) for one in all_days if one.day in (1, 16))
    else:
        step = max(1, -(-length // MOST_DAYS))
        yield from ((one, _day(one), number % 2 == 1) for number, one in enumerate(all_days[::step]))


def _month(one: datetime.date) -> str:
    return say(f"{one.month}月", MONTHS[one.month - 1])


def _day(one: datetime.date) -> str:
    return say(f"{one.month}月{one.day}日", f"{one.day} {MONTHS[one.month - 1]}")
