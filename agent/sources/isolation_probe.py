"""Whether zones are isolated as the policy says: every way is tried on the wire, and the far end says what came.

Measures: isolation_cell of each zone, protocol and port (is_proven: both ends agree; is_as_expected; is_reached;
is_breached: open although it must be blocked; outcome), isolation_control.is_seen of each zone.
Needs: an `isolation_responder` with the same key in every zone that is tried; for `icmp` CAP_NET_RAW, or the agent's
group in net.ipv4.ping_group_range.
Reference: docs/isolation.md has the protocol and what it proves.

A round: the responder is asked (is it there, what can it hear), the ways are tried with a nonce each, the responder is
asked which nonces came. Without both answers nothing counts as blocked. Only the addresses of `targets` are touched, by
`probes_per_second` probes at most, each a line of about a hundred bytes that names this agent.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import msgspec

from agent.broker import Secret
from agent.catalogue import explain_id, is_id
from agent.errors import SourceError
from agent.language import say
from agent.sources import Reading, Seconds, Surroundings
from agent.sources._attempt import Attempt, Came, Prober
from agent.sources._control import Called, Control, Dialled
from agent.sources._echo import open_echo
from agent.sources._hours import ProbeConfig
from agent.sources._proof import CONTROL_BYTES, read_key
from agent.sources._verdict import Evidence, Verdict, judge, worst
from agent.sources._ways import Way, read_address, read_way
from agent.sources._ways_out import ask_proxy, ask_resolver
from agent.sources.isolation_responder import CONTROL_PORT, Port, read_endpoint

AT_ONCE = 64
SLOW_SECONDS, MOST_SLOW = 0.7, 5
"""Between ways that are asked once more because they were silent and must not be, and how many of them."""

ROUND_SHARE = 0.9
"""Of the deadline; a round that overruns it gives nothing at all."""

_log = logging.getLogger(__name__)
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,8}")


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One responder and the policy towards it.

    allowed, blocked: ways such as tcp/22, udp/161, icmp. calls: it connects to our call_port, since nothing may pass inward.
    resolvers, proxies: the hospital's own, which must not carry anything there: questions for `domain`, which is delegated to
    this responder, and connections to its proxied_port. key: of this prober and this responder alone; else the source's.
    """

    zone: str
    address: str
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    control_port: Port = CONTROL_PORT
    calls: bool = False
    resolvers: tuple[str, ...] = ()
    domain: str = ""
    proxies: tuple[str, ...] = ()
    proxied_port: Port = 443
    key: Secret | None = None

    def __post_init__(self) -> None:
        read_address(self.address)
        if not is_id(self.zone):
            raise ValueError(explain_id("zone", self.zone))
        for text in self.resolvers:
            read_address(text)
        for text in self.proxies:
            read_endpoint(text)
        if self.resolvers and not _DOMAIN.fullmatch(self.domain):
            raise ValueError(
                say("有 resolvers 时须写委派给应答端的 domain", "resolvers need the domain that is delegated")
            )
        ways = [*self.allowed, *self.blocked]
        for text in ways:
            read_way(text)
            if ways.count(text) > 1:
                raise ValueError(say(f"'{text}' 写了不止一次", f"'{text}' stands there more than once"))

    def ways(self) -> Iterable[tuple[Way, bool]]:
        """Every way with whether it is allowed."""
        is_ipv6 = ":" in self.address
        for texts, is_allowed in ((self.allowed, True), (self.blocked, False)):
            for text in texts:
                yield read_way(text, is_ipv6), is_allowed


class Config(ProbeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """zone: where this agent stands. call_port: where responders that call find us. timeout_seconds: of one try.

    control_retries: a target whose control is not seen is tried again whole so many times in the round, after a pause: a
    responder that is being restarted costs no proof.
    """

    interval_seconds: Seconds = 60.0
    deadline_seconds: Seconds = 50.0
    zone: str
    key: Secret | None = None
    targets: tuple[Target, ...]
    call_port: Port | None = None
    source_address: str = ""
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=10)] = 2.5
    control_retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    control_pause_seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 8.0
    probes_per_second: Annotated[float, msgspec.Meta(gt=0, le=500)] = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_id(self.zone):
            raise ValueError(explain_id("zone", self.zone))
        if not self.targets:
            raise ValueError(say("targets 至少写一个", "targets needs one entry at least"))
        if self.source_address:
            read_address(self.source_address)
        if self.key is None and any(target.key is None for target in self.targets):
            raise ValueError(say("须写 key，或每个对象各写一个", "give key, or one for each target"))
        if self.call_port is None and any(target.calls for target in self.targets):
            raise ValueError(say("有 calls 的对象时须写 call_port", "a target that calls needs call_port to be given"))


class Source:
    """All targets of one zone's prober, once a round."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._name = surroundings.asset
        self._called: dict[str, Called] = {}
        self._server: asyncio.Server | None = None
        self._probers: dict[Target, Prober] = {}
        self._is_told = False
        self._limited: set[str] = set()
        self._why: dict[Target, str] = {}
        self._unseen: dict[Target, str] = {}

    async def open(self) -> None:
        """Read the key, and listen for responders that call. Raises SourceError."""
        await self.close()
        config = self._config
        self._probers = {target: self._prober_of(target) for target in config.targets}
        self._check_echoes()
        if config.call_port is not None:
            self._server = await asyncio.start_server(
                self._take_call, config.source_address or None, config.call_port, limit=CONTROL_BYTES
            )

    def _check_echoes(self) -> None:
        """Say once that cells of icmp cannot be tried from here, and which right is missing; the others can."""
        ways = [way for target in self._config.targets for way, _ in target.ways() if way.base == "icmp"]
        try:
            for is_ipv6 in {way.is_ipv6 for way in ways}:
                open_echo(is_ipv6).close()
        except SourceError as error:
            if not self._is_told:
                text = say(f"{error}；icmp 的单元无法证实", f"{error}; the cells of icmp stay unproven")
                _log.warning(text)
            self._is_told = True

    async def collect(self) -> list[Reading]:
        """One round over all targets. Raises nothing that the network may do: that is what is measured."""
        pace = Pace(self._config.probes_per_second)
        proven = await asyncio.gather(*(self._prove_patiently(target, pace) for target in self._config.targets))
        self._tell_of_controls()
        return self._readings(dict(zip(self._config.targets, proven, strict=True)))

    def _tell_of_controls(self) -> None:
        """Why nothing is proven of a target: once, and again when it is for another reason or after it was seen."""
        for target, why in self._why.items():
            if why and why != self._unseen.get(target):
                _log.warning(why)
        self._unseen = dict(self._why)

    async def close(self) -> None:
        """Stop listening; responders call again."""
        server, self._server = self._server, None
        called, self._called = self._called, {}
        for one in called.values():
            one.close()
        if server is not None:
            server.close()

    def has_calls(self, addresses: Iterable[str]) -> bool:
        """Whether the responders at all these addresses have called."""
        return self._called.keys() >= set(addresses)

    async def _prove_patiently(self, target: Target, pace: "Pace") -> tuple[bool, list[tuple[Way, Verdict]]]:
        """`_prove`, again while the control is not seen and another go fits into the round; what was found open stays open.

        One dead responder must not cost the others their round.
        """
        config, clock = self._config, asyncio.get_running_loop().time
        due = clock() + ROUND_SHARE * min(config.deadline_seconds, config.interval_seconds)
        began = clock()
        proven = await self._prove(target, pace, due)
        for _ in range(config.control_retries):
            took = clock() - began
            if proven[0] or clock() + config.control_pause_seconds + took > due:
                break
            await asyncio.sleep(config.control_pause_seconds)
            began = clock()
            is_seen, judged = await self._prove(target, pace, due)
            pairs = zip(proven[1], judged, strict=True)
            proven = is_seen, [before if before[1].is_breached else after for before, after in pairs]
        return proven

    async def _prove(self, target: Target, pace: "Pace", due: float) -> tuple[bool, list[tuple[Way, Verdict]]]:
        """Whether the control was seen, and all ways of one target, judged. due: when the round should be over, by the loop's clock."""
        control = self._control(target)
        self._why[target] = ""
        here = await control.hello() if control else None
        ways = list(target.ways())
        attempts = await asyncio.gather(*(self._try(target, way, is_allowed, pace) for way, is_allowed in ways))
        if here:
            silent = [n for n, (_, is_allowed) in enumerate(ways) if is_allowed and attempts[n].came is Came.SILENCE]
            for n, attempt in await self._ask_slowly(target, {n: ways[n][0] for n in silent[:MOST_SLOW]}, due):
                attempts[n] = attempt
        helped = await asyncio.gather(
            *(self._try_helper(target, way, helper, pace) for way, helper, _ in helpers(target))
        )
        nonces = [one.nonce for one in (*attempts, *helped)]
        seen = await control.ask(here, nonces) if control and here and nonces else None
        if here and not nonces:
            return True, []
        testimony = Evidence(here.ways, seen) if here and seen is not None else None
        if testimony is None:
            self._why[target] = explain_control(target, control, self._config.call_port)
        judged = [
            (way, judge(is_allowed, str(way), attempt, testimony))
            for (way, is_allowed), attempt in zip(ways, attempts, strict=True)
        ]
        judged += [
            (way, judge(False, heard_as, attempt, testimony))
            for (way, _, heard_as), attempt in zip(helpers(target), helped, strict=True)
        ]
        return testimony is not None, judged

    def _prober_of(self, target: Target) -> Prober:
        """Raises SourceError for a key that cannot be used."""
        secret = target.key or self._config.key
        assert secret is not None  # noqa: S101 - the configuration saw to it
        return Prober(read_key(secret), self._name, self._config.timeout_seconds, self._config.source_address)

    async def _try_helper(self, target: Target, way: Way, helper: str, pace: "Pace") -> Attempt:
        """One resolver or proxy of the hospital's own."""
        key, timeout_seconds = self._probers[target].key, self._config.timeout_seconds
        async with pace:
            if way.protocol == "dns":
                return await ask_resolver(key, helper, target.domain, timeout_seconds)
            there = (target.address, target.proxied_port)
            return await ask_proxy(key, self._name, read_endpoint(helper), there, timeout_seconds)

    async def _try(self, target: Target, way: Way, is_allowed: bool, pace: "Pace") -> Attempt:
        """One way; where an answer is due, silence is asked again once: a lost packet is no blocked way."""
        async with pace:
            attempt = await self._probers[target].attempt(target.address, way)
        if attempt.came is Came.SILENCE and is_allowed:
            async with pace:
                attempt = await self._probers[target].attempt(target.address, way)
        return attempt

    async def _ask_slowly(self, target: Target, ways: Mapping[int, Way], due: float) -> list[tuple[int, Attempt]]:
        """Allowed ways that stayed silent, one by one: those that answer now were held back by a limit on the rate, and it is said.

        Only as many as leave the control its time before the round is due.
        """
        answered, clock = [], asyncio.get_running_loop().time
        for n, way in ways.items():
            if clock() + SLOW_SECONDS + 2 * self._config.timeout_seconds > due:
                break
            await asyncio.sleep(SLOW_SECONDS)
            attempt = await self._probers[target].attempt(target.address, way)
            if attempt.came is not Came.SILENCE:
                answered.append((n, attempt))
        if answered and target.zone not in self._limited:
            self._limited.add(target.zone)
            text = say(
                f"{target.zone}：{len(answered)} 个端口只有逐个慢问才应答，途中有设备限速；请调低 probes_per_second",
                f"{target.zone}: {len(answered)} ways answer only when asked one by one: something on the way limits the rate; lower probes_per_second",
            )
            _log.warning(text)
        return answered

    def _control(self, target: Target) -> Control | None:
        """Where this target's responder can be asked; None when it has not called."""
        prober = self._probers[target]
        if not target.calls:
            talk = Dialled(target.address, target.control_port, prober.timeout_seconds, prober.source_address)
            return Control(prober.key, prober.name, talk)
        called = self._called.get(target.address)
        return Control(prober.key, prober.name, called) if called else None

    async def _take_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A responder connected; only the addresses of targets that call are let in. The newest connection counts."""
        with contextlib.suppress(OSError, TypeError):
            address = str(writer.get_extra_info("peername")[0]).removeprefix("::ffff:")
            if any(target.calls and target.address == address for target in self._config.targets):
                if before := self._called.pop(address, None):
                    before.close()
                self._called[address] = Called(reader, writer, self._config.timeout_seconds)
                return
        writer.close()

    def _readings(self, proven: Mapping[Target, tuple[bool, list[tuple[Way, Verdict]]]]) -> list[Reading]:
        """A control per zone and a cell per zone and way; of several targets the worst counts."""
        controls: dict[str, bool] = {}
        cells: dict[tuple[str, Way], list[Verdict]] = {}
        for target, (is_seen, judged) in proven.items():
            controls[target.zone] = controls.get(target.zone, True) and is_seen
            for way, verdict in judged:
                cells.setdefault((target.zone, way), []).append(verdict)
        zone = self._config.zone
        readings = [
            Reading("isolation_control", {"is_seen": is_seen}, {"from_zone": zone, "to_zone": to_zone})
            for to_zone, is_seen in controls.items()
        ]
        for (to_zone, way), verdicts in cells.items():
            tags = {"from_zone": zone, "to_zone": to_zone, "protocol": way.protocol, "port": way.port_tag}
            readings.append(Reading("isolation_cell", worst(verdicts).fields(), tags))
        return readings


def explain_control(target: Target, control: Control | None, call_port: int | None) -> str:
    """Why nothing is proven of a target in this round, and what to do."""
    where = f"{target.zone}({target.address})"
    if control is None:
        return say(
            f"{where} 的对照不可见：应答端还没有连到本机的 TCP {call_port}；请在应答端写 call，并放行这一条",
            f"the control of {where} is not seen: no responder has called at our TCP {call_port}; give it 'call', and let that through",
        )
    port = "" if target.calls else f" TCP {target.control_port}"
    return say(
        f"{where} 的对照{port} 不可见：{control.why}", f"the control of {where}{port} is not seen: {control.why}"
    )


def helpers(target: Target) -> list[tuple[Way, str, str]]:
    """Each resolver and proxy: the cell's way, where it is, and as which way the responder would hear it."""
    six = "6" if ":" in target.address else ""
    resolvers = [(Way("dns", 53), resolver, f"udp{six}/53") for resolver in target.resolvers]
    heard_as = f"tcp{six}/{target.proxied_port}"
    return [*resolvers, *((Way("proxy", read_endpoint(proxy)[1]), proxy, heard_as) for proxy in target.proxies)]


class Pace:
    """So many probes a second and at once; whoever is too early waits."""

    def __init__(self, per_second: float) -> None:
        self._gap_seconds = 1.0 / per_second
        self._next = 0.0
        self._places = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> None:
        await self._places.acquire()
        now = asyncio.get_running_loop().time()
        due = self._next = max(self._next + self._gap_seconds, now)
        await asyncio.sleep(due - now)

    async def __aexit__(self, *exc: object) -> None:
        self._places.release()
