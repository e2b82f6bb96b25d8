"""`register`, `attest` and `maintenance` as a person calls them, on a store that has seen a small hospital."""

import datetime
import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deliveries import ADDRESS
from unprivileged import open_folder, run_unprivileged

from agent import language
from agent.documents import read_document
from agent.points import Point
from collector import beside, site_edit
from collector.cli import main
from collector.quarantine import Entry, Quarantine
from collector.reasons import Reason
from collector.site_files import read_site_folder
from collector.stores import AppliedBatch

ROOT = Path(__file__).parents[2]
NOW = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
AGO = NOW - 3_600_000

SEEN = {
    "srv-1": [
        Point("host_cpu", {"asset": "srv-1"}, {"busy_ratio": 0.5}, AGO),
        Point("replication", {"asset": "srv-1", "pair": "x"}, {"is_in_sync": 1.0}, AGO),
        Point("asset_info", {"asset": "srv-1"}, {"is_virtual": 0.0}, AGO),
        Point("net_interface", {"asset": "srv-1", "interface": "bond0"}, {"is_up": 1.0}, AGO),
    ],
    "gateway": [
        Point("poll", {"asset": "sw-1", "target": "sw-1"}, {"is_answering": 1.0}, AGO),
        Point("storage_pool", {"asset": "array-1", "pool": "p"}, {"used_ratio": 0.5}, AGO),
        Point("line", {"asset": "rt-1", "line": "city-line"}, {"is_up": 1.0}, AGO),
        Point("line", {"asset": "rt-1", "line": "市级 专线"}, {"is_up": 1.0}, AGO),
        Point("service_probe", {"asset": "rt-1", "service": "his", "probe": "p"}, {"is_up": 1.0}, AGO),
    ],
}


@pytest.fixture(autouse=True)
def in_english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of an `up` that ran here."""
    folder = tmp_path / "data"
    place = beside.embedded_place(folder, ADDRESS.site)
    beside.remember_site(place)
    with place.store() as store:
        for number, (agent, points) in enumerate(SEEN.items()):
            store.write([AppliedBatch(ADDRESS.site, agent, "boot", number, f"boot/{number}", NOW, NOW, points, 0, ())])
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command; gives exit code, output and complaints."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words] + ([] if "--lang" in words else ["--lang", "en"]))
        except SystemExit as end:  # argparse ends by itself
            status = int(str(end.code))
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_a_draft_holds_what_was_seen_and_passes_its_own_check(run: Run, data: Path, site: Path) -> None:
    status, text, _ = run("register", "draft", "--data-dir", data)
    assert status == 0
    assert "class: server  # 猜测：host_cpu / a guess: host_cpu" in text
    assert "role: [database]  # 猜测：replication / a guess: replication" in text
    assert "# 有冗余网口 bond0 / has redundant interfaces bond0" in text
    assert "# 物理机 / a physical machine" in text
    assert "# '市级 专线' 不能作名称，请在采集源处改名 / cannot be a name; rename it at its source" in text
    assert run("register", "draft", "--data-dir", data, "-o", site / "register.yaml")[0] == 0
    folder, _ = read_site_folder(site)
    assert {name: entry.reporters for name, entry in folder.section("asset").items()} == {
        "array-1": ("gateway",),
        "rt-1": ("gateway",),
        "srv-1": ("srv-1",),
        "sw-1": ("gateway",),
    }
    assert [entry.attributes["class"] for name, entry in folder.section("asset").items() if name != "rt-1"] == [
        ("storage",),
        ("server",),
        ("network",),
    ]
    assert (list(folder.section("line")), list(folder.section("service"))) == (["city-line"], ["his"])
    status, out, _ = run("register", "check", "--data-dir", data, "--site-folder", site)
    assert (status, out.splitlines()[-1]) == (0, f"{site}: no mistakes, 1 warnings")
    assert out.startswith(f"warning {site}/register.yaml:1: line '市级 专线' stands in the data and not under links")


def test_a_draft_never_goes_over_a_file(run: Run, data: Path, site: Path) -> None:
    (site / "register.yaml").write_text("assets: {}\n")
    status, _, err = run("register", "draft", "--data-dir", data, "-o", site / "register.yaml")
    assert (status, err) == (1, f"{site}/register.yaml is there already and stays; choose another name\n")
    assert (site / "register.yaml").read_text() == "assets: {}\n"


def test_a_draft_without_data_is_one_sentence(run: Run, tmp_path: Path) -> None:
    status, _, err = run("register", "draft", "--data-dir", tmp_path / "nothing")
    assert (status, len(err.splitlines())) == (2, 1)


REGISTER = """\
assets:
  srv-1:
    reporters: [srv-1]
    retired: {on: 2021-01-01, reason: replaced}
  sw-1:
    reporters: [gateway-2]
  array-1:
  rt-1:
  never-1:
services: {his: }
links: {city-line: }
"""


def test_check_with_data_says_who_reports_against_the_register(run: Run, data: Path, site: Path) -> None:
    (site / "register.yaml").write_text(REGISTER.replace("  array-1:\n", ""))
    with Quarantine(data / "quarantine.sqlite") as quarantine:
        what = "'line' {'asset': 'rt-1'} {}"
        aside = [Entry(NOW, ADDRESS.site, agent, Reason.NOT_YOURS, what) for agent in ("gateway-9",)]
        quarantine.keep(aside, {Reason.NOT_YOURS: 1})
    status, out, err = run("register", "check", "--data-dir", data, "--site-folder", site, "--format", "json")
    assert (status, err) == (0, "")
    found = [f"{one['line']}: {one['text']}" for one in json.loads(out)["warnings"]]
    assert found[0] == "1: asset 'array-1' reports (by gateway) and is not registered"
    assert found[2].startswith("2: asset 'srv-1' left on 2021-01-01 and still reports (last ")
    assert found[2].endswith(", by srv-1); stop its agent or mend the register")
    assert found[3] == (
        "5: asset 'sw-1' was reported by gateway within a day, its reporters are gateway-2; what follows will be set aside"
    )
    assert found[4] == "8: asset 'never-1' is registered and never reported"
    assert len(found) == 5


def test_what_was_set_aside_as_another_s_is_said(run: Run, data: Path, site: Path) -> None:
    (site / "register.yaml").write_text(REGISTER)
    with Quarantine(data / "quarantine.sqlite") as quarantine:
        entry = Entry(NOW, ADDRESS.site, "gateway", Reason.NOT_YOURS, "'poll' {'asset': 'sw-1', 'target': 'x'} {}")
        quarantine.keep([entry], {Reason.NOT_YOURS: 1})
    _, out, _ = run("register", "check", "--data-dir", data, "--site-folder", site)
    said = [line for line in out.splitlines() if "sw-1" in line]
    assert said == [
        f"warning {site}/register.yaml:5: what gateway reports of asset 'sw-1' is set aside: its reporters are gateway-2"
    ]


def test_check_gives_all_mistakes_and_exit_code_2(run: Run, site: Path) -> None:
    (site / "register.yaml").write_text("assets:\n  a: {zone: core}\n  a: {}\n")
    (site / "calendars.yaml").write_text("busy: {}\n")
    status, out, err = run("register", "check", "--site-folder", site)
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f"{site}/calendars.yaml:1: the calendar names no day and hours",
        f"{site}/register.yaml:3: key 'a' stands twice, first on line 2",
    ]


def test_a_criterion_that_no_rule_has_is_a_mistake_of_the_folder(run: Run, site: Path) -> None:
    (site / "exemptions.yaml").write_text(
        "- {criterion: link-qualty, asset: a, reason: x, author: y, from: 2026-01-01, until: 2026-02-01}\n"
    )
    status, _, err = run("register", "check", "--site-folder", site)
    assert status == 2
    assert err == f"{site}/exemptions.yaml:1: there is no criterion 'link-qualty'; did you mean 'link-quality'?\n"


def test_check_of_a_configuration_reads_its_site_folder(run: Run, site: Path) -> None:
    config = site.parent / "collector.yaml"
    config.write_text("site: hospital\nbroker: {host: broker.local}\nsite_folder: site\n")
    (site / "calendars.yaml").write_text("busy: {}\n")
    status, _, err = run("check", "-c", config)
    assert (status, err) == (2, f"{site}/calendars.yaml:1: the calendar names no day and hours\n")
    (site / "calendars.yaml").unlink()
    assert run("check", "-c", config)[0] == 0


def test_show_gives_one_entry_as_of_a_time(run: Run, site: Path) -> None:
    (site / "register.yaml").write_text(REGISTER)
    for as_of, state in (("2020-06-01", "in_service"), ("2021-01-01", "retired")):
        status, out, _ = run("register", "show", "srv-1", "--as-of", as_of, "--site-folder", site, "--format", "json")
        assert (status, json.loads(out)[0]["state"]) == (0, state)
    status, out, _ = run("register", "show", "--site-folder", site, "--format", "yaml")
    assert status == 0 and "- id: never-1\n" in out
    status, out, _ = run("register", "show", "srv-1", "--site-folder", site)
    assert "[" not in out and "replaced" in out
    status, _, err = run("register", "show", "srv-2", "--site-folder", site)
    assert (status, err) == (2, "the register has no 'srv-2'; did you mean 'srv-1'?\n")


def test_without_a_site_folder_each_command_says_so(run: Run, data: Path) -> None:
    for words in (["register", "check"], ["register", "show"], ["attest", "list"], ["maintenance", "list"]):
        status, _, err = run(*words, "--data-dir", data)
        assert (status, len(err.splitlines())) == (2, 1)
        assert "--site-folder" in err


def test_the_folder_in_the_data_directory_is_found(run: Run, data: Path) -> None:
    (data / "site").mkdir()
    (data / "site" / "register.yaml").write_text("assets: {a: }\n")
    status, out, _ = run("register", "show", "--data-dir", data, "--format", "json")
    assert (status, [row["id"] for row in json.loads(out)]) == (0, ["a"])


SOON = (datetime.date.today() + datetime.timedelta(days=300)).isoformat()  # noqa: DTZ011  # some day within the year
WHO = ("--author", "张三", "--role", "主任", "--reason", "第三级", "--expires", SOON)
"""Who attests, and until when."""


def test_attest_add_writes_what_the_scale_can_hold(run: Run, site: Path, tmp_path: Path) -> None:
    (tmp_path / "paper.pdf").write_bytes(b"paper")
    words = ("attest", "add", "ev-dr-location", *WHO, "--site-folder", site)
    status, _, err = run(*words, "--value", 1)
    assert (status, err) == (2, "who vouches for a value attaches the paper: add --document FILE\n")
    words = (*words, "--document", tmp_path / "paper.pdf")
    status, _, err = run(*words, "--value", 1.5)
    assert (status, "ev-dr-location" in err, (site / "attestations.yaml").exists()) == (2, True, False)
    status, out, err = run(*words, "--value", 1)
    assert (status, out, err) == (0, "ev-dr-location attested\n", "")
    written = read_document(site / "attestations.yaml").value[0]
    assert list(written) == ["criterion", "value", "reason", "author", "role", "document", "from", "expires"]
    (site / "documents" / "paper.pdf").unlink()
    status, out, _ = run("attest", "list", "--site-folder", site, "--format", "json")
    assert (status, json.loads(out)[0]["state"]) == (0, "document_gone")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("link-quality", "--value", "1"), "criterion 'link-quality' is measured; it takes no attested value"),
        (("link-qualty", "--value", "1"), "there is no criterion 'link-qualty'; did you mean 'link-quality'?"),
        (
            ("ev-dr-location", "--value", "-1", "--document", __file__),
            "scale dr-location of criterion 'ev-dr-location' has no -1: expected 0 to 4",
        ),
    ],
)
def test_what_cannot_be_attested_is_one_sentence(run: Run, site: Path, words: tuple[str, ...], sentence: str) -> None:
    status, _, err = run("attest", "add", *words, *WHO, "--site-folder", site)
    assert (status, len(err.splitlines())) == (2, 1)
    assert err.startswith(sentence)


def test_an_attestation_that_expires_before_it_begins_is_refused(run: Run, site: Path) -> None:
    words = ("attest", "add", "ev-dr-location", *WHO, "--site-folder", site, "--value", 1, "--document", __file__)
    status, _, err = run(*words, "--from", "2099-01-02")
    assert (status, err) == (2, f"--expires is {SOON}; it must be after --from, 2099-01-02\n")


def test_an_attestation_changes_no_score_of_the_past(run: Run, site: Path) -> None:
    words = ("attest", "add", "ev-dr-location", *WHO, "--site-folder", site, "--value", 1, "--document", __file__)
    status, _, err = run(*words, "--from", "2026-01-01")
    assert (status, len(err.splitlines())) == (2, 1)
    assert err.startswith("--from is 2026-01-01, which is past: an attestation counts from the day it is made")


def test_an_attestation_holds_no_longer_than_its_rule_lets_it(run: Run, site: Path) -> None:
    words = ("attest", "add", "ev-dr-location", "--author", "y", "--role", "z", "--reason", "x", "--value", 1)
    status, _, err = run(*words, "--document", __file__, "--expires", "2099-01-01", "--site-folder", site)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "an attestation of 'ev-dr-location' may hold for 365d at most; expires is too late" in err


def test_renew_keeps_the_old_one_and_expire_ends_the_new_one(run: Run, site: Path) -> None:
    where = ("--site-folder", site)
    (site / "attestations.yaml").write_text(
        """\
# 证明 / attestations
- criterion: ev-dr-location
  value: 1
  reason: x
  author: y  # the head of IT
  role: z
  document: {path: documents/paper.pdf, sha256: PAPER}
  from: 2020-01-01
  expires: 2021-01-01
""".replace("PAPER", hashlib.sha256(b"paper").hexdigest()),
        "utf-8",
    )
    (site / "documents").mkdir()
    (site / "documents" / "paper.pdf").write_bytes(b"paper")
    _, out, _ = run("attest", "list", *where, "--due", 30, "--format", "json")
    due = [row["criterion"] for row in json.loads(out) if row["state"] == "expired"]
    assert due == ["ev-dr-location"]
    assert run("attest", "renew", "ev-dr-location", "--expires", SOON, *where)[0] == 0
    _, out, _ = run("attest", "list", *where, "--due", 30, "--format", "json")
    assert json.loads(out) == []
    status, _, err = run("attest", "expire", "ev-dr-location", *where)
    assert (status, err) == (0, "")
    _, out, _ = run("attest", "list", *where, "--format", "json")
    assert {row["state"] for row in json.loads(out) if row["criterion"] == "ev-dr-location"} == {"expired"}
    status, _, err = run("attest", "expire", "ev-dr-location", *where)
    assert (status, "does not hold now" in err) == (2, True)
    text = (site / "attestations.yaml").read_text("utf-8")
    assert text.startswith("# 证明 / attestations\n") and "author: y  # the head of IT\n" in text
    assert text.count("criterion: ev-dr-location") == 2
    status, _, err = run("attest", "renew", "link-quality", "--expires", SOON, *where)
    assert (status, err.startswith("there is no attestation of 'link-quality'")) == (2, True)


def test_attested_criteria_without_an_attestation_are_listed(run: Run, site: Path) -> None:
    _, out, _ = run("attest", "list", "--site-folder", site, "--format", "json")
    assert ("ev-dr-location", "missing") in [(row["criterion"], row["state"]) for row in json.loads(out)]
    assert run("attest", "list", "--site-folder", site)[0] == 0


def test_maintenance_is_announced_beforehand_or_not_at_all(run: Run, site: Path) -> None:
    words = ("maintenance", "add", "db-1", "db-2", "--reason", "[disk]", "--author", "y", "--site-folder", site)
    status, _, err = run(*words, "--from", "2021-01-01", "--to", "2021-01-02")
    assert (status, err) == (
        2,
        "--from is 2021-01-01, which is past: only what was announced beforehand excuses\n",
    )
    assert run(*words, "--from", "2099-01-01T22:00:00+08:00", "--to", "2099-01-02")[0] == 0
    (window,) = read_site_folder(site)[0].maintenance
    assert (window.ids, window.reason) == (("db-1", "db-2"), "[disk]")
    status, out, _ = run("maintenance", "list", "--site-folder", site)
    assert (status, "[disk]" in out, "announced" in out) == (0, True, True)


def test_maintenance_of_what_the_register_does_not_have_is_refused(run: Run, site: Path) -> None:
    (site / "register.yaml").write_text("assets: {db-1: }\n")
    times = ("--from", "2099-01-01", "--to", "2099-01-02", "--reason", "x", "--author", "y")
    status, _, err = run("maintenance", "add", "db-2", *times, "--site-folder", site)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "there is no entry 'db-2'; did you mean 'db-1'?" in err
    assert run("maintenance", "add", "DB_2", *times, "--site-folder", site)[0] == 2
    assert not (site / "maintenance.yaml").exists()


@pytest.mark.parametrize("word", ["zh", "en"])
@pytest.mark.parametrize("command", ["register", "attest", "maintenance"])
def test_help_has_examples_in_both_languages(run: Run, command: str, word: str) -> None:
    status, out, _ = run(command, "--help", "--lang", word)
    assert status == 0
    assert ("示例" if word == "zh" else "examples") in out and f"infravitals {command}" in out


def test_a_time_without_its_offset_is_refused_on_the_command_line(run: Run, site: Path) -> None:
    status, _, err = run("register", "show", "--as-of", "2026-01-01T10:00:00", "--site-folder", site)
    assert (status, "neither a date" in err) == (2, True)


def test_a_role_that_looks_like_a_typo_is_named_with_the_nearest(run: Run, site: Path) -> None:
    (site / "register.yaml").write_text("assets:\n  a: {role: databse}\n  b: {role: our-own-word}\n", "utf-8")
    status, out, _ = run("register", "check", "--site-folder", site)
    assert status == 0
    assert "register.yaml:2: no rule asks for role 'databse' of 'a'; did you mean 'database'?" in out
    assert "our-own-word" not in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("attest", "add", "ev-dr-location", "--value", 1, *WHO[:4], "--expires", "2099-01-01", "--reason", ""),
            "empty",
        ),
        (("attest", "list", "--due", "-3"), "0 to 99999"),
        (("attest", "add", "ev-dr-location", "--value", 1, *WHO, "--document", "/nope.pdf"), "/nope.pdf"),
        (("register", "check", "--site-folder", "/nope"), "/nope: there is no such site folder"),
        (
            ("attest", "add", "ev-dr-location", "--value", 1, *WHO, "--document", __file__, "--site-folder", "/nope"),
            "/nope",
        ),
        (
            ("attest", "add", "ev-dr-location", "--value", 1, *WHO, "--document", "/etc"),
            "cannot read the document /etc: it is a folder",
        ),
        (("rules", "test", "--cases", "/nope"), "/nope"),
        (("drill", "list", "--folder", "/nope"), "there is no folder /nope"),
        (("score", "--as-of", "2020-01-01T00:00:00+08:00", "--data-dir", "/nope"), "no data in /nope"),
        (("score", "--data-dir", "/nope"), "/nope"),
    ],
)
def test_what_the_command_line_names_wrongly_is_2(
    run: Run, site: Path, words: tuple[object, ...], sentence: str
) -> None:
    where = () if "--site-folder" in words or words[0] in ("rules", "score", "drill") else ("--site-folder", site)
    status, _, err = run(*words, *where)
    assert (status, sentence in err, len(err.splitlines())) == (2, True, 1)


def test_a_draft_that_does_not_fit_leaves_nothing_behind(
    run: Run, data: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    words = ("register", "draft", "--data-dir", data, "-o", site / "register.yaml")
    with monkeypatch.context() as full:
        full.setattr(site_edit, "_sync", fill)
        status, _, err = run(*words)
    assert (status, err) == (1, f"cannot write {site}/register.yaml: No space left on device\n")
    assert list(site.iterdir()) == []
    assert run(*words)[0] == 0
    assert [path.name for path in site.iterdir()] == ["register.yaml"]


def test_the_first_draft_makes_the_folder_that_the_pages_name(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = beside.find_place(None, data)
    assert place.register == data.absolute() / "site" / "register.yaml"
    words = ("register", "draft", "--data-dir", data, "-o", place.register)
    with monkeypatch.context() as full:
        full.setattr(site_edit, "_sync", fill)
        assert run(*words)[0] == 1
    assert not place.register.parent.exists()
    status, out, _ = run(*words)
    assert (status, out.splitlines()[1]) == (0, "a collector that runs reads it once it is started anew")
    assert run("register", "check", "--data-dir", data)[0] == 0
    assert beside.find_place(None, data).site_folder == data / "site"


def test_a_draft_says_what_makes_a_register_of_it(run: Run, data: Path, site: Path) -> None:
    config = data.parent / "collector.yaml"
    config.write_text(f"site: {ADDRESS.site}\nbroker: {{host: broker.local}}\ndata_directory: {data}\n")
    aside = run("register", "draft", "--data-dir", data, "-o", site / "mine.yaml")[1].splitlines()[1]
    told = run("register", "draft", "-c", config, "-o", data / "site" / "register.yaml")[1].splitlines()[1]
    assert aside == f"once it is right keep it as {data}/site/register.yaml"
    assert told == f"write `site_folder: {data}/site` into {config} and start the collector anew"
    config.write_text(f"{config.read_text()}site_folder: {site}\n")
    assert len(run("register", "draft", "-c", config, "-o", site / "register.yaml")[1].splitlines()) == 1


def test_where_there_is_no_site_folder_the_command_that_makes_one_is_told(run: Run, data: Path) -> None:
    for words in (("register", "check"), ("attest", "list"), ("maintenance", "list")):
        status, _, err = run(*words, "--data-dir", data)
        assert (status, f"register draft --data-dir {data} -o {data}/site/register.yaml" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("up", "--site", "A.B"), "argument --site: 'A.B' cannot be a name: "),
        (("up", "--site", "simulated-x"), "argument --site: names that begin with 'simulated-' "),
        (("site", "init", "--dir", "x", "--name", "A.B"), "argument --name: 'A.B' cannot be a name: "),
    ],
)
def test_a_name_that_cannot_be_is_said_once_with_its_option(run: Run, words: tuple[str, ...], sentence: str) -> None:
    status, _, err = run(*words)
    assert (status, sentence in err) == (2, True), err


def test_a_draft_where_there_is_no_directory_is_2(run: Run, data: Path, site: Path) -> None:
    assert run("register", "draft", "--data-dir", data, "-o", site / "no" / "register.yaml")[0] == 2


def test_an_empty_register_is_a_warning(run: Run, site: Path) -> None:
    (site / "register.yaml").write_text("")
    status, out, _ = run("register", "check", "--site-folder", site)
    assert (status, out.splitlines()) == (
        0,
        [
            f"warning {site}/register.yaml: the file is empty, as if there were no register",
            f"{site}: no mistakes, 1 warnings",
        ],
    )


def test_data_that_may_not_be_read_is_not_no_data() -> None:
    with open_folder() as place:
        data = place / "data"
        data.mkdir()
        data.chmod(0)
        for words in (
            ["up", "--once"],
            ["score"],
            ["explain", "x"],
            ["history"],
            ["quarantine"],
            ["register", "draft"],
        ):
            status, out, err = run_unprivileged(*words, "--data-dir", data)
            assert (status, out, err.count("\n")) == (1, "", 1)
            assert err.startswith(f"no permission to read the data directory {data};")
        (data / "below").mkdir()
        for folder in (data, data / "below"):
            status, _, err = run_unprivileged("register", "check", "--site-folder", folder)
            assert (status, err.count("\n")) == (2, 1)
        data.chmod(0o755)


def test_a_table_in_a_pipe_cuts_no_id(run: Run, site: Path) -> None:
    _, out, _ = run("attest", "list", "--site-folder", site)
    assert "internet-hospital-qualification-assessed" in out
