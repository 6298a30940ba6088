"""FLAP against whole heads and neurons by Wanda's score and to first order (LLM-Pruner)."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.flap import FLAP

from .._study import Judged, Study, ahead, means
from ._units import MODEL, WANDA, language_problem, llm_pruner, log_perplexity, smaller

experiment = Experiment(
    method=FLAP.card.name,
    claim="Without retraining, with 20 % or 50 % of the weights of heads and neurons removed, "
    "perplexity is lower than with Wanda's score for whole units and than LLM-Pruner's.",
    baseline="the same share of units in every block by Wanda's score and to first order "
    "(LLM-Pruner's rule)",
    run=Judged(
        study=Study(
            over=("removed",),
            settings={"20 %": 0.2, "50 %": 0.5},
            draw=language_problem,
            methods={
                "FLAP": smaller(FLAP()),
                "Wanda": smaller(WANDA),
                "LLM-Pruner": llm_pruner,
                "dense": lambda problem: problem.dense,
            },
            measures={"log_perplexity": log_perplexity},
        ),
        rule=ahead("log_perplexity", "FLAP", "Wanda", "LLM-Pruner"),
        view=means("log_perplexity", "Perplexity of smaller models", "perplexity", True),
        against={"FLAP": ("Wanda", "LLM-Pruner")},
        note=f"Slacks are differences of log-perplexity. {MODEL} The paper's LLaMA is not rerun.",
    ),
    seeds=(0, 1, 2),
)
