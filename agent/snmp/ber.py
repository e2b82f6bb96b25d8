"""The few ASN.1 rules that SNMP uses, both ways: for v1 and v2c messages as they lie on the wire (X.690, RFC 1157, RFC 3416).

What is decoded here came from anybody: every length is checked, and what does not fit raises Malformed.
"""

from collections.abc import Iterable
from typing import NamedTuple

INTEGER, OCTETS, NULL, OID, SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
IP_ADDRESS, COUNTER32, GAUGE32, TIME_TICKS, OPAQUE, COUNTER64 = 0x40, 0x41, 0x42, 0x43, 0x44, 0x46
NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_VIEW = 0x80, 0x81, 0x82
GET, GET_NEXT, RESPONSE, TRAP_V1, GET_BULK, INFORM, TRAP_V2 = 0xA0, 0xA1, 0xA2, 0xA4, 0xA5, 0xA6, 0xA7

NUMBERS = (INTEGER, COUNTER32, GAUGE32, TIME_TICKS, COUNTER64)
_UNSIGNED = (COUNTER32, GAUGE32, TIME_TICKS, COUNTER64)

Value = int | str | bytes | None
"""Numbers, object ids and addresses as text, octets as bytes; None for what is not there."""


class Malformed(ValueError):
    """Bytes that are no SNMP message."""


class Element(NamedTuple):
    """One tag with the place of its content: start <= content < end."""

    tag: int
    start: int
    end: int


class Binding(NamedTuple):
    """A variable of a message: object id, ASN.1 tag, value."""

    oid: str
    tag: int
    value: Value


def read_element(data: bytes, at: int, end: int) -> Element:
    """The element that begins at `at` and must not reach beyond `end`."""
    if at + 2 > end:
        raise Malformed("cut off")
    tag, length, start = data[at], data[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        if not 0 < count <= 4 or start + count > end:
            raise Malformed("bad length")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > end:
        raise Malformed("cut off")
    return Element(tag, start, start + length)


def read_children(data: bytes, parent: Element) -> list[Element]:
    """The elements inside another one."""
    children, at = [], parent.start
    while at < parent.end:
        child = read_element(data, at, parent.end)
        children.append(child)
        at = child.end
    return children


def read_number(data: bytes, element: Element) -> int:
    """An integer of any of SNMP's kinds."""
    if not 0 < element.end - element.start <= 9:
        raise Malformed("bad number")
    is_signed = element.tag not in _UNSIGNED
    return int.from_bytes(data[element.start : element.end], "big", signed=is_signed)


def read_oid(data: bytes, element: Element) -> str:
    """An object id as dotted numbers."""
    if element.end == element.start:
        return "0.0"
    numbers: list[int] = []
    number = 0
    for byte in data[element.start : element.end]:
        number = number << 7 | byte & 0x7F
        if number > 0xFFFFFFFF:
            raise Malformed("bad object id")
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if not numbers or byte & 0x80:
        raise Malformed("bad object id")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def read_binding(data: bytes, element: Element) -> Binding:
    """One variable and its value."""
    name, held = read_pair(data, element)
    if name.tag != OID:
        raise Malformed("a variable without a name")
    return Binding(read_oid(data, name), held.tag, read_value(data, held))


def read_pair(data: bytes, element: Element) -> tuple[Element, Element]:
    """The two elements of a sequence of two."""
    children = read_children(data, element)
    if element.tag != SEQUENCE or len(children) != 2:
        raise Malformed("not a pair")
    return children[0], children[1]


def read_value(data: bytes, element: Element) -> Value:
    """The value of an element; unknown kinds are their bytes."""
    if element.tag in NUMBERS:
        return read_number(data, element)
    if element.tag == OID:
        return read_oid(data, element)
    content = data[element.start : element.end]
    if element.tag == IP_ADDRESS and len(content) == 4:
        return ".".join(map(str, content))
    return None if element.tag in (NULL, NO_SUCH_OBJECT, NO_SUCH_INSTANCE, END_OF_VIEW) else content


def element(tag: int, content: bytes) -> bytes:
    """Tag, length and content."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def number(value: int, tag: int = INTEGER) -> bytes:
    """A whole number in the fewest bytes."""
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return element(tag, value.to_bytes(size, "big", signed=True))


def oid(text: str) -> bytes:
    """Dotted numbers as an object id."""
    numbers = [int(part) for part in text.split(".")]
    if len(numbers) < 2:
        raise Malformed("an object id has two numbers or more")
    content = bytearray()
    for part in (40 * numbers[0] + numbers[1], *numbers[2:]):
        groups = [part & 0x7F]
        while part := part >> 7:
            groups.append(part & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return element(OID, bytes(content))


def value(tag: int, held: Value) -> bytes:
    """A value with its tag."""
    if isinstance(held, int):
        return number(held, tag)
    if held is None:
        return element(tag, b"")
    if isinstance(held, str):
        return oid(held) if tag == OID else element(tag, bytes(map(int, held.split("."))))
    return element(tag, held)


def binding(one: Binding) -> bytes:
    """One variable of a message."""
    return element(SEQUENCE, oid(one.oid) + value(one.tag, one.value))


def bindings(pairs: Iterable[Binding]) -> bytes:
    """The list of variables of a message."""
    return element(SEQUENCE, b"".join(map(binding, pairs)))


class Message(NamedTuple):
    """A v1 or v2c message: version (0 or 1), community, the tag of its PDU, and the PDU's place in the bytes."""

    version: int
    community: bytes
    pdu: Element


class Pdu(NamedTuple):
    """What is common to all PDUs but the v1 trap. error, error_index: of a bulk request non-repeaters and max-repetitions."""

    request_id: int
    error: int
    error_index: int
    variables: Element


def read_message(data: bytes) -> Message:
    """The outside of a message. Raises Malformed; for v3 too, whose version is 3."""
    outer = read_element(data, 0, len(data))
    version = read_element(data, outer.start, outer.end)
    if outer.tag != SEQUENCE or version.tag != INTEGER:
        raise Malformed("no SNMP message")
    community = read_element(data, version.end, outer.end)
    if community.tag != OCTETS:
        raise Malformed("no v1 or v2c message")
    pdu = read_element(data, community.end, outer.end)
    return Message(read_number(data, version), data[community.start : community.end], pdu)


def read_version(data: bytes) -> int:
    """The version number of any SNMP message: 0, 1 or 3."""
    outer = read_element(data, 0, len(data))
    version = read_element(data, outer.start, outer.end)
    if outer.tag != SEQUENCE or version.tag != INTEGER:
        raise Malformed("no SNMP message")
    return read_number(data, version)


def read_pdu(data: bytes, pdu: Element) -> Pdu:
    """The head of a PDU and the place of its variables."""
    children = read_children(data, pdu)
    if len(children) != 4 or any(child.tag != INTEGER for child in children[:3]) or children[3].tag != SEQUENCE:
        raise Malformed("no PDU")
    numbers = [read_number(data, child) for child in children[:3]]
    return Pdu(numbers[0], numbers[1], numbers[2], children[3])


def read_error_status(head: bytes) -> int:
    """The error status of a v1 or v2c answer of which only the first bytes are there; 0 when it cannot be told."""
    try:
        at = 0
        for _ in range(5):  # message, version, community, PDU, request id: into the first and the fourth
            tag, length = head[at], head[at + 1]
            content = at + 2 + (length & 0x7F if length & 0x80 else 0)
            is_inside = tag in (SEQUENCE, RESPONSE)
            at = content if is_inside else content + length
        return head[at + 2] if head[at] == INTEGER else 0
    except IndexError:
        return 0


def message(version: int, community: bytes, pdu: bytes) -> bytes:
    """A v1 or v2c message around a PDU."""
    return element(SEQUENCE, number(version) + element(OCTETS, community) + pdu)


def pdu(tag: int, request_id: int, error: int, index: int, variables: bytes) -> bytes:
    """A PDU; `variables` is already encoded."""
    return element(tag, number(request_id) + number(error) + number(index) + variables)
