"""The command `infravitals` as a user whom permissions bind, also where the tests run as root."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

CODE = """
import importlib, os, pkgutil, sys
import encodings.utf_8_sig  # as secrets are read; Python itself may lie in root's home
import collector
import collector.setup
for package in (collector, collector.setup):  # the checkout may be root's alone
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
if os.geteuid() == 0:
    os.setuid(65534)
from collector.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run_unprivileged(*words: object) -> tuple[int, str, str]:
    """Exit code, output and complaints."""
    command = [sys.executable, "-c", CODE, *map(str, words), "--lang", "en"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may look into; pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="infravitals-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
