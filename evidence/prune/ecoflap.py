"""ECoFLaP's densities against one density for all blocks, on a fifth of SmolLM2's blocks."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.ecoflap import ECoFLaP
from thresher.prune.sparsegpt import SparseGPT
from thresher.prune.wanda import Wanda

from .._one_shot import MOVED, PROTOCOL, cut, one_shot
from .._study import Judged, ahead_each, means

_EVERY = 5
_PAIRS = {"ECoFLaP with Wanda": "Wanda", "ECoFLaP with SparseGPT": "SparseGPT"}

experiment = Experiment(
    method=ECoFLaP.card.name,
    claim="At high sparsity (60 and 70 % are judged), densities of blocks from zeroth-order "
    "gradients lower the perplexity of both Wanda and SparseGPT on a language model.",
    baseline="Wanda and SparseGPT at one density for all blocks",
    run=Judged(
        study=one_shot(
            ("cut",),
            {"60 %": {"density": 0.4}, "70 %": {"density": 0.3}},
            {
                "ECoFLaP with Wanda": cut(ECoFLaP()),
                "Wanda": cut(Wanda()),
                "ECoFLaP with SparseGPT": cut(SparseGPT(budget=ECoFLaP().budget)),
                "SparseGPT": cut(SparseGPT()),
            },
            every=_EVERY,
        ),
        rule=ahead_each("log_perplexity", _PAIRS),
        view=means("log_perplexity", "Perplexity after one-shot pruning", "perplexity", True),
        against={ours: (rival,) for ours, rival in _PAIRS.items()},
        note="Slacks are differences of log-perplexity. Only each fifth block is pruned, since "
        f"each takes two passes for every window that its weights move for; {MOVED} windows do, "
        "where the paper takes 32 samples. Vision-language models, which most of the paper is "
        f"about, are not judged. {PROTOCOL}",
    ),
    seeds=(0, 1, 2),
)
