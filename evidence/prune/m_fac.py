"""M-FAC against magnitude pruning and the diagonal Fisher, on MLPNet."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.parts.budgets import Global
from thresher.parts.scores import Fisher, Magnitude
from thresher.prune import Recipe
from thresher.prune.mfac import MFAC

from .._study import Judged, ahead, means
from ._mlpnet import PROTOCOL, pruning

_RIVALS = {"magnitude": Magnitude(), "diagonal Fisher": Fisher()}

experiment = Experiment(
    method=MFAC.card.name,
    claim="Pruned in one shot, without retraining, by Optimal Brain Surgeon under a Fisher from "
    "many gradients, a network is more accurate than by magnitude or by the Fisher's diagonal. "
    "(Judged on MLPNet; costs, WoodFisher's blocks and the optimiser are not.)",
    baseline="magnitude pruning, and the diagonal Fisher of the same gradients, over all layers",
    run=Judged(
        study=pruning(
            {"M-FAC": (MFAC(), 1)}
            | {name: (Recipe(score, budget=Global()), 1) for name, score in _RIVALS.items()}
        ),
        rule=ahead("wrong", "M-FAC", *_RIVALS),
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"M-FAC": tuple(_RIVALS)},
        note=f"Slacks are points of accuracy. {PROTOCOL}",
        reason="With far fewer gradients than weights the inverse is nearly the ridge's, so that "
        "saliencies are nearly magnitudes, also of weights whose gradient is always zero; what "
        "many removed weights take from each other is not accounted for either (suspected).",
    ),
    seeds=(0, 1, 2, 3),
)
