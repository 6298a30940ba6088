"""The sparsing law: active neurons while ReLU and SiLU models see more data."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from thresher.activate.sparsing_law import SparsingLaw
from thresher.core.evidence import Experiment

from .. import _text as text
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

#: Shares of the training after which models are measured.
_SHARES = (0.25, 0.5, 1.0, 2.0)
_MODELS = {"ReLU": "relu", "SiLU": "silu"}


@dataclass(frozen=True)
class Problem:
    """After how much training, and the draw."""

    share: float
    drawn: Draw


@functools.lru_cache(maxsize=len(_MODELS))
def _trained(drawn: Draw, name: str) -> dict[float, float]:
    """Return the share of active neurons where perplexity rises by 1 %, by share of the data."""
    model = text.text_model(drawn.seed, _MODELS[name])
    at = {drawn.amount(share * text.STEPS, k + 1): share for k, share in enumerate(_SHARES)}
    data, found = text.windows(held_out=True)[-8:], {}

    def measure(step: int) -> None:
        if step in at:
            law = SparsingLaw(rise=0.01, steps=7)
            model.eval()
            found[at[step]] = 1 - law.measure(model, text.log_perplexity, data).sparsity
            model.train()

    text.train(model, drawn.seed, max(at), at=measure)
    return found


def _rule(found: Found) -> Slacks:
    change = {name: _last_over_first(found, name) for name in _MODELS}
    return {
        "ReLU: fewer neurons active with more data": float(lower(-change["ReLU"])),
        "SiLU: more neurons active with more data": float(lower(change["SiLU"])),
    }


def _last_over_first(found: Found, name: str) -> np.ndarray:
    """Return the logarithm of by how much the share changes from first to last, a draw each."""
    values = found.of("density", name)
    return np.log(values[-1] / values[0])


experiment = Experiment(
    method=SparsingLaw.card.name,
    claim="With more training data the share of neurons that a rise of perplexity by 1 % needs "
    "falls in models with ReLU and rises in models with SiLU. (That these are power laws, and what "
    "depth and scale do, is not judged.)",
    baseline="each of the two against the other's trend",
    run=Judged(
        study=Study(
            over=("data",),
            settings={share: share for share in _SHARES},
            draw=Problem,
            methods={
                name: lambda problem, name=name: _trained(problem.drawn, name)[problem.share]
                for name in _MODELS
            },
            measures={"density": lambda density, _: density},
            workers=2,
        ),
        rule=_rule,
        view=means("density", "Share of neurons active at PPL-1%", "active neurons"),
        against={"ReLU": ("SiLU",)},
        note="Slacks are logarithms of ratios, of the most data to the least. Both models have "
        "gates; data is a multiple of the protocol's steps, and the learning rate rises and falls "
        f"once over all of it. {text.PROTOCOL}",
        reason="the paper's trends are of billions of tokens, these of two million characters.",
    ),
)
