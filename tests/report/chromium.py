"""A headless Chromium, as far as the tests need one."""

import re
import shutil
import subprocess
from pathlib import Path

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    # Virtual time runs until the page is idle, so the picture never shows a half-drawn chart.
    "--virtual-time-budget=10000",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Return the path of a Chromium or Chrome, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def open_page(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """Return the page's document once its scripts have run, and its console messages."""
    ran = subprocess.run(
        [str(find_chromium()), *_FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ran.stdout, re.findall(r":CONSOLE[:(].*", ran.stderr)


def take_picture(page: Path, profile: Path, picture: Path, size: str, dark: bool) -> list[str]:
    """Save a picture of the page, and return its console messages."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    _, console = open_page(
        page,
        profile,
        f"--screenshot={picture}",
        f"--window-size={size}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    )
    return console
