"""The users of the broker: lines of mosquitto's password file, and the reload that makes the broker read them."""

import base64
import hashlib
import os
import secrets
import signal
from pathlib import Path

from agent.broker import Secret
from agent.errors import UnfitSecret
from agent.language import say
from collector.setup.placing import Placer, read_text
from collector.setup.site import BROKER_PID, PASSWORDS

ITERATIONS = 101
"""mosquitto's own count. It guards words that people choose; ours are 192 random bits, and every login of an agent pays for it."""
SALT_BYTES = 12


def new_secret() -> str:
    """A password or token: 192 random bits."""
    return secrets.token_urlsafe(24)


def read_secret(path: Path) -> str:
    """A secret of the site that is kept. Raises CannotPlace where it cannot be read, UnfitSecret where it is none."""
    text = read_text(path).strip()
    try:
        Secret(file=str(path)).read()
    except UnfitSecret as error:
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
    if len(parts) != 5 or not parts[2].isdigit():
        return False
    salt, digest = base64.b64decode(parts[3]), base64.b64decode(parts[4])
    return secrets.compare_digest(hashlib.pbkdf2_hmac("sha512", password.encode(), salt, int(parts[2])), digest)


def let_in(placer: Placer, user: str, password: str) -> bool:
    """Give a user this password; says whether the file had to change. Raises CannotPlace."""
    lines = read_lines(placer.folder)
    if any(line.startswith(f"{user}:") and is_password_of(line, password) for line in lines):
        return False
    _write(placer, [*_others(lines, user), password_line(user, password)])
    return True


def shut_out(placer: Placer, user: str) -> bool:
    """Take a user away; says whether there was one. Raises CannotPlace."""
    lines = read_lines(placer.folder)
    others = _others(lines, user)
    if len(others) == len(lines):
        return False
    _write(placer, others)
    return True


def read_lines(folder: Path) -> list[str]:
    """The lines of the password file."""
    path = folder / PASSWORDS
    return read_text(path).splitlines() if path.exists() else []


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
