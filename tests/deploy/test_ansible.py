"""The Ansible role, run for real over SSH into two targets: installed, run again, checked, upgraded by hand, taken away.

A target is a mount namespace of its own with an overlay upon this machine's root, dropbear as its sshd, in a network
namespace. No systemd runs there: `systemctl` is a recorder (FAKE_SYSTEMCTL) and named so; that the agent itself runs is seen by starting it
as its user with the files that the role put there.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from namespaces import Network
from servers import program, until

ROOT = Path(__file__).parent.parent.parent
ROLE = ROOT / "deploy" / "ansible"
PORTS = {"his-db-1": 2201, "gateway-1": 2202}

FAKE_SYSTEMCTL = """#!/bin/sh
# A recorder in place of systemctl: what was called, and what would be so afterwards. Nothing is started.
echo "$@" >> /root/systemctl.log
state=/root/systemctl.state; touch $state
case "$1" in
  show) echo Id=infravitals-agent.service; echo LoadState=loaded; if grep -qx active $state; then echo ActiveState=active; else echo ActiveState=inactive; fi;;
  is-enabled) if grep -qx enabled $state; then echo enabled; else echo disabled; exit 1; fi;;
  is-active) if grep -qx active $state; then echo active; else echo inactive; exit 3; fi;;
  enable) echo enabled >> $state;;
  start|restart) echo active >> $state;;
  disable) sed -i /enabled/d $state;;
  stop) sed -i /active/d $state;;
esac
exit 0
"""

TARGET = """
mount -t tmpfs none {folder}/layers
mkdir {folder}/layers/upper {folder}/layers/work {folder}/layers/root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/layers/upper,workdir={folder}/layers/work {folder}/layers/root
cd {folder}/layers/root
rm -rf opt/infravitals* etc/infravitals-agent var/cache/infravitals var/lib/infravitals-agent root/.ssh
mount -t proc none proc; mount --rbind /dev dev
mkdir -p root/.ssh etc/systemd/system; chmod 700 root root/.ssh
cp {folder}/../key.pub root/.ssh/authorized_keys
cp {folder}/hostkey root/.ssh/host
cp {folder}/../systemctl usr/bin/systemctl
exec chroot . {dropbear} -F -E -s -p 127.0.0.1:{port} -r /root/.ssh/host
"""


class Targets:
    """Two machines to install onto, the site that their agents join, and the playbook's runs."""

    def __init__(self, network: Network, folder: Path) -> None:
        [self._inside] = network.add("targets")
        self.folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        self._environment = {**os.environ, "HOME": str(folder), "ANSIBLE_CONFIG": str(ROLE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "INFRAVITALS_LANG": "en", "LC_ALL": "C.UTF-8"}  # fmt: skip

    def run(self, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """A command beside the targets, to its end."""
        return subprocess.run(
            self._inside.command(*words), cwd=self.folder, env={**self._environment, **more}, capture_output=True, text=True, timeout=300
        )  # fmt: skip

    def start(self, name: str, port: int) -> None:
        folder = self.folder / name
        (folder / "layers").mkdir(parents=True)
        script = TARGET.format(folder=folder, port=port, dropbear=program("dropbear", "dropbear-bin"))
        with (folder / "sshd.log").open("wb") as log:
            words = self._inside.command(
                "sh", "-euc", f"dropbearkey -t ed25519 -f {folder}/hostkey >/dev/null; {script}"
            )
            self._processes.append(subprocess.Popen(words, stdout=log, stderr=log))

    def inside(self, name: str, command: str) -> str:
        """What a command says that root runs on a target, over SSH as Ansible does."""
        key = ["-i", str(self.folder / "key"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]  # fmt: skip
        done = self.run(program("ssh", "openssh-client"), *key, "-p", str(PORTS[name]), "root@127.0.0.1", command)
        assert done.returncode == 0, done.stderr + (self.folder / name / "sshd.log").read_text()
        return done.stdout

    def play(self, *words: str, inventory: str = "inventory.yaml") -> subprocess.CompletedProcess[str]:
        """The example playbook on an inventory of this folder."""
        extra = f"infravitals_agent_bundle={self.folder}/agent.tar.gz infravitals_agent_site={self.folder}/hospital infravitals_agent_command={Path(sys.executable).parent}/infravitals"
        return self.run(program("ansible-playbook", "ansible-core"), ROLE / "agents.yaml", "-i", self.folder / inventory, "-e", extra, *words)  # fmt: skip

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def changes(said: str) -> Mapping[str, tuple[int, int]]:
    """Of each host in a recap: how many tasks changed something, how many failed."""
    found = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", said, re.MULTILINE)
    assert found, said
    return {host: (int(changed), int(away) + int(failed)) for host, changed, away, failed in found}


HOST = "        {name}: {{ansible_host: 127.0.0.1, ansible_port: {port}{more}}}\n"
HEAD = """infravitals_agents:
  vars:
    ansible_user: root
    ansible_python_interpreter: /usr/bin/python3
    ansible_ssh_private_key_file: {folder}/key
    ansible_ssh_common_args: -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
  hosts:
"""


def inventory_of(folder: Path, *hosts: str) -> str:
    return HEAD.format(folder=folder) + "".join(hosts).replace("        ", "    ")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    folder = tmp_path_factory.mktemp("an")
    bundle = [sys.executable, str(ROOT / "tools" / "make_bundle.py"), "-o", str(folder / "agent.tar.gz")]
    subprocess.run(bundle, check=True, stdout=subprocess.DEVNULL)
    site = [str(Path(sys.executable).parent / "infravitals"), "site", "init", "--dir", str(folder / "hospital")]
    subprocess.run([*site, "--name", "my-hospital", "--host", "127.0.0.1"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    (folder / "systemctl").write_text(FAKE_SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    plain = HOST.format(name="his-db-1", port=PORTS["his-db-1"], more="")
    (folder / "inventory.yaml").write_text(
        inventory_of(
            folder,
            plain,
            HOST.format(name="gateway-1", port=PORTS["gateway-1"], more=", infravitals_agent_role: gateway"),
        )
    )
    (folder / "more.yaml").write_text(
        inventory_of(
            folder,
            HOST.format(
                name="his-db-1",
                port=PORTS["his-db-1"],
                more=", infravitals_agent_sources: {systemd_units: {units: [ssh.service]}}",
            ),
        )
    )
    (folder / "named-twice.yaml").write_text(
        inventory_of(
            folder, plain, HOST.format(name="other", port=PORTS["gateway-1"], more=", infravitals_agent_name: his-db-1")
        )
    )
    (folder / "written-twice.yaml").write_text(inventory_of(folder, plain, plain))
    with Network("an") as network:
        made = Targets(network, folder)
        try:
            for name, port in PORTS.items():
                made.start(name, port)
                until(lambda name=name: "Not backgrounding" in (folder / name / "sshd.log").read_text())  # type: ignore[misc]
            yield made
        finally:
            made.end()


def test_role_is_clean_by_ansible_lint() -> None:
    words = [
        program("ansible-lint", "ansible-lint"),
        "--offline",
        "--nocolor",
        "--profile",
        "production",
        "agents.yaml",
    ]
    done = subprocess.run(words, cwd=ROLE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(targets: Targets) -> Targets:
    """Both targets after a run of the playbook, before which it had only looked."""
    looked = targets.play("--check", "--diff")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert not (targets.folder / "hospital" / "agents" / "his-db-1.tar").exists()
    assert targets.inside("his-db-1", "ls -d /opt/infravitals* /etc/infravitals-agent 2>/dev/null || true") == ""
    done = targets.play()
    assert done.returncode == 0, done.stdout + done.stderr
    return targets


def test_second_run_changes_nothing_and_shows_no_password(installed: Targets) -> None:
    second = installed.play("--diff")
    assert changes(second.stdout) == {"his-db-1": (0, 0), "gateway-1": (0, 0)}, second.stdout
    password = (installed.folder / "hospital/agents/his-db-1/credentials/broker-password").read_text().strip()
    assert len(password) > 20 and password not in second.stdout + second.stderr


def test_agent_has_what_the_site_gave_it_and_is_started_once(installed: Targets) -> None:
    modes = installed.inside(
        "his-db-1", "cd /etc/infravitals-agent; stat -c '%a %U %n' credentials/* credentials agent.yaml ca.pem"
    )
    assert modes.splitlines() == [
        "600 root credentials/broker-password",
        "700 root credentials",
        "644 root agent.yaml",
        "644 root ca.pem",
    ]
    for member in ("agent.yaml", "ca.pem", "credentials/broker-password"):
        tar = ["tar", "-xOf", str(installed.folder / "hospital/agents/his-db-1.tar"), f"his-db-1/{member}"]
        packed = subprocess.run(tar, capture_output=True, check=True, text=True)
        assert installed.inside("his-db-1", f"cat /etc/infravitals-agent/{member}") == packed.stdout
    calls = installed.inside("his-db-1", "cat /root/systemctl.log").splitlines()
    assert [call for call in calls if call.startswith("enable")] == ["enable infravitals-agent"]
    assert "gateway.conf" in installed.inside("gateway-1", "ls /etc/systemd/system/infravitals-agent.service.d")


def test_installed_agent_runs_as_its_user(installed: Targets) -> None:
    command = (
        "cp -r /etc/infravitals-agent/credentials /run/cred && chown -R infravitals-agent /run/cred || exit 1; "
        "CREDENTIALS_DIRECTORY=/run/cred INFRAVITALS_LANG=en setpriv --reuid infravitals-agent --regid infravitals-agent --clear-groups "
        "/opt/infravitals/bin/infravitals-agent run -c /etc/infravitals-agent/agent.yaml >/run/agent.log 2>&1 & "
        "for turn in $(seq 600); do grep -qs 'gathers from' /run/agent.log && break; sleep 0.1; done; "
        "kill $!; wait $!; cat /run/agent.log; ls /var/lib/infravitals-agent; rm -r /run/cred /run/agent.log"
    )
    said = installed.inside("his-db-1", command)
    assert "my-hospital/his-db-1 gathers from" in said and "spool.sqlite" in said


def test_change_restarts_the_agent_once_and_only_then(installed: Targets) -> None:
    before = installed.inside("his-db-1", "grep -c ^restart /root/systemctl.log")
    done = installed.play(inventory="more.yaml")
    assert changes(done.stdout)["his-db-1"] == (2, 0), done.stdout  # the file, and the handler
    assert int(installed.inside("his-db-1", "grep -c ^restart /root/systemctl.log")) == int(before) + 1
    assert "ssh.service" in installed.inside("his-db-1", "cat /etc/infravitals-agent/conf.d/ansible.yaml")


@pytest.mark.parametrize(
    ("inventory", "sentence"),
    [
        ("named-twice.yaml", "the agent's name 'his-db-1' stands twice"),
        ("written-twice.yaml", "found a duplicate dict key (his-db-1)"),
    ],
)
def test_name_that_stands_twice_stops_before_anything_is_done(
    installed: Targets, inventory: str, sentence: str
) -> None:
    before = {name: installed.inside(name, "cat /root/systemctl.log 2>/dev/null | wc -l") for name in PORTS}
    done = installed.play(inventory=inventory)
    assert done.returncode != 0 and sentence in re.sub(r"\s+", " ", (done.stdout + done.stderr).replace("\\n", " ")), done.stdout + done.stderr  # fmt: skip
    assert {name: installed.inside(name, "cat /root/systemctl.log 2>/dev/null | wc -l") for name in PORTS} == before


def test_uninstall_leaves_the_spool_and_nothing_else(installed: Targets) -> None:
    done = installed.play("-t", "uninstall", "-l", "his-db-1")
    assert done.returncode == 0, done.stdout + done.stderr
    left = installed.inside("his-db-1", "ls -d /opt/infravitals* /etc/infravitals-agent /var/cache/infravitals /var/lib/infravitals-agent /etc/systemd/system/infravitals* 2>/dev/null || true; id infravitals-agent 2>&1 || true")  # fmt: skip
    assert (
        left.splitlines()[0] == "/var/lib/infravitals-agent" and "no such user" in left and len(left.splitlines()) == 2
    )
