"""The units as systemd's own tools see them: no complaint, the exposure that the page states, users and folders that get made."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import program

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "deploy" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
PAGE = (ROOT / "docs" / "site.md").read_text("utf-8")


def analyze(*words: str | Path) -> str:
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the programs of this checkout, since /opt/infravitals is nowhere here."""
    shutil.copytree(UNITS, tmp_path / "units")
    for path in (tmp_path / "units").glob("*.service"):
        path.write_text(path.read_text("utf-8").replace("/opt/infravitals/bin/", f"{Path(sys.executable).parent}/"))
    return tmp_path / "units"


def test_systemd_finds_nothing_to_complain_about(installed: Path) -> None:
    for program_name, package in (("mosquitto", "mosquitto"), ("influxd", "influxdb")):
        program(program_name, package)
    assert analyze("verify", "--man=no", *(installed / name for name in SERVICES)) == ""


def test_complaint_would_be_seen(installed: Path) -> None:
    unit = installed / "infravitals-agent.service"
    unit.write_text(unit.read_text("utf-8").replace("WatchdogSec=", "WatchDogSeconds="))
    assert "Unknown key 'WatchDogSeconds'" in analyze("verify", "--man=no", unit)


def exposure_of(unit: Path) -> str:
    [exposure] = re.findall(r"Overall exposure level for \S+: (\d\.\d)", analyze("security", "--offline=true", unit))
    return str(exposure)


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_is_what_the_page_states(name: str, tmp_path: Path) -> None:
    shutil.copy(UNITS / name, tmp_path)  # alone: beside it systemd would find its drop-ins
    row = f"| `{name}` | {exposure_of(tmp_path / name)} |"
    assert row in PAGE, f"put into docs/site.md: {row} … |"


def test_exposure_of_a_gateway_is_what_the_page_states(installed: Path) -> None:
    row = f"| `gateway.conf` | {exposure_of(installed / 'infravitals-agent.service')} |"
    assert row in PAGE, f"put into docs/site.md: {row} … |"


def test_every_program_of_ours_tells_and_is_watched() -> None:
    for name in ("infravitals-agent.service", "infravitals-collector.service"):
        text = (UNITS / name).read_text("utf-8")
        assert "\nType=notify\n" in text and re.search(r"^WatchdogSec=\d+$", text, re.MULTILINE)


def test_agent_sees_the_file_systems_as_they_are() -> None:
    """Each of these mounts something read-only or anew inside the service, and host_disk reports what is mounted there."""
    text = (UNITS / "infravitals-agent.service").read_text("utf-8")
    settings = re.findall(r"^(\w+)=", text, re.MULTILINE)
    assert not set(settings) & {
        "ProtectSystem",
        "ProtectHome",
        "PrivateTmp",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "PrivateMounts",
    }


def test_every_credential_is_a_file_that_site_init_makes(tmp_path: Path) -> None:
    from collector.cli import main

    site = tmp_path / "hospital"
    assert main(["site", "init", "--dir", str(site), "--name", "north", "--host", "mqtt.local"]) == 0
    named = re.findall(
        r"^LoadCredential=([\w-]+):(\S+)$", (UNITS / "infravitals-collector.service").read_text(), re.MULTILINE
    )
    assert len(named) == 3
    for name, path in named:
        here = site / Path(path).relative_to("/var/lib/infravitals/hospital")
        assert here.is_file() and here.name == name


def test_users_and_folders_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users, folders = UNITS / "sysusers.conf", UNITS / "tmpfiles.conf"
    subprocess.run([program("systemd-sysusers", "systemd"), f"--root={tmp_path}", users], check=True)
    made = (tmp_path / "etc" / "passwd").read_text()
    assert re.search(r"^infravitals:.*:/var/lib/infravitals:/usr/sbin/nologin$", made, re.MULTILINE)
    assert re.search(r"^infravitals-agent:", made, re.MULTILINE)
    subprocess.run([program("systemd-tmpfiles", "systemd"), "--create", f"--root={tmp_path}", folders], check=True)
    modes = {
        name: (tmp_path / name).stat().st_mode & 0o777 for name in ("var/lib/infravitals", "etc/infravitals-agent")
    }
    assert modes == {"var/lib/infravitals": 0o700, "etc/infravitals-agent": 0o755}


def test_every_unit_that_a_file_names_is_one_that_is_shipped() -> None:
    """What an alert, a page or a sentence of the program tells a person to type."""
    asked = re.compile(r"(?:systemctl(?: --?\w+)* [a-z-]+|journalctl -u) (infravitals[\w.-]*)")
    names: dict[str, str] = {}
    for folder in ("agent", "collector", "deploy", "docs", "tools"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".yaml", ".json", ".html", ".sh"):
                names |= {name.rstrip("."): str(path) for name in asked.findall(path.read_text("utf-8"))}
    assert {"infravitals-agent", "infravitals-collector", "infravitals-broker"} <= set(names)
    unknown = {name: path for name, path in names.items() if f"{name.removesuffix('.service')}.service" not in SERVICES}
    assert not unknown
