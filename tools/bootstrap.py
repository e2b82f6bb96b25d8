"""Makes .venv from a lock file with nothing but Python 3.11: no root, no apt, no pip, no ensurepip.

Debian's python3 has neither pip nor ensurepip, so pip's own wheel lies beside this file and runs from there.

    python3 tools/bootstrap.py requirements/up.lock
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PIP = HERE / "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
ENVIRONMENT = ROOT / ".venv"


def main(lock: str) -> int:
    """Create the environment and install exactly what the lock file names, then this project."""
    if sys.version_info < (3, 11):
        return fail(
            f"需要 Python 3.11 或更新，当前是 {sys.version.split()[0]}；请用 make PYTHON=python3.11 指定。",
            f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; say make PYTHON=python3.11.",
        )
    if hashlib.sha256(PIP.read_bytes()).hexdigest() != PIP_SHA256:
        return fail(
            f"{PIP.name} 与校验值不符，请重新取得本仓库。",
            f"{PIP.name} does not match its digest; fetch this repository again.",
        )
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        print(f"正在创建 {ENVIRONMENT} / creating {ENVIRONMENT}", flush=True)
        venv.EnvBuilder(with_pip=False, symlinks=True, clear=ENVIRONMENT.exists()).create(ENVIRONMENT)
    print(f"正在安装 {lock} / installing {lock}", flush=True)
    pip = [str(python), str(PIP / "pip"), "--disable-pip-version-check", "install"]
    common = ["--quiet", "--progress-bar", "on", "--no-warn-script-location"]
    quiet_mirrors = {**os.environ, "PIP_NO_INPUT": "1"}
    steps = (
        [*pip, "--require-hashes", "--no-deps", "--progress-bar", "on", "-r", str(ROOT / lock)],
        [*pip, *common, "--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT)],
    )
    for step in steps:
        if subprocess.run(step, env=quiet_mirrors, check=False).returncode:
            return fail(
                "安装失败，原因见上；修正后再运行同一命令即可继续。",
                "installing failed, the reason stands above; mend it and run the same command again.",
            )
    return 0


def fail(zh: str, en: str) -> int:
    """Say in both languages what is wrong."""
    print(f"{zh}\n{en}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
