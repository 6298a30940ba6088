"""Rankings: which units of a coupled group can go, and what each of them costs."""

from __future__ import annotations

__all__ = ["AllByScore", "ByScore", "GreedyOBS", "Ranking"]

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from .linalg import damped
from .moments import Gram, Moment
from .scores import Magnitude, Score
from .statistics import Statistics


class Ranking(ABC):
    """Base class of rankings.

    Attributes
    ----------
    of_all : bool
        Whether every weight of a unit says what it is worth, or those alone that multiply it.
    """

    of_all: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The moments that must be collected; none by default."""
        return frozenset()

    @abstractmethod
    def __call__(
        self, weight: torch.Tensor, labels: torch.Tensor, count: int, statistics: Statistics
    ) -> torch.Tensor:
        """Return what each unit costs.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, columns)
            A layer's matrix, in float32.
        labels : Tensor of int64, same shape
            The unit that every weight belongs to, -1 where none.
        count : int
            Number of units.
        statistics : Statistics
            Of the layer's inputs.

        Returns
        -------
        Tensor of shape (count,)
            Units with smaller costs go first.
        """


@dataclass(frozen=True)
class ByScore(Ranking):
    """The sum of a score over a unit's weights.

    Parameters
    ----------
    score : Score, default Magnitude() ** 2
        What a weight matters.
    """

    score: Score = Magnitude() ** 2

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """What the score needs."""
        return self.score.needs

    def __call__(
        self, weight: torch.Tensor, labels: torch.Tensor, count: int, statistics: Statistics
    ) -> torch.Tensor:
        """Add up; see :class:`Ranking`."""
        score = self.score(weight, statistics).double()
        costs = torch.zeros(count + 1, dtype=torch.float64, device=score.device)
        # What belongs to no unit goes to one that is thrown away.
        costs.index_add_(0, labels.flatten() % (count + 1), score.flatten())
        return costs[:count]


@dataclass(frozen=True)
class AllByScore(ByScore):
    """The sum of a score over all weights of a unit, in the layers before it and after it."""

    of_all = True


@dataclass(frozen=True)
class GreedyOBS(Ranking):
    """Remove the cheapest units, make up for them, and look again what the others cost.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge relative to the mean diagonal of the second moment.
    rounds : int, default 16
        Each round removes this part of what is left: many units first and few in the end, when it
        matters more which.
    first_order : bool, default False
        Whether what a unit adds to the layer's own output counts beside half of that.

    Notes
    -----
    With C the inverse second moment of what is left, removing the columns J of a unit costs
    ``tr(W_J (C_JJ)^-1 W_J^T)`` where the other columns make up for them as well as they can,
    which is exact for all columns of a unit together. The first order is the sum over J of
    ``|G_j . W_j|``, G being the dense weight times the second moment.

    References
    ----------
    Ling et al., SlimGPT (2024), sections 3.2 and 3.3; Hassibi and Stork, Second order derivatives
    for network pruning (1992). The first order: Li et al., Týr-the-Pruner (2025), equation 4.
    """

    damping: float = 0.01
    rounds: int = 16
    first_order: bool = False

    @property
    def needs(self) -> frozenset[type[Moment]]:
        """The second moment."""
        return frozenset({Gram})

    def __call__(
        self, weight: torch.Tensor, labels: torch.Tensor, count: int, statistics: Statistics
    ) -> torch.Tensor:
        """Remove round by round; see :class:`Ranking`. Later units never cost less."""
        factor = statistics[Gram].inverse_factor(self.damping)
        costs = torch.zeros(count, dtype=torch.float64, device=weight.device)
        # What multiplies different inputs, as the groups of a convolution do, goes by itself.
        matrices = weight.reshape(-1, *weight.shape[-2:])
        owners = labels.to(weight.device).reshape(matrices.shape)[:, 0]
        inverses = (factor.mT @ factor).reshape(-1, *factor.shape[-2:])
        slopes: list[torch.Tensor] | list[None] = [None] * len(matrices)
        if self.first_order:
            moment = damped(statistics[Gram].value, self.damping)
            slopes = list((weight @ moment).reshape(matrices.shape))
        for matrix, inverse, units, slope in zip(matrices, inverses, owners, slopes, strict=True):
            self._add(costs, matrix, inverse, units, slope)
        return costs

    def _add(
        self,
        costs: torch.Tensor,
        weight: torch.Tensor,
        inverse: torch.Tensor,
        units: torch.Tensor,
        slope: torch.Tensor | None,
    ) -> None:
        """Add what the units of one matrix cost."""
        left, reached = len(torch.unique(units[units >= 0])), 0.0
        while left:
            # All units have equally many columns; what belongs to none comes first.
            index = units.argsort(stable=True)[(units < 0).sum() :].view(left, -1)
            errors = _errors(weight, inverse, index)
            if slope is not None:
                errors = errors / 2 + (slope * weight).sum(0).abs()[index].sum(1)
            chosen = errors.argsort(stable=True)[: max(1, left // self.rounds)]
            # A unit never costs less than one that went before it.
            raised = errors[chosen].double().clamp(min=reached).cummax(0).values
            costs[units[index[chosen, 0]]] += raised
            left, reached = left - len(chosen), float(raised[-1])
            gone = index[chosen].flatten()
            if slope is not None:
                slope = slope[:, _staying(units, gone)]
            weight, inverse, units = _without(weight, inverse, units, gone)


def _errors(weight: torch.Tensor, inverse: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return what removing the columns of each unit costs, when the others make up for them."""
    if index.shape[1] == 1:
        at = index.flatten()
        return weight[:, at].square().sum(0) / inverse.diagonal()[at].clamp(min=1e-30)
    blocks = inverse[index.unsqueeze(-1), index.unsqueeze(-2)]
    own = weight.mT[index]
    found: torch.Tensor = (own * torch.linalg.solve(blocks, own)).sum((-1, -2))
    return found


def _without(
    weight: torch.Tensor, inverse: torch.Tensor, units: torch.Tensor, gone: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what is left without some columns, the others making up for them."""
    kept = _staying(units, gone)
    across = inverse[gone][:, kept]
    share = torch.linalg.solve(inverse[gone][:, gone], across)
    left = torch.addmm(weight[:, kept], weight[:, gone], share, alpha=-1)
    return left, torch.addmm(inverse[kept][:, kept], across.mT, share, alpha=-1), units[kept]


def _staying(units: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    stays = torch.ones_like(units, dtype=torch.bool)
    stays[gone] = False
    return stays.nonzero().flatten()
