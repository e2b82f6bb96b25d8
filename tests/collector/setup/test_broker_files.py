"""The broker's files of a site that somebody changed: told by status and init, never written over."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent import language
from collector.cli import main
from collector.setup.broker_files import examine_broker_files
from collector.setup.making import make_site
from collector.setup.site import BROKER_CONF, RIGHTS, SiteMade

MADE = SiteMade(site="north", hosts=("localhost",))
WHOLE = "the site is whole, nothing was changed"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    language.choose("en")
    make_site(tmp_path / "site", MADE, "first", datetime.now(UTC), lambda name: None)
    yield tmp_path / "site"
    language.choose(None)


def run(site: Path, *words: str) -> int:
    return main(["site", *words, "--dir", str(site), "--lang", "en"])


BROKEN = {
    "an ACL of nothing": (RIGHTS, lambda text: "", "lacks 'pattern write infravitals/v1/%u/points'"),
    "an ACL of another site": (
        RIGHTS,
        lambda text: text.replace("/north/", "/south/"),
        "lacks 'user collector: topic read infravitals/v1/north/+/points'",
    ),
    "a right that the second collector has and the first has not": (
        RIGHTS,
        lambda text: text.replace("user collector\n", "user collector\nuser collector-2\n"),
        "lacks 'user collector: topic read infravitals/v1/north/+/points'",
    ),
    "a configuration of nothing": (BROKER_CONF, lambda text: "", "lacks 'per_listener_settings false'"),
    "everybody let in": (
        BROKER_CONF,
        lambda text: text.replace("allow_anonymous false", "allow_anonymous true"),
        "lacks 'allow_anonymous false', it has 'allow_anonymous true'",
    ),
    "everybody let in by a second line": (
        BROKER_CONF,
        lambda text: f"{text}allow_anonymous true\n",
        "has 'allow_anonymous true'",
    ),
    "another port than agents dial": (
        BROKER_CONF,
        lambda text: text.replace("listener 8883", "listener 8884"),
        "lacks 'listener 8883 0.0.0.0'",
    ),
    "a bound that is gone": (
        BROKER_CONF,
        lambda text: text.replace("memory_limit 536870912\n", ""),
        "lacks 'memory_limit 536870912'",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_file_that_no_longer_serves_is_told_by_status_and_init_and_left_as_it_is(
    site: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    name, change, told = BROKEN[what]
    path = site / name
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    after = path.read_bytes()
    assert run(site, "status") == 1
    [bad] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✕ ")]
    assert bad.startswith(f"✕ {name}: not as site init wrote it: it ") and told in bad
    assert "take the file away and run site init, which writes it anew" in bad
    assert run(site, "init", "--name", "north") == 1
    out, err = capsys.readouterr()
    assert told in err and WHOLE not in out and path.read_bytes() == after
    path.unlink()
    assert run(site, "status") == 1
    assert f"✕ {name}: it is not there; run site init" in capsys.readouterr().out
    assert run(site, "init", "--name", "north") == 0
    assert path.read_text() == before
    assert run(site, "status") == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (BROKER_CONF, "max_connections 1000", "max_connections 3000", "'max_connections 3000'"),
        (BROKER_CONF, "\nlog_dest stderr", "\nlog_dest syslog\nlog_dest stderr", "'log_dest syslog'"),
        (
            RIGHTS,
            "user collector\n",
            "user collector-2\ntopic read infravitals/v1/north/+/points\n\nuser collector\n",
            "'user collector-2', 'user collector-2: topic read infravitals/v1/north/+/points'",
        ),
    ],
)
def test_operator_s_own_edit_is_a_note_and_stays(
    site: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str, told: str
) -> None:
    path = site / name
    path.write_text(path.read_text().replace(old, new))
    after = path.read_bytes()
    assert run(site, "status") == 0
    note = f"{name}: somebody changed it: {told}; site init leaves it, and if it is meant nothing is to be done"
    assert f"! {note}\n" in capsys.readouterr().out
    assert run(site, "init", "--name", "north") == 0
    assert capsys.readouterr().out.startswith(f"{note}\n")
    assert path.read_bytes() == after


@pytest.mark.parametrize("name", [RIGHTS, BROKER_CONF])
def test_file_of_junk_is_named_with_what_mends_it(site: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (site / name).write_bytes(bytes(range(128, 250)))
    assert run(site, "status") == 1
    assert f"✕ {name}: {site / name} is damaged: it is no UTF-8 text; put it right, or take" in capsys.readouterr().out


def test_comments_and_another_way_to_the_same_folder_are_no_change(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site / RIGHTS
    path.write_text("# seen by the auditor\n" + path.read_text().replace("user collector", "\n  user   collector"))
    (site.parent / "link").symlink_to(site)
    monkeypatch.chdir(site / "ca")
    for way in (Path(".."), Path("../../site"), site.parent / "link", Path(os.path.relpath(site))):
        assert {one.state for one in examine_broker_files(way, MADE)} == {"good"}
