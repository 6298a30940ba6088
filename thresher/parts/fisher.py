"""The empirical Fisher information of a layer, from gradients of single samples.

The matrix of n gradients stands for a Fisher of one row and column per weight, which is never
formed: by Woodbury's identity its inverse takes systems of n equations.
"""

from __future__ import annotations

__all__ = ["EmpiricalFisher", "FisherSaliency", "GradientSamples"]

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch

from ..core.errors import OptionError
from .moments import Moment
from .scores import Score
from .statistics import Statistics

#: Weights whose gradients are in double precision at a time.
_WIDTH = 1 << 14


class EmpiricalFisher:
    """``F = ridge I + G^T G / n``, its products and those of its inverse.

    Differences of nearly equal numbers are taken in double precision, whatever the gradients'.

    Parameters
    ----------
    gradients : Tensor of shape (n, weights)
        G, a gradient of the loss in each row.
    ridge : float
        Above 0.

    Raises
    ------
    OptionError
        If `ridge` is not above 0.

    References
    ----------
    Frantar et al., M-FAC: Efficient Matrix-Free Approximations of Second-Order Information
    (2021), section 3.1, whose recursion computes the same.

    Examples
    --------
    >>> fisher = EmpiricalFisher(torch.tensor([[2.0, 0.0, 0.0]]), ridge=1.0)
    >>> fisher.inverse_diagonal()
    tensor([0.2000, 1.0000, 1.0000], dtype=torch.float64)
    """

    def __init__(self, gradients: torch.Tensor, ridge: float) -> None:
        if not ridge > 0:
            raise OptionError(f"ridge {ridge} is out of range; it must be above 0")
        self.gradients, self.ridge = gradients, ridge

    @classmethod
    def damped(cls, gradients: torch.Tensor, damping: float) -> Self:
        """Return the Fisher whose ridge is `damping` times its mean diagonal, 1 if that is 0."""
        mean = float(gradients.square().mean(dtype=torch.float64))
        return cls(gradients, damping * mean or 1.0)

    def restricted(self, places: torch.Tensor) -> EmpiricalFisher:
        """Return the rows and columns of some weights, by their indices (int64) or a mask."""
        return EmpiricalFisher(self.gradients[:, places], self.ridge)

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Return ``F v``, for a vector of shape (weights,), in double precision."""
        return self.ridge * vector.double() + self._transposed(self._applied(vector)) / self._count

    def solve(self, vector: torch.Tensor) -> torch.Tensor:
        """Return ``F^-1 v``, for a vector of shape (weights,), in double precision."""
        inner = torch.cholesky_solve(self._applied(vector).unsqueeze(1), self._factor).squeeze(1)
        return (vector.double() - self._transposed(inner)) / self.ridge

    def inverse_diagonal(self) -> torch.Tensor:
        """Return the diagonal of the inverse, (weights,), in double precision."""
        explained = [
            torch.linalg.solve_triangular(self._factor, part.double(), upper=False).square().sum(0)
            for part in self._parts()
        ]
        return (1 - torch.cat(explained)) / self.ridge

    def largest(self) -> float:
        """Return the largest eigenvalue."""
        return self.ridge + float(torch.linalg.eigvalsh(self._gram)[-1]) / self._count

    @property
    def _count(self) -> int:
        return len(self.gradients)

    def _parts(self) -> Iterator[torch.Tensor]:
        for start in range(0, self.gradients.shape[1], _WIDTH):
            yield self.gradients[:, start : start + _WIDTH]

    @functools.cached_property
    def _gram(self) -> torch.Tensor:
        """``G G^T``, shape (n, n)."""
        gram = self.gradients.new_zeros(self._count, self._count, dtype=torch.float64)
        for part in self._parts():
            gram += part.double() @ part.double().mT
        return gram

    @functools.cached_property
    def _factor(self) -> torch.Tensor:
        """The lower Cholesky factor of ``n ridge I + G G^T``."""
        system = self._gram.clone()
        system.diagonal().add_(self._count * self.ridge)
        factor: torch.Tensor = torch.linalg.cholesky(system)
        return factor

    def _applied(self, vector: torch.Tensor) -> torch.Tensor:
        applied = self.gradients.new_zeros(self._count, dtype=torch.float64)
        for index, part in enumerate(self._parts()):
            start = index * _WIDTH
            applied += part.double() @ vector[start : start + _WIDTH].double()
        return applied

    def _transposed(self, vector: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.double().mT @ vector for part in self._parts()])


class GradientSamples(Moment):
    """The gradients themselves, one of every sample's loss, in float32.

    Takes four bytes a weight for every sample. Only their number is merged with that of other
    data; the gradients stay those seen here.
    """

    wants = "backward"

    def __init__(self) -> None:
        super().__init__()
        self._fishers: dict[float, EmpiricalFisher] = {}
        self._diagonals: dict[float, torch.Tensor] = {}
        self._columns = slice(None)

    def zeros(self, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return nothing: gradients are kept, not added."""
        return ()

    def add(self, gradient: torch.Tensor) -> None:
        """Keep the gradient."""
        self.sums += (gradient.clone().unsqueeze(0),)

    def tensors(self) -> list[torch.Tensor]:
        """Return the number of gradients seen."""
        return [self.count]

    def columns(self, columns: slice) -> Self:
        """Return a view of the columns `columns`, for reading."""
        view = copy.copy(self)
        view._columns = columns
        return view

    @property
    def value(self) -> torch.Tensor:
        """The gradients, shape (samples, ..., rows, columns)."""
        return self._whole()[..., self._columns]

    def fisher(self, damping: float) -> EmpiricalFisher:
        """Return the empirical Fisher of all of the layer's weights, row by row.

        Parameters
        ----------
        damping : float
            Ridge relative to the mean diagonal. Computed once per damping; in a column view it
            is of all columns too.
        """
        if damping not in self._fishers:
            self._fishers[damping] = EmpiricalFisher.damped(self._whole().flatten(1), damping)
        return self._fishers[damping]

    def inverse_diagonal(self, damping: float) -> torch.Tensor:
        """Return the diagonal of the inverse Fisher, shape (..., rows, columns), in float64.

        Parameters
        ----------
        damping : float
            See :meth:`fisher`.
        """
        if damping not in self._diagonals:
            diagonal = self.fisher(damping).inverse_diagonal()
            self._diagonals[damping] = diagonal.reshape(self._whole().shape[1:])
        return self._diagonals[damping][..., self._columns]

    def _whole(self) -> torch.Tensor:
        # Views of one moment share its list of gradients until one of them joins it.
        if len(self.sums) > 1:
            self.sums = (torch.cat(self.sums),)
        return self.sums[0]


@dataclass(frozen=True)
class FisherSaliency(Score):
    """Optimal Brain Surgeon saliency under the empirical Fisher of the layer's weights.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge relative to the mean diagonal of the Fisher.

    References
    ----------
    Frantar et al., M-FAC (2021), section 4.1; Hassibi and Stork, Second order derivatives for
    network pruning (1992), eq. 5.
    """

    damping: float = 0.01
    needs = frozenset({GradientSamples})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``w_q^2 / (2 [F^-1]_qq)``."""
        diagonal = statistics[GradientSamples].inverse_diagonal(self.damping)
        return (weight.square() / (2 * diagonal)).to(weight.dtype)
