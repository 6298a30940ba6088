"""Tokens per second of whole models, one token after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import thresher as th
from thresher.assets import smollm2 as smollm2_folder
from thresher.run import _run
from thresher.run.engine.formats import PanelData
from thresher.run.engine.model import LayerData, ModelData
from thresher.run.engine.session import Session

from .quality import SHARES, windows
from .rounds import in_turn, ratios

#: Tokens that are decoded in one round, after a prompt.
_TOKENS, _BEFORE = 16, 16


def billion(repeats: int) -> list[dict[str, Any]]:
    """Decode with a Llama of 1.1 billion random weights and a small vocabulary."""
    models = {"dense": _random_llama(None).build()}
    models |= {f"{share:.0%}": _random_llama(share).build() for share in SHARES}
    return _decoded(models, repeats)


def smollm2(repeats: int) -> list[dict[str, Any]]:
    """Decode with SmolLM2, calibrated by every method that the engine runs; and its perplexity."""
    from transformers import AutoModelForCausalLM

    first, last = windows()
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32).eval()
    engines = {"dense": th.Engine(model, 4)}
    for method in ("teal", "wina"):
        for share in SHARES:
            th.activate(model, method, first, sparsity=share, levels="uniform", progress=False)
            engines[f"{method} {share:.0%}"] = th.Engine(model, 4)
    rows = _decoded({name: engine.compiled for name, engine in engines.items()}, repeats)
    for row in rows:
        row["perplexity"] = round(_perplexity(engines[row["model"]], last), 3)
        print(row, flush=True)
    return rows


def _decoded(models: dict[str, _run.EngineModel], repeats: int) -> list[dict[str, Any]]:
    seconds = in_turn({name: _decoding(model) for name, model in models.items()}, repeats)
    found = ratios(seconds, "dense")
    rows = []
    for name, took in seconds.items():
        rate = round(_TOKENS / min(took), 2)
        rows.append({"model": name, "tokens_per_second": rate, "speedup": found[name]})
        print(rows[-1], flush=True)
    return rows


def _decoding(model: _run.EngineModel) -> Callable[[], None]:
    ids = np.random.default_rng(0).integers(0, model.vocabulary, _BEFORE + _TOKENS)
    session = Session(model)
    session.logits(ids[:_BEFORE])

    def work() -> None:
        for token in range(_BEFORE, len(ids)):
            session.logits(ids[: token + 1])

    return work


def _perplexity(engine: th.Engine, windows: torch.Tensor) -> float:
    losses = []
    for window in windows:
        logits = engine.logits(window)[:-1]
        losses.append(float(torch.nn.functional.cross_entropy(logits, window[1:])))
    return float(np.exp(np.mean(losses)))


def _random_llama(share: float | None) -> ModelData:
    """Return 16 layers of Llama 3.2 1B, in which a share of channels at random is never kept."""
    rng = np.random.default_rng(0)
    hidden, keys, wide = 2048, 512, 8192
    one = np.ones(hidden, np.float32)

    def matrix(rows: int, columns: int, form: str = "int4", part: float | None = None) -> PanelData:
        size, groups = rows * columns, rows * columns // 32
        # Scales of 2^-10, and minimums that make codes of 0 to 15 zero on average.
        scales = np.full(groups, 0x1400, np.uint16)
        least = np.full(groups, 0x9F80, np.uint16)
        coded = form == "int8"
        return PanelData(
            form=form if part is None else "channels",
            codes=np.frombuffer(rng.bytes(size if coded else size // 2), np.uint8),
            scales=scales,
            minimums=None if coded else least,
            unit=1.0,
            bias=None,
            rows=rows,
            columns=columns,
            thresholds=None if part is None else _thresholds(rng, columns, part),
        )

    def layer() -> LayerData:
        if share is None:
            qkv: Any = matrix(hidden + 2 * keys, hidden)
            gate_up: Any = matrix(2 * wide, hidden)
        else:
            qkv = [matrix(rows, hidden, part=share) for rows in (hidden, keys, keys)]
            gate_up = [matrix(wide, hidden, part=share) for _ in range(2)]
        out, down = matrix(hidden, hidden, part=share), matrix(hidden, wide, part=share)
        return LayerData(qkv, out, gate_up, down, one, one, None, None, True, 0)

    return ModelData(
        embedding=matrix(4096, hidden, "int8"),
        head=None,
        final_norm=one,
        layers=[layer() for _ in range(16)],
        heads=32,
        kv_heads=8,
        head_dim=64,
        intermediate=wide,
        epsilon=1e-5,
        frequencies=(500000.0 ** -np.arange(0, 1, 1 / 32)).astype(np.float32),
        rotary_scale=1.0,
    )


def _thresholds(rng: np.random.Generator, columns: int, share: float) -> np.ndarray:
    found = np.zeros(columns, np.float32)
    found[rng.permutation(columns)[: round(share * columns)]] = np.inf
    return found
