"""Edits of a site folder's files: comments and order stay, nothing wrong gets in, and two edits at once lose neither."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from agent.documents import FileMistakes, Mistake, edit_document, parse_document
from agent.errors import InfravitalsError, WrongCall
from agent.foreign_words import explain_system
from agent.language import say
from collector.site_files import read_site_folder
from collector.site_folder import DEFAULT_ZONE, SiteFolder
from collector.site_spots import find_digest
from collector.site_times import parse_day
from collector.site_written import DOCUMENTS

LOCK = ".lock"

Check = Callable[[SiteFolder], list[Mistake]]
Entry = Mapping[str, object]


class CannotEdit(InfravitalsError):
    """The folder or the document cannot be read or written, or there is nothing of the kind to edit."""


class WrongEntry(CannotEdit, WrongCall):
    """The entry that the command line gives has mistakes: a line for each, by its option."""


class NotThere(CannotEdit, WrongCall):
    """The folder or the document that was named is not there."""


class SiteEditor:
    """Edits one site folder, `with` its lock held: others wait. check: what the rules have against the folder as edited.

    Whatever is put in place was read back before, with every other file of the folder: a folder that has mistakes
    takes no edit. Raises FileMistakes for what would be wrong, CannotEdit for a folder that cannot be written.
    """

    def __init__(self, folder: Path, check: Check, zone: ZoneInfo = DEFAULT_ZONE) -> None:
        self.folder, self._check, self._zone = folder, check, zone
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "SiteEditor":
        if not self.folder.is_dir():
            raise NotThere(say(f"站点目录 {self.folder} 不存在", f"there is no site folder {self.folder}"))
        self._stack.enter_context(hold_lock(self.folder, _unwritable))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def read(self) -> SiteFolder:
        """The folder as it is now."""
        return read_site_folder(self.folder, self._zone)[0]

    def append(self, name: str, entry: Entry, options: Mapping[str, str] | None = None) -> None:
        """One more entry at the end of a list file, which is made when it is not there.

        options: key -> the option that gave its value, by which a complaint about the entry is told: the file does
        not have it, so its line would be nowhere.
        """
        self._edit(name, lambda entries: entries.append(_plain(entry)), options)

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Change the list of a file in place."""
        self._edit(name, change, None)

    def _edit(self, name: str, change: Callable[[Any], None], options: Mapping[str, str] | None) -> None:
        path = self.folder / name
        try:
            text = path.read_text("utf-8") if path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        read_site_folder(self.folder, self._zone)  # what is wrong before the edit is said with its own lines

        def edited(value: Any) -> Any:
            entries = [] if value is None else value
            change(entries)
            return entries

        new = edit_document(text, edited)
        try:
            self._put(name, new)
        except FileMistakes as error:
            if options is None:
                raise
            raise WrongEntry("\n".join(_tell_by_option(path, new, error.mistakes, options))) from error

    def keep_document(self, source: Path) -> dict[str, str]:
        """Copy a paper into documents/ and give its path and digest; one of that name and content is used as it is.

        Another paper of that name keeps it, and this one gets a part of its digest into its own.
        """
        digest = find_digest(source)
        if not digest:
            text = say(f"无法读取文件 {source}", f"cannot read the document {source}")
            if source.is_dir():
                raise NotThere(text + say("：这是一个目录", ": it is a folder"))
            raise (CannotEdit if os.access(source, os.F_OK) else NotThere)(text)
        home = self.folder / DOCUMENTS
        target = home / source.name
        if target.exists() and find_digest(target) != digest:
            target = home / f"{source.stem}-{digest[:8]}{source.suffix}"
        if find_digest(target) != digest:
            try:
                home.mkdir(exist_ok=True)
                _copy(source, target)
            except OSError as error:
                raise _unwritable(target, error) from error
        return {"path": str(target.relative_to(self.folder)), "sha256": digest}

    def _put(self, name: str, text: str) -> None:
        """Hold the whole folder against itself and the rules with the new text in place, then put it there at once."""
        folder, _ = read_site_folder(self.folder, self._zone, {name: text})
        if mistakes := self._check(folder):
            raise FileMistakes(mistakes)
        path = self.folder / name
        try:
            with _beside(path) as new:
                new.write_text(text, "utf-8")
                _sync(new)
                new.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
                new.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error


def _tell_by_option(path: Path, text: str, mistakes: Iterable[Mistake], options: Mapping[str, str]) -> Iterator[str]:
    """Mistakes of the last entry of `text`, each under its option instead of a line that the file does not have."""
    document = parse_document(text, str(path))
    last = len(document.value) - 1
    begin = document.line((last,))
    keys = {document.line((last, key)): key for key in document.value[last]}
    for mistake in mistakes:
        if mistake.file != str(path) or mistake.line < begin:
            yield str(mistake)
            continue
        line = max((line for line in keys if line <= mistake.line), default=begin)
        yield _name_option(mistake.text, options.get(keys.get(line, ""), str(path)), options)


def _name_option(text: str, option: str, options: Mapping[str, str]) -> str:
    """The complaint with the options in place of the file's keys, the one that it is about in front."""
    for key, name in options.items():
        text = text.replace(f"'{key}'", name)
    return text if text.startswith(option) else f"{option}: {text}"


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all. Raises FileExistsError and every other OSError."""
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _beside(path) as new:
        new.write_text(text, "utf-8")
        _sync(new)
        new.chmod(0o644)
        try:
            os.link(new, path)  # unlike a rename it never goes over a file that came in between
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            new.replace(path)


def _plain(entry: Entry) -> dict[str, object]:
    """Values as they are written without quotes: a day as a day. What is None is left out."""
    return {
        key: _as_day(value) if isinstance(value, str) else value for key, value in entry.items() if value is not None
    }


def _as_day(text: str) -> object:
    try:
        day = parse_day(text)
    except ValueError:
        return text
    return day if day.isoformat() == text else text


@contextlib.contextmanager
def hold_lock(folder: Path, explain: Callable[[Path, OSError], Exception], mode: int = 0o644) -> Iterator[None]:
    """Hold the lock of a folder, so that of two commands one waits; it ends with the process, nothing stale is ever left.

    explain: the error to raise when the lock's file cannot be made.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    except OSError as error:
        raise explain(folder / LOCK, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A new file in the same directory, gone afterwards unless it was moved into place."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(number)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copy(source: Path, target: Path) -> None:
    with _beside(target) as new:
        shutil.copyfile(source, new)
        _sync(new)
        new.chmod(0o644)
        new.replace(target)


def _unreadable(path: Path, error: Exception) -> CannotEdit:
    reason = explain_system(error) if isinstance(error, OSError) else error
    return CannotEdit(say(f"无法读取 {path}：{reason}", f"cannot read {path}: {reason}"))


def _unwritable(path: Path, error: OSError) -> CannotEdit:
    return CannotEdit(say(f"无法写入 {path}：{explain_system(error)}", f"cannot write {path}: {explain_system(error)}"))
