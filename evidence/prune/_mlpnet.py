"""MLPNet on MNIST, pruned from gradients of single images in one shot or in steps."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from thresher.assets import mnist
from thresher.prune import Recipe
from thresher.prune.gradual import prune_gradually

from .. import _models as models
from .._study import Draw, Study

#: Images of which each gives a gradient, and passes over all images in training.
GRADIENTS, _EPOCHS = 500, 5
SPARSITIES = (0.90, 0.95, 0.98)

PROTOCOL = (
    "MLPNet is 784-40-20-10, trained and measured on MNIST, other seeds in every draw; "
    f"{GRADIENTS} images give a gradient each. A layer is a block of the Fisher. Its ridge is a "
    "hundredth of its mean diagonal for every method, chosen of two on another seed; the papers "
    "choose one for each network."
)


@dataclass(frozen=True)
class Problem:
    """A trained network, the images to prune it by, and to what sparsity."""

    dense: nn.Module
    sample: list[tuple[torch.Tensor, torch.Tensor]]
    sparsity: float


def pruning(methods: Mapping[str, tuple[Recipe, int]]) -> Study:
    """Return a study of methods, each a recipe and in how many steps it prunes."""
    return Study(
        over=("sparsity",),
        settings={sparsity: sparsity for sparsity in SPARSITIES},
        draw=lambda sparsity, drawn: Problem(*_trained(drawn), sparsity),
        methods={name: _pruned(recipe, steps) for name, (recipe, steps) in methods.items()},
        measures={"wrong": lambda model, _: _wrong(model)},
        workers=2,
    )


def _pruned(recipe: Recipe, steps: int) -> Callable[[Problem], nn.Module]:
    def run(problem: Problem) -> nn.Module:
        model = copy.deepcopy(problem.dense)
        kept = 1 - problem.sparsity
        prune_gradually(
            model, recipe, problem.sample, density=kept, steps=steps, loss=_loss, progress=False
        )
        return model

    return run


def _loss(model: nn.Module, sample: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    images, labels = sample
    return nn.functional.cross_entropy(model(images), labels)


@torch.no_grad()
def _wrong(model: nn.Module) -> float:
    """Return the share of test images classified wrongly, in percent."""
    images, labels = _images()[1]
    return 100 * float((model(images).argmax(-1) != labels).float().mean())


@functools.lru_cache(maxsize=1)
def _trained(drawn: Draw) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return a network and the images to prune it by; the last draw's is kept."""
    torch.manual_seed(drawn.seed)
    model = nn.Sequential(
        nn.Linear(784, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 10)
    )
    images, labels = data = _images()[0]
    models.train_classifier(model, drawn.seed, drawn.amount(_EPOCHS), data=data)
    chosen = drawn.rng.permutation(len(images))[: drawn.amount(GRADIENTS, 20)]
    return model, [(images[i : i + 1], labels[i : i + 1]) for i in chosen]


@functools.cache
def _images() -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """Return MNIST's training and test images, flat and from 0 to 1, with their labels."""
    return tuple(
        (torch.from_numpy(images).float().flatten(1) / 255, torch.from_numpy(labels).long())
        for images, labels in mnist()
    )
