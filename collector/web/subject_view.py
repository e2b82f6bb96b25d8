"""Everything that is known of one subject: an asset, or whatever else a register has entries for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from agent.language import say
from collector.evidence import QuestionEvidence, WorstSubject
from collector.intervals import OWN_MACHINE
from collector.score import NodeResult
from collector.site_folder import FOR_EVER, SECTION_OF_TAG, Entry, Exemption
from collector.snapshot import Snapshot
from collector.web.agents_view import source_row
from collector.web.questions import SubjectRow, in_unit_of, subject_row
from collector.web.times import day
from collector.web.view import Facts, Link, View


class Mention(NamedTuple):
    """Where the evidence names the subject. question: its name, or empty; state: how it stands there."""

    target: Link
    question: str
    subject: SubjectRow
    state: str
    word: str


class Named(NamedTuple):
    """A question that names subjects, and whose it is."""

    target: Link
    evidence: QuestionEvidence


def subject_view(snapshot: Snapshot, name: str) -> View | None:
    """One subject; None when neither the register nor any evidence nor any agent knows it."""
    if name not in known_subjects(snapshot):
        return None
    entries = _entries(snapshot, name)
    sources = [
        source_row(source, snapshot.taken_at)
        for agent in snapshot.agents
        for source in agent.sources
        if name in (source.asset, source.target)
    ]
    mentions = _mentions(snapshot, name)
    return View(
        "subject.html",
        {
            "name": name,
            "entries": [(entry.section, _entry_facts(snapshot, entry)) for entry in entries],
            "retired": [entry.retired for entry in entries if entry.retired],
            "unregistered": "" if entries else _unregistered(snapshot, name),
            "draft": snapshot.commands.spell_draft(),
            "excused": _excused(snapshot, name),
            "mentions": sorted(mentions, key=lambda one: one.state == "exempt"),
            "sources": sources,
        },
    )


def known_subjects(snapshot: Snapshot) -> set[str]:
    """Every id that has a page: of the register, of the agents, of the evidence."""
    known = {name for section in snapshot.folder.entries.values() for name in section}
    known |= set(snapshot.owners)
    known |= {name for agent in snapshot.agents for source in agent.sources for name in (source.asset, source.target)}
    known.discard(OWN_MACHINE)
    for named in _questions(snapshot):
        for tags in _named(named.evidence):
            known |= {value for tag, value in tags.items() if tag in SECTION_OF_TAG and value}
    return known


def _questions(snapshot: Snapshot) -> Iterator[Named]:
    """Every question of every criterion and cap."""
    for node in snapshot.scorecard.nodes:
        for result in node.criteria:
            target = Link(f"/criterion/{result.id}", str(result.title))
            yield from (Named(target, in_unit_of(result.unit, one)) for one in result.questions)
        yield from _of_caps(node)


def _of_caps(node: NodeResult) -> Iterator[Named]:
    for cap in node.caps:
        title = say(f"封顶：{cap.title}", f"cap: {cap.title}")
        yield from (Named(Link(f"/node/{node.id}#cap-{cap.id}", title), one) for one in cap.questions)


def _named(evidence: QuestionEvidence) -> Iterator[dict[str, str]]:
    for subject in (*evidence.worst, *evidence.missing):
        yield dict(subject.subject)
    yield from (dict(tags) for tags in evidence.exempt)


def _is_of(tags: dict[str, str], name: str) -> bool:
    return any(value == name and tag in SECTION_OF_TAG for tag, value in tags.items())


def _mentions(snapshot: Snapshot, name: str) -> list[Mention]:
    """Every list that names the subject, each of its parts once."""
    found: list[Mention] = []
    for target, evidence in _questions(snapshot):
        seen: list[dict[str, str]] = []
        for subject in (*evidence.worst, *evidence.missing):
            tags = dict(subject.subject)
            if _is_of(tags, name) and tags not in seen:
                seen.append(tags)
                found.append(_mention(target, evidence, subject))
        exempt = [WorstSubject(tags, None, None, 0, 0) for tags in evidence.exempt if _is_of(dict(tags), name)]
        found += [
            Mention(target, evidence.name, subject_row(one, evidence.unit), "exempt", say("已豁免", "exempt"))
            for one in exempt
        ]
    return found


def _mention(target: Link, evidence: QuestionEvidence, subject: WorstSubject) -> Mention:
    """`worst` lists a subject even where all is well, so a full one is only said to be measured."""
    lacking = subject.expected - subject.found
    state, word = ("bad", say(f"缺 {lacking} 桶", f"{lacking} buckets missing")) if lacking else ("good", "")
    word = word or say("数据齐全", "all data there")
    if not subject.found:  # its numbers would be the bounds of the signal, which says nothing of the subject
        subject = msgspec.structs.replace(subject, low=None, high=None)
    return Mention(target, evidence.name, subject_row(subject, evidence.unit), state, word)


# -- what the site says of it


def _entries(snapshot: Snapshot, name: str) -> Sequence[Entry]:
    return [section[name] for section in snapshot.folder.entries.values() if name in section]


def _entry_facts(snapshot: Snapshot, entry: Entry) -> Facts:
    zone = snapshot.zone
    words = {
        "class": say("类别", "Class"),
        "criticality": say("重要性", "Criticality"),
        "zone": say("区域", "Zone"),
        "role": say("角色", "Role"),
    }
    facts = [(words.get(key, key), say("、", ", ").join(values)) for key, values in entry.attributes.items() if values]
    reporters = say("、", ", ").join(entry.reporters)
    since = say("首次上报起", "its first report") if entry.since is None else f"{day(entry.since, zone)} {zone.key}"
    until = say("无期限", "open") if entry.until >= FOR_EVER else f"{day(entry.until, zone)} {zone.key}"
    return [
        *facts,
        *([(say("可由谁上报", "Reported by"), reporters)] if reporters else []),
        (say("登记起", "From"), since),
        (say("登记止", "Until"), until),
        *([(say("服务日历", "Calendar"), entry.calendar)] if entry.calendar else []),
        *([(say("退役原因", "Retired"), entry.retired)] if entry.retired else []),
    ]


def _unregistered(snapshot: Snapshot, name: str) -> str:
    owner = snapshot.owners.get(name, "")
    if snapshot.folder.has_register:
        return say(
            "登记表中没有它：按属性挑选对象的准则看不到它。请补登记，或确认它不属于本院。",
            "The register has no entry for it: criteria that pick by attribute do not see it. Add it, or see why it reports here.",
        )
    by = say(f"，由最先上报的采集代理 {owner} 拥有", f"; the agent that reported it first, {owner}, owns it")
    return say("还没有资产登记表", "There is no register yet") + (by if owner else "") + say("。", ".")


def _excused(snapshot: Snapshot, name: str) -> Facts:
    """Exemptions and announced maintenance, as far as they are not over."""
    now, zone = snapshot.taken_at, snapshot.zone
    exempt = [
        (say(f"豁免：{one.criterion}", f"Exempt from {one.criterion}"), _spell_exemption(snapshot, one))
        for one in snapshot.folder.exemptions
        if one.id == name and one.until > now
    ]
    windows = [one for one in snapshot.folder.maintenance if name in one.ids and one.end > now]
    announced = [
        (
            say("已公布的维护", "Announced maintenance"),
            f"{day(one.start, zone)} – {day(one.end, zone)} · {one.reason} · {one.author}",
        )
        for one in windows
    ]
    return [*exempt, *announced]


def _spell_exemption(snapshot: Snapshot, one: Exemption) -> str:
    until = day(one.until, snapshot.zone)
    return f"{one.reason} · {one.author} · " + (
        say("无期限", "no end") if one.until >= FOR_EVER else say(f"至 {until}", f"until {until}")
    )
