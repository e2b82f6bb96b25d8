"""One question with everything that the store answered, as the pages lay it out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from agent.language import say
from collector.evidence import QuestionEvidence, WorstSubject
from collector.plan import Plan
from collector.report import question_lines, show_value
from collector.rulebook import Asking
from collector.site_folder import SECTION_OF_TAG
from collector.snapshot import Snapshot
from collector.web.times import window
from collector.web.view import Facts


class Tag(NamedTuple):
    """One tag of a subject; path: the page of the thing that it names, '' for what has no page."""

    name: str
    value: str
    path: str


class SubjectRow(NamedTuple):
    """One subject: its tags, its number at worst and at best, buckets found of those expected, how many are missing."""

    tags: Sequence[Tag]
    low: str
    high: str
    buckets: str
    missing: str


class QuestionBlock(NamedTuple):
    """One question. name: '' for the only one; anchor: unique on its page; lines: the question in words."""

    name: str
    anchor: str
    lines: Sequence[str]
    facts: Facts
    worst: Sequence[SubjectRow]
    missing: Sequence[SubjectRow]
    exempt: Sequence[Sequence[Tag]]
    query: str


def question_blocks(
    snapshot: Snapshot,
    evidence: Sequence[QuestionEvidence],
    askings: Mapping[str, Asking],
    plan: Plan | None,
    prefix: str = "query",
    scale_unit: str = "",
) -> list[QuestionBlock]:
    """Every question of a criterion or of a cap's condition. scale_unit: of the criterion's scale."""
    return [_block(snapshot, in_unit_of(scale_unit, one), askings, plan, prefix) for one in evidence]


def in_unit_of(scale_unit: str, evidence: QuestionEvidence) -> QuestionEvidence:
    """The only question of a criterion in its scale's unit: a plan cannot know that the mean of a state is a ratio."""
    if evidence.name or not scale_unit:
        return evidence
    unit = scale_unit if evidence.unit == evidence.number_unit else evidence.unit
    return msgspec.structs.replace(evidence, unit=unit, number_unit=scale_unit)


def _block(
    snapshot: Snapshot, evidence: QuestionEvidence, askings: Mapping[str, Asking], plan: Plan | None, prefix: str
) -> QuestionBlock:
    asking = askings.get(evidence.name)
    planned = plan.questions.get(evidence.name) if plan else None
    each = show_value(planned.each_ms / 1000, "seconds") if planned else ""
    return QuestionBlock(
        name=evidence.name,
        anchor=f"{prefix}-{evidence.name}" if evidence.name else prefix,
        lines=question_lines(snapshot.rules, asking, planned) if asking and planned else (),
        facts=_facts(snapshot, evidence, each),
        worst=[subject_row(one, evidence.unit) for one in evidence.worst],
        missing=[subject_row(one, evidence.unit) for one in evidence.missing],
        exempt=[subject_tags(one) for one in evidence.exempt],
        query=evidence.query,
    )


def _facts(snapshot: Snapshot, evidence: QuestionEvidence, each: str) -> Facts:
    """What the store was asked and what it held."""
    lacking = evidence.expected - evidence.found
    share = show_value(lacking / evidence.expected, "ratio") if evidence.expected else ""
    facts = [
        (say("统计窗口", "Window"), window(evidence.window, snapshot.zone)),
        (say("对象数", "Subjects"), str(evidence.subjects)),
        (
            say("时间桶：实有 / 应有", "Buckets: found / expected"),
            f"{evidence.found} / {evidence.expected}" + (f" ({each})" if each else ""),
        ),
        (say("缺失的时间桶", "Missing buckets"), f"{lacking}" + (f" ({share})" if lacking else "")),
        (say("样本数", "Samples"), str(evidence.samples)),
    ]
    if evidence.low is not None:
        worst, best = (show_value(value, evidence.number_unit) for value in (evidence.low, evidence.high))
        text = worst if worst == best else say(f"最坏 {worst}，最好 {best}", f"{worst} at worst, {best} at best")
        facts.append((say("结果", "Result"), text))
    # the only question's digest is the criterion's own, which its page shows below
    return [*facts, (say("答案摘要", "Digest of its answer"), evidence.digest)] if evidence.name else facts


def subject_row(subject: WorstSubject, unit: str) -> SubjectRow:
    """A subject of an evidence list; unit: of the subjects' numbers."""
    return SubjectRow(
        subject_tags(subject.subject),
        show_value(subject.low, unit),
        show_value(subject.high, unit),
        f"{subject.found} / {subject.expected}",
        str(subject.expected - subject.found),
    )


def subject_tags(subject: Mapping[str, str]) -> list[Tag]:
    """A subject's tags; the one that stands for all subjects says so."""
    if not subject:
        return [Tag("", say("合并后的全部对象", "all together"), "")]
    return [Tag(name, value, subject_path(name, value)) for name, value in subject.items()]


def subject_path(tag: str, value: str) -> str:
    """The page of what a tag names; '' for a tag that names nothing of its own, such as a port of an asset."""
    return path_of_subject(value) if tag in SECTION_OF_TAG and value else ""


def path_of_subject(name: str) -> str:
    """The page of an asset, or of whatever else a register has an entry for."""
    return f"/subject/{quote(name, safe='')}"
