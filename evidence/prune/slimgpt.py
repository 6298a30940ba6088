"""SlimGPT against heads and neurons chosen by Wanda's score and by magnitude."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.prune.slimgpt import SlimGPT

from .._study import Judged, Study, ahead, means
from ._units import MAGNITUDE, WANDA, language_problem, log_perplexity, smaller

experiment = Experiment(
    method=SlimGPT.card.name,
    claim="With 20 % or 50 % of the weights of heads and neurons removed, perplexity is lower than "
    "where units are chosen by Wanda's score or by magnitude, without any training. (The paper's "
    "LLaMA and its rivals that train are not rerun.)",
    baseline="the same share of units in every block by Wanda's score and by magnitude",
    run=Judged(
        study=Study(
            over=("removed",),
            settings={removed: removed for removed in (0.2, 0.5)},
            draw=language_problem,
            methods={
                "SlimGPT": smaller(SlimGPT()),
                "Wanda": smaller(WANDA),
                "magnitude": smaller(MAGNITUDE),
            },
            measures={"log_perplexity": log_perplexity},
        ),
        rule=ahead("log_perplexity", "SlimGPT", "Wanda", "magnitude"),
        view=means("log_perplexity", "Perplexity of smaller models", "perplexity", True),
        against={"SlimGPT": ("Wanda", "magnitude")},
        note="Slacks are differences of log-perplexity. The model is a Llama of 0.15 M weights on "
        "characters of Python's documentation, trained anew for every seed.",
    ),
    seeds=(0, 1, 2),
)
