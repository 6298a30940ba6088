"""CHESS against CATS: the same neurons' share, by thresholds of their own or by one for all."""

from __future__ import annotations

from thresher.activate.cats import CATS
from thresher.activate.chess import CHESS
from thresher.activate.granularity import Neurons
from thresher.core.evidence import Experiment

from .._activations import PROTOCOL, activations, sparse
from .._study import Judged, ahead, means

experiment = Experiment(
    method=CHESS.card.name,
    claim="At 30, 50 and 70 % of the neurons, thresholds for each channel, by what its gate scales "
    "on average, have a lower perplexity than one threshold on the gate.",
    baseline="CATS, one threshold on the gate",
    run=Judged(
        study=activations(
            "neurons",
            {"30 %": 0.3, "50 %": 0.5, "70 %": 0.7},
            {"CHESS": sparse(CHESS(granularity=Neurons())), "CATS": sparse(CATS())},
        ),
        rule=ahead("log_perplexity", "CHESS", "CATS"),
        view=means("log_perplexity", "Perplexity with sparse neurons", "perplexity", True),
        against={"CHESS": ("CATS",)},
        note="Slacks are differences of log-perplexity. The paper judges by the accuracy of eight "
        "tasks; attention, which it makes sparse besides, stays dense for both. "
        f"{PROTOCOL}",
    ),
)
