"""ICMP echo with a payload of one's own: datagram sockets where the kernel lets us, else raw ones.

Needs: the group in net.ipv4.ping_group_range, or CAP_NET_RAW. Reference: RFC 792, RFC 4443; icmp(7).
"""

import errno
import socket
import struct

from agent.errors import SourceError
from agent.foreign_words import explain_system
from agent.language import say

REQUEST, REPLY = 8, 0
REQUEST6, REPLY6 = 128, 129
HEADER = struct.Struct("!BBHHH")
MOST_BYTES = 2048
ICMP6_FILTER = 1
_RIGHTS = (errno.EPERM, errno.EACCES)


def open_echo(is_ipv6: bool) -> socket.socket:
    """A socket that sends echo requests and hears the replies, non-blocking. Raises SourceError without the right."""
    family, protocol = _family(is_ipv6)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            opened = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno in _RIGHTS:
                continue
            raise _no_sockets(error) from error
        opened.setblocking(False)
        if is_ipv6 and kind == socket.SOCK_RAW:
            _hear_only(opened, REPLY6)
        return opened
    raise SourceError(
        say(
            "没有发送 ICMP 的权限：请给采集代理 CAP_NET_RAW，或把它的组写进 net.ipv4.ping_group_range",
            "no right to send ICMP: give the agent CAP_NET_RAW, or its group net.ipv4.ping_group_range",
        )
    )


def open_hearing(is_ipv6: bool) -> socket.socket:
    """A raw socket that hears the echo requests of others. Raises SourceError without CAP_NET_RAW."""
    family, protocol = _family(is_ipv6)
    try:
        opened = socket.socket(family, socket.SOCK_RAW, protocol)
    except OSError as error:
        if error.errno in _RIGHTS:
            text = say(
                "听不到 ICMP：采集代理需要 CAP_NET_RAW", "echo requests cannot be heard: the agent needs CAP_NET_RAW"
            )
            raise SourceError(text) from error
        raise _no_sockets(error) from error
    opened.setblocking(False)
    if is_ipv6:
        _hear_only(opened, REQUEST6)
    return opened


def write_request(is_ipv6: bool, identifier: int, sequence: int, payload: bytes) -> bytes:
    """One echo request; over IPv6, and on datagram sockets, the kernel writes the checksum itself."""
    kind = REQUEST6 if is_ipv6 else REQUEST
    empty = HEADER.pack(kind, 0, 0, identifier, sequence) + payload
    return HEADER.pack(kind, 0, 0 if is_ipv6 else checksum(empty), identifier, sequence) + payload


def read_echo(packet: bytes, is_ipv6: bool) -> tuple[int, int, bytes] | None:
    """Type, sequence and payload of a packet as a socket gave it; None when it is no echo.

    A raw IPv4 socket gives the IP header too, all others do not.
    """
    if not is_ipv6 and packet and packet[0] >> 4 == 4:  # no ICMP type in use begins with this nibble
        packet = packet[(packet[0] & 15) * 4 :]
    if len(packet) < HEADER.size:
        return None
    kind, _, _, _, sequence = HEADER.unpack_from(packet)
    if kind not in ((REQUEST6, REPLY6) if is_ipv6 else (REQUEST, REPLY)):
        return None
    return kind, sequence, packet[HEADER.size :]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _family(is_ipv6: bool) -> tuple[int, int]:
    return (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_ipv6 else (socket.AF_INET, socket.IPPROTO_ICMP)


def _hear_only(opened: socket.socket, kind: int) -> None:
    """Leave all other ICMPv6 to the kernel: a set bit blocks its type."""
    blocked = bytearray(b"\xff" * 32)
    word, bit = divmod(kind, 32)
    blocked[word * 4 : word * 4 + 4] = struct.pack("=I", 0xFFFFFFFF & ~(1 << bit))
    opened.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(blocked))


def _no_sockets(error: OSError) -> SourceError:
    return SourceError(
        say(f"无法打开 ICMP 套接字：{explain_system(error)}", f"no ICMP socket: {explain_system(error)}")
    )
