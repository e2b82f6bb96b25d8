"""For `check`: whether the secrets that a configuration names are there, are secrets, and are for nobody else. Never shows one."""

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.broker import Secret
from agent.documents import FileMistakes, Mistake
from agent.errors import MissingSecret, UnfitSecret
from agent.language import say
from agent.secrets import is_open_to_all

Named = tuple[str, Secret]
"""The key of a configuration, such as `broker.password`, and what stands there."""


def secrets_in(value: Any, key: str) -> Iterator[Named]:
    """Every secret below `key`, whatever it lies in."""
    if isinstance(value, Secret):
        yield key, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from secrets_in(getattr(value, name), f"{key}.{name}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from secrets_in(item, f"{key}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for place, item in enumerate(value):
            yield from secrets_in(item, f"{key}[{place}]")


def refuse_troubled(file: Path, secrets: Iterable[Named], environment: Mapping[str, str] = os.environ) -> None:
    """Raises FileMistakes with one sentence for each secret that cannot serve, and the command that mends it.

    What whoever starts the service hands over (a variable, a credential) is looked at only where it is handed over here too.
    """
    mistakes = [
        Mistake(str(file), 0, text) for key, secret in secrets for text in find_troubles(secret, environment, key=key)
    ]
    if mistakes:
        raise FileMistakes(mistakes)


def explain_writing(file: str) -> str:
    """Asks for the secret and writes it where only its owner reads it."""
    command = f"install -m 600 /dev/stdin {shlex.quote(file)}"
    return say(
        f"；请以服务的用户执行 {command}，输入密码后按 Ctrl-D",
        f"; as the service's user run {command}, type the secret and press Ctrl-D",
    )


def find_troubles(
    secret: Secret,
    environment: Mapping[str, str] = os.environ,
    *,
    key: str | None = None,
    mend: Callable[[str], str] = explain_writing,
) -> Iterator[str]:
    """Why a secret cannot serve, a sentence each. key: what of a configuration names it; mend: what to do about its file."""
    named = say(f"{key}：", f"{key}: ") if key else ""
    try:
        secret.read(environment, key=key)
    except MissingSecret as error:
        if secret.file is not None:
            yield f"{error}{mend(secret.file)}"  # it names the key
        return
    except UnfitSecret as error:
        yield f"{named}{error}{mend(secret.file) if secret.file else ''}"
    if secret.env is None and (text := explain_open(secret.path(environment))):
        yield f"{named}{text}"


def explain_open(path: Path) -> str | None:
    """That everybody may read a file, and the command that mends it; None for a file that is fit for a secret."""
    if not is_open_to_all(path):
        return None
    return say(
        f"本机任何用户都能读 {path}；请执行 chmod o= {shlex.quote(str(path))}",
        f"every user of this machine may read {path}; run chmod o= {shlex.quote(str(path))}",
    )
