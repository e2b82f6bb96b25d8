"""Whether a service works, by numbered tokens through the path that clinicians use, and what its outages cost.

Measures: service_probe[service, probe]: is_up (of the newest token), latency_seconds, sent_count, acknowledged_count, failed_count;
outage[service]: one point when it has ended; drill[service, drill]: one point for every drill that `infravitals drill` has finished (is_planned 1), one
for every move to another server that was seen without a drill (is_planned 0), and one more, is_passed, when the service returned.
Needs: a way to the service. TCP and HTTP: nothing more. PostgreSQL, MySQL: the extra `databases`, and a small table of its own
(see `sample`), where tokens are written, read back after an outage, and pruned.
Reference: RTO and RPO as in GB/T 20988; RFC 9293 (SYN retransmission, hence the timeout below 1 s).

An outage is from the sending of the first failed token to the answer to the first of `sustained` good ones. An outage that
was over within `automatic_within_seconds` ended without a person: nobody sees it, logs in and acts in that time (our own
judgement); of a longer one the probe does not know who ended it and does not say.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, ClassVar

import msgspec

from agent.continuity.outages import Outage, Rule
from agent.continuity.prober import Pace, Steady
from agent.continuity.settings import Id, Probe
from agent.continuity.stream import Away, Finding, Stream
from agent.drills.records import Record, is_in_drill, read_records
from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Incomplete, Reading, SourceConfig, Surroundings

FIRST_TOKEN_SECONDS = 3.0

GRANTS = """-- PostgreSQL, for probes of that kind
CREATE ROLE infravitals LOGIN PASSWORD '…' CONNECTION LIMIT 16;
CREATE TABLE infravitals_token (stream text, number bigint, sent_at double precision, PRIMARY KEY (stream, number));
GRANT SELECT, INSERT, DELETE ON infravitals_token TO infravitals;
-- MySQL and MariaDB
CREATE USER infravitals@'%' IDENTIFIED BY '…';
CREATE TABLE infravitals_token (stream varchar(64), number bigint, sent_at double, PRIMARY KEY (stream, number)) ENGINE=InnoDB;
GRANT SELECT, INSERT, DELETE ON infravitals_token TO infravitals@'%';"""


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """probes: by name. period_seconds, timeout_seconds: of tokens; the timeout stays below 1 s, see above."""

    probes: dict[Id, Probe] = msgspec.field(default_factory=dict)
    period_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 1.0
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.05, lt=1)] = 0.9
    failures: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    sustained: Annotated[int, msgspec.Meta(ge=1, le=100)] = 3
    automatic_within_seconds: Annotated[float, msgspec.Meta(ge=0, le=300)] = 20.0


class Source:
    """All probes of this agent; each sends on its own, so that a path that hangs delays no other."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._folder = surroundings.state_directory and surroundings.state_directory / "continuity"
        self._clock = Steady(surroundings.clock, surroundings.monotonic)
        self._drills = surroundings.state_directory and surroundings.state_directory / "drills"
        self._told: list[str] = []
        self._streams: dict[str, Stream] = {}
        self._unusable: dict[str, str] = {}

    async def open(self) -> None:
        """Start sending where it was not begun yet. Raises SourceError when no path can be used at all, such as a certificate that cannot be read."""
        self._unusable = {}
        pace = Pace(self._config.period_seconds, self._config.timeout_seconds)
        rule = Rule(self._config.failures, self._config.sustained)
        for name, probe in self._config.probes.items():
            if name in self._streams:
                continue
            file = self._folder / f"{name}.json" if self._folder else None
            stream = Stream(name, partial(probe.make_reach, name), pace, rule, self._clock, file)
            try:
                stream.start()
                self._streams[name] = stream
            except SourceError as error:
                self._unusable[name] = str(error)
        if self._unusable and not self._streams:
            raise SourceError(self._tell_mistakes())

    async def collect(self) -> list[Reading]:
        """One service_probe per probe, and what ended since the last round.

        Raises NoData without probes, Incomplete where our own asking is wrong: of that service nobody knows anything.
        """
        if not self._streams:
            raise NoData(say("没有配置 probes", "no probes are configured"))
        await asyncio.gather(*(stream.wait_for_token(FIRST_TOKEN_SECONDS) for stream in self._streams.values()))
        readings = [reading for name, stream in self._streams.items() for reading in self._read_tally(name, stream)]
        found = await asyncio.gather(*(stream.take_findings() for stream in self._streams.values()))
        for name, findings in zip(self._streams, found, strict=True):
            for finding in findings:
                readings += self._read_finding(name, finding)
            self._streams[name].keep()
        readings += self._read_drills()
        if not any(stream.is_timing for stream in self._streams.values()):
            self._clock.correct()
        if mistakes := self._tell_mistakes():
            raise Incomplete(mistakes, readings, is_partly=True)
        return readings

    def _tell_mistakes(self) -> str:
        mistakes = self._unusable | {name: one.mistake for name, one in self._streams.items() if one.mistake}
        return say("；", "; ").join(say(f"{name}：{why}", f"{name}: {why}") for name, why in mistakes.items())

    def _is_in_drill(self, service: str, at: float) -> bool:
        return self._drills is not None and is_in_drill(self._drills, service, at)

    def _read_drills(self) -> list[Reading]:
        """The drills that `infravitals drill` has finished and nobody has told of; told means handed over in a round before."""
        if self._drills is None:
            return []
        for told in self._told:
            with contextlib.suppress(OSError):  # told again then, which changes nothing
                (self._drills / f"{told}.reported").touch()
        records = [one for one in read_records(self._drills) if not (self._drills / f"{one.drill}.reported").exists()]
        self._told = [record.drill for record in records]
        return [_read_record(record) for record in records]

    async def close(self) -> None:
        """Stop sending; what is not handed over yet waits in the state directory."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.keep()
        await asyncio.gather(*(stream.stop() for stream in streams.values()))

    def _read_tally(self, name: str, stream: Stream) -> list[Reading]:
        tally = stream.take_tally()
        if not tally.sent or stream.is_up is None:  # before the first token, and while nobody knows
            return []
        fields: dict[str, Value] = {
            "is_up": stream.is_up,
            "sent_count": tally.sent,
            "acknowledged_count": tally.good,
            "failed_count": tally.sent - tally.good,
        }
        if tally.good:
            fields["latency_seconds"] = tally.latency_seconds / tally.good
        remark = say(f"{name} 失败：{stream.reason}", f"{name} fails: {stream.reason}") if not stream.is_up else ""
        tags = {"service": self._config.probes[name].service, "probe": name}
        return [Reading("service_probe", fields, tags, remark=remark)]

    def _read_finding(self, name: str, finding: Finding) -> list[Reading]:
        outage, loss, service = finding.outage, finding.loss, self._config.probes[name].service
        fields: dict[str, Value] = {"duration_seconds": outage.duration_seconds}
        if outage.duration_seconds <= self._config.automatic_within_seconds and not outage.is_blurred:
            fields["is_automatic"] = True
        if loss is not None:
            fields["lost_tokens_count"] = len(loss.lost)
        at = round(outage.ended_at * 1000)
        readings = [Reading("outage", fields, {"service": service}, timestamp=at)] if outage.failed else []
        if outage.is_moved and not self._is_in_drill(service, outage.began_at):
            moved = {"rto_seconds": outage.duration_seconds, "is_planned": False, **fields}
            del moved["duration_seconds"]
            if loss is not None:
                moved["rpo_seconds"] = loss.span_seconds
            drill = _name_event(outage)
            readings.append(Reading("drill", moved, {"service": service, "drill": drill}, timestamp=at))
            readings += _read_return(self._streams[name], outage, service, drill, at)
        return readings


def _read_return(stream: Stream, outage: Outage, service: str, drill: str, at: int) -> list[Reading]:
    """A service that moved away and is served by its first server again has passed: it can switch both ways."""
    away = stream.away
    if away is None:
        stream.away = Away(outage.served_before, drill)
    elif away.home == outage.served_after:
        stream.away = None
        return [Reading("drill", {"is_passed": True}, {"service": service, "drill": away.event}, timestamp=at)]
    return []


def _read_record(record: Record) -> Reading:
    fields: dict[str, Value] = {
        "is_planned": True,
        "is_passed": record.is_passed,
        "duration_seconds": max(0.0, record.ended_at - record.began_at),
        "sent_count": record.sent,
        "acknowledged_count": record.acknowledged,
        "token_log_digest": record.token_log_digest,
        "plan_digest": record.plan_digest,
    }
    if record.rto_seconds is not None:
        fields["rto_seconds"] = record.rto_seconds
    if record.rpo_seconds is not None and record.lost is not None:
        fields |= {"rpo_seconds": record.rpo_seconds, "lost_tokens_count": len(record.lost)}
    if record.is_automatic is not None:
        fields["is_automatic"] = record.is_automatic
    tags = {"service": record.service, "drill": record.drill}
    return Reading("drill", fields, tags, timestamp=round(record.ended_at * 1000))


def _name_event(outage: Outage) -> str:
    return datetime.fromtimestamp(outage.began_at, UTC).strftime("seen-%Y%m%dt%H%M%S").lower()
