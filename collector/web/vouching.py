"""What people vouch for, as rows: who, until when, on which paper, and how it counts now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.language import say
from collector.evaluate import parse_time
from collector.evidence import CriterionResult
from collector.query import DAY_MS
from collector.report import INDICATORS
from collector.score import NodeResult
from collector.site_folder import Attestation
from collector.snapshot import Snapshot
from collector.web.figures import show_weight
from collector.web.times import day
from collector.web.view import Facts, Link

DUE_DAYS = 30
"""An attestation that ends sooner is named on the first page."""

State = Literal["valid", "expired", "document_missing", "none"]


@dataclass(frozen=True)
class Vouching:
    """One criterion with what is vouched for it, if anything. days_left: None without an attestation."""

    result: CriterionResult
    node: NodeResult
    said: Attestation | None
    state: State
    days_left: int | None

    @property
    def needs_attention(self) -> bool:
        """Whether something that was vouched for counts no longer, or soon will not."""
        return self.days_left is not None and (self.state != "valid" or self.days_left <= DUE_DAYS)

    @property
    def is_near(self) -> bool:
        """Whether it stands in one of the two indicators that telemetry scores."""
        return any(self.node.id == name or self.node.id.startswith(f"{name}.") for name in INDICATORS)


@dataclass(frozen=True)
class VouchingRow:
    """A `Vouching` in the reader's words; state: a status's class. left: how long it still holds, or since when it does not."""

    criterion: Link
    name: str
    node: Link
    serves: str
    state: str
    word: str
    author: str
    expires: str
    left: str
    document: str


def list_vouching(snapshot: Snapshot) -> list[Vouching]:
    """Every attested criterion of the index and every measured one that is declared not to apply; what needs attention first, none last."""
    found = [
        one
        for node in snapshot.scorecard.nodes
        for result in node.criteria
        if (one := _vouching(snapshot, node, result)) is not None
    ]
    return sorted(
        found, key=lambda one: (one.said is None, not one.needs_attention, one.said.expires if one.said else 0)
    )


def _vouching(snapshot: Snapshot, node: NodeResult, result: CriterionResult) -> Vouching | None:
    said = find_attestation(snapshot, result)
    if said is None:
        return Vouching(result, node, None, "none", None) if result.kind == "attested" else None
    return Vouching(result, node, said, find_state(snapshot, result, said), days_left(snapshot, said.expires))


def find_attestation(snapshot: Snapshot, result: CriterionResult) -> Attestation | None:
    """What counts as vouched for this criterion at the scorecard's time; of a measured one only that it does not apply."""
    said = snapshot.folder.attestation_of(result.id, parse_time(snapshot.scorecard.as_of))
    if said is None or (result.kind == "measured" and not said.is_not_applicable):
        return None
    may_not_apply = snapshot.rules.book.criteria[result.id].not_applicable is not None
    return said if may_not_apply or not said.is_not_applicable else None


def find_state(snapshot: Snapshot, result: CriterionResult, said: Attestation) -> State:
    """How an attestation counts; evidence holds it, but for a measured criterion whose exception counts no longer."""
    if result.attestation is not None:
        return result.attestation.state
    return "expired" if parse_time(snapshot.scorecard.as_of) >= said.expires else "document_missing"


def days_left(snapshot: Snapshot, expires: int) -> int:
    """Whole days until `expires`; negative when it is over."""
    return (expires - parse_time(snapshot.scorecard.as_of)) // DAY_MS


def vouching_row(snapshot: Snapshot, one: Vouching) -> VouchingRow:
    """One row."""
    said = one.said
    state, word = state_word(one.state, bool(said and said.is_not_applicable))
    if one.state == "valid" and one.needs_attention:
        state, word = "provisional", say("即将到期", "ends soon")
    return VouchingRow(
        criterion=Link(f"/criterion/{one.result.id}", str(one.result.title)),
        name=one.result.id,
        node=Link(f"/node/{one.node.id}", str(one.node.title)),
        serves=_serves(snapshot, one.result),
        state=state,
        word=word,
        author=say(f"{said.author}（{said.role}）", f"{said.author} ({said.role})") if said else "",
        expires=day(said.expires, snapshot.zone) if said else "",
        left=spell_left(one.days_left),
        document=_paper(said) if said else "",
    )


def _paper(said: Attestation) -> str:
    return said.document.path if said.document else say("未附文件", "no document attached")


def state_word(state: State, is_exception: bool) -> tuple[str, str]:
    """The class and the word of a state; an exception is what says that a criterion does not apply."""
    if state == "valid" and is_exception:
        return "not_applicable", say("不适用", "does not apply")
    return {
        "valid": ("good", say("有效", "valid")),
        "expired": ("bad", say("已过期", "expired")),
        "document_missing": ("bad", say("文件缺失或已改动", "document gone or changed")),
        "none": ("none", say("尚无证明", "none yet")),
    }[state]


def spell_left(days: int | None) -> str:
    """How many days are left, or have passed."""
    if days is None:
        return ""
    if days < 0:
        return say(f"已过 {-days} 天", f"{-days} d over")
    return say("今天到期", "today") if days == 0 else say(f"还有 {days} 天", f"{days} d left")


def _serves(snapshot: Snapshot, result: CriterionResult) -> str:
    """What it is good for: a share of its indicator, a ceiling, or a paper for the assessor."""
    caps = [cap for cap in snapshot.rules.book.index.caps if cap.criterion == result.id]
    if caps:
        ceilings = say("、", ", ").join(f"{cap.ceiling:g}" for cap in caps)
        return say(f"封顶 {ceilings} 的依据", f"decides the cap at {ceilings}")
    if result.status == "not_applicable":
        return say("声明不适用，不占权重", "says that it does not apply; it weighs nothing")
    if result.weight > 0:
        return say(f"权重 {show_weight(result.effective_weight)}", f"weight {show_weight(result.effective_weight)}")
    return say("支撑文件", "supporting document")


# -- on a criterion's own page


@dataclass(frozen=True)
class VouchingBlock:
    """What is vouched for one criterion. command: how to add or renew it."""

    state: str
    word: str
    facts: Facts
    advice: str
    command: str


def vouching_block(snapshot: Snapshot, result: CriterionResult) -> VouchingBlock | None:
    """None for a measured criterion of which nobody says that it does not apply."""
    said = find_attestation(snapshot, result)
    if said is None and result.kind == "measured":
        return None
    state = find_state(snapshot, result, said) if said else "none"
    word, text = state_word(state, bool(said and said.is_not_applicable))
    left = days_left(snapshot, said.expires) if said else None
    return VouchingBlock(
        state=word,
        word=text,
        facts=_facts(snapshot, result, said, left) if said else [],
        advice=_advice(snapshot, result, state, left),
        command=_command(snapshot, result, said),
    )


def _facts(snapshot: Snapshot, result: CriterionResult, said: Attestation, left: int | None) -> Facts:
    zone = snapshot.zone
    facts = [
        (say("证明人", "Vouched for by"), said.author),
        (say("职务", "Role"), said.role),
        (say("生效", "From"), f"{day(said.since, zone)} {zone.key}"),
        (say("到期", "Until"), f"{day(said.expires, zone)} {zone.key} · {spell_left(left)}"),
    ]
    if said.value is not None and not said.is_not_applicable:
        facts.append((say("证明的数值", "Value vouched for"), f"{said.value:g}"))
    if said.reason:
        facts.append((say("理由", "Reason"), said.reason))
    if said.document is not None:
        facts.append((say("文件", "Document"), said.document.path))
        facts.append((say("登记的文件摘要 SHA-256", "Document's SHA-256 as recorded"), said.document.sha256))
    else:
        facts.append((say("文件", "Document"), _paper(said)))
    return [*facts, (say("写在", "Written at"), said.place)] if said.place else facts


def _advice(snapshot: Snapshot, result: CriterionResult, state: State, left: int | None) -> str:
    valid = snapshot.rules.book.criteria[result.id].valid or ""
    most = say(f"，每次最长 {valid}", f", for {valid} at most") if valid else ""
    if state == "none":
        return say(f"尚无人证明。由了解情况的人提供{most}：", f"Nobody has vouched for this yet. Add it{most}:")
    if state == "document_missing":
        return say(
            "文件不在站点目录中，或内容与登记的摘要不符，因此不计分。放回原文件，或用新文件续期：",
            "The document is not in the site folder, or is not what the digest says, so it earns nothing. Put it back, or renew with a new one:",
        )
    if state == "expired":
        return say(f"已过期，不再计分。续期{most}：", f"It has expired and earns nothing. Renew it{most}:")
    if left is not None and left <= DUE_DAYS:
        return say(f"还有 {left} 天到期，请及时续期{most}：", f"It ends in {left} days; renew it in time{most}:")
    return say(f"到期前续期{most}：", f"Before it ends, renew it{most}:")


def _command(snapshot: Snapshot, result: CriterionResult, said: Attestation | None) -> str:
    commands = snapshot.commands
    date, paper = say("日期", "DATE"), say("文件", "FILE")
    if said is not None:
        return commands.spell("attest renew", result.id, f"--expires {date}", f"--document {paper}")
    words = (
        f"--value {say('数值', 'VALUE')}",
        f"--reason {say('理由', 'REASON')}",
        f"--author {say('姓名', 'NAME')}",
        f"--role {say('职务', 'ROLE')}",
        f"--document {paper}",
        f"--expires {date}",
    )
    return commands.spell("attest add", result.id, *words)


# -- the page of all of them


def count_states(found: Sequence[Vouching]) -> list[tuple[str, int]]:
    """(word, how many) of every state that there is, those to be seen to first."""
    due = sum(one.needs_attention and one.state == "valid" for one in found)
    counts = [
        (say("已过期", "expired"), sum(one.state == "expired" for one in found)),
        (say("文件缺失", "document gone"), sum(one.state == "document_missing" for one in found)),
        (say(f"{DUE_DAYS} 天内到期", f"due within {DUE_DAYS} days"), due),
        (say("有效", "valid"), sum(one.state == "valid" for one in found)),
        (say("尚无证明", "none yet"), sum(one.state == "none" for one in found)),
    ]
    return [(word, count) for word, count in counts if count]
