"""A recorded walk without anything that tells whose it was: names, places, addresses, serials are replaced before the disk.

Numbers stay, since profiles are about numbers. A text stays only where a profile needs it and only machines write it; what looks
like an address in it goes all the same. Rows whose index holds an address of the network are left out.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator

from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.decode import read_text
from agent.snmp.profile import Profile

SYS_DESCR, SYS_NAME = "1.3.6.1.2.1.1.1.0", "1.3.6.1.2.1.1.5.0"

LEFT_OUT = (
    "1.3.6.1.2.1.1.4",  # sysContact
    "1.3.6.1.2.1.1.6",  # sysLocation
    "1.3.6.1.2.1.3",  # at
    "1.3.6.1.2.1.4",  # ip: addresses, routes, ARP
    "1.3.6.1.2.1.6",  # tcp
    "1.3.6.1.2.1.7",  # udp
    "1.3.6.1.2.1.17.4",  # forwarding by MAC address
    "1.3.6.1.2.1.17.7.1.2",
    "1.3.6.1.2.1.25.4",  # running programs, their arguments too
    "1.3.6.1.2.1.25.6",  # installed programs
    "1.3.6.1.2.1.55",  # ipv6
    "1.3.6.1.2.1.92",  # notifications as they were logged
    "1.3.6.1.6.3.10.2.1.1",  # engine id: holds a MAC address or more
    "1.3.6.1.6.3.12",  # targets of notifications
    "1.3.6.1.6.3.13",
    "1.3.6.1.6.3.15",  # users
    "1.3.6.1.6.3.16",  # groups and views
    "1.3.6.1.6.3.18",  # communities
    "1.3.6.1.4.1.8072.1.3",  # net-snmp's extend: commands and their output
    "1.3.6.1.4.1.2021.8",  # net-snmp's exec
    "1.3.6.1.4.1.2021.16",  # net-snmp's log match
)
"""Subtrees that are about people, addresses or secrets."""

_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b|\b[0-9a-fA-F]{4}(?:[.-][0-9a-fA-F]{4}){2}\b"
)
_UNAME = re.compile(r"(?:Linux|FreeBSD|SunOS|Darwin|AIX) (\S+) ")
"""What `uname -a` prints: the host's own name comes second."""

_MAIL = re.compile(r"\S+@\S+")


def kept_texts(profiles: Iterable[Profile]) -> frozenset[str]:
    """The object ids of columns whose text only a machine writes."""
    return frozenset(
        column.oid
        for profile in profiles
        for table in profile.file.tables.values()
        for column in table.columns.values()
        if column.is_factory
    )


class Scrubber:
    """Replaces, the same word by the same substitute throughout one walk.

    secrets: what must be nowhere: the community, user names, the target's own address and name.
    """

    def __init__(self, kept: frozenset[str], secrets: Iterable[str] = ()) -> None:
        self._kept = kept
        self._secrets = {secret for secret in secrets if secret}
        self._substitutes: dict[str, str] = {}
        self._addresses: dict[str, str] = {}

    def scrub(self, bindings: Iterable[Binding]) -> list[Binding]:
        """The walk as it may lie on a disk."""
        held = [one for one in bindings if not _is_below(one.oid, LEFT_OUT)]
        self._secrets |= {name for one in held if one.oid == SYS_NAME and (name := _text(one))}
        self._secrets |= {found[1] for one in held if one.oid == SYS_DESCR and (found := _UNAME.match(_text(one)))}
        own = {str(one.value) for one in held if one.tag == ber.IP_ADDRESS}
        own |= {secret for secret in self._secrets if _is_address(secret)}
        marks = [f".{address}." for address in own if address not in ("0.0.0.0", "255.255.255.255")]  # noqa: S104 - no bind
        marks += [f".{'.'.join(map(str, octets))}." for octets in _macs(held)]
        return [self._one(one) for one in held if not any(mark in f"{one.oid}." for mark in marks)]

    def _one(self, one: Binding) -> Binding:
        if one.tag == ber.IP_ADDRESS:
            return one._replace(value=self._address(str(one.value)))
        if not isinstance(one.value, bytes):
            return one
        if not one.value:
            return one
        if _is_below(one.oid, self._kept):
            return one._replace(value=self._clean(one.value))
        return one._replace(value=self._replace(one.value))

    def _clean(self, value: bytes) -> bytes:
        """A text that machines write, without addresses and without our own secrets. Octets that are no text stay."""
        text = read_text(value)
        if not _is_plain(value):
            return value
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = re.sub(re.escape(secret), "device", text, flags=re.IGNORECASE)
        text = _MAIL.sub("mail", text)
        return _ADDRESS.sub(
            lambda found: self._address(found[0]) if _is_address(found[0]) else "02:00:00:00:00:00", text
        ).encode()

    def _replace(self, value: bytes) -> bytes:
        """A text as `text-7`, other octets as as many zeros."""
        if not _is_plain(value):
            return bytes(len(value))
        text = read_text(value)
        if text not in self._substitutes:
            self._substitutes[text] = f"text-{len(self._substitutes) + 1}"
        return self._substitutes[text].encode()

    def _address(self, address: str) -> str:
        if address not in self._addresses:
            self._addresses[address] = f"192.0.2.{len(self._addresses) % 254 + 1}"
        return self._addresses[address]


def _is_below(oid: str, subtrees: Iterable[str]) -> bool:
    if isinstance(subtrees, frozenset):
        parts = oid.split(".")
        return any(".".join(parts[:length]) in subtrees for length in range(len(parts), 1, -1))
    return any(oid == subtree or oid.startswith(f"{subtree}.") for subtree in subtrees)


def _is_plain(value: bytes) -> bool:
    text = value.rstrip(b"\0")
    try:
        return text.decode("utf-8").replace("\n", "").replace("\r", "").replace("\t", "").isprintable()
    except UnicodeDecodeError:
        return False


def _text(one: Binding) -> str:
    return read_text(one.value) if isinstance(one.value, bytes) else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _macs(held: Iterable[Binding]) -> Iterator[bytes]:
    """Six octets that are no text: addresses of interfaces, which also stand in indexes."""
    for one in held:
        if isinstance(one.value, bytes) and len(one.value) == 6 and any(one.value) and not _is_plain(one.value):
            yield one.value
