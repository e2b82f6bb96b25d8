"""A hospital to be hurt: real agents, a real broker, two real collectors and a real InfluxDB, each a process of its own."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from influxstore import rows_of
from servers import Daemon, Influx, Mosquitto, answers, free_port

SITE = "hospital"
DATABASE = "infravitals"
COLLECTORS = 2
FOREIGN = "stranger"
"""An asset that the register gives to nobody of ours: what is said of it is set aside."""

SHORT_AGE_SECONDS = 2
"""How long the first agent keeps what it cannot send: it has to drop something and to say so."""

AGENT = """
site: {site}
agent: {name}
broker: {{host: 127.0.0.1, port: {port}, keepalive_seconds: 5, connect_timeout_seconds: 5}}
state_directory: {folder}
spool: {{max_age_seconds: {age}}}
asset: {asset}
log: {{level: warning}}
sources:
  host_cpu: {{interval_seconds: 1}}
  host_memory: {{interval_seconds: 1}}
  host_uptime: {{interval_seconds: 2}}
"""

COLLECTOR = """
site: {site}
broker: {{host: 127.0.0.1, port: {port}, keepalive_seconds: 5, connect_timeout_seconds: 5}}
data_directory: {folder}
store:
  kind: influxdb
  url: {url}
  database: {database}
  user: {user}
  password: {{file: {password}}}
page: {{port: {page}}}
site_folder: {site_folder}
log: {{level: warning}}
"""

REGISTER = f"""
assets:
  {FOREIGN}: {{reporters: [somebody-else]}}
"""


@dataclass(frozen=True)
class Part:
    """Something that can be killed: a kind (agent, broker, collector, store) and its process."""

    kind: str
    name: str
    daemon: Daemon


class Hospital:
    """All parts, running. agents: how many; the first keeps little, the last speaks of an asset that is not its own."""

    def __init__(self, folder: Path, agents: int) -> None:
        self.folder = folder
        self.influx = Influx(folder / "store")
        self.broker = Mosquitto(folder / "broker")
        self.agents = [f"agent-{number:02}" for number in range(agents)]
        self._site_folder = folder / "site"
        self._site_folder.mkdir(parents=True)
        (self._site_folder / "register.yaml").write_text(REGISTER)
        self._password = folder / "store.password"
        self._password.write_text(self.influx.ADMIN[1])
        self._password.chmod(0o600)
        self.parts: list[Part] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Every part started, the collectors before the agents; all ended afterwards, however it ends."""
        with ExitStack() as stack:
            stack.enter_context(self.influx)
            self.influx.ask(f"CREATE DATABASE {DATABASE}")
            stack.enter_context(self.broker)
            collectors = [stack.enter_context(self._collector(number)) for number in range(COLLECTORS)]
            agents = [stack.enter_context(self._agent(name)) for name in self.agents]
            self.parts = [
                Part("store", "influxd", self.influx),
                Part("broker", "mosquitto", self.broker),
                *(Part("collector", f"collector-{number}", one) for number, one in enumerate(collectors)),
                *(Part("agent", name, one) for name, one in zip(self.agents, agents, strict=True)),
            ]
            yield

    def of(self, kind: str) -> Sequence[Part]:
        """The parts of one kind."""
        return [part for part in self.parts if part.kind == kind]

    def spool(self, agent: str) -> Path:
        """The file in which an agent keeps what is not receipted."""
        return self.folder / agent / "spool.sqlite"

    def end_agents(self, agents: Sequence[Part]) -> None:
        """All at once, politely; what they cannot send in their last second stays in their spools."""
        for part in agents:
            os.kill(part.daemon.pid, signal.SIGTERM)
        for part in agents:
            part.daemon.stop()

    def stored(self, query: str) -> Iterator[Mapping[str, object]]:
        """Rows straight from the store, column -> value."""
        return rows_of(self.influx, DATABASE, query)

    def _agent(self, name: str) -> Daemon:
        folder = self.folder / name
        folder.mkdir()
        asset = FOREIGN if name == self.agents[-1] else name
        age = SHORT_AGE_SECONDS if name == self.agents[0] else 86400
        words = AGENT.format(site=SITE, name=name, port=self.broker.port, folder=folder, asset=asset, age=age)
        (folder / "agent.yaml").write_text(words)
        return _python("agent.cli", "run", folder / "agent.yaml", lambda: self.spool(name).exists())

    def _collector(self, number: int) -> Daemon:
        folder, page = self.folder / f"collector-{number}", free_port()
        folder.mkdir()
        words = COLLECTOR.format(
            site=SITE,
            port=self.broker.port,
            folder=folder / "data",
            url=self.influx.url,
            database=DATABASE,
            user=self.influx.ADMIN[0],
            password=self._password,
            page=page,
            site_folder=self._site_folder,
        )
        (folder / "collector.yaml").write_text(words)
        return _python("collector.cli", "serve", folder / "collector.yaml", lambda: answers(page))


def _python(module: str, command: str, config: Path, is_ready: Callable[[], object]) -> Daemon:
    return Daemon([sys.executable, "-m", module, command, "-c", config], config.parent, is_ready)
