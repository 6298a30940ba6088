"""The kernels' code with other compilers, without OpenMP, and for ARM under an emulator."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    ROOT / "tests" / "compiled" / "product.cpp",
    ROOT / "cpp" / "run" / "threads.cpp",
    ROOT / "cpp" / "run" / "engine" / "team.cpp",
]
#: Compiler, options, and what runs the program.
BUILDS = {
    "gcc-without-openmp": ("g++", ["-Werror"], []),
    "clang-without-openmp": ("clang++", ["-Werror"], []),
    "arm": ("aarch64-linux-gnu-g++", ["-Werror", "-fopenmp", "-static"], ["qemu-aarch64"]),
}


def tool(name):
    """Return a tool's path; Debian's packages of one version add it to the name."""
    found = sorted(Path("/usr/bin").glob(f"{name}-[0-9]*"))
    path = shutil.which(name) or (str(found[-1]) if found else None)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.mark.parametrize("name", BUILDS)
def test_kernels_and_teams_are_right(name, tmp_path):
    compiler, options, runner = BUILDS[name]
    command = [tool(compiler), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Wno-psabi", *options]
    command += [f"-I{ROOT / 'cpp'}", "-o", str(tmp_path / "product"), *map(str, SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = [*map(tool, runner), str(tmp_path / "product")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
