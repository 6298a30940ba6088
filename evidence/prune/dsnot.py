"""DSnoT's swaps on three first masks: expected error, output error and perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from thresher.core.evidence import Experiment, Outcome
from thresher.parts import scores, updates
from thresher.parts.patterns import Unstructured
from thresher.prune import Recipe

from .. import _models as models
from .._plots import lines
from .._statistics import paired_margin

_FIRST_MASKS: dict[str, scores.Score] = {
    "magnitude": scores.Magnitude(),
    "Wanda": scores.Magnitude() * scores.InputNorm(),
    "OBS saliency": scores.OBSSaliency(),
}
_SPARSITIES = (0.5, 0.6, 0.7)


def _recipes() -> dict[tuple[str, float, bool], Recipe]:
    recipes = {}
    for name, score in _FIRST_MASKS.items():
        for sparsity in _SPARSITIES:
            before = Recipe(score, Unstructured("row"), density=1 - sparsity)
            recipes[name, sparsity, False] = before
            recipes[name, sparsity, True] = replace(before, update=updates.DSnoT())
    return recipes


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    recipes = _recipes()
    names = {str(key): recipe for key, recipe in recipes.items()}
    dense, by_name = models.pruned_log_perplexities(names, seeds, scale)
    pruned = {key: by_name[str(key)] for key in recipes}
    layers = [models.correlated_layer(seed, scale) for seed in seeds]
    table = [
        {
            "first_mask": key[0],
            "sparsity": key[1],
            "dsnot": key[2],
            "perplexity": float(np.exp(pruned[key].mean())),
            "dense_perplexity": float(np.exp(dense.mean())),
            "layer_output_error": float(
                np.mean([models.output_error(*layer, recipe) for layer in layers])
            ),
        }
        for key, recipe in recipes.items()
    ]
    return _verdict(pruned, table)


def _verdict(pruned: dict[tuple[str, float, bool], np.ndarray], table: list[dict]) -> Outcome:
    """Hold if DSnoT lowers the perplexity of Wanda's mask at 70 %, the paper's headline."""
    gains = {
        (name, sparsity): pruned[name, sparsity, False] - pruned[name, sparsity, True]
        for name in _FIRST_MASKS
        for sparsity in _SPARSITIES
    }
    margin = paired_margin(gains["Wanda", 0.7])
    better = sum(paired_margin(gain) > 0 for gain in gains.values())
    before, after = (float(np.exp(pruned["Wanda", 0.7, d].mean())) for d in (False, True))
    summary = (
        f"Perplexity of Wanda's mask at 70 %: {before:.3f} before DSnoT, {after:.3f} after; "
        f"log-perplexity falls by {margin:.4f} after one standard error. DSnoT helps in {better} "
        f"of {len(gains)} combinations of first mask and sparsity."
    )
    if margin <= 0:
        summary += (
            " Suspected reason: the swaps lower the error's mean over tokens, which a normalised "
            "small model's nearly centred inputs leave small beside its variance."
        )
    figure = lines(
        [f"{100 * s:.0f} %" for s in _SPARSITIES],
        {
            f"{name}{' + DSnoT' if refined else ''}": [
                float(np.exp(pruned[name, s, refined].mean())) for s in _SPARSITIES
            ]
            for name in _FIRST_MASKS
            for refined in (False, True)
        },
        title="Perplexity per character before and after DSnoT",
        x_title="sparsity",
        y_title="perplexity",
    )
    return Outcome(margin > 0, margin, summary, table, figure)


experiment = Experiment(
    method="dsnot",
    claim="Swapping weights without training improves Wanda's sparse models, most at 70 % "
    "sparsity.",
    baseline="the first masks themselves: magnitude, Wanda, OBS saliency without compensation",
    run=_run,
)
