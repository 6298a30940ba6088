"""Records of made-up runs, so that the report can be tested without pruning anything."""

import math

import pytest

from thresher.prune.record import LayerRecord, PruneRecord

KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BINS = 60


def make_layer(index: int, kind: str, block: int) -> LayerRecord:
    dense = [int(10_000 * math.exp(-(((i + 0.5) * 8 / BINS - 4) ** 2) / 2)) for i in range(BINS)]
    pruned = [n if abs((i + 0.5) * 8 / BINS - 4) > 0.67 else 0 for i, n in enumerate(dense)]
    return LayerRecord(
        name=f"model.layers.{block}.{kind}",
        block=block,
        shape=[64, 48],
        kept=1536 + index,
        error=0.02 * (1 + index),
        seconds=0.1,
        histogram={
            "edges": [i / BINS for i in range(BINS + 1)],
            "dense": dense,
            "pruned": pruned,
        },
    )


@pytest.fixture
def record() -> PruneRecord:
    layers = [
        make_layer(block * len(KINDS) + position, kind, block)
        for block in range(4)
        for position, kind in enumerate(KINDS)
    ]
    curve = zip((0.9, 0.8, 0.7, 0.6, 0.5, 0.4), (20.4, 21.5, 23.8, 29.0, 45.0, 130.0), strict=True)
    return PruneRecord(
        model="models/tiny-llama",
        method="wanda",
        recipe="Wanda(pattern=Unstructured(per='row'), density=0.5)",
        pattern="per-row",
        density_asked=0.5,
        calibration={"source": "Python's documentation", "windows": 64, "length": 1024},
        layers=layers,
        timings={"calibration": 12.0, "pruning": 3.0, "forward": 5.0},
        peak_bytes=1_800_000_000,
        versions={"thresher": "0.1.0", "torch": "2.13.0"},
        evaluation={
            "text": "book.txt",
            "windows": 20,
            "length": 1024,
            "dense_perplexity": 20.0,
            "pruned_perplexity": 45.0,
            "kl": 0.8,
            "js": 0.15,
            "top1_agreement": 0.55,
            "dense_bytes": 269_000_000,
            "sparse_bytes": 185_000_000,
            "pruned_layers_dense_bytes": 212_000_000,
            "pruned_layers_sparse_bytes": 120_000_000,
            "curve": [{"density": d, "perplexity": p, "method": "wanda"} for d, p in curve],
        },
    )
