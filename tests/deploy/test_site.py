"""docs/site.md followed word for word in network namespaces: made, started, joined, polled, scored, examined, torn down."""

import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest
import urllib3
from namespaces import Network, zones
from servers import program, until

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "site.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)

LASTING = ("mosquitto -c", "influxd ", "infravitals serve", "infravitals-agent run")
"""What runs until it is ended; every other command of the page ends by itself."""
NAME, SWITCH = "mqtt.hospital.local", "core-switch-1.hospital.local"
MACHINES = ("his-db-1", "his-db-2", "gateway-1", "switch")
SCRAPE = (
    f"python -c \"import ssl, urllib.request as u; t = open('hospital/collector/credentials/metrics-token').read().strip(); "
    f"c = ssl.create_default_context(cafile='hospital/ca/ca.pem'); "
    f"print(u.urlopen(u.Request('https://{NAME}:8650/metrics', headers={{'Authorization': 'Bearer ' + t}}), context=c).read().decode())\""
)
COMMUNITY = "canary-community-of-this-test"


class Machine:
    """A namespace with a folder of its own, `/var/lib` of its own, and what was started there."""

    def __init__(self, network: Network, name: str, folder: Path, hosts: Path) -> None:
        self.network, self.name, self.folder, self._hosts = network, name, folder, hosts
        self.processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir()

    def script(self, text: str, **options: object) -> "subprocess.Popen[bytes]":
        """A shell inside, in the machine's folder."""
        private = f"mount --bind {self._hosts} /etc/hosts && mount -t tmpfs none /var/lib && "
        words = self.network[self.name].command("sh", "-euc", f"{private}{text}")
        return subprocess.Popen(words, cwd=self.folder, env=ENVIRONMENT, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]

    def run(self, command: str) -> str:
        """A command that ends by itself, and must end well; what it said."""
        process = self.script(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said: bytes = process.communicate(timeout=180)[0]
        assert process.returncode == 0, f"{command}\n{said.decode()}"
        return said.decode()

    def start(self, command: str) -> Path:
        """A command that lasts; the file of what it says."""
        log = self.folder / f"{re.sub('[^a-z]+', '-', command)[:40]}-{len(self.processes)}.log"
        with log.open("wb") as file:
            self.processes.append(self.script(f"exec {command}", stdout=file, stderr=file))
        return log

    def follow(self, block: str) -> list[str]:
        """The commands of a block one after the other; what those said that end."""
        said = []
        for command in commands_of(block):
            if command.startswith(LASTING):
                self.start(command)
            else:
                said.append(self.run(command))
        return said

    def end(self) -> list[int]:
        """End all that lasts, last started first; their exit codes."""
        codes = []
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            codes.append(process.wait(60))
        self.processes.clear()
        return codes


ENVIRONMENT: Mapping[str, str] = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
    "INFRAVITALS_LANG": "en",
    "MIBS": "",
}


def commands_of(block: str) -> Iterator[str]:
    """The commands of a block; what belongs to a here-document stays with its command."""
    lines = iter(block.splitlines())
    for line in lines:
        if "<<'END'" not in line:
            yield line
            continue
        held = [line]
        for more in lines:
            held.append(more)
            if more == "END":
                break
        yield "\n".join(held)


def block_with(words: str) -> str:
    """The one block of the page that holds these words."""
    [found] = [block for block in BLOCKS if words in block]
    return found


class Hospital:
    """The collector's machine, three servers and a switch, each in a namespace, and their names."""

    def __init__(self, network: Network, folder: Path) -> None:
        network.add("center", *MACHINES)
        addresses = dict(zip(MACHINES, zones(network, "center", MACHINES), strict=True))
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n10.77.1.1 {NAME}\n{addresses['switch']} {SWITCH}\n")
        self.machines = {name: Machine(network, name, folder / name, hosts) for name in ("center", *MACHINES)}
        self.center = self.machines["center"]
        self.site = self.center.folder / "hospital"

    def follow(self, words: str) -> list[str]:
        """The block with these words, on the collector's machine."""
        return self.center.follow(block_with(words))

    def carry(self, name: str) -> None:
        """What `scp` would do with an agent's bundle."""
        shutil.copy(self.site / "agents" / f"{name}.tar", self.machines[name].folder)

    def end(self) -> None:
        for machine in self.machines.values():
            machine.end()


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    for name, package in (
        ("mosquitto", "mosquitto"),
        ("influxd", "influxdb"),
        ("snmpd", "snmpd"),
        ("chronyd", "chrony"),
    ):
        program(name, package)
    with Network("iv") as network:
        made = Hospital(network, tmp_path)
        try:
            yield made
        finally:
            made.end()


def start_switch(machine: Machine) -> None:
    """A device that answers SNMP to whoever knows the community."""
    settings = f"agentaddress udp:161\nrocommunity {COMMUNITY}\nsysName core-switch-1\n"
    (machine.folder / "snmpd.conf").write_text(settings)
    machine.start("env SNMP_PERSISTENT_DIR=persistent snmpd -C -c snmpd.conf -f -Lo")


def keep_time(server: Machine, client: Machine) -> None:
    """A clock that a time service watches, as a hospital's has; chronyd is told to leave the system's own alone (-x)."""
    for machine, settings in (
        (server, "local stratum 3\nallow 10.77.0.0/16\ncmdport 0\n"),
        (client, "server 10.77.4.10 iburst minpoll -3 maxpoll -3\nport 0\n"),
    ):
        own = f"pidfile {machine.folder}/chrony.pid\nbindcmdaddress {machine.folder}/c.sock\n"
        (machine.folder / "chrony.conf").write_text(settings + own)
        machine.folder.chmod(0o750)
        machine.start(f"chronyd -x -d -u root -f {machine.folder}/chrony.conf")
    client.run("chronyc -h 127.0.0.1 waitsync 1200 0 0 0.1")


class Page:
    """A reader of the page on another machine: trusts the site's authority, knows the password."""

    def __init__(self, machine: Machine, site: Path) -> None:
        self._inside, self._site = machine.network[machine.name], site
        self._cookie = ""

    def ask(self, path: str, method: str = "GET", body: str = "") -> tuple[int, http.client.HTTPMessage, bytes]:
        def call() -> tuple[int, http.client.HTTPMessage, bytes]:
            context = ssl.create_default_context(cafile=str(self._site / "ca" / "ca.pem"))
            connection = http.client.HTTPSConnection("10.77.1.1", 8650, context=context, timeout=30)
            context.check_hostname = False  # the name is in this test's own list of hosts, not in this process's
            with closing(connection):
                connection.request(method, path, body, {"Host": f"{NAME}:8650", "Cookie": self._cookie})
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()

        return self._inside.call(call)

    def log_in(self) -> None:
        password = (self._site / "collector" / "page.password").read_text().strip()
        status, headers, _ = self.ask("/login", "POST", urlencode({"password": password}))
        assert status == 303
        self._cookie = headers["set-cookie"].split(";")[0]


def rows(hospital: Hospital, query: str) -> list[list[object]]:
    """What InfluxDB answers to Grafana's identity, which may only read."""
    password = (hospital.site / "grafana" / "influx.password").read_text().strip()

    def call() -> list[list[object]]:
        headers = urllib3.make_headers(basic_auth=f"grafana:{password}")
        address = "http://127.0.0.1:8086/query?" + urlencode({"db": "infravitals", "q": query})
        answer = urllib3.request("GET", address, headers=headers, retries=False)
        assert answer.status == 200, answer.data
        [result] = json.loads(answer.data)["results"]
        return [row for series in result.get("series", ()) for row in series["values"]]

    center = hospital.center
    return center.network[center.name].call(call)


def written_by_grafana(hospital: Hospital) -> int:
    """The status of a write by the identity that may only read."""
    password = (hospital.site / "grafana" / "influx.password").read_text().strip()

    def call() -> int:
        headers = urllib3.make_headers(basic_auth=f"grafana:{password}")
        address = "http://127.0.0.1:8086/write?db=infravitals"
        return urllib3.request("POST", address, body=b"score low=100", headers=headers, retries=False).status

    return hospital.center.network[hospital.center.name].call(call)


def agents_with_data(hospital: Hospital) -> set[object]:
    return {row[1] for row in rows(hospital, 'SHOW TAG VALUES FROM "source_round" WITH KEY = "agent"')}


def test_page_is_followed_word_for_word(hospital: Hospital) -> None:
    follow, machines = hospital.follow, hospital.machines
    [said] = follow("site init")
    assert "next, one after the other" in said
    for words in ("mosquitto -c", "influxd -config"):
        follow(words)
    until(lambda: "running" in log_of(hospital.center, "mosquitto"))
    until(lambda: influx_is_up(hospital))
    [said] = follow("site database")
    assert "administrator admin made" in said and "user grafana may read infravitals and no more" in said
    follow("infravitals serve")
    follow("agents/collector-1/agent.yaml")
    assert len(follow("site add-agent his-db-1")) == 3

    start_switch(machines["switch"])
    keep_time(machines["switch"], hospital.center)
    (machines["gateway-1"].folder / "community.txt").write_text(COMMUNITY)
    for name in ("his-db-1", "his-db-2", "gateway-1"):
        hospital.carry(name)
        machines[name].follow(block_with(f"tar -xf {name}.tar"))
    until(lambda: agents_with_data(hospital) == {"collector-1", "his-db-1", "his-db-2", "gateway-1"}, 120)
    until(lambda: polled_interfaces(hospital), 120)

    assert written_by_grafana(hospital) == 403
    page = Page(machines["his-db-1"], hospital.site)
    assert page.ask("/")[1]["location"] == "/login?next=/"
    assert page.ask("/api/scorecard")[0] == 401
    page.log_in()
    until(lambda: page.ask("/api/scorecard")[0] == 200, 60)
    until(lambda: completeness(page).get("provisional"), 60)
    metrics = hospital.center.run(SCRAPE)
    assert 'infravitals_certificate_expiry_timestamp_seconds{role="page"}' in metrics
    assert b"his-db-1" in page.ask("/agents")[2]

    doctor, score, status = follow("infravitals doctor")
    assert "✗" not in doctor
    assert "telemetry-completeness" in score
    assert "✕" not in status
    assert "core-switch-1" in follow("register draft")[0] + (hospital.site / "site" / "register.yaml").read_text()

    restart_collector(hospital)
    until(lambda: rows(hospital, 'SELECT "low" FROM "score" WHERE "node" = \'total\''), 120)

    follow("site remove-agent")
    until(lambda: "my-hospital/his-db-2" in log_of(hospital.center, "mosquitto").split("Reloading config")[-1], 60)
    until(lambda: certificate(page))  # the collector was started anew
    before = certificate(page)
    follow("site renew")
    until(lambda: certificate(page) not in ("", before))
    saved, restored, status = follow("infravitals backup")
    assert "the data are InfluxDB's" in saved and "every digest agrees" in restored and "✕" not in status
    assert page.ask("/")[1]["location"] == "/login?next=/"  # the restart forgot the session

    assert set(machines["his-db-1"].end()) == {0}
    assert set(machines["gateway-1"].end()) == {0}
    assert hospital.center.end()[:2] == [0, 0]
    refuse_traces_of_secrets(hospital)


def log_of(machine: Machine, beginning: str) -> str:
    """What all programs said whose command begins so."""
    found = sorted(machine.folder.glob(f"{beginning}*.log"))
    return "".join(path.read_text(errors="replace") for path in found)


def influx_is_up(hospital: Hospital) -> bool:
    def call() -> bool:
        try:
            return urllib3.request("GET", "http://127.0.0.1:8086/ping", retries=False, timeout=1).status == 204
        except urllib3.exceptions.HTTPError:
            return False

    return hospital.center.network[hospital.center.name].call(call)


def polled_interfaces(hospital: Hospital) -> list[list[object]]:
    return rows(hospital, 'SELECT * FROM "net_interface" WHERE "asset" = \'core-switch-1\' LIMIT 1')


def completeness(page: Page) -> dict[str, object]:
    card = json.loads(page.ask("/api/scorecard")[2])
    found = [one for node in card["nodes"] for one in node["criteria"] if one["id"] == "telemetry-completeness"]
    return dict(found[0])


def certificate(page: Page) -> str:
    """The page's; empty while nobody shows one."""

    def call() -> str:
        try:
            return ssl.get_server_certificate(("10.77.1.1", 8650))
        except OSError:
            return ""

    return page._inside.call(call)


def restart_collector(hospital: Hospital) -> None:
    """At its start it stores the scores of the full hour before, without waiting for the next one."""
    [index] = [n for n, one in enumerate(hospital.center.processes) if "infravitals serve" in str(one.args)]
    old = hospital.center.processes.pop(index)
    old.send_signal(signal.SIGTERM)
    assert old.wait(60) == 0
    hospital.center.start(block_with("infravitals serve").strip())


def refuse_traces_of_secrets(hospital: Hospital) -> None:
    """No log of any program shows a password of the site, or the devices' community."""
    secrets = [path.read_text().strip() for path in hospital.site.rglob("credentials/*")]
    secrets += [path.read_text().strip() for path in hospital.site.rglob("*.password")] + [COMMUNITY]
    logs = [path for machine in hospital.machines.values() for path in machine.folder.glob("*.log")]
    assert len(secrets) > 8 and len(logs) > 6
    assert not [path.name for path in logs for secret in secrets if secret in path.read_text(errors="replace")]


def test_every_command_of_the_page_is_followed() -> None:
    here = Path(__file__).read_text("utf-8")
    followed = re.findall(r'follow\("([^"]+)"\)|for words in \(([^)]*)\)', here)
    words = {word for one, several in followed for word in [one, *re.findall('"([^"]+)"', several)] if word}
    words |= {f"tar -xf {name}.tar" for name in ("his-db-1", "his-db-2", "gateway-1")}
    unfollowed = [block for block in BLOCKS if not any(word in block for word in words)]
    assert not unfollowed
