"""What a backup without keys leaves out of a site, and how `site init` fills it in again."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from agent.documents import parse_document
from agent.errors import InfravitalsError
from agent.language import say
from collector.config import DEFAULT_GROUP
from collector.setup.site import COLLECTOR

MOST_TEXT_BYTES = 1024 * 1024

GROUP, HASH = "<share-group-left-out-of-the-backup>", "<password-left-out-of-the-backup>"
"""Stand where the secrets stood. A configuration that has one is refused: nothing starts with a group that is guessed."""

_GROUPS = re.compile(r"""(?P<key>share_group["']?\s*:\s*)(?P<value>"[^"\n]*"|'[^'\n]*'|[^\s"',#{}]+)""")
_HASHES = re.compile(r"scrypt\$\d+\$\d+\$\d+\$[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+")


class CannotLeaveOut(InfravitalsError):
    """A secret stands in a configuration in a way that nobody can take it out by."""


def is_key(name: str) -> bool:
    """Whether a file of a site is secret, or of no use without one that is."""
    path = PurePosixPath(name)
    is_secret = "credentials" in path.parts or path.suffix in (".key", ".pem", ".password", ".passwords", ".token")
    return is_secret or path.parts[0] in ("agents", "ca")


def without_keys(files: Mapping[str, Path], staged: Path) -> tuple[dict[str, Path], list[str]]:
    """The files without those that are keys, and texts without the secrets that stand in them; then what is to be made anew.

    files: name in the archive -> the file. staged: where changed texts are put; what lies there already are data. What is
    to be made anew are files, and keys of the configuration as `file: key`. Raises CannotLeaveOut.
    """
    kept = {name: path for name, path in files.items() if not is_key(name)}
    left_out = [name for name in files if is_key(name)]
    for number, (name, path) in enumerate(kept.items()):
        text = None if staged in path.parents else _read_short(path)
        if text is None:
            continue
        plain = leave_out(text)
        if name == COLLECTOR:
            _refuse_left(path, plain)
            left_out += [f"{name}: {key}" for key in find_secret_keys(text)]
        if plain != text:
            kept[name] = staged / f"without-keys-{number}"
            kept[name].write_text(plain, "utf-8")
            kept[name].chmod(path.stat().st_mode & 0o777)
    return kept, left_out


def _read_short(path: Path) -> str | None:
    """What a person or `site init` wrote; None for what is no text."""
    try:
        return path.read_text("utf-8") if path.stat().st_size <= MOST_TEXT_BYTES else None
    except UnicodeDecodeError:
        return None


def _refuse_left(path: Path, plain: str) -> None:
    if keys := find_secret_keys(plain):
        raise CannotLeaveOut(
            say(
                f"无法把 {'、'.join(keys)} 从 {path} 中去掉；请把每一项写在一行，或带上 --with-keys",
                f"cannot take {', '.join(keys)} out of {path}; write each on one line, or say --with-keys",
            )
        )


def leave_out(text: str) -> str:
    """A text without the groups and the passwords' hashes that stand in it, in comments too."""
    return _GROUPS.sub(_without_group, leave_hashes_out(text))


def leave_hashes_out(text: str) -> str:
    """A text without the passwords' hashes that stand in it."""
    return _HASHES.sub(HASH, text)


def _without_group(found: re.Match[str]) -> str:
    is_known = found["value"].strip("\"'") == DEFAULT_GROUP
    return found[0] if is_known else f"{found['key']}{GROUP}"


def find_secret_keys(text: str) -> list[str]:
    """The keys of a configuration that hold what everybody could use who reads it."""
    value = parse_document(text, "collector.yaml").value
    page = value.get("page") or {}
    found = {
        "share_group": value.get("share_group", DEFAULT_GROUP) not in (DEFAULT_GROUP, GROUP),
        "page.password_scrypt": page.get("password_scrypt") not in (None, HASH),
    }
    return [key for key, is_secret in found.items() if is_secret]


def is_wanting(text: str) -> bool:
    """Whether a secret was left out of a configuration."""
    return GROUP in text or HASH in text


def fill_in(text: str, group: str, password_hash: str) -> str:
    """A configuration with a new group and a new hash where they were left out."""
    return text.replace(GROUP, group).replace(HASH, password_hash)
