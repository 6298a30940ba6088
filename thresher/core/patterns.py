"""Patterns: which supports are allowed? The projection of a score onto the allowed masks.

A pattern sees a score as a matrix of shape (..., rows, columns) and keeps a number of
entries of greatest total score among those its constraint allows.
"""

from __future__ import annotations

__all__ = [
    "NM",
    "Block",
    "Channels",
    "FanIn",
    "Pattern",
    "SharedRows",
    "Unstructured",
    "parse",
]

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .errors import LayerError, OptionError, nearest
from .top_k import top_k_mask


class Pattern(ABC):
    """Base class of patterns.

    Attributes
    ----------
    density : float or None
        The density that the pattern itself implies, such as 0.5 for 2:4.
    column_step : int or None
        The choice may be made separately in column blocks whose width is a multiple of
        this; None when it needs every column at once.
    swap_width : int or None
        Within this many aligned columns a kept and a removed weight of one row may trade
        places; 0 means the whole row, None that no trade is allowed.
    """

    density: float | None = None
    column_step: int | None = 1
    swap_width: int | None = 0

    @abstractmethod
    def quantum(self, shape: Sequence[int]) -> int:
        """Return the smallest step, in weights, between two allowed counts.

        Parameters
        ----------
        shape : sequence of int
            Matrix shape (..., rows, columns).

        Returns
        -------
        int
            Every allowed count is a multiple of it.

        Raises
        ------
        LayerError
            If no mask of this pattern fits the shape.
        """

    @abstractmethod
    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Return the allowed mask with `keep` entries and the greatest total score.

        Parameters
        ----------
        score : Tensor of shape (..., rows, columns)
            Larger = keep; no NaN.
        keep : int
            A multiple of :meth:`quantum`, from 0 to the number of entries.

        Returns
        -------
        Tensor of bool
            Same shape as `score`.
        """

    def count(self, shape: Sequence[int], density: float) -> int:
        """Return the allowed count nearest to `density` times the number of entries."""
        quantum = self.quantum(shape)
        return quantum * math.floor(density * math.prod(shape) / quantum + 0.5)

    @property
    @abstractmethod
    def spec(self) -> str:
        """The text that :func:`parse` turns back into this pattern."""


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weights.

    Parameters
    ----------
    per : {"tensor", "row"}, default "tensor"
        Whether weights compete across the whole matrix or within each output row, all rows
        keeping the same number. Wanda (Sun et al. 2023, section 3) compares per row.
    """

    per: str = "tensor"

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "row"):
            raise OptionError(f"weights compete per 'tensor' or per 'row', not per {self.per!r}")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return 1, or the number of rows."""
        return 1 if self.per == "tensor" else max(1, math.prod(shape[:-1]))

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the largest scores."""
        if self.per == "tensor":
            return _as_mask(top_k_mask(score, keep, axis=None))
        return _as_mask(top_k_mask(score, keep // self.quantum(score.shape)))

    @property
    def spec(self) -> str:
        """``"unstructured"`` or ``"per-row"``."""
        return "unstructured" if self.per == "tensor" else "per-row"


@dataclass(frozen=True)
class FanIn(Unstructured):
    """The same number of inputs for every output row (constant fan-in).

    References
    ----------
    Lasby et al., Dynamic Sparse Training with Structured Sparsity (2023), section 3.
    """

    per: str = "row"

    @property
    def spec(self) -> str:
        """``"fan-in"``."""
        return "fan-in"


@dataclass(frozen=True)
class NM(Pattern):
    """N weights kept among every M consecutive inputs of a row, or outputs of a column.

    Parameters
    ----------
    n, m : int
        ``0 < n <= m``. A budget that gives layers different densities varies N and leaves M.
    along : {"inputs", "outputs"}, default "inputs"
        Hardware knows 2:4 along the inputs; the layout ``n:m:g`` is along the outputs.

    Raises
    ------
    OptionError
        If `n` is not in 1..m, or `along` is something else.
    """

    n: int
    m: int
    along: str = "inputs"

    def __post_init__(self) -> None:
        if self.along not in ("inputs", "outputs"):
            raise OptionError(f"N:M is along 'inputs' or 'outputs', not along {self.along!r}")
        if not 0 < self.n <= self.m:
            raise OptionError(
                f"pattern {self.n}:{self.m} keeps {self.n} of every {self.m} weights; "
                "N must be at least 1 and at most M"
            )

    @property
    def density(self) -> float:  # type: ignore[override]
        """``n / m``."""
        return self.n / self.m

    @property
    def column_step(self) -> int:  # type: ignore[override]
        """Groups of M must not be cut."""
        return self.m if self.along == "inputs" else 1

    @property
    def swap_width(self) -> int | None:  # type: ignore[override]
        """Trades stay inside a group, and a row has none of its own along the outputs."""
        return self.m if self.along == "inputs" else None

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the number of groups."""
        size = shape[-1] if self.along == "inputs" else shape[-2]
        _require_multiple(size, self.m, self.along, f"pattern {self.spec}")
        return max(1, math.prod(shape) // self.m)

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the N largest of each group."""
        n = keep // self.quantum(score.shape)
        if self.along == "outputs":
            return NM(self.n, self.m).mask(score.mT, keep).mT.contiguous()
        groups = score.reshape(*score.shape[:-1], score.shape[-1] // self.m, self.m)
        return _as_mask(top_k_mask(groups, n)).reshape(score.shape)

    @property
    def spec(self) -> str:
        """``"N:M"`` or ``"N:M/outputs"``."""
        return f"{self.n}:{self.m}" + ("" if self.along == "inputs" else "/outputs")


@dataclass(frozen=True)
class Block(Pattern):
    """Whole blocks of `rows` x `columns` neighbouring weights.

    Parameters
    ----------
    rows, columns : int
        Block size; both must divide the matrix.
    """

    rows: int
    columns: int
    swap_width = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise OptionError(f"a block of {self.rows}x{self.columns} holds no weight")

    @property
    def column_step(self) -> int:  # type: ignore[override]
        """Blocks must not be cut."""
        return self.columns

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the size of a block."""
        _require_multiple(shape[-2], self.rows, "outputs", f"pattern {self.spec}")
        _require_multiple(shape[-1], self.columns, "inputs", f"pattern {self.spec}")
        return self.rows * self.columns

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the blocks of largest total score."""
        *batch, rows, columns = score.shape
        tall, wide = rows // self.rows, columns // self.columns
        blocks = score.reshape(*batch, tall, self.rows, wide, self.columns)
        chosen = _as_mask(top_k_mask(blocks.sum((-3, -1)), keep // self.quantum(score.shape), None))
        return chosen[..., :, None, :, None].expand_as(blocks).reshape(score.shape)

    @property
    def spec(self) -> str:
        """``"RxC"``."""
        return f"{self.rows}x{self.columns}"


@dataclass(frozen=True)
class Channels(Pattern):
    """Whole output channels, or groups of them such as attention heads.

    Parameters
    ----------
    size : int, default 1
        Consecutive output rows that are kept or removed together.
    """

    size: int = 1
    column_step = None
    swap_width = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"a channel group of {self.size} rows holds no weight")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the number of weights in a group."""
        _require_multiple(shape[-2], self.size, "outputs", f"pattern {self.spec}")
        return self.size * shape[-1]

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep the groups of largest total score."""
        whole = Block(self.size, score.shape[-1])
        return whole.mask(score, keep)

    @property
    def spec(self) -> str:
        """``"channels"`` or ``"channels/SIZE"``."""
        return "channels" if self.size == 1 else f"channels/{self.size}"


@dataclass(frozen=True)
class SharedRows(Pattern):
    """Groups of `size` output rows, neighbours or not, that keep the same inputs.

    Which rows form a group is chosen with the mask: by turns the best inputs are found for the
    groups and the best groups for the inputs, from groups of neighbours on, until the total score
    stops growing. The mask scores at least as much as that of ``Block(size, 1)`` but need not
    be the best of all.

    Parameters
    ----------
    size : int
        Rows of a group; it must divide the number of rows.

    References
    ----------
    Xu et al., SparseByteNN (2023): a kernel for groups of output channels, and channels
    rearranged so that groups retain more magnitude. The search is this library's own.
    """

    size: int
    column_step = None
    swap_width = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise OptionError(f"a group of {self.size} rows shares nothing")

    def quantum(self, shape: Sequence[int]) -> int:
        """Return the size of a group."""
        _require_multiple(shape[-2], self.size, "outputs", f"pattern {self.spec}")
        return self.size

    def mask(self, score: torch.Tensor, keep: int) -> torch.Tensor:
        """Keep inputs of large total score in groups of rows that suit each other."""
        blocks = Block(self.size, 1)
        stack = score.reshape(-1, *score.shape[-2:])
        order = torch.arange(stack.shape[1]).expand(stack.shape[:2])
        best, most = torch.zeros_like(stack, dtype=torch.bool), -math.inf
        while True:
            rows = order[:, :, None].expand_as(stack).to(stack.device)
            chosen = blocks.mask(stack.gather(1, rows), keep)
            mask = torch.zeros_like(chosen).scatter_(1, rows, chosen)
            total = float(stack[mask].double().sum())
            if not total > most:
                return best.reshape(score.shape)
            best, most = mask, total
            order = torch.stack(
                [
                    _suited_order(one.cpu(), inputs.cpu(), self.size)
                    for one, inputs in zip(stack, chosen[:, :: self.size], strict=True)
                ]
            )

    @property
    def spec(self) -> str:
        """``"shared/SIZE"``."""
        return f"shared/{self.size}"


def _suited_order(score: torch.Tensor, inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Return rows in an order in which every `size` of them score most on a group's inputs.

    Parameters
    ----------
    score : Tensor
        Shape (rows, columns).
    inputs : Tensor of bool
        What each group keeps, (rows / size, columns).
    size : int
        Rows per group.
    """
    from scipy.optimize import linear_sum_assignment

    huge = 1e30
    gains = score.double().clamp(-huge, huge) @ inputs.double().T
    places = gains.repeat_interleave(size, dim=1).numpy()
    rows, columns = linear_sum_assignment(places, maximize=True)
    order = torch.empty(score.shape[0], dtype=torch.int64)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order


_NAMED: dict[str, Pattern] = {
    "unstructured": Unstructured(),
    "per-row": Unstructured("row"),
    "fan-in": FanIn(),
    "channels": Channels(),
}


def parse(spec: str | Pattern) -> Pattern:
    """Return the pattern that `spec` names.

    Parameters
    ----------
    spec : str or Pattern
        ``"unstructured"``, ``"per-row"``, ``"fan-in"``, ``"2:4"`` (N:M),
        ``"2:4/outputs"``, ``"16x16"`` (blocks of rows x columns), ``"channels"``,
        ``"channels/64"`` or ``"shared/4"``; a pattern is returned as it is.

    Returns
    -------
    Pattern

    Raises
    ------
    OptionError
        If `spec` is none of these.
    """
    if isinstance(spec, Pattern):
        return spec
    text = spec.strip().lower()
    if text in _NAMED:
        return _NAMED[text]
    if found := re.fullmatch(r"(\d+):(\d+)(?:/(inputs|outputs))?", text):
        return NM(int(found[1]), int(found[2]), found[3] or "inputs")
    if found := re.fullmatch(r"(\d+)x(\d+)", text):
        return Block(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"channels/(\d+)", text):
        return Channels(int(found[1]))
    if found := re.fullmatch(r"shared/(\d+)", text):
        return SharedRows(int(found[1]))
    raise OptionError(
        f"there is no pattern {spec!r}; {nearest(text, _NAMED)}; or N:M such as 2:4, or a "
        "block such as 16x16"
    )


def _as_mask(mask: object) -> torch.Tensor:
    assert isinstance(mask, torch.Tensor)
    return mask


def _require_multiple(size: int, step: int, what: str, who: str) -> None:
    if size % step:
        raise LayerError(
            f"{who} needs a number of {what} divisible by {step}, and there are {size}; "
            "exclude the layer or choose another pattern"
        )
