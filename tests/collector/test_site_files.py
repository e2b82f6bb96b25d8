"""The site folder: read whole, or refused with every mistake of every file and its line."""

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.catalogue import Text
from agent.documents import FileMistakes
from agent.language import speaking
from collector.site_files import read_site_folder, spans_of
from collector.site_folder import EMPTY_DIGEST, FOR_EVER, Calendar, SiteFolder

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")

REGISTER = """\
zones:
  core: {title: 核心区}
services:
  his: {title: {zh: 医院信息系统, en: HIS}, criticality: critical, calendar: busy, assets: [his-db-1]}
links:
  med-line: {role: telemedicine, provider: telecom-a, partner: city, committed_bits_per_second: 100000000}
segments:
  core-lan:
assets:
  his-db-1:
    class: server
    criticality: critical
    zone: core
    role: [database, application]
    reporters: [his-db-1, gateway-1]
    from: 2026-01-01
  old-sw:
    class: network
    role: access
    from: 2025-01-01T08:00:00+00:00
    until: 2027-01-01
    retired: {on: 2026-06-01, reason: 更换}
"""
CALENDARS = """\
busy:
  days:
    mon-fri: ["08:00-12:00", "13:30-17:30"]
    sat: ["08:00-12:00"]
  holidays: [2026-01-01]
"""
ATTESTATION = """\
- criterion: ev-power
  value: 1
  reason: 双路市电
  author: 张三
  role: 信息科主任
  from: 2026-01-01
  expires: 2027-01-01
"""
WINDOW = """\
- of: [his-db-1]
  from: 2026-03-02T22:00:00+08:00
  to: 2026-03-03
  reason: 升级
  author: 张三
  declared: 2026-03-01
"""
EXEMPTION = """\
- {criterion: redundant-power, asset: his-db-1, reason: 待改造, author: 张三, from: 2026-01-01, until: 2026-12-31}
"""
ALL = {
    "register.yaml": REGISTER,
    "calendars.yaml": CALENDARS,
    "attestations.yaml": ATTESTATION,
    "maintenance.yaml": WINDOW,
    "exemptions.yaml": EXEMPTION,
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def read(folder: Path, files: Mapping[str, str] = {}) -> SiteFolder:
    found, warnings = read_site_folder(write(folder, files))
    assert warnings == []
    return found


def mistakes(folder: Path, files: Mapping[str, str]) -> list[str]:
    with speaking("en"), pytest.raises(FileMistakes) as caught:
        read_site_folder(write(folder, files))
    return [f"{Path(mistake.file).name}:{mistake.line}: {mistake.text}" for mistake in caught.value.mistakes]


def ms(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def test_an_empty_folder_is_an_empty_site_folder_and_not_none(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert (found.has_register, found.entries, found.attestations, found.zone) == (False, {}, (), SHANGHAI)
    assert found.digest != EMPTY_DIGEST
    assert SiteFolder().digest == EMPTY_DIGEST


def test_the_register_is_read_whole(tmp_path: Path) -> None:
    found = read(tmp_path, ALL)
    db = found.section("asset")["his-db-1"]
    assert db.attributes == {
        "class": ("server",),
        "criticality": ("critical",),
        "zone": ("core",),
        "role": ("database", "application"),
    }
    assert (db.reporters, db.since, db.until) == (("his-db-1", "gateway-1"), ms("2026-01-01T00:00+08:00"), FOR_EVER)
    assert db.place == f"{tmp_path}/register.yaml:10"
    old = found.section("asset")["old-sw"]
    assert (old.since, old.until, old.retired) == (ms("2025-01-01T08:00Z"), ms("2026-06-01T00:00+08:00"), "更换")
    his = found.section("service")["his"]
    assert (his.title, his.calendar, his.assets) == (Text("医院信息系统", "HIS"), "busy", ("his-db-1",))
    line = found.section("line")["med-line"]
    assert (line.provider, line.partner, line.committed_bits_per_second) == ("telecom-a", "city", 1e8)
    assert found.section("segment")["core-lan"].attributes == {}
    assert found.section("from_zone")["core"].title == Text("核心区", "核心区")


def test_what_people_vouch_for_and_announce_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, ALL)
    (attestation,) = found.attestations
    assert (attestation.value, attestation.is_not_applicable, attestation.document) == (1.0, False, None)
    assert (attestation.since, attestation.expires) == (ms("2026-01-01T00:00+08:00"), ms("2027-01-01T00:00+08:00"))
    assert list(found.excuses_of("his-db-1")) == [(ms("2026-03-02T22:00+08:00"), ms("2026-03-03T00:00+08:00"))]
    (exemption,) = found.exemptions
    assert (exemption.tag, exemption.id, exemption.place) == ("asset", "his-db-1", f"{tmp_path}/exemptions.yaml:1")


def test_the_time_zone_of_the_folder_is_where_its_days_begin(tmp_path: Path) -> None:
    found = read(tmp_path, {**ALL, "site.yaml": "title: 第一医院\ntime_zone: Europe/Berlin\n"})
    assert (found.zone, found.title) == (BERLIN, Text("第一医院", "第一医院"))
    assert found.section("asset")["his-db-1"].since == ms("2026-01-01T00:00+01:00")
    without, _ = read_site_folder(write(tmp_path, {"site.yaml": "title: x\n"}), BERLIN)
    assert without.zone == BERLIN


def test_layout_and_comments_do_not_change_the_digest_but_content_does(tmp_path: Path) -> None:
    before = read(tmp_path, ALL)
    same = read(tmp_path, {"attestations.yaml": "# a comment\n\n" + ATTESTATION.replace("value: 1\n", "value:   1\n")})
    assert same.digest == before.digest
    other = read(tmp_path, {"attestations.yaml": ATTESTATION.replace("value: 1", "value: 2")})
    assert other.digest != before.digest
    assert [name for name in other.parts if other.parts[name] != before.parts[name]] == ["attestations.yaml"]


def test_a_document_counts_while_it_lies_there_unchanged(tmp_path: Path) -> None:
    sha = hashlib.sha256(b"paper").hexdigest()
    text = ATTESTATION + f"  document: {{path: documents/a.pdf, sha256: {sha}}}\n"
    found = read(tmp_path, {"attestations.yaml": text, "documents/a.pdf": "paper"})
    paper = found.attestations[0].document
    assert paper is not None and paper.is_there
    for change in ("changed", None):
        (tmp_path / "documents/a.pdf").write_text("other") if change else (tmp_path / "documents/a.pdf").unlink()
        with speaking("en"):
            gone, warnings = read_site_folder(tmp_path)
        (warning,) = warnings
        what = "was changed" if change else "is gone"
        assert str(warning) == (
            f"{tmp_path}/attestations.yaml:8: document 'documents/a.pdf' {what}; this attestation does not count"
        )
        assert gone.attestations[0].document is not None and not gone.attestations[0].document.is_there
        assert gone.digest != found.digest


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "register.yaml", "documents/../x"])
def test_a_document_outside_its_folder_is_refused(tmp_path: Path, path: str) -> None:
    text = ATTESTATION + f"  document: {{path: {path}, sha256: {'a' * 64}}}\n"
    (found,) = mistakes(tmp_path, {"attestations.yaml": text})
    assert found == f"attestations.yaml:8: document '{path}' does not lie in documents/ of the site folder"


BAD = {
    "two assets of one id": (
        {"register.yaml": "assets:\n  a: {}\n  a: {}\n"},
        "register.yaml:3: key 'a' stands twice, first on line 2",
    ),
    "a bad id": (
        {"register.yaml": "assets:\n  His_DB: {}\n"},
        "register.yaml:2: 'His_DB': expected a name of small letters, digits and hyphens, a letter or digit first,"
        " at most 63, found 'His_DB'",
    ),
    "an unknown zone": (
        {"register.yaml": "zones: {core: }\nassets:\n  a: {zone: croe}\n"},
        "register.yaml:3: there is no zone 'croe'; did you mean 'core'?",
    ),
    "an unknown calendar": (
        {"register.yaml": "assets:\n  a: {calendar: bsy}\n", "calendars.yaml": CALENDARS},
        "register.yaml:2: there is no calendar 'bsy'; did you mean 'busy'?",
    ),
    "an unknown asset of a service": (
        {"register.yaml": "services:\n  s:\n    assets:\n      - his-db-1\nassets: {his-db-2: }\n"},
        "register.yaml:4: there is no asset 'his-db-1'; did you mean 'his-db-2'?",
    ),
    "until before from": (
        {"register.yaml": "assets:\n  a:\n    from: 2026-02-01\n    until: 2026-01-01\n"},
        "register.yaml:4: 'until' is 2026-01-01; it must be after 'from', 2026-02-01",
    ),
    "retired before from": (
        {"register.yaml": "assets:\n  a:\n    from: 2026-02-01\n    retired: {on: 2026-01-01, reason: x}\n"},
        "register.yaml:4: 'on' is 2026-01-01; it must be after 'from', 2026-02-01",
    ),
    "a day that no calendar has": (
        {"register.yaml": "assets:\n  a: {from: 2026-02-30}\n"},
        "register.yaml:2: 'from': there is no 2026-02-30",
    ),
    "a time without its offset": (
        {"register.yaml": "assets:\n  a:\n    from: 2026-02-03T10:00:00\n"},
        "register.yaml:3: 'from': expected a date such as 2026-01-01, or a time with its offset such as"
        " 2026-01-01T08:00:00+08:00, found '2026-02-03T10:00:00'",
    ),
    "an unknown key": (
        {"register.yaml": "assets:\n  a: {critcality: high}\n"},
        "register.yaml:2: unknown key 'critcality'; did you mean 'criticality'?",
    ),
    "a role that is no word": (
        {"register.yaml": "assets:\n  a: {role: [core, '']}\n"},
        "register.yaml:2: 'role': '' is no word",
    ),
    "reporters of a service": (
        {"register.yaml": "services:\n  a: {reporters: [x]}\n"},
        "register.yaml:2: unknown key 'reporters'; did you mean 'retired'?",
    ),
    "a calendar that names no day": (
        {"calendars.yaml": "busy:\n  holidays: [2026-01-01]\n"},
        "calendars.yaml:1: the calendar names no day and hours",
    ),
    "hours out of order": (
        {"calendars.yaml": 'busy:\n  days:\n    mon: ["13:00-17:00", "08:00-12:00"]\n'},
        "calendars.yaml:3: '08:00-12:00' overlaps the span before it or is out of order",
    ),
    "hours that overlap": (
        {"calendars.yaml": 'busy:\n  days:\n    mon:\n      - "08:00-12:00"\n      - "11:00-13:00"\n'},
        "calendars.yaml:5: '11:00-13:00' overlaps the span before it or is out of order",
    ),
    "hours that end before they begin": (
        {"calendars.yaml": 'busy:\n  days: {mon: ["22:00-06:00"]}\n'},
        "calendars.yaml:2: '22:00-06:00' is no span of hours: expected one like 08:00-12:00, the earlier first,"
        " within a day; 24:00 is its end",
    ),
    "a day named twice": (
        {"calendars.yaml": 'busy:\n  days:\n    mon-fri: ["08:00-12:00"]\n    wed: ["13:00-14:00"]\n'},
        "calendars.yaml:4: 'wed': wed was named before",
    ),
    "a day that is none": (
        {"calendars.yaml": 'busy:\n  days:\n    monday: ["08:00-12:00"]\n    tue: ["08:00-12:00"]\n'},
        "calendars.yaml:3: 'monday' is no day: mon, tue, wed, thu, fri, sat, sun, or a range such as mon-fri",
    ),
    "maintenance declared too late": (
        {"maintenance.yaml": WINDOW.replace("declared: 2026-03-01", "declared: 2026-03-02T22:00:00+08:00")},
        "maintenance.yaml:6: 'declared' is 2026-03-02T22:00:00+08:00, not before 'from', 2026-03-02T22:00:00+08:00:"
        " only what was announced beforehand excuses",
    ),
    "maintenance of nothing known": (
        {"maintenance.yaml": WINDOW.replace("his-db-1", "his-db-3"), "register.yaml": "assets: {his-db-1: }\n"},
        "maintenance.yaml:1: there is no entry 'his-db-3'; did you mean 'his-db-1'?",
    ),
    "maintenance that ends before it begins": (
        {"maintenance.yaml": WINDOW.replace("to: 2026-03-03", "to: 2026-03-02")},
        "maintenance.yaml:3: 'to' is 2026-03-02; it must be after 'from', 2026-03-02T22:00:00+08:00",
    ),
    "an attestation that expires before it begins": (
        {"attestations.yaml": ATTESTATION.replace("expires: 2027", "expires: 2025")},
        "attestations.yaml:7: 'expires' is 2025-01-01; it must be after 'from', 2026-01-01",
    ),
    "an attestation without a value": (
        {"attestations.yaml": ATTESTATION.replace("  value: 1\n", "")},
        "attestations.yaml:1: exactly one of value and not_applicable: true must be there",
    ),
    "an attestation with both": (
        {"attestations.yaml": ATTESTATION + "  not_applicable: true\n"},
        "attestations.yaml:1: exactly one of value and not_applicable: true must be there",
    ),
    "an attestation without a reason": (
        {"attestations.yaml": ATTESTATION.replace("reason: 双路市电", "reason: ' '")},
        "attestations.yaml:3: 'reason': expected some words, found ' '",
    ),
    "two attestations from one moment": (
        {"attestations.yaml": ATTESTATION + ATTESTATION},
        "attestations.yaml:8: 'ev-power' is attested from the same moment on line 1 already",
    ),
    "an exemption of nothing": (
        {"exemptions.yaml": EXEMPTION.replace("asset: his-db-1, ", "")},
        "exemptions.yaml:1: exactly one of asset, service, system, line, from_zone, to_zone, segment must be there",
    ),
    "an unknown time zone": (
        {"site.yaml": "time_zone: Asia/Shangai\n"},
        "site.yaml:1: 'time_zone': this system knows no zone 'Asia/Shangai'; expected one like Asia/Shanghai,"
        " with tzdata installed",
    ),
    "a file that is not of the folder": (
        {"registre.yaml": "assets: {}\n"},
        "registre.yaml:1: the site folder has no file named 'registre.yaml'; did you mean 'register.yaml'?",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_bad_input_is_one_sentence_with_its_line(tmp_path: Path, name: str) -> None:
    files, sentence = BAD[name]
    assert mistakes(tmp_path, files) == [sentence]


def test_all_mistakes_of_all_files_come_at_once(tmp_path: Path) -> None:
    files = {name: files[name] for case in ("an unknown zone",) for files in (BAD[case][0],) for name in files}
    files["register.yaml"] += "  b: {critcality: high}\n"
    files["calendars.yaml"] = "busy: {}\n"
    files["maintenance.yaml"] = "- : ["
    found = mistakes(tmp_path, files)
    assert [line.split(" ")[0] for line in found] == [
        "calendars.yaml:1:",
        "maintenance.yaml:1:",
        "register.yaml:3:",
        "register.yaml:4:",
    ]


def test_a_register_that_cannot_be_read_makes_no_further_mistakes(tmp_path: Path) -> None:
    assert len(mistakes(tmp_path, {**ALL, "register.yaml": "assets: ["})) == 1
    assert len(mistakes(tmp_path, {**ALL, "calendars.yaml": "busy: ["})) == 1


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with speaking("en"), pytest.raises(FileMistakes, match=r"nowhere: there is no such site folder"):
        read_site_folder(tmp_path / "nowhere")


def test_a_text_in_place_of_a_file_is_what_an_edit_would_leave(tmp_path: Path) -> None:
    write(tmp_path, ALL)
    found, _ = read_site_folder(tmp_path, texts={"attestations.yaml": "[]\n"})
    assert found.attestations == ()


def test_spans_are_the_hours_of_the_week_without_holidays(tmp_path: Path) -> None:
    calendar = read(tmp_path, ALL).calendars["busy"]
    start, end = ms("2026-01-01T00:00+08:00"), ms("2026-01-05T09:00+08:00")  # a Thursday that is a holiday, to Monday
    assert [tuple(map(local, span)) for span in spans_of(calendar, SHANGHAI, start, end)] == [
        ("02 08:00", "02 12:00"),
        ("02 13:30", "02 17:30"),
        ("03 08:00", "03 12:00"),
        ("05 08:00", "05 09:00"),
    ]


def local(milliseconds: int) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, SHANGHAI).strftime("%d %H:%M")


def test_spans_that_touch_are_one_over_midnight() -> None:
    always = Calendar(dict.fromkeys(range(7), ((0, 720), (720, 1440))))
    start, end = ms("2026-01-01T05:00+08:00"), ms("2026-02-01T00:00+08:00")
    assert spans_of(always, SHANGHAI, start, end) == ((start, end),)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 3), ("2026-03-30", 4), ("2026-10-25", 5)])
def test_hours_follow_the_clocks_when_they_change(day: str, hours: int) -> None:
    night = Calendar(dict.fromkeys(range(7), ((60, 300),)))
    midnight = datetime.datetime.fromisoformat(day).replace(tzinfo=BERLIN)
    start = round(midnight.timestamp() * 1000)
    ((begin, end),) = spans_of(night, BERLIN, start, start + 20 * 3_600_000)
    assert (end - begin) == hours * 3_600_000


def test_an_hour_that_the_clocks_skip_is_not_there() -> None:
    skipped = Calendar(dict.fromkeys(range(7), ((120, 180),)))
    start = round(datetime.datetime(2026, 3, 29, tzinfo=BERLIN).timestamp() * 1000)
    assert spans_of(skipped, BERLIN, start, start + 20 * 3_600_000) == ()
