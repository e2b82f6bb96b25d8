"""Who answers for an IPv4 address on this host's networks: one ARP probe (RFC 5227), and the hardware addresses that reply."""

import socket
import struct
import time
from ipaddress import IPv4Address, IPv4Network

import psutil

ETH_P_ARP = 0x0806
_HEADER = struct.Struct("!HHBBH6s4s6s4s")
REQUEST, REPLY = 1, 2


class NoRight(Exception):
    """This process may not open a raw socket."""


def count_owners(address: str, listen_seconds: float) -> int | None:
    """How many other hosts answer for `address`; None when it is on none of this host's networks. Raises NoRight."""
    interface = _find_interface(address)
    if interface is None:
        return None
    name, hardware = interface
    try:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    except PermissionError as error:
        raise NoRight from error
    with raw:
        raw.bind((name, ETH_P_ARP))
        raw.send(_ask(hardware, address))
        return len(_hear(raw, address, listen_seconds) - {hardware})


def _ask(hardware: bytes, address: str) -> bytes:
    body = _HEADER.pack(1, 0x0800, 6, 4, REQUEST, hardware, bytes(4), bytes(6), socket.inet_aton(address))
    return b"\xff" * 6 + hardware + struct.pack("!H", ETH_P_ARP) + body


def _hear(raw: socket.socket, address: str, listen_seconds: float) -> set[bytes]:
    wanted = socket.inet_aton(address)
    heard: set[bytes] = set()
    deadline = time.monotonic() + listen_seconds
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            frame = raw.recv(2048)
        except TimeoutError:
            break
        if len(frame) >= 14 + _HEADER.size:
            *_, kind, sender, owner, _, _ = _HEADER.unpack_from(frame, 14)
            if kind == REPLY and owner == wanted:
                heard.add(sender)
    return heard


def _find_interface(address: str) -> tuple[str, bytes] | None:
    """The interface whose network holds `address`, and its hardware address."""
    for name, addresses in psutil.net_if_addrs().items():
        hardware = [item.address for item in addresses if item.family == psutil.AF_LINK]
        if hardware and any(_holds(item.address, item.netmask, address) for item in addresses if item.netmask):
            return name, bytes.fromhex(hardware[0].replace(":", ""))
    return None


def _holds(own: str, netmask: str | None, address: str) -> bool:
    try:
        network = IPv4Network(f"{own}/{netmask}", strict=False)
    except ValueError:
        return False
    return network.prefixlen < 32 and IPv4Address(address) in network
