"""R-Sparse against thresholds alone and against CATS, where as many weights are read."""

from __future__ import annotations

from thresher.activate.recipe import ActivationRecipe
from thresher.activate.rsparse import RSparse
from thresher.core.evidence import Experiment

from .._activations import PROTOCOL, activations, cats_reading
from .._study import Judged, ahead, means

experiment = Experiment(
    method=RSparse.card.name,
    claim="Where as many weights are read, 60 or 50 % of them, large inputs multiplied exactly and "
    "small ones by a matrix of low rank have a lower perplexity than large inputs alone.",
    baseline="TEAL's thresholds alone; CATS beside them where its neurons suffice",
    run=Judged(
        study=activations(
            "weights not read",
            {"40 %": 0.4, "50 %": 0.5},
            {
                "R-Sparse": lambda sparsity: RSparse(sparsity=sparsity),
                "TEAL": lambda sparsity: ActivationRecipe(sparsity=sparsity),
                "CATS": cats_reading,
            },
        ),
        rule=ahead("log_perplexity", "R-Sparse", "TEAL"),
        view=means("log_perplexity", "Perplexity with sparse activations", "perplexity", True),
        against={"R-Sparse": ("TEAL",)},
        note="Slacks are differences of log-perplexity. Of the weights that are read, 95 % belong "
        "to inputs and the rest to the factors, in every layer; the paper searches for a share of "
        f"each layer's own besides. {PROTOCOL}",
        reason="factors of a twentieth of the reads, of rank 3 to 12, hold 6 to 19 % of the "
        "squared weights of a matrix beyond the first block, and cost kept inputs.",
    ),
)
