"""Token weights answer how loud each calibration token is in the moments of a layer's inputs."""

from __future__ import annotations

__all__ = ["ByAttention", "EqualTokens", "TokenWeights"]

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from ..core.errors import OptionError
from ..core.named import Spelled


class TokenWeights(Spelled, ABC):
    """Base class of token weights.

    Attributes
    ----------
    by_attention : bool
        Whether the weights look at the attention that tokens receive.
    """

    kind = "tokens"
    by_attention: bool = True

    @abstractmethod
    def __call__(self, received: torch.Tensor) -> torch.Tensor:
        """Return by what the inputs of each token are scaled.

        Parameters
        ----------
        received : Tensor of shape (batch, tokens)
            The attention that each token receives in the block, summed over heads and queries.

        Returns
        -------
        Tensor of shape (batch, tokens)
            Positive.
        """


@dataclass(frozen=True)
class EqualTokens(TokenWeights):
    """Every token counts the same."""

    name = "equal"
    by_attention = False

    def __call__(self, received: torch.Tensor) -> torch.Tensor:
        """Return ones."""
        return torch.ones_like(received)


@dataclass(frozen=True)
class ByAttention(TokenWeights):
    """Tokens that others attend to are heard more.

    Parameters
    ----------
    largest : float, default 10.0
        Scale of the token of a window that receives most; that of the one that receives least
        is 1, and those between lie on a line.

    Raises
    ------
    OptionError
        If `largest` is below 1.

    References
    ----------
    Sung et al., RSQ: Learning from Important Tokens Leads to Better Quantized LLMs (2025,
    arXiv 2503.01820), weights the tokens of quantised layers by the attention that they receive.
    """

    largest: float = 10.0
    name = "attention"

    def __post_init__(self) -> None:
        if self.largest < 1:
            raise OptionError(
                f"largest={self.largest} would make tokens that receive attention count less; "
                "use 1 or more"
            )

    def __call__(self, received: torch.Tensor) -> torch.Tensor:
        """Return weights from 1 to :attr:`largest`, window by window."""
        least, most = received.aminmax(dim=-1, keepdim=True)
        share = (received - least) / (most - least).clamp(min=torch.finfo(received.dtype).tiny)
        return 1 + (self.largest - 1) * share
