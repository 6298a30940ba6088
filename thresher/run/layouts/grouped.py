"""Grouped N:M (n:m:g): N of M neighbouring rows, columns sorted by which ones they keep."""

from __future__ import annotations

__all__ = ["GroupedNofM"]

import itertools
import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from thresher.core.card import Card, Catalogued
from thresher.core.errors import LayerError, OptionError

from ...parts.patterns import NM
from .. import _run
from .buffers import FLOATS, Buffer, integers
from .kernel import KernelLayout, refuse_outside, value_dtypes
from .masked import NofM, refuse_groups

_CHUNK = 256
_MOST_M = 16


class GroupedNofM(KernelLayout, Catalogued):
    """N survivors in every column of M neighbouring rows, for moderate sparsity and larger batches.

    Columns are sorted by which of the C(M, N) patterns of rows they keep. The kernel takes one
    pattern after another with the sums of its rows in registers: no weight asks where it belongs,
    and an input that was loaded serves N rows. :class:`thresher.parts.patterns.nm.NM` along the
    outputs (``"2:4/outputs"``) prunes to it. It is made for float32 at batches of 16 and more. A
    single input is gathered from, at more than twice the speed of a kernel for 16, and the sums of
    a pattern are kept until all columns are done; other layouts remain faster there.
    :func:`thresher.run.pack` measures where it wins.

    Buffers, of G groups of M rows and K chunks of columns: ``counts``, uint16 (G, K, C(M, N)), how
    many columns of a chunk have each pattern, in lexicographic order; ``indices``, uint8
    (G, columns), which column of its chunk, sorted by pattern within each chunk; ``values``,
    (G, columns, N). Rows are filled up to whole groups, and columns with fewer than N survivors,
    with explicit zeros. Settings: ``n`` (1 or 2), ``m`` (up to 16) and ``chunk`` (up to 256).

    Notes
    -----
    In the source every pattern occurs g times in a chunk, so that a mask must give up magnitude for
    equal counts. Here counts are stored instead, a few bytes for a run of columns: the kernel needs
    a run to be long, not to be as long as the others. Any support that is N:M along the outputs
    fits, and g takes no part.

    The source's registries of layouts, operators and sparsifiers are in its experiment. The
    library has two of the three: any subclass of :class:`~thresher.run.layouts.base.Layout`, and
    of :class:`~thresher.parts.patterns.base.Pattern`, takes part.
    """

    name = "n:m:g"
    card = Card(
        name="sten",
        title="STen: Productive and Efficient Sparsity in PyTorch",
        authors="Andrei Ivanov et al.",
        year=2023,
        arxiv="2304.07613",
        summary="N of M outputs, columns sorted by which they keep; layouts of one's own take part",
    )
    patterns = NofM.patterns
    """Looked for when none is named, smallest first."""

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices that fit none of `patterns`, or hardly fill the one they fit."""
        found = cls.find_pattern(weight)
        return refuse_groups(weight, found, cls.patterns, " along the outputs")

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep the two largest weights of every four rows in each column."""
        whole = nn.functional.pad(weight, (0, 0, 0, -weight.shape[0] % 4))
        mask = NM(2, 4, "outputs").mask(whole.abs(), whole.numel() // 2)
        return weight * mask[: weight.shape[0]]

    @classmethod
    def find_pattern(cls, weight: Tensor) -> tuple[int, int] | None:
        """Return the first of `patterns` that a matrix satisfies along its rows."""
        for n, m in cls.patterns:
            if _most_in_groups(weight, m) <= n:
                return n, m
        return None

    @classmethod
    def from_dense(
        cls, weight: Tensor, n: int | None = None, m: int | None = None, chunk: int = _CHUNK
    ) -> Self:
        """Pack a dense matrix.

        Parameters
        ----------
        weight : Tensor
            Shape (rows, columns).
        n, m : int, optional
            The pattern; found among `patterns` when left out.
        chunk : int, default 256
            Columns that are sorted together: enough for long runs of one pattern, few enough for
            their inputs to stay in the cache.

        Raises
        ------
        LayerError
            If a column of a group of `m` rows holds more than `n` survivors, or the kernel has no
            such `n` and `m`.
        OptionError
            If `chunk` is not in 1..256.
        """
        if not 1 <= chunk <= 256:
            raise OptionError(f"chunk={chunk} must be 1 to 256 columns")
        if n is None or m is None:
            found = cls.find_pattern(weight)
            if found is None:
                raise LayerError(f"a matrix of shape {tuple(weight.shape)}: {cls.refusal(weight)}")
            n, m = found
        if _most_in_groups(weight, m) > n:
            raise LayerError(
                f"a matrix of shape {tuple(weight.shape)} is not {n}:{m} sparse along the outputs"
            )
        rows, columns = weight.shape
        groups = _grouped(weight.detach(), m).transpose(1, 2)
        kept, pattern = _patterns_of(groups, n)
        patterns, chunks = len(_pattern_rows(n, m)), -(-columns // chunk)
        run = torch.arange(columns) // chunk * patterns + pattern
        order = run.sort(dim=1, stable=True).indices
        counts = torch.zeros(len(groups), chunks * patterns, dtype=torch.int64)
        counts.scatter_add_(1, run, torch.ones_like(run))
        tensors = {
            "counts": counts.reshape(len(groups), chunks, patterns).to(torch.uint16),
            "indices": (order % chunk).to(torch.uint8),
            "values": groups.gather(-1, kept)
            .gather(1, order[..., None].expand(-1, -1, n))
            .contiguous(),
        }
        return cls(tensors, (rows, columns), {"n": n, "m": m, "chunk": chunk})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what counts, indices and values must look like."""
        n, m, chunk = integers(settings, "n", "m", "chunk")
        if not 1 <= n <= min(2, m) or m > _MOST_M or not 1 <= chunk <= _CHUNK:
            raise LayerError(
                f"there is no {n}:{m} along the outputs in chunks of {chunk}: n must be 1 or 2, m "
                f"at most {_MOST_M}, and a chunk 1 to {_CHUNK} columns"
            )
        groups, chunks = -(-shape[0] // m), -(-shape[1] // chunk)
        return {
            "counts": Buffer((torch.uint16,), (groups, chunks, math.comb(m, n))),
            "indices": Buffer((torch.uint8,), (groups, shape[1])),
            "values": Buffer(FLOATS, (groups, shape[1], n)),
        }

    def bind(self) -> Any:
        """Bind counts, indices and values."""
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        counts = self.take("counts", torch.uint16)
        indices = self.take("indices", torch.uint8)
        n, m, chunk = (self.setting(key) for key in ("n", "m", "chunk"))
        matrix = _run.GroupedNM(counts, indices, values, *self.shape, n, m, chunk)
        if below := self.shape[0] % m:
            patterns = _pattern_rows(n, m)
            kinds = torch.arange(len(patterns)).repeat(counts.shape[1])
            outside = patterns[kinds.repeat_interleave(counts[-1].flatten().long())] >= below
            refuse_outside(values[-1][outside], "values")
        return matrix

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        rows, columns = self.shape
        n, m, chunk = (self.setting(key) for key in ("n", "m", "chunk"))
        groups, chunks = -(-rows // m), -(-columns // chunk)
        patterns = _pattern_rows(n, m).to(self.device)
        runs = torch.arange(len(patterns), device=self.device).repeat(groups * chunks)
        counts = self._tensors["counts"].flatten().long()
        pattern = runs.repeat_interleave(counts).reshape(groups, columns)
        column = self._tensors["indices"].reshape(groups, columns).long()
        column = column + torch.arange(columns, device=self.device) // chunk * chunk
        place = column[..., None] * m + patterns[pattern]
        blocks = torch.zeros(groups, columns * m, dtype=self.dtype, device=self.device)
        values = self._tensors["values"].reshape(groups, columns * n)
        blocks.scatter_(1, place.reshape(groups, columns * n), values)
        stored = blocks.reshape(groups, columns, m).transpose(1, 2)
        return stored.reshape(groups * m, columns)[:rows].clone()


def _grouped(matrix: Tensor, m: int) -> Tensor:
    """Return a matrix as (groups, m, columns), padded with zeros."""
    padded = nn.functional.pad(matrix, (0, 0, 0, -matrix.shape[0] % m))
    return padded.reshape(padded.shape[0] // m, m, matrix.shape[1])


def _most_in_groups(weight: Tensor, m: int) -> int:
    """Return the largest number of survivors in a column of a group of `m` rows."""
    if weight.numel() == 0:
        return 0
    return int((_grouped(weight, m) != 0).sum(1).max())


def _pattern_rows(n: int, m: int) -> Tensor:
    """Return the rows of every pattern in lexicographic order, (C(m, n), n)."""
    return torch.tensor(list(itertools.combinations(range(m), n))).reshape(-1, n)


def _patterns_of(groups: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the rows that each column of (groups, columns, m) keeps, and which pattern that is."""
    m = groups.shape[-1]
    # A stable sort of "is zero" puts the survivors first, each kind in row order.
    kept = (groups == 0).to(torch.uint8).sort(dim=-1, stable=True).indices[..., :n]
    kept = kept.sort(dim=-1).values
    digits = m ** torch.arange(n)
    number = torch.zeros(m**n, dtype=torch.int64)
    patterns = _pattern_rows(n, m)
    number[(patterns * digits).sum(1)] = torch.arange(len(patterns))
    return kept, number[(kept * digits).sum(-1)]
