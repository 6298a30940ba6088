"""Týr against the same blocks with one share everywhere, FLAP, LLM-Pruner and Wanda."""

from __future__ import annotations

from thresher.core.evidence import Experiment
from thresher.parts.evolution import Evolution
from thresher.prune.flap import FLAP
from thresher.prune.slimgpt import SlimGPT
from thresher.prune.tyr import Tyr

from .._study import Judged, ahead, means
from .._units import LLM_PRUNER, PROTOCOL, WANDA, of_units

_TYR = Tyr(iterations=2, interval=0.25, search=Evolution(generations=2, offspring=6, most=2))
_SAME = SlimGPT(ranking=_TYR.ranking, spread=_TYR.spread, update=_TYR.update)
_RIVALS = ("one share everywhere", "FLAP", "LLM-Pruner", "Wanda")

experiment = Experiment(
    method=Tyr.card.name,
    claim="With 50 % of the weights of heads and neurons removed, and no training after it, "
    "perplexity is lower where what each block loses is searched for than where all lose one "
    "share, refitted likewise, and than with FLAP, LLM-Pruner's rule and Wanda's score.",
    baseline="the same local pruning with one share everywhere; FLAP, LLM-Pruner's rule and "
    "Wanda's score",
    run=Judged(
        study=of_units(
            {"50 %": 0.5},
            {
                "Týr": _TYR,
                "one share everywhere": _SAME,
                "FLAP": FLAP(),
                "LLM-Pruner": LLM_PRUNER,
                "Wanda": WANDA,
            },
            workers=2,
        ),
        rule=ahead("log_perplexity", "Týr", *_RIVALS),
        view=means("log_perplexity", "Perplexity without heads and neurons", "perplexity", True),
        against={"Týr": _RIVALS},
        note=f"Slacks are differences of log-perplexity. {PROTOCOL} The supernets of the search "
        f"are built on its own inputs. It has {_TYR.iterations} iterations of "
        f"{_TYR.search.generations} generations of {_TYR.search.offspring} offspring, judged by "
        f"{_TYR.search.most} windows at last, where the paper has 4 of 50 of 128 and 128 thousand "
        "tokens. SliceGPT, ZipLM and whole blocks, and models of billions of weights, are not "
        "rerun. Scales below 1 say nothing of the claim.",
        reason="two generations of six offspring move few units: the paper's budget is 1,000 times "
        "as large, and two draws are noisy.",
    ),
    seeds=(0, 1),
)
