"""The machine a benchmark ran on, and whether it was quiet."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thresher.core.machine import QUIET_PERCENT as QUIET_PERCENT
from thresher.core.machine import busy_percent as busy_percent
from thresher.core.machine import commit_of, processor


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def description(*packages: str) -> dict[str, object]:
    """Return what the figures depend on, with the versions of some packages."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in packages},
    }


def provenance(*packages: str) -> dict[str, object]:
    """Return date, commit and :func:`description`, as a record of counts carries them."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit_of(Path(__file__).parent),
        "machine": description(*packages),
    }
