"""A hospital to be hurt: real agents, the broker as it is shipped, two real collectors and a real InfluxDB, each a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from influxstore import rows_of
from servers import Daemon, Influx, answers, free_port
from shipped_broker import SITE, ShippedBroker
from unprivileged import open_folder

from collector.ledger import Ledger

DATABASE = "infravitals"
COLLECTORS = ("collector", "collector-2")
FOREIGN = "stranger"
"""An asset that the register gives to nobody of ours: what is said of it is set aside."""
WORD_SECONDS = 240.0
"""A deadline and not a wait: an agent gives its word when it starts."""

SHORT_AGE_SECONDS = 2
"""How long the first agent keeps what it cannot send: it has to drop something and to say so."""

AGENT = """
site: {site}
agent: {name}
broker: {broker}
state_directory: {folder}
spool: {{max_age_seconds: {age}}}
log: {{level: warning}}
sources:
  host_cpu: {{interval_seconds: 1}}
  host_memory: {{interval_seconds: 1}}
  host_uptime: {{interval_seconds: 2}}
"""

STRANGE = """\
  config_backup: {{interval_seconds: 1, folder: {folder}, assets: [{asset}]}}
"""

COLLECTOR = """
site: {site}
broker: {broker}
share_group: chaos-of-this-run
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
    """All parts, running. agents: how many; the first keeps little, the last speaks also of an asset that is not its own."""

    def __init__(self, folder: Path, agents: int) -> None:
        self.folder = folder
        self.influx = Influx(folder / "store")
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
            broker = ShippedBroker(stack.enter_context(open_folder()))
            broker.add_collector(COLLECTORS[1])
            ways = {name: _way(broker, name) for name in COLLECTORS}
            ways |= {name: _way(broker, f"{SITE}/{name}") for name in self.agents}
            stack.enter_context(broker)
            collectors = [stack.enter_context(self._collector(name, ways[name])) for name in COLLECTORS]
            agents = [stack.enter_context(self._agent(name, ways[name])) for name in self.agents]
            self.parts = [
                Part("store", "influxd", self.influx),
                Part("broker", "mosquitto", broker),
                *(Part("collector", name, one) for name, one in zip(COLLECTORS, collectors, strict=True)),
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

    def end_collectors(self) -> None:
        """What they hold is written or, without a receipt, waits in the spools; nothing is on its way to the store any more."""
        for part in self.of("collector"):
            part.daemon.stop()

    def hear(self, agents: Sequence[Part]) -> None:
        """Start these agents and wait until the store has what each says of its account at its start."""
        since, names = round(time.time() * 1000), {part.name for part in agents}
        for part in agents:
            part.daemon.start()
        query = f"SELECT ledger_made_batches_count, agent FROM agent_health WHERE time >= {since}ms"
        deadline = time.monotonic() + WORD_SECONDS
        while not names <= {str(row["agent"]) for row in self.stored(query)}:
            assert time.monotonic() < deadline, "not every agent gave its word"
            time.sleep(1)

    def ledger(self) -> Ledger:
        """What `infravitals ledger` says; its exit code must go with it."""
        config = self.folder / COLLECTORS[0] / "collector.yaml"
        words = [sys.executable, "-m", "collector.cli", "ledger", "-c", config, "--format", "json"]
        done = subprocess.run(words, capture_output=True, timeout=120, check=False)
        assert done.returncode in (0, 1), done.stderr.decode()
        found = msgspec.json.decode(done.stdout, type=Ledger)
        assert found.is_balanced == (done.returncode == 0), done.returncode
        return found

    def stored(self, query: str) -> Iterator[Mapping[str, object]]:
        """Rows straight from the store, column -> value."""
        return rows_of(self.influx, DATABASE, query)

    def _agent(self, name: str, broker: str) -> Daemon:
        folder = self.folder / name
        folder.mkdir()
        age = SHORT_AGE_SECONDS if name == self.agents[0] else 86400
        words = AGENT.format(site=SITE, name=name, broker=broker, folder=folder, age=age)
        if name == self.agents[-1]:
            words += STRANGE.format(folder=folder, asset=FOREIGN)
            (folder / f"{FOREIGN}.cfg").write_text("hostname stranger\n")
        (folder / "agent.yaml").write_text(words)
        return _python("agent.cli", "run", folder / "agent.yaml", lambda: self.spool(name).exists())

    def _collector(self, name: str, broker: str) -> Daemon:
        folder, page = self.folder / name, free_port()
        folder.mkdir()
        words = COLLECTOR.format(
            site=SITE,
            broker=broker,
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


def _way(broker: ShippedBroker, user: str) -> str:
    """Let a user in; gives the section of its configuration."""
    way = broker.add_user(user, f"password of {user}")
    quick = msgspec.structs.replace(way, keepalive_seconds=5, connect_timeout_seconds=5)
    return msgspec.json.encode(quick).decode()


def _python(module: str, command: str, config: Path, is_ready: Callable[[], object]) -> Daemon:
    return Daemon([sys.executable, "-m", module, command, "-c", config], config.parent, is_ready)
