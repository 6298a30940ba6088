"""Single products at batch 1: by rows, and by channels with some of them skipped."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import torch

from thresher.run.engine.formats import Matrix, PanelData, lay_out

from .rounds import in_turn, ratios

#: (outputs, inputs) of SmolLM2's matrices and of a Llama's of a billion weights.
SHAPES = (
    (576, 576),
    (192, 576),
    (1536, 576),
    (576, 1536),
    (2048, 2048),
    (512, 2048),
    (8192, 2048),
    (2048, 8192),
)
SHARES = (0.0, 0.25, 0.5, 0.65)
#: Bytes of a matrix's copies that leave none of it in the caches, and multiplied in one round.
_COLD, _ROUND = 192 << 20, 16 << 20


def products(repeats: int) -> list[dict[str, Any]]:
    """Time the products of every shape, from memory and from the cache."""
    found = []
    for rows, columns in SHAPES:
        for cold in (True, False):
            for share in SHARES:
                row = {"rows": rows, "columns": columns, "cold": cold, "skipped": share}
                row |= _compared(rows, columns, cold, share, repeats)
                found.append(row)
                print(row, flush=True)
    return found


def _compared(rows: int, columns: int, cold: bool, share: float, repeats: int) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(columns)
    threshold = x.abs().sort().values[int(share * columns)] if share else torch.zeros(())
    matrix = _random(rows, columns)
    layouts = {
        "rows": lay_out(matrix),
        "channels": lay_out(matrix, thresholds=threshold.expand(columns)),
    }
    kept = torch.where(x.abs() < threshold, 0.0, x).numpy()
    size = rows * columns * 5 // 8
    copies = -(-_COLD // size) if cold else 1
    times = max(1, _ROUND // size)
    works = {name: _multiplying(held, copies, kept, times) for name, held in layouts.items()}
    seconds = in_turn(works, repeats)
    overhead = min(in_turn({"call": _empty_calls(times)}, repeats)["call"])
    seconds = {name: [each - overhead for each in took] for name, took in seconds.items()}
    return {
        "microseconds_dense": round(1e6 * min(seconds["rows"]) / times, 2),
        "speedup": ratios(seconds, "rows")["channels"],
    }


def _random(rows: int, columns: int) -> Matrix:
    codes = torch.randint(16, (rows, columns), dtype=torch.uint8)
    scales = torch.rand(rows, columns // 32).half()
    return Matrix("int4", codes, columns, scales, -8 * scales)


def _multiplying(held: PanelData, copies: int, x: np.ndarray, times: int) -> Any:
    panels = cycle([_copied(held).build() for _ in range(copies)])
    y = np.empty((1, held.rows), np.float32)
    x = np.ascontiguousarray(x[None])

    def work() -> None:
        for _ in range(times):
            next(panels).multiply(x, y)

    return work


def _copied(held: PanelData) -> PanelData:
    """Return a copy in memory of small pages, as a file's are; NumPy asks for large ones."""
    return PanelData(**{k: _in_bytes(v) for k, v in vars(held).items()})


def _in_bytes(value: Any) -> Any:
    return np.frombuffer(value.tobytes(), value.dtype) if isinstance(value, np.ndarray) else value


def _empty_calls(times: int) -> Any:
    """Return as many products of next to nothing: what a call costs."""
    held = lay_out(_random(16, 32))
    return _multiplying(held, 1, np.zeros(32, np.float32), times)
