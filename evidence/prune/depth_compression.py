"""Depth compression against as few, and against random, activations dropped, at equal cost."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from thresher.core.evidence import Experiment
from thresher.parts.chains import chain_of
from thresher.prune.depth import DepthCompression, Plan, Span, merges, multiplications

from .. import _models as models
from .._study import Draw, Judged, Study, ahead, means

#: Channels, how many times as many each block widens them to, and blocks.
_CHANNELS, _WIDER, _BLOCKS = 8, 6, 2
#: Passes over the images: of the whole network, of what is left, and before a row is judged.
_EPOCHS, _TUNED, _BRIEFLY = 12, 4, 1
_OURS, _RIVALS = "depth compression", ("random", "fewest dropped")
_METHOD = DepthCompression()


# By identity, so that what is found of one draw can be remembered.
@dataclass(frozen=True, eq=False)
class _Network:
    model: nn.Sequential
    drawn: Draw

    @property
    def example(self) -> torch.Tensor:
        """One image."""
        return models.digits()[0][:1]

    @functools.cached_property
    def costs(self) -> dict[Span, float]:
        """What rows of convolutions cost."""
        return _METHOD.costs(self.model, self.example, multiplications)

    @functools.cached_property
    def importance(self) -> dict[Span, float]:
        """What is lost without the activations in each row, after a pass of training."""
        return _METHOD.importances(self.model, self.costs, self.briefly_trained)

    def briefly_trained(self, model: nn.Sequential) -> float:
        """Return the loss on the training images after few passes over them."""
        self.tune(model, self.drawn.amount(_BRIEFLY))
        images, labels = models.digits()[:2]
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(images), labels))

    def tune(self, model: nn.Sequential, epochs: int) -> None:
        """Train what is left of the network."""
        models.train_classifier(model.train(), self.drawn.seed, epochs, rate=1e-3)
        model.eval()

    def plan(self, importance: Mapping[Span, float], budget: float) -> Plan:
        """Return what is best within a share of the products."""
        chain = chain_of(self.model)
        count = len(chain.convolutions)
        whole = sum(self.costs[index, index + 1] for index in range(count))
        return _METHOD.best(chain, merges(count, self.costs), importance, budget * whole)


@dataclass(frozen=True)
class _Problem:
    budget: float
    network: _Network


def _untrained() -> nn.Sequential:
    """Return a network of blocks that widen, convolve by channel, and narrow."""
    wide = _CHANNELS * _WIDER
    modules: list[nn.Module] = [nn.Conv2d(1, _CHANNELS, 3, padding=1), nn.ReLU()]
    for _ in range(_BLOCKS):
        modules += [nn.Conv2d(_CHANNELS, wide, 1), nn.BatchNorm2d(wide), nn.ReLU()]
        by_channel = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        modules += [by_channel, nn.BatchNorm2d(wide), nn.ReLU()]
        modules += [nn.Conv2d(wide, _CHANNELS, 1), nn.BatchNorm2d(_CHANNELS), nn.ReLU()]
    modules += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * _CHANNELS, 10)]
    return nn.Sequential(*modules)


@functools.lru_cache(maxsize=1)
def _trained(drawn: Draw) -> _Network:
    torch.manual_seed(drawn.seed)
    model = _untrained().train()
    models.train_classifier(model, drawn.seed, drawn.amount(_EPOCHS))
    return _Network(model.eval(), drawn)


def _by_chance(network: _Network) -> dict[Span, float]:
    """Give every activation an importance of its own, at random."""
    count = len(chain_of(network.model).convolutions)
    generator = torch.Generator().manual_seed(network.drawn.seed)
    values = torch.rand(count, generator=generator).tolist()
    return {(start, stop): -sum(values[start : stop - 1]) for start, stop in network.costs}


def _fewest(network: _Network) -> dict[Span, float]:
    return {(start, stop): -float(stop - start - 1) for start, stop in network.costs}


def _shallower(
    importance: Callable[[_Network], Mapping[Span, float]],
) -> Callable[[_Problem], nn.Module]:
    """Return what is left by an importance of rows: trained, and then merged."""

    def run(problem: _Problem) -> nn.Module:
        network = problem.network
        plan = network.plan(importance(network), problem.budget)
        model = plan.loosened()
        network.tune(model, network.drawn.amount(_TUNED))
        return _METHOD.merge(plan, model)

    return run


def _dense(problem: _Problem) -> nn.Module:
    model = copy.deepcopy(problem.network.model)
    problem.network.tune(model, problem.network.drawn.amount(_TUNED))
    return model


@torch.no_grad()
def _products(model: nn.Module, problem: _Problem) -> float:
    """Return the products of the convolutions, relative to the network's."""
    counts = []
    for each in (model, problem.network.model):
        chain = chain_of(each)
        shapes = chain.shapes(problem.network.example)
        counts.append(sum(map(multiplications, chain.convolutions, shapes)))
    return counts[0] / counts[1]


experiment = Experiment(
    method=DepthCompression.card.name,
    claim="A network whose activations are dropped by dynamic programming within 85 % or 70 % of "
    "its products, trained and merged, is more accurate than where activations go at random "
    "within the same, and than where as few as possible do.",
    baseline="the same search with random importances, and with one that counts activations",
    run=Judged(
        study=Study(
            over=("budget",),
            settings={"85 %": 0.85, "70 %": 0.7},
            draw=lambda budget, drawn: _Problem(budget, _trained(drawn)),
            methods={
                _OURS: _shallower(lambda network: network.importance),
                "random": _shallower(_by_chance),
                "fewest dropped": _shallower(_fewest),
                "dense": _dense,
            },
            measures={
                "wrong": lambda model, _: 100 * (1 - models.accuracy(model)),
                "products": _products,
            },
            workers=2,
        ),
        rule=ahead("wrong", _OURS, *_RIVALS),
        view=means("wrong", "Test digits classified wrongly", "wrong (%)"),
        against={_OURS: _RIVALS},
        note=f"Slacks are points of accuracy. The network has {1 + 3 * _BLOCKS} convolutions, in "
        f"{_BLOCKS} blocks like MobileNetV2's but without skips, on images of 8 x 8; all are "
        f"trained for {_TUNED} passes after activations are dropped. The paper measures latency; "
        "products are counted here, since they are the same on every machine. Its rival, "
        "DepthShrinker, learns which activations go and is not rerun.",
        reason="at 85 % both searches find the same plan, of one row without its activations; at "
        "70 % four passes leave four times as many digits wrong as before, by any plan, and five "
        "networks differ by more than the plans do.",
    ),
    seeds=(0, 1, 2, 3, 4),
)
