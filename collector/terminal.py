"""Prints what is drawn for the width of the terminal."""

from collections.abc import Callable, Sequence

from rich.console import Console

from collector.grid import Line, dress


def show_lines(draw: Callable[[int | None], Sequence[Line]]) -> None:
    """Print what is drawn for this terminal's width; a pipe has none, and nothing is cut for it."""
    console = Console()
    for text in dress(draw(console.width if console.is_terminal else None)):
        console.print(text, soft_wrap=True)  # a line that is longer than the terminal is for the terminal to wrap
