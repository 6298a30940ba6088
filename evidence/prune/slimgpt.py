"""SlimGPT against heads and neurons chosen to first order (LLM-Pruner) and by Wanda's score."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.slimgpt import SlimGPT

from .._study import Judged, ahead, means
from .._units import LLM_PRUNER, PROTOCOL, WANDA, of_units

experiment = Experiment(
    method=SlimGPT.card.name,
    claim="With 20 % or 50 % of the weights of heads and neurons removed, and no training after "
    "it, perplexity is lower than where units are chosen to first order (LLM-Pruner) or by Wanda's "
    "score.",
    baseline="the same share of units in every block to first order (LLM-Pruner's rule) and by "
    "Wanda's score",
    run=Judged(
        study=of_units(
            {"20 %": 0.2, "50 %": 0.5},
            {"SlimGPT": SlimGPT(), "LLM-Pruner": LLM_PRUNER, "Wanda": WANDA},
        ),
        rule=ahead("log_perplexity", "SlimGPT", "LLM-Pruner", "Wanda"),
        view=means("log_perplexity", "Perplexity without heads and neurons", "perplexity", True),
        against={"SlimGPT": ("LLM-Pruner", "Wanda")},
        note=f"Slacks are differences of log-perplexity. {PROTOCOL} LLM-Pruner is its rule "
        "alone. The paper's LLaMA, and figures after training, are not rerun. Scales below 1 say "
        "nothing of the claim.",
    ),
    seeds=(0, 1, 2),
)
