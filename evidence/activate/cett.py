"""ReLU^2 against other activations: neurons needed for a loss, and how they change by token."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from thresher.activate.cett import CETT
from thresher.activate.sparsing_law import AffordableSparsity, SparsingLaw
from thresher.core.evidence import Experiment

from .. import _text as text
from .._study import Draw, Found, Judged, Study, ahead, every, means

_MODELS = {
    "ReLU^2": ("relu2", False),
    "ReLU": ("relu", False),
    "ReGLU": ("relu", True),
    "SwiGLU": ("silu", True),
}
_OURS, _RIVALS = "ReLU^2", tuple(name for name in _MODELS if name != "ReLU^2")
#: Held-out windows that thresholds are found on: all their tokens, one after another.
_WATCHED = 8


@dataclass(frozen=True)
class Problem:
    """By how much perplexity may rise, and the draw."""

    rise: float
    drawn: Draw


@functools.lru_cache(maxsize=len(_MODELS))
def _trained(drawn: Draw, name: str) -> nn.Module:
    model = text.text_model(drawn.seed, *_MODELS[name])
    text.train(model, drawn.seed, drawn.amount(text.STEPS, 5))
    return model


def _method(name: str) -> Callable[[Problem], AffordableSparsity]:
    def run(problem: Problem) -> AffordableSparsity:
        data = text.windows(held_out=True)[-_WATCHED:]
        law = SparsingLaw(problem.rise, steps=8)
        return law.measure(_trained(problem.drawn, name), text.log_perplexity, data)

    return run


def _turnover(answer: AffordableSparsity, _: Problem) -> float:
    """Return the share of a token's active neurons that were not active for the one before."""
    shares = []
    for active in answer.truncation.active:
        by_token = active.reshape(_WATCHED, -1, active.shape[-1])
        new = (by_token[:, 1:] & ~by_token[:, :-1]).sum()
        shares.append(float(new / by_token[:, 1:].sum().clamp(min=1)))
    return float(torch.tensor(shares).mean())


def _at_twenty(found: Found) -> str:
    shown = {name: float(found.of("density_at_cett", name).mean()) for name in _MODELS}
    said = ", ".join(f"{name} {share:.0%}" for name, share in shown.items())
    loss = ", ".join(f"{n} {float(found.of('log_perplexity', n).mean()):.3f}" for n in _MODELS)
    return f"Active neurons at an error of 0.2: {said}; losses of the dense models: {loss}."


experiment = Experiment(
    method=CETT.card.name,
    claim="For perplexity that rises by 1 or 5 %, a model with squared ReLUs needs fewer of its "
    "neurons than those with ReLU, ReGLU and SwiGLU, and they change less from token to token. "
    "(How well a predictor guesses them is not judged.)",
    baseline="models of as many weights with ReLU, ReGLU and SwiGLU",
    run=Judged(
        study=Study(
            over=("rise",),
            settings={"1 %": 0.01, "5 %": 0.05},
            draw=Problem,
            methods={name: _method(name) for name in _MODELS},
            measures={
                "density": lambda answer, _: 1 - answer.sparsity,
                "turnover": _turnover,
                "density_at_cett": lambda a, _: 1 - CETT().of(a.truncation.seen).sparsity,
                "log_perplexity": lambda answer, _: answer.dense,
            },
            workers=2,
        ),
        rule=every(ahead("density", _OURS, *_RIVALS), ahead("turnover", _OURS, *_RIVALS)),
        view=means("density", "Share of neurons that are needed", "active neurons"),
        against={_OURS: _RIVALS},
        say=_at_twenty,
        note="Slacks are differences of shares: of neurons that are active, and of those active "
        f"for a token that were not for the one before. {text.PROTOCOL}",
        reason="where fewer neurons are active, fewer of them are the next token's too.",
    ),
)
