"""Whether paths work and how well: echoes, TCP, HTTP and DNS requests, two-ended streams; and the lines made of them.

Measures: path_probe of each target: is_reachable, rtt_seconds; of echoes and streams also loss_ratio, jitter_seconds,
reorder_ratio, duplicate_ratio and one_way_delay_seconds (half the round trip, but for streams with `one_way`). line: is_up
(any route), live_routes_count (of different providers), has_tested_fallback, committed_bits_per_second (what the line's own
interface runs at, or was promised if that is less); of lines between sites redundant_group[group, kind link]: members_count,
healthy_count, is_healthy, is_redundant. quorum[cluster]: is_witness_reachable, of targets that are a cluster's witness.
throughput_bits_per_second of streams with `throughput`, in its hours. network_segment: live_paths_count, has_redundant_gateway.
service_probe: is_up, latency_seconds of targets that name a service.
Needs: CAP_NET_RAW or the agent's group in net.ipv4.ping_group_range for echoes; the package dnspython for DNS; for streams a
`path_reflector` with the same key at the far end. `one_way` needs both clocks disciplined to a fraction of the delay.
Reference: RFC 3550 (jitter), RFC 4737 (reordering), RFC 5357 and 8762 (streams); docs/paths.md.

Of a stream's two directions the worse counts, field by field. Only what stands in the file is asked, at an even pace.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

import msgspec

from agent.broker import Secret
from agent.errors import SourceError
from agent.foreign_words import explain, explain_system
from agent.language import say
from agent.sources import Incomplete, Reading, Seconds, Surroundings
from agent.sources._hours import ProbeConfig, is_within, minute_of_day
from agent.sources._path_sums import Fields, read_lines, read_segments, read_services, read_witnesses
from agent.sources._path_targets import Kind, Line, Segment, Target
from agent.sources._pings import Pings
from agent.sources._proof import read_key
from agent.sources._requests import connect, get, read_url, timed, tls_of
from agent.sources._stream import Direction, Stream, Streamed
from agent.sources._tally import Tally
from agent.sources._throughput import Throughput, send
from agent.sources.path_reflector import PORT as REFLECTOR_PORT

AT_ONCE = 32
STREAMS_AT_ONCE = 8
_log = logging.getLogger(__name__)


class Config(ProbeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """packets and spacing_seconds: of echoes; stream_*: of streams. per_second: echoes a second at most."""

    interval_seconds: Seconds = 15.0
    deadline_seconds: Seconds = 14.0
    targets: tuple[Target, ...]
    lines: Mapping[str, Line] = {}
    segments: Mapping[str, Segment] = {}
    key: Secret | None = None
    packets: Annotated[int, msgspec.Meta(ge=1, le=100)] = 5
    spacing_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=10)] = 0.2
    per_second: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 500.0
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=30)] = 2.0
    stream_packets: Annotated[int, msgspec.Meta(ge=2, le=10000)] = 200
    stream_spacing_seconds: Annotated[float, msgspec.Meta(ge=0.001, le=1)] = 0.02
    stream_packet_bytes: Annotated[int, msgspec.Meta(ge=260, le=1400)] = 260
    one_way: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [target.name for target in self.targets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(say(f"对象 '{name}' 不止一个", f"there is more than one target '{name}'"))
        for used in self._used():
            if used not in names:
                raise ValueError(say(f"没有名为 '{used}' 的对象", f"there is no target '{used}'"))
        self._check_room()
        if self.key is None and any(target.kind == "stream" and target.key is None for target in self.targets):
            raise ValueError(say("有 stream 对象时须写 key", "a stream needs a key to be given"))

    def _check_room(self) -> None:
        """Raises ValueError when a round cannot hold its streams: one far end that is dead would cost all targets theirs."""
        room = min(self.deadline_seconds, self.interval_seconds)
        if self._streams_seconds() > room:
            text = f"一轮放不下 {room:g} 秒内的 stream 对象，请放宽 deadline_seconds 与 interval_seconds"
            english = f"a round of {room:g} s has no room for its streams; raise deadline_seconds and interval_seconds"
            raise ValueError(say(text, english))
        for target in self.targets:
            if target.throughput and self._round_seconds(target.throughput) > room:
                text = f"'{target.name}'：一轮放不下 throughput 的 seconds，请放宽 deadline_seconds 与 interval_seconds"
                english = f"'{target.name}': a round has no room for throughput's seconds; raise deadline_seconds and interval_seconds"
                raise ValueError(say(text, english))

    def _streams_seconds(self) -> float:
        """How long all streams may take when no far end answers."""
        return self._sending_seconds() + self._batches() * self.timeout_seconds

    def _round_seconds(self, wanted: Throughput) -> float:
        """How long a round with a transfer may take: when that stalls, or when in every batch of streams a far end is dead."""
        return self._sending_seconds() + max(self._batches(), 2) * self.timeout_seconds + wanted.seconds

    def _sending_seconds(self) -> float:
        return self._batches() * self.stream_packets * self.stream_spacing_seconds

    def _batches(self) -> int:
        return -(-sum(target.kind == "stream" for target in self.targets) // STREAMS_AT_ONCE)

    def _used(self) -> Sequence[str]:
        routes = [name for line in self.lines.values() for route in line.routes for name in route.targets]
        fallbacks = [name for line in self.lines.values() for name in line.fallback]
        return [*routes, *fallbacks, *(name for one in self.segments.values() for name in (*one.paths, *one.gateways))]


class Source:
    """All targets of one agent, once a round."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._probe = surroundings.asset
        self._root = surroundings.root
        self._keys: dict[str, bytes] = {}
        self._requests: dict[str, Callable[[], Awaitable[float | str]]] = {}
        self._reasons: dict[str, str] = {}
        self._apart: set[str] = set()
        self._clock, self._monotonic = surroundings.clock, surroundings.monotonic
        self._measured_at: dict[str, float] = {}
        self._refused: set[str] = set()

    async def open(self) -> None:
        """Read keys and certificates. Raises SourceError for one that cannot be used."""
        config = self._config
        secrets_of = {target.name: target.key or config.key for target in self._of_kind("stream")}
        self._keys = {name: read_key(secret) for name, secret in secrets_of.items() if secret}
        self._requests = {
            target.name: self._request(target)
            for target in self._config.targets
            if target.kind in ("tcp", "http", "dns")
        }

    async def collect(self) -> list[Reading]:
        """One round; a silent target is no error. Raises Incomplete with all but the echoes without the right to send them."""
        config = self._config
        self._reasons.clear()
        pinged, asked, streamed = await asyncio.gather(self._try_ping(), self._ask(), self._stream())
        refusal = pinged if isinstance(pinged, SourceError) else None
        found: Mapping[str, Fields] = {**({} if isinstance(pinged, SourceError) else pinged), **asked, **streamed}
        await self._measure_throughput(found)  # after the others, which it would disturb
        readings = [
            Reading(
                "path_probe",
                found[target.name],
                {"target": target.name, "probe": self._probe},
                remark=self._explain(target, found[target.name]),
            )
            for target in config.targets
            if target.name in found
        ]
        if refusal:  # lines and segments may rest on echoes: nothing is said about them
            raise Incomplete(str(refusal), readings, is_partly=True) from refusal
        live = {name for name, fields in found.items() if fields["is_reachable"]}
        return [
            *readings,
            *read_services(config.targets, self._probe, found),
            *read_witnesses(config.targets, found),
            *read_lines(config.lines, live, self._root),
            *read_segments(config.segments, live),
        ]

    async def close(self) -> None:
        """Nothing is kept open between rounds."""

    def _explain(self, target: Target, fields: Fields) -> str:
        """Why a target is not reachable; '' when it is."""
        if fields["is_reachable"]:
            return ""
        why = self._reasons.get(target.name) or say("没有应答", "no answer")
        where = target.url or ":".join(filter(None, (target.address, str(target.port or ""))))
        return say(f"{target.name}({where}) 不可达：{why}", f"{target.name} ({where}) is not reachable: {why}")

    def _of_kind(self, kind: Kind) -> list[Target]:
        return [target for target in self._config.targets if target.kind == kind]

    async def _try_ping(self) -> dict[str, Fields] | SourceError:
        try:
            return await self._ping()
        except SourceError as error:
            return error

    async def _ping(self) -> dict[str, Fields]:
        targets, config = self._of_kind("icmp"), self._config
        if not targets:
            return {}
        pings = Pings([target.address for target in targets], config.packets, secrets.randbits(63))
        await pings.run(config.spacing_seconds, config.timeout_seconds, config.per_second)
        tallies = zip(targets, pings.tallies, strict=True)
        return {target.name: of_echoes(tally, config.packets) for target, tally in tallies}

    async def _ask(self) -> dict[str, Fields]:
        places = asyncio.Semaphore(AT_ONCE)

        async def ask(name: str, request: Callable[[], Awaitable[float | str]]) -> Fields:
            async with places:
                seconds = await request()
            if isinstance(seconds, str):
                self._reasons[name] = seconds
                return {"is_reachable": False}
            return {"is_reachable": True, "rtt_seconds": seconds}

        found = await asyncio.gather(*(ask(name, request) for name, request in self._requests.items()))
        return dict(zip(self._requests, found, strict=True))

    async def _stream(self) -> dict[str, Fields]:
        places = asyncio.Semaphore(STREAMS_AT_ONCE)
        targets = self._of_kind("stream")

        async def stream(target: Target) -> Fields:
            config = self._config
            one = Stream(self._keys[target.name], self._probe, config.stream_packets, config.stream_packet_bytes)
            port = target.port or REFLECTOR_PORT
            async with places:
                try:
                    streamed = await one.run(
                        target.address, port, config.stream_spacing_seconds, config.timeout_seconds
                    )
                except OSError as error:  # no route, or a rule of our own: not reachable from here
                    self._reasons[target.name] = explain_system(error)
                    return {"is_reachable": False, "loss_ratio": 1.0}
            self._tell_of_clocks(target.name, streamed)
            return of_stream(streamed, config.one_way)

        return dict(zip((one.name for one in targets), await asyncio.gather(*map(stream, targets)), strict=True))

    async def _measure_throughput(self, found: Mapping[str, Fields]) -> None:
        """Of the first target for which it is time: one a round. What cannot be measured is said once."""
        due = [
            (target, target.throughput)
            for target in self._of_kind("stream")
            if target.throughput and _is_counted(found[target.name]) and self._is_due(target.name, target.throughput)
        ]
        for target, wanted in due[:1]:
            self._measured_at[target.name] = self._monotonic()
            place, name = (target.address, target.port or REFLECTOR_PORT), self._probe
            try:
                sent = await send(self._keys[target.name], name, place, wanted, self._config.timeout_seconds)
            except (SourceError, OSError) as error:
                self._tell_of_refusal(target.name, explain(error))
            else:
                self._refused.discard(target.name)
                found[target.name]["throughput_bits_per_second"] = sent

    def _is_due(self, name: str, wanted: Throughput) -> bool:
        before = self._measured_at.get(name)
        is_time = before is None or self._monotonic() - before >= wanted.every_seconds
        return is_time and is_within(wanted.hours, minute_of_day(self._clock()))

    def _tell_of_refusal(self, name: str, why: str) -> None:
        if name not in self._refused:
            self._refused.add(name)
            _log.warning(say(f"{name} 的吞吐无法测量：{why}", f"the throughput of {name} cannot be measured: {why}"))

    def _request(self, target: Target) -> Callable[[], Awaitable[float | str]]:
        """What one tcp, http or dns target is asked."""
        timeout_seconds = self._config.timeout_seconds
        work: Callable[[], Awaitable[bool]]
        if target.kind == "http":
            url = read_url(target.url)
            context = tls_of(url, target.ca)
            work = partial(get, url, target.statuses, context)
        elif target.kind == "dns":
            ask = _dns_asker()
            work = partial(ask, target.address, target.port or 53, target.ask, timeout_seconds)
        else:
            work = partial(connect, target.address, target.port or 0)
        return partial(timed, work, timeout_seconds)

    def _tell_of_clocks(self, name: str, streamed: Streamed) -> None:
        """Say once that `one_way` cannot be had: a packet that arrives before it was sent."""
        if not self._config.one_way or name in self._apart or not _clocks_apart(streamed):
            return
        self._apart.add(name)
        text = say(
            f"{name}：两端时钟相差超过时延，单向时延改取往返的一半；请校准两端时钟",
            f"{name}: the two clocks are further apart than the delay, so half the round trip counts; set both clocks",
        )
        _log.warning(text)


def of_echoes(tally: Tally, sent: int) -> Fields:
    """What the echoes of one target say. Jitter and order are those of the round trip."""
    fields: Fields = {"is_reachable": tally.received > 0, "loss_ratio": tally.loss_ratio(sent)}
    if tally.received:
        fields |= {
            "rtt_seconds": tally.delay_seconds,
            "one_way_delay_seconds": tally.delay_seconds / 2,
            "reorder_ratio": tally.reorder_ratio,
            "duplicate_ratio": tally.duplicate_ratio,
        }
    if tally.received > 1:
        fields["jitter_seconds"] = tally.jitter_seconds
    return fields


def of_stream(streamed: Streamed, one_way: bool) -> Fields:
    """What one stream says: the worse of its directions. Without the far end's count only that it answers is known."""
    if streamed.out is None:
        fields: Fields = {"is_reachable": streamed.back.received > 0}
        return fields if streamed.back.received else fields | {"loss_ratio": 1.0}
    directions = [(streamed.out, streamed.sent), (streamed.back, streamed.returned)]
    fields = {"is_reachable": streamed.back.received > 0, "loss_ratio": max(_loss(*one) for one in directions)}
    if not streamed.back.received:
        return fields
    delay = streamed.rtt_seconds / 2
    if one_way and not _clocks_apart(streamed):
        delay = max(streamed.out.delay_seconds, streamed.back.delay_seconds)
    return fields | {
        "rtt_seconds": streamed.rtt_seconds,
        "one_way_delay_seconds": delay,
        "jitter_seconds": max(one.jitter_seconds for one, _ in directions),
        "reorder_ratio": max(one.reordered / one.received for one, _ in directions),
        "duplicate_ratio": max(min(1.0, one.duplicates / one.received) for one, _ in directions),
    }


def _is_counted(fields: Fields) -> bool:
    """Whether a stream came back and the far end told its count: the path was there until the end."""
    return bool(fields["is_reachable"]) and "loss_ratio" in fields


def _loss(direction: Direction, sent: int) -> float:
    return 1 - direction.received / sent if sent else 1.0


def _clocks_apart(streamed: Streamed) -> bool:
    """Whether a packet seems to have arrived before it was sent."""
    return streamed.out is not None and min(streamed.out.least_delay_seconds, streamed.back.least_delay_seconds) < 0


def _dns_asker() -> Callable[[str, int, str, float], Awaitable[bool]]:
    """The question to a DNS server. Raises SourceError without the package."""
    try:
        from agent.sources._dns import ask
    except ModuleNotFoundError as error:
        text = say(
            "dns 对象需要 Python 包 dnspython：pip install 'infravitals[probe]'",
            "dns targets need the package dnspython: pip install 'infravitals[probe]'",
        )
        raise SourceError(text) from error
    return ask
