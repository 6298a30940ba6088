"""PPL-p% sparsity: how many neurons are inactive where perplexity has risen by p percent."""

from __future__ import annotations

__all__ = ["AffordableSparsity", "SparsingLaw"]

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..core.card import Card, Catalogued
from ..core.errors import DataError
from ..core.options import check_number, check_whole
from .cett import CETT, Truncation
from .networks import find_networks, see_networks


@dataclass(frozen=True)
class AffordableSparsity:
    """What a model can do without for a given rise of its perplexity.

    Parameters
    ----------
    truncation : Truncation
        The neurons that are inactive.
    error : float
        Truncation error of every network.
    dense, sparse : float
        Loss in nats a token, without and with it.
    """

    truncation: Truncation
    error: float
    dense: float
    sparse: float

    @property
    def sparsity(self) -> float:
        """Share of inactive neurons."""
        return self.truncation.sparsity


@dataclass(frozen=True)
class SparsingLaw(Catalogued):
    """Measure activation sparsity by what it costs: the share of neurons for a rise of perplexity.

    All networks have the same truncation error (:class:`~thresher.activate.cett.CETT`), which is
    searched for by bisection.

    Parameters
    ----------
    rise : float, default 0.01
        By how much perplexity may rise, relative to the dense model's: PPL-1%.
    steps : int, default 10
        Halvings of the range of errors, an evaluation each.

    Raises
    ------
    OptionError
        If a value is out of range.

    References
    ----------
    Luo et al., Sparsing Law: Towards Large Language Models with Greater Activation Sparsity (2024),
    section 3.
    """

    rise: float = 0.01
    steps: int = 10
    card = Card(
        name="sparsing-law",
        title="Sparsing Law: Towards Large Language Models with Greater Activation Sparsity",
        authors="Luo et al.",
        year=2024,
        arxiv="2411.02335",
        summary="Measure the share of inactive neurons where perplexity rises by p percent.",
    )

    def __post_init__(self) -> None:
        check_number("rise, of the perplexity relative to dense,", self.rise, above=0)
        check_whole("steps", self.steps)

    def measure(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module], float],
        data: Any = None,
        **texts: Any,
    ) -> AffordableSparsity:
        """Search for the truncation error that costs what may be spent.

        Parameters
        ----------
        model : nn.Module
            A dense model, which stays so.
        loss : callable
            ``loss(model)`` returns its mean loss in nats a token, the logarithm of perplexity.
        data, **texts : optional
            To find thresholds on, see :func:`thresher.activate`.

        Returns
        -------
        AffordableSparsity

        Raises
        ------
        ThresherError
            If no feed-forward network is recognised, the data cannot be used, or the loss is not
            finite.
        """
        seen = see_networks(find_networks(model, data, **texts))
        dense = float(loss(model))
        if not math.isfinite(dense):
            raise DataError(f"the loss of the dense model is {dense}; it has to be a number")
        most, low, high = dense + math.log1p(self.rise), 0.0, 1.0
        best = AffordableSparsity(CETT(0.0).of(seen), 0.0, dense, dense)
        for _ in range(self.steps):
            error = (low + high) / 2
            truncation = CETT(error).of(seen)
            with truncation.applied():
                found = float(loss(model))
            if found <= most:
                best, low = AffordableSparsity(truncation, error, dense, found), error
            else:
                high = error
        return best
