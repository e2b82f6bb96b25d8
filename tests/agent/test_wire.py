"""The reader of batches without end says of every payload what the plain decoder says, whatever came before."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from agent.wire import MOST_TEXT_BYTES, MOST_TEXTS, Batch, BatchReader, Decoded, Undecodable, decode_batch, encode_batch

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=2), st.just([]), st.just({"a": {}})
)
TEXTS = st.sampled_from(["", "a", "b", "\u6570", '"', "\\", "\ud800", "\x00"])
TAGS = st.one_of(st.dictionaries(TEXTS, TEXTS, max_size=3), st.dictionaries(TEXTS, ODD, max_size=2), ODD)
POINTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.sampled_from(["host_cpu", "host_memory"]), ODD),
        "tags": TAGS,
        "fields": st.one_of(st.dictionaries(TEXTS, ODD, max_size=3), ODD),
        "timestamp": st.one_of(st.integers(), ODD),
    },
)
GOOD = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["host_cpu", "host_memory"]),
        "tags": st.dictionaries(TEXTS, TEXTS, max_size=3),
        "fields": st.dictionaries(TEXTS, st.one_of(st.floats(), st.booleans(), TEXTS, st.integers()), max_size=3),
        "timestamp": st.integers(-(2**63), 2**63 - 1),
    }
)
BATCHES = st.fixed_dictionaries(
    {"metrics": st.one_of(st.lists(GOOD, max_size=6), st.lists(st.one_of(GOOD, POINTS), max_size=4), ODD)},
    optional={"boot": st.one_of(TEXTS, ODD), "seq": ODD, "dropped": st.one_of(st.just([["a", 0, 1, 2]]), ODD)},
)


def _payload(batch: Any, is_wide: bool, cut: int) -> bytes:
    """Its JSON, sparse or dense, sometimes with one byte spoilt."""
    text = bytearray(
        json.dumps(batch, indent=1 if is_wide else None, ensure_ascii=is_wide).encode("utf-8", "surrogatepass")
    )
    if cut:
        text[cut % len(text)] ^= cut % 255 + 1
    return bytes(text)


PAYLOADS = st.one_of(
    st.binary(max_size=8),
    st.builds(_payload, BATCHES, st.booleans(), st.one_of(st.just(0), st.integers(0, 10_000))),
)


def _said(decode: Any, payload: bytes) -> str:
    """By its text, in which a boolean is no number and no number is itself."""
    try:
        return repr(decode(payload))
    except Undecodable as error:
        return f"refused: {error}"


@given(st.lists(PAYLOADS, max_size=5))
@example([b'{"metrics":[{"name":"a","tags":{"b":"c","b":"d"},"fields":{"x":1},"timestamp":1}]}'] * 2)
@example(
    [b'{"metrics":[{"name":"a","tags":{"b":%b},"fields":{"x":1},"timestamp":1}]}' % text for text in (b'"c"', b"1")]
)
def test_reader_says_what_the_plain_decoder_says(payloads: list[bytes]) -> None:
    reader = BatchReader()
    for payload in payloads:
        assert _said(reader.decode, payload) == _said(decode_batch, payload)


def test_points_of_one_series_share_their_tags() -> None:
    reader = BatchReader()
    found: list[Decoded] = [reader.decode(_of_assets("srv-1", "srv-2", "srv-1")) for _ in range(2)]
    (one, other, same), (later, *_) = (decoded.batch.metrics for decoded in found)
    assert one.tags is same.tags is later.tags
    assert one.tags is not other.tags


def test_a_flood_of_tags_is_read_right_and_not_all_remembered() -> None:
    reader = BatchReader()
    assets = [f"srv-{number}" for number in range(MOST_TEXTS + 10)] + ["x" * MOST_TEXT_BYTES] * 2
    decoded = reader.decode(_of_assets(*assets))
    assert [point.tags["asset"] for point in decoded.batch.metrics] == assets
    assert len(reader._known) == 10


def _of_assets(*assets: str) -> bytes:
    points = [
        {"name": "host_cpu", "tags": {"asset": asset}, "fields": {"busy_ratio": 0.5}, "timestamp": 1}
        for asset in assets
    ]
    return json.dumps({**json.loads(encode_batch(Batch([]))), "metrics": points}).encode()
