"""Commands beside a running server, over its socket."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.errors import LinkError, StoreError
from agent.language import speaking
from collector.control import ControlServer, Handler, Reply, ask

SECONDS = 60.0


async def greet(arguments: Mapping[str, object]) -> Reply:
    return Reply(f"hello {arguments['name']}\n".encode(), 0)


@asynccontextmanager
async def serving(path: Path, **handlers: Handler) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, handlers)
    running = asyncio.create_task(server.run())
    starting = asyncio.create_task(server.started.wait())
    await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    try:
        if running.done():
            await running
        yield server
    finally:
        running.cancel()
        await asyncio.wait({running})


async def ask_beside(path: Path, command: str, **arguments: object) -> Reply | None:
    return await asyncio.to_thread(ask, path, command, arguments, SECONDS)


async def test_a_command_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, greet=greet):
        assert await ask_beside(path, "greet", name="中文") == Reply("hello 中文\n".encode(), 0)


async def test_only_this_user_may_ask_and_nothing_stays_behind(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, greet=greet):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_nobody_there_is_no_answer_and_no_error(tmp_path: Path) -> None:
    assert await ask_beside(tmp_path / "control.sock", "greet") is None
    assert await ask_beside(tmp_path / "nowhere" / "control.sock", "greet") is None


async def test_the_socket_of_a_dead_server_is_nobody_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert await ask_beside(path, "greet") is None
    async with serving(path, greet=greet):
        assert await ask_beside(path, "greet", name="you") == Reply(b"hello you\n", 0)


async def test_a_second_server_is_told_that_one_is_running_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path, greet=greet):
        with speaking("en"), pytest.raises(StoreError, match="an infravitals is already running on"):
            async with serving(path, greet=greet):
                pass
        assert await ask_beside(path, "greet", name="you") == Reply(b"hello you\n", 0)


async def test_an_ordinary_file_in_its_place_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with speaking("en"), pytest.raises(StoreError, match="an ordinary file stands there"):
        async with serving(path, greet=greet):
            pass
    assert path.read_text() == "precious"


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 80) / ("e" * 80)
    folder.mkdir(parents=True)
    path = folder / "control.sock"
    assert len(os.fsencode(path)) > 107
    assert await ask_beside(path, "greet") is None
    async with serving(path, greet=greet):
        assert await ask_beside(path, "greet", name="you") == Reply(b"hello you\n", 0)
    assert not path.exists()


async def test_a_name_that_fits_nowhere_is_one_sentence(tmp_path: Path) -> None:
    with speaking("en"), pytest.raises(StoreError, match="the path is too long"):
        async with serving(tmp_path / ("s" * 120), greet=greet):
            pass


async def test_a_known_trouble_is_its_sentence_and_status_one(tmp_path: Path) -> None:
    async def fail(arguments: Mapping[str, object]) -> Reply:
        raise StoreError("the disk is full")

    async with serving(tmp_path / "s", fail=fail):
        assert await ask_beside(tmp_path / "s", "fail") == Reply(b"the disk is full", 1)


async def test_a_bug_is_logged_with_its_traceback_and_told_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(arguments: Mapping[str, object]) -> Reply:
        raise ZeroDivisionError("secret detail")

    with speaking("en"):
        async with serving(tmp_path / "s", fail=fail, greet=greet):
            reply = await ask_beside(tmp_path / "s", "fail")
            assert reply == Reply(b"the server met an error of its own; its log has the details", 1)
            assert await ask_beside(tmp_path / "s", "greet", name="you") == Reply(b"hello you\n", 0)
    assert "ZeroDivisionError" in caplog.text


async def test_an_unknown_command_is_told_what_there_is(tmp_path: Path) -> None:
    with speaking("en"):
        async with serving(tmp_path / "s", greet=greet):
            reply = await ask_beside(tmp_path / "s", "sing")
    assert reply is not None
    assert reply.status == 1
    assert b"no command 'sing', it has: greet" in reply.output


@pytest.mark.parametrize(
    "garbage", [b"\n", b"nonsense\n", b'{"command": 5}\n', b"x" * 200_000 + b"\n", b"\xff\xfe\n", b""]
)
async def test_garbage_harms_nobody(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "s"
    async with serving(path, greet=greet):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(garbage)
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(SECONDS):
            answer = await reader.read(100_000)
        writer.close()
        assert answer.startswith(b'{"status":1')
        assert await ask_beside(path, "greet", name="you") == Reply(b"hello you\n", 0)


async def test_a_large_answer_comes_whole(tmp_path: Path) -> None:
    async def recite(arguments: Mapping[str, object]) -> Reply:
        return Reply(b"0123456789" * 500_000, 3)

    async with serving(tmp_path / "s", recite=recite):
        assert await ask_beside(tmp_path / "s", "recite") == Reply(b"0123456789" * 500_000, 3)


async def test_a_server_that_hangs_is_a_sentence_after_the_deadline(tmp_path: Path) -> None:
    async def hang(arguments: Mapping[str, object]) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("never")

    path = tmp_path / "s"
    async with serving(path, hang=hang):
        with pytest.raises(LinkError, match=str(path)):
            await asyncio.to_thread(ask, path, "hang", {}, 0.05)


async def test_ending_leaves_no_command_hanging(tmp_path: Path) -> None:
    began = asyncio.Event()
    cancelled = asyncio.Event()

    async def hang(arguments: Mapping[str, object]) -> Reply:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("never")

    path = tmp_path / "s"
    async with serving(path, hang=hang):
        asking = asyncio.create_task(ask_beside(path, "hang"))
        await began.wait()
    with pytest.raises(LinkError):
        await asking
    assert cancelled.is_set()
