"""Run the kernel tests on a build of the kernels with sanitizers.

    python tests/run/sanitized.py FOLDER

FOLDER holds the sanitized extension module, which takes the place of the installed one. The
process is started anew with the sanitizer's runtime loaded first, as it must be.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

TESTS = [
    "test_layouts.py",
    "test_convolution.py",
    "test_int8.py",
    "test_sparse_linear.py",
    "test_sparse_convolution.py",
]


def run_tests(folder: Path) -> int:
    """Put the sanitized module in place of the installed one, then run the tests."""
    import pytest

    (library,) = folder.glob("_run*.so")
    spec = importlib.util.spec_from_file_location("thresher.run._run", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["thresher.run._run"] = module
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
