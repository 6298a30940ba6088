"""How many parameters a pruned network has by its sketches, and by bounds from norms."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass

import torch
from torch import nn

from thresher.core.evidence import Experiment
from thresher.parts.coverage import find_layers
from thresher.parts.scores import Magnitude
from thresher.prune import Recipe, prune
from thresher.prune.pruning_bound import PruningBound, pruning_bound

from .. import _models as models
from .._study import Draw, Judged, Study, ahead, means

_SPARSITIES = (0.5, 0.8, 0.9)
_EPOCHS = 10


@dataclass(frozen=True)
class _Problem:
    """A pruned network, retrained, and its margin on the samples that it was trained on."""

    model: nn.Module
    margin: float
    bound: PruningBound


@functools.lru_cache(maxsize=1)
def _dense(drawn: Draw) -> nn.Module:
    model = models.perceptron(drawn.seed)
    models.train_classifier(model, drawn.seed, drawn.amount(30))
    return model


@torch.no_grad()
def _margin(model: nn.Module) -> float:
    """Return the margin that nine in ten training images have at least."""
    images, labels = models.digits()[:2]
    logits = model(images)
    right = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    others = logits.scatter(-1, labels.unsqueeze(-1), -math.inf).amax(-1)
    return max(1e-6, float((right - others).quantile(0.1)))


def _draw(sparsity: float, drawn: Draw) -> _Problem:
    model = copy.deepcopy(_dense(drawn))
    prune(model, Recipe(Magnitude(), density=1 - sparsity), progress=False)
    masks = models.masks_of(model)
    models.train_classifier(model, drawn.seed, drawn.amount(_EPOCHS), 1e-3, masks)
    # Of the network against itself: the numbers that describe it, not what pruning has changed.
    return _Problem(model, _margin(model), pruning_bound(model, model, *models.digits()[:2]))


def _norms(problem: _Problem) -> tuple[list[float], list[float], list[float], list[int]]:
    """Return spectral, Frobenius and (2, 1) norms of the layers, and their widths."""
    matrices = [layer.matrix() for layer in find_layers(problem.model)]
    spectral = [float(torch.linalg.matrix_norm(m, 2)) for m in matrices]
    frobenius = [float(m.norm()) for m in matrices]
    sums = [float(m.norm(dim=1).sum()) for m in matrices]
    return spectral, frobenius, sums, [max(m.shape) for m in matrices]


def _sizes(problem: _Problem) -> float:
    """Return the norm of the largest image, squared, over the squared margin."""
    images = models.digits()[0].flatten(1)
    return float(images.norm(dim=1).max()) ** 2 / problem.margin**2


@torch.no_grad()
def _by_frobenius(problem: _Problem) -> float:
    _, frobenius, _, _ = _norms(problem)
    return _sizes(problem) * math.prod(each**2 for each in frobenius)


@torch.no_grad()
def _by_sums(problem: _Problem) -> float:
    spectral, _, sums, _ = _norms(problem)
    shares = sum((one / of) ** (2 / 3) for one, of in zip(sums, spectral, strict=True)) ** 3
    return _sizes(problem) * math.prod(each**2 for each in spectral) * shares


@torch.no_grad()
def _by_spectrum(problem: _Problem) -> float:
    spectral, frobenius, _, widths = _norms(problem)
    shares = sum((one / of) ** 2 for one, of in zip(frobenius, spectral, strict=True))
    product = math.prod(each**2 for each in spectral)
    return _sizes(problem) * product * shares * max(widths) * len(widths) ** 2


def _entries(problem: _Problem) -> float:
    return float(sum(layer.weight.numel() for layer in find_layers(problem.model)))


_RIVALS = {
    "all entries": _entries,
    "Frobenius norms": _by_frobenius,
    "spectral and (2, 1) norms": _by_sums,
    "spectral and Frobenius norms": _by_spectrum,
}

experiment = Experiment(
    method=PruningBound.card.name,
    claim="Sketches of magnitude-pruned layers give a bound on generalisation that is tighter than "
    "those from norms, for ReLU networks. (Judged too: than that of the network before pruning.)",
    baseline="the number of all entries, and bounds from products of norms: Neyshabur et al. "
    "(2015), Bartlett et al. (2017), Neyshabur et al. (2018)",
    run=Judged(
        study=Study(
            over=("sparsity",),
            settings={sparsity: sparsity for sparsity in _SPARSITIES},
            draw=_draw,
            methods={"sketches": lambda problem: float(problem.bound.parameters)} | _RIVALS,
            measures={"log_parameters": lambda answer, _: math.log(answer)},
            workers=2,
        ),
        rule=ahead("log_parameters", "sketches", *_RIVALS),
        view=means("log_parameters", "Effective parameters", "parameters", exponential=True),
        against={"sketches": tuple(_RIVALS)},
        note="What stands under the root of each bound over the number of samples, without "
        "constants and logarithms, as such bounds are compared; slacks are differences of its "
        "logarithm. None says anything of so few samples: the network has more parameters than "
        "there are images. Margins are those that nine in ten training images have. The "
        "paper's constants were not at hand and are 1; MNIST, CIFAR-10 and iterative pruning are "
        "not rerun.",
        reason="A sketch of sqrt(j p) log p on each side is smaller than a layer only where j is "
        "below p / log^2 p, 5 of 128: at such widths the fullest row has more (known).",
    ),
    seeds=(0, 1, 2, 3, 4),
)
