"""Times as the pages show them: in the site's zone, with how long ago beside them."""

import datetime
from zoneinfo import ZoneInfo

from agent.language import say


def clock_time(milliseconds: int, zone: ZoneInfo) -> str:
    """A time in the site's zone, the zone beside it."""
    return f"{_local(milliseconds, zone)} {zone.key}"


def local_time(milliseconds: int, zone: ZoneInfo) -> str:
    """A time in the site's zone to the minute, for tables that name the zone once."""
    return _local(milliseconds, zone)[:-3]


def local_moment(milliseconds: int, zone: ZoneInfo) -> str:
    """A time in the site's zone to the second, for tables that name the zone once."""
    return _local(milliseconds, zone)


def day(milliseconds: int, zone: ZoneInfo) -> str:
    """A day in the site's zone; its time beside it unless it is midnight."""
    shown = local_time(milliseconds, zone)
    return shown.removesuffix(" 00:00")


def window(span: tuple[int, int], zone: ZoneInfo) -> str:
    """From when to when, the zone once."""
    return f"{_local(span[0], zone)} – {clock_time(span[1], zone)}"


def ago(milliseconds: int, now: int) -> str:
    """How long ago, roughly."""
    seconds = max(0, (now - milliseconds) // 1000)
    for size, zh, en in ((86_400, "天前", "d ago"), (3600, "小时前", "h ago"), (60, "分钟前", "min ago")):
        if seconds >= size:
            return say(f"{seconds // size} {zh}", f"{seconds // size} {en}")
    return say(f"{seconds} 秒前", f"{seconds} s ago")


def _local(milliseconds: int, zone: ZoneInfo) -> str:
    return f"{datetime.datetime.fromtimestamp(milliseconds / 1000, zone):%Y-%m-%d %H:%M:%S}"
