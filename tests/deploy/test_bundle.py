"""The offline bundle: what is pinned and no more, installed without a network, killed, damaged and installed again."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from servers import program

ROOT = Path(__file__).parent.parent.parent
MAKE = [sys.executable, str(ROOT / "tools" / "make_bundle.py")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "agent.tar.gz"
    subprocess.run([*MAKE, "-o", str(path)], check=True, stdout=subprocess.DEVNULL)
    return path


@pytest.fixture
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    with tarfile.open(bundle) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    return tmp_path / "unpacked"


def install(unpacked: Path, link: Path) -> subprocess.CompletedProcess[str]:
    """Run the installer with Debian's own Python, in a network that leads nowhere."""
    words = [program("unshare", "util-linux"), "--net", program("python3", "python3"), unpacked / "install_bundle.py", "--to", link]  # fmt: skip
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def test_bundle_installs_without_internet_and_again_changes_nothing(unpacked: Path, tmp_path: Path) -> None:
    link = tmp_path / "opt" / "infravitals"
    link.parent.mkdir()
    done = install(unpacked, link)
    assert done.returncode == 0 and done.stdout.startswith("installed "), done.stderr
    version = subprocess.run(
        [link / "bin" / "infravitals-agent", "version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("infravitals ")
    assert install(unpacked, link).stdout == "unchanged\n"


def test_bundle_holds_what_the_agent_needs_and_no_collector(bundle: Path) -> None:
    with tarfile.open(bundle) as archive:
        held = {re.split("-", Path(name).name)[0] for name in archive.getnames() if name.startswith("wheels/")}
    assert {"infravitals", "aiomqtt", "msgspec", "psutil", "paho_mqtt"} <= held
    assert not held & {"duckdb", "numpy", "starlette", "pysnmp", "pytest"}


def test_changed_wheel_is_refused_and_the_link_stays(unpacked: Path, tmp_path: Path) -> None:
    link = tmp_path / "infravitals"
    assert install(unpacked, link).returncode == 0
    before = link.readlink()
    requirements = unpacked / "requirements.txt"
    requirements.write_text(requirements.read_text() + "\n# another version\n")
    [wheel] = (unpacked / "wheels").glob("infravitals-*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"x")
    done = install(unpacked, link)
    assert done.returncode == 1 and f"{link} is as it was" in done.stderr
    assert link.readlink() == before and len(list(tmp_path.glob("infravitals-*"))) == 1


def test_folder_that_no_bundle_made_is_not_touched(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "infravitals" / "mine").mkdir(parents=True)
    done = install(unpacked, tmp_path / "infravitals")
    assert done.returncode == 1 and "no bundle installed" in done.stderr
    assert (tmp_path / "infravitals" / "mine").is_dir()


def test_extra_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run([*MAKE, "-o", str(tmp_path / "b"), "--extra", "smnp"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no" not in done.stdout and "no extra smnp; there are: " in done.stderr
