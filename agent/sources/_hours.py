"""When a probe may probe: hours of the day on this machine's own clock and in its own time zone."""

import re
import time

from agent.language import say
from agent.sources import SourceConfig

_WRITTEN = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]|24(?=:00)):([0-5][0-9])")


class ProbeConfig(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """hours: `01:00-05:00`, also over midnight; outside of them the source is off, and its rounds say so. None: always on."""

    hours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in self.hours:
            read_hours(text)

    def is_on(self, at_seconds: float) -> bool:
        """Whether probing is wanted at a time since the epoch."""
        return is_within(self.hours, minute_of_day(at_seconds))


def minute_of_day(at_seconds: float) -> int:
    """The minute of the day by this machine's time zone at a time since the epoch."""
    local = time.localtime(at_seconds)
    return local.tm_hour * 60 + local.tm_min


def is_within(hours: tuple[str, ...], minute: int) -> bool:
    """Whether a minute of the day lies in any of the hours, or there are none; the last minute of a span is outside."""
    spans = [read_hours(text) for text in hours]
    return not spans or any(
        begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in spans
    )


def read_hours(text: str) -> tuple[int, int]:
    """The minutes of the day at which a span begins and ends. Raises ValueError."""
    found = _WRITTEN.fullmatch(text)
    if found:
        hour, minute, end_hour, end_minute = map(int, found.groups())
        begin, end = hour * 60 + minute, end_hour * 60 + end_minute
        if begin != end:
            return begin, end
    raise ValueError(say(f"'{text}' 应写成 01:00-05:00", f"write hours as 01:00-05:00, not '{text}'"))
