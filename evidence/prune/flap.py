"""FLAP against Wanda's score for whole heads and neurons."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.flap import FLAP

from .._study import Judged, Study, ahead, means
from ._units import WANDA, language_problem, log_perplexity, smaller

experiment = Experiment(
    method=FLAP.card.name,
    claim="Without retraining, with 20 % or 50 % of the weights of heads and neurons removed, "
    "perplexity is lower than with Wanda's score for whole units. (LLM-Pruner, the paper's other "
    "rival, and its LLaMA are not rerun.)",
    baseline="the same share of units in every block by Wanda's score",
    run=Judged(
        study=Study(
            over=("removed",),
            settings={removed: removed for removed in (0.2, 0.5)},
            draw=language_problem,
            methods={"FLAP": smaller(FLAP()), "Wanda": smaller(WANDA)},
            measures={"log_perplexity": log_perplexity},
        ),
        rule=ahead("log_perplexity", "FLAP", "Wanda"),
        view=means("log_perplexity", "Perplexity of smaller models", "perplexity", True),
        against={"FLAP": ("Wanda",)},
        note="Slacks are differences of log-perplexity. The model is a Llama of 0.15 M weights on "
        "characters of Python's documentation, trained anew for every seed.",
    ),
    seeds=(0, 1, 2),
)
