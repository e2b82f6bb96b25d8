"""Stored scorecards over time: what a list shows of each, and why a revision exists."""

from collections.abc import Mapping, Sequence

import msgspec

from agent.catalogue import Text
from collector.evaluate import format_time, parse_time
from collector.evidence import CriterionResult
from collector.score import Scorecard
from collector.site_folder import SiteFolder
from collector.stores import DrawnAsset, Score, Store


class Summary(msgspec.Struct, frozen=True):
    """What a list of scorecards shows of each: the whole index and the two indicators with what is below them.

    nodes: low and high. coverages: of the same nodes; empty in what older programs stored.
    """

    low: float
    high: float
    coverage: float
    nodes: Mapping[str, tuple[float, float]]
    coverages: Mapping[str, float] = {}


class HistoryRow(msgspec.Struct, frozen=True):
    """One stored revision; why: why it exists, empty for a first one."""

    as_of: str
    revision: int
    written_at: str
    why: str
    summary: Summary | None


def read_history(store: Store, site: str, since: int) -> Sequence[HistoryRow]:
    """Every revision with as_of at or after `since` (ms), oldest first."""
    return [
        HistoryRow(
            format_time(row.as_of),
            row.revision,
            format_time(row.written_at),
            row.why,
            msgspec.json.decode(row.summary, type=Summary) if row.summary else None,
        )
        for row in store.scorecard_list(site, since, 2**62)
    ]


def summarize(card: Scorecard) -> str:
    """The Summary of a scorecard as the text that is stored beside it."""
    near = [node for node in card.nodes if node.level == 1 or _is_near(node.id)]
    nodes = {node.id: (node.low, node.high) for node in near}
    coverages = {node.id: round(node.coverage, 4) for node in near}
    return msgspec.json.encode(Summary(card.total.low, card.total.high, card.total.coverage, nodes, coverages)).decode()


def scores_of(card: Scorecard) -> list[Score]:
    """Every number of a scorecard, for a store that others draw courses from: the whole index is the node `total`."""
    total = card.total
    scores = [Score("node", "total", total.low, total.high, total.coverage)]
    scores += [Score("node", node.id, node.low, node.high, node.coverage, node.status) for node in card.nodes]
    criteria = {one.id: one for node in card.nodes for one in node.criteria}
    return scores + [_score_of(one) for one in criteria.values()]


def _score_of(one: CriterionResult) -> Score:
    expires = parse_time(one.attestation.expires) if one.attestation else None
    return Score("criterion", one.id, one.low, one.high, one.coverage, one.status, expires)


DRAWN_ATTRIBUTES = ("class", "criticality", "zone")
"""Of the register's attributes those that have one value."""


def assets_of(folder: SiteFolder, owners: Mapping[str, str], as_of: int) -> list[DrawnAsset]:
    """The assets at `as_of` for whoever draws: those of the register, and those that only report; owners: asset -> agent."""
    entries = folder.entries.get("assets", {})
    drawn = [
        DrawnAsset(name, {key: entry.attributes[key][0] for key in DRAWN_ATTRIBUTES if entry.attributes.get(key)}, True)
        for name, entry in entries.items()
        if (entry.since or 0) <= as_of < entry.until
    ]
    return drawn + [DrawnAsset(name, {}, False) for name in owners if name not in entries]


def _is_near(node: str) -> bool:
    return node.startswith(("hospital.data-availability", "hospital.network-security"))


def explain_revision(before: Scorecard, after: Scorecard) -> str:
    """Why a scorecard of a time that had one already is another now; both languages, as it is stored."""
    digests = {
        "rules": Text("规则改了", "the rules were changed"),
        "site_folder": Text("医院资料改了", "the site folder was changed"),
        "catalogue": Text("信号目录改了", "the catalogue was changed"),
        "data": Text("后来又到了数据", "more data came in"),
    }
    named = [text for name, text in digests.items() if getattr(before.digests, name) != getattr(after.digests, name)]
    named = named or [Text("程序版本不同", "another version of the program")]
    return "，".join(text.zh for text in named) + " / " + ", ".join(text.en for text in named)
