"""Methods that make a model smaller: which they are, and what they return."""

from __future__ import annotations

__all__ = ["as_smaller_recipe", "check_not_given", "make_smaller"]

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..core.card import find
from ..core.errors import OptionError
from ..core.remembered import remember, remembered
from ..stream.gradients import Loss
from .directions import prune_directions
from .expert_recipe import ExpertRecipe
from .experts import prune_experts
from .losses import default_loss
from .recipe import Recipe
from .record import PruneRecord
from .slicegpt import SliceGPT
from .smaller_recipe import SmallerRecipe
from .unit_recipe import UnitRecipe
from .units import prune_units


def make_smaller(
    model: nn.Module,
    recipe: SmallerRecipe,
    data: Any = None,
    *,
    example: Any = None,
    loss: Loss = default_loss,
    progress: bool = True,
    prune_weights: Callable[..., PruneRecord],
    **options: Any,
) -> nn.Module:
    """Return a smaller model, without units, experts or directions.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    recipe : SmallerRecipe
        With a density.
    data, example, loss, progress
        See :func:`thresher.prune`.
    prune_weights : callable
        ``thresher.prune``, for recipes that go on with the weights that are left.
    **options
        More of :func:`thresher.prune`.

    Raises
    ------
    ThresherError
        See :func:`thresher.prune`.
    """
    if isinstance(recipe, UnitRecipe):
        return prune_units(
            model, recipe, data, example=example, loss=loss, progress=progress, **options
        )
    if isinstance(recipe, SliceGPT):
        return prune_directions(model, recipe, data, example=example, progress=progress, **options)
    assert isinstance(recipe, ExpertRecipe)
    small = prune_experts(model, recipe, data, **options)
    record: PruneRecord = remembered(small)
    density = recipe.target / record.density
    if recipe.then is not None and density < 1:
        options |= {"unseen": "dense" if recipe.few == "keep" else "magnitude"}
        also = prune_weights(
            small, recipe.then, data, density=density, progress=progress, **options
        )
        record.add_weights(also)
        remember(small, record)
    return small


def as_smaller_recipe(method: str | Recipe | SmallerRecipe) -> SmallerRecipe | None:
    """Return the recipe that `method` is or names; None where it does not make models smaller."""
    if isinstance(method, str) and issubclass(kind := find(method), SmallerRecipe):
        return kind()
    return method if isinstance(method, SmallerRecipe) else None


def check_not_given(given: Mapping[str, Any], recipe: SmallerRecipe) -> None:
    """Raise if an option was given that making a model smaller has no use for."""
    for name, value in given.items():
        if value is not None:
            raise OptionError(
                f"{type(recipe).__name__} removes whole {recipe.removes}, and has no {name}; leave "
                f"{name} away"
            )
