"""Time the layouts with CUDA kernels beside torch's dense bfloat16: ``python -m benchmarks.cuda``.

Every layout holds the same random weights on a support of its pattern; its product is compared with
the dense one of those weights before it is timed. Times are medians over interleaved repeats, from
events of the stream, with the weights out of the device's cache before each call, as the weights of
a layer are when a model runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from thresher.core.files import write_text
from thresher.run.layouts.base import Layout
from thresher.run.measure.timing import compare

from . import machine
from .kernels.cases import BATCHES, SHAPES, Case

RESULTS = Path(__file__).parent / "results" / "cuda.json"
DENSE = "dense bf16"
CASES = (
    Case("semi-structured", "2:4", 0.5),
    *(Case("blocks", "16x32", density) for density in (0.5, 0.25, 0.1)),
    *(Case("bitmask", "unstructured", density) for density in (0.5, 0.3, 0.1)),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.cuda", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file for the results")
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no CUDA device; nothing was measured and nothing was written")
        return 1
    device = torch.device("cuda", torch.cuda.current_device())
    rows = list(measured(device, SHAPES, BATCHES, options.repeats))
    report = {
        "machine": machine.description("thresher", "torch", "triton") | described(device),
        "repeats": options.repeats,
        "seeds": {"weights": 0, "supports": 1},
        "method": "median of interleaved repeats timed by events, weights out of the cache",
        "median_noise": statistics.median(row["noise"] for row in rows if "noise" in row),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps(report, indent=1) + "\n")
    Console(width=120).print(table(rows, torch.cuda.get_device_name(device)))
    return 0


def described(device: torch.device) -> dict[str, object]:
    """Return what figures on a device depend on."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": properties.L2_cache_size,
        "cuda": torch.version.cuda,
        "cusparselt": torch.backends.cusparselt.version(),
    }


def measured(
    device: torch.device,
    shapes: Sequence[tuple[int, int]],
    batches: Sequence[int],
    repeats: int,
) -> Iterator[dict[str, Any]]:
    """Yield one row per shape, case and batch size."""
    for shape in shapes:
        dense = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for case in CASES:
            reason = Layout.named(case.layout).refusal_on(device)
            if reason is not None:
                yield {"case": case.label, "shape": list(shape), "skipped": reason}
                continue
            weight = case.weight(dense)
            for batch in batches:
                yield _row(case, weight.to(device), batch, repeats)


def _row(case: Case, weight: Tensor, batch: int, repeats: int) -> dict[str, Any]:
    packed = case.pack(weight.cpu()).to(weight.device)
    generator = torch.Generator().manual_seed(batch)
    x = torch.randn(batch, weight.shape[1], generator=generator).to(weight)
    dense = partial(nn.functional.linear, x, weight)
    with torch.no_grad():
        torch.testing.assert_close(packed.matmul(x), dense(), rtol=2e-2, atol=0.5)
        functions = {DENSE: dense, case.layout: partial(packed.matmul, x)}
        compared = compare(functions, repeats, touched=x, device=weight.device)
    own, rival = compared.median(case.layout), compared.median(DENSE)
    return {
        "case": case.label,
        "layout": case.layout,
        "density": case.density,
        "shape": list(weight.shape),
        "batch": batch,
        "seconds": own,
        "rival_seconds": {DENSE: rival},
        "ratios": {DENSE: rival / own},
        "bytes_of_dense_bf16": packed.nbytes / (2 * weight.numel()),
        "noise": compared.noise,
    }


def table(rows: list[dict[str, Any]], device: str) -> Table:
    """Return the ratios for people."""
    found = Table(title=f"{DENSE} time / the layout's time on {device}")
    for heading in ("case", "shape", "batch", "ms", "dense ms", "ratio", "bytes"):
        found.add_column(heading, justify="left" if heading == "case" else "right")
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        if "skipped" in row:
            found.add_row(row["case"], shape, "", "", "", row["skipped"], "")
            continue
        times = (row["seconds"], row["rival_seconds"][DENSE])
        found.add_row(
            row["case"],
            shape,
            str(row["batch"]),
            *(f"{seconds * 1e3:.4f}" for seconds in times),
            f"{row['ratios'][DENSE]:.2f}",
            f"{row['bytes_of_dense_bf16']:.3f}",
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
