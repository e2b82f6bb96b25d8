"""Devices that cannot run an agent: switches, firewalls, arrays, hypervisors, UPS, asked by SNMP with the profiles that fit them.

Needs: the extra `snmp` (gufo-snmp), a read-only community or v3 user on each device. Only the targets written here are asked.
Reference: RFC 3411 to 3418; what a profile reads stands in `agent/profiles/`.
"""

import functools
import importlib.util
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, NamedTuple, Protocol

import msgspec

from agent.catalogue import explain_host_name, explain_id, is_host_name, is_id
from agent.documents import nearest
from agent.language import say
from agent.snmp.credentials import Credential
from agent.snmp.parts import Parts
from agent.snmp.profile import load_profiles
from agent.snmp.shapes import plain_name
from agent.sources import Incomplete, Reading, SourceConfig, Surroundings

MOST_SOCKETS = 16384
SPARE_SECONDS = 0.5
"""So much before the runner's deadline a round gives up by itself, and tells what it saw until then."""

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device. credential: a name of `credentials`; may be left out when there is one only. profiles: instead of those that fit."""

    asset: str
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Port = 161
    credential: str | None = None
    profiles: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not is_host_name(self.host):
            raise ValueError(explain_host_name("host", self.host))


class Discover(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where `snmp discover` may look, and how fast; it never looks anywhere else."""

    ranges: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    requests_per_second: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 20.0

    def __post_init__(self) -> None:
        for text in self.ranges:
            read_range(text)


def read_range(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A range such as 192.0.2.0/24, or one address. Raises ValueError with a sentence."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            say(f"'{text}' 不是地址段，应如 192.0.2.0/24", f"'{text}' is no range; expected such as 192.0.2.0/24")
        ) from error


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """timeout_seconds: for the first attempt at an answer, doubled with each of `retries`.

    peers: system names and addresses of devices that are polled elsewhere: as neighbours they are managed too.
    """

    interval_seconds: Annotated[float, msgspec.Meta(ge=1)] = 60.0
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=30)] = 1.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    credentials: Mapping[str, Credential] = {}
    targets: tuple[Target, ...] = ()
    peers: tuple[str, ...] = ()
    discover: Discover | None = None

    def __post_init__(self) -> None:
        if self.targets and importlib.util.find_spec("gufo") is None:
            raise ValueError(
                say(
                    "需要 gufo-snmp:pip install 'infravitals[snmp]'", "needs gufo-snmp: pip install 'infravitals[snmp]'"
                )
            )
        if mistakes := list(_find_mistakes(self)):
            raise ValueError(say("；", "; ").join(mistakes))

    def split(self) -> Mapping[str, "Config"]:
        """One section for each target."""
        peers = (*self.peers, *(name for target in self.targets for name in (target.asset, target.host)))
        return {target.asset: msgspec.structs.replace(self, targets=(target,), peers=peers) for target in self.targets}

    def credential_of(self, target: Target) -> Credential:
        """How `target` is opened."""
        return self.credentials[target.credential] if target.credential else next(iter(self.credentials.values()))


def _find_mistakes(config: Config) -> Iterator[str]:
    """What one target alone cannot show: doubled names, credentials and profiles that are not there."""
    profiles = load_profiles() if config.targets else {}  # read here, before rounds begin: it takes half a second
    assets: set[str] = set()
    places: set[tuple[str, int]] = set()
    for target in config.targets:
        place = (_plain(target.host), target.port)
        if not is_id(target.asset):
            yield explain_id("asset", target.asset)
        if target.asset in assets:
            yield say(f"资产 '{target.asset}' 写了两次", f"the asset '{target.asset}' stands twice")
        if place in places:
            yield say(f"{target.host}:{target.port} 写了两次", f"{target.host}:{target.port} stands twice")
        assets.add(target.asset)
        places.add(place)
        if target.credential is None and len(config.credentials) != 1:
            yield say(f"{target.asset} 缺少 credential", f"{target.asset} needs a credential")
        elif target.credential is not None and target.credential not in config.credentials:
            text = say(
                f"{target.asset}：没有凭据 '{target.credential}'",
                f"{target.asset}: no credential '{target.credential}'",
            )
            yield text + nearest(target.credential, config.credentials)
        for name in target.profiles or ():
            if name not in profiles:
                yield say(f"{target.asset}：没有设备档案 '{name}'", f"{target.asset}: no profile '{name}'") + nearest(
                    name, profiles
                )


def _plain(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


class _Device(Protocol):
    """What is known of the target; its module loads the SNMP library, which only a configured target needs."""

    async def look(self, target: str) -> list[Reading]: ...

    def close(self) -> None: ...


class Source:
    """One device. It stays open between rounds and after failures: v3 keeps engine id, boots and time, and lost parts are remembered."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = True

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        [self._target] = config.targets
        self._config = config
        self._surroundings = surroundings
        self._device: _Device | None = None

    async def open(self) -> None:
        """Read the secrets and the profiles. Raises SourceError when a secret is not there."""
        if self._device is None:
            _allow_sockets()
            self._device = self._make()

    def _make(self) -> _Device:
        from agent.snmp.client import Patience, Session
        from agent.snmp.device import Device
        from agent.snmp.trend import Trends

        target, config = self._target, self._config
        shared = _shared_by(config.peers)
        patience = Patience(config.timeout_seconds, config.retries)
        session = Session(target.host, target.port, config.credential_of(target).open(), patience)
        folder = self._surroundings.state_directory
        return Device(
            session,
            load_profiles(),
            self._surroundings.monotonic,
            budget_seconds=max(0.1, min(config.deadline_seconds, config.interval_seconds) - SPARE_SECONDS),
            names=target.profiles,
            managed=shared.names,
            engines=shared.engines,
            addresses=shared.addresses,
            parts=Parts(folder / "snmp" / f"{target.asset}.json" if folder else None),
            trends=Trends(folder / "snmp" / f"{target.asset}.pools.json" if folder else None),
        )

    async def collect(self) -> list[Reading]:
        """One round. Raises Incomplete: a device that fell silent is a reading too."""
        assert self._device is not None  # noqa: S101 - the runner opens first
        try:
            readings = await self._device.look(self._target.asset)
        except Incomplete as trouble:
            raise Incomplete(str(trouble), self._name(trouble.readings)) from trouble
        return list(self._name(readings))

    def _name(self, readings: Iterable[Reading]) -> Iterator[Reading]:
        asset = self._target.asset
        return (Reading(one.name, one.fields, one.tags, asset, one.timestamp) for one in readings)

    async def close(self) -> None:
        """Give the socket back."""
        if self._device:
            self._device.close()
        self._device = None


class _Shared(NamedTuple):
    """What all targets of one section know together. names: their own, as neighbours are compared. engines: engine id -> target,
    addresses: MAC -> IP address, as any of them was told.
    """

    names: frozenset[str]
    engines: dict[bytes, str]
    addresses: dict[str, str]


@functools.lru_cache(maxsize=4)
def _shared_by(peers: tuple[str, ...]) -> _Shared:
    """One for all targets of a section, whose names are `peers`."""
    return _Shared(frozenset(map(plain_name, peers)), {}, {})


def _allow_sockets() -> None:
    """Every target keeps a socket: more than the 1,024 that a system gives unasked are wanted for a large hospital."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_SOCKETS if hard == resource.RLIM_INFINITY else min(MOST_SOCKETS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
