"""Reads what the kernel says in `/proc` and `/sys` below a root, with its refusals translated."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say


@contextmanager
def translated_refusals() -> Iterator[None]:
    """What reads the system in here raises NoData when the file is not there, SourceError when it is refused."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoData(say(f"本机没有 {error.filename}", f"{error.filename} is not on this machine")) from error
    except OSError as error:
        where = error.filename or say("系统计数器", "the system's counters")
        raise SourceError(
            say(f"无法读取 {where}：{explain_system(error)}", f"cannot read {where}: {explain_system(error)}")
        ) from error


def read_kernel_file(path: str | Path) -> str:
    """The text of a file that the source cannot do without; raises as `translated_refusals` says."""
    with translated_refusals():
        return _read(str(path)).decode("utf-8", "surrogateescape")


def read_attribute(path: str) -> str | None:
    """The one value of a file in /sys, stripped; None where the driver has none (no file, or reading it is an error)."""
    try:
        return _read(path).decode("utf-8", "replace").strip()
    except OSError:
        return None


def _read(path: str) -> bytes:
    """The whole file. Python's buffered text layer costs three times the CPU, and agents read such files all day."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(file, 65_536):
            parts.append(part)
        return b"".join(parts)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(file)
