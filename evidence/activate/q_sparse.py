"""Q-Sparse: models trained with the largest inputs alone, by gradient, against dense ones."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from thresher.activate import activate
from thresher.activate.q_sparse import QSparse
from thresher.core.evidence import Experiment
from thresher.parts.activations.rules import PerToken

from .. import _text as text
from .._study import Draw, Found, Judged, Slacks, Study, ahead, means

_OURS, _MASKED, _AFTER, _DENSE = "Q-Sparse", "gradient of the mask", "dropped after", "dense"
#: How far the loss may be above the dense model's to be comparable, in nats a character.
_NEAR = 0.02


@functools.lru_cache(maxsize=1)
def _dense(drawn: Draw) -> nn.Module:
    model = text.text_model(drawn.seed, "relu2")
    text.train(model, drawn.seed, drawn.amount(text.STEPS, 5))
    return model


def _sparse(model: nn.Module, sparsity: float, straight_through: bool) -> nn.Module:
    recipe = QSparse(rule=PerToken(straight_through), sparsity=sparsity)
    return activate(model, recipe, text.windows()[:4], progress=False)


def _trained(straight_through: bool) -> Callable[[tuple[float, Draw]], nn.Module]:
    def run(problem: tuple[float, Draw]) -> nn.Module:
        sparsity, drawn = problem
        model = _sparse(text.text_model(drawn.seed, "relu2"), sparsity, straight_through)
        text.train(model, drawn.seed, drawn.amount(text.STEPS, 5))
        return model

    return run


def _after(problem: tuple[float, Draw]) -> float:
    sparsity, drawn = problem
    trained = _dense(drawn)
    model = text.text_model(drawn.seed, "relu2")
    model.load_state_dict(trained.state_dict())
    return text.log_perplexity(_sparse(model, sparsity, straight_through=True))


def _loss(answer: nn.Module | float, _: object) -> float:
    return text.log_perplexity(answer) if isinstance(answer, nn.Module) else answer


_below = ahead("log_perplexity", _OURS, _MASKED, _AFTER)


def _rule(found: Found) -> Slacks:
    rise = found.of("log_perplexity", _OURS) - found.of("log_perplexity", _DENSE)
    return {**_below(found), f"at most {_NEAR} above dense": float(_NEAR - rise.mean())}


experiment = Experiment(
    method=QSparse.card.name,
    claim="Trained from scratch with half of every projection's inputs, by gradients that go "
    "straight through, a model is comparable to the dense one, and better than with the gradient "
    "of the mask or with inputs dropped after dense training. (Scaling laws and weights of 1.58 "
    "bits are not judged.)",
    baseline="the gradient of the mask; the same inputs dropped after dense training; dense",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={"50 %": 0.5},
            draw=lambda sparsity, drawn: (sparsity, drawn),
            methods={
                _OURS: _trained(True),
                _MASKED: _trained(False),
                _AFTER: _after,
                _DENSE: lambda problem: _dense(problem[1]),
            },
            measures={"log_perplexity": _loss},
            workers=2,
        ),
        rule=_rule,
        view=means("log_perplexity", "Perplexity by character", "perplexity", True),
        against={_OURS: (_MASKED, _AFTER)},
        note="Slacks are differences of loss in nats a character. Feed-forward networks have gates "
        f"by squared ReLU, the dense model's too. {text.PROTOCOL}",
        reason="projections of 48 inputs have less to spare than those of thousands, and masks of "
        "a few hundred steps leave no unit dead.",
    ),
)
