"""A switched network of namespaces: hosts with an address each on one bridge; everything in it is ended by pid and removed."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from servers import program, until

TESTS = Path(__file__).parent.parent
_numbers = itertools.count()


class Lan:
    """Hosts named by one letter or word, `10.78.0.11` and on, on one switch. Needs root; names carry this process's id."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self._prefix = f"iv{os.getpid()}x{next(_numbers)}"
        self._ip = program("ip", "iproute2")
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._remove()

    def address(self, host: str) -> str:
        """The host's own address."""
        return f"10.78.0.{11 + self.hosts.index(host)}"

    def namespace(self, host: str) -> str:
        """The name of the host's namespace; `switch` is the switch's."""
        return f"{self._prefix}-{host}"

    def start(self, host: str, *argv: str | Path, log: Path, environment: Mapping[str, str] | None = None) -> int:
        """Run a program on a host; its pid. What it prints goes to `log`."""
        command = [self._ip, "netns", "exec", self.namespace(host), *map(str, argv)]
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(TESTS), "INFRAVITALS_LANG": "en", **(environment or {})},
            )
        self._started.append(process)
        return process.pid

    def start_python(self, host: str, *words: str | Path, log: Path) -> int:
        """Run a module of this project or of the tests on a host."""
        return self.start(host, sys.executable, "-m", *words, log=log)

    def run(self, host: str, *argv: str | Path, is_checked: bool = True) -> str:
        """Run a program on a host to its end; what it printed."""
        command = [self._ip, "netns", "exec", self.namespace(host), *map(str, argv)]
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "INFRAVITALS_LANG": "en"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)
        assert not is_checked or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def end(self, pid: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End one program that was started here and wait until it is gone."""
        for process in self._started:
            if process.pid == pid and process.poll() is None:
                process.send_signal(how)
                process.wait(60)

    def pids(self, host: str, name: str) -> list[int]:
        """The processes of that program on a host, the oldest first."""
        found = []
        for word in self._words("netns", "pids", self.namespace(host)).split():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if Path(f"/proc/{word}/comm").read_text().strip() == name:
                    found.append(int(word))
        return sorted(found)

    def kill_all(self, host: str, name: str) -> None:
        """kill -9 of a program and its children as one: stopped first, so that none of them sees another die."""
        pids = self.pids(host, name)
        assert pids, f"no {name} on {host}"
        for how in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # one that ended by itself is as dead
                    os.kill(pid, how)

    def set_port(self, host: str, *, is_up: bool) -> None:
        """Pull the host's cable out of the switch, or put it in."""
        self._do("-n", self.namespace("switch"), "link", "set", f"p-{host}", "up" if is_up else "down")

    def isolate(self, host: str, *, is_isolated: bool) -> None:
        """Isolated ports of the switch do not hear each other, everybody else does."""
        how = "on" if is_isolated else "off"
        bridge = program("bridge", "iproute2")
        command = [bridge, "-n", self.namespace("switch"), "link", "set", "dev", f"p-{host}", "isolated", how]
        subprocess.run(command, check=True, capture_output=True)

    def _build(self) -> None:
        switch = self.namespace("switch")
        self._do("netns", "add", switch)
        self._do("-n", switch, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        self._do("-n", switch, "link", "set", "br0", "up")
        for host in self.hosts:
            here = self.namespace(host)
            self._do("netns", "add", here)
            self._do("-n", here, "link", "set", "lo", "up")
            self._do("-n", switch, "link", "add", f"p-{host}", "type", "veth", "peer", "name", "eth0", "netns", here)
            self._do("-n", switch, "link", "set", f"p-{host}", "master", "br0", "up")
            self._do("-n", here, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._do("-n", here, "link", "set", "eth0", "up")

    def _remove(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
        for host in (*self.hosts, "switch"):
            self._empty(host)
            subprocess.run([self._ip, "netns", "del", self.namespace(host)], capture_output=True, check=False)

    def _empty(self, host: str) -> None:
        """Whatever the programs of a host left behind there."""

        def is_empty() -> bool:
            left = subprocess.run(
                [self._ip, "netns", "pids", self.namespace(host)], capture_output=True, text=True, check=False
            ).stdout.split()
            for word in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), signal.SIGKILL)
            return not left

        until(is_empty)

    def _do(self, *words: str) -> None:
        self._words(*words)

    def _words(self, *words: str) -> str:
        done = subprocess.run([self._ip, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr} (these tests need root)"
        return done.stdout
