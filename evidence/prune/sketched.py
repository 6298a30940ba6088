"""Random masks in proportion to the magnitude at initialisation, against the largest ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from thresher.core.evidence import Experiment
from thresher.parts.budgets import Global
from thresher.parts.scores import Magnitude, Random, SamplingFactor, Score
from thresher.prune import Recipe, prune
from thresher.prune.sketched import SketchedPruning

from .. import _models as models
from .._study import Draw, Judged, Study, ahead, means

_SPARSITIES = (0.9, 0.95, 0.98)


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def _trained(score: Callable[[int], Score]) -> Callable[[tuple[float, Draw]], nn.Module]:
    """Return the method that prunes an untrained network by a score, and trains what is left."""

    def run(problem: tuple[float, Draw]) -> nn.Module:
        sparsity, drawn = problem
        model = _network(drawn.seed)
        recipe = Recipe(score(drawn.seed), budget=Global(), density=1 - sparsity)
        prune(model, recipe, progress=False)
        models.train_classifier(model, drawn.seed, drawn.amount(40), masks=models.masks_of(model))
        return model

    return run


experiment = Experiment(
    method=SketchedPruning.card.name,
    claim="Without data, drawing the weights to keep at initialisation at random in proportion to "
    "a score is better than keeping the largest ones. (Judged: for the magnitude, of an MLP; the "
    "bound on linear models is not.)",
    baseline="the largest magnitudes at initialisation",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: sparsity for sparsity in _SPARSITIES},
            draw=lambda sparsity, drawn: (sparsity, drawn),
            methods={
                "in proportion": _trained(lambda seed: Magnitude() * SamplingFactor(seed)),
                "largest": _trained(lambda seed: Magnitude()),
                "at random": _trained(Random),
            },
            measures={"wrong": lambda model, _: 100 * (1 - models.accuracy(model))},
            workers=2,
        ),
        rule=ahead("wrong", "in proportion", "largest"),
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"in proportion": ("largest",)},
        note="Slacks are percentage points of wrong digits. All scores are compared over all "
        "layers at once, as the paper's are. Masks that look at nothing are shown too, and are not "
        "judged. The network is small, and its images 8 x 8.",
    ),
    seeds=tuple(range(10)),
)
