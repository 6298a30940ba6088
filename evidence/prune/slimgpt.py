"""SlimGPT against heads and neurons chosen to first order (LLM-Pruner) and by Wanda's score."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.slimgpt import SlimGPT

from .._study import Judged, Study, ahead, means
from ._units import MODEL, WANDA, language_problem, llm_pruner, log_perplexity, smaller

experiment = Experiment(
    method=SlimGPT.card.name,
    claim="With 20 % or 50 % of the weights of heads and neurons removed, perplexity is lower than "
    "LLM-Pruner's and than where units are chosen by Wanda's score, without any training.",
    baseline="the same share of units in every block to first order (LLM-Pruner's rule) and by "
    "Wanda's score",
    run=Judged(
        study=Study(
            over=("removed",),
            settings={"20 %": 0.2, "50 %": 0.5},
            draw=language_problem,
            methods={
                "SlimGPT": smaller(SlimGPT()),
                "LLM-Pruner": llm_pruner,
                "Wanda": smaller(WANDA),
                "dense": lambda problem: problem.dense,
            },
            measures={"log_perplexity": log_perplexity},
        ),
        rule=ahead("log_perplexity", "SlimGPT", "LLM-Pruner", "Wanda"),
        view=means("log_perplexity", "Perplexity of smaller models", "perplexity", True),
        against={"SlimGPT": ("LLM-Pruner", "Wanda")},
        note=f"Slacks are differences of log-perplexity. {MODEL} The paper's LLaMA, and its "
        "figures after training, are not rerun.",
    ),
    seeds=(0, 1, 2),
)
