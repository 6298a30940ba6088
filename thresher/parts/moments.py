"""Moments: running sums over calibration data, in memory that does not grow with it.

A part asks for moments by class, ``needs = frozenset({Norm})``, and finds them under the same
class: ``statistics[Norm].value``. A new moment is a new class; nothing else changes.
"""

from __future__ import annotations

__all__ = [
    "SAMPLE_ROWS",
    "Cross",
    "Gradient",
    "Gram",
    "HeldOut",
    "Moment",
    "Norm",
    "Sample",
    "Slope",
    "SquaredGradient",
    "backward",
    "forward",
    "perturbed",
]

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal, Self

import torch

from .linalg import add_products, gram_update, inverse_cholesky, mirror

#: Input rows kept for measuring reconstruction errors.
SAMPLE_ROWS = 512
_ROWS_PER_BATCH = 16
_RUN = 16


class Moment(ABC):
    """Base class of moments: sums over samples, and what they say once divided by their number.

    Attributes
    ----------
    wants : {"forward", "backward", "perturbed"}
        What one update is given: ``"forward"`` a batch of input rows of shape
        (..., tokens, columns), ``"backward"`` one gradient of the loss with respect to the
        weight, of shape (..., rows, columns), ``"perturbed"`` one slope of the loss along a random
        direction, of shape (). All are finite float32 tensors.
    count : Tensor of int64, shape ()
        Samples seen: rows of input, or gradients. On the CPU.
    sums : tuple of Tensor
        The running sums; empty before the first update.
    finished : bool
        Whether the sums were turned into their value in place, so that none may be added.
    held_out : bool
        Whether the moment is of samples alone that are set apart, see :class:`HeldOut`.
    """

    wants: ClassVar[Literal["forward", "backward", "perturbed"]] = "forward"
    held_out: ClassVar[bool] = False

    def __init__(self) -> None:
        self.count = torch.zeros((), dtype=torch.int64)
        self.sums: tuple[torch.Tensor, ...] = ()
        self.finished = False

    @abstractmethod
    def zeros(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the sums over no samples at all.

        Parameters
        ----------
        values : Tensor
            Samples or, as its columns and what comes before its rows agree with theirs, the
            weight in matrix form.
        """

    @abstractmethod
    def add(self, values: torch.Tensor) -> None:
        """Add `values` to :attr:`sums`, in place."""

    def update(self, values: torch.Tensor, dense: torch.Tensor | None = None) -> None:
        """Take in a batch of inputs or one gradient, see :attr:`wants`.

        Parameters
        ----------
        values : Tensor
            The samples.
        dense : Tensor of the shape of `values`, optional
            What the dense model gives the layer for the same tokens, where that is known.
        """
        self.reserve(values)
        self.add(values)
        self.count += values.shape[-2] if self.wants == "forward" else 1

    def reserve(self, like: torch.Tensor) -> None:
        """Give the sums their shape, for samples (or a weight) shaped like `like`."""
        self.sums = self.sums or self.zeros(like)

    def tensors(self) -> list[torch.Tensor]:
        """Return all that must be added up to merge this moment with one of other data.

        Returns
        -------
        list of Tensor
            :attr:`count` and :attr:`sums` themselves, to be changed in place.
        """
        return [self.count, *self.sums]

    def columns(self, columns: slice) -> Self:
        """Return a view of the columns `columns`, for reading."""
        view = copy.copy(self)
        view.sums = tuple(total[..., columns] for total in self.sums)
        return view


class Norm(Moment):
    """Root mean square, mean and variance of every input.

    Sums are kept in float64, of runs of 16 rows that are each added in float32.
    """

    def zeros(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return float64 zeros of shape (..., columns), for squares and for the inputs."""
        shape = (*inputs.shape[:-2], inputs.shape[-1])
        squares, total = inputs.new_zeros(2, *shape, dtype=torch.float64)
        return squares, total

    def add(self, inputs: torch.Tensor) -> None:
        """Add squares and inputs."""
        squares, total = self.sums
        squares += _column_sums(inputs.square())
        total += _column_sums(inputs)

    @property
    def value(self) -> torch.Tensor:
        """Root mean square, shape (..., columns), float32."""
        return (self.sums[0] / self.count).sqrt().float()

    @property
    def mean(self) -> torch.Tensor:
        """Mean, shape (..., columns), float32."""
        return (self.sums[1] / self.count).float()

    @property
    def variance(self) -> torch.Tensor:
        """Variance, shape (..., columns), float32, never negative."""
        squares, total = (part / self.count for part in self.sums)
        return (squares - total.square()).clamp(min=0).float()


class Gram(Moment):
    """Second moment ``E[x x^T]`` of the inputs, and the factor of its inverse, in float32."""

    def __init__(self) -> None:
        super().__init__()
        self._factors: dict[float, torch.Tensor] = {}
        self._columns = slice(None)

    def zeros(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return zeros of shape (..., columns, columns)."""
        columns = inputs.shape[-1]
        return (inputs.new_zeros(*inputs.shape[:-2], columns, columns),)

    def add(self, inputs: torch.Tensor) -> None:
        """Add the products of the inputs, to the lower block triangle alone."""
        gram_update(self.sums[0], inputs)

    def columns(self, columns: slice) -> Self:
        """Return a view of rows and columns `columns`, for reading."""
        self._finish()
        view = copy.copy(self)
        view._columns = columns
        return view

    @property
    def value(self) -> torch.Tensor:
        """Second moment, shape (..., columns, columns)."""
        return self._finish()[..., self._columns, self._columns]

    def inverse_factor(self, damping: float) -> torch.Tensor:
        """Return the upper Cholesky factor of the inverse damped second moment.

        Parameters
        ----------
        damping : float
            Relative ridge, see :func:`~thresher.parts.linalg.damped`.

        Returns
        -------
        Tensor of shape (..., columns, columns)
            Upper triangular; in a column view, the square of those columns. Computed once
            per damping.
        """
        if damping not in self._factors:
            self._factors[damping] = inverse_cholesky(self._finish(), damping)
        return self._factors[damping][..., self._columns, self._columns]

    def _finish(self) -> torch.Tensor:
        (gram,) = self.sums
        if not self.finished:
            # In place: for the widest layers a second copy would not fit in the budget.
            mirror(gram)
            gram /= self.count
            self.finished = True
        return gram


class Cross(Moment):
    """Cross moment ``E[x_dense x^T]`` of the dense model's inputs and the layer's own, in float32.

    Of rows for which the dense model's inputs are not known it sees nothing.
    """

    def zeros(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return zeros of shape (..., columns, columns)."""
        columns = inputs.shape[-1]
        return (inputs.new_zeros(*inputs.shape[:-2], columns, columns),)

    def update(self, values: torch.Tensor, dense: torch.Tensor | None = None) -> None:
        """Add the products of both inputs of every token."""
        self.reserve(values)
        if dense is not None:
            add_products(self.sums[0], dense, values)
            self.count += values.shape[-2]

    def add(self, values: torch.Tensor) -> None:
        """Add nothing: there is no product of one input."""

    @property
    def value(self) -> torch.Tensor:
        """Cross moment, shape (..., columns, columns); rows are inputs of the dense model."""
        return self.sums[0] / self.count


class HeldOut(Moment):
    """Second and cross moment of samples by which what is fitted to the others can be judged.

    They are among the samples of :class:`Gram` and :class:`Cross` too, from which they can be
    taken away. Of rows for which the dense model's inputs are not known it sees nothing.
    """

    held_out = True

    def zeros(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return two of shape (..., columns, columns)."""
        columns = inputs.shape[-1]
        second, cross = inputs.new_zeros(2, *inputs.shape[:-2], columns, columns)
        return second, cross

    def update(self, values: torch.Tensor, dense: torch.Tensor | None = None) -> None:
        """Add the products of the inputs with themselves and with the dense model's."""
        self.reserve(values)
        if dense is not None:
            second, cross = self.sums
            add_products(second, values, values)
            add_products(cross, dense, values)
            self.count += values.shape[-2]

    def add(self, values: torch.Tensor) -> None:
        """Add nothing: there is no product of one input."""

    @property
    def gram(self) -> torch.Tensor:
        """Second moment, shape (..., columns, columns)."""
        return self.sums[0] / self.count

    @property
    def cross(self) -> torch.Tensor:
        """Cross moment, shape (..., columns, columns); rows are inputs of the dense model."""
        return self.sums[1] / self.count


class Sample(Moment):
    """Up to :data:`SAMPLE_ROWS` rows of input, a few of every batch, and the number of all.

    Only the number is merged with that of other data; the rows stay those seen here.
    """

    def zeros(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return nothing: rows are kept, not added."""
        return ()

    def add(self, inputs: torch.Tensor) -> None:
        """Keep evenly spaced rows while there is room."""
        rows, kept = inputs.shape[-2], sum(part.shape[-2] for part in self.sums)
        room = min(_ROWS_PER_BATCH, SAMPLE_ROWS - kept, rows)
        if room > 0:
            step = rows // room
            self.sums += (inputs[..., : step * room : step, :].clone(),)

    def tensors(self) -> list[torch.Tensor]:
        """Return the number of rows seen."""
        return [self.count]

    @property
    def value(self) -> torch.Tensor | None:
        """The rows, shape (..., rows, columns), or None before there are any."""
        return torch.cat(self.sums, dim=-2) if self.sums else None


class Gradient(Moment):
    """Mean gradient of the loss with respect to the weight, in float32."""

    wants = "backward"

    def zeros(self, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return zeros of the gradient's shape."""
        return (torch.zeros_like(gradient),)

    def add(self, gradient: torch.Tensor) -> None:
        """Add the gradient."""
        total = self.sums[0]
        total += gradient

    @property
    def value(self) -> torch.Tensor:
        """Mean gradient, shape (..., rows, columns)."""
        return self.sums[0] / self.count


class SquaredGradient(Gradient):
    """Mean squared gradient of the loss of one batch, in float32."""

    def add(self, gradient: torch.Tensor) -> None:
        """Add the gradient's squares."""
        super().add(gradient.square())


class Slope(Moment):
    """Norm of the loss's gradient by the weights of a layer's unit, from slopes of the loss.

    Along a direction of independent standard normal numbers the expected square of the slope is
    that of the gradient's norm.
    """

    wants = "perturbed"

    def zeros(self, slope: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a zero."""
        return (slope.new_zeros(()),)

    def add(self, slope: torch.Tensor) -> None:
        """Add the slope's square."""
        total = self.sums[0]
        total += slope.square()

    def columns(self, columns: slice) -> Self:
        """Return the moment itself: it is the same for all columns."""
        return self

    @property
    def value(self) -> torch.Tensor:
        """Root mean square slope, shape ()."""
        return (self.sums[0] / self.count).sqrt()


def backward(needs: Iterable[type[Moment]]) -> frozenset[type[Moment]]:
    """Return the moments among `needs` that take a backward pass."""
    return frozenset(kind for kind in needs if kind.wants == "backward")


def forward(needs: Iterable[type[Moment]]) -> frozenset[type[Moment]]:
    """Return the moments among `needs` that look at inputs."""
    return frozenset(kind for kind in needs if kind.wants == "forward")


def perturbed(needs: Iterable[type[Moment]]) -> frozenset[type[Moment]]:
    """Return the moments among `needs` that take passes with perturbed weights."""
    return frozenset(kind for kind in needs if kind.wants == "perturbed")


def _column_sums(values: torch.Tensor) -> torch.Tensor:
    """Sum over rows in float64; short runs in float32 first, or most time goes into casting."""
    *stack, rows, columns = values.shape
    whole = rows - rows % _RUN
    runs = values[..., :whole, :].reshape(*stack, whole // _RUN, _RUN, columns).sum(-2)
    rest = values[..., whole:, :].sum(-2, dtype=torch.float64)
    return runs.sum(-2, dtype=torch.float64) + rest
