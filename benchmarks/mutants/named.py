"""Mutants that once survived, by name: each must be noticed."""

from __future__ import annotations

import tomllib
from pathlib import Path

from .trial import ROOT, Mutant

FILE = Path(__file__).with_name("named.toml")


def named() -> list[Mutant]:
    """Return the mutants of the file.

    Raises
    ------
    ValueError
        If what is to be replaced is not there exactly once.
    """
    return [_made(**entry) for entry in tomllib.loads(FILE.read_text("utf-8"))["mutant"]]


def _made(name: str, file: str, old: str, new: str, tests: list[str]) -> Mutant:
    source = (ROOT / file).read_text(encoding="utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{name}: {file} has {source.count(old)} times {old!r}, must have it once")
    line = source[: source.index(old)].count("\n") + 1
    return Mutant(file, line, name, source.replace(old, new), tuple(tests))
