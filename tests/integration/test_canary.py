"""A canary in every place of a secret, and everything that the two programs print, serve and write looked through for it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers import Authority, Influx, free_port, until
from shipped_broker import SITE, ShippedBroker
from unprivileged import open_folder

CANARY = "canary-8c41"
"""Part of every secret here."""
PLACES = ("file", "env", "credential")

AGENT = """
site: my-hospital
agent: his-db-1
broker:
  host: 127.0.0.1
  port: {port}
  tls: {{ca: {ca}}}
  password: {password}
state_directory: {folder}/state
log: {{level: debug, format: {format}}}
sources:
  host_uptime: {{interval_seconds: 1}}
"""

COLLECTOR = """
site: my-hospital
broker:
  host: 127.0.0.1
  port: {port}
  tls: {{ca: {ca}}}
  username: collector
  password: {password}
data_directory: {folder}/data
page: {{port: {page}}}
log: {{level: debug, format: {format}}}
"""


class Site:
    """A shipped broker that knows both users, their secrets in every place, and what was said so far."""

    def __init__(self, folder: Path, broker: ShippedBroker) -> None:
        self.folder, self.broker, self.page = folder, broker, free_port()
        self.said: list[str] = []
        self.environment = {**os.environ, "INFRAVITALS_LANG": "en", "CREDENTIALS_DIRECTORY": str(folder / "secrets")}
        for user in (f"{SITE}/his-db-1", "collector"):
            password = f"{CANARY}-{user}"
            broker.add_user(user, password)
            self.environment[self._name(user)] = password
        broker.reload()

    @staticmethod
    def _name(user: str) -> str:
        return f"PASSWORD_{re.sub('[^a-z0-9]', '_', user)}"

    def reference(self, user: str, place: str) -> str:
        """Where the user's password stands, as a configuration says it."""
        name = user.replace("/", "_")
        return {
            "file": f"{{file: {self.folder}/secrets/{name}}}",
            "env": f"{{env: {self._name(user)}}}",
            "credential": f"{{credential: {name}}}",
        }[place]

    def write(self, place: str = "file", log_format: str = "line", **changes: object) -> None:
        """Both configurations."""
        words = {"port": self.broker.port, "ca": self.broker.authority.certificate, "folder": self.folder}
        words |= {"page": self.page, "format": log_format}
        for name, user, text in (("agent", f"{SITE}/his-db-1", AGENT), ("collector", "collector", COLLECTOR)):
            password = self.reference(user, place)
            (self.folder / f"{name}.yaml").write_text(text.format(**{**words, "password": password, **changes}))

    def run(self, *words: str) -> str:
        """What a command says, both streams, until it ends."""
        done = subprocess.run(self._argv(*words), env=self.environment, capture_output=True, text=True, timeout=180)
        self.said.append(done.stdout + done.stderr)
        return self.said[-1]

    @contextmanager
    def running(self, *words: str) -> Iterator[Path]:
        """A command that runs until it is ended; gives the file with what it says."""
        log = self.folder / f"{len(self.said)}-{words[1]}.log"
        with log.open("w") as out:
            process = subprocess.Popen(self._argv(*words), env=self.environment, stdout=out, stderr=out)
        try:
            yield log
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            self.said.append(log.read_text())

    def _argv(self, module: str, *words: str) -> list[str]:
        return [sys.executable, *(() if module == "-c" else ("-m",)), module, *words]

    def agent(self) -> tuple[str, ...]:
        return ("agent.cli", "run", "-c", f"{self.folder}/agent.yaml")

    def collector(self) -> tuple[str, ...]:
        return ("collector.cli", "serve", "-c", f"{self.folder}/collector.yaml")

    def pages(self) -> dict[str, str]:
        """Every page that can be reached from the first, and a few that are not linked."""
        found: dict[str, str] = {}
        waiting = ["/", "/api/scorecard", "/metrics", "/api/nothing", f"/node/{CANARY[:4]}"]
        while waiting and len(found) < 200:
            path = waiting.pop(0)
            if path not in found:
                found[path] = self.get(path)
                waiting += re.findall(r'href="(/[^"#]*)"', found[path])
        return found

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}{path}", timeout=60) as answer:
                return f"{answer.headers}\n{answer.read().decode(errors='replace')}"
        except urllib.error.HTTPError as error:
            return f"{error.headers}\n{error.read().decode(errors='replace')}"

    def assert_silent(self) -> None:
        """The canary is in nothing that was said, and in no file that the programs wrote."""
        assert [text for text in self.said if CANARY in text] == []
        written = [path for name in ("state", "data") for path in (self.folder / name).glob("**/*") if path.is_file()]
        assert [path for path in written if CANARY.encode() in path.read_bytes()] == []


@pytest.fixture
def site() -> Iterator[Site]:
    with open_folder() as folder, ShippedBroker(folder) as broker:
        yield Site(folder, broker)


@pytest.mark.parametrize(("place", "log_format"), [("file", "line"), ("env", "json"), ("credential", "json")])
def test_canary_is_in_nothing_that_a_working_line_says_or_keeps(site: Site, place: str, log_format: str) -> None:
    site.write(place, log_format)
    with site.running(*site.collector()) as told, site.running(*site.agent()):
        until(lambda: "its page is" in told.read_text(), 60)
        until(lambda: "his-db-1" in site.get("/agents"), 60)
        if place == "file":
            look_everywhere(site)
    assert (site.folder / "state" / "spool.sqlite").exists()
    site.assert_silent()


def look_everywhere(site: Site) -> None:
    """The pages, the commands beside a running collector, and the command lines that everybody may read."""
    pages = site.pages()
    assert len(pages) > 10
    site.said += pages.values()
    for words in (("score",), ("quarantine",), ("history",), ("explain", "telemetry-completeness")):
        site.run("collector.cli", *words, "-c", f"{site.folder}/collector.yaml", "--format", "json")
    for program, config in (("agent.cli", "agent.yaml"), ("collector.cli", "collector.yaml")):
        assert "is refused" in site.run(program, "doctor", "-c", f"{site.folder}/{config}", "--format", "json")
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            site.said.append(command_line.read_bytes().decode(errors="replace"))


STORES = {
    "right password": ("database: vitals, user: keeper, password: {env: KEEPER}", "influxdb was written and read back"),
    "wrong password": (
        "database: vitals, user: keeper, password: {env: WRONG}",
        "the store cannot be written and read",
    ),
    "token": ("bucket: vitals, org: hospital, token: {env: WRONG}", "give database, user and password, not bucket"),
}


@pytest.mark.parametrize("store", STORES)
def test_canary_as_the_store_s_secret_is_in_no_word(site: Site, store: str, tmp_path: Path) -> None:
    section, sentence = STORES[store]
    site.environment |= {"KEEPER": f"{CANARY}-store", "WRONG": f"{CANARY}-wrong"}
    with Influx(tmp_path / "influx") as influx:
        influx.ask("CREATE DATABASE vitals")
        influx.ask(f"CREATE USER keeper WITH PASSWORD '{CANARY}-store'; GRANT ALL ON vitals TO keeper")
        site.write()
        with (site.folder / "collector.yaml").open("a") as file:
            file.write(f"store: {{kind: influxdb, url: '{influx.url}', {section}}}\n")
        assert sentence in site.run("collector.cli", "doctor", "-c", f"{site.folder}/collector.yaml")
        for command in ("ledger", "history"):
            site.run("collector.cli", command, "-c", f"{site.folder}/collector.yaml")
    site.assert_silent()


TROUBLES = {
    "nobody there": ({"port": "1"}, "connection refused"),
    "another authority": ({"ca": "{other}"}, "its certificate is not trusted"),
    "certificate that is none": ({"ca": "{folder}/agent.yaml"}, "cannot use the certificate files"),
    "wrong password": ({"password": "{{env: WRONG}}"}, "the login was refused"),
    "password that is not there": ({"password": "{{env: NOT_SET}}"}, "the environment variable NOT_SET is not set"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_canary_is_in_no_sentence_about_trouble(site: Site, trouble: str, tmp_path: Path) -> None:
    changes, sentence = TROUBLES[trouble]
    site.environment["WRONG"] = f"{CANARY}-wrong"
    other = Authority(tmp_path, "another authority").certificate
    changes = {key: text.format(other=other, folder=site.folder) for key, text in changes.items()}
    site.write("file", "json", **changes)
    with site.running(*site.collector()) as told, site.running(*site.agent()) as own:
        until(lambda: sentence in told.read_text() and sentence in own.read_text(), 60)
    lines = (told.read_text() + own.read_text()).splitlines()
    assert {tuple(json.loads(line)) for line in lines} == {("time_seconds", "level", "logger", "text")}
    site.assert_silent()


INLINE = {
    CANARY: "do not write the secret itself here",
    f"[{CANARY}]": "do not write the secret itself here",
    f"{{file: x, value: {CANARY}}}": "unknown key 'value'",
    f"{{env: {CANARY}}}": "env is the name of a variable",
    f'"{CANARY}': "not valid YAML",
}
"""What a person may write for a password, and what is said of it."""


def test_canary_that_stands_in_the_file_itself_is_complained_of_and_not_shown(site: Site) -> None:
    for password, complaint in INLINE.items():
        site.write(password=password)
        agent, collector = f"{site.folder}/agent.yaml", f"{site.folder}/collector.yaml"
        for words in (("check", "--format", "json"), ("run",)):
            assert complaint in site.run("agent.cli", *words, "-c", agent)
        assert complaint in site.run("collector.cli", "serve", "-c", collector)
    site.assert_silent()


FAILS_IN_A_SESSION = """
import asyncio, sys
from pathlib import Path
from agent.config import read_config
from agent.logs import set_up_logging
from agent.mqtt import MqttLink
from agent.wire import Address

async def main(config):
    link = MqttLink(config.broker, Address(config.site, config.agent))
    async with link.session() as session:
        await session.send(None, "boot", 0, 0)

config = read_config(Path(sys.argv[1]))
set_up_logging(config.log)
asyncio.run(main(config))
"""


@pytest.mark.parametrize("log_format", ["line", "json"])
def test_canary_is_in_no_traceback(site: Site, log_format: str) -> None:
    site.write("file", log_format)
    said = site.run("-c", FAILS_IN_A_SESSION, f"{site.folder}/agent.yaml")
    if log_format == "json":
        said = json.loads(said.splitlines()[-1])["traceback"]
    assert "Traceback (most recent call last):" in said
    assert "TypeError" in said
    site.assert_silent()


@pytest.mark.parametrize("unfit", ["changeme", ""])
def test_neither_program_starts_with_a_secret_out_of_an_example(site: Site, unfit: str) -> None:
    site.environment["UNFIT"] = unfit
    site.write(password="{env: UNFIT}")
    for argv in (site.agent(), site.collector()):
        done = subprocess.run(
            [sys.executable, "-m", *argv], env=site.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 2
        assert done.stderr.startswith("the secret in the environment variable UNFIT is of no use: it ")
        assert done.stderr.count("\n") == 1
    assert not (site.folder / "data").exists()
    assert not (site.folder / "state").exists()
