"""A running collector's site folder: read again when it changes, kept while an edit is broken."""

import asyncio
import logging
import os
from pathlib import Path

import pytest

from agent.language import speaking
from collector import beside
from collector.beside import Place, read_site
from collector.ruleset import load_rules
from collector.site_revoked import spell_revoked
from collector.site_seen import Seen, SeenAsset, SeenReporter
from collector.site_watch import SiteWatch

BEFORE = "assets:\n  a: {reporters: [one]}\n"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "register.yaml").write_text(BEFORE)
    return beside.embedded_place(tmp_path, "hospital")


def watch(place: Place) -> SiteWatch:
    rules = load_rules().rules
    return SiteWatch(place, read_site(place, rules)[0], rules)


def reporters(watching: SiteWatch) -> tuple[str, ...]:
    return watching.now.site.folder.section("asset")["a"].reporters


def edit(place: Place, text: str) -> None:
    """Write the register; its time moves on although the test does not wait."""
    assert place.site_folder is not None
    path = place.site_folder / "register.yaml"
    at = path.stat().st_mtime_ns + 1_000_000_000
    path.write_text(text)
    os.utime(path, ns=(at, at))


def test_an_edit_is_read_at_the_next_look(place: Place) -> None:
    watching = watch(place)
    assert not watching.look()
    digest = watching.now.site.folder.digest
    edit(place, BEFORE.replace("one", "two"))
    assert watching.look()
    assert (reporters(watching), watching.now.site.folder.digest != digest) == (("two",), True)
    assert not watching.look()


def test_a_revoked_agent_is_known_at_the_next_look_and_changes_no_digest(place: Place) -> None:
    watching = watch(place)
    watching.look()
    digest = watching.now.site.folder.digest
    assert place.site_folder is not None
    (place.site_folder / "revoked.json").write_text(spell_revoked({"one": 1_790_000_000_000}))
    assert watching.look()
    assert (watching.now.site.folder.revoked, watching.now.site.folder.digest) == ({"one": 1_790_000_000_000}, digest)
    assert not watching.look()


def test_an_edit_between_the_first_reading_and_the_first_look_is_not_missed(place: Place) -> None:
    watching = watch(place)
    edit(place, BEFORE.replace("one", "two"))
    assert watching.look()


def test_a_broken_edit_keeps_what_held_and_is_said_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    watching = watch(place)
    watching.look()
    edit(place, "assets:\n  a: {reporter: [two]}\n")
    with speaking("en"):
        assert not watching.look() and not watching.look()
        assert reporters(watching) == ("one",)
        assert watching.trouble.endswith("unknown key 'reporter'; did you mean 'reporters'?")
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert f"{place.site_folder}/register.yaml:2: unknown key 'reporter'; did you mean 'reporters'?" in caplog.text
        edit(place, BEFORE.replace("one", "two"))
        assert watching.look()
    assert watching.trouble == ""
    assert (reporters(watching), caplog.records[-1].getMessage()) == (("two",), "the site folder was read again")


def test_layout_alone_is_no_change(place: Place) -> None:
    watching = watch(place)
    watching.look()
    edit(place, "# a comment\n" + BEFORE)
    assert not watching.look()
    assert watching.now.site.folder.section("asset")["a"].place.endswith("register.yaml:3")


async def test_a_retired_asset_that_reports_is_said_at_the_start(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    edit(place, "assets:\n  a: {retired: {on: 2026-01-01, reason: gone}}\n")
    at = 1_790_000_000_000
    asset = SeenAsset("a", "one", (SeenReporter("one", at),), 0, at, (), None, (), ())
    asked = asyncio.Event()

    async def seen() -> Seen:
        asked.set()
        return Seen(at, (asset,), ())

    with speaking("en"):
        running = asyncio.create_task(watch(place).run(lambda changed: None, seen))
        await asked.wait()
        await asyncio.sleep(0)
        running.cancel()
    assert caplog.messages == [
        f"{place.site_folder}/register.yaml:2: asset 'a' left on 2026-01-01 and still reports"
        " (last 2026-09-21T22:13:20+08:00, by one); stop its agent or mend the register"
    ]
