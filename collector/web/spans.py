"""How far back a page draws: the reader's choice, which stands in the URL and nowhere else."""

from typing import NamedTuple

from agent.language import say


class Span(NamedTuple):
    """name: as in the URL. days: how far back. query: what a link to another page carries along, empty for the usual span."""

    name: str
    days: int

    @property
    def query(self) -> str:
        return "" if self == SPANS[0] else f"?span={self.name}"

    @property
    def title(self) -> str:
        """In the reader's words."""
        return say("一年", "a year") if self.days == 365 else say(f"{self.days} 天", f"{self.days} days")


SPANS = (Span("30d", 30), Span("90d", 90), Span("365d", 365))


class Choice(NamedTuple):
    """One of the spans as a link of its page. path: relative to the page."""

    path: str
    title: str
    is_here: bool


def find_span(wish: str | None) -> Span:
    """The span of this name; the first for none and for what is no span."""
    return next((one for one in SPANS if one.name == wish), SPANS[0])


def choices(chosen: Span, anchor: str = "") -> list[Choice]:
    """All spans as links; anchor: where on the page the reader is to find himself again, `#` before it."""
    return [Choice(f"?span={one.name}{anchor}", one.title, one == chosen) for one in SPANS]
