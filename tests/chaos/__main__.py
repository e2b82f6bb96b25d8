"""`make chaos`: a hospital is broken on purpose, part by part, and what it made is counted afterwards.

CHAOS_SECONDS (180), CHAOS_AGENTS (50), CHAOS_SEED (by chance): the same seed kills the same parts at the same moments.
Writes chaos.json and ends non-zero unless made = applied + set aside + dropped + waiting and nothing stands twice.
"""

import json
import os
import secrets
import sys
import tempfile
from pathlib import Path

from chaos.breaking import hurt

REPORT = Path("chaos.json")


def main() -> int:
    """The exit code."""
    seconds = float(os.environ.get("CHAOS_SECONDS", "180"))
    agents = int(os.environ.get("CHAOS_AGENTS", "50"))
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcome = hurt(Path(folder), seed=seed, seconds=seconds, agents=agents, tell=print)
    REPORT.write_text(json.dumps(outcome.as_json(), indent=2) + "\n")
    for line in outcome.complaints():
        print(line, file=sys.stderr)
    print(outcome.summary(), f"({REPORT})", sep="\n")
    return 1 if outcome.complaints() else 0


sys.exit(main())
