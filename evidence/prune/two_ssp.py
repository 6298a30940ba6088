"""2SSP against whole blocks (ShortGPT), width alone, and heads and neurons to first order."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.parts.rankings import ByScore
from thresher.parts.scores import Random
from thresher.prune.two_ssp import TwoSSP

from .._study import Judged, ahead, means
from .._units import PROTOCOL, of_units, short_gpt

_RIVALS = ("ShortGPT", "random neurons")
#: With so small an alpha no attention goes.
_NONE = 1e-6

experiment = Experiment(
    method=TwoSSP.card.name,
    claim="With 37.5 % or 50 % of the weights removed, perplexity is lower where the neurons that "
    "are active least go and then whole attentions by the loss, than where whole blocks go by how "
    "little they change (ShortGPT), and than where neurons alone go at random.",
    baseline="whole blocks by the change of the states (ShortGPT's rule), and neurons at random",
    run=Judged(
        study=of_units(
            {"37.5 %": 0.375, "50 %": 0.5},
            {
                "2SSP": TwoSSP(),
                "ShortGPT": short_gpt,
                "random neurons": TwoSSP(ranking=ByScore(Random()), alpha=_NONE),
                "width alone": TwoSSP(alpha=_NONE),
            },
        ),
        rule=ahead("log_perplexity", "2SSP", *_RIVALS),
        view=means("log_perplexity", "Perplexity of smaller models", "perplexity", True),
        against={"2SSP": _RIVALS},
        note=f"Slacks are differences of log-perplexity. {PROTOCOL} Of its eight blocks 2SSP takes "
        "one and two attentions, by the loss of one window; width alone takes none. SliceGPT, "
        "EvoPress and BlockPruner, and the time they take, are not rerun. Scales below 1 say "
        "nothing of the claim.",
    ),
    seeds=(0, 1, 2),
)
