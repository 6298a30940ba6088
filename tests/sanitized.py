"""Run the tests of compiled code on a build of it with sanitizers.

    python tests/sanitized.py FOLDER

FOLDER is the build, whose extension modules take the place of the installed ones. The process is
started anew with the sanitizer's runtime loaded first, as it must be.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

MODULES = {"thresher.run._run": "cpp/run", "thresher.solve._solve": "cpp/solve"}
TESTS = [
    "run/test_layouts.py",
    "run/test_convolution.py",
    "run/test_int8.py",
    "run/test_kernel_bounds.py",
    "run/test_sparse_linear.py",
    "run/test_sparse_convolution.py",
    "run/test_engine_parts.py",
    "run/test_engine_products.py",
    "linear/test_lars.py",
    "linear/test_paths.py",
    "linear/test_precision.py",
    "linear/test_prox.py",
    "linear/test_recovery.py",
    "linear/test_refusals.py",
]


def run_tests(folder: Path) -> int:
    """Put the sanitized modules in place of the installed ones, then run the tests."""
    import pytest

    for name, place in MODULES.items():
        (library,) = (folder / place).glob(f"{name.rpartition('.')[2]}*.so")
        spec = importlib.util.spec_from_file_location(name, library)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    tests = Path(__file__).parent
    # Without -s a report that ends the process would be lost with the captured output.
    return pytest.main(
        ["-q", "-s", "-p", "no:cacheprovider", *(str(tests / name) for name in TESTS)]
    )


def restart(folder: Path) -> int:
    """Start this script again with the runtime of AddressSanitizer loaded first."""
    # The C++ library as well: its functions must be there when the runtime looks for them.
    libraries = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = os.environ | {
        "LD_PRELOAD": ":".join(libraries),
        # Python itself does not return all its memory at exit.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    return subprocess.run([sys.executable, __file__, str(folder)], env=environment).returncode


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    sys.exit(
        run_tests(target) if "libasan" in os.environ.get("LD_PRELOAD", "") else restart(target)
    )
