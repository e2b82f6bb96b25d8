"""What an MQTT 5 PUBLISH holds, taken apart with one copy of its payload. No I/O.

The library copies the whole rest of a packet for every property that it reads, and looks each one up by name: a quarter of a
millisecond for a batch, a tenth of what a collector spends on it. Only what our own senders send is taken apart here; whatever
is odd or wrong is left to the library.
"""

from typing import NamedTuple

_USER_PROPERTY = 0x26
_QOS = 0b0110
_LONGEST = 0x3FFF
"""Of all properties together: what a length of two bytes can say."""
_NOT_IN_TEXTS = ("\0", "\ufeff")


class Published(NamedTuple):
    """head: topic and message identifier as they stood. properties: the user properties, in their order."""

    head: bytes
    properties: list[tuple[str, str]]
    payload: bytes


def take_apart(header: int, packet: bytes | bytearray) -> Published | None:
    """A PUBLISH (its first byte, and what follows the fixed header) that has no properties but a user's; None for any other."""
    try:
        at = 2 + (packet[0] << 8 | packet[1]) + (2 if header & _QOS else 0)
        head, (length, at) = bytes(packet[:at]), _length(packet, at)
        end = at + length
        if end > len(packet) or length > _LONGEST:
            return None
        texts = _texts(bytes(packet[at:end]))
    except (IndexError, UnicodeDecodeError):
        return None
    return None if texts is None else Published(head, texts, bytes(memoryview(packet)[end:]))


def _length(packet: bytes | bytearray, at: int) -> tuple[int, int]:
    """A length, and where it ends; of one that needs three bytes or more, or more than it should, too much."""
    first = packet[at]
    if not first & 128:
        return first, at + 1
    second = packet[at + 1]
    return (first & 127 | second << 7) if 0 < second < 128 else _LONGEST + 1, at + 2


def _texts(properties: bytes) -> list[tuple[str, str]] | None:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(properties):
        if properties[at] != _USER_PROPERTY:
            return None
        name, at = _text(properties, at + 1)
        value, at = _text(properties, at)
        found.append((name, value))
        if at > len(properties) or any(sign in name or sign in value for sign in _NOT_IN_TEXTS):
            return None
    return found


def _text(properties: bytes, at: int) -> tuple[str, int]:
    end = at + 2 + (properties[at] << 8 | properties[at + 1])
    return properties[at + 2 : end].decode(), end
