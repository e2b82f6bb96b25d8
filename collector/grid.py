"""Columns of text for a terminal: numbers and ids stay whole, other words are folded or shortened, never inside a word."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from agent.language import say
from agent.table import display_width

GAP = "  "
NO_BREAK = "\u00a0"
"""Shown as a blank; the words on both sides of it stay together."""

LEAST_CELLS = 16
"""In fewer cells than this words would be broken; the column is left out instead."""

LEAST_LINES = 3
"""A header, a row, and the count of the others."""

_WIDE = "\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
_OPENING, _CLOSING = "（《「", "，。；：、）》」！？"
_TOKEN = re.compile(rf" +|[{_OPENING}]*(?:[{_WIDE}]|[^ {_WIDE}]+)[{_CLOSING}]*")
"""What stays on one line: a word, or one Chinese character with the punctuation that belongs to it."""

_SEPARATOR = re.compile(r"(?<=[/._@:-])")
_LOOSE_END = " ,;:·(，；：、（"


class Column(NamedTuple):
    """is_whole: its cells are never cut nor folded: numbers, and ids that a reader copies."""

    title: str
    is_whole: bool = False
    is_right: bool = False


class Grid(NamedTuple):
    """One table. rest: where the rows are found that a screen has no room for. strong: the rows that stand out."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    rest: str = ""
    strong: frozenset[int] = frozenset()


class Line(NamedTuple):
    """A line of a terminal; style: a style of rich, or empty."""

    text: str
    style: str = ""


def fold(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, all indented as the first; only a word longer than a line is broken."""
    body = text.lstrip(" ")
    indent = text[: len(text) - len(body)]
    if not body or len(indent) >= width:
        indent = ""
    return [indent + line for line in _fold(body, max(width - len(indent), 1))]


def _fold(text: str, width: int) -> list[str]:
    lines: list[str] = []
    line = ""
    for token in _TOKEN.findall(text):
        if display_width(line + token) <= width:
            line += token
            continue
        if line:
            lines.append(line.rstrip(" "))
        *full, line = [""] if token.isspace() else _break_word(token, width)
        lines += full
    return [*lines, line.rstrip(" ")] if line or not lines else lines


def _break_word(word: str, width: int) -> list[str]:
    """A word in pieces that fit: paths and names after their separators, else wherever the line ends."""
    pieces = [""]
    for part in _SEPARATOR.split(word):
        letters = [part] if display_width(part) <= width else list(part)
        for letter in letters:
            if pieces[-1] and display_width(pieces[-1] + letter) > width:
                pieces.append("")
            pieces[-1] += letter
    return pieces


def shorten(text: str, width: int) -> str:
    """`text` in one line of at most `width` cells, cut after a word."""
    if display_width(text) <= width:
        return text
    kept = fold(text, max(width - 1, 1))[0].rstrip(_LOOSE_END)
    return f"{kept}…" if display_width(kept) < width else "…"


def draw(grid: Grid, width: int | None) -> list[Line]:
    """The whole grid, long words in several lines; width None: as wide as it is, one line per row."""
    widths = _widths(grid, width)
    lines = [Line(grid.title, "italic"), _header(grid, widths)]
    for number, row in enumerate(grid.rows):
        cells = [fold(cell, cells) for cell, cells in zip(row, widths, strict=True)]
        style = "bold" if number in grid.strong else ""
        for place in range(max(map(len, cells))):
            parts = [cell[place] if place < len(cell) else "" for cell in cells]
            lines.append(Line(_join(grid.columns, parts, widths), style))
    return lines


def draw_short(grid: Grid, width: int, height: int) -> list[Line]:
    """The grid in `height` lines or fewer, a line for each row; the last line counts the rows that are not shown."""
    if height < 1:
        return []
    first, *others = grid.columns
    grid = _without_what_has_no_room(grid._replace(columns=(first._replace(title=grid.title), *others)), width)
    widths = _widths(grid, width)
    shown = len(grid.rows) if 1 + len(grid.rows) <= height else max(height - 2, 0)
    lines = [_header(grid, widths)]
    for number, row in enumerate(grid.rows[:shown]):
        cells = [shorten(cell, cells) for cell, cells in zip(row, widths, strict=True)]
        lines.append(Line(_join(grid.columns, cells, widths), "bold" if number in grid.strong else ""))
    missing = len(grid.rows) - shown
    if missing:
        lines.append(_say_missing(grid, missing))
    return [Line(shorten(line.text, width), line.style) for line in lines[-height:]]


def _say_missing(grid: Grid, count: int) -> Line:
    return Line(say(f"另有 {count} 行未显示{grid.rest}", f"{count} more not shown{grid.rest}"), "dim")


def fit(head: Sequence[str], grids: Sequence[Grid], foot: str, width: int, height: int) -> list[Line]:
    """Head, grids and foot in `height` lines or fewer; the head always, of the grids the first ones before the last."""
    lines = [Line(shorten(text, width)) for text in head][:height]
    room = height - len(lines) - 1
    if room < 0:
        return lines
    drawn = len(grids)
    while drawn > 1 and LEAST_LINES * drawn + len(grids) - drawn > room:
        drawn -= 1
    counted = [_say_missing(grid, len(grid.rows)) for grid in grids[drawn:]][: max(room - LEAST_LINES, 0)]
    needs = [1 + len(grid.rows) for grid in grids[:drawn]]
    room -= len(counted)
    gaps = drawn if sum(needs) + drawn <= room else 0
    for grid, share in zip(grids, _share(needs, room - gaps), strict=False):
        lines += [Line("")] if gaps else []
        lines += draw_short(grid, width, share)
    lines += counted
    return [Line(shorten(line.text, width), line.style) for line in (*lines, Line(foot, "dim"))]


def _share(needs: Sequence[int], room: int) -> list[int]:
    """`room` among those who need it: the modest get all they need, the others the same of what is left."""
    shares = [0] * len(needs)
    order = sorted(range(len(needs)), key=lambda place: needs[place])
    for done, place in enumerate(order):
        shares[place] = min(needs[place], max(room, 0) // (len(needs) - done))
        room -= shares[place]
    return shares


def _without_what_has_no_room(grid: Grid, width: int) -> Grid:
    count = len(grid.columns)
    while count > 1 and sum(_widths(_first_columns(grid, count), width)) + len(GAP) * (count - 1) > width:
        count -= 1
    return _first_columns(grid, count)


def _first_columns(grid: Grid, count: int) -> Grid:
    return grid._replace(columns=grid.columns[:count], rows=[row[:count] for row in grid.rows])


def _widths(grid: Grid, width: int | None) -> list[int]:
    """How wide each column is: as wide as its cells, the widest of those that may shrink giving way first."""
    widths = [
        max(map(display_width, (column.title, *(row[place] for row in grid.rows))))
        for place, column in enumerate(grid.columns)
    ]
    excess = 0 if width is None else sum(widths) + len(GAP) * (len(widths) - 1) - width
    for _ in range(excess):
        yielding = [
            place for place, column in enumerate(grid.columns) if not column.is_whole and widths[place] > LEAST_CELLS
        ]
        if not yielding:
            break
        widths[max(yielding, key=lambda place: widths[place])] -= 1
    return widths


def _header(grid: Grid, widths: Sequence[int]) -> Line:
    cells = [shorten(column.title, cells) for column, cells in zip(grid.columns, widths, strict=True)]
    return Line(_join(grid.columns, cells, widths), "bold underline")


def _join(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (_pad(column, cell, cells) for column, cell, cells in zip(columns, cells, widths, strict=True))
    return GAP.join(padded).rstrip(" ").replace(NO_BREAK, " ")


def _pad(column: Column, cell: str, width: int) -> str:
    blanks = " " * (width - display_width(cell))
    return blanks + cell if column.is_right else cell + blanks


def dress(lines: Sequence[Line]) -> list[Text]:
    """The lines as rich prints them."""
    return [Text(line.text, line.style, no_wrap=True, overflow="ignore") for line in lines]
