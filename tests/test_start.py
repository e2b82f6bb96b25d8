"""Ctrl-C while a program is still being imported, and while it runs: exit code 130 and one line."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INTERRUPTING = """
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background has it ignored
sys.meta_path.insert(0, Interrupting())
sys.argv = [{program!r}, *{words!r}]
from {entry} import main
sys.exit(main())
"""
"""What the installed script does, with a real SIGINT at the import of one module."""


@pytest.mark.parametrize(
    ("program", "entry", "module", "words"),
    [
        ("infravitals", "collector.start", "collector.cli", ["site", "status", "--dir", "/nowhere"]),
        ("infravitals", "collector.start", "agent.commandline", ["version"]),
        ("infravitals", "collector.start", "collector.report", ["version"]),
        ("infravitals", "collector.start", "collector.setup.upkeep", ["site", "status", "--dir", "/nowhere"]),
        ("infravitals-agent", "agent.start", "agent.cli", ["version"]),
        ("infravitals-agent", "agent.start", "argparse", ["version"]),
        ("infravitals-agent", "agent.start", "agent.sample", ["sources"]),
    ],
)
def test_interrupted_program_ends_with_130_and_one_line(
    program: str, entry: str, module: str, words: list[str]
) -> None:
    code = INTERRUPTING.format(module=module, program=program, words=words, entry=entry)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "INFRAVITALS_LANG": "en"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_both_programs_begin_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"infravitals-agent": "agent.start:main", "infravitals": "collector.start:main"}
