"""What a layer's calibration data looked like, in memory that does not grow with it."""

from __future__ import annotations

__all__ = ["SAMPLE_ROWS", "Statistics"]

from collections.abc import Iterable

import torch

from ..core.errors import DataError, NumericalError, OptionError
from .linalg import gram_update, inverse_cholesky, mirror

#: Names that scores, updates and budgets may ask for in ``needs``.
KNOWN = frozenset({"norm", "gram", "gradient", "squared_gradient"})

#: Input rows kept for measuring reconstruction errors.
SAMPLE_ROWS = 512
_ROWS_PER_BATCH = 16
_RUN = 16


class Statistics:
    """Streaming moments of the inputs of one layer, and of its weight's gradient.

    Parameters
    ----------
    name : str
        The layer's name, for messages and for seeding.
    needs : iterable of str
        What to collect: ``"norm"`` (sums and sums of squares per input), ``"gram"`` (the
        second moment, float32), ``"gradient"`` and ``"squared_gradient"`` (of the loss with
        respect to the weight).

    Attributes
    ----------
    start : int
        First column that this view covers; see :meth:`columns`.

    Raises
    ------
    OptionError
        If `needs` holds an unknown name.
    """

    def __init__(self, name: str, needs: Iterable[str] = ()) -> None:
        self.name = name
        self.needs = frozenset(needs)
        if unknown := self.needs - KNOWN:
            raise OptionError(f"unknown statistic {sorted(unknown)[0]!r}; known: {sorted(KNOWN)}")
        self.start = 0
        self._tokens = 0
        self._parent: Statistics | None = None
        self._slice = slice(None)
        self._sum: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None
        self._gram: torch.Tensor | None = None
        self._finished = False
        self._sample: list[torch.Tensor] = []
        self._sampled = 0
        self._factors: dict[float, torch.Tensor] = {}
        self._gradient: torch.Tensor | None = None
        self._squared_gradient: torch.Tensor | None = None
        self._gradients_seen = 0

    def update(self, inputs: torch.Tensor) -> None:
        """Take in a batch of inputs.

        Parameters
        ----------
        inputs : Tensor of shape (..., tokens, columns)
            The rows that the weight matrix multiplies. Sums are kept in float64 (of runs of 16
            rows, each added in float32), the second moment in float32.

        Raises
        ------
        NumericalError
            If an input is NaN or infinite; the message names the layer.
        """
        if self._finished:
            raise OptionError(f"statistics of layer {self.name!r} were already read; start anew")
        inputs = inputs.detach().float()
        squares = _column_sums(inputs.square())
        if not bool(torch.isfinite(squares).all()):
            raise NumericalError(
                f"layer {self.name!r} received NaN or infinite activations during calibration; "
                "check the weights before it and the calibration data"
            )
        if self._squares is None or self._sum is None:
            self._squares, self._sum = torch.zeros_like(squares), torch.zeros_like(squares)
        self._squares += squares
        self._sum += _column_sums(inputs)
        if "gram" in self.needs:
            if self._gram is None:
                columns = inputs.shape[-1]
                self._gram = inputs.new_zeros(*inputs.shape[:-2], columns, columns)
            gram_update(self._gram, inputs)
        self._keep_sample(inputs)
        self._tokens += inputs.shape[-2]

    def update_gradient(self, gradient: torch.Tensor) -> None:
        """Take in the gradient of one batch's loss with respect to the weight.

        Parameters
        ----------
        gradient : Tensor of shape (..., rows, columns)
            In the layer's matrix form.
        """
        gradient = gradient.detach().float()
        if not bool(torch.isfinite(gradient).all()):
            raise NumericalError(
                f"the gradient of layer {self.name!r} is NaN or infinite; check the loss"
            )
        if self._gradient is None or self._squared_gradient is None:
            self._gradient = torch.zeros_like(gradient)
            self._squared_gradient = torch.zeros_like(gradient)
        self._gradient += gradient
        self._squared_gradient += gradient.square()
        self._gradients_seen += 1

    def columns(self, columns: slice) -> Statistics:
        """Return a view of the columns ``columns``, for choosing block by block."""
        view = Statistics(self.name, self.needs)
        view._parent, view._slice = self, columns
        view.start = self.start + (columns.start or 0)
        return view

    def renamed(self, name: str) -> Statistics:
        """Return these moments for another layer that is fed the same inputs."""
        view = self.columns(slice(None))
        view.name = name
        return view

    @property
    def tokens(self) -> int:
        """Rows of input seen."""
        return self._tokens if self._parent is None else self._parent.tokens

    @property
    def norm(self) -> torch.Tensor:
        """Root mean square of every input, shape (..., columns), float32."""
        if self._parent is not None:
            return self._parent.norm[..., self._slice]
        return (self._seen(self._squares, "norm") / self.tokens).sqrt().float()

    @property
    def mean(self) -> torch.Tensor:
        """Mean of every input, shape (..., columns), float32."""
        if self._parent is not None:
            return self._parent.mean[..., self._slice]
        return (self._seen(self._sum, "norm") / self.tokens).float()

    @property
    def variance(self) -> torch.Tensor:
        """Variance of every input, shape (..., columns), float32, never negative."""
        if self._parent is not None:
            return self._parent.variance[..., self._slice]
        squares = self._seen(self._squares, "norm") / self.tokens
        mean = self._seen(self._sum, "norm") / self.tokens
        return (squares - mean.square()).clamp(min=0).float()

    @property
    def gram(self) -> torch.Tensor:
        """Second moment ``E[x x^T]`` of the inputs, shape (..., columns, columns), float32."""
        if self._parent is not None:
            return self._parent.gram[..., self._slice, self._slice]
        gram = self._seen(self._gram, "gram")
        if not self._finished:
            # In place: for the widest layers a second copy would not fit in the budget.
            mirror(gram)
            gram /= self.tokens
            self._finished = True
        return gram

    def inverse_factor(self, damping: float) -> torch.Tensor:
        """Return the upper Cholesky factor of the inverse damped second moment.

        Parameters
        ----------
        damping : float
            Relative ridge.

        Returns
        -------
        Tensor of shape (..., columns, columns)
            Upper triangular; in a column view, the square of those columns. Computed once
            per damping.
        """
        if self._parent is not None:
            return self._parent.inverse_factor(damping)[..., self._slice, self._slice]
        if damping not in self._factors:
            self._factors[damping] = inverse_cholesky(self.gram, damping)
        return self._factors[damping]

    @property
    def gradient(self) -> torch.Tensor:
        """Mean gradient of the loss, shape (..., rows, columns)."""
        if self._gradient is None and self._parent is not None:
            return self._parent.gradient[..., self._slice]
        return self._seen(self._gradient, "gradient") / self._gradients_seen

    @property
    def squared_gradient(self) -> torch.Tensor:
        """Mean squared batch gradient of the loss, shape (..., rows, columns)."""
        if self._squared_gradient is None and self._parent is not None:
            return self._parent.squared_gradient[..., self._slice]
        return self._seen(self._squared_gradient, "squared_gradient") / self._gradients_seen

    @property
    def sample(self) -> torch.Tensor | None:
        """Up to :data:`SAMPLE_ROWS` rows of input, shape (..., rows, columns), or None."""
        if self._parent is not None:
            return self._parent.sample
        return torch.cat(self._sample, dim=-2) if self._sample else None

    def adopt_gradients(self, other: Statistics) -> None:
        """Take over the gradient moments that `other` collected for the same layer."""
        self._gradient = other._gradient
        self._squared_gradient = other._squared_gradient
        self._gradients_seen = other._gradients_seen

    def _keep_sample(self, inputs: torch.Tensor) -> None:
        room = min(_ROWS_PER_BATCH, SAMPLE_ROWS - self._sampled, inputs.shape[-2])
        if room > 0:
            step = inputs.shape[-2] // room
            self._sample.append(inputs[..., : step * room : step, :].clone())
            self._sampled += room

    def _seen(self, value: torch.Tensor | None, what: str) -> torch.Tensor:
        asked = value is not None or what in self.needs
        if asked and self.tokens == 0 and not what.endswith("gradient"):
            raise DataError(
                f"layer {self.name!r} was given no calibration tokens (an expert that was never "
                "chosen, a module that is never called, or empty data); calibrate with more data "
                "or exclude the layer"
            )
        if value is None:
            raise OptionError(
                f"statistic {what!r} of layer {self.name!r} was not collected; "
                "pass calibration data, and name it in the part's `needs`"
            )
        return value


def _column_sums(values: torch.Tensor) -> torch.Tensor:
    """Sum over rows in float64; short runs in float32 first, or most time goes into casting."""
    *stack, rows, columns = values.shape
    whole = rows - rows % _RUN
    runs = values[..., :whole, :].reshape(*stack, whole // _RUN, _RUN, columns).sum(-2)
    rest = values[..., whole:, :].sum(-2, dtype=torch.float64)
    return runs.sum(-2, dtype=torch.float64) + rest
