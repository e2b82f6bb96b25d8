"""A backup of real data, beside a running collector too, gives the same scorecards where it is restored; a damaged one gives nothing."""

import gzip
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servers import READY_SECONDS, free_port, program, until

from agent import language
from collector.beside import find_place
from collector.cli import main
from collector.config import read_config
from collector.page_password import is_password
from collector.setup.agents import add_agent, agent_names
from collector.setup.backup import back_up, restore
from collector.setup.making import make_site
from collector.setup.placing import Placer
from collector.setup.site import SiteMade
from collector.setup.upkeep import examine

ENVIRONMENT = {**os.environ, "INFRAVITALS_LANG": "en"}


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


def run(*words: str | Path) -> str:
    """A command of its own process; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "collector.cli", *map(str, words)], capture_output=True, env=ENVIRONMENT, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def card(data: Path, moment: str) -> str:
    return run("score", "--as-of", moment, "--format", "json", "--data-dir", data)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of `up --once`, twice, with a site folder."""
    data = tmp_path_factory.mktemp("gathered") / "data"
    (data / "site").mkdir(parents=True)
    (data / "site" / "site.yaml").write_text("# site.yaml\ntitle: North\n")
    for _ in range(2):
        run("up", "--once", "--data-dir", data, "--format", "json")
    return data


def test_restored_data_give_the_same_scorecard_to_the_byte(gathered: Path, tmp_path: Path) -> None:
    moment = now()
    before = card(gathered, moment)
    archive = tmp_path / "saved.tar.gz"
    said = run("backup", "--data-dir", gathered, "--to", archive)
    assert said.startswith(f"{archive}: ")
    assert archive.stat().st_mode & 0o777 == 0o600
    moved = gathered.with_name("moved")
    gathered.rename(moved)  # so that nothing of the old place can help
    try:
        assert "every digest agrees" in run("restore", archive, "--dir", tmp_path / "back")
        after = card(tmp_path / "back", moment)
    finally:
        moved.rename(gathered)
    assert json.loads(before)["criteria" if "criteria" in json.loads(before) else "nodes"]
    assert after == before
    assert (tmp_path / "back" / "site" / "site.yaml").read_text() == "# site.yaml\ntitle: North\n"
    assert not list(gathered.glob(".part-*"))


def test_backup_beside_a_running_collector_is_of_one_moment(tmp_path: Path) -> None:
    data = tmp_path / "data"
    words = [sys.executable, "-m", "collector.cli", "up", "--data-dir", str(data), "--port", str(free_port())]
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(words, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        until(lambda: b"telemetry-completeness" in (tmp_path / "up.log").read_bytes())
        backups = (back_up_at(now(), data, tmp_path / f"saved-{number}.tar.gz") for number in itertools.count())
        moment, before, archive = next(filter(None, backups))
        run("restore", archive, "--dir", tmp_path / "back")
        up.send_signal(signal.SIGTERM)
        assert up.wait(READY_SECONDS) == 0
    finally:
        up.kill()
        up.wait()
    assert card(tmp_path / "back", moment) == before


def back_up_at(moment: str, data: Path, archive: Path) -> tuple[str, str, Path] | None:
    """Also what is scored as of the moment; None when a round that began before it ended beside the backup, which may lack it."""
    before = card(data, moment)
    run("backup", "--data-dir", data, "--to", archive)
    return (moment, before, archive) if card(data, moment) == before else None


@pytest.fixture
def archive(gathered: Path, tmp_path: Path) -> Path:
    assert main(["backup", "--data-dir", str(gathered), "--to", str(tmp_path / "saved.tar.gz")]) == 0
    return tmp_path / "saved.tar.gz"


def refused(archive: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of an archive that cannot be restored; nothing of it is left."""
    capsys.readouterr()
    folder = archive.parent / "back"
    assert main(["restore", str(archive), "--dir", str(folder), "--lang", "en"]) != 0
    assert not folder.exists() and not list(archive.parent.glob(".part-*"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_cut_off_archive_is_a_sentence(archive: Path, share: float, capsys: pytest.CaptureFixture[str]) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    assert "is cut off or damaged, nothing was restored; take another backup" in refused(archive, capsys)


def test_changed_byte_is_found(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = bytearray(gzip.decompress(archive.read_bytes()))
    plain[plain.index(b"title: North")] ^= 1
    archive.write_bytes(gzip.compress(bytes(plain)))
    assert "site/site.yaml in" in refused(archive, capsys)


def test_file_that_is_none_of_ours_is_told(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive.write_bytes(b"hello")
    assert "is no backup of this program" in refused(archive, capsys)
    with tarfile.open(archive, "w:gz") as other:
        other.add(__file__, "x")
    assert "is no backup of this program" in refused(archive, capsys)
    archive.unlink()
    assert "cannot read" in refused(archive, capsys)


def test_what_is_no_archive_is_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, why in (
        (tmp_path / "nowhere", "No such file"),
        (tmp_path, "Is a directory"),
        (Path(__file__), "no backup"),
    ):
        assert main(["restore", str(source), "--dir", str(tmp_path / "back"), "--lang", "en"]) == 2
        assert why in capsys.readouterr().err


def test_a_site_that_never_ran_has_nothing_to_back_up_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data = tmp_path / "collector.yaml", tmp_path / "data"
    config.write_text(f"site: north\nbroker: {{host: h}}\ndata_directory: {data}\n")
    assert main(["backup", "-c", str(config), "--to", str(tmp_path / "a.tar.gz"), "--lang", "en"]) == 2
    said = capsys.readouterr().err
    assert said == f"there is no folder {data}: the collector never ran; start it first, or look at data_directory\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collector.yaml"]


def test_archive_cannot_reach_out_of_its_folder(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(archive) as old:
        manifest = json.loads(old.extractfile("manifest.json").read())  # type: ignore[union-attr]
    manifest["files"] = [{"name": "../evil", "bytes": 0, "sha256": "", "mode": 420}]
    evil = archive.parent / "manifest.json"
    evil.write_text(json.dumps(manifest))
    with tarfile.open(archive, "w:gz") as new:
        new.add(evil, "manifest.json")
        new.addfile(tarfile.TarInfo("../evil"))
    assert "is not what its manifest says (../evil)" in refused(archive, capsys)
    assert not (archive.parent / "evil").exists()


def test_nothing_is_written_over(archive: Path, gathered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = archive.read_bytes()
    assert main(["backup", "--data-dir", str(gathered), "--to", str(archive)]) == 2
    assert archive.read_bytes() == before
    (archive.parent / "back").mkdir()
    (archive.parent / "back" / "thesis.txt").write_text("mine")
    assert main(["restore", str(archive), "--dir", str(archive.parent / "back")]) == 2
    assert [path.name for path in (archive.parent / "back").iterdir()] == ["thesis.txt"]


def test_full_disk_is_a_sentence_and_leaves_nothing(
    archive: Path, gathered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = archive.parent / "disk"
    disk.mkdir()
    subprocess.run([program("mount", "mount"), "-t", "tmpfs", "-o", "size=8k", "none", disk], check=True)
    try:
        capsys.readouterr()
        assert main(["backup", "--data-dir", str(gathered), "--to", str(disk / "a.tar.gz"), "--lang", "en"]) == 1
        assert "does not fit: the disk is full" in capsys.readouterr().err
        assert main(["restore", str(archive), "--dir", str(disk / "back"), "--lang", "en"]) == 1
        assert "does not fit: the disk is full" in capsys.readouterr().err
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run([program("umount", "mount"), "-l", disk], check=True)


SITE = SiteMade(site="north", hosts=("mqtt.hospital.local",))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_site(tmp_path / "hospital", SITE, "his-db-1", datetime.now(UTC), lambda name: None)
    path = tmp_path / "hospital" / "collector" / "collector.yaml"
    text = path.read_text()
    begin, end = text.index("store:\n"), text.index("# 127.0.0.1 之外")
    path.write_text(text[:begin] + "store: {kind: duckdb}\n\n" + text[end:])
    (tmp_path / "hospital" / "data" / "collector").mkdir(mode=0o700)
    return tmp_path / "hospital"


@pytest.mark.parametrize("with_keys", [True, False])
def test_site_is_whole_again_elsewhere(made: Path, tmp_path: Path, with_keys: bool) -> None:
    archive, back = tmp_path / "saved.tar.gz", tmp_path / "back"
    keys = ["--with-keys"] if with_keys else []
    run("backup", "-c", made / "collector" / "collector.yaml", "--to", archive, *keys)
    secret = (made / "collector" / "credentials" / "broker-password").read_text().strip()
    held = gzip.decompress(archive.read_bytes())
    assert (secret.encode() in held) == with_keys
    assert (b"PRIVATE KEY" in held) == with_keys
    shutil.rmtree(made)
    run("restore", archive, "--dir", back)
    if not with_keys:
        run("site", "init", "--dir", back, "--name", "north")
    else:
        assert (back / "collector" / "credentials" / "broker-password").read_text().strip() == secret
        assert "nothing was changed" in run("site", "init", "--dir", back, "--name", "north")
    assert [one for one in examine(back, SITE, datetime.now(UTC)) if one.state == "bad"] == []
    assert str(made) not in (back / "mosquitto" / "mosquitto.conf").read_text()
    assert f"certfile {back}/mosquitto/certs/broker.pem" in (back / "mosquitto" / "mosquitto.conf").read_text()
    assert (back / "collector" / "credentials").stat().st_mode & 0o777 == 0o700


def test_nothing_that_is_secret_or_lets_one_guess_is_in_a_backup_without_keys(made: Path, tmp_path: Path) -> None:
    config = made / "collector" / "collector.yaml"
    page = "scrypt$14$8$1$" + "QUJD" * 6 + "$" + "REVG" * 15
    config.write_text(f"# before: {page}\n{config.read_text()}")
    (made / "collector" / "collector.yaml~").write_text(config.read_text())
    (made / "site" / "drill.key").write_text("canary-of-the-site-folder")
    add_agent(Placer(made), SITE, "gateway-1")
    secrets = {line.split(":$")[1] for line in (made / "mosquitto/infravitals.passwords").read_text().splitlines()}
    secrets |= {path.read_text().strip() for path in made.rglob("credentials/*")}
    secrets |= {path.read_text().strip() for path in made.rglob("*.password")} | {"canary-of-the-site-folder", page}
    secrets |= {read_config(config).share_group, read_config(config).page.password_scrypt or ""}
    assert len(secrets) == 16 and min(map(len, secrets)) > 20
    run("backup", "-c", config, "--to", tmp_path / "whole.tar.gz", "--with-keys")
    run("backup", "-c", config, "--to", tmp_path / "saved.tar.gz")
    whole, held = (gzip.decompress((tmp_path / name).read_bytes()) for name in ("whole.tar.gz", "saved.tar.gz"))
    assert [text for text in secrets if text.encode() not in whole] == []
    assert [text for text in secrets if text.encode() in held] == []
    assert b"collector.yaml~" in held and b"PRIVATE KEY" not in held


def test_restore_says_what_is_to_be_made_anew_and_nothing_starts_before(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_agent(Placer(made), SITE, "gateway-1")
    old = read_config(made / "collector" / "collector.yaml")
    run("backup", "-c", made / "collector" / "collector.yaml", "--to", tmp_path / "saved.tar.gz")
    shutil.rmtree(made)
    said = run("restore", tmp_path / "saved.tar.gz", "--dir", made)
    for name in ("ca/ca.key", "agents/gateway-1.tar", "collector/page.password", "mosquitto/infravitals.passwords"):
        assert f"{name}, " in said
    assert "collector/collector.yaml: share_group, collector/collector.yaml: page.password_scrypt\n" in said
    assert main(["check", "-c", str(made / "collector/collector.yaml"), "--lang", "en"]) == 2
    told = capsys.readouterr().err
    assert "share-group-left-out-of-the-backup" in told and "'password_scrypt' is the hash that" in told
    commands = [line.split() for line in said.splitlines() if line.startswith("  infravitals ")]
    assert [" ".join(words[1:3]) for words in commands] == ["site init", "site add-agent"]
    for words in commands:
        run(*words[1:])
    assert [one for one in examine(made, SITE, datetime.now(UTC)) if one.state == "bad"] == []
    assert agent_names(made) == ["gateway-1", "his-db-1"]
    new = read_config(made / "collector" / "collector.yaml")
    assert new.share_group.startswith("infravitals-") and new.share_group != old.share_group
    password = (made / "collector" / "page.password").read_text().strip()
    assert is_password(new.page.password_scrypt or "", password)


@pytest.mark.parametrize(
    "line",
    [
        "share_group: zq-1618-group",
        'share_group: "zq-1618\\u002Dgroup"',
        "share_group:\n  zq-1618-group",
        "'share_group'  :  'zq-1618-group' # mine",
    ],
)
def test_group_is_left_out_however_it_is_written(tmp_path: Path, line: str) -> None:
    config = tmp_path / "collector.yaml"
    config.write_text(f"site: north\nbroker: {{host: h}}\n{line}\ndata_directory: data\n")
    (tmp_path / "data").mkdir()
    assert read_config(config).share_group == "zq-1618-group"
    run("backup", "-c", config, "--to", tmp_path / "saved.tar.gz")
    assert b"1618" not in gzip.decompress((tmp_path / "saved.tar.gz").read_bytes())
    said = run("restore", tmp_path / "saved.tar.gz", "--dir", tmp_path / "back")
    assert "to be made anew: collector/collector.yaml: share_group\n" in said and "site init" not in said


def test_group_that_everybody_has_stays(tmp_path: Path) -> None:
    config = tmp_path / "collector.yaml"
    config.write_text("site: north\nbroker: {host: h}\nshare_group: infravitals\ndata_directory: data\n")
    (tmp_path / "data").mkdir()
    run("backup", "-c", config, "--to", tmp_path / "saved.tar.gz")
    assert "anew" not in run("restore", tmp_path / "saved.tar.gz", "--dir", tmp_path / "back")
    assert read_config(tmp_path / "back/collector/collector.yaml").share_group == "infravitals"


def test_secret_that_cannot_be_taken_out_makes_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "collector.yaml"
    config.write_text("site: north\nbroker: {host: h}\nshare_group: >-\n  zq-1618-group\ndata_directory: data\n")
    (tmp_path / "data").mkdir()
    assert read_config(config).share_group == "zq-1618-group"
    assert main(["backup", "-c", str(config), "--to", str(tmp_path / "a.tar.gz"), "--lang", "en"]) == 1
    told = capsys.readouterr().err
    assert f"cannot take share_group out of {config}; write each on one line, or say --with-keys" in told
    assert not (tmp_path / "a.tar.gz").exists() and "1618" not in told and not list(tmp_path.rglob(".part-*"))


def test_progress_rises_to_the_whole(gathered: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    archive = tmp_path / "saved.tar.gz"
    place = find_place(None, gathered)
    manifest = back_up(place, None, archive, with_keys=False, progress=lambda done, total: told.append((done, total)))
    whole = sum(one.bytes for one in manifest.files)
    assert told == sorted(told) and told[-1] == (whole, whole)
    told.clear()
    restore(archive, tmp_path / "back", lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (whole, whole)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "back").rglob("*.duckdb")} == {0o600}


def test_archive_and_all_that_is_secret_in_a_restored_site_are_for_their_owner_alone(
    made: Path, tmp_path: Path
) -> None:
    archive, back = tmp_path / "saved.tar.gz", tmp_path / "back"
    run("backup", "-c", made / "collector" / "collector.yaml", "--to", archive, "--with-keys")
    run("restore", archive, "--dir", back)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert {one.stat().st_mode & 0o777 for one in (back, *back.rglob("*")) if one.is_dir()} == {0o700}
    secret = [one for one in back.rglob("*") if one.suffix in (".key", ".password", ".passwords", ".tar", ".yaml")]
    secret += list(back.rglob("credentials/*"))
    assert len(secret) > 10
    open_ones = {str(one.relative_to(back)) for one in secret if one.stat().st_mode & 0o077}
    assert open_ones == {"site/site.yaml"}


@pytest.mark.parametrize("name", ["../evil", "site/../../evil", "/tmp/evil-of-this-test"])
def test_no_name_of_an_archive_leads_out_of_the_folder(
    archive: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(archive, [(tarfile.TarInfo(name), b"")])
    assert f"is not what its manifest says ({name})" in refused(archive, capsys)
    assert not (archive.parent / "evil").exists() and not Path("/tmp/evil-of-this-test").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_archive_brings_files_alone(archive: Path, kind: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    link = tarfile.TarInfo("site/way-out")
    link.type, link.linkname = kind, "/etc"
    forge(archive, [(link, b""), (tarfile.TarInfo("site/way-out/evil"), b"")])
    assert "is not what its manifest says (site/way-out)" in refused(archive, capsys)


def test_file_that_comes_twice_or_runs_as_another_is_not_taken(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge(archive, [(tarfile.TarInfo("site/a"), b""), (tarfile.TarInfo("site/a"), b"")])
    assert "is not what its manifest says (site/a)" in refused(archive, capsys)
    forge(archive, [(tarfile.TarInfo("site/a"), b"")], mode=0o4755)
    assert main(["restore", str(archive), "--dir", str(archive.parent / "back")]) == 0
    assert (archive.parent / "back/site/a").stat().st_mode & 0o7000 == 0


def forge(archive: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: int = 0o600) -> None:
    """An archive whose manifest agrees with what somebody put into it."""
    names = dict.fromkeys(member.name for member, _ in members)
    files = [{"name": name, "bytes": 0, "sha256": hashlib.sha256(b"").hexdigest(), "mode": mode} for name in names]
    manifest = {"form": 1, "made_at": 0, "site": "north", "store": "duckdb", "has_keys": False, "folder": ""}
    text = json.dumps({**manifest, "files": files}).encode()
    head = tarfile.TarInfo("manifest.json")
    head.size = len(text)
    with tarfile.open(archive, "w:gz") as new:
        new.addfile(head, io.BytesIO(text))
        for member, content in members:
            new.addfile(member, io.BytesIO(content))
