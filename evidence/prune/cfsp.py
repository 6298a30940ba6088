"""CFSP against its score with one share everywhere, Wanda's score, and FLAP."""

from __future__ import annotations

from dataclasses import replace

from thresher.core.evidence import Experiment
from thresher.parts.spreads import Incremental
from thresher.prune.cfsp import CFSP
from thresher.prune.flap import FLAP

from .._study import Judged, ahead, means
from .._units import LLM_PRUNER, PROTOCOL, WANDA, of_units

_RIVALS = ("Wanda", "LLM-Pruner", "FLAP", "one share everywhere")

experiment = Experiment(
    method=CFSP.card.name,
    claim="With 20 % or 50 % of the weights removed, all of them of neurons, perplexity is lower "
    "than with heads and neurons chosen by Wanda's score, to first order (LLM-Pruner) or by FLAP, "
    "and than with the same share of neurons everywhere.",
    baseline="heads and neurons by Wanda's score, LLM-Pruner's rule and FLAP; CFSP's score with "
    "one share everywhere",
    run=Judged(
        study=of_units(
            {"20 %": 0.2, "50 %": 0.5},
            {
                "CFSP": CFSP(),
                "one share everywhere": replace(CFSP(), spread=Incremental(first=1.0)),
                "Wanda": WANDA,
                "LLM-Pruner": LLM_PRUNER,
                "FLAP": FLAP(),
            },
        ),
        rule=ahead("log_perplexity", "CFSP", *_RIVALS),
        view=means("log_perplexity", "Perplexity of smaller models", "perplexity", True),
        against={"CFSP": _RIVALS},
        note=f"Slacks are differences of log-perplexity. {PROTOCOL} LLM-Pruner is its rule "
        "alone. Figures after training are not rerun. Scales below 1 say nothing of the claim.",
        reason="suspected: the first and last blocks, whose changes stand out, are left whole, so "
        "that there is little to share out; and three draws are noisy for Wanda and LLM-Pruner.",
    ),
    seeds=(0, 1, 2),
)
