"""ARMOR: a semi-structured core between two block-diagonal matrices."""

from __future__ import annotations

__all__ = ["ARMOR", "WrappedCore"]

import itertools
from dataclasses import dataclass

import torch

from ..core.card import Card, Catalogued
from ..core.errors import LayerError, OptionError
from ..core.options import check_whole
from ..parts.linalg import damped
from ..parts.patterns import NM


@dataclass(frozen=True)
class WrappedCore:
    """A weight as ``left @ core @ right``, with block-diagonal outer factors.

    Parameters
    ----------
    left : Tensor of shape (rows / block, block, block)
        Blocks of A along its diagonal.
    core : Tensor of shape (rows, columns)
        Sparse.
    right : Tensor of shape (columns / block, block, block)
        Blocks of B along its diagonal.
    losses : tuple of float
        The proxy loss before the first sweep and after each.
    """

    left: torch.Tensor
    core: torch.Tensor
    right: torch.Tensor
    losses: tuple[float, ...] = ()

    def matrix(self) -> torch.Tensor:
        """Return the product, dense, of shape (rows, columns)."""
        return _wrapped(self.left, self.core, self.right)


@dataclass(frozen=True)
class ARMOR(Catalogued):
    """Factor a weight into a sparse core and two block-diagonal matrices that correct its errors.

    The product is dense: there is no stock format whose layers are three factors, so that this
    class gives factors, and leaves the model alone.

    Parameters
    ----------
    pattern : NM, default NM(2, 4)
        Of the core.
    block : int, default 32
        Rows and columns of the blocks of both outer factors; a multiple of the pattern's M.
    sweeps : int, default 50
        Each solves for both outer factors, takes a step in the core and chooses one group of
        every block of the core anew.
    seed : int, default 0
        Of the groups.

    Raises
    ------
    OptionError
        If the block is no multiple of the pattern's M or no whole number above 0, or the pattern
        is along the outputs.

    References
    ----------
    Liu et al., ARMOR (2025), sections 3.1 to 3.3, for factors, loss, start and groups; the outer
    factors are solved for exactly where the paper takes gradient steps.

    Examples
    --------
    >>> found = ARMOR(block=4, sweeps=5).factor(torch.randn(8, 8), torch.ones(8))
    >>> int((found.core != 0).sum())
    32
    """

    pattern: NM = NM(2, 4)
    block: int = 32
    sweeps: int = 50
    seed: int = 0
    card = Card(
        name="armor",
        title="ARMOR: High-Performance Semi-Structured Pruning via Adaptive Matrix Factorization",
        authors="Lawrence Liu et al.",
        year=2025,
        arxiv="2510.05528",
        summary="Wrap a 2:4 core in two block-diagonal matrices that correct its errors.",
    )

    def __post_init__(self) -> None:
        check_whole("block", self.block)
        check_whole("sweeps", self.sweeps, 0)
        if self.pattern.along != "inputs":
            raise OptionError(
                f"pattern {self.pattern.spec} is along the outputs; groups of the core are along "
                "the inputs"
            )
        if self.block % self.pattern.m:
            raise OptionError(
                f"block {self.block} is no multiple of the {self.pattern.m} of pattern "
                f"{self.pattern.spec}"
            )

    @torch.no_grad()
    def factor(self, weight: torch.Tensor, squares: torch.Tensor) -> WrappedCore:
        """Return factors whose proxy loss is at most that of pruning without them.

        Parameters
        ----------
        weight : Tensor of shape (rows, columns)
            Both multiples of the block.
        squares : Tensor of shape (columns,)
            Mean squares of the inputs.

        Raises
        ------
        LayerError
            If the block does not divide the shape.

        Notes
        -----
        With W normalised, its columns by their norms and then its rows, and d the mean squares,
        the loss is ``sum_ij d_j (W - A C B)_ij^2``. Only the last of A, B and C that is changed
        counts, and each change is the best there is or none, so that the loss never rises.
        """
        if any(size % self.block for size in weight.shape):
            raise LayerError(
                f"a weight of shape {tuple(weight.shape)} is not made of blocks of {self.block}; "
                "choose a block that divides both"
            )
        columns = _positive(weight.norm(dim=0))
        rows = _positive((weight / columns).norm(dim=1))
        normal = weight / columns / rows.unsqueeze(1)
        search = _Search(normal, squares, self.pattern, self.block)
        losses = [search.loss()]
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.sweeps):
            search.solve_left()
            search.solve_right()
            search.move_core()
            search.choose_groups(generator)
            losses.append(search.loss())
        left = rows.reshape(-1, self.block, 1) * search.left
        right = search.right * columns.reshape(-1, 1, self.block)
        return WrappedCore(left, search.core, right, tuple(losses))


class _Search:
    """The three factors, each improved while the others stay."""

    def __init__(
        self, weight: torch.Tensor, squares: torch.Tensor, pattern: NM, block: int
    ) -> None:
        self.weight, self.squares, self.pattern, self.block = weight, squares, pattern, block
        keep = pattern.count(weight.shape, pattern.n / pattern.m)
        self.mask = pattern.mask(weight.square() * squares, keep)
        self.core = weight * self.mask
        identity = torch.eye(block, dtype=weight.dtype, device=weight.device)
        self.left = identity.repeat(weight.shape[0] // block, 1, 1)
        self.right = identity.repeat(weight.shape[1] // block, 1, 1)

    def loss(self) -> float:
        return float((self._missing().square() * self.squares).sum(dtype=torch.float64))

    def solve_left(self) -> None:
        """Solve ``W D Z^T = A Z D Z^T`` for every block of A, with Z = C B."""
        made = _by_rows(_times_right(self.core, self.right), self.block)
        weighted = (made * self.squares).mT
        gram = damped(made @ weighted, 1e-6)
        right = _by_rows(self.weight, self.block) @ weighted
        self._keep("left", torch.linalg.solve(gram, right.mT).mT)

    def solve_right(self) -> None:
        """Solve ``Y^T W = Y^T Y B`` for every block of B, with Y = A C; d plays no part in it."""
        made = _by_columns(_times_left(self.left, self.core), self.block)
        gram = damped(made.mT @ made, 1e-6)
        right = made.mT @ _by_columns(self.weight, self.block)
        self._keep("right", torch.linalg.solve(gram, right))

    def move_core(self) -> None:
        """Take the best step of the core along its gradient, on its support."""
        missing = self._missing()
        direction = self._pulled(missing * self.squares) * self.mask
        made = _wrapped(self.left, direction, self.right)
        curvature = (made.square() * self.squares).sum()
        if curvature > 0:
            length = (missing * made * self.squares).sum() / curvature
            self._keep("core", self.core + length * direction)

    def choose_groups(self, generator: torch.Generator) -> None:
        """Choose one group of every block of the core anew, with the weights that are then best.

        Of two blocks of the core no product reaches what the other's does, so that all are
        chosen at once.
        """
        m, block = self.pattern.m, self.block
        down, across = self.core.shape[0] // block, self.core.shape[1] // block
        rows = torch.randint(block, (down, across), generator=generator)
        starts = m * torch.randint(block // m, (down, across), generator=generator)
        rows = (rows + block * torch.arange(down).unsqueeze(1)).unsqueeze(-1)
        places = starts + block * torch.arange(across)
        places = places.unsqueeze(-1) + torch.arange(m)
        pulled = self._pulled(self._missing() * self.squares)[rows, places]
        length = self.left.square().sum(1).flatten()[rows].unsqueeze(-1)
        gram = self._row_products()[places.unsqueeze(-1), (places % block).unsqueeze(-2)]
        gram = damped(length * gram, 1e-6)
        old = self.core[rows, places]
        right = pulled + (gram @ old.unsqueeze(-1)).squeeze(-1)
        best, gain = old, _gain(old, gram, right)
        for chosen in itertools.combinations(range(m), self.pattern.n):
            index = torch.tensor(chosen, device=old.device)
            part = torch.linalg.solve(gram[..., index.unsqueeze(1), index], right[..., index])
            proposed = torch.zeros_like(old).index_copy(-1, index, part)
            value = _gain(proposed, gram, right)
            better = (value > gain).unsqueeze(-1)
            best, gain = torch.where(better, proposed, best), torch.maximum(gain, value)
        core, mask = self.core.clone(), self.mask.clone()
        core[rows, places] = best
        before = self.core
        self._keep("core", core)
        if self.core is not before:
            mask[rows, places] = best != 0
            self.mask = mask

    def _keep(self, name: str, proposed: torch.Tensor) -> None:
        """Change a factor unless that raises the loss, as rounding may."""
        before, loss = getattr(self, name), self.loss()
        setattr(self, name, proposed)
        if not self.loss() <= loss:
            setattr(self, name, before)

    def _missing(self) -> torch.Tensor:
        return self.weight - _wrapped(self.left, self.core, self.right)

    def _pulled(self, change: torch.Tensor) -> torch.Tensor:
        """Return ``A^T R B^T``, the part of a change that each entry of the core reaches."""
        return _wrapped(self.left.mT, change, self.right.mT)

    def _row_products(self) -> torch.Tensor:
        """Return ``B D B^T`` within every block, of shape (columns, block)."""
        squares = self.squares.reshape(-1, 1, self.block)
        return ((self.right * squares) @ self.right.mT).flatten(0, 1)


def _wrapped(left: torch.Tensor, core: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return _times_right(_times_left(left, core), right)


def _times_left(left: torch.Tensor, core: torch.Tensor) -> torch.Tensor:
    return (left @ _by_rows(core, left.shape[-1])).flatten(0, 1)


def _times_right(core: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (_by_columns(core, right.shape[-1]) @ right).transpose(0, 1).flatten(1)


def _by_rows(matrix: torch.Tensor, block: int) -> torch.Tensor:
    """Return blocks of rows, of shape (rows / block, block, columns)."""
    return matrix.reshape(-1, block, matrix.shape[1])


def _by_columns(matrix: torch.Tensor, block: int) -> torch.Tensor:
    """Return blocks of columns, of shape (columns / block, rows, block)."""
    return matrix.reshape(len(matrix), -1, block).transpose(0, 1)


def _gain(group: torch.Tensor, gram: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return by how much a group of the core lowers the loss."""
    made = (gram @ group.unsqueeze(-1)).squeeze(-1)
    return (group * (2 * right - made)).sum(-1)


def _positive(norms: torch.Tensor) -> torch.Tensor:
    return torch.where(norms > 0, norms, 1)
