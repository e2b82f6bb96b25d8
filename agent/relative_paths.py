"""Paths in a configuration are taken from where its file stands, so that a folder with a file and its secrets can be put anywhere."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agent.broker import Secret, Tls

T = TypeVar("T")

CREDENTIALS = "credentials"
"""The folder beside a configuration whose files stand for systemd's credentials where systemd did not start the program."""


def resolve_paths(value: T, folder: Path, environment: Mapping[str, str] = os.environ) -> T:
    """`value` with every relative path of its secrets and certificates taken from `folder`, however deep they stand."""
    resolved: T = _resolve(value, folder, environment)
    return resolved


def _resolve(value: Any, folder: Path, environment: Mapping[str, str]) -> Any:
    if isinstance(value, Secret):
        return _resolve_secret(value, folder, environment)
    if isinstance(value, msgspec.Struct):
        changed = {
            name: _resolve_field(value, name, part, folder, environment)
            for name in value.__struct_fields__
            if (part := getattr(value, name)) is not None
        }
        fresh = {name: part for name, part in changed.items() if part is not getattr(value, name)}
        return msgspec.structs.replace(value, **fresh) if fresh else value
    if isinstance(value, dict):
        return {key: _resolve(part, folder, environment) for key, part in value.items()}
    if isinstance(value, list | tuple) and any(isinstance(part, msgspec.Struct | dict) for part in value):
        return type(value)(_resolve(part, folder, environment) for part in value)
    return value


def _resolve_field(owner: msgspec.Struct, name: str, part: Any, folder: Path, environment: Mapping[str, str]) -> Any:
    if isinstance(part, str) and (isinstance(owner, Tls) or name == "ca"):
        return part if Path(part).is_absolute() else str(folder / part)
    return _resolve(part, folder, environment)


def _resolve_secret(secret: Secret, folder: Path, environment: Mapping[str, str]) -> Secret:
    if secret.file is not None and not Path(secret.file).is_absolute():
        return Secret(file=str(folder / secret.file))
    if secret.credential is not None and "CREDENTIALS_DIRECTORY" not in environment:
        beside = folder / CREDENTIALS / secret.credential  # named also where it is missing, to be told by its path
        return Secret(file=str(beside)) if beside.parent.is_dir() else secret
    return secret
