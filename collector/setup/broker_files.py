"""The broker's configuration and access rights beside what `site init` would write: who changed them is told, and never written over."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from agent.language import say
from collector.setup import site as at
from collector.setup import written
from collector.setup.finding import Finding
from collector.setup.placing import Damaged, as_text, read_bytes
from collector.setup.site import SiteMade


class Difference(NamedTuple):
    """Lines that are wanting, lines that undo what is written, and all lines that were added."""

    lacking: list[str]
    opening: list[str]
    added: list[str]


ONCE = ("per_listener_settings", "allow_anonymous", "password_file", "acl_file", "use_username_as_clientid")
"""Keys of mosquitto.conf that decide who gets in and as whom: of two lines the broker takes the last."""
NEEDED = (*ONCE, "listener", "certfile", "keyfile", "tls_version", "pid_file")
"""Keys whose lines have to be as they are written; others may be set as an operator needs them."""
MOST_SHOWN = 3


def examine_broker_files(folder: Path, made: SiteMade) -> Iterator[Finding]:
    """A finding for each of the two files: good as written, due where somebody added or set something, bad where it no longer serves.

    Raises CannotPlace for a file that may not be read.
    """
    yield _examine(folder, at.BROKER_CONF, written.broker_configuration(folder, made), _compare_configuration)
    yield _examine(folder, at.RIGHTS, written.broker_rights(made), _compare_rights)


def _examine(folder: Path, name: str, wanted: str, compare: Callable[[str, str], Difference]) -> Finding:
    path = folder / name
    if not path.exists():
        return Finding(name, "bad", say("没有这个文件；请运行 site init", "it is not there; run site init"))
    try:
        found = compare(as_text(path, read_bytes(path)), wanted)
    except Damaged as error:
        return Finding(name, "bad", f"{error}{_explain_remaking()}")
    if found.lacking or found.opening:
        parts = [say(f"缺 {_show(found.lacking)}", f"it lacks {_show(found.lacking)}")] if found.lacking else []
        parts += [say(f"多了 {_show(found.opening)}", f"it has {_show(found.opening)}")] if found.opening else []
        text = say("与 site init 所写的不同，", "not as site init wrote it: ") + say("，", ", ").join(parts)
        return Finding(name, "bad", text + _explain_remaking())
    if found.added:
        text = say(
            f"有人改过：{_show(found.added)}；site init 不会覆盖，若是有意的就不必处理",
            f"somebody changed it: {_show(found.added)}; site init leaves it, and if it is meant nothing is to be done",
        )
        return Finding(name, "due", text)
    return Finding(name, "good", say("与 site init 所写的相同", "as site init wrote it"))


def _compare_configuration(found: str, wanted: str) -> Difference:
    there, due = _lines(found), _lines(wanted)
    keys = {_key(line) for line in there}
    lacking = [line for line in due if line not in there and (_key(line) in NEEDED or _key(line) not in keys)]
    added = [line for line in there if line not in due]
    return Difference(lacking, [line for line in added if _key(line) in ONCE], added)


def _compare_rights(found: str, wanted: str) -> Difference:
    there, due = _rights(found), _rights(wanted)
    return Difference([line for line in due if line not in there], [], [line for line in there if line not in due])


def _rights(text: str) -> list[str]:
    """The lines of an ACL, those of a user's section with the user's name before them."""
    section, found = "", []
    for line in _lines(text):
        if _key(line) == "user":
            section = f"{line}: "
        found.append(f"{section}{line}" if _key(line) == "topic" else line)
    return found


def _key(line: str) -> str:
    return line.partition(" ")[0]


def _lines(text: str) -> list[str]:
    """What a file orders: no comments, and every path in one spelling."""
    rows = (line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return [" ".join(os.path.realpath(word) if word.startswith("/") else word for word in row) for row in rows]


def _show(lines: list[str]) -> str:
    shown = say("、", ", ").join(f"'{line}'" for line in lines[:MOST_SHOWN])
    more = len(lines) - MOST_SHOWN
    return shown + (say(f" 等 {len(lines)} 行", f" and {more} more") if more > 0 else "")


def _explain_remaking() -> str:
    return say(
        "；请改回来，或删去该文件再运行 site init，会重新写出，然后重启消息服务器",
        "; put it right, or take the file away and run site init, which writes it anew; then restart the broker",
    )
