"""ProSparse: a model with SiLU made one with ReLU, trained on by a penalty that rises in stages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from thresher.activate.networks import find_networks
from thresher.activate.prosparse import ProSparse
from thresher.core.evidence import Experiment

from .. import _text as text
from .._study import Draw, Found, Judged, Slacks, Study, ahead, every, means

_OURS, _SWAPPED, _FIXED, _DENSE = "ProSparse", "ReLU alone", "fixed factor", "SiLU"
#: Steps for which all of them train on, the penalty's factors, and the shares of these steps at
#: which its stages end.
_STEPS, _PEAKS, _STAGES = 200, (0.5, 1.0, 2.0), (0.1, 0.5, 1.0)
#: How far the loss may be above that of the model with SiLU to be comparable, in nats a character.
_NEAR, _RATE = 0.02, 1e-3


@dataclass(frozen=True)
class Answer:
    """What a model needs and what it costs."""

    density: float
    log_perplexity: float


@functools.lru_cache(maxsize=1)
def _pretrained(drawn: Draw) -> nn.Module:
    model = text.text_model(drawn.seed, "silu")
    text.train(model, drawn.seed, drawn.amount(text.STEPS, 5))
    return model


def _method(peaks: tuple[float, ...] | None, shifted: bool) -> Callable[[Draw], Answer]:
    """Return what trains on with ReLUs, by these factors; with SiLU where there are none."""

    def run(drawn: Draw) -> Answer:
        model = text.text_model(drawn.seed, "silu")
        model.load_state_dict(_pretrained(drawn).state_dict())
        networks, data = find_networks(model, text.windows()[:4]), text.windows(held_out=True)
        steps = drawn.amount(_STEPS, 4)
        stages = [max(k + 1, round(share * steps)) for k, share in enumerate(_STAGES)]
        method = ProSparse(peaks or (0.0,), stages[-len(peaks or (0.0,)) :])
        if peaks is None:
            text.train(model, drawn.seed + 1, steps, rate=_RATE)
        else:
            networks = method.substitute(model, text.windows()[:4])
            with method.penalised(networks) as penalty:
                text.train(model, drawn.seed + 1, steps, rate=_RATE, penalty=penalty)
        if shifted:
            method.shift(networks)
        # Networks are found in dense models, and those of before have the same layers.
        return Answer(text.density(networks, data[: text.HELD_OUT]), text.log_perplexity(model))

    return run


def _near(found: Found) -> Slacks:
    rise = found.of("log_perplexity", _OURS) - found.of("log_perplexity", _DENSE)
    return {f"log_perplexity at most {_NEAR} above SiLU's": float(_NEAR - rise.mean())}


experiment = Experiment(
    method=ProSparse.card.name,
    claim="A model with SiLU that is given ReLUs and trained on with a penalty that rises in "
    "stages has fewer active neurons than with ReLUs alone, a lower loss than by a factor as high "
    "throughout, and is comparable to the model with SiLU.",
    baseline="ReLUs alone; the highest factor throughout; SiLU; all trained on as long",
    run=Judged(
        study=Study(
            over=("model",),
            settings={"0.06 M weights": None},
            draw=lambda _, drawn: drawn,
            methods={
                _OURS: _method(_PEAKS, shifted=True),
                _SWAPPED: _method((0.0,), shifted=False),
                _FIXED: _method(_PEAKS[-1:], shifted=True),
                _DENSE: _method(None, shifted=False),
            },
            measures={
                "density": lambda answer, _: answer.density,
                "log_perplexity": lambda answer, _: answer.log_perplexity,
            },
            workers=2,
        ),
        rule=every(
            ahead("density", _OURS, _SWAPPED), ahead("log_perplexity", _OURS, _FIXED), _near
        ),
        view=means("density", "Share of active neurons", "active neurons"),
        against={_OURS: (_SWAPPED, _FIXED)},
        say=lambda found: (
            "Losses: "
            + ", ".join(
                f"{name} {float(found.mean('log_perplexity', name)[0]):.3f}"
                for name in found.study.methods
            )
            + " nats a character."
        ),
        note="Slacks are differences of shares, and of losses in nats a character. All train on "
        f"for {_STEPS} steps; factors of the mean magnitude are {_PEAKS}, at the ends of stages of "
        f"{_STAGES} of these steps. {text.PROTOCOL}",
        reason="200 steps are short for stages, and a model of 256 neurons in all needs them.",
    ),
)
