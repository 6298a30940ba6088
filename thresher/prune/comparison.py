"""A comparison of methods, as data: what is pruned how, and what was found of each."""

from __future__ import annotations

__all__ = ["DENSE", "Cell", "ComparedModel", "Comparison", "cells_of"]

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import OptionError
from ..parts.patterns import Pattern
from .memory import as_recipe, method_name
from .recipe import Recipe
from .smaller import as_smaller_recipe
from .smaller_recipe import SmallerRecipe

#: Name of the row of the model as it was.
DENSE = "dense"


@dataclass(frozen=True)
class Cell:
    """One pruned model of a comparison.

    Parameters
    ----------
    method : str
        Name of a method that prunes a trained model.
    density : float, optional
        Share of the prunable weights to keep, where the pattern does not say it.
    pattern : str, optional
        In place of the method's own.

    Raises
    ------
    OptionError
        If there is no such method or pattern, or the density is out of range or missing.
    """

    method: str
    density: float | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        self.recipe.target  # noqa: B018 - raises now if nothing says how much to keep

    @property
    def recipe(self) -> Recipe | SmallerRecipe:
        """What the method is at this density and pattern."""
        smaller = as_smaller_recipe(self.method)
        if smaller is not None:
            return self._without_parts(smaller)
        return as_recipe(self.method).with_options(density=self.density, pattern=self.pattern)

    @property
    def name(self) -> str:
        """Name of the model's folder, such as ``"wanda-0.5"`` and ``"wanda-2of4"``."""
        pattern = re.sub(r"[^\w.]+", "-", (self.pattern or "").replace(":", "of"))
        density = "" if self.density is None else f"{self.density:g}"
        return "-".join(part for part in (self.method, pattern, density) if part)

    def row(self) -> ComparedModel:
        """Return the row of this model, before anything is known of it."""
        recipe = self.recipe
        pattern = recipe.removes if isinstance(recipe, SmallerRecipe) else recipe.pattern.spec
        return ComparedModel(self.name, self.method, pattern, recipe.target)

    def _without_parts(self, recipe: SmallerRecipe) -> SmallerRecipe:
        if self.pattern is not None:
            raise OptionError(
                f"method {self.method!r} removes whole {recipe.removes}, and has no pattern "
                f"{self.pattern!r}; leave the pattern away"
            )
        return recipe.with_density(self.density)


def cells_of(
    methods: Sequence[str], densities: Sequence[float] = (), patterns: Sequence[str] = ()
) -> list[Cell]:
    """Return every model of a comparison, each once, method by method.

    Parameters
    ----------
    methods : sequence of str
        Names of methods.
    densities : sequence of float, optional
        Shares of weights to keep, in every pattern of free density, or else in the methods' own.
        Methods that remove whole parts have no pattern.
    patterns : sequence of str, optional
        Those that imply a density, such as 2:4, are taken once.

    Raises
    ------
    OptionError
        If no method is named, neither a density nor a pattern is, or one is not known.
    """
    if not methods:
        raise OptionError("no method is named; name at least one, such as methods='sparsegpt'")
    for method in methods:
        if not isinstance(method, str):
            raise OptionError(f"methods are compared by their names, got {method!r}")
    if not densities and not patterns:
        raise OptionError("say how much to keep: density=0.5, or a pattern such as '2:4'")
    fixed = [p for p in patterns if Pattern.parse(p).density is not None]
    free: list[str | None] = [p for p in patterns if p not in fixed]
    for pattern in free if not densities else ():
        raise OptionError(f"pattern {pattern} says not how much to keep; add density=0.5")
    kinds: list[tuple[float | None, str | None]]
    kinds = [(d, p) for d in densities for p in free or [None]]
    kinds += [(None, p) for p in fixed]
    of_parts: list[tuple[float | None, str | None]] = [(d, None) for d in densities]
    of_parts = of_parts or [(None, None)]
    found = []
    for method in methods:
        smaller = as_smaller_recipe(method)
        name = method_name(as_recipe(method) if smaller is None else smaller)
        found += [Cell(name, d, p) for d, p in (kinds if smaller is None else of_parts)]
    return list(dict.fromkeys(found))


@dataclass
class ComparedModel:
    """A row of a comparison: a model, and what was found of it.

    Parameters
    ----------
    name : str
        Of the row and of the model's folder.
    method : str
        Name of the method, ``"dense"`` for the model as it was.
    pattern : str
        As users write it.
    density_asked : float
        Share of the prunable weights to keep.
    density : float, optional
        Share that was kept.
    perplexity, other_perplexity : float, optional
        On held-out windows of the calibration text, and on the other text.
    kl : float, optional
        Mean divergence from the dense model's next-token distribution on the held-out windows,
        in nats.
    top1_agreement : float, optional
        Share of the held-out positions where both models rank the same token first.
    seconds : float, optional
        Time to prune, and to heal.
    peak_bytes : int, optional
        Peak resident memory of the process that did it.
    stored_bytes : int, optional
        Of the weights in the folder.
    packed_bytes : int, optional
        Of the weights in memory, packed for this machine in bfloat16; the dense model's in the
        dtype that is faster here.
    tokens_per_second : float, optional
        Generating text, one sequence at a time.
    speedup, speedup_least, speedup_most : float, optional
        That rate over the dense model's in the same run, and its extremes in single repeats.
    noisy : bool
        Whether the machine was too busy for the ratio to be trusted.
    layouts : str
        In what the layers are packed; ``"dense"`` where nothing was faster.
    dtype : str
        Of the weights while text was generated.
    tasks : dict of str to dict
        What was measured of each task, see :func:`~thresher.run.tasks.evaluate_tasks`.
    error : str
        Why there is no such model; empty if there is.
    missing : dict of str to str
        Why a figure could not be had, by the name of the figure.
    """

    name: str
    method: str
    pattern: str
    density_asked: float
    density: float | None = None
    perplexity: float | None = None
    other_perplexity: float | None = None
    kl: float | None = None
    top1_agreement: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    stored_bytes: int | None = None
    packed_bytes: int | None = None
    tokens_per_second: float | None = None
    speedup: float | None = None
    speedup_least: float | None = None
    speedup_most: float | None = None
    noisy: bool = False
    layouts: str = ""
    dtype: str = ""
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    error: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def evaluated(self) -> bool:
        """Whether all but the speed is known."""
        return self.perplexity is not None and not self.error

    @property
    def timed(self) -> bool:
        """Whether the speed is known."""
        return self.speedup is not None


@dataclass
class Comparison:
    """Methods compared on one model, at one budget, on one text.

    Parameters
    ----------
    model : str
        The dense model's folder.
    text : dict
        What models were calibrated and evaluated on: ``source``, ``windows``, ``length``,
        ``held_out``, ``other``.
    heal : float, optional
        Minutes for which every pruned model was healed.
    parallel : int
        How many models were made at a time.
    rows : list of ComparedModel
        The dense model first.
    missing : dict of str to str
        Why a column is empty, by the name of the figure.
    fingerprint : str
        Of the model, text, options and versions.
    versions : dict of str to str
        Of Thresher, torch and others.
    machine : str
        The processor.
    """

    model: str
    text: dict[str, Any]
    heal: float | None = None
    parallel: int = 1
    rows: list[ComparedModel] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as plain data, such as a data frame is made of."""
        return [dataclasses.asdict(row) for row in self.rows]
