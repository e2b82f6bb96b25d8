"""The broker as it is shipped: `deploy/mosquitto/` with the paths and the port of a test in place of the installed ones."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from servers import Authority, Daemon, answers, free_port, program, until, write_passwords

from agent.broker import Broker, Secret, Tls

SHIPPED = Path(__file__).parent.parent / "deploy" / "mosquitto"
SITE = "my-hospital"
"""The site that the shipped list of rights names."""


class ShippedBroker(Daemon):
    """mosquitto with the shipped files, as the user that Debian's service has. folder: one that this user may look into."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.passwords, self.secrets = folder / "infravitals.passwords", folder / "secrets"
        self.secrets.mkdir()
        (folder / "certs").mkdir()
        self.authority = Authority(folder / "authority")
        for name in ("mosquitto.conf", "infravitals.acl"):
            text = (SHIPPED / name).read_text("utf-8").replace("/etc/mosquitto/", f"{folder}/")
            (folder / name).write_text(text.replace("listener 8883", f"listener {self.port} 127.0.0.1"), "utf-8")
        self.passwords.touch(0o600)
        argv = [program("mosquitto", "mosquitto"), "-c", folder / "mosquitto.conf"]
        super().__init__(argv, folder, self._is_running)
        self.renew_certificate()

    def renew_certificate(self, *term: str) -> None:
        """A new certificate for the broker in place of the one before; it is read at the start and at a reload."""
        issued = self.authority.issue("broker", options=term or ("-days", "2"))
        for path, name in ((issued.certificate, "broker.pem"), (issued.key, "broker.key")):
            shutil.copy(path, self.folder / "certs" / name)
        self._hand_over()

    def add_user(self, user: str, password: str) -> Broker:
        """Let a user in; gives how a client of ours reaches the broker as this user."""
        fresh = write_passwords(self.secrets / "new-users", {user: password})
        kept = [line for line in self.passwords.read_text().splitlines() if line.split(":")[0] != user]
        self.passwords.write_text("\n".join([*kept, fresh.read_text()]))
        secret = self.secrets / user.replace("/", "_")
        secret.write_text(password + "\n")
        secret.chmod(0o600)
        tls = Tls(ca=str(self.authority.certificate))
        return Broker("127.0.0.1", port=self.port, tls=tls, username=user, password=Secret(file=str(secret)))

    def add_collector(self, user: str) -> None:
        """A section of its own for another collector, as the page says; its password is `add_user`'s."""
        rights = self.folder / "infravitals.acl"
        section = rights.read_text("utf-8").partition("user collector\n")[2]
        rights.write_text(f"{rights.read_text('utf-8')}\nuser {user}\n{section}", "utf-8")

    def change_passwords(self, *words: str) -> None:
        """Run mosquitto_passwd."""
        subprocess.run([program("mosquitto_passwd", "mosquitto"), *words], check=True, capture_output=True)
        self._hand_over()

    def reload(self) -> None:
        """What `systemctl reload mosquitto` does; returns when the broker has read its files."""
        before = self.said("Reloading config")
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: self.said("Reloading config") > before)

    def _is_running(self) -> bool:
        """It listens before it takes signals, and a reload before that would end it."""
        return answers(self.port) and self.said(" starting") == self.said(" running")

    def said(self, words: str) -> int:
        """How often these words are in its log."""
        return self.log.read_text(errors="replace").count(words)

    def _hand_over(self) -> None:
        """Started by root, mosquitto takes its own user before it reads its files."""
        if os.geteuid() == 0:
            for path in (self.passwords, self.folder / "certs" / "broker.key"):
                shutil.chown(path, "mosquitto", "mosquitto")
