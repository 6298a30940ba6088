"""Penalties on the Euclidean norms of blocks of coefficients."""

from __future__ import annotations

__all__ = ["Grouped", "Rows", "group_lasso", "sparse_group_lasso"]

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from ...core import prox
from ...core.errors import OptionError
from ...core.options import check_number
from .base import Penalty
from .dual_norms import Feasible, blocks_with_l1, l1_like
from .magnitudes import Kind, Separable, unit_vectors
from .separable import L1


class _Blocks(Penalty):
    """A radial penalty of block norms plus ``l1`` times the L1 norm of all coefficients."""

    radial: Separable
    l1: float

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Whether the radial penalty is convex."""
        return self.radial.convex

    def _check(self) -> None:
        check_number("l1", self.l1)
        if not self.radial.of_norms:
            raise OptionError(
                f"{type(self.radial).__name__} is for coefficients, not for norms of blocks; use L1"
            )

    def norms(self, coef: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of every block."""
        raise NotImplementedError

    def spread(self, per_block: np.ndarray) -> np.ndarray:
        """Return per-block numbers repeated so that they broadcast against coefficients."""
        raise NotImplementedError

    def value(self, coef: np.ndarray) -> float:
        """Return the penalty at `coef`."""
        return self.radial.value(self.norms(coef)) + self.l1 * float(np.sum(np.abs(coef)))

    def prox(self, x: np.ndarray, step: float) -> np.ndarray:
        """Return the proximal point: soft thresholding, then the radial prox of the norms.

        That the two can be taken one after the other is proposition 1 of Friedman, Hastie
        and Tibshirani, A note on the group lasso and a sparse group lasso (2010), and of Yu,
        On decomposing the proximal map (2013), for radial functions in general.
        """
        shrunk = prox.soft(x, step * self.l1)
        norms = self.norms(shrunk)
        scale = self.radial.prox(norms, step) / np.where(norms > 0, norms, 1.0)
        return shrunk * self.spread(scale)

    def subdifferential_distance(
        self, coef: np.ndarray, gradient: np.ndarray, curvature: float = 1.0
    ) -> np.ndarray:
        """Return the distance of ``-gradient`` from the subdifferential, per block."""
        norms = self.norms(coef)
        slope = self.radial.derivatives(np.where(norms > 0, norms, 1.0))
        direction = coef * self.spread(slope / np.where(norms > 0, norms, 1.0))
        inside = np.sign(gradient) * np.maximum(np.abs(gradient) - self.l1, 0)
        moving = np.where(coef != 0, gradient + self.l1 * np.sign(coef) + direction, inside)
        at_zero = np.maximum(self.norms(inside) - self.radial.slope_at_zero, 0)
        return np.where(norms > 0, self.norms(moving), at_zero)

    def generalized_support(self, coef: np.ndarray) -> np.ndarray:
        """Return the coefficients whose block is not zero or not penalised."""
        free = self.radial.generalized_support(self.norms(coef))
        return np.broadcast_to(self.spread(free), coef.shape)

    def unpenalised(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the features of the blocks that have no slope at zero."""
        if self.l1:
            return np.zeros(shape[0], dtype=bool)
        free = self.radial.unpenalised((len(self.norms(np.zeros(shape))),))
        spread = np.broadcast_to(self.spread(free), shape)
        return np.asarray(spread if spread.ndim == 1 else spread[:, 0])

    def free_directions(self, shape: tuple[int, ...]) -> sparse.csc_array:
        """Return the coefficients of the blocks without a penalty."""
        blocks = len(self.norms(np.zeros(shape)))
        free = np.zeros(blocks, dtype=bool)
        if not self.l1:
            free[self.radial.free_directions((blocks,)).indices] = True
        return unit_vectors(np.broadcast_to(self.spread(free), shape).reshape(shape[0], -1)[:, 0])

    def feasible(self, gradient: np.ndarray) -> Feasible | None:
        """Make a gradient feasible for L1-like norms of blocks, with or without an L1 term."""
        ridge = np.asarray(self.radial.shape)
        if not (self.radial.kind is Kind.ELASTIC_NET and (self.radial.is_l1_like or self.l1)):
            return None
        if self.l1 and not ridge:
            return Feasible(blocks_with_l1(self, gradient))
        pull = self.norms(np.maximum(np.abs(gradient) - self.l1, 0))
        return l1_like(pull, self.radial.strength, ridge)

    def scaled(self, factor: float) -> Penalty:
        """Return the penalty with both terms multiplied by `factor`."""
        return replace(self, radial=self.radial.scaled(factor), l1=self.l1 * factor)  # type: ignore[type-var]


@dataclass(frozen=True)
class Grouped(_Blocks):
    """Any separable penalty, applied to the norms of groups of coefficients.

    Parameters
    ----------
    radial : Separable
        Penalty of the norms; its weights are one per group. With :class:`L1` this is the
        group Lasso, with :class:`MCP` the group MCP.
    groups : array of int of shape (p,)
        Which group each coefficient belongs to, from 0 to the number of groups less one.
    l1 : float, default 0
        Strength of an added L1 norm: with an L1 radial part, the sparse group Lasso.

    Raises
    ------
    OptionError
        If a group number is missing, or `l1` is negative.
    """

    radial: Separable
    groups: Any
    l1: float = 0.0

    def __post_init__(self) -> None:
        groups, _ = _numbered(self.groups)
        self._check()
        object.__setattr__(self, "groups", groups)

    @cached_property
    def members(self) -> tuple[np.ndarray, np.ndarray]:
        """Start of each group in the list of coefficients sorted by group, and that list."""
        order = np.argsort(self.groups, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.groups))])
        return starts.astype(np.int64), order.astype(np.int64)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        if len(shape) > 1:
            return "groups are for a loss of a single output; use Rows for several"
        if len(self.groups) != shape[0]:
            return f"groups has {len(self.groups)} entries for {shape[0]} columns"
        return self.radial.refusal((int(self.groups.max()) + 1,))

    def norms(self, coef: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of every group."""
        return np.sqrt(np.bincount(self.groups, weights=coef**2))

    def spread(self, per_block: np.ndarray) -> np.ndarray:
        """Return the number of its group for every coefficient."""
        return per_block[self.groups]

    def restricted(self, columns: np.ndarray) -> Grouped:
        """Return the penalty of some coefficients, which must be whole groups."""
        kept, groups = np.unique(self.groups[columns], return_inverse=True)
        return Grouped(self.radial.restricted(kept), groups, self.l1)


@dataclass(frozen=True)
class Rows(_Blocks):
    """Any separable penalty, applied to the norms of the rows of a coefficient matrix.

    A row holds the coefficients of one feature for all tasks or classes, so that a feature
    is used by all of them or by none.

    Parameters
    ----------
    radial : Separable
        Penalty of the norms; its weights are one per feature.

    References
    ----------
    Obozinski, Taskar and Jordan, Joint covariate selection and joint subspace selection for
    multiple classification problems (2010).
    """

    radial: Separable
    l1: float = 0.0

    def __post_init__(self) -> None:
        self._check()

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Say why coefficients of a shape are not taken; None if they are."""
        if len(shape) == 1:
            return "rows need a loss of several outputs; use Grouped for a single one"
        return self.radial.refusal(shape[:1])

    def norms(self, coef: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of every row."""
        return np.linalg.norm(coef, axis=1)

    def spread(self, per_block: np.ndarray) -> np.ndarray:
        """Return the numbers as a column."""
        return per_block[:, None]

    def restricted(self, columns: np.ndarray) -> Rows:
        """Return the penalty of some rows."""
        return Rows(self.radial.restricted(columns), self.l1)


def group_lasso(groups: Any, alpha: float = 1.0, weights: Any = None) -> Grouped:
    """Return the group Lasso penalty ``alpha * sum_g weights_g ||w_g||_2``.

    Parameters
    ----------
    groups : array of int of shape (p,)
        The group of each coefficient, numbered from 0.
    alpha : float, default 1
        Strength.
    weights : array of shape (n_groups,), optional
        The square roots of the group sizes by default, so that large groups are not
        favoured.

    References
    ----------
    Yuan and Lin, Model selection and estimation in regression with grouped variables (2006).
    """
    return sparse_group_lasso(groups, alpha, 0.0, weights)


def sparse_group_lasso(
    groups: Any, alpha: float = 1.0, l1_ratio: float = 0.95, weights: Any = None
) -> Grouped:
    """Return ``alpha * (l1_ratio ||w||_1 + (1 - l1_ratio) sum_g weights_g ||w_g||_2)``.

    Parameters
    ----------
    groups : array of int of shape (p,)
        The group of each coefficient, numbered from 0.
    alpha : float, default 1
        Strength.
    l1_ratio : float, default 0.95
        Share of the L1 norm, from 0 to 1; the authors' choice.
    weights : array of shape (n_groups,), optional
        The square roots of the group sizes by default.

    References
    ----------
    Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso (2013).
    """
    check_number("l1_ratio", l1_ratio, most=1.0)
    if weights is None:
        weights = np.sqrt(_numbered(groups)[1])
    return Grouped(L1(alpha * (1 - l1_ratio), weights), groups, alpha * l1_ratio)


def group_labels(groups: Any) -> np.ndarray:
    """Return groups as a vector, one label per coefficient.

    Raises
    ------
    OptionError
        If they are lists of members, which could overlap.
    """
    try:
        labels = np.asarray(groups)
        if labels.dtype == object and labels.ndim == 1 and all(isinstance(g, str) for g in labels):
            labels = labels.astype(str)
    except ValueError:  # lists of different lengths
        labels = np.empty((0, 0))
    if labels.ndim > 1 or labels.dtype == object:
        raise OptionError(
            "groups must be one label per column, such as [0, 0, 1]; lists of the members of each "
            "group, which could overlap, are not taken"
        )
    return labels


def numbered(groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of groups, sorted, and the place of each coefficient's among them.

    Parameters
    ----------
    groups : array of shape (p,)
        A label for each coefficient: numbers, or texts.

    Raises
    ------
    OptionError
        If they are lists of members, or a label is missing (None or NaN).
    """
    labels = group_labels(groups)
    if labels.dtype.kind == "f" and not np.all(np.isfinite(labels)):
        raise OptionError("groups must have a label for every column, got NaN or infinity")
    found, numbers = np.unique(labels, return_inverse=True)
    return found, numbers


def _numbered(groups: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the group of every coefficient, and the size of every group."""
    labels = group_labels(groups)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise OptionError("groups must be a non-empty vector of whole numbers")
    sizes = np.bincount(labels.astype(np.int64)) if labels.min() >= 0 else np.zeros(1)
    if sizes.min() == 0:
        raise OptionError(
            "group numbers must run from 0 without gaps; "
            "np.unique(groups, return_inverse=True)[1] renumbers them"
        )
    return labels.astype(np.int64), sizes
