"""`site init`: whole or not at all, killed at every write, on a full disk, twice, beside what is another's."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servers import program

from agent import language
from agent.config import read_config as read_agent
from agent.documents import read_document
from agent.errors import UnfitSecret
from agent.secrets import explain_unfit
from collector.cli import main
from collector.config import read_config
from collector.page_password import is_password
from collector.setup.agents import agent_names
from collector.setup.authority import AuthorityError
from collector.setup.making import make_site
from collector.setup.placing import CannotPlace
from collector.setup.site import NoSite, SiteMade
from collector.setup.upkeep import examine
from collector.setup.written import grafana_pages, shipped_folder

SITE = SiteMade(site="north", hosts=("mqtt.hospital.local", "10.1.2.3"))
NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


def quiet(name: str) -> None:
    """Nobody watches the writes."""


def digests(folder: Path) -> dict[str, str]:
    """Every file with what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def bad_findings(folder: Path) -> list[str]:
    return [f"{one.what}: {one.text}" for one in examine(folder, SITE, NOW) if one.state == "bad"]


def test_made_twice_nothing_changes(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    made = make_site(folder, SITE, "his-db-1", NOW, quiet).made
    before = digests(folder)
    assert set(made) == set(before)
    assert make_site(folder, SITE, "his-db-1", NOW, quiet).made == []
    assert digests(folder) == before
    assert bad_findings(folder) == []
    assert agent_names(folder) == ["his-db-1"]
    assert read_config(folder / "collector" / "collector.yaml").site == "north"
    assert read_agent(folder / "agents" / "his-db-1" / "agent.yaml").agent == "his-db-1"


def test_killed_at_any_write_the_next_run_finishes(tmp_path: Path) -> None:
    whole = list(digests_after(tmp_path / "whole"))
    for number in range(len(whole)):
        folder = tmp_path / f"killed-{number}"
        killed_after(folder, number)
        assert len(digests(folder)) == number + 1  # what was made, and one that is not in its place yet
        make_site(folder, SITE, "his-db-1", NOW, quiet)
        assert list(digests(folder)) == whole
        assert bad_findings(folder) == []


def digests_after(folder: Path) -> dict[str, str]:
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    return digests(folder)


def killed_after(folder: Path, number: int) -> None:
    """Make a site in a process that ends as by kill -9 when `number` files are in place and the next is written beside its own."""
    child = os.fork()
    if child == 0:
        left = [number]

        def count(name: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

        make_site(folder, SITE, "his-db-1", NOW, count)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 pages."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = program("mount", "mount"), program("umount", "mount")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
    yield folder
    subprocess.run([umount, "-l", folder], check=True)


def test_full_disk_is_a_sentence_and_leaves_no_half(small_disk: Path) -> None:
    folder = small_disk / "site"
    with pytest.raises(CannotPlace, match=r"^.* does not fit: the disk is full; make room and run it again") as told:
        make_site(folder, SITE, "his-db-1", NOW, quiet)
    assert "\n" not in str(told.value)
    assert not list(folder.rglob(".part-*"))
    assert all(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    subprocess.run([program("mount", "mount"), "-o", "remount,size=8m", small_disk], check=True)
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    assert bad_findings(folder) == []


def test_folder_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(NoSite, match=r"is not empty \(it has thesis.txt\)"):
        make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    assert list(digests(tmp_path)) == ["thesis.txt"]


@pytest.mark.parametrize("below", ["", "/site"])
def test_file_where_the_folder_should_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["site", "init", "--dir", f"{tmp_path}/thesis.txt{below}", "--name", "north", "--lang", "en"]) == 2
    assert capsys.readouterr().err == f"{tmp_path}/thesis.txt is a file, no folder; choose another\n"


def test_another_site_of_the_folder_is_refused(tmp_path: Path) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    before = digests(tmp_path)
    other = SiteMade(site="south", hosts=SITE.hosts)
    with pytest.raises(NoSite, match=r"there is a site 'north' in .* already, and it is not as told now"):
        make_site(tmp_path, other, "his-db-1", NOW, quiet)
    assert digests(tmp_path) == before


def test_options_that_differ_are_named_as_they_are_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    words = ["--dir", str(tmp_path), "--name", "north", "--host", "other.local", "--page-port", "8651"]
    assert main(["site", "init", *words, "--lang", "en"]) == 2
    told = capsys.readouterr().err
    assert "(--host mqtt.hospital.local, 10.1.2.3 ≠ other.local; --page-port 8650 ≠ 8651)" in told


def test_hospital_s_name_that_is_no_id_is_pointed_to_the_title(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["site", "init", "--dir", str(tmp_path / "site"), "--lang", "en"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--name", "市立医院"])
    assert "goes to --title: --name my-hospital --title '市立医院'" in capsys.readouterr().err
    assert main([*words, "--name", "my-hospital", "--title", "市立医院"]) == 0
    assert read_document(tmp_path / "site/site/site.yaml").value["title"] == "市立医院"


@pytest.mark.parametrize("option", ["--host", "--page-address"])
@pytest.mark.parametrize("text", ["300.1.1.1", "10.1.2", "mqtt.hospital.local:8883", "1::2::3", "a b"])
def test_what_is_neither_name_nor_address_makes_no_site(
    option: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "site"
    with pytest.raises(SystemExit, match="2"):
        main(["site", "init", "--dir", str(folder), "--name", "north", option, text, "--lang", "en"])
    assert f"'{text}' is no host name or address" in capsys.readouterr().err
    assert not folder.exists()


def test_page_s_address_that_cannot_be_is_named_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    path = tmp_path / "collector/collector.yaml"
    path.write_text(path.read_text().replace('host: "127.0.0.1"', 'host: "300.1.1.1"'))
    assert main(["check", "-c", str(path), "--lang", "en"]) == 2
    assert "'host': '300.1.1.1' is no host name or address" in capsys.readouterr().err


def test_clock_that_was_never_set_is_a_sentence_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="this machine's clock says 1970-01-01, which cannot be"):
        make_site(tmp_path / "site", SITE, "his-db-1", datetime(1970, 1, 1, tzinfo=UTC), quiet)
    assert not (tmp_path / "site").exists()


def test_certificate_that_is_of_another_key_is_made_anew(tmp_path: Path) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    (tmp_path / "mosquitto" / "certs" / "broker.key").unlink()
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-attime", str(int(NOW.timestamp()))]
    for name in ("-verify_hostname mqtt.hospital.local", "-verify_ip 10.1.2.3", "-verify_hostname localhost"):
        words = [program("openssl", "openssl"), *verify, *name.split(), "-CAfile", "ca/ca.pem"]
        for certificate in ("mosquitto/certs/broker.pem", "collector/page.pem"):
            subprocess.run([*words, certificate], cwd=tmp_path, check=True, capture_output=True)


def secrets_of(folder: Path) -> dict[str, str]:
    names = [path for path in folder.rglob("*") if path.parent.name == "credentials" or path.suffix == ".password"]
    return {str(path.relative_to(folder)): path.read_text().strip() for path in names}


def test_every_secret_is_its_own_long_and_for_its_owner_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_site(tmp_path / name, SITE, "his-db-1", NOW, quiet)
    found = [*secrets_of(tmp_path / "one").values(), *secrets_of(tmp_path / "two").values()]
    assert len(found) == len(set(found)) == 16
    assert all(len(text) >= 32 and explain_unfit(text) is None for text in found)
    shown = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "one").rglob("*")}
    assert {mode for path, mode in shown.items() if path.is_dir()} == {0o700}
    assert {
        mode for path, mode in shown.items() if str(path.relative_to(tmp_path / "one")) in secrets_of(tmp_path / "one")
    } == {0o600}
    told = [
        path
        for path in (tmp_path / "one").rglob("*")
        if path.is_file() and path.suffix in (".yaml", ".ini", ".conf", ".json")
    ]
    assert not [path for path in told for text in found if text in path.read_text()]


def test_command_says_what_is_next_and_that_nothing_is_left_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["site", "init", "--dir", str(tmp_path / "site"), "--name", "north", "--lang", "en"]
    assert main([*words, "--host", "mqtt.hospital.local"]) == 0
    said = capsys.readouterr().out
    assert f"mosquitto -c {tmp_path}/site/mosquitto/mosquitto.conf" in said
    assert not [text for text in secrets_of(tmp_path / "site").values() if text in said]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path}/site: the site is whole, nothing was changed\n"
    assert main([*words, "--host", "other.local"]) == 2
    assert main(["site", "status", "--dir", str(tmp_path / "site"), "--lang", "en"]) == 0
    assert "✓ mosquitto/certs/broker.pem: 7" in capsys.readouterr().out
    assert main(["site", "add-agent", "x", "--dir", str(tmp_path), "--lang", "en"]) == 2
    assert f"there is no site in {tmp_path}; run infravitals site init" in capsys.readouterr().err


def test_dashboards_and_alerts_lie_where_the_site_s_grafana_looks(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped"
    for name, text in (
        ("provisioning/dashboards/infravitals.yaml", "path: /var/lib/grafana/infravitals/dashboards/zh\n"),
        ("provisioning/alerting/infravitals.yaml", "groups: []\n"),
        ("provisioning/datasources/infravitals.yaml", "datasources: []\n"),
        ("dashboards/zh/readiness.json", "{}"),
    ):
        (shipped / name).parent.mkdir(parents=True)
        (shipped / name).write_text(text)
    assert dict(grafana_pages(shipped, tmp_path / "site")) == {
        "grafana/provisioning/dashboards/infravitals.yaml": f"path: {tmp_path}/site/grafana/dashboards/zh\n",
        "grafana/provisioning/alerting/infravitals.yaml": "groups: []\n",
        "grafana/dashboards/zh/readiness.json": "{}",
    }


def test_everything_that_is_shipped_for_grafana_is_in_the_site(tmp_path: Path) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    shipped = shipped_folder() / "grafana"
    due = {name for name, _ in grafana_pages(shipped, tmp_path)} | {"grafana/grafana.ini", f"grafana/{SOURCE}"}
    assert {name for name in digests(tmp_path) if name.startswith("grafana/") and not name.endswith(".password")} == due
    source = read_document(tmp_path / "grafana" / SOURCE).value["datasources"][0]
    assert (source["uid"], source["user"], source["jsonData"]["dbName"]) == ("infravitals", "grafana", "infravitals")
    assert source["secureJsonData"]["password"] == f"$__file{{{tmp_path}/grafana/influx.password}}"


SOURCE = "provisioning/datasources/infravitals.yaml"


def test_new_password_of_the_page_is_made_where_the_old_one_was_taken_away(tmp_path: Path) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    before = digests(tmp_path)
    old = (tmp_path / "collector" / "page.password").read_text().strip()
    (tmp_path / "collector" / "page.password").unlink()
    assert make_site(tmp_path, SITE, "his-db-1", NOW, quiet).made == [
        "collector/collector.yaml",
        "collector/page.password",
    ]
    kept = read_config(tmp_path / "collector" / "collector.yaml").page.password_scrypt or ""
    new = (tmp_path / "collector" / "page.password").read_text().strip()
    assert new != old
    assert is_password(kept, new) and not is_password(kept, old)
    changed = {name for name, digest in digests(tmp_path).items() if before[name] != digest}
    assert changed == {"collector/page.password", "collector/collector.yaml"}


@pytest.mark.parametrize("number", [0, 1])
def test_new_password_of_the_page_opens_it_also_after_a_kill(tmp_path: Path, number: int) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    (tmp_path / "collector" / "page.password").unlink()
    killed_after(tmp_path, number)
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    kept = read_config(tmp_path / "collector" / "collector.yaml").page.password_scrypt or ""
    assert is_password(kept, (tmp_path / "collector" / "page.password").read_text().strip())


def test_file_of_the_site_that_was_spoilt_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_site(tmp_path, SITE, "his-db-1", NOW, quiet)
    (tmp_path / "made.json").write_text("{")
    assert main(["site", "status", "--dir", str(tmp_path), "--lang", "en"]) == 2
    said = capsys.readouterr().err
    assert "is not as this program wrote it" in said and said.count("\n") == 1


def test_authority_s_key_that_is_gone_is_told_and_no_other_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    (folder / "ca/ca.key").unlink()
    before = digests(folder)
    with pytest.raises(AuthorityError, match=r"not its key .*ca/ca\.key; put it back from a backup"):
        make_site(folder, SITE, "his-db-1", NOW, quiet)
    assert digests(folder) == before


def test_authority_s_key_that_is_another_s_is_told_with_what_mends_it(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    (folder / "ca/ca.key").write_bytes((folder / "collector/page.key").read_bytes())
    assert bad_findings(folder) == ["ca/ca.pem: certificate and key are not of one pair; put both back from a backup"]


@pytest.mark.parametrize(("secret", "why"), [("", "is empty"), ("changeme\n", "is an example's word")])
def test_secret_of_no_use_is_told_and_never_given_to_the_broker(tmp_path: Path, secret: str, why: str) -> None:
    folder = tmp_path / "site"
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    path = folder / "collector/credentials/broker-password"
    path.write_text(secret)
    before = digests(folder)
    with pytest.raises(UnfitSecret, match=rf"broker-password is of no use: it {why}.*; take the file away"):
        make_site(folder, SITE, "his-db-1", NOW, quiet)
    assert digests(folder) == before
    [finding] = bad_findings(folder)
    assert finding.startswith("collector: the secret in") and why in finding and "take the file away" in finding
    path.unlink()
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    assert bad_findings(folder) == []


def test_secret_that_was_taken_away_is_named_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "site"
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    (folder / "collector/credentials/broker-password").unlink()
    assert main(["--lang", "en", "check", "-c", str(folder / "collector/collector.yaml")]) == 2
    told = capsys.readouterr().err
    assert (
        "cannot read the password file" in told and "credentials/broker-password" in told and "broker.password" in told
    )


def test_status_looks_at_every_secret_that_is_made_and_at_every_one_that_check_looks_at(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    checked = {secret.file for _, secret in read_config(folder / "collector/collector.yaml").secrets()}
    made = {name for name in secrets_of(folder) if not name.startswith("agents/")}
    assert {str(folder / name) for name in made} > checked and len(checked) == 3
    for name in secrets_of(folder):
        path = folder / name
        whole = path.read_text()
        path.chmod(0o604)
        [told] = bad_findings(folder)
        assert f"every user of this machine may read {path}; run chmod o= {path}" in told
        path.chmod(0o600)
        path.write_text("changeme\n")
        [told] = bad_findings(folder)
        assert "is an example's word" in told and "take the file away and run site init again" in told
        path.unlink()
        [told] = bad_findings(folder)
        assert "cannot read the password file" in told and "; run site init again" in told
        path.write_text(whole)
        path.chmod(0o600)
    assert bad_findings(folder) == []


def test_status_looks_at_a_secret_that_was_put_elsewhere_and_at_keys(tmp_path: Path) -> None:
    folder, token = tmp_path / "site", tmp_path / "token"
    make_site(folder, SITE, "his-db-1", NOW, quiet)
    path = folder / "collector/collector.yaml"
    path.write_text(path.read_text().replace("{credential: metrics-token}", f"{{file: {token}}}"))
    [told] = bad_findings(folder)
    assert told.startswith(f"page.metrics_token: cannot read the password file {token}: ")
    assert f"install -m 600 /dev/stdin {token}" in told
    token.write_text("d41d8cd98f00b204e980\n")
    token.chmod(0o600)
    assert bad_findings(folder) == []
    for certificate, key in (("ca/ca.pem", "ca/ca.key"), ("collector/page.pem", "collector/page.key")):
        (folder / key).chmod(0o644)
        assert bad_findings(folder) == [
            f"{certificate}: every user of this machine may read {folder / key}; run chmod o= {folder / key}"
        ]
        (folder / key).chmod(0o600)
