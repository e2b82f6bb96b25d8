"""A device that is polled by SNMPv3 alone and hears a neighbour by LLDP: a real snmpd and two real lldpd in namespaces."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from namespaces import Network
from servers import program, until
from snmpd import AUTH_PASSWORD, PRIV_PASSWORD
from snmpnet import is_listening

from agent.broker import Secret
from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Credential
from agent.sources.snmp_device import Target

NEIGHBOURS = "1.0.8802.1.1.2.1.4.1.1.9"
NEIGHBOUR = "cabinet-switch"


class PolledSwitch:
    """at: the namespace of the device; beside: of its neighbour that nobody polls. A context manager; all ends by pid."""

    def __init__(self, network: Network, folder: Path, at: str, beside: str) -> None:
        self._network, self._at, self._beside = network, at, beside
        self._folder = folder / "switch"
        self._folder.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        (self._folder / "auth").write_text(AUTH_PASSWORD)
        (self._folder / "priv").write_text(PRIV_PASSWORD)

    @property
    def credential(self) -> Credential:
        """The one user that it knows."""
        auth, priv = (Secret(file=str(self._folder / name)) for name in ("auth", "priv"))
        return Credential(
            version="3", user="poller", auth="sha256", auth_password=auth, priv="aes128", priv_password=priv
        )

    def settings(self, asset: str, host: str) -> Mapping[str, object]:
        """How `snmp_device` polls it."""
        return {
            "credentials": {"poller": self.credential},
            "targets": (Target(asset=asset, host=host),),
        }

    def __enter__(self) -> Self:
        agentx = self._folder / "agentx"
        (self._folder / "snmpd.conf").write_text(
            f"agentaddress udp:161\nmaster agentx\nagentxsocket unix:{agentx}\n"
            f'createUser poller SHA-256 "{AUTH_PASSWORD}" AES "{PRIV_PASSWORD}"\nrouser poller priv\n'
        )
        self._spawn(self._at, f"exec {program('snmpd', 'snmpd')} -C -c {self._folder}/snmpd.conf -f -Lo")
        until(lambda: is_listening(agentx))
        lldpd = f"exec {program('lldpd', 'lldpd')} -d -u /run/lldpd.socket"
        own = "mount --make-rprivate / && mount -t tmpfs none /run && mkdir -p /run/lldpd && hostname"
        self._spawn(self._at, f"{own} {self._at} && {lldpd} -x -X unix:{agentx}")
        self._spawn(self._beside, f"{own} {NEIGHBOUR} && {lldpd}")
        until(lambda: self._network[self._at].do(self._hears_neighbours()), 120)
        return self

    async def _hears_neighbours(self) -> bool:
        session = Session("127.0.0.1", 161, self.credential.open(), Patience(timeout_seconds=1.0, retries=1))
        try:
            await session.open()
            return await session.has_rows(NEIGHBOURS)
        finally:
            session.close()

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _spawn(self, place: str, script: str) -> None:
        argv = self._network[place].command(program("unshare", "util-linux"), "-m", "-u", "sh", "-c", script)
        environment = {
            "MIBS": "",
            "SNMP_PERSISTENT_DIR": str(self._folder / "persistent"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        with (self._folder / f"{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._processes.append(process)
