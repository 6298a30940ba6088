"""WINA against TEAL: the same levels and the same rule, with and without the weights' norms."""

from __future__ import annotations

from thresher.activate.recipe import ActivationRecipe
from thresher.activate.wina import WINA
from thresher.core.evidence import Experiment

from .._activations import PROTOCOL, activations, sparse
from .._study import Judged, ahead, means

experiment = Experiment(
    method=WINA.card.name,
    claim="At the same sparsity of every layer's inputs, 25, 40, 50 and 65 %, choosing them by "
    "magnitude times the norm of their weights has a lower perplexity than by magnitude alone.",
    baseline="TEAL's magnitudes, at the same levels and by the same rule",
    run=Judged(
        study=activations(
            "sparsity",
            {"25 %": 0.25, "40 %": 0.4, "50 %": 0.5, "65 %": 0.65},
            {"WINA": sparse(WINA()), "TEAL": sparse(ActivationRecipe())},
        ),
        rule=ahead("log_perplexity", "WINA", "TEAL"),
        view=means("log_perplexity", "Perplexity with sparse activations", "perplexity", True),
        against={"WINA": ("TEAL",)},
        note="Slacks are differences of log-perplexity. The paper judges by the mean accuracy of "
        "tasks, keeps the same number of inputs for every token, and first rotates the weights so "
        "that their columns are orthogonal; here thresholds are calibrated, for both alike, and "
        f"nothing is rotated. {PROTOCOL}",
    ),
)
