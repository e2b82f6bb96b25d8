"""Hospitals of network namespaces for tests: zones with addresses, routers between them, code that runs inside.

Everything is named by a prefix and this process's id, and is gone when the `Network` is left: processes inside are ended
by pid first. Needs root, ip and nft.
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from servers import READY_SECONDS, program

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def entered(namespace: str) -> None:
    """Move the calling thread into a namespace, for good: all sockets that it opens from now on are there."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(handle, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(handle)


class Namespace:
    """One namespace. `run` waits for a program inside, `submit` and `do` run a coroutine in a thread that lives inside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def command(self, *words: str | Path) -> list[str]:
        """How a program is started inside."""
        return [program("ip", "iproute2"), "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: str | Path, input: str | None = None) -> str:
        """What a program printed; a failing one fails the test."""
        return _run(self.command(*words), input)

    def ip(self, lines: str) -> None:
        """Several `ip` commands, one a line, without the word `ip`."""
        _run([program("ip", "iproute2"), "-n", self.name, "-batch", "-"], lines)

    def nft(self, rules: str) -> None:
        """Put rules in force, as in a file of nft."""
        self.run(program("nft", "nftables"), "-f", "-", input=rules + "\n")

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine inside."""
        return asyncio.run_coroutine_threadsafe(work, self._inside())

    def do(self, work: Coroutine[Any, Any, T], timeout_seconds: float = 60.0) -> T:
        """What a coroutine gives that runs inside."""
        return self.submit(work).result(timeout_seconds)

    def call(self, function: Callable[[], T]) -> T:
        """What a plain function gives that runs inside."""

        async def work() -> T:
            return function()

        return self.do(work())

    def pids(self) -> list[int]:
        """The processes inside; this one, of which a thread may be inside, is not among them."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [int(word) for word in found.stdout.split() if int(word) != os.getpid()]

    def _inside(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            ready = threading.Event()
            self._thread = threading.Thread(target=self._live, args=(ready,), name=self.name, daemon=True)
            self._thread.start()
            assert ready.wait(READY_SECONDS), f"no thread in {self.name}"
        assert self._loop is not None
        return self._loop

    def _live(self, ready: threading.Event) -> None:
        entered(self.name)
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            ready.set()
            self._loop.run_forever()

    def leave(self) -> None:
        """End the thread, with all that still runs in it."""
        if self._loop and self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(READY_SECONDS)
            self._loop = None


class Network:
    """Namespaces and the cables between them; a context manager."""

    def __init__(self, prefix: str) -> None:
        self.prefix = f"{prefix}{os.getpid()}x{next(_numbers)}"
        self._ip = program("ip", "iproute2")
        self.namespaces: dict[str, Namespace] = {}

    def add(self, *names: str) -> list[Namespace]:
        """New namespaces with their loopback up."""
        for name in names:
            namespace = self.namespaces[name] = Namespace(f"{self.prefix}-{name}")
            _run([self._ip, "netns", "add", namespace.name])
            namespace.ip("link set lo up")
        return [self.namespaces[name] for name in names]

    def cable(self, a: str, a_interface: str, b: str, b_interface: str) -> None:
        """A pair of interfaces, up, without addresses."""
        one, other = self.namespaces[a].name, self.namespaces[b].name
        _run([self._ip, "link", "add", a_interface, "netns", one, "type", "veth", "peer", b_interface, "netns", other])
        self.namespaces[a].ip(f"link set {a_interface} up")
        self.namespaces[b].ip(f"link set {b_interface} up")

    def __getitem__(self, name: str) -> Namespace:
        return self.namespaces[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in self.namespaces.values():
            namespace.leave()
            for pid in namespace.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run([self._ip, "netns", "del", namespace.name], check=False)


def zones(network: Network, firewall: str, names: Sequence[str], subnet: int = 77) -> Iterator[str]:
    """Cable each zone to the firewall: 10.<subnet>.<n>.10 and fd00:<subnet>:<n>::10, gateway .1; gives the IPv4 addresses.

    The firewall routes and its interfaces are named as the zones; it has no rules yet.
    """
    gate = network[firewall]
    gate.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for number, name in enumerate(names, 1):
        network.cable(firewall, name, name, "eth0")
        v4, v6 = f"10.{subnet}.{number}", f"fd00:{subnet}:{number}:"
        gate.ip(f"addr add {v4}.1/24 dev {name}\naddr add {v6}:1/64 dev {name} nodad")
        network[name].ip(
            f"addr add {v4}.10/24 dev eth0\naddr add {v6}:10/64 dev eth0 nodad\n"
            f"route add default via {v4}.1\nroute add default via {v6}:1"
        )
        yield f"{v4}.10"


def _run(words: Sequence[str | Path], input: str | None = None) -> str:
    done = subprocess.run(words, input=input, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr or done.stdout}"
    return done.stdout
