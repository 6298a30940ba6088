"""Twins of a zoo of digit classifiers: magnitude pruning against variational dropout."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from thresher.core.evidence import Experiment
from thresher.parts.budgets import Global
from thresher.parts.scores import Magnitude
from thresher.prune import Recipe, prune
from thresher.prune.twins import Twins, compare_twins

from .. import _models as models
from .._statistics import lower
from .._study import Draw, Found, Judged, Slacks, Study, means

#: Below and above the crossing that the paper has at 80 %.
_LOW, _HIGH = (0.5, 0.7), (0.9, 0.95)
_EPOCHS, _VARIATIONAL = 20, 60
_MAGNITUDE, _DROPOUT = "magnitude", "variational dropout"


class VariationalLinear(nn.Linear):
    """A Linear whose weights have a variance each; what is mostly noise can go.

    Molchanov et al., Variational Dropout Sparsifies Deep Neural Networks (2017): additive noise
    (section 4.1), sampled in the outputs, and the approximate divergence of eq. 14.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.log_variance = nn.Parameter(torch.full_like(self.weight, -8.0))

    @property
    def log_alpha(self) -> torch.Tensor:
        """Logarithm of variance over squared weight, within eight of 0."""
        return (self.log_variance - (self.weight.square() + 1e-16).log()).clamp(-8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return outputs with noise while it trains."""
        mean = super().forward(x)
        if not self.training:
            return mean
        variance = functional.linear(x.square(), self.log_variance.exp())
        return mean + (variance + 1e-8).sqrt() * torch.randn_like(mean)

    def divergence(self) -> torch.Tensor:
        """Return the approximate divergence from the log-uniform prior, up to a constant."""
        log_alpha = self.log_alpha
        near = 0.63576 * torch.sigmoid(1.87320 + 1.48695 * log_alpha)
        return (0.5 * functional.softplus(-log_alpha) - near + 0.63576).sum()


@dataclass(frozen=True)
class _Problem:
    drawn: Draw
    sparsity: float


@functools.lru_cache(maxsize=1)
def _dense(drawn: Draw) -> nn.Module:
    """Return one of the zoo: width, rate and length of training are drawn."""
    rng = drawn.rng
    width, rate = int(rng.choice([32, 64, 128])), float(10 ** rng.uniform(-3.5, -2))
    torch.manual_seed(drawn.seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    models.train_classifier(model, drawn.seed, drawn.amount(int(rng.integers(5, 30))), rate)
    return model


def _by_magnitude(problem: _Problem) -> nn.Module:
    """Prune in three steps, with training after each."""
    model = copy.deepcopy(_dense(problem.drawn))
    for step in (1, 2, 3):
        kept = (1 - problem.sparsity) ** (step / 3)
        prune(model, Recipe(Magnitude(), budget=Global(), density=kept), progress=False)
        epochs, masks = problem.drawn.amount(_EPOCHS), models.masks_of(model)
        models.train_classifier(model, problem.drawn.seed, epochs, 1e-3, masks)
    return model


@functools.lru_cache(maxsize=1)
def _variational(drawn: Draw) -> nn.Module:
    """Train a model of the zoo on with a variance for every weight."""
    model = copy.deepcopy(_dense(drawn))
    for at, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            model[at] = VariationalLinear(layer)
    torch.manual_seed(drawn.seed)
    images, labels = models.digits()[:2]
    noisy = [layer for layer in model if isinstance(layer, VariationalLinear)]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    epochs = drawn.amount(_VARIATIONAL)
    model.train()
    for epoch in range(epochs):
        # The divergence comes in slowly, or all weights go at once.
        share = min(1.0, 2 * epoch / epochs) / len(images)
        for batch in torch.randperm(len(images)).split(128):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            loss = loss + share * sum(layer.divergence() for layer in noisy)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def _by_dropout(problem: _Problem) -> nn.Module:
    """Return what is left of a model without its noise."""
    model = copy.deepcopy(_variational(problem.drawn))
    _remove(model, problem.sparsity)
    return model


@torch.no_grad()
def _remove(model: nn.Module, sparsity: float) -> None:
    """Remove the weights that are noise the most, of all layers."""
    noisy = [layer for layer in model.modules() if isinstance(layer, VariationalLinear)]
    noise = torch.cat([layer.log_alpha.flatten() for layer in noisy])
    count = round(sparsity * len(noise))
    gone = torch.zeros_like(noise).index_fill(0, noise.argsort(descending=True)[:count], 1).bool()
    for layer, part in zip(noisy, gone.split([each.weight.numel() for each in noisy]), strict=True):
        layer.weight.masked_fill_(part.reshape(layer.weight.shape), 0)


def _twins(model: nn.Module, problem: _Problem) -> Twins:
    return compare_twins([_dense(problem.drawn)], [model], *models.digits()[2:])


def correlation(found: Found, method: str) -> np.ndarray:
    """Return the correlation of wrong digits with the dense models', two errors below, by setting.

    Of Fisher's z, over the draws, which are the population.
    """
    pairs = zip(found.of("wrong", "dense"), found.of("wrong", method), strict=True)
    of = np.array([np.corrcoef(first, second)[0, 1] for first, second in pairs])
    draws = found.of("wrong", method).shape[1]
    return np.tanh(np.arctanh(np.clip(of, -0.999999, 0.999999)) - 2 / math.sqrt(max(1, draws - 3)))


def _rule(found: Found) -> Slacks:
    leads = lower(found.lead("wrong", _MAGNITUDE, _DROPOUT))
    behind = lower(found.lead("wrong", _DROPOUT, _MAGNITUDE))
    slacks = {}
    for at, (sparsity,) in enumerate(found.study.keys):
        ahead, slack = (_MAGNITUDE, leads) if sparsity in _LOW else (_DROPOUT, behind)
        slacks[f"{sparsity:.0%}: {ahead} ahead"] = float(slack[at])
    for method in (_MAGNITUDE, _DROPOUT):
        for sparsity, slack in zip(_LOW, correlation(found, method), strict=False):
            slacks[f"{sparsity:.0%}: {method} goes with the dense models"] = float(slack)
    return slacks


experiment = Experiment(
    method=Twins.card.name,
    claim="Over a population of models, pruning by magnitude is more accurate than variational "
    "dropout up to 80 % sparsity and less accurate above, and the accuracy of sparse models goes "
    "with that of the dense ones they were.",
    baseline="each of the two against the other at the same sparsity; no correlation",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: sparsity for sparsity in (*_LOW, *_HIGH)},
            draw=lambda sparsity, drawn: _Problem(drawn, sparsity),
            methods={
                _MAGNITUDE: _by_magnitude,
                _DROPOUT: _by_dropout,
                "dense": lambda problem: _dense(problem.drawn),
            },
            measures={
                "wrong": lambda m, problem: 100 * (1 - _twins(m, problem).sparse_accuracy[0]),
                "disagreement": lambda m, problem: 100 * (1 - _twins(m, problem).agreement[0]),
            },
            workers=2,
        ),
        rule=_rule,
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={_MAGNITUDE: (_DROPOUT,), _DROPOUT: (_MAGNITUDE,)},
        note="Slacks are points of accuracy, and correlations. The zoo has MLPs with one hidden "
        "layer, of drawn width, rate and length of training, on images of 8 x 8, where the paper "
        f"has convolutional networks. Magnitude pruning takes three steps of {_EPOCHS} passes each "
        f"over all layers; variational dropout {_VARIATIONAL} passes, once for all sparsities, "
        "which remove the weights of largest log alpha where the paper has a threshold.",
    ),
    seeds=tuple(range(12)),
)
