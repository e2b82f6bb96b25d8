"""Makes the bundle that installs an agent where there is no internet: wheels, their hashes, pip, an installer; one .tar.gz.

    .venv/bin/python tools/make_bundle.py -o infravitals-agent.tar.gz --extra snmp

Run where there is internet. What is in it is what requirements/up.lock pins, by hash, and this project's own wheel.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements" / "up.lock"
OURS = "infravitals (pyproject.toml)"
PIP = next((ROOT / "tools").glob("pip-*.whl"))


def main() -> int:
    """Make it and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-o", "--output", type=Path, default=Path("infravitals-agent.tar.gz"))
    parser.add_argument("--extra", action="append", default=[], help="snmp, databases, probe, …; may be repeated")
    parser.add_argument("--platform", action="append", default=[], help="another machine's, as pip names it")
    parser.add_argument("--python-version", default="3.11", help="the target's Python (3.11)")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    unknown = sorted(set(options.extra) - set(project["optional-dependencies"]))
    if unknown:
        known = ", ".join(sorted(project["optional-dependencies"]))
        print(f"没有附加包 {unknown[0]}，有的是：{known}\nno extra {unknown[0]}; there are: {known}", file=sys.stderr)
        return 2
    wanted = [*project["dependencies"], *(line for extra in options.extra for line in project["optional-dependencies"][extra])]  # fmt: skip
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        try:
            fill(folder, "".join(pinned(LOCK.read_text("utf-8"), {name_of(line) for line in wanted})), options)
        except subprocess.CalledProcessError as error:
            print(f"没有做成，原因见上 / not made, the reason stands above: {error.cmd[2]}", file=sys.stderr)
            return 1
        digest = pack(folder, options.output)
    print(f"{options.output}\nsha256 {digest}")
    return 0


def fill(folder: Path, requirements: str, options: argparse.Namespace) -> None:
    """Put wheels, requirements and installer into `folder`."""
    (folder / "wheels").mkdir()
    (folder / "requirements.txt").write_text(requirements, "utf-8")
    pip = [sys.executable, str(PIP / "pip"), "--disable-pip-version-check"]
    target = ["--python-version", options.python_version, *(word for one in options.platform for word in ("--platform", one))]  # fmt: skip
    get = ["download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:", *target]
    subprocess.run([*pip, *get, "-d", folder / "wheels", "-r", folder / "requirements.txt"], check=True)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheels")]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    [own] = (folder / "wheels").glob("infravitals-*.whl")
    with (folder / "requirements.txt").open("a") as file:
        file.write(f"./wheels/{own.name} --hash=sha256:{hashlib.sha256(own.read_bytes()).hexdigest()}\n")
    for path in (PIP, ROOT / "tools" / "install_bundle.py", ROOT / "LICENSE"):
        (folder / path.name).write_bytes(path.read_bytes())


def name_of(requirement: str) -> str:
    """A distribution's name as the lock file writes it."""
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-").replace(".", "-")


def pinned(lock: str, direct: set[str]) -> Iterator[str]:
    """The entries of a lock file that these distributions need, themselves among them."""
    entries = {name_of(entry): entry for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE) if entry}
    wanted = {name for name in entries if name_of(name) in {name_of(one.replace(".", "-")) for one in direct}}
    parents = {name: set(re.findall(r"#\s+(?:via )?([a-z0-9][\w.-]*)", entry)) for name, entry in entries.items()}
    while True:
        more = {name for name in entries if name not in wanted and {name_of(one) for one in parents[name]} & wanted}
        if not more:
            return (yield from (entries[name] for name in sorted(wanted)))
        wanted |= more


def pack(folder: Path, output: Path) -> str:
    """Write the archive, with nothing in it of who made it or when; gives its SHA-256."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    unfinished = output.with_name(f".{output.name}.part")
    with tarfile.open(unfinished, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name, filter=plain)
    unfinished.replace(output)
    return hashlib.sha256(output.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
