"""LAMP against other ways to divide one sparsity among layers, on a CNN of digits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from thresher.core.evidence import Earlier, Experiment
from thresher.parts.budgets import ERK, Budget, Global, Uniform
from thresher.parts.coverage import find_layers
from thresher.parts.scores import Magnitude
from thresher.prune import Recipe, prune
from thresher.prune.lamp import LAMPPruning

from .. import _models as models
from .._statistics import ERRORS, lower
from .._study import Draw, Found, Judged, Slacks, Study, means

_SPARSITIES = (0.90, 0.95, 0.98)
_RIVALS: dict[str, Budget] = {"global": Global(), "uniform": Uniform(), "ERK": ERK()}
#: What "uniform+" keeps of the last layer at least; the first convolution stays dense.
_LAST = 0.2


@dataclass(frozen=True)
class _Problem:
    dense: nn.Module
    sparsity: float
    drawn: Draw


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@functools.lru_cache(maxsize=1)
def _trained(drawn: Draw) -> nn.Module:
    dense = _network(drawn.seed)
    models.train_classifier(dense, drawn.seed, drawn.amount(30))
    return dense


def _draw(sparsity: float, drawn: Draw) -> _Problem:
    return _Problem(_trained(drawn), sparsity, drawn)


def _tuned(problem: _Problem, prune_in_place: Callable[[nn.Module, float], None]) -> nn.Module:
    model = copy.deepcopy(problem.dense)
    prune_in_place(model, 1 - problem.sparsity)
    drawn = problem.drawn
    masks = models.masks_of(model)
    models.train_classifier(model, drawn.seed, drawn.amount(15), masks=masks)
    return model


def _by(budget: Budget) -> Callable[[_Problem], nn.Module]:
    def divide(model: nn.Module, density: float) -> None:
        prune(model, Recipe(Magnitude(), budget=budget, density=density), progress=False)

    return lambda problem: _tuned(problem, divide)


def _uniform_plus(model: nn.Module, density: float) -> None:
    """Uniform, but the first convolution stays dense and the last layer keeps a fifth."""
    sizes = {layer.name: layer.weight.numel() for layer in find_layers(model)}
    first, last = next(iter(sizes)), list(sizes)[-1]
    kept = density * sum(sizes.values()) - sizes[first] - _LAST * sizes[last]
    middle = sum(sizes.values()) - sizes[first] - sizes[last]
    for excluded, share in (((first, last), kept / middle), ((*sizes,)[:-1], _LAST)):
        recipe = Recipe(Magnitude(), density=share)
        prune(model, recipe, exclude=list(excluded), progress=False)


def _sparsest(model: nn.Module, _: _Problem) -> float:
    return min(float((layer.weight != 0).float().mean()) for layer in find_layers(model))


def _rule(found: Found) -> Slacks:
    parts = {}
    for rival in (*_RIVALS, "uniform+"):
        lead = found.lead("wrong", "LAMP", rival)
        parts[f"ahead of {rival} over all sparsities"] = float(lower(lead.mean(axis=0)))
        for sparsity, at in zip(_SPARSITIES, lead, strict=True):
            # As far above as the mean can be by noise.
            parts[f"not behind {rival} at {sparsity:.0%}"] = float(2 * at.mean() - lower(at))
    return parts


experiment = Experiment(
    method=LAMPPruning.card.name,
    claim="At the same total sparsity, LAMP consistently gives better accuracy after fine-tuning "
    "than other ways to divide it among layers. (Judged: one-shot pruning, then fine-tuning; the "
    "iterative and the weight-rewinding setups are not rerun.)",
    baseline="magnitude pruning with global, uniform, uniform+ (first layer dense, a fifth of the "
    "last kept) and ERK budgets, same fine-tuning",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: sparsity for sparsity in _SPARSITIES},
            draw=_draw,
            methods={"LAMP": _by(LAMPPruning().budget)}
            | {name: _by(budget) for name, budget in _RIVALS.items()}
            | {"uniform+": lambda problem: _tuned(problem, _uniform_plus)},
            measures={
                "wrong": lambda model, _: 100 * (1 - models.accuracy(model)),
                "sparsest_layer": _sparsest,
            },
            workers=2,
        ),
        rule=_rule,
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={"LAMP": (*_RIVALS, "uniform+")},
        note="Slacks are points of accuracy. Consistently better is read as ahead of every rival "
        f"over all sparsities by more than {ERRORS:g} standard errors, and behind none at any by "
        "as much. The network is small, and its images 8 x 8.",
    ),
    seeds=(0, 1, 2, 3, 4),
    earlier=(
        Earlier(
            rule="over all sparsities at once, ahead of the strongest of global, uniform and ERK "
            "by more than one standard error over five seeds",
            reproduced=True,
            margin=8.1396,
            why="one standard error is passed by noise in a fifth of all runs, and 98 % alone "
            "could decide; the paper's fourth rival was missing",
        ),
    ),
)
