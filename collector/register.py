"""The register: which agent may report which asset. Without one, the first reporter owns an asset."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from agent.reasons import MOST_ASSETS
from agent.wire import Address
from collector.site_folder import SiteFolder


class Register(Protocol):
    """Who may report an asset; `Registered` and `Owners` answer alike."""

    def reporters(self, site: str, asset: str) -> Collection[str]:
        """The agents that may report `asset`; empty when nobody has been named yet."""

    def claim(self, address: Address, assets: Iterable[str]) -> None:
        """An agent's points of assets that have no reporter are about to be stored."""

    def room(self, address: Address) -> int:
        """How many assets that have no reporter yet the agent may still claim."""

    def learn(self, site: str, owners: Mapping[str, str]) -> None:
        """What the store says of a site, asset -> agent that first reported it; the store is always right."""


class Owners:
    """First come, first served: every asset belongs to the agent that first reported it, for good.

    The store remembers (`Store.owners`), because two collectors must agree; here is what this one knows of it,
    and claims whose first points are about to be written.
    """

    def __init__(self, most_assets: int = MOST_ASSETS) -> None:
        self._most_assets = most_assets
        self._owners: dict[str, dict[str, frozenset[str]]] = {}
        self._counts: dict[str, Counter[str]] = {}
        """Of each site: how many assets an agent owns."""

    def reporters(self, site: str, asset: str) -> Collection[str]:
        """The one owner, or nobody."""
        return self._owners.get(site, {}).get(asset, frozenset())

    def claim(self, address: Address, assets: Iterable[str]) -> None:
        """Make the agent the owner of those that have none."""
        known = self._owners.setdefault(address.site, {})
        new = [asset for asset in assets if asset not in known]
        known.update((asset, frozenset((address.agent,))) for asset in new)
        self._counts.setdefault(address.site, Counter())[address.agent] += len(new)

    def room(self, address: Address) -> int:
        """What is left of the bound; what the store knows beyond it stays the agent's."""
        owned = self._counts.get(address.site, Counter())[address.agent]
        return max(0, self._most_assets - owned)

    def learn(self, site: str, owners: Mapping[str, str]) -> None:
        """Take over what the store says, also where it contradicts a claim made here."""
        known = self._owners.setdefault(site, {})
        known.update((asset, frozenset((agent,))) for asset, agent in owners.items())
        self._counts[site] = Counter(agent for agents in known.values() for agent in agents)

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

    def room(self, address: Address) -> int:
        """What the agent may still claim of what the register does not give to somebody."""
        return self._owners.room(address)

    def learn(self, site: str, owners: Mapping[str, str]) -> None:
        """Take over what the store says."""
        self._owners.learn(site, owners)
