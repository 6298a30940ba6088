"""CHITA against magnitude pruning and removal one by one (M-FAC), on MLPNet."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.parts.budgets import Global
from thresher.parts.scores import Magnitude
from thresher.prune import Recipe
from thresher.prune.chita import CHITA
from thresher.prune.mfac import MFAC

from .._statistics import lower
from .._study import Found, Judged, Slacks, ahead, means
from ._mlpnet import PROTOCOL, pruning

_RIVALS = ("M-FAC", "magnitude")
_STEPS = 3
_one_shot = ahead("wrong", "CHITA", *_RIVALS)


def _rule(found: Found) -> Slacks:
    stepwise = lower(found.lead("wrong", "CHITA++", "CHITA"))
    return dict(_one_shot(found)) | {
        f"{key[0]}: CHITA++ wrong below CHITA": float(slack)
        for key, slack in zip(found.study.keys, stepwise, strict=True)
    }


experiment = Experiment(
    method=CHITA.card.name,
    claim="On MLPNet at 90, 95 and 98 % sparsity, without retraining, CHITA is more accurate than "
    "magnitude pruning and than Optimal Brain Surgeon weight by weight, and along a schedule "
    "(CHITA++) more accurate still. (The gain of 63 % over the Combinatorial Brain Surgeon, which "
    "is not rerun, is not judged.)",
    baseline="magnitude pruning over all layers, and M-FAC on the same gradients",
    run=Judged(
        study=pruning(
            {
                "CHITA": (CHITA(), 1),
                "CHITA++": (CHITA(), _STEPS),
                "M-FAC": (MFAC(), 1),
                "magnitude": (Recipe(Magnitude(), budget=Global()), 1),
            }
        ),
        rule=_rule,
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"CHITA": _RIVALS, "CHITA++": ("CHITA",)},
        note=f"Slacks are points of accuracy. CHITA++ takes {_STEPS} steps, the paper many more. "
        f"{PROTOCOL}",
    ),
    seeds=(0, 1, 2),
)
