"""Random masks in proportion to the magnitude at initialisation, against the largest ones."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from thresher.core.evidence import Earlier, Experiment
from thresher.parts.budgets import Budget, Global, Uniform
from thresher.parts.scores import Magnitude, Random, SamplingFactor, Score
from thresher.prune import Recipe, prune
from thresher.prune.sketched import SketchedPruning

from .. import _models as models
from .._study import Draw, Judged, Study, ahead, grid, means

_SPARSITIES = (0.9, 0.95, 0.98)
_BUDGETS: dict[str, Budget] = {"all layers": Global(), "each layer": Uniform()}
_Problem = tuple[tuple[str, float], Draw]


def _trained(score: Callable[[int], Score]) -> Callable[[_Problem], nn.Module]:
    """Return the method that prunes an untrained network by a score, and trains what is left."""

    def run(problem: _Problem) -> nn.Module:
        (budget, sparsity), drawn = problem
        model = models.perceptron(drawn.seed)
        recipe = Recipe(score(drawn.seed), budget=_BUDGETS[budget], density=1 - sparsity)
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
            over=("among", "sparsity"),
            settings=grid(tuple(_BUDGETS), _SPARSITIES),
            draw=lambda setting, drawn: (setting, drawn),
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
        note="Slacks are percentage points of wrong digits. Scores are compared among all layers, "
        "as the paper's are, and within each: one threshold on magnitudes at initialisation "
        "empties layers, which any spread of the mask mends. Masks that look at nothing are shown "
        "too, and are not judged. The network is small, and its images 8 x 8.",
    ),
    seeds=tuple(range(10)),
    earlier=(
        Earlier(
            rule="the same, among all layers alone",
            reproduced=True,
            margin=8.34395,
            why="the largest magnitudes left whole layers empty, and a mask that looks at nothing "
            "was as far ahead of them",
        ),
    ),
)
