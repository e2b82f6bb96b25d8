"""The files of the site folder as a person writes them: their names and keys, and the structs that hold those keys."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec

from agent.catalogue import ID_PATTERN, Text
from collector.site_folder import Section
from collector.site_times import Day, Moment

SITE, REGISTER, CALENDARS = "site.yaml", "register.yaml", "calendars.yaml"
ATTESTATIONS, EXEMPTIONS, MAINTENANCE = "attestations.yaml", "exemptions.yaml", "maintenance.yaml"
FILES = (SITE, REGISTER, CALENDARS, ATTESTATIONS, EXEMPTIONS, MAINTENANCE)
DOCUMENTS = "documents"

SECTIONS: tuple[Section, ...] = get_args(Section)
IN_MAINTENANCE: tuple[Section, ...] = ("assets", "services", "links")

Id = Annotated[
    str,
    msgspec.Meta(
        pattern=f"^{ID_PATTERN}$",
        description=(
            "小写字母、数字和连字符组成的名称，以字母或数字开头，最长 63 个字符 / "
            "a name of small letters, digits and hyphens, a letter or digit first, at most 63"
        ),
    ),
]
Word = Annotated[
    str, msgspec.Meta(pattern=r"^\S(.*\S)?$", description="一个词，两端没有空格 / a word without spaces around it")
]
Sentence = Annotated[str, msgspec.Meta(pattern=r"\S", description="文字 / some words")]
Digest = Annotated[
    str,
    msgspec.Meta(
        pattern="^[0-9a-f]{64}$",
        description="sha256sum 给出的 64 位十六进制数 / the 64 hexadecimal digits that sha256sum gives",
    ),
]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every struct here refuses keys that it does not know."""


class Retired(_Strict, frozen=True):
    """That a thing left, when and why; it stays in the file, and reports list it."""

    on: Moment
    reason: Sentence


class Registered(_Strict, frozen=True):
    """What every entry of the register may say of itself.

    A text with a pattern must not stand in a union with anything but None: msgspec 0.22 then crashes the interpreter
    (convert a text, collect garbage). So titles and roles are plain texts, looked at when the entry is settled.
    """

    title: Text | str | None = None
    kind: Word | None = msgspec.field(default=None, name="class")
    criticality: Word | None = None
    zone: Id | None = None
    role: str | tuple[str, ...] = ()
    since: Moment | None = msgspec.field(default=None, name="from")
    until: Moment | None = None
    retired: Retired | None = None
    calendar: Id | None = None


class Asset(Registered, frozen=True):
    """A thing that reports or is reported on; reporters: the agents whose points of it are taken."""

    reporters: tuple[Id, ...] = ()


class Service(Registered, frozen=True):
    """What people work with; assets: what it runs on."""

    assets: tuple[Id, ...] = ()


class Link(Registered, frozen=True):
    """A line to elsewhere: who provides it, to whom it leads, what was committed."""

    provider: Word | None = None
    partner: Word | None = None
    committed_bits_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None


class RegisterFile(_Strict, frozen=True):
    """register.yaml; an entry of which nothing is said may be left empty."""

    assets: dict[Id, Asset | None] | None = None
    services: dict[Id, Service | None] | None = None
    links: dict[Id, Link | None] | None = None
    zones: dict[Id, Registered | None] | None = None
    segments: dict[Id, Registered | None] | None = None


KINDS: Mapping[Section, type[Registered]] = {
    "assets": Asset,
    "services": Service,
    "links": Link,
    "zones": Registered,
    "segments": Registered,
}


class Paper(_Strict, frozen=True):
    """The document behind an attestation; path: below the site folder, in documents/."""

    path: Sentence
    sha256: Digest


class Attested(_Strict, frozen=True):
    """One attestation: a value on the criterion's scale, or that the criterion does not apply here."""

    criterion: Id
    reason: Sentence
    author: Sentence
    role: Sentence
    since: Moment = msgspec.field(name="from")
    expires: Moment
    value: float | None = None
    not_applicable: bool = False
    document: Paper | None = None


class Exempted(_Strict, frozen=True):
    """One exemption; exactly one of the keys that name a thing of the register."""

    criterion: Id
    reason: Sentence
    author: Sentence
    since: Moment = msgspec.field(name="from")
    until: Moment
    asset: Id | None = None
    service: Id | None = None
    system: Id | None = None
    line: Id | None = None
    from_zone: Id | None = None
    to_zone: Id | None = None
    segment: Id | None = None


class Window(_Strict, frozen=True):
    """One maintenance window, declared before it began; of: ids of assets, services or links."""

    of: tuple[Id, ...]
    since: Moment = msgspec.field(name="from")
    until: Moment = msgspec.field(name="to")
    reason: Sentence
    author: Sentence
    declared: Moment


class Week(_Strict, frozen=True):
    """One calendar: days (`mon`, `mon-fri`) -> hours (`08:00-12:00`); holidays: days on which it does not hold."""

    days: dict[str, tuple[str, ...]] = {}
    holidays: tuple[Day, ...] = ()


class SiteFile(_Strict, frozen=True):
    """site.yaml."""

    title: Text | str | None = None
    time_zone: str | None = None


KIND_OF_FILE: Mapping[str, Any] = {
    SITE: SiteFile,
    REGISTER: RegisterFile,
    CALENDARS: dict[Id, Week],
    ATTESTATIONS: tuple[Attested, ...],
    EXEMPTIONS: tuple[Exempted, ...],
    MAINTENANCE: tuple[Window, ...],
}
