"""What runs without torch, and what the rest says to install."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

#: Stands in for an environment that has only what `pip install thresher` brings.
_ABSENT = {"torch", "transformers", "safetensors", "accelerate", "greenlet", "matplotlib"}
_BASE_ONLY = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
""".replace("{absent}", repr(_ABSENT))


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _BASE_ONLY + code, *arguments], capture_output=True, text=True
    )


_COMMAND = "from thresher.cli import main; main()"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("methods",),
        ("methods", "gamp-bayes"),
        ("evidence", "zero-imputation", "--scale", "0.1", "--seeds", "1"),
    ],
    ids=" ".join,
)
def test_these_commands_need_no_torch(arguments, tmp_path):
    out = ("--out", str(tmp_path)) if "evidence" in arguments else ()
    done = run(_COMMAND, *arguments, *out)
    assert done.returncode == 0, done.stderr


def test_figures_say_what_to_install():
    code = "from thresher.core import drawing, figure; drawing.draw(figure.Figure(), 'a', '')"
    assert "needs matplotlib, which is not installed" in run(code).stderr


def test_linear_models_need_no_torch():
    code = "from thresher.linear import Lasso; import numpy as np; "
    code += "print(Lasso(alpha=0.1).fit(np.eye(3), np.arange(3.0)).coef_)"
    assert run(code).returncode == 0


@pytest.mark.parametrize("name", ["prune", "pack", "save", "scores", "compare"])
def test_the_rest_says_what_to_install(name):
    done = run(f"import thresher; thresher.{name}")
    assert done.returncode == 1
    assert "pip install 'thresher[torch]'" in done.stderr.splitlines()[-1]


def test_unrolled_networks_say_so_too():
    done = run("import thresher.linear.recovery.unrolled")
    assert "pip install 'thresher[torch]'" in done.stderr.splitlines()[-1]


def test_commands_say_so_in_a_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    out = str(tmp_path.with_name("out"))
    done = run(_COMMAND, "prune", str(tmp_path), "--density", "0.5", "--out", out)
    assert done.returncode == 1
    assert done.stderr.count("\n") <= 2
    assert "pip install 'thresher[torch]'" in done.stderr


def test_what_no_extra_brings_is_left_as_it_is():
    done = run(
        "from thresher.core.extras import naming_the_extra\n"
        "with naming_the_extra(): import no_such_package"
    )
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'no_such_package'"


def test_types_are_said_to_be_there():
    assert (resources.files("thresher") / "py.typed").is_file()
