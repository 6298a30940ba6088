"""A plugin of pytest that puts a mutant in the place of its module, without touching the tree.

What fails is written, a name a line, into the file that the environment gives.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Generator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]


class _Loader(SourceFileLoader):
    """Compiles the mutant as if it were the file, past any compiled code that is kept."""

    def get_code(self, fullname: str) -> CodeType:
        source = Path(os.environ["MUTANT"]).read_text(encoding="utf-8")
        return compile(source, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self, file: Path) -> None:
        parts = file.relative_to(_ROOT).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)
        self.file = str(file)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        places = [str(Path(self.file).parent)] if self.package else None
        return importlib.util.spec_from_file_location(
            fullname,
            self.file,
            loader=_Loader(fullname, self.file),
            submodule_search_locations=places,
        )


if "MUTATED" in os.environ:
    sys.meta_path.insert(0, _Finder(Path(os.environ["MUTATED"])))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any) -> Generator[None, Any, Any]:
    """Note a test that failed, by the whole path of its file."""
    report = yield
    if report.failed and "FAILED_TESTS" in os.environ:
        _, colons, case = item.nodeid.partition("::")
        with open(os.environ["FAILED_TESTS"], "a", encoding="utf-8") as file:
            file.write(f"{item.path}{colons}{case}\n")
    return report
