"""A recipe for the experts of mixtures: which of them go."""

from __future__ import annotations

__all__ = ["ExpertRecipe", "Seen"]

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch

from ..core.errors import OptionError
from ..core.notebook import html_of_parts
from ..core.options import check_choice
from ..parts.experts import Routing
from .recipe import Recipe
from .written import Written


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
class ExpertRecipe(Written, ABC):
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

    Attributes
    ----------
    searches : bool
        Whether it takes the loss of the model; none does.

    Raises
    ------
    OptionError
        If an option is out of range.
    """

    searches: ClassVar[bool] = False
    density: float | None = None
    least: int = 0
    few: str = "borrow"

    def __post_init__(self) -> None:
        if self.density is not None and not 0 < self.density < 1:
            raise OptionError(
                f"density {self.density} is out of range; it is the share of weights to keep, "
                "above 0 and below 1"
            )
        if self.least < 0:
            raise OptionError(f"least {self.least} is out of range; it is 0 tokens or more")
        check_choice("few", self.few, ("keep", "borrow", "stop"))

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_of_parts(self)

    @property
    def target(self) -> float:
        """The density to reach."""
        if self.density is None:
            raise OptionError("say how much to keep: density=0.8")
        return self.density

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

    def with_density(self, density: float | None) -> Self:
        """Return this recipe with another density; None keeps it."""
        return self if density is None else dataclasses.replace(self, density=density)
