"""Bitmask and N:M: the survivors in row order, and which columns they came from."""

from __future__ import annotations

__all__ = ["Bitmask", "NofM"]

import functools
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from thresher.core.errors import LayerError
from thresher.core.top_k import top_k_mask

from .. import _run, cuda
from . import formats
from .buffers import Buffer, integers
from .kernel import KernelLayout, value_dtypes


class Bitmask(KernelLayout):
    """One bit per weight and the survivors, for unstructured sparsity.

    Buffers: ``bitmask``, uint8 (rows, ceil(columns / 8)), where bit ``j`` of byte ``b`` (lowest
    first) is column ``8 * b + j``; ``values``, (survivors,) in row-major order. At density
    ``d`` a bfloat16 matrix takes ``d + 1/16`` of its dense bytes.
    """

    name = "bitmask"

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices so dense that the mask outweighs the zeros saved."""
        saved = weight.numel() - int(torch.count_nonzero(weight))
        if saved * weight.element_size() * 8 <= weight.numel():
            return "too dense: the mask takes more bytes than the zeros"
        return None

    @classmethod
    def refusal_on(cls, device: torch.device) -> str | None:
        """Refuse devices other than the CPU and, where Triton is installed, CUDA."""
        return cuda.refusal(device)

    @classmethod
    def from_dense(cls, weight: Tensor) -> Self:
        """Pack a dense matrix."""
        tensors = formats.bitmask_parts(weight.detach(), weight != 0)
        return cls(tensors, (weight.shape[0], weight.shape[1]), {})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what mask and values must look like."""
        integers(settings)
        return formats.bitmask_buffers(*shape)

    def bind(self) -> Any:
        """Bind mask and values."""
        mask = self.take("bitmask", torch.uint8)
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        return _run.Bitmask(mask, values, *self.shape)

    def multiply_on_cuda(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x @ W.T + bias`` from the Triton kernel."""
        mask, values = self._tensors["bitmask"], self._tensors["values"]
        kernels = cuda.kernels(self.name)
        product: Tensor = kernels.multiply(x, mask, values, self._chunk_starts, self.shape[0], bias)
        return product

    @functools.cached_property
    def _chunk_starts(self) -> Tensor:
        """Where the values of each row's chunks begin, for programs that start anywhere."""
        starts: Tensor = cuda.kernels(self.name).chunk_starts(self._tensors["bitmask"])
        return starts

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        kept = formats.bitmask_support(self._tensors["bitmask"], *self.shape, self.name)
        dense[kept] = self._tensors["values"]
        return dense


class NofM(KernelLayout):
    """N survivors in every group of M consecutive columns of a row, such as 2:4.

    Buffers: ``values``, (rows, columns * N / M) in column order; ``indices``, uint8, the
    positions within each group, ``ceil(log2 M)`` bits each, packed lowest bit first, each row
    padded to whole bytes. Groups with fewer than N survivors are filled with explicit zeros.
    Settings: ``n`` and ``m``.
    """

    name = "n:m"
    patterns: tuple[tuple[int, int], ...] = ((1, 8), (1, 4), (2, 8), (2, 4))
    """Looked for when none is named, smallest first; none takes more room than a bitmask."""

    @classmethod
    def refusal(cls, weight: Tensor) -> str | None:
        """Refuse matrices that fit none of `patterns`, or hardly fill the one they fit."""
        return refuse_groups(weight, cls.find_pattern(weight), cls.patterns)

    @classmethod
    def example(cls, weight: Tensor) -> Tensor | None:
        """Keep the two largest weights of every four."""
        rows, columns = weight.shape[0], weight.shape[1] // 4 * 4
        groups = weight[:, :columns].reshape(rows, columns // 4, 4)
        return (groups * top_k_mask(groups.abs(), 2)).reshape(rows, columns)

    @classmethod
    def find_pattern(cls, weight: Tensor) -> tuple[int, int] | None:
        """Return the first of `patterns` that a matrix satisfies."""
        for n, m in cls.patterns:
            if weight.shape[1] % m == 0 and formats.most_in_groups(weight != 0, m) <= n:
                return n, m
        return None

    @classmethod
    def from_dense(cls, weight: Tensor, n: int | None = None, m: int | None = None) -> Self:
        """Pack a dense matrix.

        Parameters
        ----------
        weight : Tensor
            Shape (rows, columns).
        n, m : int, optional
            The pattern; found among `patterns` when left out.

        Raises
        ------
        LayerError
            If a group of `m` columns holds more than `n` survivors, or `m` does not divide the
            columns.
        """
        if n is None or m is None:
            found = cls.find_pattern(weight)
            if found is None:
                raise LayerError(f"a matrix of shape {tuple(weight.shape)}: {cls.refusal(weight)}")
            n, m = found
        rows, columns = weight.shape
        kept = weight != 0
        if columns % m or formats.most_in_groups(kept, m) > n:
            raise LayerError(f"a matrix of shape {tuple(weight.shape)} is not {n}:{m} sparse")
        tensors = formats.position_parts(weight.detach(), kept, n, m)
        return cls(tensors, (rows, columns), {"n": n, "m": m})

    @classmethod
    def expected(cls, shape: tuple[int, int], settings: Mapping[str, int]) -> dict[str, Buffer]:
        """Return what indices and values must look like."""
        return formats.position_buffers(*shape, *integers(settings, "n", "m"))

    def bind(self) -> Any:
        """Bind indices and values."""
        indices = self.take("indices", torch.uint8)
        values = self.take("values", *value_dtypes)
        self.dtype = values.dtype
        return _run.NofM(indices, values, *self.shape, self.setting("n"), self.setting("m"))

    def to_dense(self) -> Tensor:
        """Return the dense matrix."""
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        n, m = self._settings["n"], self._settings["m"]
        tensors = self.tensors()
        kept = formats.position_support(tensors["indices"], *self.shape, n, m, self.name)
        dense[kept] = tensors["values"].flatten()
        return dense


def refuse_groups(
    weight: Tensor,
    found: tuple[int, int] | None,
    patterns: tuple[tuple[int, int], ...],
    along: str = "",
) -> str | None:
    """Return why a matrix does not go into an N:M layout, or None if `found` describes it well."""
    if found is None:
        names = ", ".join(f"{n}:{m}" for n, m in patterns)
        return f"not N:M sparse{along} (looked for {names})"
    n, m = found
    if int(torch.count_nonzero(weight)) < 0.6 * n / m * weight.numel():
        return f"{n}:{m}{along} would store mostly zeros"
    return None
