"""What a layer's calibration data looked like: the moments that its parts asked for."""

from __future__ import annotations

__all__ = ["Statistics"]

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch

from ..core.errors import DataError, NumericalError, OptionError
from .moments import Moment, Sample

M = TypeVar("M", bound=Moment)


class Statistics:
    """Moments of the inputs of one layer and of its weight's gradient, found by their class.

    Parameters
    ----------
    name : str
        The layer's name, for messages and for seeding.
    needs : iterable of Moment classes
        What to collect, such as :class:`~thresher.parts.moments.Norm`. A few rows of input are
        kept besides.

    Attributes
    ----------
    start : int
        First column that this view covers; see :meth:`columns`.

    Raises
    ------
    OptionError
        If `needs` holds something else than a class of moments.

    Examples
    --------
    >>> import torch
    >>> from thresher.parts.moments import Norm
    >>> statistics = Statistics("layer", {Norm})
    >>> statistics.update(torch.tensor([[3.0, 0.0], [1.0, 2.0]]))
    >>> statistics[Norm].mean
    tensor([2., 1.])
    """

    def __init__(self, name: str, needs: Iterable[type[Moment]] = ()) -> None:
        self.name = name
        self.start = 0
        self._stop: int | None = None
        for kind in (needs := frozenset(needs)):
            if not (isinstance(kind, type) and issubclass(kind, Moment)):
                raise OptionError(
                    f"{kind!r} is no moment; name a class of thresher.parts.moments, such as Norm"
                )
        # One order in every process, so that sums of one moment meet.
        kinds = sorted(needs | {Sample}, key=lambda kind: (kind.__module__, kind.__qualname__))
        self._moments: dict[type[Moment], Moment] = {kind: kind() for kind in kinds}

    def update(
        self,
        inputs: torch.Tensor,
        dense: torch.Tensor | None = None,
        *,
        held_out: bool = False,
    ) -> None:
        """Take in a batch of inputs.

        Parameters
        ----------
        inputs : Tensor of shape (..., tokens, columns)
            The rows that the weight matrix multiplies; there may be none.
        dense : Tensor of the same shape, optional
            What the dense model gives the layer for the same tokens, where that is known.
        held_out : bool, default False
            Whether they are of a sample that others are judged by.

        Raises
        ------
        NumericalError
            If an input is NaN or infinite, or its square would be; the message names the layer.
        """
        inputs = inputs.detach().float()
        dense = None if dense is None else dense.detach().float()
        if not all(_squares_are_finite(x) for x in (inputs, dense) if x is not None):
            raise NumericalError(
                f"layer {self.name!r} received NaN or infinite activations during calibration; "
                "check the weights before it and the calibration data"
            )
        self._feed("forward", inputs, dense, held_out=held_out)

    def update_gradient(self, gradient: torch.Tensor) -> None:
        """Take in the gradient of one batch's loss with respect to the weight.

        Parameters
        ----------
        gradient : Tensor of shape (..., rows, columns)
            In the layer's matrix form.

        Raises
        ------
        NumericalError
            If it is NaN or infinite, or its square would be; the message names the layer.
        """
        gradient = gradient.detach().float()
        if not _squares_are_finite(gradient):
            raise NumericalError(
                f"the gradient of layer {self.name!r} is NaN or infinite; check the loss"
            )
        self._feed("backward", gradient)

    def update_slope(self, slope: torch.Tensor) -> None:
        """Take in the slope of one batch's loss along a random direction.

        Parameters
        ----------
        slope : Tensor of shape ()

        Raises
        ------
        NumericalError
            If it is NaN or infinite; the message names the layer.
        """
        slope = slope.detach().float()
        if not _squares_are_finite(slope):
            raise NumericalError(
                f"the loss is NaN or infinite where layer {self.name!r} is perturbed; check the "
                "weights and the data"
            )
        self._feed("perturbed", slope)

    def __getitem__(self, kind: type[M]) -> M:
        """Return the moment of a class, of the columns that this view covers.

        Raises
        ------
        OptionError
            If it was not asked for.
        DataError
            If there were no samples to take it of.
        """
        moment = self._moments.get(kind)
        if not isinstance(moment, kind):
            raise OptionError(
                f"moment {kind.__name__!r} of layer {self.name!r} was not collected; "
                "pass calibration data, and name it in the part's `needs`"
            )
        if not moment.count:
            raise DataError(_no_samples(kind, self.name))
        if self.start == 0 and self._stop is None:
            return moment
        return moment.columns(slice(self.start, self._stop))

    def reserve(self, weight: torch.Tensor) -> None:
        """Give all sums their shape, so that a process without data can take part in merging.

        Parameters
        ----------
        weight : Tensor of shape (..., rows, columns)
            The layer's weight in matrix form.
        """
        for moment in self._moments.values():
            moment.reserve(weight.detach().float())

    def tensors(self) -> list[torch.Tensor]:
        """Return all that must be added up to merge these statistics with those of other data.

        Returns
        -------
        list of Tensor
            The sums themselves, to be changed in place before anything is read; as many, of the
            same shapes and in the same order in every process. Counts are on the CPU, other
            sums where the inputs were.

        Raises
        ------
        OptionError
            If there are no sums yet, or if they were already read.

        Examples
        --------
        >>> for tensor in statistics.tensors():  # doctest: +SKIP
        ...     torch.distributed.all_reduce(tensor)
        """
        self._check_open()
        for kind, moment in self._moments.items():
            if not moment.sums and kind is not Sample:
                raise OptionError(
                    f"moment {kind.__name__!r} of layer {self.name!r} was never updated here; "
                    "reserve its sums in processes without data for the layer"
                )
        return [tensor for moment in self._moments.values() for tensor in moment.tensors()]

    def columns(self, columns: slice) -> Statistics:
        """Return a view of the columns `columns`, for choosing block by block.

        Parameters
        ----------
        columns : slice
            Without a step, its ends not negative.
        """
        view = copy.copy(self)
        view.start = self.start + (columns.start or 0)
        ends = [self._stop, None if columns.stop is None else self.start + columns.stop]
        view._stop = min((end for end in ends if end is not None), default=None)
        return view

    def renamed(self, name: str) -> Statistics:
        """Return these moments for another layer that is fed the same inputs."""
        view = copy.copy(self)
        view.name = name
        # The sums are shared, but not which gradients are adopted.
        view._moments = dict(self._moments)
        return view

    def adopt_gradients(self, other: Statistics) -> None:
        """Take over the moments of gradients and slopes that `other` has of the same layer."""
        self._moments |= {
            kind: moment for kind, moment in other._moments.items() if kind.wants != "forward"
        }

    def saw_any(self, kind: type[Moment]) -> bool:
        """Return whether a moment was asked for, and has seen any sample."""
        return kind in self._moments and bool(self._moments[kind].count)

    def saw_every_token(self, kind: type[Moment]) -> bool:
        """Return whether a moment that was asked for has seen all rows of input."""
        return bool(self.tokens) and int(self._moments[kind].count) == self.tokens

    @property
    def saw_gradients(self) -> bool:
        """Whether a gradient other than zero was taken in."""
        backward = (moment for moment in self._moments.values() if moment.wants == "backward")
        return any(bool(total.any()) for moment in backward for total in moment.sums)

    @property
    def tokens(self) -> int:
        """Rows of input seen."""
        return int(self._moments[Sample].count)

    @property
    def sample(self) -> torch.Tensor | None:
        """A few rows of input, shape (..., rows, columns), or None; see :class:`Sample`."""
        return self[Sample].value if self.tokens else None

    def _feed(
        self,
        what: str,
        values: torch.Tensor,
        dense: torch.Tensor | None = None,
        *,
        held_out: bool = False,
    ) -> None:
        self._check_open()
        for moment in self._moments.values():
            if moment.wants == what and (held_out or not moment.held_out):
                moment.update(values, dense)

    def _check_open(self) -> None:
        if any(moment.finished for moment in self._moments.values()):
            raise OptionError(f"statistics of layer {self.name!r} were already read; start anew")


def _no_samples(kind: type[Moment], name: str) -> str:
    if kind.wants == "backward":
        return f"layer {name!r} was given no gradients; run a backward pass over calibration data"
    if kind.wants == "perturbed":
        return f"layer {name!r} was given no slopes; nothing in the data depends on it"
    return (
        f"layer {name!r} was given no calibration tokens (an expert that was never chosen, a "
        "module that is never called, or empty data); calibrate with more data or exclude the "
        "layer"
    )


def _squares_are_finite(values: torch.Tensor) -> bool:
    """Whether every square is finite in float32, and so are sums of a few (one cheap pass)."""
    if not values.numel():
        return True
    ends = torch.stack(torch.aminmax(values)).double()
    return bool(torch.isfinite((1024 * ends.square()).float()).all())
