"""Times as a person writes them in the site folder: days of the site, moments with an offset, hours of a week."""

import datetime
import re
from collections.abc import Iterator
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from agent.language import say

_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"T[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})"

Day = Annotated[str, msgspec.Meta(pattern=f"^{_DAY}$", description="日期，如 2026-01-01 / a date such as 2026-01-01")]
Moment = Annotated[
    str,
    msgspec.Meta(
        pattern=f"^{_DAY}({_TIME})?$",
        description=(
            "日期，如 2026-01-01，或带时区的时刻，如 2026-01-01T08:00:00+08:00 / "
            "a date such as 2026-01-01, or a time with its offset such as 2026-01-01T08:00:00+08:00"
        ),
    ),
]
"""A date means the site's midnight at which that day begins."""

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_OF_DAY = 24 * 60

_MOMENT = re.compile(f"({_DAY})({_TIME})?")
_HOURS = re.compile("([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])")


def find_zone(name: str) -> ZoneInfo | None:
    """The time zone of this name; None when this system knows none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of the database, such as `Asia`
        return None


def explain_zone(name: str) -> str:
    """Why `name` is no time zone."""
    return say(
        f"'time_zone'：系统中没有时区 '{name}'；应如 Asia/Shanghai，并已安装 tzdata",
        f"'time_zone': this system knows no zone '{name}'; expected one like Asia/Shanghai, with tzdata installed",
    )


def parse_day(text: str) -> datetime.date:
    """The day that `2026-01-01` names. Raises ValueError for one that the calendar does not have."""
    return datetime.date.fromisoformat(text)


def parse_moment(text: str, zone: ZoneInfo) -> int:
    """Milliseconds of a Moment. Raises ValueError for what is none, such as a time without its offset."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    try:
        if match[2] is None:
            return midnight(parse_day(text), zone)
        return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)
    except OverflowError as error:
        raise ValueError(text) from error


def midnight(day: datetime.date, zone: ZoneInfo, minutes: int = 0) -> int:
    """Milliseconds of the moment at which the site's clocks show `minutes` past the midnight that begins `day`."""
    at = datetime.datetime.combine(day, datetime.time()) + datetime.timedelta(minutes=minutes)
    return round(at.replace(tzinfo=zone).timestamp() * 1000)


def format_moment(milliseconds: int, zone: ZoneInfo) -> str:
    """A Moment as a person writes it: a date for a midnight of the site, else a time with the site's offset."""
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, zone)
    if moment.time() == datetime.time():
        return moment.date().isoformat()
    return moment.isoformat(timespec="seconds" if not moment.microsecond else "milliseconds")


def parse_weekdays(text: str) -> tuple[int, ...]:
    """The weekdays (0 is Monday) of `mon` or `mon-fri`; a range may go over Sunday. Raises ValueError."""
    first, _, last = text.partition("-")
    begin, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
    return tuple((begin + step) % 7 for step in range((end - begin) % 7 + 1))


def parse_hours(text: str) -> tuple[int, int]:
    """Minutes of the day, from and until, of `08:00-12:00`; 24:00 is the day's end. Raises ValueError."""
    match = _HOURS.fullmatch(text)
    if match is None:
        raise ValueError(text)
    hour, minute, until_hour, until_minute = (int(part) for part in match.groups())
    start, end = hour * 60 + minute, until_hour * 60 + until_minute
    if not start < end <= MINUTES_OF_DAY:
        raise ValueError(text)
    return start, end


def days_between(start_ms: int, end_ms: int, zone: ZoneInfo) -> Iterator[datetime.date]:
    """Every day of the site that has a part in [start_ms, end_ms)."""
    day = datetime.datetime.fromtimestamp(start_ms / 1000, zone).date()
    last = datetime.datetime.fromtimestamp(end_ms / 1000, zone).date()
    while day <= last:
        yield day
        day += datetime.timedelta(days=1)
