"""DEFT: low-rank fine-tuning on another text, with and without a loss on active neurons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from thresher.activate.deft import DEFT
from thresher.activate.networks import find_networks
from thresher.core.evidence import Experiment

from .. import _models as models
from .. import _text as text
from .._study import Draw, Found, Judged, Slacks, Study, ahead, means

_OURS, _RIVAL = "DEFT", "fine-tuning alone"
#: Steps of fine-tuning, the rank of what is trained, and its rate.
_STEPS, _RANK, _RATE = 150, 8, 5e-3
#: A neuron of less is inactive; how far the loss may rise to be competitive, in nats a character.
_ABOVE, _NEAR = {"ReLU": 0.0, "GELU": 0.01}, 0.02


class LowRank(nn.Module):
    """A frozen layer with a trained matrix of low rank added, at first zero."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.first = nn.Linear(layer.in_features, _RANK, bias=False)
        self.last = nn.Linear(_RANK, layer.out_features, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of both."""
        return self.layer(x) + self.last(self.first(x))


@dataclass(frozen=True)
class Problem:
    """An activation, and the draw."""

    activation: str
    drawn: Draw


@dataclass(frozen=True)
class Answer:
    """What a model needs and what it costs."""

    density: float
    log_perplexity: float


@functools.lru_cache(maxsize=1)
def _pretrained(problem: Problem) -> nn.Module:
    model = text.text_model(problem.drawn.seed, problem.activation.lower())
    text.train(model, problem.drawn.seed, problem.drawn.amount(text.STEPS, 5))
    return model


@functools.cache
def _capitals() -> torch.Tensor:
    """Return the id of every character's capital."""
    codes = models.character_codes()
    places = {code: place for place, code in enumerate(codes)}
    return torch.tensor([places.get(ord(chr(code).upper()), k) for k, code in enumerate(codes)])


def _method(weight: float) -> Callable[[Problem], Answer]:
    def run(problem: Problem) -> Answer:
        drawn = problem.drawn
        model = text.text_model(drawn.seed, problem.activation.lower())
        model.load_state_dict(_pretrained(problem).state_dict())
        model.requires_grad_(False)
        networks = find_networks(model, text.windows()[:4])
        torch.manual_seed(drawn.seed)
        for block in model.model.layers:
            for holder, names in ((block.mlp, ("gate_proj", "up_proj")),
                                  (block.self_attn, ("q_proj", "v_proj"))):  # fmt: skip
                for name in names:
                    setattr(holder, name, LowRank(getattr(holder, name)))
        few = [p for p in model.parameters() if p.requires_grad]
        with DEFT(weight).penalised_networks(networks) as penalty:
            text.train(
                model,
                drawn.seed + 1,
                drawn.amount(_STEPS, 4),
                rate=_RATE,
                data=_capitals()[text.windows()],
                parameters=few,
                penalty=lambda step: penalty(),
            )
        held_out = _capitals()[text.windows(held_out=True)][: text.HELD_OUT]
        share = text.density(networks, held_out, _ABOVE[problem.activation])
        return Answer(share, text.log_perplexity(model, held_out))

    return run


_below = ahead("density", _OURS, _RIVAL)


def _rule(found: Found) -> Slacks:
    rise = found.of("log_perplexity", _OURS) - found.of("log_perplexity", _RIVAL)
    near = {
        f"{key[0]}: log_perplexity at most {_NEAR} above": float(_NEAR - of_setting.mean())
        for key, of_setting in zip(found.study.keys, rise, strict=True)
    }
    return {**_below(found), **near}


experiment = Experiment(
    method=DEFT.card.name,
    claim="With a loss on the density of activations, fine-tuning matrices of low rank comes to "
    "fewer active neurons at a competitive loss, in models with ReLU and with GELU.",
    baseline="the same fine-tuning without that loss",
    run=Judged(
        study=Study(
            over=("activation",),
            settings={name: name for name in _ABOVE},
            draw=Problem,
            methods={_OURS: _method(0.3), _RIVAL: _method(0.0)},
            measures={
                "density": lambda answer, _: answer.density,
                "log_perplexity": lambda answer, _: answer.log_perplexity,
            },
            workers=2,
        ),
        rule=_rule,
        view=means("density", "Share of active neurons", "active neurons"),
        against={_OURS: (_RIVAL,)},
        say=lambda found: (
            "Losses: "
            + "; ".join(
                f"{name} " + ", ".join(f"{v:.3f}" for v in found.mean("log_perplexity", name))
                for name in found.study.methods
            )
            + " nats a character."
        ),
        note="Slacks are differences of shares, and of losses in nats a character. The models "
        f"learn the same text in capitals, by matrices of rank {_RANK} added to four projections "
        f"of every block, for {_STEPS} steps; the density weighs 0.3. With GELU a neuron is "
        f"inactive below {_ABOVE['GELU']}. {text.PROTOCOL}",
        reason="a density that weighs as much as a tenth of the loss costs more than the paper's.",
    ),
)
