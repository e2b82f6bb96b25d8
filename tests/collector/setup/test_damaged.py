"""Every file of a site, damaged: each command says in one sentence which it is and what mends it, and never falls."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import language
from collector.cli import main
from collector.setup.agents import add_agent
from collector.setup.making import make_site
from collector.setup.placing import Placer
from collector.setup.site import SiteMade

MADE = SiteMade(site="north", hosts=("localhost",))
JUNK = random.Random(7).randbytes(200)
"""What `head -c 200 /dev/urandom` gives."""
OTHER = b"not what was written here\n" * 2
"""Text, and of no use in any of these places but the configuration, which `check` judges."""
COMMANDS = (
    ("status",),
    ("renew", "--all"),
    ("add-agent", "third"),
    ("remove-agent", "second"),
    ("init", "--name", "north"),
    ("database",),
)
MENDS = {
    "ca/ca.key": "put it back from a backup",
    "ca/ca.pem": "put it back from a backup",
    "collector/collector.yaml": "take it away and run site init again",
    "collector/credentials/broker-password": "take the file away and run site init again",
    "collector/credentials/influx-password": "take the file away and run site init again",
    "collector/credentials/metrics-token": "take the file away and run site init again",
    "collector/page.key": "run site renew",
    "collector/page.password": "take the file away and run site init again",
    "collector/page.pem": "run site renew",
    "grafana/admin.password": "take the file away and run site init again",
    "grafana/influx.password": "take the file away and run site init again",
    "influxdb/admin.password": "take the file away and run site init again",
    "made.json": "restore it from a backup",
    "mosquitto/certs/broker.key": "run site renew",
    "mosquitto/certs/broker.pem": "run site renew",
    "mosquitto/infravitals.passwords": "run site init",
}
REFUSED = {
    **{(name, "init"): mend for name, mend in MENDS.items() if name != "mosquitto/infravitals.passwords"},
    **{(name, "renew"): MENDS[name] for name in ("ca/ca.key", "ca/ca.pem", "made.json")},
    **{(name, "add-agent"): MENDS[name] for name in ("ca/ca.pem", "made.json", "mosquitto/infravitals.passwords")},
    **{(name, "remove-agent"): MENDS[name] for name in ("made.json", "mosquitto/infravitals.passwords")},
    ("made.json", "status"): MENDS["made.json"],
    ("made.json", "database"): MENDS["made.json"],
    ("influxdb/admin.password", "database"): MENDS["influxdb/admin.password"],
    ("grafana/influx.password", "database"): MENDS["grafana/influx.password"],
}
"""The file and the command that cannot go on with it -> what it says to do."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    language.choose("en")
    make_site(tmp_path / "site", MADE, "first", datetime.now(UTC), lambda name: None)
    add_agent(Placer(tmp_path / "site"), MADE, "second")
    yield tmp_path / "site"
    language.choose(None)


@pytest.mark.parametrize(
    ("name", "command", "junk"),
    [(*one, JUNK) for one in REFUSED] + [(*one, OTHER) for one in REFUSED if one[0] != "collector/collector.yaml"],
)
def test_damaged_file_is_one_sentence_with_its_name_and_what_mends_it(
    site: Path, capsys: pytest.CaptureFixture[str], name: str, command: str, junk: bytes
) -> None:
    (site / name).write_bytes(junk)
    [words] = [words for words in COMMANDS if words[0] == command]
    assert main(["site", *words, "--dir", str(site), "--lang", "en"]) in (1, 2)
    told = capsys.readouterr().err
    assert str(site / name) in told and REFUSED[name, command] in told and told.count("\n") == 1, told


@pytest.mark.parametrize("name", [name for name in MENDS if name != "made.json"])
def test_status_tells_a_damaged_file_and_looks_at_the_rest(
    site: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (site / name).write_bytes(JUNK)
    assert main(["site", "status", "--dir", str(site), "--lang", "en"]) == 1
    out, err = capsys.readouterr()
    mend = "save it as UTF-8" if name == "collector/collector.yaml" else MENDS[name]
    bad = [line for line in out.splitlines() if line.startswith("✕ ")]
    assert err == "" and any(name in line and mend in line for line in bad), out
    assert out.count("\n") >= 7


@pytest.mark.parametrize("name", ["collector/page.key", "collector/page.pem", "mosquitto/certs/broker.key"])
def test_what_a_damaged_pem_s_sentence_says_to_do_mends_it(site: Path, name: str) -> None:
    (site / name).write_bytes(JUNK)
    assert main(["site", "renew", "--dir", str(site), "--lang", "en"]) == 0
    assert main(["site", "status", "--dir", str(site), "--lang", "en"]) == 0


@pytest.mark.parametrize("name", [name for name, mend in MENDS.items() if mend.startswith("take ")])
def test_what_a_damaged_secret_s_sentence_says_to_do_mends_it(site: Path, name: str) -> None:
    (site / name).unlink()
    assert main(["site", "init", "--name", "north", "--dir", str(site), "--lang", "en"]) == 0
    assert main(["site", "status", "--dir", str(site), "--lang", "en"]) == 0
