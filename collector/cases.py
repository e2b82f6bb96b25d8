"""Cases of rules: what a criterion must say of given points, in YAML, run through a real store.

<indicator>/<id>.yaml    the cases of one criterion
attested/<scale>.yaml    of every attested criterion on that scale: what a value earns, and what an expired one does

as_of: "2026-03-31T00:00:00+08:00"
cases:
  - name: good
    given:
      - tags: {asset: his-db-1, source: host_cpu, target: local}
        fields: {is_success: 1}
        every: 60s
    expect: {status: scored, low: 100, high: 100}
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from agent.catalogue import Catalogue, Measurement
from agent.documents import Document, FileMistakes, Mistake, build, read_document
from agent.language import say
from agent.points import Point
from collector.evaluate import Rules, evaluate_criteria, parse_time
from collector.evidence import CriterionResult
from collector.inquiry import Site
from collector.query import DAY_MS, HOUR_MS
from collector.rulebook import DurationText, Rulebook, duration_ms
from collector.site_folder import Attestation, Calendar, Entry, Exemption, Maintenance, Section, SiteFolder
from collector.stores import AppliedBatch, Store

TOLERANCE = 1e-6
ZONE = ZoneInfo("Asia/Shanghai")
MADE_UP = "case"
"""The source of the signals that no source gives yet."""

SHARED = "attested"
"""The folder of cases that are the same for all attested criteria on a scale."""


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from"}):
    """Points of one series: the same fields every so often, from so long before as_of until so long before it."""

    tags: Mapping[str, str]
    fields: Mapping[str, float | str]
    every: DurationText
    measurement: str | None = None
    start: str | None = None
    until: str = "0s"


class CaseSite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the case's hospital says of itself, in short: sections of the register by id, calendars by weekday.

    calendars: name -> weekday ("0" is Monday) -> (minute of day from, until). attested, not_applicable: of the criterion
    under test, valid at as_of; expired: the same a day after it ended.
    """

    assets: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {}
    services: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {}
    links: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {}
    zones: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {}
    segments: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {}
    calendars: Mapping[str, Mapping[str, tuple[tuple[int, int], ...]]] = {}
    attested: float | None = None
    not_applicable: str | None = None
    is_expired: bool = False
    exempt: Mapping[str, str] = {}
    maintenance: Mapping[str, tuple[str, str]] = {}
    """Id -> how long before as_of it began and ended."""


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the result must be; what is not named is not looked at."""

    status: str | None = None
    low: float | None = None
    high: float | None = None
    value: float | None = None
    coverage: float | None = None
    provisional_value: float | None = None
    provisional_points: float | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One situation and what must come of it."""

    name: str
    expect: Expected
    given: tuple[Series, ...] = ()
    as_of: str | None = None
    site: CaseSite | None = None


class CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All cases of one criterion, or of all attested criteria on one scale."""

    as_of: str
    cases: tuple[Case, ...]
    site: CaseSite | None = None
    """Of all cases that have none of their own."""


@dataclass(frozen=True)
class Outcome:
    """How one case went; mistakes is empty when it passed."""

    criterion: str
    case: str
    mistakes: tuple[Mistake, ...]


def run_cases(folder: Path, rules: Rules, store: Store, only: Sequence[str] = ()) -> Iterator[Outcome]:
    """Every case below `folder`, each as a site of its own in `store`. A criterion without a file, or a file without cases, fails."""
    number = 0
    rules = _with_emitters(rules)
    for name in sorted(rules.book.criteria):
        if only and name not in only:
            continue
        for path in case_files(folder, rules.book, name):
            try:
                document = read_document(path)
                file = build(document, CaseFile)
            except FileMistakes as error:
                yield Outcome(name, "-", error.mistakes)
                continue
            if not file.cases:
                yield Outcome(name, "-", (Mistake(str(path), 1, say("没有任何用例", "there is not one case")),))
            for place, case in enumerate(file.cases):
                number += 1
                mistakes = tuple(_run(document, place, file, case, rules, store, name, f"case-{number}"))
                yield Outcome(name, case.name, mistakes)


def case_files(folder: Path, book: Rulebook, name: str) -> list[Path]:
    """The files that hold the cases of criterion `name`: its own, and for an attested one those of its scale before it."""
    own = folder / book.indicators[name] / f"{name}.yaml"
    criterion = book.criteria[name]
    if criterion.kind == "measured":
        return [own]
    shared = folder / SHARED / f"{criterion.scale}.yaml"
    return [path for path in (shared, own) if path.exists()] or [own]


def _run(
    document: Document, place: int, file: CaseFile, case: Case, rules: Rules, store: Store, name: str, site: str
) -> Iterator[Mistake]:
    try:
        as_of = parse_time(case.as_of or file.as_of)
    except ValueError:
        text = say("as_of 不是带时区的时间", "as_of is no time with an offset")
        yield document.mistake(("cases", place, "as_of") if case.as_of else ("as_of",), text)
        return
    plan = rules.plans.get(name)
    over_ms = plan.main.over_ms if plan else 0
    main = plan.main.measurement if plan else ""
    store.write([_batch(site, as_of, over_ms, one, one.measurement or main, rules.catalogue) for one in case.given])
    folder = _folder(case.site or file.site, name, as_of)
    result = evaluate_criteria(store, rules, Site(site, ZONE, folder), as_of, [name])[name]
    for key, expected, found in _differences(case.expect, result):
        text = say(
            f"用例 '{case.name}'：{key} 应为 {expected}，实际是 {found}",
            f"case '{case.name}': {key} should be {expected}, is {found}",
        )
        yield document.mistake(("cases", place, "expect"), text)


def _with_emitters(rules: Rules) -> Rules:
    """Every signal has a source in a case, so that its points say how often they come."""
    measurements = {
        name: msgspec.structs.replace(measurement, emitted_by=measurement.emitted_by or (MADE_UP,))
        for name, measurement in rules.catalogue.measurements.items()
    }
    return replace(rules, catalogue=Catalogue(measurements, rules.catalogue.families))


def _folder(said: CaseSite | None, criterion: str, as_of: int) -> SiteFolder:
    if said is None:
        return SiteFolder()
    sections: tuple[Section, ...] = ("assets", "services", "links", "zones", "segments")
    entries = {section: _entries(section, getattr(said, section)) for section in sections}
    since, expires = as_of - 30 * DAY_MS, as_of + (-DAY_MS if said.is_expired else DAY_MS)
    vouched = [
        Attestation(
            criterion=criterion,
            value=said.attested,
            is_not_applicable=said.not_applicable is not None,
            author="case",
            role="case",
            reason=said.not_applicable or "",
            document=None,
            since=since,
            expires=expires,
            place="case:1",
        )
    ]
    return SiteFolder(
        zone=ZONE,
        has_register=any(entries.values()),
        entries=entries,
        attestations=tuple(vouched) if said.attested is not None or said.not_applicable is not None else (),
        exemptions=tuple(
            Exemption(criterion, tag, identity, "case", "case", since, expires) for tag, identity in said.exempt.items()
        ),
        maintenance=tuple(
            Maintenance((identity,), as_of - duration_ms(start), as_of - duration_ms(end), "case", "case", 0)
            for identity, (start, end) in said.maintenance.items()
        ),
        calendars={
            name: Calendar({int(day): hours for day, hours in days.items()}) for name, days in said.calendars.items()
        },
    )


def _entries(section: Section, said: Mapping[str, Mapping[str, str | tuple[str, ...]]]) -> Mapping[str, Entry]:
    """Entries of a case; beyond the attributes only `calendar` is known."""
    found = {}
    for identity, words in said.items():
        attributes = {key: (value,) if isinstance(value, str) else value for key, value in words.items()}
        calendar = "".join(attributes.pop("calendar", ()))
        found[identity] = Entry(identity, section, attributes, calendar=calendar)
    return found


def _batch(site: str, as_of: int, over_ms: int, series: Series, measurement: str, catalogue: Catalogue) -> AppliedBatch:
    agent = series.tags.get("agent", series.tags["asset"])
    tags = {key: value for key, value in series.tags.items() if key != "agent"}
    start = as_of - (duration_ms(series.start) if series.start else over_ms)
    end = as_of - (0 if series.until.startswith("0") else duration_ms(series.until))
    every = duration_ms(series.every)
    fields = dict(series.fields)
    if measurement == "source_round":
        fields.setdefault("interval_seconds", every / 1000)
    points = [Point(measurement, tags, fields, time) for time in range(start, end, every)]
    if measurement != "source_round":
        points += _rounds(
            series.fields, catalogue.measurements[measurement], tags["asset"], every, max(start, as_of - over_ms)
        )
    identity = f"{site} {measurement} {start} {sorted(tags.items())}"
    return AppliedBatch(site, agent, "", 0, identity, as_of, as_of, points, 0, ())


def _rounds(fields: Iterable[str], declared: Measurement, asset: str, every: int, told: int) -> Iterator[Point]:
    """One round of each source that gives such a field says how often they come; it holds until another says otherwise.

    Nobody owes events: rounds would prove that somebody looked.
    """
    owed = [field for field in fields if declared.fields[field].kind != "event"]
    for source in sorted({declared.emitters(field)[0] for field in owed if declared.emitters(field)}):
        tags = {"asset": asset, "source": source, "target": "local"}
        reported: dict[str, Any] = {"interval_seconds": every / 1000, "is_success": 1.0}
        yield Point("source_round", tags, reported, told - told % HOUR_MS)


def _differences(expect: Expected, result: CriterionResult) -> Iterator[tuple[str, object, object]]:
    found = {
        "status": result.status,
        "low": result.low,
        "high": result.high,
        "value": result.value,
        "coverage": result.coverage,
        "provisional_value": result.provisional.value if result.provisional else None,
        "provisional_points": result.provisional.points if result.provisional else None,
    }
    for key, actual in found.items():
        wanted = getattr(expect, key)
        if wanted is None or wanted == actual:
            continue
        if (
            isinstance(wanted, float)
            and isinstance(actual, float)
            and math.isclose(wanted, actual, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        ):
            continue
        yield key, wanted, actual
