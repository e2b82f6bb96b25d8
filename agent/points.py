"""A point: one observation of one thing at one time."""

from collections.abc import Mapping

import msgspec

Value = float | bool | str
"""What a field may hold: a number, a fact (a `state`), or a text (a `label`)."""


class Point(msgspec.Struct, frozen=True, gc=False):
    """One observation. The wire's shape is Telegraf's JSON metric, so the names are too.

    name: a measurement of the catalogue. tags: without `site` and `agent`, which the topic carries;
    with `asset`, which the runner adds where the source gave none.
    timestamp: milliseconds since the epoch, UTC.
    """

    name: str
    tags: Mapping[str, str]
    fields: Mapping[str, Value]
    timestamp: int
