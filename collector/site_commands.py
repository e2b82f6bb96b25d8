"""What `register`, `attest` and `maintenance` do: read the site folder, ask the store what it has seen, edit, print."""

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
from rich.console import Console
from rich.table import Table

from agent import catalogue
from agent.commandline import OK, WRONG
from agent.documents import FileMistakes, Mistake, nearest, write_document
from agent.errors import InfravitalsError, WrongCall
from agent.foreign_words import explain_system
from agent.language import say
from collector import beside
from collector.config import read_config
from collector.rulebook import Rulebook
from collector.ruleset import load_rules
from collector.site_check import (
    check_against_rules,
    check_against_seen,
    explain_not_applicable,
    explain_unknown,
    explain_value,
    find_near_misses,
)
from collector.site_draft import draft
from collector.site_edit import SiteEditor, write_new
from collector.site_files import read_site_folder
from collector.site_folder import DEFAULT_ZONE, Attestation, SiteFolder
from collector.site_seen import Seen
from collector.site_times import format_moment, parse_moment
from collector.site_views import (
    attestation_rows,
    attestations_table,
    entries_table,
    entry_rows,
    entry_table,
    newest_attestations,
    window_rows,
    windows_table,
)
from collector.site_written import ATTESTATIONS, MAINTENANCE

OPTIONS_OF_ATTESTATION = {
    "value": "--value",
    "not_applicable": "--not-applicable",
    "reason": "--reason",
    "author": "--author",
    "role": "--role",
    "document": "--document",
    "from": "--from",
    "expires": "--expires",
}
OPTIONS_OF_MAINTENANCE = {"of": "ID", "from": "--from", "to": "--to", "reason": "--reason", "author": "--author"}
"""Which option gives the value of which key."""


class NoSiteFolder(WrongCall):
    """No site folder was named, and none lies where it usually does."""


class CannotWrite(InfravitalsError):
    """The draft's file is there already, or cannot be made."""


class NoSuchPath(CannotWrite, WrongCall):
    """The draft's file would lie where there is no directory."""


class Where(NamedTuple):
    """What a command's arguments name; place: None when no data was named and none lies where it usually does."""

    place: beside.Place | None
    folder: Path | None
    rules: Path | None
    zone: ZoneInfo

    def site_folder(self) -> Path:
        """The site folder. Raises NoSiteFolder."""
        if self.folder is None:
            zh, en = "没有站点目录", "there is no site folder"
            if self.place is not None:
                words = _spell_draft(self.place)
                zh += f"；先写登记初稿：{words}"
                en += f"; a first register is written by: {words}"
            raise NoSiteFolder(
                say(
                    f"{zh}；或用 --site-folder 指明，或在 collector.yaml 中写 site_folder",
                    f"{en}; or name one by --site-folder, or by site_folder in collector.yaml",
                )
            )
        return self.folder

    def read(self) -> tuple[SiteFolder, list[Mistake]]:
        """The site folder and its warnings. Raises FileMistakes."""
        return read_site_folder(self.site_folder(), self.zone)

    def book(self) -> Rulebook:
        """The rules that attestations and exemptions are held against."""
        return load_rules(self.rules).rules.book

    def editor(self, book: Rulebook) -> SiteEditor:
        """An editor of the site folder."""
        return SiteEditor(self.site_folder(), lambda folder: check_against_rules(folder, book), self.zone)


def _spell_draft(place: beside.Place) -> str:
    from collector.snapshot import Commands, program_word  # much that only who lacks a folder needs

    return Commands(program_word(sys.argv[0]), place.words, place.register).spell_draft()


def _find(options: argparse.Namespace) -> Where:
    """Where the arguments point. A folder that is named alone is looked at alone, without data."""
    place = None
    if options.config is not None:
        place = beside.place_of(read_config(options.config))
    elif options.data_dir is not None:
        place = beside.find_place(None, options.data_dir)
    elif options.site_folder is None and beside.has_data(options.default_data):
        place = beside.find_place(None, options.default_data)
    folder = options.site_folder or (place.site_folder if place else None)
    rules = options.rules or (place.rules_directory if place else None)
    return Where(place, folder, rules, place.site.zone if place else DEFAULT_ZONE)


def _draft(options: argparse.Namespace) -> int:
    place = _find(options).place or beside.find_place(None, options.default_data)
    seen = msgspec.json.decode(beside.ask_seen(place), type=Seen)
    text = draft(seen, place.site.zone)
    if options.output is None:
        print(text, end="")
        return OK
    try:
        with _site_folder(place, options.output) as is_new_folder:
            write_new(options.output, text)
    except FileExistsError as error:
        raise CannotWrite(
            say(
                f"{options.output} 已存在，不会覆盖；请另选文件名",
                f"{options.output} is there already and stays; choose another name",
            )
        ) from error
    except OSError as error:
        is_named_wrongly = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise (NoSuchPath if is_named_wrongly else CannotWrite)(
            say(
                f"无法写入 {options.output}：{explain_system(error)}",
                f"cannot write {options.output}: {explain_system(error)}",
            )
        ) from error
    print(
        say(
            f"已写入 {options.output}：{len(seen.assets)} 项资产；请逐条核对",
            f"{options.output} written, {len(seen.assets)} assets; look at every line",
        )
    )
    for text in _next_step(place, options, is_new_folder):
        print(text)
    return OK


@contextmanager
def _site_folder(place: beside.Place, output: Path) -> Iterator[bool]:
    """The site's own folder is made for the first file in it, where nobody named another; gives whether it was.

    It goes again when that file cannot be written.
    """
    is_new = place.site_folder is None and output.absolute() == place.register and not output.parent.exists()
    if is_new:
        output.parent.mkdir(mode=0o755)
    try:
        yield is_new
    except OSError:
        if is_new:
            output.parent.rmdir()
        raise


def _next_step(place: beside.Place, options: argparse.Namespace, is_new_folder: bool) -> Iterator[str]:
    """What makes a register of the draft; nothing where a collector sees it by itself."""
    if options.output.absolute() != place.register:
        yield say(f"核对后请存为 {place.register}", f"once it is right keep it as {place.register}")
    elif options.config is not None and place.site_folder is None:
        yield say(
            f"请在 {options.config} 中写 `site_folder: {place.register.parent}`，再重新启动采集中心",
            f"write `site_folder: {place.register.parent}` into {options.config} and start the collector anew",
        )
    elif is_new_folder:
        yield say("运行中的采集中心重新启动后才读它", "a collector that runs reads it once it is started anew")


def _check(options: argparse.Namespace) -> int:
    where = _find(options)
    mistakes: Sequence[Mistake] = ()
    findings: list[Mistake] = []
    try:
        folder, findings = where.read()
        mistakes = check_against_rules(folder, where.book())
        findings = [*findings, *find_near_misses(folder, where.book(), catalogue.load())]
    except FileMistakes as error:
        mistakes = error.mistakes
    else:
        if where.place is not None:
            seen = msgspec.json.decode(beside.ask_seen(where.place), type=Seen)
            findings = [*findings, *check_against_seen(folder, where.site_folder(), seen)]
    if options.format == "json":
        found = {"mistakes": [one._asdict() for one in mistakes], "warnings": [one._asdict() for one in findings]}
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return WRONG if mistakes else OK
    for finding in findings:
        print(say("提醒 ", "warning ") + str(finding))
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    if not mistakes:
        print(
            say(
                f"{where.folder}：没有错误，{len(findings)} 处提醒",
                f"{where.folder}: no mistakes, {len(findings)} warnings",
            )
        )
    return WRONG if mistakes else OK


def _show(options: argparse.Namespace) -> int:
    folder, _ = _find(options).read()
    as_of = parse_moment(options.as_of, folder.zone) if options.as_of else _now_ms()
    rows = entry_rows(folder, as_of)
    if options.id is None:
        return _print(rows, options.format, entries_table(rows))
    named = [row for row in rows if row.id == options.id]
    if not named:
        text = say(f"登记中没有 '{options.id}'", f"the register has no '{options.id}'")
        return _refuse(text + nearest(options.id, {row.id for row in rows}))
    if options.format != "table":
        return _print(named, options.format, None)
    for row in named:  # one id may stand in two sections: a service and the asset it runs on
        _console().print(entry_table(row))
    return OK


def _attest(options: argparse.Namespace) -> int:
    where = _find(options)
    book = where.book()
    if text := _explain(options, book):
        return _refuse(text)
    with where.editor(book) as editor:
        folder = editor.read()
        if options.since and parse_moment(options.since, folder.zone) < parse_moment(_today(folder.zone), folder.zone):
            return _refuse(
                say(
                    f"--from 是 {options.since}，已经过去：证明从作出之日起算，过去的评分不再改变",
                    f"--from is {options.since}, which is past: an attestation counts from the day it is made, the scores of the past stand",
                )
            )
        since = options.since or _begin(newest_attestations(folder).get(options.criterion), folder.zone)
        entry = {
            "criterion": options.criterion,
            "value": _number(options.value),
            "not_applicable": options.not_applicable or None,
            "reason": options.reason,
            "author": options.author,
            "role": options.role,
            "document": editor.keep_document(options.document) if options.document else None,
            "from": since,
            "expires": options.expires,
        }
        editor.append(ATTESTATIONS, entry, OPTIONS_OF_ATTESTATION)
    return _done(where, say(f"已证明 {options.criterion}", f"{options.criterion} attested"))


def _explain(options: argparse.Namespace, book: Rulebook) -> str | None:
    """Why the criterion cannot be attested so; None when it can."""
    criterion = book.criteria.get(options.criterion)
    if criterion is None:
        return explain_unknown(options.criterion, book)
    if options.not_applicable:
        return explain_not_applicable(options.criterion, criterion)
    if options.document is None and criterion.kind == "attested":
        return say(
            "证明一个值须附上文件：请加 --document 文件",
            "who vouches for a value attaches the paper: add --document FILE",
        )
    return explain_value(options.criterion, criterion, book.scales[criterion.scale], options.value)


def _begin(before: Attestation | None, zone: ZoneInfo) -> str:
    """From when on a new attestation holds: today, or this moment when the one before began today or later."""
    now, today = datetime.datetime.now(zone), _today(zone)
    if before is None or before.since < parse_moment(today, zone):
        return today
    return now.isoformat(timespec="seconds")


def _today(zone: ZoneInfo) -> str:
    return datetime.datetime.now(zone).date().isoformat()


def _number(value: float | None) -> float | int | None:
    """A whole number as a person writes it, without a point."""
    return int(value) if value is not None and value.is_integer() else value


def _attestations(options: argparse.Namespace) -> int:
    where = _find(options)
    folder, _ = where.read()
    rows = attestation_rows(folder, where.book(), _now_ms(), options.due)
    return _print(rows, options.format, attestations_table(rows))


def _renew(options: argparse.Namespace) -> int:
    where = _find(options)
    with where.editor(where.book()) as editor:
        folder = editor.read()
        before = newest_attestations(folder).get(options.criterion)
        if before is None:
            return _refuse(_explain_missing(options.criterion, folder))
        paper = before.document
        kept = {"path": paper.path, "sha256": paper.sha256} if paper else None
        entry = {
            "criterion": before.criterion,
            "value": _number(before.value),
            "not_applicable": before.is_not_applicable or None,
            "reason": before.reason,
            "author": options.author or before.author,
            "role": options.role or before.role,
            "document": editor.keep_document(options.document) if options.document else kept,
            "from": options.since or _begin(before, folder.zone),
            "expires": options.expires,
        }
        editor.append(ATTESTATIONS, entry, OPTIONS_OF_ATTESTATION)
    return _done(where, say(f"{options.criterion} 已续期", f"{options.criterion} renewed"))


def _expire(options: argparse.Namespace) -> int:
    where = _find(options)
    with where.editor(where.book()) as editor:
        folder = editor.read()
        before = newest_attestations(folder).get(options.criterion)
        if before is None:
            return _refuse(_explain_missing(options.criterion, folder))
        now = _now_ms() // 1000 * 1000
        if not before.since < now < before.expires:
            text = say(f"{before.place}：这项证明现在并未生效", f"{before.place}: this attestation does not hold now")
            return _refuse(text)
        position = folder.attestations.index(before)

        def end(entries: Any) -> None:
            entries[position]["expires"] = format_moment(now, folder.zone)

        editor.edit(ATTESTATIONS, end)
    return _done(where, say(f"{options.criterion} 的证明已终止", f"the attestation of {options.criterion} has ended"))


def _explain_missing(criterion: str, folder: SiteFolder) -> str:
    text = say(f"还没有 '{criterion}' 的证明", f"there is no attestation of '{criterion}'")
    return text + nearest(criterion, {one.criterion for one in folder.attestations})


def _announce(options: argparse.Namespace) -> int:
    where = _find(options)
    with where.editor(where.book()) as editor:
        folder = editor.read()
        now = _now_ms()
        if parse_moment(options.since, folder.zone) <= now:
            return _refuse(
                say(
                    f"--from 是 {options.since}，已经过去：只有事先公布的维护才免计",
                    f"--from is {options.since}, which is past: only what was announced beforehand excuses",
                )
            )
        entry = {
            "of": options.ids,
            "from": options.since,
            "to": options.until,
            "reason": options.reason,
            "author": options.author,
            "declared": format_moment(now // 1000 * 1000, folder.zone),
        }
        editor.append(MAINTENANCE, entry, OPTIONS_OF_MAINTENANCE)
    return _done(where, say("维护已公布", "maintenance announced"))


def _windows(options: argparse.Namespace) -> int:
    folder, _ = _find(options).read()
    rows = window_rows(folder, _now_ms())
    return _print(rows, options.format, windows_table(rows))


def _now_ms() -> int:
    return int(time.time() * 1000)


PIPED_COLUMNS = 400


def _console() -> Console:
    """What tables are printed on; in a pipe nothing is wrapped, since a program reads it or a person searches it."""
    return Console() if sys.stdout.isatty() else Console(width=PIPED_COLUMNS)


def _print(rows: object, form: str, table: Table | None) -> int:
    if form == "json":
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    elif form == "yaml":
        print(write_document(msgspec.to_builtins(rows)), end="")
    else:
        _console().print(table)
    return OK


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return WRONG


def _done(where: Where, text: str) -> int:
    """Say what was done, and what of the folder is worth a warning now."""
    _, warnings = where.read()
    for warning in warnings:
        print(say("提醒 ", "warning ") + str(warning))
    print(text)
    return OK


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "draft": _draft,
    "check": _check,
    "show": _show,
    "attest": _attest,
    "attestations": _attestations,
    "renew": _renew,
    "expire": _expire,
    "announce": _announce,
    "windows": _windows,
}
