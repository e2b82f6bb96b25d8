"""Every signal of the made-up hospital, family by family. No I/O."""

from collections.abc import Iterator

from agent.points import Point
from collector.demo.events import events
from collector.demo.of_continuity import continuity
from collector.demo.of_machines import machines, management, rounds, servers
from collector.demo.of_network import lines, network
from collector.demo.of_security import isolation, security
from collector.demo.sampled import Cast, Series
from collector.demo.story import Story

FAMILIES = (rounds, servers, network, lines, machines, continuity, security, isolation, management)


class Signals:
    """All series of the year that `story` tells, and all single events."""

    def __init__(self, story: Story) -> None:
        self._story, self._cast = story, Cast(story)

    def series(self) -> Iterator[Series]:
        """Every series once."""
        for family in FAMILIES:
            yield from family(self._cast)

    def events(self) -> Iterator[tuple[str, Point]]:
        """Agent and point of everything that happened once."""
        return events(self._story)
