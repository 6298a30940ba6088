"""SparseLLM: the layers of a feed-forward network pruned for each other, not each by itself."""

from __future__ import annotations

__all__ = ["SparseLLM"]

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import linear, relu

from ..core.card import Card, Catalogued
from ..core.errors import OptionError
from ..core.options import check_whole
from ..parts import scores, updates
from ..parts.chooser import MaskChooser
from ..parts.input_rows import InputRows
from ..parts.layers import bias_of
from ..parts.moments import Gram, Moment, backward
from ..parts.statistics import Statistics
from ..stream.feedforward import Activation, FeedForward, find_feed_forward
from ..stream.ranks import gathered
from ..stream.visit import Visit
from .recipe import Recipe

#: Ridge on a layer's way to its target, relative to the mean diagonal of the second moment.
_DAMPING = 0.01
#: Steps towards a better input of an activation, and the parts of a step that are tried.
_STEPS, _PARTS = 2, (1.0, 0.25)
_Pruned = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class SparseLLM(Recipe, Catalogued):
    """Prune a feed-forward network's layers in turn, each towards what the others make of it.

    Networks are recognised by what their layers do to the data, gated ones too. All other layers,
    and those of blocks in which none is recognised, are pruned by the update alone, as SparseGPT
    does. So is every network first; it keeps the weights of the sweep after which its outputs
    are nearest to the dense ones. A sweep takes several times as long as that first pruning.

    Parameters
    ----------
    score, pattern, budget, update, density
        See :class:`~thresher.prune.recipe.Recipe`. Stages and token weights are not for it: the
        layers of a network are pruned together, on inputs as they are.
    sweeps : int, default 4
        Over the layers and auxiliary variables of a network.

    Raises
    ------
    OptionError
        If the sweeps are no whole number above 0, or stages or token weights are asked for.

    Notes
    -----
    With x the inputs of a network on rows of the data, y its dense outputs, and one variable for
    what each of its layers is to give, z of `up`, s of `gate` (none: s = z, and the product falls
    away) and p what goes into `down`, the sum::

        |U x - z|^2 + |G x - s|^2 + |p - f(s) z|^2 + |D p - y|^2

    is lowered for one after another: U, G and D by pruning the weights that are nearest to their
    targets, kept where they lower it, p in closed form, z and s value by value.

    References
    ----------
    Bai et al., SparseLLM (2024), section 3, with the equal weights of all terms that its authors'
    settings have. The paper keeps the last sweep.
    """

    score: scores.Score = scores.OBSSaliency()
    update: updates.Update = updates.OBS()
    sweeps: int = 4
    card = Card(
        name="sparsellm",
        title="SparseLLM: Towards Global Pruning for Pre-trained Language Models",
        authors="Guangji Bai et al.",
        year=2024,
        arxiv="2402.17946",
        summary="Prune a feed-forward network's layers towards each other by auxiliary variables.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("sweeps", self.sweeps)
        if self.stages or self.tokens.by_attention:
            option = "stages" if self.stages else "tokens"
            raise OptionError(
                f"{option} is not for 'sparsellm', which prunes the layers of a network together, "
                "on inputs as they are; leave it out, or choose 'sparsegpt'"
            )

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The moments of score and update, and rows of the inputs."""
        return super().needs | {Gram, InputRows}

    def together(
        self, visit: Visit, statistics: Mapping[str, Statistics], counts: Mapping[str, int]
    ) -> dict[str, _Pruned]:
        """Prune the feed-forward networks of a unit; see :class:`Recipe`."""
        networks = find_feed_forward(visit)
        if not networks and sum(layer.is_called for layer in visit.unit.layers) > 1:
            warnings.warn(
                "no feed-forward network is recognised in some blocks, whose layers are pruned "
                "each by itself, as 'sparsegpt' does",
                stacklevel=2,
            )
        return self.prune_networks(networks, statistics, counts)

    def prune_networks(
        self,
        networks: Sequence[FeedForward],
        statistics: Mapping[str, Statistics],
        counts: Mapping[str, int],
    ) -> dict[str, _Pruned]:
        """Return weight and mask of every layer of some networks, and leave these as they are.

        Parameters
        ----------
        networks : sequence of FeedForward
            With dense weights.
        statistics : mapping of str to Statistics
            By the names of their layers.
        counts : mapping of str to int
            Weights to keep per layer.
        """
        found: dict[str, _Pruned] = {}
        for network in networks:
            best = _Search(network, self, statistics, counts).best(self.sweeps)
            found |= {layer.name: each for layer, each in zip(network.layers, best, strict=True)}
        return found


class _Search:
    """One network, its auxiliary variables, and the weights that go with them."""

    def __init__(
        self,
        network: FeedForward,
        recipe: Recipe,
        statistics: Mapping[str, Statistics],
        counts: Mapping[str, int],
    ) -> None:
        self.recipe, self.activation = recipe, network.activation
        self.layers, self.counts = network.layers, counts
        self.known = [statistics[layer.name] for layer in self.layers]
        self.dense = [layer.matrix() for layer in self.layers]
        self.biases = [bias_of(layer) for layer in self.layers]
        self.inputs = gathered(self.known[0][InputRows].value)
        #: What the layers before the last are to give, what goes into the last, what it gives.
        self.made = [linear(self.inputs, *each) for each in self._readers(self.dense)]
        self.hidden = self._hidden(self.made)
        self.outputs = linear(self.hidden, self.dense[-1], self.biases[-1])
        self.pruned = [
            self._cut(at, weight, known)
            for at, (weight, known) in enumerate(zip(self.dense, self.known, strict=True))
        ]

    def best(self, sweeps: int) -> list[_Pruned]:
        """Return the weights and masks after the sweep that leaves the outputs nearest."""
        best, least = list(self.pruned), self.error()
        for _ in range(sweeps):
            self.move_hidden()
            self.move_made()
            self.prune_readers()
            self.prune_last()
            error = self.error()
            if error < least:
                best, least = list(self.pruned), error
        return best

    def error(self) -> float:
        """Return the squared error of the pruned network's outputs."""
        weights = [weight for weight, _ in self.pruned]
        hidden = self._hidden([linear(self.inputs, *each) for each in self._readers(weights)])
        return _squared(linear(hidden, weights[-1], self.biases[-1]) - self.outputs)

    def objective(self) -> float:
        """Return the sum that every step lowers or leaves."""
        terms = [self._last_term(self.pruned[-1][0]), _squared(self.hidden - self._wanted())]
        terms += [self._reader_term(at, self.pruned[at][0]) for at in range(len(self.made))]
        return sum(terms)

    def move_hidden(self) -> None:
        """Set what goes into the last layer, by ridge regression towards what is made."""
        weight, wanted = self.pruned[-1][0], self._wanted()
        missing = self.outputs - linear(wanted, weight, self.biases[-1])
        system = weight @ weight.mT
        system.diagonal().add_(1)
        self.hidden = wanted + torch.linalg.solve(system, missing.mT).mT @ weight

    def move_made(self) -> None:
        """Set what the other layers are to give, value by value."""
        weights = [weight for weight, _ in self.pruned]
        given = [linear(self.inputs, *each) for each in self._readers(weights)]
        if len(self.made) == 2:
            scale = self.activation(self.made[0])
            self.made[1] = (given[1] + scale * self.hidden) / (1 + scale.square())
        scale = self.made[1] if len(self.made) == 2 else torch.ones_like(given[0])
        move = _through_relu if self.activation is relu else _through
        self.made[0] = move(self.activation, self.made[0], given[0], self.hidden, scale)

    def prune_readers(self) -> None:
        """Prune the layers that read the inputs anew, towards what they are to give."""
        for at, made in enumerate(self.made):
            weight, bias = self.pruned[at][0], self.biases[at]
            target = _nearest(
                weight, made - linear(self.inputs, weight, bias), self.inputs, self.known[at]
            )
            found = self._cut(at, target, self.known[at])
            if self._reader_term(at, found[0]) < self._reader_term(at, self.pruned[at][0]):
                self.pruned[at] = found

    def prune_last(self) -> None:
        """Prune the last layer anew, on what goes into it, towards the dense outputs."""
        weight, bias = self.pruned[-1][0], self.biases[-1]
        known = Statistics(self.layers[-1].name, self.recipe.needs)
        known.update(self.hidden)
        if backward(self.recipe.needs):
            known.adopt_gradients(self.known[-1])
        missing = self.outputs - linear(self.hidden, weight, bias)
        found = self._cut(-1, _nearest(weight, missing, self.hidden, known), known)
        if self._last_term(found[0]) < self._last_term(self.pruned[-1][0]):
            self.pruned[-1] = found

    def _readers(
        self, weights: list[torch.Tensor]
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        return list(zip(weights, self.biases, strict=True))[:-1]

    def _hidden(self, made: list[torch.Tensor]) -> torch.Tensor:
        opened = self.activation(made[0])
        return opened * made[1] if len(made) == 2 else opened

    def _wanted(self) -> torch.Tensor:
        return self._hidden(self.made)

    def _reader_term(self, at: int, weight: torch.Tensor) -> float:
        return _squared(linear(self.inputs, weight, self.biases[at]) - self.made[at])

    def _last_term(self, weight: torch.Tensor) -> float:
        return _squared(linear(self.hidden, weight, self.biases[-1]) - self.outputs)

    def _cut(self, at: int, weight: torch.Tensor, known: Statistics) -> _Pruned:
        layer, recipe = self.layers[at], self.recipe
        keep, shape = self.counts[layer.name], tuple(weight.shape)
        choose = MaskChooser(recipe.score, recipe.pattern, keep, known, shape)
        return recipe.update(weight, choose, known)


def _squared(difference: torch.Tensor) -> float:
    return float(difference.square().sum(dtype=torch.float64))


def _nearest(
    weight: torch.Tensor, missing: torch.Tensor, rows: torch.Tensor, known: Statistics
) -> torch.Tensor:
    """Return weights that give what is missing too, by ridge regression on rows of input."""
    factor = known[Gram].inverse_factor(_DAMPING)
    cross = missing.mT @ rows / len(rows)
    return weight + (cross @ factor.mT) @ factor


def _through_relu(
    _: Activation, now: torch.Tensor, given: torch.Tensor, out: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return the v that minimises ``(v - given)^2 + (out - scale relu(v))^2``, by its branch."""
    above = ((given + scale * out) / (1 + scale.square())).clamp(min=0)
    below = given.clamp(max=0)
    costs = [(v - given).square() + (out - scale * relu(v)).square() for v in (above, below)]
    return torch.where(costs[0] <= costs[1], above, below)


def _through(
    activation: Activation,
    now: torch.Tensor,
    given: torch.Tensor,
    out: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Return a v with a lower ``(v - given)^2 + (out - scale f(v))^2`` than now, by descent.

    From where it is or from `given`, whichever is lower, by steps of Gauss and Newton that are
    taken value by value as far as they lower the sum.
    """

    def cost(v: torch.Tensor) -> torch.Tensor:
        return (v - given).square() + (out - scale * activation(v)).square()

    value = torch.where(cost(given) < cost(now), given, now)
    held = cost(value)
    for _ in range(_STEPS):
        slope = scale * _slope(activation, value)
        miss = (value - given) + slope * (scale * activation(value) - out)
        before, step = value, miss / (1 + slope.square())
        for part in _PARTS:
            tried = before - part * step
            reached = cost(tried)
            lower = reached < held
            value, held = torch.where(lower, tried, value), torch.where(lower, reached, held)
    return value


def _slope(activation: Activation, value: torch.Tensor) -> torch.Tensor:
    """Return the derivative of an activation at every value."""
    with torch.enable_grad():
        free = value.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activation(free).sum(), free)
    return slope
