"""Entries rounded to a grid whose step trains: what changes little from one to the next is zero."""

from __future__ import annotations

__all__ = ["Rounded"]

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import nn

from .selection import Selection


class Rounded(Selection):
    """Rounds entries to whole steps; those below half a step are dropped.

    Gradients go straight through to the entries; the step hears the error of rounding, as its
    derivative is where the rounded number is held. It is held as its logarithm, so that it stays
    positive whatever trains it.

    Parameters
    ----------
    log_step : Tensor of shape ()
        Natural logarithm of the step. A parameter, held in float32.

    References
    ----------
    Steven K. Esser et al., Learned Step Size Quantization (2020), section 2.1, for the gradient.
    """

    name = "rounded"
    held: ClassVar[tuple[str, ...]] = ("log_step",)

    def __init__(self, log_step: torch.Tensor) -> None:
        super().__init__()
        self.log_step = nn.Parameter(log_step.detach().float())

    @property
    def settings(self) -> dict[str, Any]:
        """See :class:`Selection`."""
        return {}

    @property
    def drifts(self) -> bool:
        """Whether weights that train make it outdated; the step trains with them."""
        return False

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the logarithm of the step."""
        return {"log_step": self.log_step.detach()}

    def levels(self, x: torch.Tensor) -> torch.Tensor:
        """Return the whole number of steps that is nearest to every entry, in float32 at least."""
        wide = (x if x.dtype == torch.float64 else x.float()) / self.log_step.exp()
        return wide + (wide.round() - wide).detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` rounded to whole steps."""
        return (self.levels(x) * self.log_step.exp()).to(x.dtype)

    def dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is nearer to zero than to a step."""
        return self.levels(x) == 0

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        # Not Selection's, which knows buffers alone.
        applied: Self = nn.Module._apply(self, moved, recurse)  # type: ignore[no-untyped-call]
        return applied
