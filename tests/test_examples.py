"""Every example of the documents is run here, or loaded, or named with the test that runs it; a new one without is red."""

import ast
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import urllib3
from examples import PAGES, ROOT, Example, calls, commands, examples
from servers import Influx, program, until

from agent.cli import build_parser as agent_parser
from agent.snmp import profile
from collector import rules_folder
from collector.cli import build_parser as collector_parser

SITE, BROKER, STORE = "tests/deploy/test_site.py", "tests/deploy/test_mosquitto.py", "tests/collector/test_store_cli.py"
ANSIBLE = "tests/deploy/test_ansible.py"
SYSTEMD, SNMP = "tests/deploy/test_systemd.py", "tests/agent/snmp/test_commands.py"

TRIED_BY: Mapping[tuple[str, str], str] = {
    ("README.md", "make up"): "tests/test_examples.py::test_make_up_and_make_test_run_what_they_say",
    ("README.md", ".venv/bin/infravitals demo"): "tests/collector/demo/test_demo.py::test_scorecards_of_its_past_are_there",
    ("docs/broken-on-purpose.md", "make chaos"): "tests/integration/test_chaos.py::test_killed_parts_cost_nothing",
    ("docs/broker.md", "sudo apt-get install"): f"{BROKER}::test_batch_and_receipt_pass_over_the_shipped_broker",
    ("docs/broker.md", "new='-newkey"): f"{BROKER}::test_certificate_made_as_the_page_says_is_one_for_the_name_that_agents_dial",
    ("docs/broker.md", "umask 077"): f"{BROKER}::test_user_made_as_the_page_says_gets_in",
    ("docs/broker.md", "sudo mosquitto_passwd -D"): f"{BROKER}::test_revoked_agent_is_out_at_once_and_the_others_stay",
    ("docs/failover.md", "infravitals drill"): "tests/hospital/test_drills.py::test_drill_run_prints_the_rto_that_the_servers_know_and_passes_when_the_service_is_back",
    ("docs/grafana.md", "sudo install -d"): "tests/deploy/test_grafana.py::test_dashboards_are_looked_for_where_the_document_says_to_put_them",
    ("docs/grafana.md", "[Service]"): "tests/deploy/test_grafana.py::test_no_secret_stands_in_a_provisioning_file_and_examples_cannot_reach_anybody",
    ("docs/influxdb.md", "infravitals store init"): f"{STORE}::test_init_makes_database_user_and_rights_and_may_be_run_again",
    ("docs/influxdb.md", "CREATE DATABASE"): f"{STORE}::test_init_makes_database_user_and_rights_and_may_be_run_again",
    ("docs/influxdb.md", 'SELECT mean("low")'): "tests/test_examples.py::test_query_for_grafana_is_one_that_influxdb_takes",
    ("docs/influxdb.md", "infravitals store copy"): "tests/collector/test_store_copy.py::test_dry_run_counts_and_writes_nothing",
    ("docs/operator.md", ".venv/bin/python tools/make_bundle.py"): f"{ANSIBLE}::test_installed_agent_runs_as_its_user",
    ("docs/operator.md", "$ cd deploy/ansible"): f"{ANSIBLE}::test_second_run_changes_nothing_and_shows_no_password",
    ("docs/operator.md", "# mkdir unpacked"): "tests/deploy/test_bundle.py::test_bundle_installs_without_internet_and_again_changes_nothing",
    ("docs/rules.md", "infravitals rules check"): "tests/test_docs.py::test_the_examples_pass_their_own_cases",
    ("docs/site.md", "# install -m 644 deploy/systemd"): f"{SYSTEMD}::test_users_and_folders_are_made",
    ("docs/site.md", "$ infravitals site init"): "tests/deploy/test_compose.py::test_everything_that_is_mounted_is_made_by_site_init",
    ("docs/site.md", ""): f"{SITE}::test_every_command_of_the_page_is_followed",
    ("docs/snmp.md", "pip install"): "tests/test_house.py::test_the_wheel_holds_rules_catalogue_and_pages_and_no_tests",
    ("docs/snmp.md", "infravitals-agent snmp try"): f"{SNMP}::test_try_shows_profiles_points_and_time",
}  # fmt: skip
"""(page, how a block begins) -> the test that tries it. '' begins every block of a page; the longest beginning counts."""

UNTRIED: Mapping[tuple[str, str], str] = {
    ("docs/influxdb.md", "influx bucket create"): "Debian has no InfluxDB 2 and no `influx`; docs/influxdb.md says what stands in",
}  # fmt: skip
"""What no test can try here, and why."""

GIVEN: Mapping[str, str] = {"sources.yaml": "sources:\n  host_cpu: {interval_seconds: 30}\n"}
"""Files that a reader has of his own."""

MAY_FIND_TROUBLE = ("doctor", "ledger", "rules test", "site remove-agent")
"""Commands that end with 1 when they find something; that is an answer. Here no broker runs that could shut an agent out."""

VARIABLES: Mapping[str, str] = {"$at": "2026-03-31T00:00:00Z", "$name": "lis-db-1"}
"""What variables of the examples may hold, where their commands are only read."""

LASTING = re.compile(r"infravitals up (?!.*--once)")
"""What runs until it is ended."""

SAID: Mapping[str, tuple[str, ...]] = {
    "README.md": (
        "telemetry-completeness",
        "next, one after the other",
        "inodes_used_ratio",
        "register.yaml",
        "the query, to run again",
    ),
    "docs/assessor.md": ("nodes agree", "the query, to run again", "the score is the sum of", "switch on snmp_device"),
    "docs/operator.md": ("host_disk", "things to mend", "the quarantine is empty", "agents/lis-db-2.tar"),
    "docs/rules.md": ("no score moved", "≥     99.9 % ->   100", "passed"),
    "docs/security.md": ("my-hospital/his-db-1 is revoked",),
}
"""Words that following a page must bring up: a page whose commands do nothing is red."""


def all_examples() -> list[Example]:
    return [example for page in PAGES for example in examples(page)]


def listed(table: Mapping[tuple[str, str], str], example: Example) -> tuple[str, str] | None:
    """The entry that speaks of this example."""
    found = [key for key in table if key[0] == example.page and example.first.startswith(key[1])]
    return max(found, key=lambda key: len(key[1]), default=None)


def run_here(page: str) -> list[Example]:
    """The examples of a page that nobody else tries."""
    return [
        one
        for one in examples(page)
        if one.language in ("sh", "console") and listed(TRIED_BY, one) is None and listed(UNTRIED, one) is None
    ]


def test_every_example_is_run_loaded_or_named() -> None:
    """yaml is loaded by test_house; a shell block is run here unless a list names it; all else must be in a list."""
    loose = [
        f"{one.place}: ```{one.language} {one.first!r}: say sh, console or yaml, or add ('{one.page}', '…') to TRIED_BY"
        for one in all_examples()
        if one.language not in ("sh", "console", "yaml") and listed(TRIED_BY, one) is None and listed(UNTRIED, one) is None
    ]  # fmt: skip
    unread = [one.place for one in all_examples() if one.page not in SAID and run_here(one.page)]
    assert not loose, "\n" + "\n".join(loose)
    assert not unread, f"add what following these pages brings up to SAID, or name the tests in TRIED_BY: {unread}"


def test_lists_name_examples_and_tests_that_are_there() -> None:
    used = {listed(table, one) for table in (TRIED_BY, UNTRIED) for one in all_examples()}
    assert not [key for key in (*TRIED_BY, *UNTRIED) if key not in used], "take it out: no such example"
    for test in TRIED_BY.values():
        path, _, name = test.partition("::")
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in defined, f"there is no {test}"


def test_every_call_of_our_programs_is_one_that_they_take() -> None:
    parsers = {"infravitals": collector_parser(), "infravitals-agent": agent_parser()}
    seen, wrong = 0, []
    for example in all_examples():
        if example.language not in ("sh", "console", ""):
            continue
        for command in commands(example):
            for name, words in calls(command):
                seen += 1
                heard = io.StringIO()
                with contextlib.redirect_stderr(heard), contextlib.suppress(SystemExit):
                    parsers[name].parse_args([VARIABLES.get(word, word) for word in words])
                    continue
                wrong.append(f"{example.place}: {command}: {heard.getvalue().strip()}")
    assert seen > 50
    assert not wrong, "\n" + "\n".join(wrong)


def followed(page: str, folder: Path) -> str:
    """What the commands of a page said that were run in `folder`, one after the other."""
    home = {"HOME": str(folder), "INFRAVITALS_LANG": "en", "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}  # fmt: skip
    said = ""
    for example in run_here(page):
        lines = []
        for command in commands(example):
            if LASTING.search(command):
                said += run_for_a_while(command, folder, {**os.environ, **home})
                continue
            may = any(f"infravitals {word}" in command for word in MAY_FIND_TROUBLE)
            lines.append(f"{re.sub(r' +# .*', '', command)} || [ $? = 1 ]" if may else command)
        script = subprocess.run(
            ["sh", "-euc", "\n".join(lines)],
            cwd=folder,
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert script.returncode == 0, f"{example.place}\n{script.stdout}{script.stderr}"
        said += script.stdout + script.stderr
    return said


def run_for_a_while(command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Start what lasts in a network of its own, where its port is free; Ctrl-C once its page is there."""
    log = folder / "lasting.log"
    words = [program("unshare", "util-linux"), "--net", "sh", "-euc", f"ip link set lo up; exec {command}"]
    with log.open("w") as file:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        until(lambda: "http://127.0.0.1:8650" in log.read_text(), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    return log.read_text()


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder like this repository in which somebody followed the README, and what that said."""
    program("mosquitto_passwd", "mosquitto")
    folder = tmp_path_factory.mktemp("reader")
    for rules in ("rules", "tests/rules"):
        shutil.copytree(ROOT / rules, folder / rules)
    (folder / ".venv").symlink_to(sys.prefix)
    for name, text in GIVEN.items():
        (folder / name).write_text(text)
    yield folder, followed("README.md", folder)


def test_the_readme_is_followed_word_for_word(after_readme: tuple[Path, str]) -> None:
    folder, said = after_readme
    assert [words for words in SAID["README.md"] if words not in said] == []
    assert (folder / "register.yaml").exists() and (folder / "hospital" / "agents" / "his-db-1.tar").exists()


@pytest.mark.parametrize("page", [page for page in SAID if page != "README.md"])
def test_a_page_is_followed_word_for_word(page: str, after_readme: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(
        after_readme[0], folder, symlinks=True, ignore=lambda _, names: [n for n in names if n.endswith(".sock")]
    )
    said = followed(page, folder)
    assert [words for words in SAID[page] if words not in said] == [], said


def test_make_up_and_make_test_run_what_they_say() -> None:
    """What `make up` starts is what the tests of `up` start; `make test` ends in pytest."""
    for target, last in (("up", ".venv/bin/infravitals up --data-dir data"), ("test", ".venv/bin/pytest")):
        # this may itself run below `make test`, which then says where it goes
        call = ["make", "-n", "--no-print-directory", target]
        said = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert said.strip().splitlines()[-1].endswith(last), said


def test_query_for_grafana_is_one_that_influxdb_takes(tmp_path: Path) -> None:
    [query] = [one.text for one in examples("docs/influxdb.md") if one.first.startswith('SELECT mean("low")')]
    filled = query.replace("$timeFilter", "time > 0").replace("$__interval", "1h")
    with Influx(tmp_path) as influx:
        influx.ask("CREATE DATABASE page")
        line = b"score,site=my-hospital,kind=node,node=total low=42,high=50 1795700000000000000\n"
        headers = urllib3.make_headers(basic_auth=":".join(influx.ADMIN))
        urllib3.request("POST", f"{influx.url}/write?db=page", body=line, headers=headers, retries=False)
        assert ",42]" in influx.ask(filled, "page")


def test_readme_names_every_profile_and_no_other() -> None:
    for page, heading in (
        ("README.md", "| 设备 / devices | 档案 / profiles |"),
        ("docs/snmp.md", "| 档案 / profile |"),
    ):
        text = (ROOT / page).read_text("utf-8")
        rows = text[text.index(heading) :].split("\n\n")[0].splitlines()[2:]
        column = 2 if page == "README.md" else 1
        named = {name for row in rows for name in re.findall("`([^`]+)`", row.split("|")[column])}
        due = set(profile.load_profiles())
        assert due == named, f"{page}, table of profiles: add {sorted(due - named)}, take out {sorted(named - due)}"


def test_readme_counts_the_criteria_that_there_are() -> None:
    book, _ = rules_folder.load()
    kinds = [criterion.kind for criterion in book.criteria.values()]
    counted = f"{kinds.count('measured')} 条实测准则、{kinds.count('attested')} 条由人证明的准则"
    assert counted in (ROOT / "README.md").read_text("utf-8")
    drawn = f"{kinds.count('measured')} + {kinds.count('attested')} criteria"
    assert drawn in (ROOT / "docs" / "images" / "line.svg").read_text("utf-8")


def test_recipes_name_folders_that_are_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## 配方")[2].partition("\n## ")[0]
    paths: list[str] = re.findall("`([^` ]+/[^` ]+)`", text)
    assert len(paths) >= 5
    for path in paths:
        assert (ROOT / path.partition("<")[0]).exists(), f"README.md, recipes: there is no {path}"


def test_every_page_stands_in_the_index_and_every_link_leads_somewhere() -> None:
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    lost = [page for page in PAGES if page.startswith("docs/") and page != "docs/README.md" and f"]({Path(page).name})" not in index]  # fmt: skip
    assert not lost, f"add to docs/README.md: {lost}"
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text("utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                broken.append(f"{page}: {target}")
    assert not broken, "\n" + "\n".join(broken)


def test_pictures_are_those_that_make_screenshots_draws_and_small() -> None:
    drawn = {
        f"{name}-{language}-{width}.png"
        for name in re.findall(r'Shot\("(\w+)"', (ROOT / "tools" / "screenshots.py").read_text("utf-8"))
        for language in ("zh", "en")
        for width in (1280, 390)
    }
    there = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").glob("*.png")}
    assert len(drawn) == 20 and there.keys() == drawn, "make screenshots"
    assert sum(there.values()) < 1_500_000 and min(there.values()) > 5_000


def test_security_page_names_tests_that_are_there() -> None:
    named = re.findall(r"`((?:tests|tools)/[\w/.]+)`", (ROOT / "docs" / "security.md").read_text("utf-8"))
    assert len(named) > 10 and not [path for path in named if not (ROOT / path).exists()]


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links them."""
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}
