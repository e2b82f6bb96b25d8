"""Files put in place whole or not at all: a kill, a full disk or a second run never leaves half of one."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from agent.errors import InfravitalsError, WrongCall
from agent.foreign_words import explain_system
from agent.language import say

PART = ".part-"
"""How the name of a file begins that is not in place yet; what a kill left of them is swept at the next run."""


class CannotPlace(InfravitalsError):
    """A folder or file cannot be written or read."""


class Damaged(CannotPlace):
    """A file is not what was written there."""


class NoFolder(CannotPlace, WrongCall):
    """A file is where a folder was named."""


class Placer:
    """Puts the files of one folder in place and remembers what it made and what it kept.

    told, troubles: sentences for who ran the command, of what was mended and of what a person has to mend.
    notice: is told the name of each file after its content was written beside its place and before it goes there.
    """

    def __init__(self, folder: Path, notice: Callable[[str], None] = lambda name: None) -> None:
        self.folder, self._notice = folder, notice
        self.made: list[str] = []
        self.kept: list[str] = []
        self.told: list[str] = []
        self.troubles: list[str] = []

    def keep_or_make(self, name: str, make: Callable[[], bytes], mode: int = 0o600) -> bytes:
        """The content of the file `name`, which is made where it is not there. Raises CannotPlace."""
        path = self.folder / name
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            content = make()
            self.put(name, content, mode)
            return content
        except OSError as error:
            raise unreadable(path, error) from error
        self.kept.append(name)
        return found

    def put(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """Write the file `name` whole, in place of what is there. Raises CannotPlace."""
        path = self.folder / name
        self.make_folder(path.parent)
        beside = path.with_name(f"{PART}{path.name}-{secrets.token_hex(4)}")
        try:
            with _open_new(beside, mode) as file:
                self._give_away(beside)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._notice(name)
            beside.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            beside.unlink(missing_ok=True)
        self.made.append(name)

    def make_folder(self, path: Path) -> None:
        """A folder for its owner alone, with what is above it below our own. Raises CannotPlace."""
        try:
            if not path.is_dir():
                self.make_folder(path.parent)
                path.mkdir(mode=0o700)
                self._give_away(path)
        except (FileExistsError, NotADirectoryError) as error:
            text = say(f"{path} 处是文件，不是目录；请换一个目录", f"{path} is a file, no folder; choose another")
            raise NoFolder(text) from error
        except OSError as error:
            raise unwritable(path, error) from error

    def _give_away(self, path: Path) -> None:
        """What root puts into another's site is that one's, or its programs could not read it."""
        if os.geteuid() == 0 and self.folder.is_dir():
            owner = self.folder.stat()
            os.chown(path, owner.st_uid, owner.st_gid)

    def sweep(self) -> None:
        """Take away what a killed run left beside its places."""
        with contextlib.suppress(OSError):
            for left in self.folder.rglob(f"{PART}*"):
                left.unlink()

    def remove(self, name: str) -> None:
        """Take a file or a folder away, where it is there. Raises CannotPlace."""
        path = self.folder / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """What a file of ours holds. Raises CannotPlace."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: Path) -> str:
    """The text of a file of ours. Raises CannotPlace, Damaged where it is none."""
    return as_text(path, read_bytes(path))


def as_text(path: Path, content: bytes, mend: str = "") -> str:
    """The text that the file `path` holds. mend: what to do about it. Raises Damaged where it is none."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged(
            say(f"{path} 已损坏，不是 UTF-8 文本", f"{path} is damaged: it is no UTF-8 text") + mend
        ) from error


def unreadable(path: Path, error: OSError) -> CannotPlace:
    """Why a file cannot be read."""
    return CannotPlace(say(f"无法读取 {path}：{explain_system(error)}", f"cannot read {path}: {explain_system(error)}"))


def unwritable(path: Path, error: OSError) -> CannotPlace:
    """Why a file cannot be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotPlace(
            say(
                f"写不下 {path}：磁盘已满；腾出空间后再运行一次，会接着做完",
                f"{path} does not fit: the disk is full; make room and run it again, it goes on where it stopped",
            )
        )
    if error.errno == errno.ENOENT:
        return CannotPlace(
            say(
                f"无法写入 {path}：没有目录 {path.parent}；请先建好",
                f"cannot write {path}: there is no folder {path.parent}; make it first",
            )
        )
    return CannotPlace(
        say(
            f"无法写入 {path}：{explain_system(error)}；请检查权限",
            f"cannot write {path}: {explain_system(error)}; look at its owner and mode",
        )
    )


def _open_new(path: Path, mode: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
