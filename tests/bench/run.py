"""`make bench`: every bench of this folder, one after the other, each in its own process."""

import subprocess
import sys
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("bench_*.py")):
    print(f"\n== {path.stem}", flush=True)
    subprocess.run([sys.executable, str(path)], check=True)
