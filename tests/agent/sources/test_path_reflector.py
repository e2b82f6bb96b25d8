"""path_reflector on the loopback: counts, returns the first copy only, and answers nobody without the key."""

import asyncio
import socket
from pathlib import Path

import pytest
from declared import undeclared
from servers import free_port, until_async

from agent.broker import Secret
from agent.errors import SourceError
from agent.sources import Surroundings
from agent.sources._proof import Keys, Message, new_nonce, seal, unseal
from agent.sources._stream import FORGET_SECONDS, MOST_STREAMS, Reflector
from agent.sources._throughput import BETWEEN_SECONDS, TOO_SOON, Receiver, Sender
from agent.sources.path_reflector import Config, Source

KEY = b"a key of this test only"
PAD = "x" * 140


def packet(stream: str, number: int, key: bytes = KEY) -> bytes:
    return seal(key, "packet", "consult-1", stream, str(number), "1000", PAD)


def stats(reflector: Reflector, stream: str) -> list[int]:
    message = unseal(KEY, reflector.hear(seal(KEY, "report", "consult-1", stream, "c", PAD), 0) or b"")
    assert message is not None and message.words[:2] == (stream, "c")
    return [int(word) for word in message.words[2:5]]


async def test_packet_comes_back_once_and_strangers_get_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    source = Source(
        Config(key=Secret(file=str(path)), port=free_port(), addresses=("127.0.0.1", "::1")), Surroundings("b")
    )
    await source.open()
    stream = new_nonce()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(("127.0.0.1", source._config.port))
        for line in (packet(stream, 0), packet(stream, 0), packet(stream, 1, b"another key altogether"), b"GET /"):
            sender.send(line)
        sender.send(packet(stream, 2))
        answers = []
        while len(answers) < 2:
            answers.append(await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sender, 2048), 10))
    words = [message.words for message in (unseal(KEY, answer) for answer in answers) if message]
    assert [(one[0], one[1], one[3]) for one in words] == [(stream, "0", "0"), (stream, "2", "1")]
    assert all(len(answer) <= len(packet(stream, 0)) for answer in answers)
    counted = []

    async def is_counted() -> bool:
        [reading] = await source.collect()
        assert undeclared("path_reflector", [reading]) == []
        counted.append((reading.fields["packets_count"], reading.fields["strangers_count"]))
        return sum(int(str(strangers)) for _, strangers in counted) == 2

    await until_async(is_counted)
    assert sum(int(str(packets)) for packets, _ in counted) == 3
    [after] = await source.collect()
    assert (after.fields["packets_count"], after.fields["strangers_count"]) == (0, 0)
    await source.close()


@pytest.mark.parametrize(("family", "asked"), [(socket.AF_INET, "127.0.0.9"), (socket.AF_INET6, "::1")])
async def test_answer_leaves_from_the_address_that_was_asked(tmp_path: Path, family: int, asked: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    source = Source(Config(key=Secret(file=str(path)), port=free_port()), Surroundings("b"))
    await source.open()
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        sender.sendto(packet(new_nonce(), 0), (asked, source._config.port))
        _, answered = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(sender, 2048), 10)
    await source.close()
    assert answered[0] == asked


async def test_port_that_is_taken_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        source = Source(Config(key=Secret(file=str(path)), port=port, addresses=("127.0.0.1",)), Surroundings("b"))
        with pytest.raises(SourceError, match=str(port)):
            await source.open()
        await source.close()


def test_reflector_forgets_old_streams_and_holds_no_more_than_it_may() -> None:
    now = 0.0
    reflector = Reflector(Keys(KEY), lambda: now)
    reflector.hear(packet("first", 0), 2000)
    assert stats(reflector, "first") == [1, 0, 0]
    now = FORGET_SECONDS + 1
    reflector.hear(packet("second", 0), 2000)
    assert stats(reflector, "first") == [0, 0, 0]
    for number in range(MOST_STREAMS):
        reflector.hear(packet(f"s{number}", 0), 2000)
    assert stats(reflector, "second") == [0, 0, 0]
    assert stats(reflector, "s0") == [1, 0, 0]


def test_stolen_key_of_one_prober_is_worth_nothing_for_another() -> None:
    mine, stolen = b"the key of consult-1", b"the key of consult-2, stolen"
    reflector = Reflector(Keys(None, {"consult-1": mine, "consult-2": stolen}), lambda: 0.0)
    stream = new_nonce()
    assert reflector.hear(seal(stolen, "packet", "consult-1", stream, "0", "1", PAD), 2) is None
    assert reflector.strangers_count == 1
    assert unseal(mine, reflector.hear(seal(mine, "packet", "consult-1", stream, "0", "1", PAD), 2) or b"")
    other = unseal(stolen, reflector.hear(seal(stolen, "report", "consult-2", stream, "c", PAD), 3) or b"")
    own = unseal(mine, reflector.hear(seal(mine, "report", "consult-1", stream, "c", PAD), 3) or b"")
    assert other is not None and own is not None
    assert (other.words[2], own.words[2]) == ("0", "1")  # packets that the far end counted for each


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def carried(receiver: Receiver, asked: tuple[int, float], sent_bytes: int) -> tuple[Message | None, ...]:
    """What a receiver says to a transfer that is asked for, and to so many bytes."""
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(seal(KEY, "transfer", "consult-1", "a-number", str(asked[0]), str(asked[1])))
        answer = unseal(KEY, await reader.readline())
        if answer is None or answer.kind != "accept":
            writer.close()
            return (answer,)
        writer.write(bytes(sent_bytes))
        writer.write_eof()
        last = await reader.readline()
        writer.close()
        return (answer, unseal(KEY, last) if last else None)


async def test_receiver_holds_a_sender_to_its_caps_and_its_turn() -> None:
    clock = Clock()
    sender = Sender(address="127.0.0.1", most_bytes=100_000, most_bits_per_second=1e6)
    receiver = Receiver(Keys(KEY), {"consult-1": sender}, clock)
    accepted, done = await carried(receiver, (2_000_000, 5e9), 90_000)
    assert accepted is not None and accepted.words == ("a-number", "100000", "1000000.0")
    assert done is not None and done.words[:2] == ("a-number", "90000")
    [refused] = await carried(receiver, (100_000, 1e6), 1)
    assert refused is not None and refused == Message("refuse", ("a-number", TOO_SOON))
    clock.now = BETWEEN_SECONDS
    _, broken = await carried(receiver, (100_000, 1e6), 100_001)
    assert broken is None  # more than was agreed: nothing is said of it
    assert (receiver.transfers_count, receiver.refused_count, receiver.strangers_count) == (1, 1, 0)
