"""Scores: what matters? A map from (weight, statistics) to a tensor, larger meaning keep.

Scores see a weight as a matrix of shape (..., rows, columns), rows being outputs and
columns inputs (convolutions are unfolded), and compose by arithmetic:
``Magnitude() * InputNorm()`` is Wanda's score.
"""

from __future__ import annotations

__all__ = [
    "Fisher",
    "GradientMagnitude",
    "InputNorm",
    "InputVariance",
    "Magnitude",
    "OBSSaliency",
    "Power",
    "Product",
    "Random",
    "RelativeImportance",
    "SamplingFactor",
    "Scaled",
    "Score",
    "Sum",
    "UnitGradient",
]

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from . import moments
from .statistics import Statistics


class Score(ABC):
    """Base class of scores."""

    @property
    def needs(self) -> frozenset[type[moments.Moment]]:
        """The moments that must be collected before scoring; none by default."""
        return frozenset()

    @property
    def by_columns(self) -> bool:
        """Whether columns may be scored apart from the others of their matrix; true by default."""
        return True

    @abstractmethod
    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Score every weight.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, columns)
            Float32 weights, or a slice of their columns where :attr:`by_columns` is true.
        statistics : Statistics
            Of the same columns.

        Returns
        -------
        Tensor of shape (..., rows, columns)
            Non-negative importance, larger = keep.
        """

    def __mul__(self, other: Score | float) -> Score:
        return Product(self, other) if isinstance(other, Score) else Scaled(self, other)

    __rmul__ = __mul__

    def __add__(self, other: Score) -> Score:
        return Sum(self, other)

    def __pow__(self, exponent: float) -> Score:
        return Power(self, exponent)


@dataclass(frozen=True)
class _Pair(Score):
    """Two scores that are combined entry by entry."""

    left: Score
    right: Score

    @property
    def needs(self) -> frozenset[type[moments.Moment]]:
        """Union of both scores' needs."""
        return self.left.needs | self.right.needs

    @property
    def by_columns(self) -> bool:
        """Whether both scores may take columns apart."""
        return self.left.by_columns and self.right.by_columns


class Product(_Pair):
    """Entry-wise product of two scores."""

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Multiply both scores."""
        return self.left(weight, statistics) * self.right(weight, statistics)

    def __repr__(self) -> str:
        return f"{self.left!r} * {self.right!r}"


class Sum(_Pair):
    """Entry-wise sum of two scores."""

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Add both scores."""
        return self.left(weight, statistics) + self.right(weight, statistics)

    def __repr__(self) -> str:
        return f"({self.left!r} + {self.right!r})"


@dataclass(frozen=True)
class _WithConstant(Score):
    """A score combined with a number."""

    score: Score
    constant: float

    @property
    def needs(self) -> frozenset[type[moments.Moment]]:
        """Needs of the score."""
        return self.score.needs

    @property
    def by_columns(self) -> bool:
        """Whether the score may take columns apart."""
        return self.score.by_columns


class Scaled(_WithConstant):
    """A score times a constant."""

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Scale the score."""
        return self.constant * self.score(weight, statistics)

    def __repr__(self) -> str:
        return f"{self.constant} * {self.score!r}"


class Power(_WithConstant):
    """A score raised to a power."""

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Raise the score."""
        return self.score(weight, statistics) ** self.constant

    def __repr__(self) -> str:
        return f"({self.score!r}) ** {self.constant}"


@dataclass(frozen=True)
class Magnitude(Score):
    """Absolute value of the weight."""

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``|w|``."""
        return weight.abs()


@dataclass(frozen=True)
class RelativeImportance(Score):
    """Share of a weight in the magnitudes of its column, plus its share in those of its row.

    A row or a column of small weights keeps its largest ones, whatever the scale of the others, so
    that no channel is cut off.

    References
    ----------
    Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language
    Models (2024), section 3.1.
    """

    by_columns = False

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``|w_ij| / sum_k |w_kj| + |w_ij| / sum_k |w_ik|``; a zero weight has 0."""
        size = weight.abs()
        tiny = torch.finfo(size.dtype).tiny
        shares = [size / size.sum(dim, keepdim=True).clamp(min=tiny) for dim in (-2, -1)]
        return shares[0] + shares[1]


@dataclass(frozen=True)
class Random(Score):
    """Uniform random numbers: the baseline that any score must beat.

    Parameters
    ----------
    seed : int, default 0
        With the layer's name it fixes the numbers, whatever the order of layers.
    """

    seed: int = 0

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return numbers in [0, 1); those of a column do not depend on what else is asked for."""
        return _uniform(self.seed, weight, statistics)


@dataclass(frozen=True)
class SamplingFactor(Score):
    """Random factors that turn the largest of a score into a sample in proportion to it.

    The k largest of ``score * SamplingFactor()`` are k weights drawn one after another without
    replacement, each with a probability proportional to its score (Gumbel top-k).

    Parameters
    ----------
    seed : int, default 0
        With the layer's name it fixes the sample, whatever the order of layers.

    References
    ----------
    Efraimidis and Spirakis, Weighted random sampling with a reservoir (2006), with the logarithm of
    their keys.
    """

    seed: int = 0

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``1 / e`` for standard exponential numbers `e`."""
        return -1 / _uniform(self.seed, weight, statistics).log()


def _uniform(seed: int, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{statistics.name}".encode()))
    *rows, columns = weight.shape
    # Column after column, so that a view skips what comes before it.
    numbers = torch.rand(
        statistics.start + columns, *rows, generator=generator, dtype=torch.float32
    )
    return numbers[statistics.start :].movedim(0, -1).to(weight.device)


@dataclass(frozen=True)
class InputNorm(Score):
    """Root mean square of the input that a weight multiplies.

    Times :class:`Magnitude`, it is Wanda's score.

    References
    ----------
    Sun et al., A Simple and Effective Pruning Approach for Large Language Models (2023), eq. 1.
    """

    needs = frozenset({moments.Norm})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return the norm of each column's input, the same for every row."""
        return statistics[moments.Norm].value.unsqueeze(-2).to(weight.device).expand_as(weight)


@dataclass(frozen=True)
class InputVariance(Score):
    """Variance of the input that a weight multiplies: what no constant can stand in for.

    References
    ----------
    An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models (2024),
    eq. 5.
    """

    needs = frozenset({moments.Norm})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return the variance of each column's input, the same for every row."""
        variance = statistics[moments.Norm].variance
        return variance.unsqueeze(-2).to(weight.device).expand_as(weight)


@dataclass(frozen=True)
class GradientMagnitude(Score):
    """Absolute value of the mean gradient of the loss.

    Times :class:`Magnitude`, it is the first-order change of the loss when a weight is removed.

    References
    ----------
    Lee et al., SNIP (2018), eq. 5; Molchanov et al., Importance Estimation for Neural Network
    Pruning (2019), eq. 8.
    """

    needs = frozenset({moments.Gradient})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``|E[g]|``."""
        return statistics[moments.Gradient].value.abs()


@dataclass(frozen=True)
class Fisher(Score):
    """Increase of the loss by removing a weight, under the diagonal empirical Fisher.

    References
    ----------
    Theis et al., Faster gaze prediction with dense networks and Fisher pruning (2018), eq. 7.
    """

    needs = frozenset({moments.SquaredGradient})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``w^2 E[g^2] / 2``."""
        return weight.square() * statistics[moments.SquaredGradient].value / 2


@dataclass(frozen=True)
class UnitGradient(Score):
    """Norm of the loss's gradient by all weights of a unit, estimated without a backward pass.

    It is the same for every weight of the unit: something for budgets.
    """

    needs = frozenset({moments.Slope})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return the norm, the same for every weight."""
        return statistics[moments.Slope].value.to(weight.device).expand_as(weight)


@dataclass(frozen=True)
class OBSSaliency(Score):
    """Optimal Brain Surgeon saliency under the second moment of the inputs.

    Parameters
    ----------
    damping : float, default 0.01
        Ridge relative to the mean diagonal of the second moment.

    Notes
    -----
    With U the upper Cholesky factor of the inverse, ``U_jj^2`` is the j-th diagonal entry
    of the inverse once columns before j are fixed, which is what a left-to-right sweep needs.

    References
    ----------
    Frantar and Alistarh, SparseGPT (2023), section 3.2; Hassibi and Stork, Second order
    derivatives for network pruning (1992), eq. 5.
    """

    damping: float = 0.01
    needs = frozenset({moments.Gram})

    def __call__(self, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
        """Return ``w_j^2 / U_jj^2``."""
        factor = statistics[moments.Gram].inverse_factor(self.damping)
        return (weight / factor.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)).square()
