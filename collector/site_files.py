"""The site folder read from its YAML files: everything at once, or every mistake of every file with its line.

register.yaml       assets, services, links, zones, segments
attestations.yaml   what named people vouch for; the papers lie in documents/
exemptions.yaml     subjects that one criterion leaves out
maintenance.yaml    windows announced beforehand
calendars.yaml      when something is in service
site.yaml           title and time zone
revoked.json        agents that were revoked, written by `site remove-agent`
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec

from agent.catalogue import Text
from agent.documents import Document as ParsedFile
from agent.documents import FileMistakes, Mistake
from agent.language import say
from collector.query import Spans
from collector.site_folder import (
    DEFAULT_ZONE,
    FOR_EVER,
    SECTION_OF_TAG,
    Attestation,
    Calendar,
    Document,
    Entry,
    Exemption,
    Maintenance,
    Section,
    SiteFolder,
)
from collector.site_revoked import read_revoked
from collector.site_spots import Files, Spot, digest_of, find_digest, settle_week
from collector.site_times import days_between, explain_zone, find_zone, midnight
from collector.site_written import (
    ATTESTATIONS,
    CALENDARS,
    DOCUMENTS,
    EXEMPTIONS,
    IN_MAINTENANCE,
    KINDS,
    MAINTENANCE,
    REGISTER,
    SECTIONS,
    SITE,
    Asset,
    Attested,
    Exempted,
    Link,
    Paper,
    Registered,
    Service,
    SiteFile,
    Week,
    Window,
)

T = TypeVar("T")
R = TypeVar("R")


def read_site_folder(
    folder: Path, zone: ZoneInfo = DEFAULT_ZONE, texts: Mapping[str, str] | None = None
) -> tuple[SiteFolder, list[Mistake]]:
    """The site folder, and what is worth a warning in it (a document that is gone). Raises FileMistakes with all mistakes.

    zone: used when site.yaml names none. texts: file name -> text to read in place of the file, as an edit would leave it.
    """
    if (
        not os.access(folder, os.F_OK) or not folder.is_dir()
    ):  # asked so, a folder above that may not be read raises nothing
        raise FileMistakes([Mistake(str(folder), 0, say("站点目录不存在", "there is no such site folder"))])
    if not os.access(folder, os.R_OK | os.X_OK):
        text = say(
            "没有权限读取站点目录；请检查属主与权限",
            "no permission to read the site folder; look at its owner and mode",
        )
        raise FileMistakes([Mistake(str(folder), 0, text)])
    files = Files(folder, texts or {})
    found = _Reader(files, zone).read()
    if files.mistakes:
        raise FileMistakes(sorted(files.mistakes, key=lambda mistake: (mistake.file, mistake.line)))
    return found, files.warnings


def spans_of(calendar: Calendar, zone: ZoneInfo, start_ms: int, end_ms: int) -> Spans:
    """When the calendar holds within [start_ms, end_ms), ascending and apart; spans that touch are one.

    Hours are what the site's clocks show: an hour that the clocks skip is not there, one that they show twice counts
    from and until its first showing.
    """
    spans: list[tuple[int, int]] = []
    for day in days_between(start_ms, end_ms, zone):
        if day.isoformat() in calendar.holidays:
            continue
        for begin, end in calendar.hours.get(day.weekday(), ()):
            start = max(midnight(day, zone, begin), start_ms)
            stop = min(midnight(day, zone, end), end_ms)
            if spans and start <= spans[-1][1]:
                start = spans.pop()[0]
            if start < stop:
                spans.append((start, stop))
    return tuple(spans)


class _Reader:
    """Settles the files one after the other; what is wrong goes to the files' mistakes, and the entry is left out."""

    def __init__(self, files: Files, zone: ZoneInfo) -> None:
        self.files, self.zone = files, zone
        self.title: Text | None = None
        self.calendars: Mapping[str, Calendar] = {}
        self.has_register = False
        self.ids: dict[Section, tuple[str, ...]] = {}
        """Every id that the register's file names, also of entries with mistakes: they are not unknown."""

    def read(self) -> SiteFolder:
        """Everything of the folder."""
        self.files.check_names()
        self._site()
        self.calendars = self._calendars()
        register = self.files.read(REGISTER)
        self.has_register = register is not None
        self.ids = {section: tuple(_mapping(register, section)) for section in SECTIONS}
        entries = {section: self._section(register, section) for section in SECTIONS} if register else {}
        attestations = self._list(ATTESTATIONS, Attested, self._attestation)
        self._refuse_ties(attestations)
        exemptions = self._list(EXEMPTIONS, Exempted, self._exemption)
        maintenance = self._list(MAINTENANCE, Window, self._maintenance)
        return SiteFolder(
            zone=self.zone,
            has_register=self.has_register,
            entries=entries,
            attestations=attestations,
            exemptions=exemptions,
            maintenance=maintenance,
            calendars=self.calendars,
            digest=digest_of(self.files.parts),
            parts=dict(self.files.parts),
            title=self.title,
            revoked=read_revoked(self.files.folder, self.files.mistakes),
        )

    def _spot(self, document: ParsedFile, *path: str | int) -> Spot:
        return Spot(self.files, document, path, self.zone)

    def _list(self, name: str, kind: type[T], settle: Callable[[Spot, T], R | None]) -> tuple[R, ...]:
        document = self.files.read(name)
        items = document.value if document and isinstance(document.value, list) else []
        settled = []
        for number, raw in enumerate(items):
            written = _convert(raw, kind)
            if document is not None and written is not None:
                settled.append(settle(self._spot(document, number), written))
        return tuple(one for one in settled if one is not None)

    def _site(self) -> None:
        document = self.files.read(SITE)
        written = _convert(document.value, SiteFile) if document else None
        if document is None or written is None:
            return
        self.title = _text(written.title)
        if written.time_zone is not None:
            zone = find_zone(written.time_zone)
            if zone is None:
                self._spot(document).complain(explain_zone(written.time_zone), "time_zone")
            else:
                self.zone = zone

    def _calendars(self) -> Mapping[str, Calendar]:
        document = self.files.read(CALENDARS)
        if document is None or not isinstance(document.value, dict):
            return {}
        calendars = {}
        for name, raw in document.value.items():
            week = _convert(raw, Week)
            empty = Calendar({})  # one with mistakes is known all the same
            calendars[name] = settle_week(self._spot(document, name), week) if week else empty
        return calendars

    def _section(self, document: ParsedFile, section: Section) -> Mapping[str, Entry]:
        entries = {}
        for name, raw in _mapping(document, section).items():
            written = _convert({} if raw is None else raw, KINDS[section])
            if written is not None:
                entries[name] = self._entry(self._spot(document, section, name), name, section, written)
        return entries

    def _entry(self, spot: Spot, name: str, section: Section, written: Registered) -> Entry:
        if written.zone is not None:
            spot.known(written.zone, self.ids["zones"], "区域", "zone", "zone")
        if written.calendar is not None and CALENDARS not in self.files.broken:
            spot.known(written.calendar, self.calendars, "日历", "calendar", "calendar")
        assets = written.assets if isinstance(written, Service) else ()
        for number, asset in enumerate(assets):
            spot.known(asset, self.ids["assets"], "资产", "asset", "assets", number)
        _check_roles(spot, written)
        since, until = _settle_period(spot, written)
        link = written if isinstance(written, Link) else Link()
        return Entry(
            id=name,
            section=section,
            attributes=_attributes(written),
            reporters=written.reporters if isinstance(written, Asset) else (),
            since=since,
            until=until,
            calendar=written.calendar or "",
            retired=written.retired.reason if written.retired else "",
            title=_text(written.title),
            assets=assets,
            provider=link.provider or "",
            partner=link.partner or "",
            committed_bits_per_second=link.committed_bits_per_second,
            place=spot.place,
        )

    def _attestation(self, spot: Spot, written: Attested) -> Attestation | None:
        if (written.value is None) != written.not_applicable:
            text = say(
                "value 与 `not_applicable: true` 必须且只能有一个",
                "exactly one of value and not_applicable: true must be there",
            )
            spot.complain(text)
        period = spot.period(("from", written.since), ("expires", written.expires))
        paper = self._paper(spot, written.document) if written.document else None
        if period is None:
            return None
        return Attestation(
            criterion=written.criterion,
            value=written.value,
            is_not_applicable=written.not_applicable,
            author=written.author,
            role=written.role,
            reason=written.reason,
            document=paper,
            since=period[0],
            expires=period[1],
            place=spot.place,
        )

    def _refuse_ties(self, attestations: Sequence[Attestation]) -> None:
        """Two of one criterion from one moment on: nobody could say which of them holds."""
        places: dict[tuple[str, int], str] = {}
        for one in attestations:
            before = places.setdefault((one.criterion, one.since), one.place)
            if before != one.place:
                file, _, line = one.place.rpartition(":")
                first = before.rpartition(":")[2]
                text = say(
                    f"第 {first} 行已有 '{one.criterion}' 从同一时刻起的证明",
                    f"'{one.criterion}' is attested from the same moment on line {first} already",
                )
                self.files.mistakes.append(Mistake(file, int(line), text))

    def _paper(self, spot: Spot, paper: Paper) -> Document:
        """The document as it lies there; one that is gone or was changed is a warning, and does not count."""
        home = (self.files.folder / DOCUMENTS).resolve()
        path = (self.files.folder / paper.path).resolve()
        if not path.is_relative_to(home):
            text = say(
                f"文件 '{paper.path}' 不在站点目录的 {DOCUMENTS}/ 之下",
                f"document '{paper.path}' does not lie in {DOCUMENTS}/ of the site folder",
            )
            spot.complain(text, "document", "path")
            return Document(paper.path, paper.sha256, is_there=False)
        found = find_digest(path)
        self.files.parts[paper.path] = found
        if found != paper.sha256:
            what = say("已被改动", "was changed") if found else say("不在了", "is gone")
            text = say(
                f"文件 '{paper.path}' {what}，这条证明不算数",
                f"document '{paper.path}' {what}; this attestation does not count",
            )
            spot.warn(text, "document", "path")
        return Document(paper.path, paper.sha256, is_there=found == paper.sha256)

    def _exemption(self, spot: Spot, written: Exempted) -> Exemption | None:
        named = [(tag, name) for tag in SECTION_OF_TAG if (name := getattr(written, tag)) is not None]
        period = spot.period(("from", written.since), ("until", written.until))
        if len(named) != 1:
            tags = ", ".join(SECTION_OF_TAG)
            text = say(f"{tags} 中必须且只能有一个", f"exactly one of {tags} must be there")
            spot.complain(text)
            return None
        ((tag, name),) = named
        self._expect_registered(spot, name, (SECTION_OF_TAG[tag],), tag)
        if period is None:
            return None
        return Exemption(written.criterion, tag, name, written.reason, written.author, *period, spot.place)

    def _maintenance(self, spot: Spot, written: Window) -> Maintenance | None:
        for number, name in enumerate(written.of):
            self._expect_registered(spot, name, IN_MAINTENANCE, "of", number)
        period = spot.period(("from", written.since), ("to", written.until))
        declared = spot.moment(written.declared, "declared")
        if period is None or declared is None:
            return None
        if declared >= period[0]:
            text = say(
                f"'declared' 是 {written.declared}，没有早于 'from' 的 {written.since}：只有事先公布的维护才免计",
                f"'declared' is {written.declared}, not before 'from', {written.since}: only what was announced beforehand excuses",
            )
            spot.complain(text, "declared")
            return None
        return Maintenance(written.of, *period, written.reason, written.author, declared, spot.place)

    def _expect_registered(self, spot: Spot, name: str, sections: Sequence[Section], *keys: str | int) -> None:
        if self.has_register:
            spot.known(name, [one for section in sections for one in self.ids[section]], "登记", "entry", *keys)


def _mapping(document: ParsedFile | None, section: str) -> Mapping[str, Any]:
    """The entries of a section as they stand in the file, nothing where that is no mapping."""
    value = document.value if document else None
    found = value.get(section) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _convert(raw: object, kind: type[T]) -> T | None:
    """What is written there; None when it is wrong, which `find_mistakes` has said already."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        return None


def _text(title: Text | str | None) -> Text | None:
    return Text(title, title) if isinstance(title, str) else title


def _attributes(written: Registered) -> Mapping[str, tuple[str, ...]]:
    roles = (written.role,) if isinstance(written.role, str) else written.role
    single = {"class": written.kind, "criticality": written.criticality, "zone": written.zone}
    attributes = {key: (value,) for key, value in single.items() if value is not None}
    return {**attributes, "role": roles} if roles else attributes


def _check_roles(spot: Spot, written: Registered) -> None:
    for role in (written.role,) if isinstance(written.role, str) else written.role:
        if not role or role != role.strip():
            spot.complain(say(f"'role'：'{role}' 不是一个词", f"'role': '{role}' is no word"), "role")


def _settle_period(spot: Spot, written: Registered) -> tuple[int | None, int]:
    """From when and until when an entry is a subject; of `until` and `retired` the earlier counts."""
    since = spot.moment(written.since, "from") if written.since else None
    ends: list[tuple[int | None, str, tuple[str, ...]]] = []
    if written.until:
        ends.append((spot.moment(written.until, "until"), written.until, ("until",)))
    if written.retired:
        ends.append((spot.moment(written.retired.on, "retired", "on"), written.retired.on, ("retired", "on")))
    for end, text, keys in ends:
        if end is not None and since is not None and end <= since:
            spot.complain(
                say(
                    f"'{keys[-1]}' 是 {text}，应晚于 'from' 的 {written.since}",
                    f"'{keys[-1]}' is {text}; it must be after 'from', {written.since}",
                ),
                *keys,
            )
    return since, min((end for end, _, _ in ends if end is not None), default=FOR_EVER)
