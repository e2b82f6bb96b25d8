"""What was set aside and why, for the quarantine: the reasons, and text from outside made harmless."""

import re
from typing import NamedTuple

from agent.reasons import MEANINGS, MOST_LABEL_CHARACTERS, MOST_TAG_CHARACTERS, Meaning, Reason

__all__ = [
    "CONTROL",
    "MEANINGS",
    "MOST_LABEL_CHARACTERS",
    "MOST_TAG_CHARACTERS",
    "Meaning",
    "Reason",
    "SetAside",
    "show_bytes",
    "show_text",
]

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that draw nothing but can play tricks on a terminal or a log."""


def show_text(text: str) -> str:
    """`text` with its control characters written out."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def show_bytes(data: bytes) -> str:
    """Bytes from outside as harmless text."""
    return show_text(data.decode("utf-8", "backslashreplace"))


class SetAside(NamedTuple):
    """One thing that was set aside; what: a short text of it for the quarantine."""

    reason: Reason
    what: str
