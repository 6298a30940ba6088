"""Files of tests that need a process of their own, because of what they do to torch or Triton."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_tests(file: str, **environment: str) -> None:
    """Run a file of this folder with pytest in a new process; AssertionError with its output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name(file))],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
