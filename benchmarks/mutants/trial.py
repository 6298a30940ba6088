"""One mutant: which tests may notice it, and whether they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 300  # that the tests of a mutant may take
_MOST = 6  # files of tests of a mutant: those that name its module most
#: Where tests lie whose folder is not called as the room.
_FOLDERS = {"solve": "linear"}


@dataclass(frozen=True)
class Mutant:
    """A module with a line that is broken.

    Parameters
    ----------
    file : str
        Path of the module below the root.
    line : int
        Where it is broken.
    what : str
        How.
    source : str
        The whole of the broken module.
    tests : tuple of str
        Files of tests to run; those that name the module by default.
    """

    file: str
    line: int
    what: str
    source: str
    tests: tuple[str, ...] = ()

    @property
    def room(self) -> str:
        """The room of the module."""
        return Path(self.file).parts[1]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}"


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant: `word` is killed, survived, or unknown where sound code fails too."""

    mutant: Mutant
    word: str
    seconds: float


def tried(mutant: Mutant) -> Outcome:
    """Run the tests with a mutant in the place of its module."""
    start = time.monotonic()
    tests = mutant.tests or naming_tests(mutant.file)
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "mutant.py"
        broken.write_text(mutant.source, encoding="utf-8")
        failed = _failed(tests, {"MUTATED": str(ROOT / mutant.file), "MUTANT": str(broken)})
    if failed is None:
        word = "survived"
    elif not failed or _failed(failed, {}) is None:  # out of time, or fails with the mutant alone
        word = "killed"
    else:
        word = "unknown"
    return Outcome(mutant, word, time.monotonic() - start)


def _failed(tests: tuple[str, ...], environment: dict[str, str]) -> tuple[str, ...] | None:
    """Return what failed first: None if all passed, nothing if the time was over."""
    command = [
        *(sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"),
        *("-p", "benchmarks.mutants.plugin", "-p", "no:cacheprovider", *tests),
    ]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "failed"
        environment = environment | {"PYTHONPATH": paths, "FAILED_TESTS": str(names)}
        try:
            run = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ()
        if run.returncode in (0, 5):  # all passed, or none was there to fail
            return None
        found = names.read_text("utf-8").splitlines() if names.is_file() else []
    return tuple(found) or tests  # what breaks pytest itself fails no test by name


@cache
def _texts() -> dict[str, str]:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


@cache
def naming_tests(file: str) -> tuple[str, ...]:
    """Return the files of tests that name a module, or what it offers, most."""
    path = ROOT / file
    offered = re.search(r"__all__ = \[(.*?)\]", path.read_text(encoding="utf-8"), re.DOTALL)
    names = re.findall(r'"(\w+)"', offered.group(1)) if offered else []
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, [path.stem, *names])) + r")\b")
    room = Path(file).parts[1]
    home = f"tests/{_FOLDERS.get(room, room)}/"
    # Where a name is common, those of the room itself come first.
    counts = {
        test: (test.startswith(home), len(pattern.findall(text)))
        for test, text in _texts().items()
        if pattern.search(text)
    }
    ranked = sorted(counts, key=lambda test: counts[test], reverse=True)
    return tuple(ranked[:_MOST]) or (home,)
