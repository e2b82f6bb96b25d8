"""What stands beside the explanation of network isolation: the matrix as the wire showed it last, its holes and its proofs."""

from collections.abc import Iterator, Sequence

from agent.catalogue import load
from agent.language import say
from collector.evaluate import format_time
from collector.evidence import CriterionResult
from collector.network import NetworkFacts, Scan, TriedCell
from collector.score import NodeResult

SHOWN_WITH = ("network-isolation", "zone-isolation-proven", "exposed-service-count")
CELLS_SHOWN = 60


def belongs_to(found: NodeResult | CriterionResult) -> bool:
    """Whether the matrix helps to understand this number."""
    return found.id.rpartition(".")[2] in SHOWN_WITH


def matrix_lines(facts: NetworkFacts) -> Iterator[str]:
    """A line for each direction with its last proof, then each cell that is open, not as the policy says, or unproven."""
    yield say(
        "最近一轮实测(不是得分；得分看 30 天)：",
        "the last round on the wire (no score; the score looks back 30 days):",
    )
    if not facts.cells:
        yield say("  还没有隔离实测", "  no isolation was tried yet")
    pairs: dict[tuple[str, str], list[TriedCell]] = {}
    for one in facts.cells:
        pairs.setdefault((one.from_zone, one.to_zone), []).append(one)
    for (a, b), cells in sorted(pairs.items()):
        yield _pair_line(f"{a} -> {b}", cells)
    yield from _wrong_lines([one for one in facts.cells if not one.is_as_expected])
    for scan in facts.scans:
        yield from _scan_lines(scan)


def _pair_line(pair: str, cells: Sequence[TriedCell]) -> str:
    holes, agreeing = sum(one.is_breached for one in cells), sum(one.is_as_expected for one in cells)
    unproven = sum(not one.is_proven for one in cells)
    counts = say(
        f"{len(cells)} 格，与策略一致 {agreeing}，漏洞 {holes}，未证实 {unproven}",
        f"{len(cells)} cells, {agreeing} as the policy says, {holes} open, {unproven} unproven",
    )
    proven = max((one for one in cells if one.is_proven), key=lambda one: one.tried_at, default=None)
    if proven is None:
        return f"  {pair}  {counts}" + say("；没有证明", "; no proof")
    proof = say("；最近证明 ", "; last proof ") + f"{format_time(proven.tried_at)} {_way(proven)} {proven.nonce}"
    return f"  {pair}  {counts}{proof}"


def _wrong_lines(cells: Sequence[TriedCell]) -> Iterator[str]:
    if not cells:
        return
    yield say("与策略不符或未证实的单元：", "cells that are not as the policy says, or unproven:")
    states = load().measurements["isolation_cell"].fields["outcome"].states
    for one in cells[:CELLS_SHOWN]:
        mark = say("漏洞", "hole") if one.is_breached else say("不符", "differs")
        if not one.is_proven:
            mark = say("未证实", "unproven")
        wire = str(states[str(one.outcome)]) + (f" ({one.refused_by})" if one.refused_by else "")
        policy = policy_word(one)
        text = say(f"策略 {policy}，实测 {wire}", f"policy {policy}, wire {wire}")
        where = f"{one.from_zone} -> {one.to_zone} {_way(one)}"
        yield f"  {mark}  {where}  {text}  {format_time(one.tried_at)} {one.nonce}"
    if len(cells) > CELLS_SHOWN:
        more = len(cells) - CELLS_SHOWN
        yield say(f"  另有 {more} 格", f"  and {more} more")


def policy_word(cell: TriedCell) -> str:
    """What the policy says of a cell, '—' where it says nothing."""
    return {None: "—", True: say("放行", "allowed"), False: say("阻断", "blocked")}[cell.is_allowed]


def _scan_lines(scan: Scan) -> Iterator[str]:
    found = " ".join(scan.exposed) or say("没有", "nothing")
    whole = say("已扫完", "complete") if scan.is_complete else say("未扫完，不算数", "not complete, says nothing")
    silent = say(f"，UDP 无回音 {scan.udp_silent}", f", {scan.udp_silent} silent over UDP") if scan.udp_silent else ""
    yield say(
        f"从外部({scan.scanner})可达：{found}（{scan.scanned} 个端口，{whole}{silent}，{format_time(scan.scanned_at)}）",
        f"reached from outside ({scan.scanner}): {found} ({scan.scanned} ports, {whole}{silent}, {format_time(scan.scanned_at)})",
    )


def _way(one: TriedCell) -> str:
    return f"{one.protocol}/{one.port}"
