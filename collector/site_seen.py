"""What a store has seen of the things that a register may name: every asset with its reporters, and the names in tags."""

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from agent.catalogue import Catalogue
from collector.quarantine import Entry
from collector.site_folder import SECTION_OF_TAG
from collector.stores import Store


class SeenReporter(msgspec.Struct, frozen=True):
    """An agent that reported an asset, and when it last did (ms; exact to the hour)."""

    agent: str
    last_seen: int


class SeenAsset(msgspec.Struct, frozen=True):
    """An asset of which there are points; owner: who reported it first. measurements: what of it was reported."""

    id: str
    owner: str
    reporters: tuple[SeenReporter, ...]
    first_seen: int
    last_seen: int
    measurements: tuple[str, ...]
    is_virtual: bool | None
    interfaces: tuple[str, ...]
    groups: tuple[str, ...]
    """The kinds of its master groups: vrrp, database..."""


class SeenName(msgspec.Struct, frozen=True):
    """A name in a tag that the register knows: a service, a line, a zone, a segment."""

    tag: str
    id: str
    first_seen: int
    last_seen: int


class SetAsideAsset(msgspec.Struct, frozen=True):
    """An agent's points of an asset that were set aside as another's; at: the newest of them (ms)."""

    agent: str
    asset: str
    at: int


class Seen(msgspec.Struct, frozen=True):
    """All of it; asked_at: when, in milliseconds."""

    asked_at: int
    assets: tuple[SeenAsset, ...]
    names: tuple[SeenName, ...]
    set_aside: tuple[SetAsideAsset, ...] = ()


def read_seen(store: Store, catalogue: Catalogue, site: str, now: int) -> Seen:
    """What the store has seen of a site. Asks for subjects alone, so it is cheap on a large store."""
    assets = _Assets(store, catalogue, site, now)
    return Seen(now, tuple(assets.read()), tuple(_names(store, catalogue, site, now)))


def find_set_aside(entries: Iterable[Entry], site: str) -> tuple[SetAsideAsset, ...]:
    """Which agent was refused which asset, from the quarantine's entries of the reason `not_yours`."""
    newest: dict[tuple[str, str], int] = {}
    for entry in entries:
        match = _ASSET.search(entry.what)
        if match and entry.site == site:
            name = (entry.agent, match[1])
            newest[name] = max(entry.at, newest.get(name, 0))
    return tuple(SetAsideAsset(agent, asset, at) for (agent, asset), at in sorted(newest.items()))


_ASSET = re.compile("'asset': '([a-z0-9-]+)'")


class _Assets:
    """The assets of one site, gathered from the subjects of every measurement."""

    def __init__(self, store: Store, catalogue: Catalogue, site: str, now: int) -> None:
        self.store, self.catalogue, self.site, self.now = store, catalogue, site, now

    def read(self) -> Iterator[SeenAsset]:
        """All assets, by id."""
        first: dict[str, int] = {}
        last: dict[str, dict[str, int]] = {}
        measurements: dict[str, list[str]] = {}
        for name in self.catalogue.measurements:
            for known in self.store.subjects(name, ("asset", "agent"), {"site": (self.site,)}, self.now):
                asset, agent = known.subject
                first[asset] = min(first.get(asset, known.first_seen), known.first_seen)
                seen = last.setdefault(asset, {})
                seen[agent] = max(seen.get(agent, 0), known.last_seen)
                if name not in measurements.setdefault(asset, []):
                    measurements[asset].append(name)
        owners = self.store.owners(self.site)
        virtual = self._virtual()
        interfaces, groups = self._tag_of("net_interface", "interface"), self._tag_of("role_group", "kind")
        for asset in sorted(first):
            yield SeenAsset(
                id=asset,
                owner=owners.get(asset, ""),
                reporters=tuple(SeenReporter(agent, at) for agent, at in sorted(last[asset].items())),
                first_seen=first[asset],
                last_seen=max(last[asset].values()),
                measurements=tuple(measurements[asset]),
                is_virtual=virtual.get(asset),
                interfaces=tuple(interfaces.get(asset, ())),
                groups=tuple(groups.get(asset, ())),
            )

    def _virtual(self) -> dict[str, bool]:
        newest = self.store.latest("asset_info", 0)
        return {
            row.tags["asset"]: bool(row.fields["is_virtual"])
            for row in newest
            if row.tags["site"] == self.site and "is_virtual" in row.fields
        }

    def _tag_of(self, measurement: str, tag: str) -> dict[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for known in self.store.subjects(measurement, ("asset", tag), {"site": (self.site,)}, self.now):
            asset, value = known.subject
            found.setdefault(asset, []).append(value)
        return {asset: sorted(set(values)) for asset, values in found.items()}


def _names(store: Store, catalogue: Catalogue, site: str, now: int) -> Iterator[SeenName]:
    times: dict[tuple[str, str], tuple[int, int]] = {}
    for name, measurement in catalogue.measurements.items():
        for tag in measurement.tags.keys() & SECTION_OF_TAG.keys():
            for known in store.subjects(name, (tag,), {"site": (site,)}, now):
                first, last = times.get((tag, known.subject[0]), (known.first_seen, known.last_seen))
                times[tag, known.subject[0]] = (min(first, known.first_seen), max(last, known.last_seen))
    return (SeenName(tag, name, *seen) for (tag, name), seen in sorted(times.items()) if name)
