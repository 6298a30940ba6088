"""Pruning in steps, each from data seen by what the step before it left."""

from __future__ import annotations

__all__ = ["prune_gradually"]

from typing import Any

from torch import nn

from ..core.errors import OptionError
from ..core.options import check_whole
from ..parts.schedules import Schedule
from .memory import as_recipe, prune
from .recipe import Recipe
from .record import PruneRecord


def prune_gradually(
    model: nn.Module,
    method: str | Recipe,
    data: Any = None,
    *,
    density: float,
    steps: int,
    schedule: str | Schedule = "cubic",
    **options: Any,
) -> PruneRecord:
    """Prune a model in place along falling densities, with its statistics taken anew each time.

    With ``"chita"`` it is CHITA++, with ``"m-fac"`` its gradual pruning, both without training in
    between.

    Parameters
    ----------
    model : nn.Module
        See :func:`~thresher.prune.memory.prune`.
    method : str or Recipe
        A method whose pattern does not fix the density by itself.
    data : optional
        Calibration data, the same in every step; a list where it is not a tensor or a text.
    density : float
        Share of weights that the last step keeps, in (0, 1).
    steps : int
        At least 1, which prunes in one shot.
    schedule : str or Schedule, default "cubic"
        How the density falls from 1; ends and clock of a schedule of one's own play no part.
    **options
        More of :func:`~thresher.prune.memory.prune`, given in every step.

    Returns
    -------
    PruneRecord
        Of the last step; its errors are relative to the weights that the step before it left.

    Raises
    ------
    OptionError
        If an option is out of range, or the pattern implies a density.
    ThresherError
        As of :func:`~thresher.prune.memory.prune`; the model is then as the last whole step left
        it, or pruned in part by the step that failed.

    References
    ----------
    Benbaki et al., Fast as CHITA (2023), section 3.3; Zhu and Gupta, To prune, or not to prune
    (2017), eq. 1, for the schedule.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> prune_gradually(model, "magnitude", density=0.25, steps=3).density
    0.25
    """
    check_whole("steps", steps)
    falling = Schedule.parse(schedule)
    recipe = as_recipe(method).with_options(density, options.pop("pattern", None))
    if recipe.pattern.density is not None:
        raise OptionError(
            f"pattern {recipe.pattern.spec} implies its density, which cannot fall in steps; use "
            "thresher.prune, or a pattern without one"
        )
    for step in range(1, steps):
        kept = density + (1 - density) * falling.remaining(step / steps)
        prune(model, recipe.with_options(kept), data, **options)
    return prune(model, recipe, data, **options)
