"""The PQ index of a network of digits, while it is pruned round by round and trained between."""

from __future__ import annotations

import functools

import numpy as np
import torch

from thresher.core.evidence import Experiment
from thresher.parts.budgets import Global
from thresher.parts.compressibility import pq_index
from thresher.parts.coverage import find_layers
from thresher.parts.scores import Magnitude
from thresher.prune import Recipe, prune
from thresher.prune.sap import SAP

from .. import _models as models
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

#: Each round keeps this share of what is left.
_KEPT, _ROUNDS = 0.8, 25
_TRAINED, _ONCE = "trained between", "trained once"


@functools.lru_cache(maxsize=2)
def _rounds(drawn: Draw, between: bool) -> list[tuple[float, float]]:
    """Return index and share of wrong digits after each round of magnitude pruning."""
    model = models.perceptron(drawn.seed)
    found = []
    for number in range(_ROUNDS):
        if number:
            recipe = Recipe(Magnitude(), budget=Global(), density=_KEPT**number)
            prune(model, recipe, progress=False)
        if between or not number:
            masks = models.masks_of(model)
            models.train_classifier(model, drawn.seed, drawn.amount(20), masks=masks)
        weights = torch.cat([layer.weight.detach().flatten() for layer in find_layers(model)])
        left = weights[weights != 0]
        found.append((pq_index(left), 100 * (1 - models.accuracy(model))))
    return found


def turns(indices: np.ndarray) -> Slacks:
    """Return the fall, the rise and the fall of a curve, two standard errors below their means.

    Parameters
    ----------
    indices : array of shape (rounds, draws)
        The turns are where the least of the three moves is the largest; the errors grow with the
        number of places that were tried.
    """
    last = len(indices) - 1
    places = [(low, high) for low in range(1, last) for high in range(low + 1, last)]
    moves = [
        (indices[0] - indices[low], indices[high] - indices[low], indices[high] - indices[last])
        for low, high in places
    ]
    slacks = lower(np.array(moves), len(places)).tolist()
    best = max(slacks, key=min)
    names = ("falls at first", "rises then", "falls at last")
    return dict(zip(names, best, strict=True))


def _rule(found: Found) -> Slacks:
    return turns(found.of("pq_index", _TRAINED))


experiment = Experiment(
    method=SAP.card.name,
    claim="While a network is pruned round by round and trained between, the PQ index of what is "
    "left falls at first, rises at the limit of compression, and falls as the model collapses. "
    "(That the paper's adaptive rounds compress better than fixed ones is not judged.)",
    baseline="a curve without these turns; rounds without training between",
    run=Judged(
        study=Study(
            over=("round",),
            settings={number: number for number in range(_ROUNDS)},
            draw=lambda number, drawn: (number, drawn),
            methods={
                _TRAINED: lambda problem: _rounds(problem[1], True)[problem[0]],
                _ONCE: lambda problem: _rounds(problem[1], False)[problem[0]],
            },
            measures={
                "pq_index": lambda answer, _: answer[0],
                "wrong": lambda answer, _: answer[1],
            },
            workers=2,
        ),
        rule=_rule,
        view=means("pq_index", "PQ index of the weights that are left", "PQ index"),
        against={_TRAINED: (_ONCE,)},
        note=f"Each of {_ROUNDS - 1} rounds keeps {_KEPT:.0%} of the weights, the largest of all "
        "layers; slacks are differences of the index, whose norms are of orders 0.5 and 1. The "
        "network is an MLP, and its images 8 x 8.",
    ),
    seeds=(0, 1, 2, 3, 4),
)
