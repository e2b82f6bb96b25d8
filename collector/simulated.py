"""Simulated data: what marks it, so that it is never taken for a hospital's. No I/O.

The mark is in every row: the site's id begins with PREFIX, and the rounds of its agents name the source SOURCE. A site whose id
does not begin so takes no row of that source, and none of our commands makes a real site with such an id.
"""

import msgspec

from agent.language import say

PREFIX = "simulated-"
SITE = "simulated-hospital"
SOURCE = "simulated"
"""The source that the demo's rounds name; it stands for every source of the catalogue."""


def is_simulated(site: str) -> bool:
    """Whether what this site's id stands on was made up."""
    return site.startswith(PREFIX)


def mark(scorecard: bytes) -> bytes:
    """The JSON of a scorecard as people and programs are given it: behind the name of a made-up site `simulated` is true.

    Only there: the scorecard itself stays as it is, or its identity would change.
    """
    read = msgspec.json.decode(scorecard, type=dict[str, msgspec.Raw])
    if not is_simulated(msgspec.json.decode(read["site"], type=str)):
        return scorecard
    return msgspec.json.encode({"site": read["site"], "simulated": True} | read)


def notice() -> str:
    """What stands above everything that shows such a site."""
    return say(
        "模拟数据：这家医院是虚构的，不能用于评估",
        "Simulated data: this hospital is made up; none of it may be used for an assessment",
    )
