"""Measure the reference algorithms: SparseGPT and Wanda as llm-compressor runs them.

    python -m benchmarks.quality.reference                                # every case
    python -m benchmarks.quality.reference --case sparsegpt-50 --timing  # one, on a quiet machine

llm-compressor gets its own environment in the cache folder, made the first time. Results
are merged, case by case, into ``benchmarks/results/quality-reference.json``.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from pathlib import Path

from thresher.assets import smollm2
from thresher.assets.fetch import cached

from .reference_worker import CASES
from .tokens import tokens
from .windows import ALL, case_of, label

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "quality-reference.json"
REQUIREMENTS = Path(__file__).with_name("reference-requirements.txt")


def environment() -> Path:
    """Return the Python of an environment with the peer in it, made when its pins change."""
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return cached(f"quality-reference-{pins}", _install) / "bin" / "python"


def _install(folder: Path) -> None:
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]
    subprocess.run(command, check=True)


def run(
    case: str, windows: str, threads: int, quiet: bool, keep: Path | None = None
) -> dict[str, object]:
    """Measure one case in a process of its own, so that its peak memory is its own.

    The pruned model is left in the folder `keep`, if one is given.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "result.json"
        command: list[str | Path] = [environment(), "-m", "benchmarks.quality.reference_worker"]
        command += ["--case", case, "--windows", windows, "--threads", str(threads)]
        command += ["--model", smollm2(), "--tokens", tokens(), "--out", out]
        command += ["--keep", keep] if keep else []
        variables = {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
        }
        # The peer writes its logs into the current folder.
        subprocess.run(command, cwd=temporary, env=os.environ | variables, check=True)
        result: dict[str, object] = json.loads(out.read_text())
    now = datetime.now(UTC).date().isoformat()
    return result | {"quiet_machine": quiet, "load_before": round(load, 2), "date": now}


def record(name: str, result: dict[str, object]) -> None:
    """Merge one case into the results file."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    known["cases"][name] = result
    order = list(CASES)
    ordered = sorted(known["cases"], key=lambda each: (order.index(case_of(each)), each))
    known["cases"] = {each: known["cases"][each] for each in ordered}
    partial = RESULTS.with_suffix(".partial")
    partial.write_text(json.dumps(known, indent=2) + "\n")
    partial.replace(RESULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, help="one case; all of them without it")
    parser.add_argument(
        "--windows", default=ALL, help="calibrate on the windows A:B only; on all without it"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--timing",
        action="store_true",
        help="record the seconds as measured on a quiet machine; see that nothing else runs",
    )
    given = parser.parse_args()
    for case in [given.case] if given.case else CASES:
        name = label(case, given.windows)
        result = run(case, given.windows, given.threads, given.timing)
        record(name, result)
        print(
            f"{name:28} perplexity {result['perplexity']:8.2f}  density {result['density']:.4f}  "
            f"{result['prune_seconds']:6.1f} s  {result['peak_rss_gib']:.2f} GiB",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
