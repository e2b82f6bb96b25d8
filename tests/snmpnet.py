"""Two routers with keepalived and snmpd in network namespaces of their own; we are the third station on their switch."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from servers import program, until

from agent.documents import build, parse_document
from agent.errors import SourceError
from agent.sources import Incomplete, Reading, Surroundings, snmp_device, snmp_trap

CLONE_NEWNET = 0x40000000
ROUTERS = ("a", "b")


def is_listening(path: Path) -> bool:
    """Whether a program accepts connections on a Unix socket; who comes too early is told to come again in 15 s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return path.exists() and probe.connect_ex(str(path)) == 0


def run(*words: object) -> None:
    """One command of iproute2; what it complains of stands in the failure."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"


class Net:
    """A bridge in the namespace of `us`, a router on each of two ports. Everything ends by pid, every namespace by name."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"inf{os.getpid()}"
        self.us = f"{self.prefix}u"
        self.seen: list[Reading] = []
        self._opened: list[snmp_device.Source | snmp_trap.Source] = []
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "community").write_text("netcommunity")

    def start(self) -> None:
        """Namespaces, links, snmpd and keepalived on both."""
        ip = program("ip", "iproute2")
        for name in (self.us, *(self.prefix + router for router in ROUTERS)):
            run(ip, "netns", "add", name)
            run(ip, "-n", name, "link", "set", "lo", "up")
        run(ip, "-n", self.us, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        run(ip, "-n", self.us, "link", "set", "br0", "up")
        run(ip, "-n", self.us, "addr", "add", "10.78.0.13/24", "dev", "br0")
        for number, router in enumerate(ROUTERS, 11):
            inner = self.prefix + router
            run(ip, "-n", self.us, "link", "add", f"p{router}", "type", "veth", "peer", "name", "eth0", "netns", inner)
            run(ip, "-n", self.us, "link", "set", f"p{router}", "master", "br0", "up")
            run(ip, "-n", inner, "addr", "add", f"10.78.0.{number}/24", "dev", "eth0")
            run(ip, "-n", inner, "link", "set", "eth0", "up")
            self._start_router(router)

    def _start_router(self, router: str) -> None:
        folder = self._folder / router
        folder.mkdir()
        agentx = folder / "agentx"
        (folder / "snmpd.conf").write_text(
            f"agentaddress udp:161\nrocommunity netcommunity\nmaster agentx\nagentxsocket unix:{agentx}\n"
            f"trap2sink 10.78.0.13:10162 netcommunity\nsysname router-{router}\n"
        )
        first = router == "a"
        (folder / "keepalived.conf").write_text(
            f"global_defs {{\n  router_id {router}\n  snmp_socket unix:{agentx}\n  enable_snmp_vrrp\n  enable_traps\n  vrrp_version 3\n}}\n"
            f"vrrp_instance HIS {{\n  state {'MASTER' if first else 'BACKUP'}\n  interface eth0\n  virtual_router_id 51\n"
            f"  priority {150 if first else 100}\n  advert_int 1\n  virtual_ipaddress {{\n    10.78.0.100/24 dev eth0\n  }}\n}}\n"
        )
        environment = {
            "MIBS": "",
            "SNMP_PERSISTENT_DIR": str(folder / "persistent"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        inside = [program("ip", "iproute2"), "netns", "exec", self.prefix + router]
        snmpd = [program("snmpd", "snmpd"), "-C", "-c", folder / "snmpd.conf", "-f", "-Lo"]
        self._spawn(f"snmpd-{router}", [*inside, *snmpd], folder, environment)
        until(lambda: is_listening(agentx))
        keepalived = [program("keepalived", "keepalived"), "-n", "-l", "-f", folder / "keepalived.conf", "-x"]
        pids = ["-p", folder / "k.pid", "-r", folder / "v.pid", "-A", f"unix:{agentx}"]
        self._spawn(f"keepalived-{router}", [*inside, *keepalived, *pids], folder, environment)

    def _spawn(self, name: str, argv: list[object], folder: Path, environment: Mapping[str, str]) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [*map(str, argv)], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment)
            )

    async def open(self) -> tuple[dict[str, snmp_device.Source], snmp_trap.Source]:
        """A poller of each router and a receiver, their sockets in our namespace."""
        secret = f"{{file: {self._folder}/community}}"
        around = Surroundings("gateway")
        polls = {}
        for number, router in enumerate(ROUTERS, 11):
            text = (
                f"timeout_seconds: 2\ncredentials: {{c: {{community: {secret}}}}}\n"
                f"targets: [{{asset: router-{router}, host: 10.78.0.{number}}}]"
            )
            polls[router] = snmp_device.Source(build(parse_document(text, "a.yaml"), snmp_device.Config), around)
        senders = ", ".join(
            f"{{asset: router-{router}, host: 10.78.0.{number}}}" for number, router in enumerate(ROUTERS, 11)
        )
        text = f"port: 10162\ncredentials: [{{community: {secret}}}]\ntargets: [{senders}]"
        trap = snmp_trap.Source(build(parse_document(text, "a.yaml"), snmp_trap.Config), around)
        self._opened += [trap, *polls.values()]
        with Inside(self.us):
            await trap.open()
            for poll in polls.values():
                await poll.open()
                await _try(poll, self.seen)
        return polls, trap

    async def close(self) -> None:
        """Close what `open` opened."""
        for source in self._opened:
            await source.close()

    async def is_master(self, poll: snmp_device.Source, wanted: bool) -> bool:
        """One more round of a poller; whether its router says of itself what is wanted."""
        readings = await _try(poll, self.seen)
        return any(
            one.name == "role_group" and one.tags["group"] == "HIS" and one.fields.get("is_master") is wanted
            for one in readings
        )

    def kill_master(self) -> None:
        """Router a dies: its port goes down and its keepalived with it."""
        run(program("ip", "iproute2"), "-n", self.us, "link", "set", "pa", "down")

    def stop(self) -> None:
        """End what was started, by pid, and take the namespaces away."""
        for process in self._processes.values():
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in (self.us, *(self.prefix + router for router in ROUTERS)):
            subprocess.run([program("ip", "iproute2"), "netns", "del", name], capture_output=True)


async def _try(poll: snmp_device.Source, seen: list[Reading]) -> list[Reading]:
    try:
        readings = list(await poll.collect())
    except Incomplete as trouble:  # what it saw all the same may be a change that is told once
        readings = list(trouble.readings)
    except SourceError:
        return []
    seen += readings
    return readings


def _set_namespace(number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(number, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class LldpPair:
    """Two stations on one link, each with lldpd; the first also with snmpd, which we ask from inside its namespace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = [f"inf{os.getpid()}{end}" for end in ("l", "r")]
        self._processes: list[subprocess.Popen[bytes]] = []
        (folder / "community").write_text("netcommunity")

    def start(self) -> None:
        """Namespaces, the link, the daemons; each lldpd in a mount namespace, since it wants /run for itself."""
        ip, (left, right) = program("ip", "iproute2"), self._names
        for name in self._names:
            run(ip, "netns", "add", name)
            run(ip, "-n", name, "link", "set", "lo", "up")
        run(ip, "-n", left, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right)
        for number, name in enumerate(self._names, 1):
            run(ip, "-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
            run(ip, "-n", name, "link", "set", "eth0", "up")
        agentx = self._folder / "agentx"
        (self._folder / "snmpd.conf").write_text(
            f"agentaddress udp:127.0.0.1:161\nrocommunity netcommunity\nmaster agentx\nagentxsocket unix:{agentx}\n"
        )
        self._spawn(left, f"exec {program('snmpd', 'snmpd')} -C -c {self._folder}/snmpd.conf -f -Lo")
        until(lambda: is_listening(agentx))
        own = "mount --make-rprivate / && mount -t tmpfs none /run && mkdir -p /run/lldpd && hostname"
        lldpd = f"exec {program('lldpd', 'lldpd')} -d -u /run/lldpd.socket"
        self._spawn(left, f"{own} station-left && {lldpd} -x -X unix:{agentx}")
        self._spawn(right, f"{own} station-right && {lldpd}")

    def _spawn(self, name: str, script: str) -> None:
        argv = [
            program("ip", "iproute2"),
            "netns",
            "exec",
            name,
            program("unshare", "util-linux"),
            "-m",
            "-u",
            "sh",
            "-c",
            script,
        ]
        environment = {
            "MIBS": "",
            "SNMP_PERSISTENT_DIR": str(self._folder / "p"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        with (self._folder / f"{name}-{len(self._processes)}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
                )
            )

    async def open(self, peers: str, profile: str = "lldp") -> snmp_device.Source:
        """A poller of the left station, its socket inside."""
        text = (
            f"timeout_seconds: 2\ncredentials: {{c: {{community: {{file: {self._folder}/community}}}}}}\n"
            f"peers: [{peers}]\ntargets: [{{asset: left, host: 127.0.0.1, profiles: [{profile}]}}]"
        )
        poll = snmp_device.Source(build(parse_document(text, "a.yaml"), snmp_device.Config), Surroundings("gateway"))
        await poll.open()
        return poll

    def speak(self) -> None:
        """A datagram to the right station, for which the left one has to learn its address."""
        with self.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaking:
            speaking.sendto(b"", ("192.0.2.2", 9))

    def inside(self) -> "Inside":
        """Sockets are made in the left station's namespace meanwhile."""
        return Inside(self._names[0])

    def stop(self) -> None:
        """End what was started, by its own process groups, and take the namespaces away."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in self._names:
            subprocess.run([program("ip", "iproute2"), "netns", "del", name], capture_output=True)


class Inside:
    """A context in which this thread's new sockets belong to a network namespace."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self._name}", os.O_RDONLY)
        _set_namespace(there)
        os.close(there)

    def __exit__(self, *_: object) -> None:
        _set_namespace(self._own)
        os.close(self._own)
