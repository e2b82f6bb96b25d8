"""What each page shows, taken from the snapshot and put into the reader's words; templates only lay it out."""

from collections.abc import Sequence
from typing import NamedTuple

from agent.language import say
from collector.report import INDICATORS
from collector.snapshot import Snapshot
from collector.web.figures import Bar, NodeRow, Tree, criterion_row, show_points
from collector.web.times import ago, clock_time

STALE_MS = 15 * 60_000
"""Figures older than this are called old; the slowest live view of a large site comes sooner."""


class View(NamedTuple):
    """A template and what it lays out."""

    template: str
    values: dict[str, object]


class Place(NamedTuple):
    """One entry of the navigation."""

    path: str
    title: str
    is_here: bool


class Frame(NamedTuple):
    """What stands around every page. taken, as_of: empty before the first figures; stale: a warning or empty."""

    places: Sequence[Place]
    site: str
    taken: str
    stale: str


def frame_of(snapshot: Snapshot | None, path: str, now: int) -> Frame:
    """The frame of the page at `path`; now: milliseconds."""
    places = [
        Place("/", say("就绪度", "Readiness"), path == "/"),
        Place("/tree", say("指标树", "Index tree"), path == "/tree"),
        Place("/agents", say("采集状态", "Agents"), path == "/agents"),
    ]
    if snapshot is None:
        return Frame(places, "", "", "")
    return Frame(places, snapshot.scorecard.site, clock_time(snapshot.taken_at, snapshot.zone), _stale(snapshot, now))


def _stale(snapshot: Snapshot, now: int) -> str:
    if now - snapshot.taken_at <= STALE_MS:
        return ""
    age = ago(snapshot.taken_at, now)
    return say(
        f"以下数字是{age}的，之后没有更新成功；原因见采集中心的日志。",
        f"These figures are from {age} and could not be renewed since; the collector's log says why.",
    )


def readiness_view(snapshot: Snapshot) -> View:
    """The two indicators and the eleven, what needs attention, what is provisional, and the total, small."""
    tree = Tree.of(snapshot.scorecard)
    groups = [
        (tree.row(tree.nodes[name]), [tree.row(child) for child in tree.children(name)])
        for name in INDICATORS
        if name in tree.nodes
    ]
    criteria = [criterion for node in snapshot.scorecard.nodes for criterion in node.criteria]
    total = snapshot.scorecard.total
    return View(
        "readiness.html",
        {
            "groups": groups,
            "provisional": [criterion_row(criterion) for criterion in criteria if criterion.provisional],
            "total": Bar(total.low, total.high, total.coverage),
            "revision": snapshot.scorecard.revision,
            "agents": count_alive(snapshot),
            "troubles": list_troubles(snapshot),
        },
    )


def count_alive(snapshot: Snapshot) -> str:
    """How many agents are alive, of how many."""
    alive, known = sum(agent.is_alive for agent in snapshot.agents), len(snapshot.agents)
    return say(f"采集代理 {alive}/{known} 在线", f"{alive} of {known} agents alive")


def list_troubles(snapshot: Snapshot) -> list[str]:
    """What an operator should look at, a few words each."""
    silent = [agent.agent for agent in snapshot.agents if not agent.is_alive]
    failing = [
        f"{source.asset} {source.source}"
        for agent in snapshot.agents
        for source in agent.sources
        if source.is_fresh and not source.is_success
    ]
    set_aside = sum(snapshot.set_aside.values())
    missing = sum(last - first + 1 for agent in snapshot.agents for _, first, last in agent.holes)
    return [
        *([say("采集代理静默：", "silent agents: ") + _name_some(silent)] if silent else []),
        *([say("采集失败：", "failing: ") + _name_some(failing)] if failing else []),
        *([say(f"缺失 {missing} 批", f"missing batches: {missing}")] if missing else []),
        *([say(f"搁置 {set_aside} 条数据", f"set aside: {set_aside}")] if set_aside else []),
    ]


NAMES_SHOWN = 3


def _name_some(names: Sequence[str]) -> str:
    shown = say("、", ", ").join(names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return shown + say(f" 等 {len(names)} 个", f" and {rest} more") if rest > 0 else shown


def tree_view(snapshot: Snapshot) -> View:
    """All nodes of the index."""
    tree = Tree.of(snapshot.scorecard)
    rows = [tree.row(node) for node in snapshot.scorecard.nodes]
    return View("tree.html", {"title": str(snapshot.rules.book.index.title), "rows": rows})


def node_view(snapshot: Snapshot, name: str) -> View | None:
    """One node: where it stands, its children or its criteria; None when there is no such node."""
    tree = Tree.of(snapshot.scorecard)
    node = tree.nodes.get(name)
    if node is None:
        return None
    row: NodeRow = tree.row(node)
    return View(
        "node.html",
        {
            "node": row,
            "trail": tree.trail(node),
            "children": [tree.row(child) for child in tree.children(name)],
            "criteria": [criterion_row(criterion) for criterion in node.criteria],
            "low": show_points(node.low),
            "cap": "" if node.cap is None else f"{node.cap:g}",
        },
    )
