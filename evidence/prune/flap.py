"""FLAP against whole heads and neurons by Wanda's score and to first order (LLM-Pruner)."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.flap import FLAP

from .._study import Judged, ahead, means
from .._units import LLM_PRUNER, PROTOCOL, WANDA, of_units

experiment = Experiment(
    method=FLAP.card.name,
    claim="Without retraining, with 20 % or 50 % of the weights of heads and neurons removed, "
    "perplexity is lower than with Wanda's score for whole units and than LLM-Pruner's.",
    baseline="the same share of units in every block by Wanda's score and to first order "
    "(LLM-Pruner's rule)",
    run=Judged(
        study=of_units(
            {"20 %": 0.2, "50 %": 0.5},
            {"FLAP": FLAP(), "Wanda": WANDA, "LLM-Pruner": LLM_PRUNER},
        ),
        rule=ahead("log_perplexity", "FLAP", "Wanda", "LLM-Pruner"),
        view=means("log_perplexity", "Perplexity without heads and neurons", "perplexity", True),
        against={"FLAP": ("Wanda", "LLM-Pruner")},
        note=f"Slacks are differences of log-perplexity. {PROTOCOL} LLM-Pruner is its rule "
        "alone, without the training that follows it. The paper's LLaMA is not rerun. "
        "Scales below 1 say nothing of the claim.",
        reason="suspected: of three key-value heads to a block one is always well below their "
        "mean, so that costs standardised within them have heads go first, a third of an attention "
        "each.",
    ),
    seeds=(0, 1, 2),
)
