"""A site folder held against the rules (what is wrong) and against what a store has seen (what is worth a look). No I/O."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from agent.catalogue import Catalogue
from agent.documents import Mistake, nearest
from agent.language import say
from collector.query import DAY_MS
from collector.rulebook import USUAL_TERM, Criterion, Rulebook, Scale, longest_term_ms
from collector.site_folder import ATTRIBUTES, SECTION_OF_TAG, Attestation, Entry, SiteFolder
from collector.site_seen import Seen, SeenAsset
from collector.site_times import format_moment
from collector.site_written import REGISTER


def check_against_rules(folder: SiteFolder, book: Rulebook) -> list[Mistake]:
    """Criteria that no rule has, values that the criterion's scale cannot hold."""
    mistakes = []
    for attestation in folder.attestations:
        if text := _explain_attestation(attestation, book):
            mistakes.append(at(attestation.place, text))
    for exemption in folder.exemptions:
        if exemption.criterion not in book.criteria:
            mistakes.append(at(exemption.place, explain_unknown(exemption.criterion, book)))
    return mistakes


def asked_attributes(book: Rulebook, catalogue: Catalogue) -> dict[str, set[str]]:
    """For every attribute the values that a rule or a cap asks for; a tag of the same name is none."""
    found: dict[str, set[str]] = {name: set() for name in ATTRIBUTES}
    askings = [asking for one in book.criteria.values() for asking in one.questions().values()]
    askings += [asking for cap in book.index.caps for asking in cap.questions().values()]
    for asking in askings:
        tags = catalogue.measurements[asking.measures.partition(".")[0]].tags
        for key, values in asking.where.items():
            if key in found and key not in tags:
                found[key].update((values,) if isinstance(values, str) else values)
    return found


def find_near_misses(folder: SiteFolder, book: Rulebook, catalogue: Catalogue) -> list[Mistake]:
    """Attribute values that no rule asks for and that look like one that some rule does: a typo selects nothing, in silence."""
    asked = asked_attributes(book, catalogue)
    findings = []
    for section in folder.entries.values():
        for entry in section.values():
            for name, values in entry.attributes.items():
                for value in values:
                    close = difflib.get_close_matches(value, asked.get(name, ()), n=1, cutoff=0.8)
                    if close and value not in asked[name]:
                        text = say(
                            f"'{entry.id}' 的 {name} '{value}' 没有规则用到，是否想写 '{close[0]}'?",
                            f"no rule asks for {name} '{value}' of '{entry.id}'; did you mean '{close[0]}'?",
                        )
                        findings.append(at(entry.place, text))
    return findings


def at(place: str, text: str) -> Mistake:
    """A mistake at `file:line`."""
    file, _, line = place.rpartition(":")
    return Mistake(file, int(line), text)


def explain_unknown(name: str, book: Rulebook) -> str:
    """That there is no such criterion, with the nearest."""
    return say(f"没有准则 '{name}'", f"there is no criterion '{name}'") + nearest(name, book.criteria)


def _explain_attestation(attestation: Attestation, book: Rulebook) -> str | None:
    criterion = book.criteria.get(attestation.criterion)
    if criterion is None:
        return explain_unknown(attestation.criterion, book)
    if text := _explain_term(attestation, criterion):
        return text
    if attestation.value is None:
        return explain_not_applicable(attestation.criterion, criterion)
    if attestation.document is None:
        return say(
            f"准则 '{attestation.criterion}' 的证明没有文件：证明一个值须附上 document",
            f"the attestation of '{attestation.criterion}' has no document: who vouches for a value attaches the paper",
        )
    return explain_value(attestation.criterion, criterion, book.scales[criterion.scale], attestation.value)


def _explain_term(attestation: Attestation, criterion: Criterion) -> str | None:
    """Why an attestation may not hold as long as it says; None when it may."""
    if attestation.expires - attestation.since <= longest_term_ms(criterion):
        return None
    term = criterion.valid or USUAL_TERM
    return say(
        f"准则 '{attestation.criterion}' 的证明一次最长有效 {term}，到期日 expires 太晚",
        f"an attestation of '{attestation.criterion}' may hold for {term} at most; expires is too late",
    )


def explain_not_applicable(name: str, criterion: Criterion) -> str | None:
    """Why a criterion cannot be attested not applicable; None when it can."""
    if criterion.not_applicable is not None:
        return None
    return say(
        f"准则 '{name}' 没有写明何时可以不适用（not_applicable），不能证明为不适用",
        f"criterion '{name}' does not say when it may be not applicable (not_applicable), so nobody can attest that",
    )


def explain_value(name: str, criterion: Criterion, scale: Scale, value: float) -> str | None:
    """Why a criterion cannot be attested at this value; None when it can."""
    if criterion.kind != "attested":
        return say(
            f"准则 '{name}' 由数据测得，不接受证明的数值", f"criterion '{name}' is measured; it takes no attested value"
        )
    greatest = {"ratio": 1.0, "level": max((rung.at for rung in scale.rungs), default=float("inf"))}
    if not 0 <= value <= greatest.get(scale.unit, float("inf")):
        end = f"{greatest[scale.unit]:g}" if scale.unit in greatest else ""
        return say(
            f"准则 '{name}' 的标尺 {criterion.scale} 上没有 {value:g}：应为 0 {f'到 {end}' if end else '或以上'}",
            f"scale {criterion.scale} of criterion '{name}' has no {value:g}: expected 0 {f'to {end}' if end else 'or more'}",
        )
    if scale.unit in ("level", "count") and value != int(value):
        return say(
            f"准则 '{name}' 的标尺 {criterion.scale} 只有整数，没有 {value:g}",
            f"scale {criterion.scale} of criterion '{name}' has whole numbers, not {value:g}",
        )
    return None


def check_against_seen(folder: SiteFolder, path: Path, seen: Seen) -> list[Mistake]:
    """What reports and is not registered, is registered and never reported, or reports in another's name.

    Without a register there is nothing to compare.
    """
    if not folder.has_register:
        return []
    register = str(path / REGISTER)
    assets = {asset.id: asset for asset in seen.assets}
    findings = [*_unregistered(folder, register, seen), *find_retired(folder, seen)]
    for entry in folder.section("asset").values():
        asset = assets.get(entry.id)
        is_due = (entry.since or 0) <= seen.asked_at < entry.until
        if asset is None and is_due:
            text = say(f"资产 '{entry.id}' 已登记，但从未上报", f"asset '{entry.id}' is registered and never reported")
            findings.append(at(entry.place, text))
        findings += _mismatched(entry, asset, seen)
    return sorted(findings, key=lambda finding: (finding.file, finding.line))


def find_retired(folder: SiteFolder, seen: Seen) -> Iterator[Mistake]:
    """Retired assets that reported after they were retired."""
    for asset in seen.assets:
        entry = folder.section("asset").get(asset.id)
        if entry is not None and asset.last_seen >= entry.until:
            last, until = (format_moment(moment, folder.zone) for moment in (asset.last_seen, entry.until))
            reporters = ", ".join(one.agent for one in asset.reporters if one.last_seen >= entry.until)
            yield at(
                entry.place,
                say(
                    f"资产 '{asset.id}' 已于 {until} 退出，但仍在上报（最近 {last}，由 {reporters}）；请停掉采集，或改正登记",
                    f"asset '{asset.id}' left on {until} and still reports (last {last}, by {reporters}); stop its agent or mend the register",
                ),
            )


def _unregistered(folder: SiteFolder, register: str, seen: Seen) -> Iterator[Mistake]:
    for asset in seen.assets:
        if asset.id not in folder.section("asset"):
            yield Mistake(
                register,
                1,
                say(
                    f"资产 '{asset.id}' 在上报（由 {asset.owner}），但没有登记",
                    f"asset '{asset.id}' reports (by {asset.owner}) and is not registered",
                ),
            )
    for name in seen.names:
        if name.id not in folder.section(name.tag):
            section = SECTION_OF_TAG[name.tag]
            yield Mistake(
                register,
                1,
                say(
                    f"数据中出现了 {name.tag} '{name.id}'，但 {section} 中没有登记",
                    f"{name.tag} '{name.id}' stands in the data and not under {section}",
                ),
            )


def _mismatched(entry: Entry, asset: SeenAsset | None, seen: Seen) -> Iterator[Mistake]:
    """Agents that report an asset which the register gives to others."""
    if not entry.reporters:
        return
    refused = {one.agent for one in seen.set_aside if one.asset == entry.id} - set(entry.reporters)
    recent = {one.agent for one in asset.reporters if one.last_seen > seen.asked_at - DAY_MS} if asset else set()
    named = ", ".join(entry.reporters)
    for agent in sorted(refused):
        yield at(
            entry.place,
            say(
                f"{agent} 上报资产 '{entry.id}' 的数据被搁置：登记的上报者是 {named}",
                f"what {agent} reports of asset '{entry.id}' is set aside: its reporters are {named}",
            ),
        )
    for agent in sorted(recent - refused - set(entry.reporters)):
        yield at(
            entry.place,
            say(
                f"资产 '{entry.id}' 近一天由 {agent} 上报，登记的上报者却是 {named}；其后续数据会被搁置",
                f"asset '{entry.id}' was reported by {agent} within a day, its reporters are {named}; what follows will be set aside",
            ),
        )
