"""What a hospital says of itself: register, attestations, exemptions, maintenance, calendars. Data alone; no I/O here.

A site folder is YAML under version control, deployed to every collector like the rules; `site_files` reads it.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from agent.catalogue import Text

DEFAULT_ZONE = ZoneInfo("Asia/Shanghai")
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()

Section = Literal["assets", "services", "links", "zones", "segments"]

SECTION_OF_TAG: Mapping[str, Section] = {
    "asset": "assets",
    "service": "services",
    "system": "services",
    "line": "links",
    "from_zone": "zones",
    "to_zone": "zones",
    "segment": "segments",
}
"""The tag that holds an entry's id -> the section of the register that the entry stands in."""

ATTRIBUTES = ("class", "criticality", "zone", "role")
"""What the register says of an entry and a rule may ask; joined when scoring, never a tag of a point."""

FOR_EVER = 2**62


class Entry(NamedTuple):
    """One thing of the register.

    attributes: of ATTRIBUTES -> values (role may have several). reporters: the agents that may report it (assets).
    since, until: milliseconds; it is a subject from `since` on (None: from its first point) and before `until`.
    calendar: when it is in service; '' for always. retired: why it left; '' while it is there. place: file:line.
    assets: what a service runs on. provider, partner, committed_bits_per_second: of a link.
    """

    id: str
    section: Section
    attributes: Mapping[str, tuple[str, ...]]
    reporters: tuple[str, ...] = ()
    since: int | None = None
    until: int = FOR_EVER
    calendar: str = ""
    retired: str = ""
    title: Text | None = None
    assets: tuple[str, ...] = ()
    provider: str = ""
    partner: str = ""
    committed_bits_per_second: float | None = None
    place: str = ""

    def matches(self, wanted: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether every wanted attribute has one of the wanted values."""
        return all(set(self.attributes.get(key, ())) & set(values) for key, values in wanted.items())


class Document(msgspec.Struct, frozen=True):
    """The paper behind an attestation; path: below the site folder. is_there: it is there and has this digest."""

    path: str
    sha256: str
    is_there: bool = True


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """What a named person vouches for: a value on the criterion's scale, or that the criterion does not apply.

    since, expires: milliseconds; it holds from `since` on and before `expires`. place: file:line.
    """

    criterion: str
    value: float | None
    is_not_applicable: bool
    author: str
    role: str
    reason: str
    document: Document | None
    since: int
    expires: int
    place: str


class Exemption(NamedTuple):
    """A subject that one criterion leaves out, with the reason and who said so; since, until: milliseconds."""

    criterion: str
    tag: str
    id: str
    reason: str
    author: str
    since: int
    until: int
    place: str = ""


class Maintenance(NamedTuple):
    """A window announced beforehand; ids of assets, services or links."""

    ids: tuple[str, ...]
    start: int
    end: int
    reason: str
    author: str
    declared: int
    place: str = ""


class Calendar(NamedTuple):
    """Days and hours of a week, in the site's time zone, without the holidays.

    hours: weekday (0 is Monday) -> (minute of day from, until); holidays: ISO dates.
    """

    hours: Mapping[int, tuple[tuple[int, int], ...]]
    holidays: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SiteFolder:
    """Everything of the folder. has_register: without one, whoever reports first owns an asset and nothing is asked by attribute."""

    zone: ZoneInfo = DEFAULT_ZONE
    has_register: bool = False
    entries: Mapping[Section, Mapping[str, Entry]] = field(default_factory=dict)
    attestations: tuple[Attestation, ...] = ()
    exemptions: tuple[Exemption, ...] = ()
    maintenance: tuple[Maintenance, ...] = ()
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    digest: str = EMPTY_DIGEST
    parts: Mapping[str, str] = field(default_factory=dict)
    """File -> digest of its content, so that a comparison can name the file that changed; '' for a document that is gone."""
    title: Text | None = None
    revoked: Mapping[str, int] = field(default_factory=dict)
    """Agent -> when it was revoked, ms; no part of the digest."""
    _matching: dict[tuple[str, object], Mapping[str, Entry]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def matching(self, tag: str, wanted: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[str, Entry]:
        """Those of the entries in this tag that have one of the wanted values of every wanted attribute, by id.

        Looked up once for all questions: a folder never changes.
        """
        key = (tag, wanted)
        if key not in self._matching:
            attributes, entries = dict(wanted), self.section(tag)
            self._matching[key] = {name: entry for name, entry in entries.items() if entry.matches(attributes)}
        return self._matching[key]

    def section(self, tag: str) -> Mapping[str, Entry]:
        """The entries whose ids stand in this tag; nothing for a tag that the register does not know."""
        section = SECTION_OF_TAG.get(tag)
        return self.entries.get(section, {}) if section else {}

    def attestation_of(self, criterion: str, as_of: int) -> Attestation | None:
        """The newest attestation of a criterion that had begun by `as_of`, also when it has expired since."""
        begun = [one for one in self.attestations if one.criterion == criterion and one.since <= as_of]
        return max(begun, key=lambda one: (one.since, one.expires), default=None)

    def excuses_of(self, identity: str) -> Iterator[tuple[int, int]]:
        """The announced maintenance of one thing."""
        for window in self.maintenance:
            if identity in window.ids:
                yield window.start, window.end
