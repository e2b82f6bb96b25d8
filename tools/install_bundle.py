"""Installs the bundle that it lies in, without internet: a new environment beside the old one, then a link is turned to it.

    python3 install_bundle.py --to /opt/infravitals

Needs Python 3.11 or newer and nothing else. `/opt/infravitals` becomes a link to `/opt/infravitals-<id>`; the environment
before stays, so that turning the link back undoes it. Run again it changes nothing. Killed on its way it leaves the link as it was.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
DONE = "installed"
"""A file in an environment that is whole."""


def main() -> int:
    """Install it; 0 when it is there, 1 when something is in the way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path, default=Path("/opt/infravitals"))
    link = parser.parse_args().to.absolute()
    if sys.version_info < (3, 11):
        return fail(f"需要 Python 3.11 或更新，这里是 {sys.version.split()[0]}", f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")  # fmt: skip
    if link.exists() and not link.is_symlink():
        return fail(f"{link} 是一个目录，不是由离线包安装的；请先移走它", f"{link} is a folder that no bundle installed; move it away first")  # fmt: skip
    identity = hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()[:12]
    home = link.with_name(f"{link.name}-{identity}")
    if not (home / DONE).exists():
        if not install(home):
            shutil.rmtree(home, ignore_errors=True)
            return fail(f"没有装成，原因见上；{link} 没有改动", f"not installed, the reason stands above; {link} is as it was")  # fmt: skip
        (home / DONE).touch()
    if link.is_symlink() and link.readlink() == Path(home.name):
        print("unchanged")
        return 0
    turned = link.with_name(f".{link.name}.turned")
    turned.unlink(missing_ok=True)
    turned.symlink_to(home.name)
    turned.replace(link)
    print(f"installed {home}")
    return 0


def install(home: Path) -> bool:
    """Make the environment from the wheels alone, each held against its hash; whether that went well."""
    try:
        venv.EnvBuilder(with_pip=False, symlinks=True, clear=home.exists()).create(home)
    except OSError as error:
        print(error, file=sys.stderr)
        return False
    [pip] = HERE.glob("pip-*.whl")
    words = [
        str(home / "bin" / "python"),
        str(pip / "pip"),
        "--disable-pip-version-check",
        "install",
        "-q",
        "--no-index",
    ]
    words += ["--find-links", "wheels", "--no-deps", "--require-hashes", "--no-cache-dir", "-r", "requirements.txt"]
    return subprocess.run(words, cwd=HERE, check=False).returncode == 0


def fail(zh: str, en: str) -> int:
    """Say in both languages what is wrong."""
    print(f"{zh}\n{en}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
