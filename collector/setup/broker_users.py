"""The users of the broker: lines of mosquitto's password file, and the reload that makes the broker read them."""

import base64
import hashlib
import os
import re
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agent.broker import Secret
from agent.errors import InfravitalsError, UnfitSecret
from agent.language import say
from collector.setup.placing import Damaged, Placer, read_text, unreadable
from collector.setup.site import BROKER_PID, PASSWORDS

ITERATIONS = 101
"""mosquitto's own count. It guards words that people choose; ours are 192 random bits, and every login of an agent pays for it."""
SALT_BYTES = 12
_LINE = re.compile(r"[^:\s]+:\$(?:6|7\$\d{1,7})\$[A-Za-z0-9+/]+={0,2}\$[A-Za-z0-9+/]+={0,2}")
"""A user as mosquitto_passwd writes it, with SHA-512 or PBKDF2."""


class UnusablePasswords(InfravitalsError):
    """The password file is lost or damaged."""


class Found(NamedTuple):
    """The lines of the password file that the broker can use; what is wrong with the file and what mends it, None for nothing."""

    lines: list[str]
    trouble: str | None


def new_secret() -> str:
    """A password or token: 192 random bits."""
    return secrets.token_urlsafe(24)


def read_secret(path: Path) -> str:
    """A secret of the site that is kept. Raises CannotPlace where it cannot be read, UnfitSecret where it is none."""
    try:
        text = read_text(path).strip()
        Secret(file=str(path)).read()
    except (Damaged, UnfitSecret) as error:
        raise UnfitSecret(f"{error}{explain_remaking(str(path))}") from error
    return text


def explain_remaking(file: str) -> str:
    """How a secret that the site was made with is made anew."""
    if Path(file).exists():
        return say(
            "；删去该文件，再运行 site init(采集代理：site remove-agent 再 add-agent)，会生成新的",
            "; take the file away and run site init again (an agent: site remove-agent, then add-agent): a new one is made",
        )
    return say(
        "；再运行 site init(采集代理：site remove-agent 再 add-agent)，会生成新的",
        "; run site init again (an agent: site remove-agent, then add-agent): a new one is made",
    )


def password_line(user: str, password: str) -> str:
    """One line of the password file: PBKDF2 with SHA-512, as mosquitto_passwd writes it."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{user}:$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def is_password_of(line: str, password: str) -> bool:
    """Whether a line of the password file was made of this password."""
    parts = line.partition(":")[2].split("$")
    if not _LINE.fullmatch(line) or len(parts) != 5:
        return False
    try:
        salt, digest = base64.b64decode(parts[3]), base64.b64decode(parts[4])
        made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, int(parts[2]))
    except ValueError:  # a line that was spoilt and still looks like one
        return False
    return secrets.compare_digest(made, digest)


def let_in(placer: Placer, user: str, password: str) -> bool:
    """Give a user this password; says whether the file had to change. Raises UnusablePasswords, CannotPlace."""
    return bool(_give(placer, read_lines(placer.folder), {user: password}))


def mend_users(placer: Placer, passwords: Mapping[str, str]) -> list[str]:
    """Give users their passwords, in a new file where it is lost or damaged; names those whose line had to change.

    Lines that the broker can use are kept, whoever's they are; of a damaged file the others are left out. Raises CannotPlace.
    """
    found = find_users(placer.folder)
    changed = _give(placer, found.lines, passwords)
    if found.trouble and not changed:
        _write(placer, found.lines)
    return changed


def shut_out(placer: Placer, user: str) -> bool:
    """Take a user away; says whether there was one. Raises UnusablePasswords, CannotPlace."""
    lines = read_lines(placer.folder)
    others = _others(lines, user)
    if len(others) == len(lines):
        return False
    _write(placer, others)
    return True


def read_lines(folder: Path) -> list[str]:
    """The lines of a password file that is whole. Raises UnusablePasswords: who added to another would shut all others out."""
    found = find_users(folder)
    if found.trouble:
        raise UnusablePasswords(f"{folder / PASSWORDS}{say('：', ': ')}{found.trouble}")
    return found.lines


def find_users(folder: Path) -> Found:
    """What the password file holds, in whatever state it is. Raises CannotPlace where it may not be read."""
    path = folder / PASSWORDS
    mend = say(
        "；请运行 site init，会按各采集代理的密码重新写出",
        "; run site init: it writes it anew from the agents' passwords",
    )
    try:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return Found([], say("没有这个文件", "it is not there") + mend)
    except OSError as error:
        raise unreadable(path, error) from error
    sound = [line for line in lines if not line.strip() or line.startswith("#") or _LINE.fullmatch(line)]
    if not any(_LINE.fullmatch(line) for line in sound):
        return Found([], say("其中没有一个用户", "there is no user in it") + mend)
    if len(sound) < len(lines):
        bad = len(lines) - len(sound)
        text = say(f"有 {bad} 行消息服务器读不懂", f"{bad} of its lines are of no use to the broker")
        return Found(sound, text + mend)
    return Found(sound, None)


def _give(placer: Placer, lines: list[str], passwords: Mapping[str, str]) -> list[str]:
    changed = [
        user
        for user, password in passwords.items()
        if not any(line.startswith(f"{user}:") and is_password_of(line, password) for line in lines)
    ]
    for user in changed:
        lines = [*_others(lines, user), password_line(user, passwords[user])]
    if changed:
        _write(placer, lines)
    return changed


def _others(lines: list[str], user: str) -> list[str]:
    return [line for line in lines if line and not line.startswith(f"{user}:")]


def _write(placer: Placer, lines: list[str]) -> None:
    placer.put(PASSWORDS, "".join(f"{line}\n" for line in lines).encode())


def reload_broker(folder: Path) -> bool:
    """Tell the running broker of this folder to read its files again; False where none runs that we may tell."""
    try:
        pid = int((folder / BROKER_PID).read_text("utf-8").strip())
        if b"mosquitto" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False  # the number belongs to another program by now
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError):
        return False
    return True
