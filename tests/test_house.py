"""The tests of the house: what keeps the tree as the README draws it. Each failure prints the line to add or mend."""

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import catalogue, sources
from agent.config import read_config as read_agent_config
from agent.documents import build, read_document
from agent.drills.plan import Plan
from agent.snmp import profile, walkfile
from collector.cases import CaseFile, case_files
from collector.config import read_config as read_collector_config
from collector.rulebook import Asking, Cap, Combining, Criterion, Index, Scale
from collector.rules_folder import load
from collector.site_written import KIND_OF_FILE

ROOT = Path(__file__).parent.parent

LINE = (
    {"agent.errors", "agent.language"},
    {"agent.foreign_words", "agent.begin"},
    {
        "agent.documents",
        "agent.points",
        "agent.rates",
        "agent.table",
        "agent.commandline",
        "agent.logs",
        "agent.lean",
        "agent.notify",
        "agent.workers",
        "agent.secrets",
    },
    {"agent.catalogue", "agent.catalogue.page"},
    {"agent.wire", "agent.reasons"},
    {"agent.link", "agent.broker", "agent.mqtt_packets", "agent.mqtt_trouble"},
    {"agent.mqtt", "agent.inprocess", "agent.certificates", "agent.relative_paths"},
    {"agent.databases"},
    {"agent.continuity"},
    {"agent.sources", "agent.drills", "agent.snmp", "agent.profiles"},
    {"agent.spool_file", "agent.clock_steps", "agent.spool", "agent.readings", "agent.rounds", "agent.refusals"},
    {"agent.publish", "agent.run", "agent.config", "agent.secret_check"},
    {"agent.checkup"},
    {"agent.broker_check"},
    {"agent.service", "agent.sample", "agent.trial", "agent.doctor"},
    {"agent.snmp.commands"},
    {"agent.cli", "agent.start"},
    {"collector.query", "collector.page_password", "collector.simulated"},
    {"collector.buckets"},
    {"collector.numbers"},
    {"collector.stores", "collector.site_folder"},
    {"collector.measured"},
    {"collector.site_times"},
    {"collector.site_revoked", "collector.site_written"},
    {"collector.site_spots"},
    {"collector.site_files", "collector.site_edit"},
    {"collector.reasons", "collector.register", "collector.room"},
    {"collector.check", "collector.clocks", "collector.tally", "collector.quarantine", "collector.arrival"},
    {"collector.applier"},
    {"collector.ingest", "collector.config", "collector.control"},
    {"collector.rulebook"},
    {"collector.rules_folder"},
    {"collector.combine", "collector.evidence"},
    {"collector.plan", "collector.plan_check"},
    {"collector.score"},
    {"collector.subjects", "collector.intervals"},
    {"collector.inquiry"},
    {"collector.evaluate"},
    {
        "collector.cases",
        "collector.ruleset",
        "collector.health",
        "collector.site_seen",
        "collector.ledger",
        "collector.ledger_past",
        "collector.ledger_words",
    },
    {"collector.site_check", "collector.site_draft", "collector.site_views"},
    {
        "collector.continuity",
        "collector.grid",
        "collector.report",
        "collector.coverage",
        "collector.history",
        "collector.network",
    },
    {"collector.past", "collector.store_copy"},
    {"collector.snapshot"},
    {"collector.metrics"},
    {"collector.tables", "collector.terminal", "collector.explain", "collector.explain_network", "collector.compare"},
    {"collector.server", "collector.web"},
    {"collector.answers"},
    {"collector.beside"},
    {"collector.intake", "collector.embedded", "collector.site_watch", "collector.doctor"},
    {"collector.service"},
    {"collector.setup"},
    {"collector.serve", "collector.once", "collector.up"},
    {"collector.demo"},
    {
        "collector.backup_cli",
        "collector.cli",
        "collector.demo_cli",
        "collector.evidence_cli",
        "collector.ledger_cli",
        "collector.rules_cli",
        "collector.doctor_cli",
        "collector.drill_cli",
        "collector.setup_cli",
        "collector.site_cli",
        "collector.site_commands",
        "collector.start",
        "collector.store_cli",
        "collector.store_copy_cli",
    },
)
"""Stations from left to right; a module imports from its own station or from one further left."""

OF_AGENT_FOR_COLLECTOR = {
    "errors",
    "language",
    "foreign_words",
    "documents",
    "points",
    "wire",
    "reasons",
    "catalogue",
    "link",
    "mqtt",
    "notify",
    "relative_paths",
    "broker",
    "broker_check",
    "certificates",
    "checkup",
    "commandline",
    "logs",
    "secret_check",
    "begin",
    "table",
}
"""What the collector takes from the agent; `up`, `serve` and `drill` take the running agent too, since they are it."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the project with its file."""
    for path in sorted([*ROOT.glob("agent/**/*.py"), *ROOT.glob("collector/**/*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """What a file imports of the project, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith(("agent", "collector")):
                yield name, node.lineno


def station(name: str) -> int | None:
    """How far right a module stands; a source, a store, a page stand where their folder does."""
    while name:
        for number, group in enumerate(LINE):
            if name in group:
                return number
        name = name.rpartition(".")[0]
    return None


def test_imports_point_left_along_the_line() -> None:
    wrong = []
    for name, path in modules():
        here = station(name)
        if name not in ("agent", "collector") and here is None:
            wrong.append(f"{path}: add {name!r} to its station in LINE of {__file__}")
            continue
        for imported, line in imports(path):
            there = station(imported)
            if there is not None and here is not None and there > here:
                wrong.append(f"{path}:{line}: {name} must not import {imported}, which stands further right")
            if name.startswith("agent") and imported.startswith("collector"):
                wrong.append(f"{path}:{line}: the agent must not import the collector")
            if (
                name.startswith("collector")
                and imported.startswith("agent.")
                and name
                not in (
                    "collector.up",
                    "collector.once",
                    "collector.embedded",
                    "collector.serve",
                    "collector.drill_cli",
                    "collector.demo.play",
                )
            ) and imported.split(".")[1] not in OF_AGENT_FOR_COLLECTOR:
                wrong.append(f"{path}:{line}: the collector takes nothing from {imported}")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", sources.names())
def test_every_source_has_a_test_and_its_row_in_the_readme(name: str) -> None:
    test = ROOT / "tests" / "agent" / "sources" / f"test_{name}.py"
    assert test.exists(), f"add {test.relative_to(ROOT)}"
    assert f"| `{name}` |" in (ROOT / "README.md").read_text(), (
        f"add to README.md: | `{name}` | 采集内容 / measures | 需要 / needs | systems |"
    )


@pytest.mark.parametrize("name", profile.load_profiles())
def test_every_profile_has_a_walk_that_answers_all_its_object_ids(name: str) -> None:
    own = profile.load_profiles()[name]
    answered: set[str] = set()
    for path in (ROOT / "tests" / "walks").glob("*.snmprec"):
        bindings = walkfile.read_walk(path)
        [object_id] = [str(one.value) for one in bindings if one.oid == "1.3.6.1.2.1.1.2.0"]
        answered |= {one.oid for one in bindings} if own.fits(object_id) else set()
    missing = [
        f"add {column.oid} ({column.symbol}) to a walk in tests/walks that agent/profiles/{name}.yaml fits"
        for table in own.file.tables.values()
        for column in table.columns.values()
        if not any(oid == column.oid or oid.startswith(f"{column.oid}.") for oid in answered)
    ]
    assert not missing, "\n" + "\n".join(missing)


def test_every_source_is_named_by_the_catalogue_and_the_other_way_round() -> None:
    measurements = catalogue.load().measurements.values()
    named = {
        name for measurement in measurements for field in measurement.fields for name in measurement.emitters(field)
    }
    assert named - {"runner"} == set(sources.names())


def test_every_criterion_has_its_cases() -> None:
    book, _ = load()
    cases = ROOT / "tests" / "rules"
    missing = [
        f"add {path.relative_to(ROOT)}"
        for name in book.criteria
        for path in case_files(cases, book, name)
        if not path.exists()
    ]
    assert not missing, "\n" + "\n".join(missing)


def test_every_file_of_cases_has_its_criterion() -> None:
    book, _ = load()
    cases = ROOT / "tests" / "rules"
    known = {path for name in book.criteria for path in case_files(cases, book, name)}
    assert not set(cases.glob("**/*.yaml")) - known


def test_the_readme_s_line_names_modules_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"`((?:agent|collector)/[a-z_/]+(?:\.py|/))`", readme)
    assert len(named) > 5
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"README.md names what is not there: {missing}"


STRUCTS: dict[str, type] = {
    "# criterion": Criterion,
    "# question": Asking,
    "# combine": Combining,
    "# scale": Scale,
    "# index": Index,
    "# cap": Cap,
    "# cases": CaseFile,
    "# drill": Plan,
}
STRUCTS |= {f"# {name}": kind for name, kind in KIND_OF_FILE.items()}
"""The first line of an example -> the struct that reads it."""


def test_every_example_in_the_documents_loads(tmp_path: Path) -> None:
    examples = [
        (document, text)
        for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
        for text in re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL)
    ]
    assert examples
    for number, (document, text) in enumerate(examples):
        path = tmp_path / f"{document.stem}-{number}.yaml"
        path.write_text(text)
        first = text.split("\n")[0].strip()
        if first in STRUCTS:
            build(read_document(path), STRUCTS[first])
            continue
        reader = {"# agent.yaml": read_agent_config, "# collector.yaml": read_collector_config}[first]
        reader(path)


def test_the_wheel_holds_rules_catalogue_and_pages_and_no_tests(tmp_path: Path) -> None:
    held = set(zipfile.ZipFile(build_into(tmp_path, "wheel", ROOT)).namelist())
    due = {f"collector/rules/{path.relative_to(ROOT / 'rules')}" for path in ROOT.glob("rules/**/*.yaml")}
    due |= {f"collector/{path.relative_to(ROOT)}" for path in ROOT.glob("deploy/**/*") if path.is_file()}
    due |= {
        str(path.relative_to(ROOT))
        for pattern in (
            "agent/catalogue/*.yaml",
            "agent/profiles/*.yaml",
            "collector/web/templates/*",
            "collector/web/static/*",
            "agent/py.typed",
            "collector/py.typed",
        )
        for path in ROOT.glob(pattern)
    }
    assert len(due) > 100
    assert not due - held
    assert not [name for name in held if name.startswith("tests") or "test_" in name]


def test_the_source_archive_holds_what_the_wheel_is_made_of_and_nothing_else(tmp_path: Path) -> None:
    """pip and PyPI's builders make the wheel from the archive, not from the tree."""
    whole = build_into(tmp_path / "whole", "wheel", ROOT)
    with tarfile.open(build_into(tmp_path, "sdist", ROOT)) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.glob("infravitals-*/")
    assert {path.name for path in unpacked.iterdir() if path.is_dir()} == {"agent", "collector", "deploy", "rules"}
    again = build_into(tmp_path / "again", "wheel", unpacked)
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(whole).namelist())


def build_into(folder: Path, kind: str, source: Path) -> Path:
    """A wheel or sdist of the tree `source`."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=300)
    [built] = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built
