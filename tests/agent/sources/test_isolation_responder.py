"""isolation_responder on the loopback: who gets an answer, what is counted, what it does when a port is taken."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from declared import undeclared
from hypothesis import given, settings
from servers import free_port, until_async

from agent.broker import Secret
from agent.errors import SourceError
from agent.sources import Reading, Surroundings
from agent.sources._proof import Keys, Message, new_nonce, seal, unseal
from agent.sources._witness import MEMORY_SECONDS, MOST_REMEMBERED, Witness
from agent.sources.isolation_responder import Config, Source, read_endpoint

KEY = b"a key of this test only"


@pytest.fixture
def key(tmp_path: Path) -> Secret:
    path = tmp_path / "probe.key"
    path.write_bytes(KEY + b"\n")
    return Secret(file=str(path))


@pytest.fixture
async def responder(key: Secret) -> AsyncIterator[tuple[Source, Config]]:
    port = free_port()
    listen = (f"tcp/{port}", f"udp/{port}")
    config = Config(key=key, listen=listen, addresses=("127.0.0.1", "::1"), control_port=free_port())
    source = Source(config, Surroundings("medical-probe"))
    await source.open()
    yield source, config
    await source.close()


async def say(port: int, *lines: bytes) -> list[bytes]:
    """What comes back on one connection, line by line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for line in lines:
        writer.write(line)
        try:
            answers.append(await asyncio.wait_for(reader.readline(), 60))
        except ConnectionError:  # hung up on before all that we said was read, which is no word either
            answers.append(b"")
    writer.close()
    return answers


async def fields(source: Source) -> dict[str, object]:
    [reading] = await source.collect()
    assert undeclared("isolation_responder", [reading]) == []
    return dict(reading.fields)


async def test_probe_with_the_key_is_answered_and_testified(responder: tuple[Source, Config]) -> None:
    source, config = responder
    nonce, other, challenge = new_nonce(), new_nonce(), new_nonce()
    port = int(config.listen[0].split("/")[1])
    [answer] = await say(port, seal(KEY, "probe", "his-db-1", config.listen[0], nonce))
    assert unseal(KEY, answer) == Message("answer", (nonce,))
    here, saw = await say(
        config.control_port,
        seal(KEY, "hello", "his-db-1", challenge),
        seal(KEY, "ask", "his-db-1", challenge, f"{nonce},{other}"),
    )
    heard = unseal(KEY, here)
    assert heard is not None and heard.kind == "here"
    expected = {f"{base}/{port}" for base in ("tcp", "tcp6", "udp", "udp6")}
    control = {f"{base}/{config.control_port}" for base in ("tcp", "tcp6")}
    assert set(heard.words[3].split(",")) == expected | control
    assert unseal(KEY, saw) == Message("saw", ("medical-probe", heard.words[1], challenge, nonce))
    assert await fields(source) == {"is_listening": True, "ways_count": 6, "seen_count": 1, "strangers_count": 0}
    assert (await fields(source))["seen_count"] == 0


async def test_stranger_gets_no_word_and_is_counted(responder: tuple[Source, Config]) -> None:
    source, config = responder
    port = int(config.listen[0].split("/")[1])
    forged = seal(b"another key altogether", "probe", "his-db-1", "tcp/22", new_nonce())
    assert await say(port, b"GET / HTTP/1.1\r\n") == [b""]
    assert await say(port, forged) == [b""]
    assert await say(config.control_port, b"x" * 200_000 + b"\n") == [b""]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(forged, ("127.0.0.1", port))

    async def strangers() -> bool:
        counted.append(await fields(source))
        return sum(int(str(each["strangers_count"])) for each in counted) >= 3

    counted: list[dict[str, object]] = []
    await until_async(strangers)
    assert all(each["seen_count"] == 0 for each in counted)


async def test_connection_that_is_being_served_ends_with_the_responder(responder: tuple[Source, Config]) -> None:
    source, config = responder
    reader, writer = await asyncio.open_connection("127.0.0.1", config.control_port)
    challenge = new_nonce()
    writer.write(seal(KEY, "hello", "his-db-1", challenge))
    assert await reader.readline()
    await source.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await reader.read() == b""
    writer.close()


async def test_datagram_is_answered_by_no_more_bytes_than_came(responder: tuple[Source, Config]) -> None:
    _, config = responder
    line = seal(KEY, "probe", "a", "udp/9", new_nonce())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(("127.0.0.1", int(config.listen[1].split("/")[1])))
        sender.send(line)
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sender, 2048), 60)
    assert 0 < len(answer) <= len(line)


async def test_port_that_is_taken_is_said_once_and_not_testified(key: Secret, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, caplog.at_level(logging.WARNING):
        taken = f"tcp/{other.getsockname()[1]}"
        config = Config(key=key, listen=(taken,), addresses=("127.0.0.1",), control_port=free_port())
        source = Source(config, Surroundings("medical-probe"))
        await source.open()
        await source.open()
        assert await fields(source) == {"is_listening": False, "ways_count": 1, "seen_count": 0, "strangers_count": 0}
        await source.close()
    assert len([line for line in caplog.messages if taken in line]) == 1


async def test_without_a_control_port_nobody_could_ask(key: Secret) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = Config(key=key, addresses=("127.0.0.1",), control_port=other.getsockname()[1])
        with pytest.raises(SourceError, match=r"control port|控制端口"):
            await Source(config, Surroundings("medical-probe")).open()


@pytest.mark.parametrize("text", ["", "short"])
async def test_key_that_can_be_guessed_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "probe.key"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"16|probe\.key"):
        await Source(Config(key=Secret(file=str(path))), Surroundings("a")).open()


async def test_missing_key_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.key"):
        await Source(Config(key=Secret(file=str(tmp_path / "nowhere.key"))), Surroundings("a")).open()


def test_witness_forgets_what_is_old_and_what_is_too_much() -> None:
    now = 0.0
    witness = Witness(Keys(KEY), "medical-probe", lambda: now)

    def seen(*nonces: str) -> str:
        line = witness.hear(seal(KEY, "ask", "a", "c", ",".join(nonces)))
        message = unseal(KEY, line or b"")
        assert message is not None
        return message.words[3]

    witness.hear(seal(KEY, "probe", "a", "tcp/22", "first"))
    assert seen("first") == "first"
    now = MEMORY_SECONDS + 1
    witness.hear(seal(KEY, "probe", "a", "tcp/22", "second"))
    assert seen("first", "second") == "second"
    for number in range(MOST_REMEMBERED):
        witness.hear(seal(KEY, "probe", "a", "tcp/22", f"n{number}"))
    assert seen("second", "n0") == "n0"


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_whatever_arrives_is_a_stranger_and_no_crash(data: bytes, place: int, byte: int) -> None:
    witness = Witness(Keys(KEY), "medical-probe", lambda: 0.0)
    line = bytearray(seal(KEY, "probe", "a", "tcp/22", "5" * 32))
    line[place % (len(line) - 1)] ^= byte
    question = bytearray(bytes(12) + b"\x20" + b"5" * 32 + b"\x20" + b"6" * 32 + b"\0" + bytes(4))
    question[place % len(question)] ^= byte
    for arrived in (data, bytes(line), bytes(question)):
        answer = witness.hear(arrived)
        assert answer is None or byte == 0
    assert witness.strangers_count == 3 - (byte == 0)


@pytest.mark.parametrize(
    ("text", "endpoint"), [("192.0.2.1:7177", ("192.0.2.1", 7177)), ("[2001:db8::1]:80", ("2001:db8::1", 80))]
)
def test_endpoint_of_both_families(text: str, endpoint: tuple[str, int]) -> None:
    assert read_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["192.0.2.1", "his.example:80", "192.0.2.1:0", "192.0.2.1:99999", ":80"])
def test_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_endpoint(text)


def test_reading_is_declared() -> None:
    assert undeclared("isolation_responder", [Reading("isolation_responder", {"is_listening": True})]) == []
