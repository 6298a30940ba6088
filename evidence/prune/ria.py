"""RIA against magnitude pruning, Wanda and SparseGPT, all in one shot, on SmolLM2."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.magnitude import MagnitudePruning
from thresher.prune.ria import RIA
from thresher.prune.sparsegpt import SparseGPT
from thresher.prune.wanda import Wanda

from .._one_shot import PROTOCOL, cut, one_shot
from .._study import Judged, ahead, means

_RIVALS = ("magnitude", "Wanda", "SparseGPT")

experiment = Experiment(
    method=RIA.card.name,
    claim="At 50 % unstructured sparsity RIA, which updates no weights, has a lower perplexity "
    "than magnitude pruning, Wanda and SparseGPT.",
    baseline="magnitude pruning, Wanda and SparseGPT",
    run=Judged(
        study=one_shot(
            ("cut",),
            {"50 %": {"density": 0.5}},
            {
                "RIA": cut(RIA()),
                "magnitude": cut(MagnitudePruning()),
                "Wanda": cut(Wanda()),
                "SparseGPT": cut(SparseGPT()),
            },
        ),
        rule=ahead("log_perplexity", "RIA", *_RIVALS),
        view=means("log_perplexity", "Perplexity after one-shot pruning", "perplexity", True),
        against={"RIA": _RIVALS},
        note="Slacks are differences of log-perplexity. The claims on N:M, with permuted channels, "
        f"are not judged. {PROTOCOL}",
    ),
    seeds=(0, 1, 2, 3),
)
