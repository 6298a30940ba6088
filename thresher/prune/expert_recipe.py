"""A recipe for the experts of mixtures: which of them go."""

from __future__ import annotations

__all__ = ["ExpertRecipe", "Seen"]

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..core.errors import OptionError
from ..core.options import check_choice
from ..parts.experts import Routing
from .recipe import Recipe
from .smaller_recipe import SmallerRecipe


@dataclass(frozen=True)
class Seen:
    """What there is to know of a mixture of experts.

    Parameters
    ----------
    routing : Routing
        Whom the calibration data chose.
    rows : Tensor of shape (experts, width)
        Of the router.
    weights : sequence of Tensor of shape (experts, ...)
        Of the experts.
    keep : int
        How many experts are to stay.
    always : Tensor of bool, shape (experts,)
        Those of which the data says too little to remove them.
    borrowing : Tensor of bool, shape (experts,)
        Those of which it says too little, and that are judged by what it says of others.
    """

    routing: Routing
    rows: torch.Tensor
    weights: Sequence[torch.Tensor]
    keep: int
    always: torch.Tensor
    borrowing: torch.Tensor


@dataclass(frozen=True)
class ExpertRecipe(SmallerRecipe, ABC):
    """Parts that together make a mixture of experts smaller.

    Parameters
    ----------
    density : float, optional
        Share of the layers' weights to keep, in (0, 1).
    least : int, default 0
        Tokens that an expert must have been chosen by, to be judged by what they say of it.
    few : {"keep", "borrow", "stop"}, default "borrow"
        What becomes of experts that fewer tokens chose: they stay, they are judged by the mean
        of the others, or it is an error.

    Raises
    ------
    OptionError
        If an option is out of range.
    """

    removes: ClassVar[str] = "experts"
    density: float | None = None
    least: int = 0
    few: str = "borrow"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least < 0:
            raise OptionError(f"least {self.least} is out of range; it is 0 tokens or more")
        check_choice("few", self.few, ("keep", "borrow", "stop"))

    @property
    def then(self) -> Recipe | None:
        """What prunes the weights of the experts that stay, to reach the density; none here."""
        return None

    @property
    def of_experts(self) -> float:
        """The share of the layers' weights that stays when experts are removed."""
        return self.target

    @abstractmethod
    def choose(self, mixture: Seen) -> list[int]:
        """Return the experts of one mixture to keep, in order.

        Parameters
        ----------
        mixture : Seen
            What there is to know of it.
        """
