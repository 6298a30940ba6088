"""Sampling that preserves the spectrum against a threshold, on a network of digits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from thresher.core.evidence import Experiment
from thresher.parts.coverage import find_layers
from thresher.parts.scores import Magnitude, Random
from thresher.parts.updates import PrioritySampling
from thresher.prune import Recipe, prune
from thresher.prune.spectrum import SpectrumPreserving

from .. import _models as models
from .._study import Draw, Found, Judged, Study, ahead, means

_SPARSITIES = (0.7, 0.8, 0.9, 0.95)
_EPOCHS = 10


@dataclass(frozen=True)
class _Problem:
    drawn: Draw
    sparsity: float


@dataclass(frozen=True)
class _Answer:
    """The largest relative spectral error of a layer; wrong digits before and after training."""

    spectral_error: float
    wrong: float
    at_once: float


@functools.lru_cache(maxsize=1)
def _dense(drawn: Draw) -> nn.Module:
    model = models.perceptron(drawn.seed)
    models.train_classifier(model, drawn.seed, drawn.amount(30))
    return model


def _pruned(recipe: Callable[[int], Recipe]) -> Callable[[_Problem], _Answer]:
    def run(problem: _Problem) -> _Answer:
        drawn = problem.drawn
        dense, model = _dense(drawn), copy.deepcopy(_dense(drawn))
        prune(model, recipe(drawn.seed), density=1 - problem.sparsity, progress=False)
        with torch.no_grad():
            pairs = zip(find_layers(dense), find_layers(model), strict=True)
            errors = [
                float(_norm(before.matrix() - after.matrix()) / _norm(before.matrix()))
                for before, after in pairs
            ]
        at_once = _wrong(model)
        epochs, masks = drawn.amount(_EPOCHS), models.masks_of(model)
        models.train_classifier(model, drawn.seed, epochs, 1e-3, masks)
        return _Answer(max(errors), _wrong(model), at_once)

    return run


def _norm(matrix: torch.Tensor) -> torch.Tensor:
    return torch.linalg.matrix_norm(matrix, 2)


def _wrong(model: nn.Module) -> float:
    return 100 * (1 - models.accuracy(model))


def _say(found: Found) -> str:
    names = list(found.study.methods)
    errors, wrong = (
        np.stack([found.of(measure, name) for name in names]).ravel()
        for measure in ("spectral_error", "wrong_at_once")
    )
    return (
        "Correlation of the spectral error with wrong digits before training, over all of them: "
        f"{np.corrcoef(errors, wrong)[0, 1]:.2f}."
    )


experiment = Experiment(
    method=SpectrumPreserving.card.name,
    claim="Sparsification that keeps large weights and draws medium ones, made to preserve a "
    "layer's spectrum, gives more accurate networks than a threshold on magnitudes, after "
    "retraining.",
    baseline="the largest magnitudes of every layer",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: sparsity for sparsity in _SPARSITIES},
            draw=lambda sparsity, drawn: _Problem(drawn, sparsity),
            methods={
                "sampled": _pruned(
                    lambda seed: replace(SpectrumPreserving(), update=PrioritySampling(seed=seed))
                ),
                "threshold": _pruned(lambda _: Recipe(Magnitude())),
                "at random": _pruned(lambda seed: Recipe(Random(seed))),
            },
            measures={
                "wrong": lambda answer, _: answer.wrong,
                "spectral_error": lambda answer, _: answer.spectral_error,
                "wrong_at_once": lambda answer, _: answer.at_once,
            },
            workers=2,
        ),
        rule=ahead("wrong", "sampled", "threshold"),
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"sampled": ("threshold",)},
        say=_say,
        note="Slacks are points of accuracy. `spectral_error` is the largest of any layer, by its "
        "norm; `wrong_at_once` is before retraining. The probabilities are those of "
        f"priority sampling, the paper's were not at hand. {_EPOCHS} passes of retraining; the "
        "network is an MLP, and its images 8 x 8.",
        reason="Where many weights are kept, retraining mends a threshold, and weights that were "
        "enlarged are noise; only where few are does the right mean count (suspected). The "
        "threshold has the smaller spectral error all along.",
    ),
    seeds=tuple(range(8)),
)
