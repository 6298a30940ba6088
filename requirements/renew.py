"""Write today's versions, what the demonstration needs of them, and the lowest (`make lock`)."""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
TORCH = HERE / "torch.txt"
TESTED = HERE.parent / "thresher/core/tested.py"


def main() -> None:
    """Renew the files from the registry; torch is described by the build that is installed."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        build = _written(scratch / "build.in", PROJECT["build-system"]["requires"])
        unlocked = PROJECT["tool"]["thresher"]["unlocked"]
        extras = [e for e in PROJECT["project"]["optional-dependencies"] if e not in unlocked]
        _resolve("lock.txt", scratch, build, *(f"--extra={extra}" for extra in extras))
        # The rest takes as much room again, and twice as long to install.
        shown = [f"--extra={extra}" for extra in ("torch", "assets")]
        _resolve("demo.txt", scratch, build, *shown, f"--constraint={HERE / 'lock.txt'}")
        lowest = _written(
            scratch / "lowest.in", _floors(("torch", "report", "assets", "gguf", "test"))
        )
        extras = [f"--extra={extra}" for extra in ("torch", "assets", "test")]
        _resolve("lowest.txt", scratch, *extras, f"--constraint={lowest}")
    _write_tested()


def _written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _resolve(name: str, scratch: Path, *options: str | Path) -> None:
    # On the registry torch is a CUDA build; what that needs besides comes with it, not from here.
    needs = [line for line in metadata.requires("torch") or [] if "extra ==" not in line]
    settings = _written(
        scratch / "uv.toml",
        [
            "[[dependency-metadata]]",
            'name = "torch"',
            f"requires-dist = {json.dumps(needs)}",
        ],
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "--quiet", "--config-file", settings, "pip", "compile"),
            *("pyproject.toml", *options, f"--constraint={TORCH}"),
            *("--universal", "--fork-strategy=fewest", "--python-version=3.11", "--upgrade"),
            *(
                "--generate-hashes",
                "--no-annotate",
                "--no-emit-package=torch",
                "--no-emit-index-url",
            ),
            *("--custom-compile-command=make lock", f"--output-file={HERE / name}"),
        ],
        cwd=HERE.parent,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _floors(extras: tuple[str, ...]) -> list[str]:
    project = PROJECT["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    # Of torch no older version has a CPU build on the registry.
    return [line.replace(">=", "==", 1) for line in lines if Requirement(line).name not in _fixed()]


def _fixed() -> set[str]:
    lines = TORCH.read_text().splitlines()
    return {Requirement(line).name for line in lines if not line.startswith("#")}


def _write_tested() -> None:
    pins = (HERE / "lock.txt").read_text() + TORCH.read_text()
    distributions = metadata.packages_distributions()
    versions = {
        module: re.search(rf"^{distributions[module][0]}==([^\s;]+)", pins, re.MULTILINE)[1]
        for module in PROJECT["tool"]["thresher"]["watched"]
    }
    lines = ["\n    " + f'"{key}": "{version}",' for key, version in versions.items()]
    TESTED.write_text(
        '"""Written by `make lock`: the versions that Thresher is tested with."""\n\n'
        f"TESTED = {{{''.join(lines)}\n}}\n"
    )


if __name__ == "__main__":
    main()
