"""The machine and the commit on which something was measured."""

from __future__ import annotations

__all__ = [
    "QUIET_PERCENT",
    "available_memory",
    "busy_percent",
    "check_quiet",
    "commit_of",
    "load",
    "memory",
    "processor",
    "return_freed_memory",
    "trim_memory",
    "versions",
]

import ctypes
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from .errors import OptionError

#: Of the processor that others may take while something is timed.
QUIET_PERCENT = 10.0
#: Of mallopt, and what it is set to, in bytes.
_MMAP_THRESHOLD, _LARGE = -3, 1 << 22


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def load() -> float | None:
    """Return how many processes ran or waited in the last minute; None where it is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy_percent(seconds: float = 3.0) -> float:
    """Return the processor time that others take, in percent of all cores.

    Parameters
    ----------
    seconds : float, default 3.0
        How long to watch, doing nothing else.
    """
    import psutil

    return float(psutil.cpu_percent(interval=seconds))


def check_quiet(remedy: str) -> None:
    """Raise if others use the processor: what is timed meanwhile says nothing.

    Parameters
    ----------
    remedy : str
        What to do where it will not become quiet.

    Raises
    ------
    OptionError
    """
    if (busy := busy_percent(1.0)) > QUIET_PERCENT:
        raise OptionError(
            f"others take {busy:.0f} % of the processor, so that times would not be reliable; wait "
            f"until they take less than {QUIET_PERCENT:.0f} %, or {remedy}"
        )


def memory() -> int | None:
    """Return the bytes of memory that the machine has; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def available_memory() -> int:
    """Return the bytes of memory that a process may still take without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def commit_of(folder: str | Path) -> str | None:
    """Return the commit of a package's folder, and whether other files than results differ.

    None outside a checkout, or in another project's.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # else this is another's checkout
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} with changes" if changed else commit


def return_freed_memory() -> None:
    """Have this process give large blocks that it frees back to the system, where glibc is.

    glibc raises the size from which blocks are mapped by themselves to that of the largest one
    freed; all others then come from a heap that tensors of many sizes leave full of holes. Fixed,
    SmolLM2 is pruned in a tenth less memory and no more time.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)
    except (OSError, AttributeError, TypeError):
        return


def trim_memory() -> None:
    """Hand freed memory back to the system, where the C library keeps it: glibc does."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on, and the processor."""
    names = ("thresher", "torch", "transformers", "numpy", "safetensors")
    found = {name: version(name) for name in names}
    return {**found, "python": platform.python_version(), "machine": platform.machine()}
