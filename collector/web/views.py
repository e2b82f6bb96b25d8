"""The first page, the tree, and the page that is not there: taken from the snapshot, in the reader's words."""

import difflib
from collections.abc import Iterable

from collector.report import INDICATORS
from collector.snapshot import Snapshot
from collector.web.continuity_view import describe_standing
from collector.web.figures import Bar, Tree, criterion_row, show_weight
from collector.web.questions import path_of_subject
from collector.web.subject_view import known_subjects
from collector.web.troubles import count_alive, list_blind_spots, list_due, list_troubles
from collector.web.view import Link, View

NEAREST_SHOWN = 3
MOSTLY_UNPROVEN = 50.0
"""While more points than this lie open in one of the two indicators, the first page leads to the first steps."""


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
            "outside": show_weight(1 - _measured_share(tree)),
            "revision": snapshot.scorecard.revision,
            "agents": count_alive(snapshot),
            "troubles": list_troubles(snapshot),
            "continuity": describe_standing(snapshot),
            "due": list_due(snapshot),
            "blind_spots": list_blind_spots(snapshot),
            "is_unproven": any(row.bar.open > MOSTLY_UNPROVEN for row, _ in groups),
        },
    )


def _measured_share(tree: Tree) -> float:
    """How much of the whole index hangs on leaves that telemetry scores."""
    shares: dict[str, float] = {}
    for node in tree.nodes.values():  # parents come first
        shares[node.id] = node.effective_weight * (shares[node.parent] if node.parent else 1.0)
    return sum(
        shares[node.id]
        for node in tree.nodes.values()
        if any(criterion.kind == "measured" and criterion.weight > 0 for criterion in node.criteria)
    )


def tree_view(snapshot: Snapshot) -> View:
    """All nodes of the index."""
    tree = Tree.of(snapshot.scorecard)
    rows = [tree.row(node) for node in snapshot.scorecard.nodes]
    return View("tree.html", {"title": str(snapshot.rules.book.index.title), "rows": rows})


def missing_view(snapshot: Snapshot | None, path: str) -> View:
    """A page that is not there; what comes nearest to it among those of its kind."""
    return View("missing.html", {"nearest": _nearest(snapshot, path) if snapshot else []})


def _nearest(snapshot: Snapshot, path: str) -> list[Link]:
    kind, _, name = path.lstrip("/").partition("/")
    nodes = snapshot.scorecard.nodes
    if kind == "node":
        return [Link(f"/node/{one}", one) for one in _close(name, [node.id for node in nodes])]
    if kind == "criterion":
        known = [criterion.id for node in nodes for criterion in node.criteria]
        return [Link(f"/criterion/{one}", one) for one in _close(name, known)]
    if kind == "subject":
        return [Link(path_of_subject(one), one) for one in _close(name, known_subjects(snapshot))]
    return []


def _close(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, sorted(known), n=NEAREST_SHOWN, cutoff=0.4)
