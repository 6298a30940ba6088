"""ARMOR against 2:4 pruning by NoWag-P, Wanda and SparseGPT, on SmolLM2."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from thresher.core.evidence import Experiment
from thresher.parts.chooser import MaskChooser
from thresher.parts.moments import Norm
from thresher.parts.scores import Magnitude
from thresher.parts.statistics import Statistics
from thresher.prune import Recipe
from thresher.prune.armor import ARMOR
from thresher.prune.sparsegpt import SparseGPT
from thresher.prune.wanda import Wanda

from .._one_shot import PROTOCOL, cut, one_shot
from .._study import Judged, ahead, means

_BLOCK, _EVERY = 32, 10
_RIVALS = ("NoWag-P", "Wanda", "SparseGPT")


@dataclass(frozen=True)
class _Product:
    """The product of the factors as a dense weight, so that the model runs as it is.

    It is no update that users can name, only something that is called as one.
    """

    method: ARMOR = ARMOR(block=_BLOCK)
    needs = frozenset({Norm})

    def __call__(
        self, weight: torch.Tensor, choose: MaskChooser, statistics: Statistics
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the product, and that none of it is zero."""
        found = self.method.factor(weight, statistics[Norm].value.square())
        return found.matrix(), torch.ones_like(weight, dtype=torch.bool)


experiment = Experiment(
    method=ARMOR.card.name,
    claim="A 2:4 core between two block-diagonal matrices gives a language model a lower "
    "perplexity than 2:4 pruning by NoWag-P (from which it starts), Wanda and SparseGPT.",
    baseline="NoWag-P, Wanda and SparseGPT at 2:4, on the same statistics",
    run=Judged(
        study=one_shot(
            ("cut",),
            {"2:4": {"pattern": "2:4"}},
            {
                "ARMOR": cut(Recipe(Magnitude(), update=_Product())),
                "NoWag-P": cut(Recipe(Magnitude(), update=_Product(ARMOR(block=_BLOCK, sweeps=0)))),
                "Wanda": cut(Wanda()),
                "SparseGPT": cut(SparseGPT()),
            },
            layer_errors=True,
            every=_EVERY,
        ),
        rule=ahead("log_perplexity", "ARMOR", *_RIVALS),
        view=means("log_perplexity", "Perplexity at 2:4", "perplexity", True),
        against={"ARMOR": _RIVALS},
        note="Slacks are differences of log-perplexity. The factors are multiplied out: what three "
        f"of them cost in time is not judged. In blocks of {_BLOCK} the outer factors have 8 % "
        "(1536 x 576) to 11 % (576 x 576) of the weight's entries, in the paper's layers of 4096 "
        f"and more some 6 %. Every {_EVERY}th block of the model is pruned. {PROTOCOL}",
    ),
    seeds=(0, 1, 2),
)
