"""The VRRP instances of a keepalived.conf (keepalived.conf(5)): names, priorities, virtual addresses. Includes are followed."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

MAX_INCLUDES = 64
_TOKEN = re.compile(r'"[^"]*"|[{}]|[^\s{}]+')
_COMMENT = re.compile(r"(?m)[#!].*$")
_DEFAULT_PRIORITY = 100


class Instance(NamedTuple):
    """One vrrp_instance with IPv4 addresses, without their prefix lengths; those without one are left out."""

    name: str
    priority: int
    addresses: tuple[str, ...]


def read_instances(path: Path) -> list[Instance]:
    """The instances of the file and what it includes. Raises OSError."""
    words = list(_read_words(path, [MAX_INCLUDES]))
    instances = []
    for index, word in enumerate(words):
        if word == "vrrp_instance" and index + 2 < len(words) and words[index + 2] == "{":
            instance = _read_instance(words[index + 1], _block(words, index + 2))
            if instance.addresses:
                instances.append(instance)
    return instances


def _read_words(path: Path, left: list[int]) -> Iterator[str]:
    words = _TOKEN.findall(_COMMENT.sub("", path.read_text("utf-8", "replace")))
    index = 0
    while index < len(words):
        if words[index] == "include" and index + 1 < len(words) and left[0] > 0:
            left[0] -= 1
            for part in sorted(path.parent.glob(words[index + 1].lstrip("/"))):
                yield from _read_words(part, left)
            index += 2
        else:
            yield words[index].strip('"')
            index += 1


def _block(words: list[str], start: int) -> list[str]:
    """The words between the brace at `start` and the one that closes it."""
    depth = 0
    for index in range(start, len(words)):
        depth += {"{": 1, "}": -1}.get(words[index], 0)
        if depth == 0:
            return words[start + 1 : index]
    return words[start + 1 :]


def _read_instance(name: str, words: list[str]) -> Instance:
    priority = _DEFAULT_PRIORITY
    addresses: tuple[str, ...] = ()
    for index, word in enumerate(words[:-1]):
        if word == "priority" and words[index + 1].isdecimal():
            priority = int(words[index + 1])
        if word in ("virtual_ipaddress", "virtual_ipaddress_excluded") and words[index + 1] == "{":
            addresses += tuple(_read_addresses(_block(words, index + 1)))
    return Instance(name, priority, addresses)


def _read_addresses(words: list[str]) -> Iterator[str]:
    for before, word in pairwise(["", *words]):
        address = word.partition("/")[0]
        if before not in ("brd", "broadcast", "peer") and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", address):
            yield address
