"""SparseLLM against SparseGPT, Wanda and magnitude pruning at high sparsity, on SmolLM2."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.magnitude import MagnitudePruning
from thresher.prune.sparsegpt import SparseGPT
from thresher.prune.sparsellm import SparseLLM
from thresher.prune.wanda import Wanda

from .._one_shot import PROTOCOL, cut, one_shot
from .._study import Judged, ahead, means

_EVERY = 10
_RIVALS = ("SparseGPT", "Wanda", "magnitude")

experiment = Experiment(
    method=SparseLLM.card.name,
    claim="At high sparsity (70 and 80 % are judged), a language model whose feed-forward networks "
    "are pruned layer by layer towards each other has a lower perplexity than by SparseGPT, Wanda "
    "and magnitude pruning.",
    baseline="SparseGPT, Wanda and magnitude pruning on the same statistics",
    run=Judged(
        study=one_shot(
            ("cut",),
            {"70 %": {"density": 0.3}, "80 %": {"density": 0.2}},
            {
                "SparseLLM": cut(SparseLLM()),
                "SparseGPT": cut(SparseGPT()),
                "Wanda": cut(Wanda()),
                "magnitude": cut(MagnitudePruning()),
            },
            every=_EVERY,
        ),
        rule=ahead("log_perplexity", "SparseLLM", *_RIVALS),
        view=means("log_perplexity", "Perplexity after one-shot pruning", "perplexity", True),
        against={"SparseLLM": _RIVALS},
        note="Slacks are differences of log-perplexity. Attention is pruned as by SparseGPT. The "
        "sweep whose outputs are nearest is kept, the paper keeps the last; 90 % and 3:4 are not "
        f"judged. Every {_EVERY}th block is pruned, so that a run takes minutes. {PROTOCOL}",
    ),
    seeds=(0, 1, 2),
)
