"""A PUBLISH is taken apart as the library takes it apart, good or bad, and with far fewer copies."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.client import MQTTv5, MQTTv311
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import agent.mqtt
from agent.mqtt_packets import take_apart

quick: Any = _packet.decode_publish
library = next(cell.cell_contents for cell in quick.__closure__)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=200)


def packet(
    topic: bytes, mid: int | None, pairs: list[tuple[str, str]], payload: bytes, expiry: int | None = None
) -> bytes:
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if pairs:
        properties.UserProperty = pairs
    if expiry is not None:
        properties.MessageExpiryInterval = expiry
    number = b"" if mid is None else mid.to_bytes(2, "big")
    return len(topic).to_bytes(2, "big") + topic + number + bytes(properties.pack()) + payload


def read(decode: Any, header: int, what: bytes, protocol: Any = MQTTv5) -> object:
    try:
        found = decode(header, bytearray(what), protocol)
    except MalformedPacket as error:
        return str(error)
    properties = None if found.properties is None else found.properties.json()
    return found._replace(properties=properties), vars(found.properties or object)


def test_the_library_asks_ours() -> None:
    assert agent.mqtt._packets is _packet
    assert library.__module__ == "paho.mqtt._packet"
    assert quick.__module__ == "agent.mqtt"


@given(
    st.binary(max_size=20),
    st.one_of(st.none(), st.integers(1, 65535)),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=4),
    st.binary(max_size=50),
    st.one_of(st.none(), st.integers(0, 9)),
)
@example(b"t", 1, [("name", "x" * 120)] * 200, b"p", None)
@example(b"t", 1, [("name", "x" * 120)] * 100, b"p", None)
def test_what_is_sent_is_read_as_the_library_reads_it(
    topic: bytes, mid: int | None, pairs: list[tuple[str, str]], payload: bytes, expiry: int | None
) -> None:
    what, header = packet(topic, mid, pairs, payload, expiry), 0x30 if mid is None else 0x32
    assert read(quick, header, what) == read(library, header, what)
    assert read(quick, header, what, MQTTv311) == read(library, header, what, MQTTv311)
    whole = quick(header, bytearray(what), MQTTv5)
    assert (whole.topic, whole.mid, whole.payload) == (topic, mid or 0, payload)
    assert getattr(whole.properties, "UserProperty", []) == pairs


@given(st.integers(0x30, 0x3F), st.binary(max_size=40), st.data())
def test_whatever_the_bytes_are_both_say_the_same(header: int, what: bytes, data: st.DataObject) -> None:
    assert read(quick, header, what) == read(library, header, what)
    good = bytearray(packet(b"topic", 7, [("boot", "b"), ("seq", "1")], b"payload"))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    good = good[: data.draw(st.integers(0, len(good)))]
    assert read(quick, 0x32, bytes(good)) == read(library, 0x32, bytes(good))


@pytest.mark.parametrize("length", [b"\x80\x00", b"\x80\x80\x01", b"\xff", b"\x81\x00" + b"\x26", b""])
def test_odd_length_of_properties_is_left_to_the_library(length: bytes) -> None:
    what = b"\0\1t\0\7" + length
    assert take_apart(0x32, what) is None
    assert read(quick, 0x32, what) == read(library, 0x32, what)


@pytest.mark.parametrize("text", ["a\0b", "\ufeff"])
def test_text_that_mqtt_forbids_is_left_to_the_library(text: str) -> None:
    what = packet(b"t", 7, [("name", text)], b"payload")
    assert take_apart(0x32, what) is None
    assert read(quick, 0x32, what) == read(library, 0x32, what)


def test_our_batches_are_taken_apart_without_the_library() -> None:
    found = take_apart(0x32, packet(b"t", 7, [("boot", "b"), ("seq", "1"), ("points", "2")], b"payload"))
    assert found == (b"\0\1t\0\7", [("boot", "b"), ("seq", "1"), ("points", "2")], b"payload")
