"""Tables as aligned text; a Chinese character takes two columns of a terminal."""

import unicodedata
from collections.abc import Sequence


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
