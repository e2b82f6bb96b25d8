"""Draws the README's pictures: the demo's page in Debian's chromium, in both languages, on a desk and on a phone.

    .venv/bin/python tools/screenshots.py            # makes the demo in demo/ unless it is there; `make screenshots`

Needs chromium, fonts-wqy-microhei and pngquant (`make screenshots` installs them).
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
PROGRAM = Path(sys.executable).parent / "infravitals"
READY_SECONDS = 600.0
MOST_BYTES = 1_500_000
"""Of all pictures together: whoever clones the repository carries them."""


class Shot(NamedTuple):
    """A page to draw. height: of the picture, from the top of the page."""

    name: str
    path: str
    height: int


SHOTS = (
    Shot("readiness", "/", 900),
    Shot("indicator", "/node/hospital.data-availability.dual-active-backup", 900),
    Shot("explain", "/criterion/critical-service-availability", 900),
    Shot("network", "/network", 900),
    Shot("history", "/history?span=365d", 900),
)
WIDTHS = (1280, 390)
LANGUAGES = ("zh", "en")


def main() -> int:
    """Draw all of them; 1 when they are too big together."""
    parser = argparse.ArgumentParser(description="the README's pictures")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "demo", help="the demo's (demo)")
    parser.add_argument("--to", type=Path, default=IMAGES, help="docs/images")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    with demo(options.data_dir) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        drawn = [path for width in WIDTHS for language in LANGUAGES for path in draw(browser, address, width, language, options.to)]  # fmt: skip
        browser.close()
    subprocess.run(["pngquant", "--force", "--ext", ".png", "--speed", "1", "--strip", "64", "--", *drawn], check=True)
    size = sum(path.stat().st_size for path in drawn)
    print(f"{len(drawn)} pictures in {options.to}, {size / 1000:.0f} kB")
    return 0 if size <= MOST_BYTES else 1


def draw(browser: Browser, address: str, width: int, language: str, folder: Path) -> Iterator[Path]:
    """Each page in one width and language."""
    context = browser.new_context(viewport={"width": width, "height": 900}, base_url=address, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"/?lang={language}")
    for shot in SHOTS:
        page.goto(shot.path)
        page.wait_for_load_state("networkidle")
        path = folder / f"{shot.name}-{language}-{width}.png"
        page.screenshot(path=path, clip={"x": 0, "y": 0, "width": width, "height": shot.height}, full_page=True)
        yield path
    context.close()


@contextmanager
def demo(data: Path) -> Iterator[str]:
    """The demo's page while it is drawn; made first where it is not there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [PROGRAM, "demo", "--data-dir", data, "--port", str(port)],
        env={**os.environ, "INFRAVITALS_LANG": "en"},
        stdout=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/scorecard", process)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    """Until it answers; fails when the program ends or the deadline is over."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"infravitals demo ended with {process.returncode}")
        try:
            urllib.request.urlopen(address, timeout=60).close()
        except (OSError, urllib.error.URLError):
            time.sleep(0.5)
        else:
            return
    raise SystemExit(f"{address} did not answer within {READY_SECONDS:g} s")


if __name__ == "__main__":
    sys.exit(main())
