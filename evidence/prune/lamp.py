"""LAMP against other ways to divide one sparsity among layers, on a CNN of digits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from thresher.core.evidence import Experiment, Outcome
from thresher.parts.budgets import ERK, LAMP, Budget, Global, Uniform
from thresher.parts.scores import Magnitude
from thresher.prune import Recipe, prune

from .. import _models as models
from .._plots import lines
from .._statistics import paired_margin

_SPARSITIES = (0.90, 0.95, 0.98)
_BUDGETS: dict[str, Budget] = {
    "global": Global(),
    "uniform": Uniform(),
    "ERK": ERK(),
    "LAMP": LAMP(),
}


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def _run(scale: float, seeds: Sequence[int]) -> Outcome:
    table, accuracies = [], np.zeros((len(_BUDGETS), len(_SPARSITIES), len(seeds)))
    for s, seed in enumerate(seeds):
        dense = _network(seed)
        models.train_classifier(dense, seed, models.amount(30, scale))
        reference = models.accuracy(dense)
        for (b, (name, budget)), (d, sparsity) in (
            (x, y) for x in enumerate(_BUDGETS.items()) for y in enumerate(_SPARSITIES)
        ):
            row = _prune_and_tune(dense, budget, sparsity, seed, scale)
            accuracies[b, d, s] = row["accuracy"]
            table.append({"budget": name, "seed": seed, "dense_accuracy": reference, **row})
    return _verdict(accuracies, table)


def _prune_and_tune(
    dense: nn.Module, budget: Budget, sparsity: float, seed: int, scale: float
) -> dict[str, Any]:
    model = copy.deepcopy(dense)
    recipe = Recipe(Magnitude(), budget=budget, density=1 - sparsity)
    record = prune(model, recipe, progress=False)
    one_shot = models.accuracy(model)
    models.train_classifier(model, seed, models.amount(15, scale), masks=models.masks_of(model))
    return {
        "sparsity": sparsity,
        "one_shot_accuracy": one_shot,
        "accuracy": models.accuracy(model),
        "sparsest_layer": min(layer.density for layer in record.layers),
    }


def _verdict(accuracies: np.ndarray, table: list[dict[str, Any]]) -> Outcome:
    """Compare LAMP with the strongest other budget, over all sparsities at once."""
    names = list(_BUDGETS)
    overall = accuracies.mean((1, 2))
    lamp = names.index("LAMP")
    rival = max((i for i in range(len(names)) if i != lamp), key=lambda i: overall[i])
    gaps = 100 * (accuracies[lamp] - accuracies[rival])
    margin = paired_margin(gaps.mean(0))
    at = ", ".join(
        f"{100 * s:.0f} %: {100 * accuracies[lamp, d].mean():.1f} against "
        f"{100 * accuracies[rival, d].mean():.1f}"
        for d, s in enumerate(_SPARSITIES)
    )
    summary = (
        f"Test accuracy after fine-tuning, LAMP against {names[rival]}, the strongest of the "
        f"others: {at}. Mean advantage {gaps.mean():.2f} points, {margin:.2f} after one standard "
        f"error over {accuracies.shape[2]} seeds."
    )
    if margin <= 0:
        summary += (
            " The network is small and its layers similar in scale, so that budgets differ less "
            "here than in the paper's deep networks."
        )
    figure = lines(
        [f"{100 * s:.0f} %" for s in _SPARSITIES],
        {name: 100 * accuracies[i].mean(1) for i, name in enumerate(names)},
        errors={name: 100 * accuracies[i].std(1) for i, name in enumerate(names)},
        title="Accuracy after pruning and fine-tuning",
        x_title="sparsity",
        y_title="test accuracy (%)",
    )
    return Outcome(margin > 0, margin, summary, table, figure)


experiment = Experiment(
    method="lamp",
    claim="LAMP gives better accuracy after fine-tuning than global, uniform and Erdős-Rényi "
    "layer-wise sparsity, at the same total sparsity.",
    baseline="magnitude pruning with global, uniform and ERK budgets, same fine-tuning",
    run=_run,
    seeds=(0, 1, 2, 3, 4),
)
