"""Two routers with keepalived and snmpd in network namespaces of their own; we are the third station on their switch."""

import ctypes
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from servers import program, until

from agent.documents import build, parse_document
from agent.errors import SourceError
from agent.sources import Reading, Surroundings, snmp_device, snmp_trap

CLONE_NEWNET = 0x40000000
ROUTERS = ("a", "b")


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
            f"  priority {150 if first else 100}\n  advert_int 0.2\n  virtual_ipaddress {{\n    10.78.0.100/24 dev eth0\n  }}\n}}\n"
        )
        environment = {
            "MIBS": "",
            "SNMP_PERSISTENT_DIR": str(folder / "persistent"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        inside = [program("ip", "iproute2"), "netns", "exec", self.prefix + router]
        snmpd = [program("snmpd", "snmpd"), "-C", "-c", folder / "snmpd.conf", "-f", "-Lo"]
        self._spawn(f"snmpd-{router}", [*inside, *snmpd], folder, environment)
        until(agentx.exists)
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
                f"timeout_seconds: 0.3\ncredentials: {{c: {{community: {secret}}}}}\n"
                f"targets: [{{asset: router-{router}, host: 10.78.0.{number}}}]"
            )
            polls[router] = snmp_device.Source(build(parse_document(text, "a.yaml"), snmp_device.Config), around)
        senders = ", ".join(
            f"{{asset: router-{router}, host: 10.78.0.{number}}}" for number, router in enumerate(ROUTERS, 11)
        )
        text = f"port: 10162\ncredentials: [{{community: {secret}}}]\ntargets: [{senders}]"
        trap = snmp_trap.Source(build(parse_document(text, "a.yaml"), snmp_trap.Config), around)
        self._enter()
        try:
            await trap.open()
            for poll in polls.values():
                await poll.open()
                await _try(poll, self.seen)
        finally:
            self._leave()
        return polls, trap

    async def is_master(self, poll: snmp_device.Source, wanted: bool) -> bool:
        """One more round of a poller; whether its router says of itself what is wanted."""
        readings = await _try(poll, self.seen)
        return any(
            one.name == "role_group" and one.tags["group"] == "HIS" and bool(one.fields["is_master"]) is wanted
            for one in readings
        )

    def kill_master(self) -> None:
        """Router a dies: its port goes down and its keepalived with it."""
        run(program("ip", "iproute2"), "-n", self.us, "link", "set", "pa", "down")

    def _enter(self) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.us}", os.O_RDONLY)
        _set_namespace(there)
        os.close(there)

    def _leave(self) -> None:
        _set_namespace(self._own)
        os.close(self._own)

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
        readings = await poll.collect()
    except SourceError:
        return []
    seen += readings
    return readings


def _set_namespace(number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(number, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
