"""The made-up year, whole, by the command itself: how long until the page could open, against a minute."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_SECONDS = 60.0


def main() -> None:
    """One run; load beside it shows in the ratio of CPU to wall."""
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.monotonic(), os.times()
        command = [sys.executable, "-m", "collector.cli", "demo", "--once", "--data-dir", str(Path(folder) / "demo")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds, after = time.monotonic() - began, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        store = (Path(folder) / "demo" / "store.duckdb").stat().st_size / 1e6
    load = os.getloadavg()[0]
    print(f"a year: {seconds:.1f} s wall, {cpu:.1f} s CPU, {store:.0f} MB; load {load:.1f} on {os.cpu_count()} cores")
    print(f"  limit {LIMIT_SECONDS:.0f} s: {seconds / LIMIT_SECONDS:.2f} of it")


if __name__ == "__main__":
    main()
