"""A broker with TLS, logins and access control for the doctors' tests; each test spoils one thing of it."""

from pathlib import Path

from servers import Authority, Mosquitto, free_port, write_passwords

AGENT_PASSWORD, COLLECTOR_PASSWORD = "canary-agent-3141", "canary-collector-2718"

ACL = """
pattern write infravitals/v1/%u/points
pattern readwrite infravitals/v1/%u/state
pattern read infravitals/v1/%u/receipt
user collector
topic read infravitals/v1/hospital/+/points
topic write infravitals/v1/hospital/+/receipt
"""


class Guarded:
    """The broker, not started, and an agent's and a collector's configuration for it."""

    def __init__(self, folder: Path, *, acl: str | None = ACL, anonymous: str = "false", days: int = 90) -> None:
        self.folder = folder
        self.authority = Authority(folder, days=days)
        served = self.authority.issue("broker", options=("-days", str(days)))
        logins = {"hospital/his-db-1": AGENT_PASSWORD, "collector": COLLECTOR_PASSWORD}
        passwords = write_passwords(folder / "passwords", logins)
        settings = f"allow_anonymous {anonymous}\npassword_file {passwords}\ncafile {self.authority.certificate}\n"
        settings += f"certfile {served.certificate}\nkeyfile {served.key}\n"
        if acl is not None:
            (folder / "acl").write_text(acl)
            settings += f"acl_file {folder / 'acl'}\n"
        self.broker = Mosquitto(folder / "mosquitto", settings)
        for name, password in (("agent", AGENT_PASSWORD), ("collector", COLLECTOR_PASSWORD)):
            secret = folder / f"{name}.password"
            secret.write_text(password + "\n")
            secret.chmod(0o600)
        self.agent = self._write(
            "agent", "hospital/his-db-1", "agent: his-db-1\nsources: {host_cpu: {interval_seconds: 1}}\n"
        )
        self.collector = self._write("collector", "collector", f"page: {{port: {free_port()}}}\n")

    def _write(self, name: str, user: str, rest: str) -> Path:
        where = "state_directory" if name == "agent" else "data_directory"
        (self.folder / name).mkdir(mode=0o700)
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"site: hospital\n{where}: {self.folder / name}\nbroker:\n  host: 127.0.0.1\n  port: {self.broker.port}\n"
            f"  tls: {{ca: {self.authority.certificate}}}\n  username: {user}\n"
            f"  password: {{file: {self.folder / name}.password}}\n" + rest
        )
        return path
