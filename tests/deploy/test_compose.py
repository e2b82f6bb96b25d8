"""The compose file against the published schema and Debian's docker-compose, over a site that site init made. No engine runs here."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from servers import program

from agent.config import read_config as read_agent
from agent.documents import read_document
from collector.cli import main
from collector.config import read_config

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "compose"
COMPOSE = FOLDER / "compose.yaml"
SCHEMA = Path("/usr/lib/python3/dist-packages/compose/config/compose_spec.json")
"""The Compose Specification's schema (github.com/compose-spec, Apache-2.0) as Debian's docker-compose ships it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "hospital"
    words = ["site", "init", "--dir", str(folder), "--name", "north", "--host", "mqtt.hospital.local"]
    assert main([*words, "--agent", "gateway-1", "--influxdb", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def resolved(site: Path) -> Mapping[str, Any]:
    """The file as compose reads it, every variable in its place."""
    variables = dict(re.findall(r"^(\w+)=(.*)$", (site / "compose.env").read_text(), re.MULTILINE))
    words = [program("docker-compose", "docker-compose"), "-f", str(COMPOSE), "config"]
    done = subprocess.run(words, env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (site / "resolved.yaml").write_text(done.stdout)
    return read_document(site / "resolved.yaml").value  # type: ignore[no-any-return]


def test_file_is_valid_by_the_published_schema(resolved: Mapping[str, Any]) -> None:
    assert SCHEMA.exists(), "no schema: apt-get install -y --no-install-recommends docker-compose"
    schema = jsonschema.Draft201909Validator(json.loads(SCHEMA.read_text()))
    schema.validate(resolved)
    with pytest.raises(jsonschema.ValidationError):
        schema.validate({**resolved, "servces": {}})


def test_every_part_of_the_line_is_there_checked_and_bounded(resolved: Mapping[str, Any], site: Path) -> None:
    services = resolved["services"]
    assert set(services) == {"mosquitto", "influxdb", "collector", "agent", "grafana"}
    owner = site.stat()
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        assert service["user"] == f"{owner.st_uid}:{owner.st_gid}", name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name


def test_everything_that_is_mounted_is_made_by_site_init(resolved: Mapping[str, Any], site: Path) -> None:
    mounted = [volume.split(":")[0] for service in resolved["services"].values() for volume in service["volumes"]]
    mounted += [secret["file"] for secret in resolved["secrets"].values()]
    assert len(mounted) > 10
    assert [path for path in mounted if not Path(path).exists()] == []


def test_keys_of_the_authority_go_into_no_container(resolved: Mapping[str, Any], site: Path) -> None:
    mounted = [Path(volume.split(":")[0]) for service in resolved["services"].values() for volume in service["volumes"]]
    key = site / "ca" / "ca.key"
    assert key.exists()
    assert not [path for path in mounted if key.is_relative_to(path)]


def test_no_secret_stands_in_the_file_or_in_its_environment(resolved: Mapping[str, Any], site: Path) -> None:
    kept = [*site.rglob("*.password"), *site.rglob("*.token"), *site.rglob("credentials/*")]
    secrets = [path.read_text().strip() for path in kept]
    told = (site / "resolved.yaml").read_text() + (site / "compose.env").read_text() + COMPOSE.read_text()
    told += (site / "influxdb" / "influxdb.env").read_text()
    assert len(secrets) >= 7
    assert not [secret for secret in secrets if secret in told]


def test_configuration_leads_to_the_services_by_their_names(resolved: Mapping[str, Any], site: Path) -> None:
    config = read_config(site / "collector" / "collector.yaml")
    assert config.store.config.url == "http://influxdb:8086" and "influxdb" in resolved["services"]
    assert config.store.config.bucket == "infravitals"
    assert config.page.host == "0.0.0.0" and config.page.tls
    aliases = resolved["services"]["mosquitto"]["networks"]["default"]["aliases"]
    agent = read_agent(site / "agents" / "gateway-1" / "agent.yaml")
    assert aliases == [config.broker.host] == [agent.broker.host] == ["mqtt.hospital.local"]
    written = [
        volume.split(":")[1] for volume in resolved["services"]["agent"]["volumes"] if not volume.endswith(":ro")
    ]
    assert written == [os.path.normpath(agent.state_directory)]


def test_script_of_the_database_is_one_that_a_shell_reads() -> None:
    subprocess.run([program("bash", "bash"), "-n", FOLDER / "influxdb-init.sh"], check=True)
    assert (FOLDER / "influxdb-init.sh").stat().st_mode & 0o111
