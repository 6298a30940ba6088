"""Semi-structured activation sparsity: networks trained with fewer positions, or narrower."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from thresher.activate.semi_structured import SemiStructuredActivations
from thresher.core.evidence import Experiment

from .. import _models as models
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, ahead_overall, every, means

_CHANNELS, _EPOCHS = (16, 32, 32), 20
#: Positions left out: the paper's networks go from a tenth to three tenths.
_SHARES, _DROP = (0.1, 0.2, 0.3), 1.1
_OURS, _AFTER, _NARROW, _DENSE = "positions", "positions, after training", "narrower", "dense"


@dataclass(frozen=True)
class Problem:
    """Share of positions that is left out, and the draw."""

    sparsity: float
    drawn: Draw


@dataclass(frozen=True)
class Answer:
    """Percent of held-out digits classified wrongly, and share of products computed."""

    wrong: float
    products: float


def _network(seed: int, channels: tuple[int, ...] = _CHANNELS) -> nn.Sequential:
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for into, out in zip((1, *channels), channels, strict=False):
        modules += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*modules, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * channels[-1], 10))


def _products(channels: tuple[int, ...]) -> int:
    return sum(i * o for i, o in zip((1, *channels), channels, strict=False))


def _wrong(model: nn.Module) -> float:
    return 100 * (1 - models.accuracy(model.eval()))


@functools.lru_cache(maxsize=1)
def _trained(drawn: Draw) -> nn.Sequential:
    model = _network(drawn.seed)
    models.train_classifier(model, drawn.seed, drawn.amount(_EPOCHS, 2))
    return model.eval()


def _ours(problem: Problem) -> Answer:
    model, drawn = _network(problem.drawn.seed), problem.drawn
    maps = SemiStructuredActivations(problem.sparsity).attach(model, models.digits()[0][:1])
    with maps.watched():
        models.train_classifier(model, drawn.seed, drawn.amount(_EPOCHS, 2), at=maps.step)
    density = maps.density
    maps.compact()
    return Answer(_wrong(model), density)


def _after(problem: Problem) -> Answer:
    """Return what leaving positions out does to a network that was trained without."""
    model = _network(problem.drawn.seed).eval()
    model.load_state_dict(_trained(problem.drawn).state_dict())
    images = models.digits()[0]
    maps = SemiStructuredActivations(problem.sparsity, settled=1.0).attach(model, images[:1])
    with maps.watched(), torch.no_grad():
        model(images)
    maps.step(1.0)
    return Answer(_wrong(model), maps.density)


def _narrow(problem: Problem) -> Answer:
    """Return what as many products give as channels: the widest network that has no more."""
    whole = _products(_CHANNELS)
    widths = [tuple(round(width * share / 64) for width in _CHANNELS) for share in range(64, 0, -1)]
    fitting = [w for w in widths if _products(w) <= (1 - problem.sparsity) * whole]
    model, drawn = _network(problem.drawn.seed, fitting[0]), problem.drawn
    models.train_classifier(model, drawn.seed, drawn.amount(_EPOCHS, 2))
    return Answer(_wrong(model), _products(fitting[0]) / whole)


def _dense(problem: Problem) -> Answer:
    return Answer(_wrong(_trained(problem.drawn)), 1.0)


def _near_dense(found: Found) -> Slacks:
    there = found.where(**{"left out": 0.2})
    excess = there.lead("wrong", _DENSE, _OURS) - _DROP
    return {f"20% left out: within {_DROP} points of dense": float(lower(-excess)[0])}


experiment = Experiment(
    method=SemiStructuredActivations.card.name,
    claim="A network of convolutions trained with a fifth of the positions left out loses no more "
    "than 1.1 points of accuracy; and over 10 to 30 % left out, fewer images are classified "
    "wrongly than if positions are left out after training, or than by a narrower network of as "
    "many products. (Latency, and both together, are not judged.)",
    baseline="positions left out after training; narrower networks trained as long; the dense one",
    run=Judged(
        study=Study(
            over=("left out",),
            settings={share: share for share in _SHARES},
            draw=Problem,
            methods={_OURS: _ours, _AFTER: _after, _NARROW: _narrow, _DENSE: _dense},
            measures={
                "wrong": lambda answer, _: answer.wrong,
                "products": lambda answer, _: answer.products,
            },
            workers=2,
        ),
        rule=every(_near_dense, ahead_overall("wrong", _OURS, _AFTER, _NARROW)),
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={_OURS: (_AFTER, _NARROW)},
        note="Slacks are points of accuracy. Three convolutions of 16, 32 and 32 channels and 3 "
        f"x 3 pixels classify digits of 8 x 8 pixels after {_EPOCHS} epochs, where the paper has "
        "ResNets and more on ImageNet and others; what is counted are the products of the "
        "convolutions. Narrower networks stand for the paper's structured pruning, each the widest "
        "that has no more products, all layers by the same factor.",
        reason="all networks that were trained with what they have get nearly all digits right; "
        "and the lead over those that were not goes from 0.2 to 7 points, so that its mean over "
        "three shares is uncertain.",
    ),
    seeds=(0, 1, 2, 3),
)
