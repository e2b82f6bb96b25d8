"""What every page is made of: a template with what it lays out, and the frame around it."""

from collections.abc import Sequence
from typing import NamedTuple

from agent.language import say
from collector import simulated
from collector.snapshot import Snapshot
from collector.web.times import ago, clock_time

STALE_MS = 15 * 60_000
"""Figures older than this are called old; the slowest live view of a large site comes sooner."""

Facts = list[tuple[str, str]]
"""(name, value) pairs in the order in which they are read."""


class View(NamedTuple):
    """A template and what it lays out."""

    template: str
    values: dict[str, object]


class Link(NamedTuple):
    """Where a text leads; path: '' where it leads nowhere."""

    path: str
    text: str


class Place(NamedTuple):
    """One entry of the navigation."""

    path: str
    title: str
    is_here: bool


class Frame(NamedTuple):
    """What stands around every page. site, title: the hospital's id, and its name where its folder has one; taken: empty
    before the first figures; stale: a warning or empty; simulated: that the data is made up, or empty."""

    places: Sequence[Place]
    site: str
    taken: str
    stale: str
    title: str = ""
    simulated: str = ""


NO_FRAME = Frame((), "", "", "")
"""Around a page that leads nowhere."""


def frame_of(snapshot: Snapshot | None, path: str, now: int) -> Frame:
    """The frame of the page at `path`; now: milliseconds."""
    named = (
        ("/", say("就绪度", "Readiness")),
        ("/tree", say("指标树", "Index tree")),
        ("/failover", say("连续性", "Continuity")),
        ("/network", say("网络", "Network")),
        ("/attestations", say("证明", "Attestations")),
        ("/history", say("历史", "History")),
        ("/agents", say("采集状态", "Agents")),
        ("/ledger", say("对账", "Ledger")),
        ("/start", say("起步", "Getting started")),
    )
    places = [Place(target, title, path == target) for target, title in named]
    if snapshot is None:
        return Frame(places, "", "", "")
    taken, title = clock_time(snapshot.taken_at, snapshot.zone), snapshot.folder.title
    site = snapshot.scorecard.site
    made_up = simulated.notice() if simulated.is_simulated(site) else ""
    return Frame(places, site, taken, _stale(snapshot, now), str(title) if title else "", made_up)


def _stale(snapshot: Snapshot, now: int) -> str:
    age = ago(snapshot.taken_at, now)
    if snapshot.store_trouble:
        return say(
            f"存储读不到，以下是{age}的情况：{snapshot.store_trouble}",
            f"The store cannot be read; this is how it was {age}: {snapshot.store_trouble}",
        )
    if now - snapshot.taken_at <= STALE_MS:
        return ""
    return say(
        f"以下数字是{age}的，之后没有更新成功；原因见采集中心的日志。",
        f"These figures are from {age} and could not be renewed since; the collector's log says why.",
    )
