"""What commands show of a site folder: rows for JSON and YAML, tables for people. It only shows what is there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from rich.table import Table
from rich.text import Text as Styled

from agent.catalogue import Text
from agent.language import say
from collector.query import DAY_MS
from collector.rulebook import Rulebook
from collector.site_folder import FOR_EVER, Attestation, Entry, SiteFolder
from collector.site_times import format_moment
from collector.site_written import SECTIONS

EntryState = Literal["in_service", "not_yet", "ended", "retired"]
AttestationState = Literal["valid", "not_yet", "expired", "document_gone", "missing"]
WindowState = Literal["announced", "running", "over"]

WORDS: Mapping[str, tuple[str, str]] = {
    "in_service": ("在用", "in service"),
    "not_yet": ("尚未开始", "not yet"),
    "ended": ("已结束", "ended"),
    "retired": ("已退出", "retired"),
    "valid": ("有效", "valid"),
    "expired": ("已过期", "expired"),
    "document_gone": ("文件不在或已改动", "document gone or changed"),
    "missing": ("没有证明", "missing"),
    "announced": ("已公布", "announced"),
    "running": ("进行中", "running"),
    "over": ("已结束", "over"),
}


class EntryRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the register at one time; times as a person writes them."""

    id: str
    section: str
    state: EntryState
    place: str
    title: Text | None = None
    attributes: Mapping[str, Sequence[str]] = {}
    reporters: Sequence[str] = ()
    assets: Sequence[str] = ()
    provider: str = ""
    partner: str = ""
    committed_bits_per_second: float | None = None
    calendar: str = ""
    since: str = msgspec.field(default="", name="from")
    until: str = ""
    retired: str = ""


class AttestationRow(msgspec.Struct, frozen=True):
    """The newest attestation of one criterion, or that there is none; days: until it expires, None when it cannot."""

    criterion: str
    title: Text | None
    state: AttestationState
    value: float | None = None
    not_applicable: bool = False
    author: str = ""
    role: str = ""
    since: str = msgspec.field(default="", name="from")
    expires: str = ""
    days: int | None = None
    document: str = ""
    place: str = ""


class WindowRow(msgspec.Struct, frozen=True):
    """One maintenance window."""

    of: Sequence[str]
    state: WindowState
    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")
    reason: str
    author: str
    declared: str
    place: str


def entry_rows(folder: SiteFolder, as_of: int) -> list[EntryRow]:
    """Every entry, as it stands at `as_of`."""
    return [
        _entry_row(folder, entry, as_of) for section in SECTIONS for entry in folder.entries.get(section, {}).values()
    ]


def _entry_row(folder: SiteFolder, entry: Entry, as_of: int) -> EntryRow:
    state: EntryState = "in_service"
    if entry.since is not None and as_of < entry.since:
        state = "not_yet"
    elif as_of >= entry.until:
        state = "retired" if entry.retired else "ended"
    return EntryRow(
        id=entry.id,
        section=entry.section,
        state=state,
        place=entry.place,
        title=entry.title,
        attributes=entry.attributes,
        reporters=entry.reporters,
        assets=entry.assets,
        provider=entry.provider,
        partner=entry.partner,
        committed_bits_per_second=entry.committed_bits_per_second,
        calendar=entry.calendar,
        since="" if entry.since is None else format_moment(entry.since, folder.zone),
        until="" if entry.until == FOR_EVER else format_moment(entry.until, folder.zone),
        retired=entry.retired,
    )


def newest_attestations(folder: SiteFolder) -> Mapping[str, Attestation]:
    """The attestation of each criterion that begins last."""
    newest: dict[str, Attestation] = {}
    for one in sorted(folder.attestations, key=lambda one: one.since):
        newest[one.criterion] = one
    return newest


def attestation_rows(folder: SiteFolder, book: Rulebook, now: int, due_days: int | None = None) -> list[AttestationRow]:
    """The newest attestation of each criterion, what expires first at the top; attested criteria without any at the end.

    due_days: only what somebody once attested and what does not count now or will not in so many days.
    """
    rows = [_attestation_row(folder, book, one, now) for one in newest_attestations(folder).values()]
    rows.sort(key=lambda row: (row.days is None, row.days, row.criterion))
    known = {row.criterion for row in rows}
    for name, criterion in sorted(book.criteria.items()):
        if criterion.kind == "attested" and name not in known:
            rows.append(AttestationRow(name, criterion.title, "missing"))
    if due_days is None:
        return rows
    begun = [row for row in rows if row.state != "missing"]
    return [row for row in begun if row.state != "valid" or (row.days is not None and row.days <= due_days)]


def _attestation_row(folder: SiteFolder, book: Rulebook, one: Attestation, now: int) -> AttestationRow:
    state: AttestationState = "valid"
    if now >= one.expires:
        state = "expired"
    elif now < one.since:
        state = "not_yet"
    elif one.document and not one.document.is_there:
        state = "document_gone"
    criterion = book.criteria.get(one.criterion)
    return AttestationRow(
        criterion=one.criterion,
        title=criterion.title if criterion else None,
        state=state,
        value=one.value,
        not_applicable=one.is_not_applicable,
        author=one.author,
        role=one.role,
        since=format_moment(one.since, folder.zone),
        expires=format_moment(one.expires, folder.zone),
        days=(one.expires - now) // DAY_MS,
        document=one.document.path if one.document else "",
        place=one.place,
    )


def window_rows(folder: SiteFolder, now: int) -> list[WindowRow]:
    """All maintenance windows, the newest first."""
    rows = []
    for window in sorted(folder.maintenance, key=lambda window: -window.start):
        state: WindowState = "over" if now >= window.end else "running" if now >= window.start else "announced"
        since, until, declared = (
            format_moment(moment, folder.zone) for moment in (window.start, window.end, window.declared)
        )
        rows.append(
            WindowRow(
                of=window.ids,
                state=state,
                since=since,
                until=until,
                reason=window.reason,
                author=window.author,
                declared=declared,
                place=window.place,
            )
        )
    return rows


def entries_table(rows: Sequence[EntryRow]) -> Table:
    """The register for people."""
    titles = (("类别", "section"), ("名称", "id"), ("状态", "state"), ("属性", "attributes"), ("上报者", "reporters"))
    table = _table(say(f"登记 {len(rows)} 项", f"{len(rows)} entries"), titles)
    for row in rows:
        said = " ".join(f"{key}={','.join(values)}" for key, values in row.attributes.items())
        _add_row(table, row.section, _named(row.id, row.title), say(*WORDS[row.state]), said, ", ".join(row.reporters))
    return table


def entry_table(row: EntryRow) -> Table:
    """All that the register says of one entry, a line for each."""
    table = _table(_named(row.id, row.title), (("键", "key"), ("值", "value")))
    for key, value in _said(row):
        _add_row(table, key, value)
    return table


def _said(row: EntryRow) -> Iterator[tuple[str, str]]:
    yield say("状态", "state"), say(*WORDS[row.state])
    for key, value in msgspec.to_builtins(row).items():
        if key == "attributes":
            yield from ((name, ", ".join(values)) for name, values in value.items())
        elif key not in ("id", "state", "title"):
            yield (
                key,
                ", ".join(value)
                if isinstance(value, list | tuple)
                else f"{value:g}"
                if isinstance(value, float)
                else value,
            )


def attestations_table(rows: Sequence[AttestationRow]) -> Table:
    """Attestations for people, what expires first at the top."""
    titles = (
        ("准则", "criterion"),
        ("状态", "state"),
        ("数值", "value"),
        ("到期", "expires"),
        ("还有（天）", "days left"),
        ("证明人", "author"),
    )
    table = _table(say(f"证明 {len(rows)} 项", f"{len(rows)} attestations"), titles)
    for row in rows:
        value = say("不适用", "not applicable") if row.not_applicable else "" if row.value is None else f"{row.value:g}"
        author = f"{row.author} ({row.role})" if row.author else ""
        days = "" if row.days is None else str(row.days)
        _add_row(table, _named(row.criterion, row.title), say(*WORDS[row.state]), value, row.expires, days, author)
    return table


def windows_table(rows: Sequence[WindowRow]) -> Table:
    """Maintenance for people, the newest first."""
    titles = (
        ("对象", "of"),
        ("状态", "state"),
        ("开始", "from"),
        ("结束", "to"),
        ("原因", "reason"),
        ("公布人", "author"),
    )
    table = _table(say(f"维护 {len(rows)} 次", f"{len(rows)} windows"), titles)
    for row in rows:
        _add_row(table, ", ".join(row.of), say(*WORDS[row.state]), row.since, row.until, row.reason, row.author)
    return table


def _named(name: str, title: Text | None) -> str:
    return f"{name} {title}" if title else name


def _add_row(table: Table, *cells: str) -> None:
    """A row whose texts stand as people wrote them: a bracket in a reason is no markup."""
    table.add_row(*(Styled(cell) for cell in cells))


def _table(title: str, columns: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for zh, en in columns:
        table.add_column(say(zh, en), overflow="fold")
    return table
