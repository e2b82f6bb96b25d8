"""A token: one small, numbered request through the path that is watched, and what became of it."""

import string

import msgspec

MAX_NAME = 64
_PLAIN = frozenset(string.ascii_letters + string.digits + ".-_:/@ ")


class Token(msgspec.Struct, frozen=True, gc=False):
    """One request. number: rises by one per token. sent_at, settled_at: seconds since the epoch.

    is_good: answered in time and as it should be. served_by: who answered, where the answer says so.
    reason: why it is not good. is_unknown: what it was asked with is wrong (our password, file, right), so that it is neither
    good nor failed: of the service nobody knows anything.
    """

    number: int
    sent_at: float
    settled_at: float
    is_good: bool
    served_by: str = ""
    reason: str = ""
    is_unknown: bool = False


def plain_name(text: str) -> str:
    """What a server says of itself, fit for a log: one line, printable, short."""
    return "".join(letter for letter in text.strip() if letter in _PLAIN)[:MAX_NAME]
