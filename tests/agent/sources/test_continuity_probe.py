"""continuity_probe on real sockets of this machine: a server that goes, comes back, hangs, moves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from servers import Authority, Handler, free_port, tcp_server, until_async

from agent.documents import find_mistakes, read_document
from agent.errors import NoData, SourceError
from agent.language import speaking as speaking_language
from agent.sources import Incomplete, Reading, Surroundings
from agent.sources.continuity_probe import Config, Source


def speaking(banner: str) -> Handler:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner.encode())
        writer.close()

    return speak


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def configured(port: int, *, timeout_seconds: float = 60.0, **probe: object) -> Config:
    """A token of somebody who is there may take its time, longer than a configuration lets it: a busy machine is no outage."""
    written = {"service": "his", "kind": "tcp", "addresses": [f"127.0.0.1:{port}"], **probe}
    config = msgspec.convert({"probes": {"his-path": written}, "period_seconds": 0.1, "sustained": 2}, Config)
    return msgspec.structs.replace(config, timeout_seconds=timeout_seconds)


class Rounds:
    """Collects again and again and keeps every reading that came."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.readings: list[Reading] = []

    async def collect(self) -> None:
        found = await self.source.collect()
        assert undeclared("continuity_probe", found) == []
        self.readings += found

    def named(self, name: str) -> list[dict[str, object]]:
        return [dict(reading.fields) for reading in self.readings if reading.name == name]

    async def until_up(self, is_up: bool) -> None:
        async def is_so() -> bool:
            self.readings = [reading for reading in self.readings if reading.name != "service_probe"]
            await self.collect()
            return bool(self.named("service_probe")) and self.named("service_probe")[-1]["is_up"] is is_up

        await until_async(is_so)

    async def until_out(self) -> None:
        [stream] = self.source._streams.values()
        await until_async(lambda: stream.is_out)

    async def until_steady(self) -> None:
        [stream] = self.source._streams.values()
        await until_async(lambda: stream.is_up and not stream.is_timing)

    async def until_told(self, name: str, count: int = 1) -> list[dict[str, object]]:
        async def is_told() -> bool:
            await self.collect()
            return len(self.named(name)) >= count

        await until_async(is_told)
        return self.named(name)


@asynccontextmanager
async def probing(config: Config, state: Path | None = None) -> AsyncIterator[Rounds]:
    source = Source(config, Surroundings("his-probe", state_directory=state))
    await source.open()
    try:
        yield Rounds(source)
    finally:
        await source.close()


async def test_outage_of_a_tcp_service_is_told_once_when_it_has_ended() -> None:
    port = free_port()
    async with probing(configured(port)) as rounds:
        async with tcp_server(speaking(""), port):
            await rounds.until_up(True)
        await rounds.until_out()
        assert rounds.named("outage") == []
        async with tcp_server(speaking(""), port):
            [outage] = await rounds.until_told("outage")
            await rounds.until_up(True)
    assert len(rounds.named("outage")) == 1
    duration = outage["duration_seconds"]
    assert isinstance(duration, float) and duration > 0
    assert outage["is_automatic"] is True
    assert "lost_tokens_count" not in outage, "nothing keeps TCP tokens"
    assert rounds.named("drill") == []


@pytest.mark.parametrize("step_seconds", [60.0, -60.0])
async def test_clock_that_is_set_by_a_minute_makes_no_outage_longer_or_shorter(step_seconds: float) -> None:
    port, shift = free_port(), [0.0]
    source = Source(configured(port), Surroundings("his-probe", clock=lambda: time.time() + shift[0]))
    await source.open()
    try:
        rounds = Rounds(source)
        async with tcp_server(speaking(""), port):
            await rounds.until_up(True)
        await rounds.until_out()
        shift[0] = step_seconds
        async with tcp_server(speaking(""), port):
            [outage] = await rounds.until_told("outage")
        assert 0 < float(str(outage["duration_seconds"])) < 30
    finally:
        await source.close()


async def test_service_that_moves_is_a_failover_and_its_return_passes() -> None:
    port = free_port()
    async with probing(configured(port, banner=True)) as rounds:
        for banner in ("db-a\n", "db-b\n", "db-a\n"):
            async with tcp_server(speaking(banner), port):
                await rounds.until_steady()
            await rounds.until_out()
        async with tcp_server(speaking("db-a\n"), port):
            drills = await rounds.until_told("drill", 3)
    assert [drill.get("is_passed") for drill in drills] == [None, None, True]
    assert drills[0]["is_planned"] is False and drills[0]["rto_seconds"]
    assert "rpo_seconds" not in drills[0]


async def test_server_that_accepts_and_never_answers_is_down() -> None:
    port = free_port()
    async with tcp_server(stay_silent, port), probing(configured(port, banner=True, timeout_seconds=0.3)) as rounds:
        await rounds.until_up(False)


HEAD = "HTTP/1.1 {} x\r\nX-Served-By: web-1\r\nContent-Length: 3\r\n\r\n"


def serving(status: int, body: str = "his") -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD.format(status).encode() + body.encode())
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("handler", "is_up"),
    [
        (serving(200), True),
        (serving(302), True),
        (serving(503), False),
        (serving(200, "sorry"), False),
        (speaking("garbage\r\n\r\n"), False),
        (speaking("x" * 200_000), False),
        (speaking(""), False),
    ],
)
async def test_http_is_up_only_with_a_good_status_and_the_agreed_words(handler: Handler, is_up: bool) -> None:
    port = free_port()
    http = {"kind": "http", "path": "/login", "expect": "his", "identity_header": "X-Served-By"}
    async with tcp_server(handler, port), probing(configured(port, **http)) as rounds:
        [first, *_] = await rounds.until_told("service_probe")
        assert first["is_up"] is is_up
        if is_up:
            assert rounds.source._streams["his-path"]._watch.state.served_by == "web-1"


async def test_outage_that_ended_while_nobody_collected_is_told_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    async with probing(configured(port), tmp_path) as rounds:
        async with tcp_server(speaking(""), port):
            await rounds.until_up(True)
        await rounds.until_out()
    async with tcp_server(speaking(""), port), probing(configured(port), tmp_path) as rounds:
        assert len(await rounds.until_told("outage")) == 1
    async with tcp_server(speaking(""), port), probing(configured(port), tmp_path) as rounds:
        await rounds.until_up(True)
        assert rounds.named("outage") == [], "told once"


async def test_damaged_memory_is_no_reason_to_stop(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "continuity").mkdir()
    (tmp_path / "continuity/his-path.json").write_text("{")
    async with tcp_server(speaking(""), port), probing(configured(port), tmp_path) as rounds:
        await rounds.until_up(True)


async def test_nothing_configured_is_no_trouble() -> None:
    async with probing(Config()) as rounds:
        with pytest.raises(NoData):
            await rounds.source.collect()


async def test_certificate_that_cannot_be_read_is_one_sentence() -> None:
    config = configured(1, kind="http", tls={"ca": "/nowhere/ca.pem"})
    with pytest.raises(SourceError, match=r"/nowhere/ca\.pem"):
        await Source(config, Surroundings("his-probe")).open()


async def test_certificate_that_cannot_be_read_costs_its_own_probe_only(tmp_path: Path) -> None:
    """Its tokens begin once the file is there; those of the other go on all the time."""
    port, authority = free_port(), tmp_path / "ca.pem"
    address = {"addresses": [f"127.0.0.1:{port}"], "service": "his"}
    probes = {"web": {"kind": "http", "tls": {"ca": str(authority)}, **address}, "path": {"kind": "tcp", **address}}
    config = msgspec.convert({"probes": probes, "period_seconds": 0.1}, Config)
    source = Source(msgspec.structs.replace(config, timeout_seconds=60.0), Surroundings("his-probe"))
    async with tcp_server(speaking(""), port):
        await source.open()
        try:
            with speaking_language("en"), pytest.raises(Incomplete, match=r"^web: .*ca\.pem") as caught:
                await source.collect()
            assert [(one.tags["probe"], one.fields["is_up"]) for one in caught.value.readings] == [("path", True)]
            going_on = source._streams["path"]
            authority.write_text(Authority(tmp_path / "authority", "x").certificate.read_text())
            await source.open()
            assert source._streams["path"] is going_on
            told: set[str] = set()

            async def are_both_told() -> bool:
                told.update(one.tags["probe"] for one in await source.collect())
                return told == {"web", "path"}

            await until_async(are_both_told)
        finally:
            await source.close()


def test_probe_with_parts_that_do_not_fit_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="database"):
        configured(1, kind="mysql")
    with pytest.raises(msgspec.ValidationError, match="addresses"):
        configured(1, addresses=["a:1", "b:2"])


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("addresses", ["10.1.2.100"], "host:port"),
        ("addresses", [], "host:port"),
        ("table", "tokens; DROP", "lower case"),
        ("path", "login", "begins with /"),
    ],
)
def test_what_a_probe_may_not_say_is_refused_in_words(tmp_path: Path, key: str, value: object, wanted: str) -> None:
    probe = {"service": "his", "kind": "tcp", "addresses": ["10.1.2.100:80"], key: value}
    file = tmp_path / "probes.yaml"
    file.write_text(msgspec.json.encode({"probes": {"his-web": probe}}).decode())
    document = read_document(file)
    with speaking_language("en"):
        [mistake] = find_mistakes(document, document.value, Config)
    assert wanted in mistake.text and "regex" not in mistake.text
