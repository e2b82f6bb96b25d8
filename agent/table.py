"""Tables as aligned text; a Chinese character takes two columns of a terminal. Figures that stand in several of them."""

import unicodedata
from collections.abc import Sequence

from agent.language import say

NEVER_SECONDS = 315_360_000.0
"""The recovery time of a service that did not recover: the end of the catalogue's range."""

STEPS = 1024
"""Of a second: the catalogue's resolution of recovery times and losses."""


def show_seconds(value: float | None) -> str:
    """A recovery time or a loss, everywhere alike: to the step that the store keeps, at most three decimals and none for nothing.

    A dash for what was not measured.
    """
    if value is None:
        return "-"
    if value >= NEVER_SECONDS:
        return say("未恢复", "not recovered")
    return f"{round(value * STEPS) / STEPS:.3f}".rstrip("0").rstrip(".")


def display_width(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(_width(character) for character in text)


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under their headers, columns aligned on the left and two blanks apart; no blanks at line ends."""
    lines = [headers, *rows]
    widths = [max(display_width(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(_render_line(line, widths) for line in lines)


def _render_line(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = (text + " " * (width - display_width(text)) for text, width in zip(line, widths, strict=True))
    return "  ".join(cells).rstrip()


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
