"""The bounds of what is taken for SNMP, byte by byte."""

import pytest

from agent.snmp import ber


def content(*numbers: int) -> tuple[bytes, ber.Element]:
    """An object id of 1.3 and these numbers, as bytes and as an element of them."""
    data = ber.oid(".".join(map(str, (1, 3, *numbers))))
    return data, ber.read_element(data, 0, len(data))


@pytest.mark.parametrize("number", [0, 127, 128, 2**31, 2**32 - 1])
def test_numbers_of_an_object_id_have_32_bits(number: int) -> None:
    assert ber.read_oid(*content(number)) == f"1.3.{number}"


@pytest.mark.parametrize("number", [2**32, 2**33, 2**70])
def test_a_greater_number_in_an_object_id_is_none(number: int) -> None:
    for numbers in ((number,), (number, 1), (1, number, 1)):
        with pytest.raises(ber.Malformed, match="bad object id"):
            ber.read_oid(*content(*numbers))


@pytest.mark.parametrize("tail", [b"\x81", b"\xff\xff"])
def test_an_object_id_that_is_cut_off_in_a_number_is_none(tail: bytes) -> None:
    data = bytes((ber.OID, 1 + len(tail), 0x2B)) + tail
    with pytest.raises(ber.Malformed, match="bad object id"):
        ber.read_oid(data, ber.read_element(data, 0, len(data)))


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x02\x05\x01", b"\x02\x80", b"\x02\x85\x01\x01\x01\x01\x01\x00"])
def test_an_element_ends_within_its_bytes(data: bytes) -> None:
    with pytest.raises(ber.Malformed):
        ber.read_element(data, 0, len(data))
