"""What recipes that make a model smaller have in common."""

from __future__ import annotations

__all__ = ["SmallerRecipe"]

import dataclasses
import numbers
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from ..core.errors import OptionError
from ..core.notebook import html_of_parts
from .written import Written

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class SmallerRecipe(Written):
    """Base class of recipes that remove whole parts of a model, as dataclasses with a `density`.

    Attributes
    ----------
    removes : str
        What they remove, such as ``"units"``.
    searches : bool
        Whether it takes the loss of the model.
    stock : bool
        Whether a model of transformers loses only what its configuration can say, so that it
        loads everywhere.
    density : float or None
        Share of the layers' weights to keep, in (0, 1).

    Raises
    ------
    OptionError
        If `density` is out of range.
    """

    removes: ClassVar[str]
    searches: ClassVar[bool] = False
    stock: bool = True
    density: float | None

    def __post_init__(self) -> None:
        if self.density is None:
            return
        if not isinstance(self.density, numbers.Real) or not 0 < self.density < 1:
            raise OptionError(
                f"density {self.density!r} is out of range; it is the share of weights to keep, "
                "above 0 and below 1"
            )

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_of_parts(self)

    @property
    def target(self) -> float:
        """The density to reach."""
        if self.density is None:
            raise OptionError("say how much to keep: density=0.8")
        return self.density

    def with_density(self, density: float | None) -> Self:
        """Return this recipe with another density; None keeps it."""
        if density is None:
            return self
        changed: Any = dataclasses.replace(cast("DataclassInstance", self), density=density)
        return cast("Self", changed)
