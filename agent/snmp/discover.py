"""Who answers SNMP in the ranges that the configuration allows: a few questions a second, then a register to look over."""

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from agent.errors import WrongCall
from agent.language import say
from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Opened
from agent.snmp.decode import read_text
from agent.snmp.profile import Profile, is_below
from agent.snmp.troubles import NoAnswer, Refused

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

OBJECT_ID, NAME, DESCRIPTION = "1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.1.5.0", "1.3.6.1.2.1.1.1.0"

SNMP_PORT = 161
MOST_ADDRESSES = 65_536
MOST_WAITING = 64
"""So many questions may be under way; the rate is what is promised, this only bounds the sockets."""


@dataclass(frozen=True, slots=True)
class Found:
    """One device that answered. credential: the name under which it let us in. target: the asset that it is a target of already."""

    host: str
    port: int
    credential: str
    object_id: str
    name: str
    description: str
    asset_class: str | None
    target: str | None = None


def choose_addresses(wanted: Iterable[Network], allowed: Sequence[Network]) -> list[str]:
    """The addresses of `wanted`, each once. Raises WrongCall when one is not allowed, or when they are too many."""
    chosen: dict[str, None] = {}
    for network in wanted:
        if not any(_is_inside(network, one) for one in allowed):
            text = say(
                f"{network} 不在配置 snmp_device.discover.ranges 允许的范围内",
                f"{network} is outside of what snmp_device.discover.ranges allows",
            )
            raise WrongCall(text)
        if len(chosen) + network.num_addresses > MOST_ADDRESSES:
            raise WrongCall(say(f"一次最多 {MOST_ADDRESSES} 个地址", f"at most {MOST_ADDRESSES} addresses at once"))
        chosen.update(dict.fromkeys(map(str, network.hosts())))
    return list(chosen)


def _is_inside(network: Network, allowed: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(allowed, ipaddress.IPv4Network) and network.subnet_of(allowed)
    return isinstance(allowed, ipaddress.IPv6Network) and network.subnet_of(allowed)


class Search:
    """Asks every address on every port with every credential until one lets us in.

    requests_per_second holds for all questions together. clock and sleep are the event loop's unless given.
    """

    def __init__(
        self,
        credentials: Mapping[str, Opened],
        profiles: Mapping[str, Profile],
        requests_per_second: float,
        *,
        ports: Sequence[int] = (SNMP_PORT,),
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._credentials, self._profiles, self._ports = credentials, profiles, ports
        self._step = 1.0 / requests_per_second
        self._patience = patience or Patience(1.0, 0)
        self._clock, self._sleep = clock, sleep
        self._free_at = 0.0

    def longest_seconds(self, addresses: int) -> float:
        """What asking so many addresses takes when nobody answers."""
        return addresses * len(self._ports) * len(self._credentials) * self._step

    async def run(self, addresses: Iterable[str]) -> list[Found]:
        """The devices that answered, in the order of `addresses`."""
        slots = asyncio.Semaphore(MOST_WAITING)
        tasks = []
        async with asyncio.TaskGroup() as group:
            for address, port in ((address, port) for address in addresses for port in self._ports):
                await slots.acquire()
                task = group.create_task(self._ask(address, port))
                task.add_done_callback(lambda _: slots.release())
                tasks.append(task)
        return [found for task in tasks if (found := task.result())]

    async def _ask(self, address: str, port: int) -> Found | None:
        for name, credential in self._credentials.items():
            await self._wait_for_turn()
            session = Session(address, port, credential, self._patience)
            try:
                await session.open()
                answered = await session.get([OBJECT_ID, NAME, DESCRIPTION])
            except (NoAnswer, Refused):
                continue
            finally:
                session.close()
            object_id = str(answered.get(OBJECT_ID, ""))
            return Found(
                address,
                port,
                name,
                object_id,
                read_text(answered.get(NAME, b"")),
                read_text(answered.get(DESCRIPTION, b"")),
                guess_class(object_id, self._profiles),
            )
        return None

    async def _wait_for_turn(self) -> None:
        """One question a step, whoever asks it."""
        now = self._clock()
        self._free_at = max(now, self._free_at + self._step)
        await self._sleep(self._free_at - now)


async def note_enrolled(found: Iterable[Found], targets: Mapping[tuple[str, int], str]) -> list[Found]:
    """The devices, each with the asset whose target it is. targets: (host, port) -> asset; names of hosts are looked up."""
    looked_up = await asyncio.gather(*(_addresses_of(host) for host, _ in targets))
    assets = {
        (address, port): asset
        for ((_, port), asset), addresses in zip(targets.items(), looked_up, strict=True)
        for address in addresses
    }
    return [replace(one, target=assets.get((one.host, one.port))) for one in found]


async def _addresses_of(host: str) -> set[str]:
    """None for a name that nobody knows today: its poll says so."""
    try:
        known = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError:
        return set()
    return {str(entry[4][0]) for entry in known}


def guess_class(object_id: str, profiles: Mapping[str, Profile]) -> str | None:
    """What the profile of its maker calls such a device: the one that names most of its object id."""
    fitting = [
        (len(prefix), one.file.asset_class)
        for one in profiles.values()
        if one.file.asset_class
        for prefix in one.file.select
        if prefix != "*" and is_below(object_id, prefix)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def draft_register(new: Mapping[str, Found], agent: str) -> dict[str, object]:
    """A register with an entry for each device."""
    return {
        "assets": {
            asset: {**({"class": one.asset_class} if one.asset_class else {}), "reporters": [agent]}
            for asset, one in new.items()
        }
    }


def draft_targets(new: Mapping[str, Found]) -> list[dict[str, object]]:
    """The same devices as targets of `snmp_device`."""
    return [
        {
            "asset": asset,
            "host": one.host,
            **({} if one.port == SNMP_PORT else {"port": one.port}),
            "credential": one.credential,
        }
        for asset, one in new.items()
    ]


def name_new(found: Iterable[Found], taken: Iterable[str]) -> dict[str, Found]:
    """asset id -> device, of those that are no targets yet; ids are made from the names that devices give themselves.

    taken: ids that other devices bear.
    """
    others, new = set(taken), dict[str, Found]()
    for one in found:
        if one.target is None:
            new[_asset_id(one, others | new.keys())] = one
    return new


def _asset_id(found: Found, taken: Set[str]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", found.name.lower().partition(".")[0]).strip("-")[:48]
    name = plain or f"device-{re.sub('[^0-9a-f]+', '-', found.host)}"
    number = 1
    while (candidate := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return candidate
