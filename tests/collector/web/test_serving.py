"""The page's own server: where it listens, how it ends, what it says of a port that is taken."""

import asyncio
import http.client
import signal
import socket
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from servers import until

from agent import language
from collector.web.serving import PageError, PageServer


def test_a_taken_port_is_one_sentence_that_names_the_port_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with language.speaking("en"), pytest.raises(PageError) as caught:
            PageServer(lambda: None, port)
    assert str(caught.value) == (
        f"the page's port 127.0.0.1:{port} is taken by another program; "
        "choose another: --port of up, page.port in the collector.yaml of serve"
    )


def test_an_impossible_port_is_told_too() -> None:
    with language.speaking("zh"), pytest.raises(PageError, match=r"无法在 127\.0\.0\.1:70000 提供网页"):
        PageServer(lambda: None, 70_000)


def test_the_page_listens_on_the_loopback_address_alone() -> None:
    async def look() -> list[tuple[str, int]]:
        server = PageServer(lambda: None, 0)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.run())
            await server.started.wait()
            heard = listeners(server.port)
            server.close()
        return heard

    assert [address for address, _ in asyncio.run(look())] == ["127.0.0.1"]


def listeners(port: int) -> list[tuple[str, int]]:
    """(address, port) of every TCP listener of this machine on `port`."""
    found = [row.laddr for row in psutil.net_connections("tcp") if row.status == psutil.CONN_LISTEN and row.laddr]
    return [(address, number) for address, number in found if number == port]


async def test_signal_handlers_stay_those_of_the_program() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = PageServer(lambda: None, 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run())
        await server.started.wait()
        during = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        server.close()
    assert during == before


def test_an_idle_connection_does_not_keep_the_server_from_ending(serving: Callable[..., Any]) -> None:
    server = serving(None)
    with server.running():
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/")
        assert connection.getresponse().read()
        half = socket.create_connection(("127.0.0.1", connection.port))
        half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0")
        until(lambda: len(server.connections) == 2)  # one that was not taken yet is reset
        server.stop()
        assert connection.sock.recv(1) == b""
        assert half.recv(1) == b""
    connection.close()
    half.close()


async def test_a_page_that_has_ended_gives_its_port_back() -> None:
    server = PageServer(lambda: None, 0)
    server.close()
    await server.run()
    with socket.create_server(("127.0.0.1", server.port)) as again:
        assert again.getsockname() == ("127.0.0.1", server.port)


async def test_a_cancelled_server_gives_its_port_back() -> None:
    server = PageServer(lambda: None, 0)
    task = asyncio.create_task(server.run())
    await server.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with socket.create_server(("127.0.0.1", server.port)) as again:
        assert again.getsockname() == ("127.0.0.1", server.port)


def test_the_url_names_the_port_that_was_taken_for_it(serving: Callable[..., object]) -> None:
    server = serving(None)
    with server.running():
        assert server.url.startswith("http://127.0.0.1:")
        assert not server.url.endswith(":0/")
