"""The network as the wire shows it: policy against wire, exposed services, lines, neighbours."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.catalogue import load
from agent.language import say
from collector.explain_network import policy_word
from collector.network import LineMonth, LineNow, Neighbour, Scan, TriedCell
from collector.site_folder import SiteFolder
from collector.snapshot import Snapshot
from collector.web.times import ago
from collector.web.view import Link, View

CELLS_SHOWN = 400
NEIGHBOURS_SHOWN = 200
INDICATORS = ("hospital.network-security.network-isolation", "hospital.network-security.telemedicine-line")


@dataclass(frozen=True)
class PairRow:
    """One zone towards another. state: as `status` of the templates has it."""

    pair: str
    cells: int
    agreeing: int
    unproven: int
    holes: str
    word: str
    state: str


@dataclass(frozen=True)
class CellRow:
    """One cell in words."""

    pair: str
    way: str
    policy: str
    wire: str
    word: str
    state: str
    tried: str
    nonce: str


def network_view(snapshot: Snapshot) -> View:
    """Matrix, exposure and lines; what is wrong comes first."""
    facts = snapshot.network
    now = snapshot.taken_at
    return View(
        "network.html",
        {
            "pairs": _pairs(facts.cells),
            "strange_zones": _strange_zones(facts.cells, snapshot.folder),
            "cells": [_cell(one, now) for one in facts.cells[:CELLS_SHOWN]],
            "more_cells": max(0, len(facts.cells) - CELLS_SHOWN),
            "scans": [_scan(one, now) for one in facts.scans],
            "lines": [_line(one, now) for one in facts.lines],
            "neighbours": _unmanaged(facts.neighbours, snapshot.folder.section("asset"), now),
            "managed": sum(one.is_managed for one in facts.neighbours),
            "indicators": [
                Link(f"/node/{node.id}", str(node.title)) for node in snapshot.scorecard.nodes if node.id in INDICATORS
            ],
        },
    )


def _pairs(cells: Sequence[TriedCell]) -> list[PairRow]:
    """Every direction between two zones, those with an open way first."""
    grouped: dict[tuple[str, str], list[TriedCell]] = {}
    for one in cells:
        grouped.setdefault((one.from_zone, one.to_zone), []).append(one)
    rows = []
    for (a, b), own in grouped.items():
        holes = [f"{one.protocol}/{one.port}" for one in own if one.is_breached]
        agreeing = sum(one.is_as_expected for one in own)
        unproven = sum(not one.is_proven for one in own)
        word, state = _judge(bool(holes), agreeing == len(own), bool(unproven))
        rows.append(
            PairRow(f"{a} → {b}", len(own), agreeing, unproven, " ".join(holes) or say("无", "none"), word, state)
        )
    return sorted(rows, key=lambda row: (row.state != "bad", row.state == "good", row.pair))


def _strange_zones(cells: Sequence[TriedCell], folder: SiteFolder) -> str:
    """Zones that the probes name and the register lacks, or one that is mistyped there; nothing without a register."""
    named = {zone for one in cells for zone in (one.from_zone, one.to_zone)}
    return say("、", ", ").join(sorted(named - set(folder.section("from_zone")))) if folder.has_register else ""


def _judge(is_open: bool, is_agreeing: bool, is_unproven: bool) -> tuple[str, str]:
    if is_open:
        return say("有漏洞", "open"), "bad"
    if is_agreeing:
        return say("与策略一致", "as the policy says"), "good"
    return (say("未证实", "unproven"), "provisional") if is_unproven else (say("不通", "not passing"), "bad")


def _cell(one: TriedCell, now: int) -> CellRow:
    states = load().measurements["isolation_cell"].fields["outcome"].states
    wire = str(states[str(one.outcome)]) + (f" · {one.refused_by}" if one.refused_by else "")
    word, state = _judge(one.is_breached, one.is_as_expected, not one.is_proven)
    pair, way = f"{one.from_zone} → {one.to_zone}", f"{one.protocol}/{one.port}"
    return CellRow(pair, way, policy_word(one), wire, word, state, ago(one.tried_at, now), one.nonce)


def _scan(one: Scan, now: int) -> dict[str, object]:
    if not one.is_complete:
        word, state = say("未扫完，不算数", "not complete, says nothing"), "provisional"
    elif one.exposed:
        word, state = say("有暴露", "exposed"), "bad"
    else:
        word, state = say("无暴露", "nothing exposed"), "good"
    return {"scan": one, "word": word, "state": state, "when": ago(one.scanned_at, now)}


def _unmanaged(neighbours: Sequence[Neighbour], assets: Collection[str], now: int) -> list[dict[str, object]]:
    """Neighbours that no gateway polls, those that the register lacks first."""
    rows = []
    for one in neighbours:
        if one.is_managed:
            continue
        is_registered = one.name.lower().partition(".")[0] in assets
        word = (
            say("已登记，未纳管", "registered, not polled") if is_registered else say("台账外", "not in the register")
        )
        rows.append(
            {
                "neighbour": one,
                "word": word,
                "state": "provisional" if is_registered else "bad",
                "when": ago(one.seen_at, now),
            }
        )
    return sorted(rows, key=lambda row: row["state"] != "bad")[:NEIGHBOURS_SHOWN]


def _line(one: LineNow, now: int) -> dict[str, object]:
    word, state = (say("通", "up"), "good") if one.is_up else (say("断", "down"), "bad")
    committed = "—" if one.committed is None else f"{one.committed / 1e6:g} Mbit/s"
    return {
        "line": one,
        "word": word,
        "state": state,
        "committed": committed,
        "month": _month(one.month),
        "when": ago(one.seen_at, now),
    }


def _month(month: LineMonth | None) -> str:
    """How much of it the line was up, the worst hour, and how much of the month is known at all."""
    if month is None:
        return "—"
    up, worst, known = (_percent(share) for share in (month.up, month.worst_hour, month.known))
    return say(f"{up}，最差一小时 {worst}，已知 {known}", f"{up}, worst hour {worst}, known {known}")


def _percent(share: float) -> str:
    """Never rounded up to 100 %."""
    return f"{int(share * 100_000) / 1000:g} %"
