"""The register: which agent may report which asset. Without one, the first reporter owns an asset."""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from agent.wire import Address
from collector.site_folder import SiteFolder


class Register(Protocol):
    """Who may report an asset; `Registered` and `Owners` answer alike."""

    def reporters(self, site: str, asset: str) -> Collection[str]:
        """The agents that may report `asset`; empty when nobody has been named yet."""

    def claim(self, address: Address, assets: Iterable[str]) -> None:
        """An agent's points of assets that have no reporter are about to be stored."""

    def learn(self, site: str, owners: Mapping[str, str]) -> None:
        """What the store says of a site, asset -> agent that first reported it; the store is always right."""


class Owners:
    """First come, first served: every asset belongs to the agent that first reported it, for good.

    The store remembers (`Store.owners`), because two collectors must agree; here is what this one knows of it,
    and claims whose first points are about to be written.
    """

    def __init__(self) -> None:
        self._owners: dict[str, dict[str, frozenset[str]]] = {}

    def reporters(self, site: str, asset: str) -> Collection[str]:
        """The one owner, or nobody."""
        return self._owners.get(site, {}).get(asset, frozenset())

    def claim(self, address: Address, assets: Iterable[str]) -> None:
        """Make the agent the owner of those that have none."""
        known = self._owners.setdefault(address.site, {})
        for asset in assets:
            known.setdefault(asset, frozenset((address.agent,)))

    def learn(self, site: str, owners: Mapping[str, str]) -> None:
        """Take over what the store says, also where it contradicts a claim made here."""
        known = self._owners.setdefault(site, {})
        known.update((asset, frozenset((agent,))) for asset, agent in owners.items())

    def unregistered(self, site: str) -> Mapping[str, str]:
        """All assets of a site with their owners: without a register, none of them is registered."""
        return {asset: next(iter(agents)) for asset, agents in self._owners.get(site, {}).items()}


class Registered:
    """The register of a site folder: an asset is taken from the agents that it names.

    A registered asset that names none is taken from the agent of its own name and from its first reporter; one that is not
    registered, from its first reporter. A retired asset that goes on reporting is stored: what it says may be wanted once
    the mistake is found, and `register check` says so. Of other sites it knows nothing, there the first reporter owns.

    folder: may be replaced while points come in; the next batch is held against the new one.
    """

    def __init__(self, site: str, folder: SiteFolder) -> None:
        self._site = site
        self._owners = Owners()
        self.folder = folder

    def reporters(self, site: str, asset: str) -> Collection[str]:
        """The agents that the register names, else the owner."""
        owners = self._owners.reporters(site, asset)
        entry = self.folder.section("asset").get(asset) if site == self._site else None
        if entry is None:
            return owners
        if entry.reporters:
            return entry.reporters
        return {asset, *owners} if owners else owners  # nobody yet: the first one is about to claim it

    def claim(self, address: Address, assets: Iterable[str]) -> None:
        """Make the agent the first reporter of those that have none."""
        self._owners.claim(address, assets)

    def learn(self, site: str, owners: Mapping[str, str]) -> None:
        """Take over what the store says."""
        self._owners.learn(site, owners)
